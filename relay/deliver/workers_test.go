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
		name    string
		bursts  int
		each    int // events of a burst and endpoint, all under way at once
		resting int64
	}{
		{"one attempt after the other", 20, 1, 3}, // one ran a runner beside the attempts
		{"a burst", 2, 50, maxResting},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				// Attempts that ended at one moment might need a runner each.
				slow, slower := delivertest.Step{Delay: time.Second}, delivertest.Step{Delay: 2 * time.Second}
				a, b := w.inMemory("a", delivertest.NewEndpoint(slow)), w.inMemory("b", delivertest.NewEndpoint(slower))
				a.Concurrency, b.Concurrency = c.each, c.each
				w.start(a, b)
				for i := range c.bursts {
					w.accept(c.each, "a", "b")
					w.await(2 * c.each * (i + 1))
					synctest.Wait() // an attempt is recorded before its worker rests
				}
				if n := w.d.workers.resting.Load(); n != c.resting {
					t.Errorf("%d workers rest, want %d", n, c.resting)
				}
			})
		})
	}
}
