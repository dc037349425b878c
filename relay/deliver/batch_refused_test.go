package deliver

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/relay/deliver/delivertest"
)

// refuse answers 400 when one of the events is in the body.
func refuse(ids ...string) func(*delivertest.Request) delivertest.Step {
	return func(r *delivertest.Request) delivertest.Step {
		for _, id := range ids {
			if bytes.Contains(r.Body, []byte(`"`+id+`"`)) {
				return delivertest.Step{Status: 400}
			}
		}
		return delivertest.Step{}
	}
}

// After a refusal each event goes alone, also when it has no other attempt left.
func TestRefusedBatchIsSplit(t *testing.T) {
	for _, schedule := range [][]time.Duration{nil, {time.Hour}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint()
			receiver.Answer = refuse("evt_billing_3")
			e := w.batched(receiver, 10)
			e.Retry.Schedule = schedule
			w.start(e)
			begin := time.Now()
			ids := w.accept(10, "billing")
			w.await(20)
			if took := time.Since(begin); took != 0 {
				t.Errorf("it took %s, want no wait", took)
			}
			for _, id := range ids {
				d := w.delivery(id)
				state, last := outbox.Delivered, ""
				if id == "evt_billing_3" {
					state, last = outbox.Failed, "http_400"
				}
				if d.State != state || len(d.Attempts) != 2 || d.Attempts[0].Code != "batch_refused" || d.Attempts[0].Outcome != "retry" ||
					d.Attempts[1].Code != last || d.Attempts[1].N != 2 {
					t.Errorf("delivery of %s: %+v", id, d)
				}
			}
			if got := sizes(t, receiver); got[0] != 10 || len(got) != 11 || slices.Max(got[1:]) != 1 {
				t.Errorf("requests of %v events, want 10, then 1 each", got)
			}
		})
	}
}

// The status decides for a batch as well: with a body that is cut it is refused, or delivered.
func TestBatchWithACutAnswer(t *testing.T) {
	cut := func(status int) delivertest.Step {
		return delivertest.Step{Raw: fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\nabc", status), Fault: delivertest.Close}
	}
	for _, c := range []struct {
		status int
		codes  []string // of each event's attempts
	}{
		{200, []string{"body_cut"}},
		{400, []string{"batch_refused", "http_400"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.start(w.batched(delivertest.NewEndpoint(cut(c.status)), 3))
			ids := w.accept(3, "billing")
			w.await(3 * len(c.codes))
			for _, id := range ids {
				var codes []string
				for _, a := range w.delivery(id).Attempts {
					codes = append(codes, a.Code)
				}
				if !slices.Equal(codes, c.codes) {
					t.Errorf("%d: codes %q, want %q", c.status, codes, c.codes)
				}
			}
		})
	}
}

// max_age holds for the attempt alone, too: what it comes too late for is refused for good, and its
// record promises nothing else.
func TestSplitEndsWithMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.batched(delivertest.NewEndpoint(delivertest.Step{Delay: 10 * time.Second, Status: 400}), 2)
		e.Retry.MaxAge = 5 * time.Second
		w.start(e)
		id := w.accept(2, "billing")[0]
		w.await(2)
		if d := w.delivery(id); d.State != outbox.Failed || len(d.Attempts) != 1 || d.Attempts[0].Outcome != "refused" || d.Code != "http_400" {
			t.Errorf("delivery: %+v", d)
		}
	})
}

// Without split a refusal is tried again like any failure. The same batch has the same id.
func TestRefusedBatchIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 400})
		e := w.batched(receiver, 3)
		e.Batch.Split = false
		e.Retry.Schedule, e.Retry.Jitter = []time.Duration{time.Minute, time.Hour}, 0.5
		w.start(e)
		id := w.accept(3, "billing")[0]
		w.await(9)
		if diff := cmp.Diff([]int{3, 3, 3}, sizes(t, receiver)); diff != "" {
			t.Error(diff)
		}
		for i, r := range receiver.Requests() {
			if first := receiver.Requests()[0]; r.Event != first.Event || r.Attempt != i+1 || !bytes.Equal(r.Body, first.Body) {
				t.Errorf("request %d: id %s, attempt %d", i, r.Event, r.Attempt)
			}
		}
		if d := w.delivery(id); d.State != outbox.Failed || len(d.Attempts) != 3 || d.Code != "http_400" || d.Attempts[0].Outcome != "retry" {
			t.Errorf("delivery: %+v", d)
		}
	})
}

// Each delivery of a batch goes on by its own count of attempts.
func TestBatchRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503}, delivertest.Step{Status: 503, Header: map[string]string{"Retry-After": "60"}}, delivertest.Step{})
		e := w.batched(receiver, 10)
		e.Retry.Schedule = []time.Duration{10 * time.Second}
		w.start(e)
		first := w.accept(1, "billing")[0]
		w.await(1) // after max_wait
		time.Sleep(10 * time.Second)
		second := w.accept(1, "billing")[0]
		results := w.await(3)
		if r := receiver.Requests()[1]; r.Attempt != 2 || len(eventsOf(t, r.Body)) != 2 {
			t.Errorf("second request: attempt %d, %s", r.Attempt, r.Body)
		}
		a, b := w.delivery(first), w.delivery(second)
		if a.State != outbox.Failed || a.Attempts[1].N != 2 || b.State != outbox.Pending || b.Attempts[0].N != 1 {
			t.Errorf("deliveries: %+v, %+v", a, b)
		}
		end := results[2].Attempt.Started
		if wait := w.await(4)[3].Attempt.Started.Sub(end); wait < time.Minute || wait > time.Minute+e.Batch.MaxWait || results[2].Due.Sub(end) != time.Minute {
			t.Errorf("tried after %s, as %s is told; want what the receiver asked for", wait, results[2].Due.Sub(end))
		}
	})
}

func TestBatchIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.batched(delivertest.NewEndpoint(delivertest.Step{Status: 410}), 2)
		e.Disable.OnGone = true
		w.start(e)
		ids := w.accept(4, "billing")
		w.await(2)
		synctest.Wait()
		if s, _ := w.d.StatusOf("billing"); s.State != Disabled || s.Code != ByGone {
			t.Errorf("status: %+v", s)
		}
		if d := w.delivery(ids[0]); d.State != outbox.Failed || d.Code != "gone" {
			t.Errorf("delivery: %+v", d)
		}
	})
}
