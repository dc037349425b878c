package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"relay/relay/deliver/delivertest"
)

// A worker makes one attempt after the other, of any endpoint, and no more of them rest than are
// worth their memory. A stop ends those that rest.
func TestWorkersRest(t *testing.T) {
	for _, c := range []struct {
		name        string
		bursts      int
		each        int // events of a burst and endpoint, all under way at once
		least, most int64
	}{
		{"one attempt after the other", 20, 1, 2, 4}, // a runner may be beside the attempt of each endpoint
		{"a burst", 2, 50, maxResting, maxResting},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				slow := delivertest.Step{Delay: time.Second}
				a, b := w.inMemory("a", delivertest.NewEndpoint(slow)), w.inMemory("b", delivertest.NewEndpoint(slow))
				a.Concurrency, b.Concurrency = c.each, c.each
				w.start(a, b)
				for i := range c.bursts {
					w.accept(c.each, "a", "b")
					w.await(2 * c.each * (i + 1))
					synctest.Wait() // an attempt is recorded before its worker rests
				}
				if n := w.d.workers.resting.Load(); n < c.least || n > c.most {
					t.Errorf("%d workers rest, want %d to %d", n, c.least, c.most)
				}
			})
		})
	}
}
