package jobs_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
)

// settleAll ends what waits for an endpoint, and tells how many deliveries that were.
func settleAll(t *testing.T, store outbox.Operable, endpoint string, state outbox.State) (n int) {
	t.Helper()
	for ; ; n++ {
		c, err := store.Counts(t.Context())
		testkit.Must(t, err)
		if c[endpoint].Pending == 0 {
			time.Sleep(time.Millisecond)
			return n
		}
		claims, err := store.Claim(t.Context(), outbox.ClaimRequest{Endpoint: endpoint, Max: 1, Lease: time.Hour})
		testkit.Must(t, err)
		testkit.Must(t, store.Settle(t.Context(), claims[0], outbox.Settlement{State: state, Attempt: outbox.Attempt{N: 1, Started: time.Now(), Code: "http_400"}}))
	}
}

// However often the failures of an endpoint are sent again, an event goes out once each time, and not after it was delivered.
func TestEachEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 3, "a", outbox.Failed)
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		sends := func(filter string, to string) string {
			t.Helper()
			job := w.over(w.start(jobs.Job{Action: outbox.Redeliver, To: to}, filter).ID)
			return fmt.Sprintf("matched %d, sent %d, %s", job.Matched, job.Done, skipped(job))
		}
		want := func(want, got string) {
			t.Helper()
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		for round := range 3 {
			repeats := ""
			if round > 0 {
				repeats = fmt.Sprintf("repeat %d", 3*round)
			}
			want(fmt.Sprintf("matched %d, sent 3, %s", 3+3*round, repeats), sends("endpoint=a&state=failed", ""))
			want(fmt.Sprintf("matched %d, sent 0, on_its_way %d", 3+3*round, 3+3*round), sends("endpoint=a&state=failed", ""))
			settleAll(t, m, "a", outbox.Failed)
		}
		want("matched 3, sent 3, ", sends("endpoint=a&state=failed&resent=false", ""))
		settleAll(t, m, "a", outbox.Delivered)
		want("matched 12, sent 0, delivered_since 12", sends("endpoint=a&state=failed", ""))
		want("matched 0, sent 0, ", sends("endpoint=a&state=failed&resent=false", ""))

		// An operator who means to send again what arrived can, each event once.
		want("matched 15, sent 3, repeat 12", sends("endpoint=a&state=failed&state=delivered", ""))
		settleAll(t, m, "a", outbox.Delivered)
		want("matched 6, sent 3, repeat 3", sends("endpoint=a&state=success", ""))
		want("matched 18, sent 0, on_its_way 18", sends("endpoint=a&state=failed&state=delivered", ""))
		settleAll(t, m, "a", outbox.Delivered)

		// Another endpoint gets each event once, whatever a has.
		want("matched 12, sent 3, repeat 9", sends("endpoint=a&state=failed", "b"))
		want("matched 12, sent 0, on_its_way 12", sends("endpoint=a&state=failed", "b"))
		settleAll(t, m, "b", outbox.Delivered)
		want("matched 12, sent 0, delivered_since 12", sends("endpoint=a&state=failed", "b"))
	})
}

// A job of deliveries that are repeats of each other is ended after each of its calls. Each event is sent once, and the
// counts are those of a job that nothing ends.
func TestCrashesAmidRepeats(t *testing.T) {
	for crash := 1; ; crash++ {
		reached := false
		synctest.Test(t, func(t *testing.T) {
			m := open(t, outboxtest.MemOptions{})
			accept(t, m, "f", 12, "a", outbox.Failed)
			for _, i := range all(t, m, outbox.Filter{}) {
				_, err := m.Edit(t.Context(), []outbox.Change{{Action: outbox.Redeliver, Delivery: i.ID, Once: "job_old." + i.ID}})
				testkit.Must(t, err)
			}
			settleAll(t, m, "a", outbox.Failed)
			w := newWorld(t, m)
			job := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 5}, "state=failed")
			calls := 0
			end := func() {
				if calls++; calls == crash {
					reached = true
					testkit.Must(t, m.Close())
				}
			}
			w.box.set(func(string) error { end(); return nil })
			w.box.after = func(string) { end() }
			w.run()
			for range 1000 {
				time.Sleep(100 * time.Millisecond)
				if got, err := w.jobs.Get(t.Context(), job.ID); err != nil || got.State.Over() {
					break
				}
			}
			w.stop()
			m = m.Crash()
			again := newWorld(t, m)
			again.run()
			defer again.stop()
			job = again.over(job.ID)
			if job.State != jobs.Done || job.Done != 12 || skipped(job) != "repeat 12" {
				t.Errorf("crash at call %d: done %d, skipped %s", crash, job.Done, skipped(job))
			}
			times := map[string]int{}
			for _, i := range all(t, m, outbox.Filter{States: []outbox.State{outbox.Pending}}) {
				times[i.EventID]++
			}
			for id, n := range times {
				if n != 1 || !strings.HasPrefix(id, "evt_f") {
					t.Errorf("crash at call %d: %s is sent %d times", crash, id, n)
				}
			}
			if len(times) != 12 {
				t.Errorf("crash at call %d: %d events are sent", crash, len(times))
			}
		})
		if !reached {
			return
		}
	}
}
