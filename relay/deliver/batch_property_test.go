package deliver

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Whatever the receiver answers, every event arrives or is refused alone, and none that
// it took comes again.
func TestBatchesLoseNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rule := policy.Batch{
			MaxEvents: rapid.IntRange(1, 8).Draw(rt, "max_events"),
			MaxWait:   time.Duration(rapid.IntRange(0, 2000).Draw(rt, "max_wait")) * time.Millisecond,
			MaxBytes:  int64(rapid.IntRange(1, 2000).Draw(rt, "max_bytes")),
			Split:     true,
		}
		slots := rapid.IntRange(1, 4).Draw(rt, "concurrency")
		bad := rapid.SliceOfN(rapid.IntRange(0, 30), 0, 4).Draw(rt, "bad")
		bursts := rapid.SliceOfN(rapid.IntRange(1, 12), 1, 5).Draw(rt, "bursts")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 3000), 5, 5).Draw(rt, "pauses")
		steps := rapid.SliceOfN(rapid.SampledFrom([]int{200, 200, 503, 429}), 1, 10).Draw(rt, "steps")
		reload := rapid.Bool().Draw(rt, "reload")

		taken, refused, accepted := map[string]int{}, map[string]bool{}, 0
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint()
			var badIDs []string
			for _, n := range bad {
				badIDs = append(badIDs, fmt.Sprintf("evt_billing_%d", n))
			}
			var mu sync.Mutex
			n := 0
			receiver.Answer = func(r *delivertest.Request) delivertest.Step {
				mu.Lock()
				defer mu.Unlock()
				step := refuse(badIDs...)(r)
				if n++; n <= len(steps) && steps[n-1] != 200 {
					step.Status = steps[n-1]
				}
				step.Delay = time.Duration(n%3) * time.Second
				if step.Status == 0 {
					for _, id := range eventsOf(t, r.Body) {
						taken[id]++
					}
				}
				return step
			}
			e := w.batched(receiver, 1)
			e.Batch, e.Concurrency = &rule, slots
			e.Retry.Schedule = slices.Repeat([]time.Duration{time.Hour}, 20) // one delivery may meet all the steps
			w.start(e)
			for i, n := range bursts {
				w.accept(n, "billing")
				accepted += n
				time.Sleep(time.Duration(pauses[i]) * time.Millisecond)
				if reload {
					w.apply(but(e, func(e *policy.Endpoint) { e.Description = fmt.Sprint(i) }))
				}
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			counts, err := w.store.Counts(t.Context())
			if err != nil || counts["billing"].Pending != 0 {
				t.Errorf("still pending: %+v, %v", counts["billing"], err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, r := range w.results {
				if r.State == outbox.Failed {
					refused[r.EventID] = true
				}
			}
		})
		for i := range accepted {
			id := fmt.Sprintf("evt_billing_%d", i)
			if isBad := slices.Contains(bad, i); isBad != refused[id] || !isBad && taken[id] != 1 || isBad && taken[id] != 0 {
				rt.Errorf("%s: bad %t, failed %t, taken %d times", id, isBad, refused[id], taken[id])
			}
		}
	})
}
