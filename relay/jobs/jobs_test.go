package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
)

func TestRedeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 250, "a", outbox.Failed)
		accept(t, m, "d", 5, "a", outbox.Delivered)
		accept(t, m, "o", 5, "b", outbox.Failed)
		accept(t, m, "g", 5, "gone", outbox.Failed)
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		job := w.start(jobs.Job{Action: outbox.Redeliver}, "endpoint=a&endpoint=gone&state=failed")
		if job.State != jobs.Waiting || job.Created.IsZero() {
			t.Errorf("new job: %+v", job)
		}
		job = w.over(job.ID)
		if job.State != jobs.Done || job.Done != 250 || skipped(job) != "endpoint_removed 5" || job.Matched != 255 || !job.Exact || job.Error != "" {
			t.Errorf("job: %+v", job)
		}
		if job.Started.Before(job.Created) || job.Ended.Before(job.Started) || job.Relay != "relay-1" || job.Who != "support" {
			t.Errorf("job: %+v", job)
		}
		n := repeats(t, m)
		for _, i := range all(t, m, outbox.Filter{Endpoints: []string{"a"}, States: []outbox.State{outbox.Failed}}) {
			if n[i.ID] != 1 {
				t.Errorf("%s was redelivered %d times", i.ID, n[i.ID])
			}
		}
		if len(n) != 250 {
			t.Errorf("%d deliveries were redelivered, want 250", len(n))
		}
		if w.log.Count(job.ID) != 2 || audited(t, m, job.ID) != 1 || w.log.Count(`"error"`) != 0 || audited(t, m, `"error"`) != 0 {
			t.Errorf("log:\n%s", w.log)
		}

		// To another endpoint; a second job makes one more of each.
		job = w.over(w.start(jobs.Job{Action: outbox.Redeliver, To: "b"}, "state=failed&endpoint=gone&endpoint=b").ID)
		if job.Done != 10 || skipped(job) != "" {
			t.Errorf("job to another endpoint: %+v", job)
		}
		if got := len(all(t, m, outbox.Filter{Endpoints: []string{"b"}, Manual: new(true)})); got != 10 {
			t.Errorf("%d redeliveries at b, want 10", got)
		}
	})
}

// What a job makes is none of its own work, however fast it fails.
func TestNotItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 30, "a", outbox.Failed)
		w := newWorld(t, m)
		w.box.after = func(call string) {
			if call != "Edit" {
				return
			}
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				claims, err := m.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 100, Lease: time.Hour})
				cancel()
				if err != nil {
					return
				}
				for _, c := range claims {
					testkit.Must(t, m.Settle(t.Context(), c, outbox.Settlement{State: outbox.Failed}))
				}
			}
		}
		w.run()
		defer w.stop()
		job := w.over(w.start(jobs.Job{Action: outbox.Redeliver, Rate: 10}, "state=failed").ID)
		if job.Done != 30 || skipped(job) != "" {
			t.Errorf("job: %+v", job)
		}
	})
}

func TestOtherActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "later", 20, "a", outbox.Pending)
		accept(t, m, "due", 10, "a", "")
		accept(t, m, "f", 7, "b", outbox.Failed)
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		job := w.over(w.start(jobs.Job{Action: outbox.Retry}, "endpoint=a").ID)
		if job.Done != 20 || skipped(job) != "already 10" {
			t.Errorf("retry: %+v", job)
		}
		claims, err := m.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 5, Lease: time.Hour})
		testkit.Must(t, err)
		job = w.over(w.start(jobs.Job{Action: outbox.Discard}, "until=0s").ID)
		if job.Done != 25 || skipped(job) != "under_way 5, failed 7" {
			t.Errorf("discard: %+v, %s", job, skipped(job))
		}
		item := all(t, m, outbox.Filter{States: []outbox.State{outbox.Discarded}})[0]
		if item.Code != jobs.CodeDiscarded {
			t.Errorf("discarded: %+v", item)
		}
		_, err = m.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_twice", Type: "t"}, Endpoints: []string{"c", "d"}}}})
		testkit.Must(t, err)
		time.Sleep(time.Millisecond)
		job = w.over(w.start(jobs.Job{Action: outbox.Erase}, "until=0s").ID)
		if job.Done != 32 || skipped(job) != "pending 6" { // 5 are claimed, one event waits at two endpoints
			t.Errorf("erase: %+v, %s", job, skipped(job))
		}
		job = w.over(w.start(jobs.Job{Action: outbox.Erase, Force: true}, "until=0s").ID)
		if job.Done != 6 || skipped(job) != "already 32" {
			t.Errorf("erase with force: %+v, %s", job, skipped(job))
		}
		if err := m.Settle(t.Context(), claims[0], outbox.Settlement{State: outbox.Delivered}); !errors.Is(err, outbox.ErrLeaseLost) {
			t.Errorf("Settle of what was erased: %v", err)
		}
		job = w.over(w.start(jobs.Job{Action: outbox.Redeliver}, "endpoint=a&endpoint=b").ID)
		if job.Done != 0 || skipped(job) != "erased 37" {
			t.Errorf("redeliver of what was erased: %+v, %s", job, skipped(job))
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 100, "a", outbox.Failed)
		w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
		waiting := w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed")
		job, err := w.jobs.Cancel(t.Context(), waiting.ID, "boss")
		testkit.Must(t, err)
		if job.State != jobs.Cancelled || job.CancelledBy != "boss" || job.Ended.IsZero() {
			t.Errorf("cancelled before it began: %+v", job)
		}
		if job, err := w.jobs.Cancel(t.Context(), waiting.ID, "other"); !errors.Is(err, jobs.ErrOver) || job.CancelledBy != "boss" {
			t.Errorf("cancelled twice: %+v, %v", job, err)
		}
		if _, err := w.jobs.Cancel(t.Context(), "job_absent", "other"); !errors.Is(err, outbox.ErrNotFound) {
			t.Errorf("cancel of no job: %v", err)
		}

		w.run()
		defer w.stop()
		other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 1}, "state=failed").ID
		time.Sleep(10 * time.Second)
		job, err = other.jobs.Cancel(t.Context(), id, "boss") // at another Relay than that which works on it
		testkit.Must(t, err)
		if job.State != jobs.Running {
			t.Errorf("cancelled while it ran: %+v", job)
		}
		if _, err := w.jobs.Cancel(t.Context(), id, "other"); !errors.Is(err, jobs.ErrOver) {
			t.Errorf("cancelled twice: %v", err)
		}
		time.Sleep(2 * time.Second)
		job, err = w.jobs.Get(t.Context(), id)
		testkit.Must(t, err)
		made := len(repeats(t, m))
		if job.State != jobs.Cancelled || job.Done != int64(made) || made < 9 || made > 12 {
			t.Errorf("%d were redelivered: %+v", made, job)
		}
		time.Sleep(time.Minute)
		if after := len(repeats(t, m)); after != made {
			t.Errorf("%d were redelivered after the end", after-made)
		}
		if _, err := w.jobs.Cancel(t.Context(), id, "other"); !errors.Is(err, jobs.ErrOver) {
			t.Errorf("cancelled after its end: %v", err)
		}
	})
}

// A cancel that ends the work between a write that comes too late and the look at what was faster ends the job at once:
// it does not wait for the end of the lease.
func TestCancelAmidConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{Shared: true})
		accept(t, m, "f", 100, "a", outbox.Failed)
		w := newWorld(t, m, func(o *jobs.Options) { o.Alone = false })
		other := newWorld(t, m.Join(), func(o *jobs.Options) { o.Alone, o.Relay = false, named("relay-2") })
		w.run()
		defer w.stop()
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 1}, "state=failed").ID
		time.Sleep(5500 * time.Millisecond)

		looked, conflict := make(chan struct{}), make(chan struct{})
		w.box.mu.Lock()
		w.box.read = func(call string) {
			switch call {
			case "Documents": // Run learns of the cancel
				<-conflict
			case "Document": // the work has met the conflict
				select {
				case <-conflict:
				default:
					close(conflict)
					synctest.Wait() // Run has cancelled the work
					close(looked)
				}
			}
		}
		w.box.mu.Unlock()
		_, err := other.jobs.Cancel(t.Context(), id, "boss")
		testkit.Must(t, err)
		<-looked
		synctest.Wait()
		if job, err := other.jobs.Get(t.Context(), id); err != nil || job.State != jobs.Cancelled || job.CancelledBy != "boss" {
			t.Errorf("after the work was cancelled: %+v, %v", job, err)
		}
	})
}

