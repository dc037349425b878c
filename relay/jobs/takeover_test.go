package jobs_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
)

// TestCrashes ends the outbox after each call in turn, before or after a change, as kill -9 does.
func TestCrashes(t *testing.T) {
	const n = 24
	for _, action := range []outbox.Action{outbox.Redeliver, outbox.Discard, outbox.Retry, outbox.Erase} {
		for crash := 1; ; crash++ {
			reached := false
			synctest.Test(t, func(t *testing.T) {
				m := open(t, outboxtest.MemOptions{})
				state := outbox.Failed
				if action == outbox.Discard || action == outbox.Retry {
					state = outbox.Pending
				}
				accept(t, m, "f", n, "a", state)
				filter := "state=" + string(state)
				w := newWorld(t, m)
				job := w.start(jobs.Job{Action: action, Rate: 5}, filter)
				calls := 0
				count := func() bool { calls++; return calls == crash }
				w.box.set(func(string) error {
					if count() {
						reached = true
						testkit.Must(t, m.Close())
					}
					return nil
				})
				w.box.after = func(string) {
					if count() {
						reached = true
						testkit.Must(t, m.Close())
					}
				}
				w.run()
				for range 1000 {
					time.Sleep(100 * time.Millisecond)
					if got, err := w.jobs.Get(t.Context(), job.ID); err != nil || got.State.Over() {
						break // crashed, or done
					}
				}
				w.stop()

				m = m.Crash()
				again := newWorld(t, m)
				again.run()
				defer again.stop()
				job = again.over(job.ID)
				if job.State != jobs.Done || job.Done != n || skipped(job) != "" {
					t.Errorf("%s with a crash at call %d: done %d, skipped %s: %+v", action, crash, job.Done, skipped(job), job)
				}
				if made := repeats(t, m); action == outbox.Redeliver && len(made) != n {
					t.Errorf("crash at call %d: %d were redelivered, want %d", crash, len(made), n)
				}
				for id, times := range repeats(t, m) {
					if times != 1 {
						t.Errorf("crash at call %d: %s was redelivered %d times", crash, id, times)
					}
				}
			})
			if !reached {
				if crash < 20 {
					t.Errorf("%s took %d calls only", action, crash)
				}
				break
			}
		}
	}
}

// A Relay that stops hands its jobs over at once.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 40, "a", outbox.Failed)
		w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
		w.run()
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 2}, "state=failed").ID
		time.Sleep(5 * time.Second)
		w.stop()
		job, err := w.jobs.Get(t.Context(), id)
		testkit.Must(t, err)
		if job.State != jobs.Waiting || job.Done < 8 || job.Done > 12 {
			t.Errorf("after a stop: %+v", job)
		}
		begin := time.Now()
		other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
		other.run()
		defer other.stop()
		job = other.over(id)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("the rest took %v: the lease of who stopped was waited for", took)
		}
		if job.Done != 40 || job.Relay != "relay-2" || len(repeats(t, m)) != 40 {
			t.Errorf("job: %+v", job)
		}
	})
}

// A Relay that died is followed at once by one of the same name, and by others after its lease.
func TestSuccessor(t *testing.T) {
	for name, least := range map[string]time.Duration{"relay-1": 0, "relay-2": 9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, outboxtest.MemOptions{Shared: true})
			accept(t, m, "f", 40, "a", outbox.Failed)
			w := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone = false })
			w.run()
			defer w.stop()
			id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 2}, "state=failed").ID
			time.Sleep(5 * time.Second)
			testkit.Must(t, w.box.Close())
			dead := time.Now()
			next := newWorld(t, m, func(o *jobs.Options) { o.Alone, o.Relay = false, named(name) })
			next.run()
			defer next.stop()
			if job := next.over(id); job.Done != 40 || len(repeats(t, m)) != 40 {
				t.Errorf("job: %+v", job)
			}
			if after := next.box.edited()[0].at.Sub(dead); after < least || after > least+15*time.Second || least == 0 && after > time.Second {
				t.Errorf("%s goes on after %v", name, after)
			}
		})
	}
}

// Of the Relays of a fleet one works on a job. When it dies another one goes on after its lease.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 200, "a", outbox.Failed)
		var all []*world
		for i := range 3 {
			joined := m.Join()
			w := newWorld(t, joined, func(o *jobs.Options) { o.Alone, o.Relay = false, named(fmt.Sprintf("relay-%d", i+1)) })
			w.run()
			defer w.stop()
			all = append(all, w)
		}
		id := all[0].start(jobs.Job{Action: outbox.Redeliver, Rate: 10}, "state=failed").ID
		time.Sleep(7 * time.Second)
		busy := -1
		for i, w := range all {
			if len(w.box.edited()) > 0 {
				if busy >= 0 {
					t.Errorf("Relays %d and %d work on the job at the same time", busy, i)
				}
				busy = i
			}
		}
		if busy < 0 {
			t.Fatal("no Relay works on the job")
		}
		testkit.Must(t, all[busy].box.Close()) // without a word to the others
		dead := time.Now()
		rest := all[(busy+1)%3]
		job := rest.over(id)
		if job.Done != 200 || job.State != jobs.Done || len(repeats(t, m)) != 200 {
			t.Errorf("job: %+v", job)
		}
		for id, times := range repeats(t, m) {
			if times != 1 {
				t.Errorf("%s was redelivered %d times", id, times)
			}
		}
		for i, w := range all {
			if i == busy || len(w.box.edited()) == 0 {
				continue
			}
			if after := w.box.edited()[0].at.Sub(dead); after < 5*time.Second || after > 25*time.Second {
				t.Errorf("another Relay went on after %v, want about the lease", after)
			}
		}
	})
}
