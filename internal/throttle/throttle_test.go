package throttle

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Lines{Every: 10 * time.Second}
		for i, step := range []struct {
			after   time.Duration // since the step before
			kind    string
			repeats int
			ok      bool
		}{
			{0, "full", 0, true}, // the first of a kind
			{0, "full", 0, false},
			{0, "slow", 0, true}, // another kind
			{9999 * time.Millisecond, "full", 0, false},
			{time.Millisecond, "full", 2, true}, // one interval after the line, however many were left out
			{0, "full", 0, false},
			{time.Hour, "full", 1, true},
			{10 * time.Second, "full", 0, true},
			{0, "slow", 0, true},
			{0, "", 0, true},
		} {
			time.Sleep(step.after)
			if repeats, ok := l.Allow(step.kind); repeats != step.repeats || ok != step.ok {
				t.Errorf("step %d: %d, %t, want %d, %t", i, repeats, ok, step.repeats, step.ok)
			}
		}
	})
}

// Each line is written or counted once, also when many goroutines write.
func TestLinesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Lines{Every: 10 * time.Second}
		var written, repeats atomic.Int64
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for range 100 {
					if n, ok := l.Allow("full"); ok {
						written.Add(1)
						repeats.Add(int64(n))
					}
					time.Sleep(time.Second)
				}
			})
		}
		all.Wait()
		time.Sleep(10 * time.Second)
		if n, ok := l.Allow("full"); !ok || written.Load() != 10 || written.Load()+repeats.Load()+int64(n) != 6400 {
			t.Errorf("written %d, left out %d and %d (%t), of 6,400", written.Load(), repeats.Load(), n, ok)
		}
	})
}