// What is changed while the cancel comes is counted.
func TestCancelAmidChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 100, "a", outbox.Failed)
		w := newWorld(t, m)
		var id string
		w.box.after = func(call string) {
			if call == "Edit" {
				_, err := w.jobs.Cancel(t.Context(), id, "boss")
				testkit.Must(t, err)
				synctest.Wait() // Run has cancelled the work
			}
		}
		id = w.start(jobs.Job{Action: outbox.Redeliver, Rate: 50}, "state=failed").ID
		w.run()
		defer w.stop()
		if job := w.over(id); job.State != jobs.Cancelled || job.Done == 0 || int(job.Done) != len(repeats(t, m)) {
			t.Errorf("%d were redelivered: %+v", len(repeats(t, m)), job)
		}
	})
}

func TestRateIsKept(t *testing.T) {
	for _, rate := range []float64{0.5, 3, 40, 1000} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, outboxtest.MemOptions{})
			n := min(int(20*rate)+5, 600)
			accept(t, m, "f", n, "a", outbox.Failed)
			w := newWorld(t, m)
			w.run()
			defer w.stop()
			begin := time.Now()
			job := w.over(w.start(jobs.Job{Action: outbox.Redeliver, Rate: rate}, "state=failed").ID)
			took := job.Ended.Sub(begin).Seconds()
			if most := float64(n)/rate*1.2 + 3; took > most || took < float64(n)/rate*0.8-1 {
				t.Errorf("%d at %v/s took %.1f s", n, rate, took)
			}
			edits := w.box.edited()
			for i, first := range edits {
				sum := 0
				for _, e := range edits[i:] {
					if e.at.Sub(first.at) < time.Second {
						sum += e.changes
					}
				}
				if float64(sum) > max(1, rate)*1.1 {
					t.Errorf("%d changes in a second, rate is %v", sum, rate)
				}
			}
		})
	}
}

func TestOldJobsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		w := newWorld(t, m)
		for n := range jobs.Keep + 30 {
			at := time.Now().Add(time.Duration(n) * time.Second).UTC().Format(time.RFC3339Nano)
			body := fmt.Sprintf(`{"id":"job_%04d","action":"discard","state":"done","filter":{},"who":"x","created":%q,"ended":%q}`, n, at, at)
			_, err := m.PutDocument(t.Context(), outbox.Document{Kind: "job", Name: fmt.Sprintf("job_%04d", n), Body: []byte(body)})
			testkit.Must(t, err)
		}
		w.run()
		time.Sleep(time.Second)
		w.stop()
		list, err := w.jobs.List(t.Context())
		testkit.Must(t, err)
		if len(list) != jobs.Keep || list[0].ID != "job_1029" || list[jobs.Keep-1].ID != "job_0030" {
			t.Errorf("%d jobs are kept, want the last %d", len(list), jobs.Keep)
		}
		time.Sleep(jobs.KeepFor - time.Minute)
		w.run()
		defer w.stop()
		time.Sleep(time.Hour)
		list, err = w.jobs.List(t.Context())
		testkit.Must(t, err)
		if len(list) != 0 {
			t.Errorf("%d jobs are kept after %v", len(list), jobs.KeepFor)
		}
	})
}

func TestTooManyJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		w := newWorld(t, m)
		for range jobs.MaxOpen {
			w.start(jobs.Job{Action: outbox.Discard}, "state=pending")
		}
		if _, err := w.jobs.Start(t.Context(), jobs.Job{Action: outbox.Discard}); !errors.Is(err, jobs.ErrTooMany) {
			t.Errorf("one job more: %v", err)
		}
		w.run()
		defer w.stop()
		time.Sleep(time.Minute)
		list, err := w.jobs.List(t.Context())
		testkit.Must(t, err)
		for _, job := range list {
			if job.State != jobs.Done {
				t.Errorf("job: %+v", job)
			}
		}
		w.start(jobs.Job{Action: outbox.Discard}, "state=pending")
	})
}
