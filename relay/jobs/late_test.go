package jobs_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
)

// is tells whether a document is a job in that state.
func is(d outbox.Document, s jobs.State) bool {
	return bytes.Contains(d.Body, []byte(`"state":"`+string(s)+`"`))
}

// once is true at its first call.
func once() func() bool {
	var called atomic.Bool
	return func() bool { return called.CompareAndSwap(false, true) }
}

// A stop that comes while the end of a job is stored does not begin the job again: what is done is counted once, and its end is in
// log and audit, whether the outbox answers in time or not.
func TestStopAmidEnd(t *testing.T) {
	for name, down := range map[string]bool{"the outbox answers": false, "the outbox is away": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := open(t, outboxtest.MemOptions{})
				accept(t, m, "f", 12, "a", outbox.Failed)
				w := newWorld(t, m)
				stopped := make(chan struct{})
				first := once()
				w.box.put = func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) {
					if is(d, jobs.Done) && first() {
						close(stopped)
						synctest.Wait() // Run has heard of the stop
					}
					if is(d, jobs.Done) && down {
						return outbox.Document{}, outbox.ErrUnavailable
					}
					return do(ctx, d)
				}
				id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 5}, "state=failed").ID
				w.run()
				<-stopped
				w.stop()
				again := newWorld(t, m)
				again.run()
				defer again.stop()
				if job := again.over(id); job.State != jobs.Done || job.Done != 12 || len(repeats(t, m)) != 12 {
					t.Errorf("%d were redelivered: %+v", len(repeats(t, m)), job)
				}
				synctest.Wait()
				if n := w.log.Count(id) + again.log.Count(id); n != 2 || audited(t, m, id) != 1 {
					t.Errorf("%d lines in the log, %d in the audit, want 2 and 1", n, audited(t, m, id))
				}
			})
		})
	}
}

// A cancel that comes while the end of a job is stored is too late, and leaves no job behind that nobody works on.
func TestCancelAmidEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 12, "a", outbox.Failed)
		w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
		other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
		first, ended := once(), make(chan struct{})
		w.box.put = func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) {
			if is(d, jobs.Done) && first() {
				_, err := other.jobs.Cancel(t.Context(), d.Name, "boss")
				testkit.Must(t, err)
				synctest.Wait() // Run has cancelled the work
				close(ended)
			}
			return do(ctx, d)
		}
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 5}, "state=failed").ID
		w.run()
		defer w.stop()
		<-ended
		synctest.Wait()
		if job, err := other.jobs.Get(t.Context(), id); err != nil || job.State != jobs.Done || job.Done != 12 || job.CancelledBy != "boss" {
			t.Errorf("after its end: %+v, %v", job, err)
		}
	})
}

// A job is stopped, or cancelled, when its lease is stored and the answer has not come: it does not wait for the end of the lease.
func TestEndAmidBegin(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, outboxtest.MemOptions{Shared: true})
			accept(t, m, "f", 12, "a", outbox.Failed)
			w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
			other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
			first, begun, late := once(), make(chan struct{}), make(chan struct{})
			w.box.put = func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) {
				stored, err := do(ctx, d)
				if is(d, jobs.Running) && first() {
					close(begun)
					<-ctx.Done()
					close(late)
					return outbox.Document{}, ctx.Err()
				}
				return stored, err
			}
			id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 5}, "state=failed").ID
			w.run()
			<-begun
			begin := time.Now()
			if cancel {
				_, err := other.jobs.Cancel(t.Context(), id, "boss")
				testkit.Must(t, err)
				<-late
				synctest.Wait()
				if job, err := other.jobs.Get(t.Context(), id); err != nil || job.State != jobs.Cancelled || job.CancelledBy != "boss" {
					t.Errorf("after the work was cancelled: %+v, %v", job, err)
				}
				w.stop()
				return
			}
			w.stop()
			other.run()
			defer other.stop()
			job := other.over(id)
			if job.Done != 12 || job.Relay != "relay-2" || len(repeats(t, m)) != 12 {
				t.Errorf("job: %+v", job)
			}
			if took := other.box.edited()[0].at.Sub(begin); took > time.Second {
				t.Errorf("another Relay went on after %v: the lease of who stopped was waited for", took)
			}
		})
	}
}

// A cancel that comes while a Relay that stops gives a job back ends the job.
func TestCancelAmidStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 100, "a", outbox.Failed)
		w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
		other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 1}, "state=failed").ID
		first := once()
		w.box.put = func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) {
			if is(d, jobs.Waiting) && first() {
				_, err := other.jobs.Cancel(t.Context(), id, "boss")
				testkit.Must(t, err)
			}
			return do(ctx, d)
		}
		w.run()
		time.Sleep(5500 * time.Millisecond)
		w.stop()
		if job, err := other.jobs.Get(t.Context(), id); err != nil || job.State != jobs.Cancelled || int(job.Done) != len(repeats(t, m)) {
			t.Errorf("after the stop: %+v, %v", job, err)
		}
	})
}

// An end that is stored, though the outbox could not say so, is in log and audit.
func TestEndWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 12, "a", outbox.Failed)
		w := newWorld(t, m)
		first := once()
		w.box.put = func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) {
			stored, err := do(ctx, d)
			if is(d, jobs.Done) && first() {
				return outbox.Document{}, outbox.ErrUnavailable
			}
			return stored, err
		}
		w.run()
		defer w.stop()
		id := w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed").ID
		w.over(id)
		time.Sleep(time.Minute)
		if w.log.Count(id) != 2 || audited(t, m, id) != 1 {
			t.Errorf("%d lines in the audit, log:\n%s", audited(t, m, id), w.log)
		}
	})
}

// Changes that were made, though the outbox could not say so, are the job's.
func TestChangesWithoutAnswer(t *testing.T) {
	for _, action := range []outbox.Action{outbox.Discard, outbox.Retry, outbox.Redeliver} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, outboxtest.MemOptions{})
			state := outbox.Pending
			if action == outbox.Redeliver {
				state = outbox.Failed
			}
			accept(t, m, "f", 12, "a", state)
			w := newWorld(t, m)
			calls := 0
			w.box.lost = func() bool { calls++; return calls%2 == 1 }
			w.run()
			defer w.stop()
			job := w.over(w.start(jobs.Job{Action: action, Rate: 20}, "state="+string(state)).ID)
			if job.State != jobs.Done || job.Done != 12 || skipped(job) != "" {
				t.Errorf("%s: %+v", action, job)
			}
		})
	}
}

// A job whose outbox is away for a moment when it is to begin does not wait for the next look.
func TestOutageAmidBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 12, "a", outbox.Failed)
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		synctest.Wait()
		first := once()
		w.box.mu.Lock()
		w.box.away = func(call string) bool { return call == "Document" && first() }
		w.box.mu.Unlock()
		begin := time.Now()
		id := w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed").ID
		synctest.Wait()
		if job := w.over(id); job.Done != 12 || job.Ended.Sub(begin) > 2*time.Second {
			t.Errorf("it took %v: %+v", job.Ended.Sub(begin), job)
		}
	})
}
