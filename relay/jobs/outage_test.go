package jobs_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
)

// What goes wrong at the outbox for a while delays a job.
func TestOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 60, "a", outbox.Failed)
		calls, asked := 0, 0
		w := newWorld(t, m, func(o *jobs.Options) {
			o.Endpoints = func(ctx context.Context) (map[string]bool, error) {
				switch asked++; asked % 3 {
				case 0:
					return known(ctx)
				case 1:
					return nil, fmt.Errorf("ask: %w", outbox.ErrUnavailable)
				}
				return nil, fmt.Errorf("ask: %w", context.DeadlineExceeded)
			}
		})
		w.run()
		defer w.stop()
		id := w.start(jobs.Job{Action: outbox.Redeliver, Rate: 20}, "state=failed").ID
		w.box.set(func(string) error {
			if calls++; calls%3 != 0 {
				return fmt.Errorf("edit: %w", outbox.ErrUnavailable)
			}
			return nil
		})
		job := w.over(id)
		if job.State != jobs.Done || job.Done != 60 || skipped(job) != "" || len(repeats(t, m)) != 60 {
			t.Errorf("job: %+v", job)
		}
	})
}

func TestFullOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{MaxBytes: 40*1024 + 20*512 + 40*7 + 100})
		accept(t, m, "f", 40, "a", outbox.Failed)
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		id := w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed").ID
		time.Sleep(time.Minute)
		job, err := w.jobs.Get(t.Context(), id)
		testkit.Must(t, err)
		if job.State != jobs.Running || job.Done != 20 || job.Error == "" || skipped(job) != "" {
			t.Fatalf("in a full outbox: %+v", job)
		}
		for range 20 { // ended and reaped
			claims, err := m.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
			testkit.Must(t, err)
			testkit.Must(t, m.Settle(t.Context(), claims[0], outbox.Settlement{State: outbox.Delivered}))
		}
		time.Sleep(time.Second)
		_, err = m.Edit(t.Context(), nil)
		testkit.Must(t, err)
		_, _, err = m.Reap(t.Context(), outbox.Retention{Failed: 1000 * time.Hour})
		testkit.Must(t, err)
		_, _, err = m.Reap(t.Context(), outbox.Retention{})
		testkit.Must(t, err)
		job = w.over(id)
		if job.State != jobs.Done || job.Error != "" || job.Seen() != 40 {
			t.Errorf("after there was room: %+v", job)
		}
	})
}

// A cursor that the outbox does not know any more makes a job begin again, and nothing is done twice.
func TestCursorIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		accept(t, m, "f", 50, "a", outbox.Failed)
		w := newWorld(t, m)
		calls := 0
		w.box.set(func(call string) error {
			if call == "Deliveries" {
				if calls++; calls == 3 {
					return outbox.ErrCursor
				}
			}
			return nil
		})
		w.run()
		defer w.stop()
		job := w.over(w.start(jobs.Job{Action: outbox.Redeliver, Rate: 5}, "state=failed").ID)
		if job.State != jobs.Done || job.Done != 50 || len(repeats(t, m)) != 50 || len(all(t, m, outbox.Filter{Manual: new(true)})) != 50 {
			t.Errorf("job: %+v", job)
		}
		w.box.set(func(call string) error {
			if call == "Deliveries" {
				return outbox.ErrCursor
			}
			return nil
		})
		job = w.over(w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed").ID)
		if job.State != jobs.Broken || job.Error == "" {
			t.Errorf("job without a cursor that is known: %+v", job)
		}
	})
}

// An outbox that lost its data has other jobs, whose revisions begin again.
func TestLostOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, outboxtest.MemOptions{})
		w := newWorld(t, m)
		w.run()
		defer w.stop()
		for range 3 {
			w.over(w.start(jobs.Job{Action: outbox.Discard}, "state=pending").ID)
		}
		w.box.other.Store(open(t, outboxtest.MemOptions{}))
		time.Sleep(time.Second)
		accept(t, m, "f", 5, "a", outbox.Failed)
		job := w.start(jobs.Job{Action: outbox.Redeliver}, "state=failed")
		begin := time.Now()
		if job = w.over(job.ID); job.Done != 5 || time.Since(begin) > 2*time.Minute {
			t.Errorf("job of the new data: %+v", job)
		}
	})
}
