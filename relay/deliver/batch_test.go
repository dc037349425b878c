package deliver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// batched puts an endpoint with batches of up to n events, and no jitter, on the network.
func (w *world) batched(receiver *delivertest.Endpoint, n int) *policy.Endpoint {
	e := w.inMemory("billing", receiver)
	e.Retry.Jitter = 0
	e.Batch = &policy.Batch{MaxEvents: n, MaxWait: time.Second, MaxBytes: 1 << 20, Split: true}
	return e
}

// eventsOf are the ids of the events in a request.
func eventsOf(t testing.TB, body []byte) (ids []string) {
	t.Helper()
	var all []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	for _, e := range all {
		ids = append(ids, e.ID)
	}
	return ids
}

// sizes are how many events each request has.
func sizes(t testing.TB, receiver *delivertest.Endpoint) (all []int) {
	t.Helper()
	for _, r := range receiver.Requests() {
		all = append(all, len(eventsOf(t, r.Body)))
	}
	return all
}

func TestBatchIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		receiver.Verifier = verifier(t)
		w.start(w.batched(receiver, 3))
		begin := time.Now()
		ids := w.accept(7, "billing")
		results := w.await(7)
		requests := receiver.Requests()
		if diff := cmp.Diff([]int{3, 3, 1}, sizes(t, receiver)); diff != "" {
			t.Fatal(diff)
		}
		var got []string
		seen := map[string]bool{}
		for i, r := range requests {
			if wait := r.At.Sub(begin); wait != []time.Duration{0, 0, time.Second}[i] {
				t.Errorf("request %d came after %s", i, wait)
			}
			if r.Err != nil || !strings.HasPrefix(r.Event, "bat_") || r.Delivery != r.Event || r.Attempt != 1 || seen[r.Event] ||
				r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("request %d: %v, %v", i, r.Err, r.Header)
			}
			seen[r.Event] = true
			got = append(got, eventsOf(t, r.Body)...)
		}
		slices.Sort(got)
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("events (-accepted +sent):\n%s", diff)
		}
		for _, r := range results {
			d := w.delivery(r.EventID)
			if d.State != outbox.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Status != 200 || d.Attempts[0].N != 1 || d.ID != r.DeliveryID {
				t.Errorf("delivery of %s: %+v", r.EventID, d)
			}
		}
		synctest.Wait() // an attempt is recorded before it is counted
		if s, _ := w.d.StatusOf("billing"); s.Attempts[Delivered] != 7 || s.InFlight != 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// Its first event begins the wait for more.
func TestBatchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		w.start(w.batched(receiver, 100))
		time.Sleep(time.Hour)
		begin := time.Now()
		w.accept(1, "billing")
		time.Sleep(900 * time.Millisecond)
		w.accept(2, "billing")
		time.Sleep(50 * time.Millisecond)
		w.accept(1, "billing")
		w.await(4)
		w.accept(1, "billing")
		w.await(5)
		if diff := cmp.Diff([]int{4, 1}, sizes(t, receiver)); diff != "" {
			t.Fatal(diff)
		}
		for i, r := range receiver.Requests() {
			if wait := r.At.Sub(begin); wait != time.Duration(i+1)*time.Second {
				t.Errorf("request %d came after %s", i, wait)
			}
		}
	})
}

// An event that does not fit begins the next batch, one that is too large for any goes alone, and
// leases last, though the receiver is slow.
func TestBatchOfBytes(t *testing.T) {
	for _, delay := range []time.Duration{0, 14 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint(delivertest.Step{Delay: delay})
			e := w.batched(receiver, 100)
			e.Concurrency = 1
			one := len(`{"id":"evt_billing_00","type":"invoice.paid","timestamp":"2026-01-02T03:04:05.678Z","data":{"amount":1000,"note":"a \"b\" c"}}`)
			e.Batch.MaxBytes = int64(3*one + 4)
			w.start(e)
			large := outbox.Event{ID: "evt_large", Type: "a", Time: time.Now(), Data: []byte(`"` + strings.Repeat("x", 1000) + `"`)}
			if _, err := w.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: large, Endpoints: []string{"billing"}}}}); err != nil {
				t.Fatal(err)
			}
			w.accept(30, "billing")
			w.await(31)
			synctest.Wait()
			if diff := cmp.Diff([]int{1, 3, 3, 3}, sizes(t, receiver)[:4]); diff != "" {
				t.Error(diff)
			}
			seen := map[string]bool{}
			for _, r := range receiver.Requests() {
				ids := eventsOf(t, r.Body)
				if len(r.Body) > int(e.Batch.MaxBytes) && len(ids) > 1 {
					t.Errorf("a body of %d bytes", len(r.Body))
				}
				for _, id := range ids {
					if seen[id] {
						t.Errorf("%s came twice", id)
					}
					seen[id] = true
				}
			}
			if len(seen) != 31 {
				t.Errorf("%d of 31 events came", len(seen))
			}
		})
	}
}

// With a backlog all slots have full batches, and one that hangs keeps none of the others.
func TestBatchesAtFullConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: 14 * time.Second}, delivertest.Step{Delay: time.Second})
		e := w.batched(receiver, 20)
		w.accept(20*16, "billing") // one hangs, and 15 go through three slots
		w.start(e)
		begin := time.Now()
		w.await(20 * 15)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("15 batches took %s in three slots, want 5s", took)
		}
		synctest.Wait() // an attempt is recorded before it has ended
		if s, _ := w.d.StatusOf("billing"); s.InFlight != 1 {
			t.Errorf("%d attempts under way, want 1", s.InFlight)
		}
		w.await(20 * 16)
		for i, n := range sizes(t, receiver) {
			if n != 20 {
				t.Errorf("batch %d has %d events, want 20", i, n)
			}
		}
		if receiver.Peak() != 4 {
			t.Errorf("%d at the same time, want 4", receiver.Peak())
		}
	})
}

// claimable are the events that another could claim now.
func (w *world) claimable() (ids []string) {
	w.t.Helper()
	claims, err := w.store.Claim(w.t.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 100, Lease: time.Minute})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range claims {
		if c.Attempts == 0 {
			ids = append(ids, c.EventID)
		}
	}
	if err := w.store.Release(w.t.Context(), claims...); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// What waits for more to come is handed back when the endpoint is to take nothing, and
// goes out as the file says then.
func TestBatchIsHandedBack(t *testing.T) {
	for _, c := range []struct {
		name string
		hold func(*world, *policy.Endpoint)
		back func(*world, *policy.Endpoint)
		want []int
	}{
		{"pause", func(w *world, _ *policy.Endpoint) {
			if _, err := w.d.Pause(w.t.Context(), "billing", "test"); err != nil {
				w.t.Fatal(err)
			}
		}, func(w *world, _ *policy.Endpoint) {
			if _, err := w.d.Resume(w.t.Context(), "billing", "test"); err != nil {
				w.t.Fatal(err)
			}
		}, []int{3}},
		{"disabled in the file", func(w *world, _ *policy.Endpoint) { w.apply() }, func(w *world, e *policy.Endpoint) { w.apply(e) }, []int{3}},
		{"stop", func(w *world, _ *policy.Endpoint) { w.stop() }, func(w *world, e *policy.Endpoint) { w.start(e) }, []int{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint()
				e := w.batched(receiver, 10)
				e.Batch.MaxWait = time.Minute
				w.start(e)
				ids := w.accept(3, "billing")
				time.Sleep(time.Second)
				c.hold(w, e)
				synctest.Wait()
				if diff := cmp.Diff(ids, w.claimable()); diff != "" {
					t.Errorf("claimable (-want +got):\n%s", diff)
				}
				begin := time.Now()
				c.back(w, e)
				w.await(3)
				if diff := cmp.Diff(c.want, sizes(t, receiver)); diff != "" {
					t.Error(diff)
				}
				if took := time.Since(begin); took != time.Minute {
					t.Errorf("sent after %s, want max_wait", took)
				}
			})
		})
	}
}

func TestReloadTurnsBatchesOffAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.batched(receiver, 10)
		e.Batch.MaxWait = time.Minute
		w.start(e)
		w.accept(3, "billing")
		time.Sleep(time.Second)
		begin := time.Now()
		w.apply(but(e, func(e *policy.Endpoint) { e.Batch = nil }))
		for _, r := range w.await(3) {
			if r.Attempt.Started.Sub(begin) != 0 {
				t.Errorf("sent after %s, want at once", r.Attempt.Started.Sub(begin))
			}
		}
		for _, r := range receiver.Requests() {
			if !strings.HasPrefix(r.Event, "evt_") || r.Body[0] != '{' {
				t.Errorf("request with id %s: %s", r.Event, r.Body)
			}
		}
		w.apply(e)
		w.accept(10, "billing")
		w.await(13)
		if n := len(receiver.Requests()); n != 4 {
			t.Errorf("%d requests, want 3 and a batch", n)
		}
		w.stop()
		if claims, err := w.store.Counts(t.Context()); err != nil || claims["billing"].Delivered != 13 {
			t.Errorf("counts: %+v, %v", claims["billing"], err)
		}
	})
}

// When Relay dies between the records of a batch, only those without one are repeated.
func TestCrashBetweenRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		faulty := outboxtest.NewFaulty(w.store)
		w.o.Source = faulty
		receiver := delivertest.NewEndpoint()
		e := w.batched(receiver, 5)
		w.start(e)
		faulty.Fail("Settle", outbox.ErrUnavailable, 2)
		ids := w.accept(5, "billing")
		w.await(5)
		if diff := cmp.Diff([]int{5, 2}, sizes(t, receiver)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(ids[:2], eventsOf(t, receiver.Requests()[1].Body)); diff != "" {
			t.Error(diff)
		}
		if a, b := receiver.Requests()[0], receiver.Requests()[1]; a.Event == b.Event || b.Attempt != 1 {
			t.Errorf("ids %s and %s: another batch has another id", a.Event, b.Event)
		}
	})
}

// An event that has no body fails on its own, and takes no token of the limit.
func TestBatchWithoutSomeBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.batched(receiver, 3)
		e.Body = bodyOf(t, `body = { id = event.id, n = event.data.n }`)
		w.start(e)
		var b outbox.Batch
		for i, data := range []string{`{}`, `{"n":1}`, `{"n":2}`, `{}`} {
			b.Entries = append(b.Entries, outbox.Entry{
				Event: outbox.Event{ID: fmt.Sprint("evt_", i), Type: "a.b", Time: time.Now(), Data: []byte(data)}, Endpoints: []string{"billing"}})
		}
		if _, err := w.store.Accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		w.await(4)
		if requests := receiver.Requests(); len(requests) != 1 || string(requests[0].Body) != `[{"id":"evt_1","n":1},{"id":"evt_2","n":2}]` {
			t.Errorf("%d requests, first %s", len(requests), requests[0].Body)
		}
		for _, id := range []string{"evt_0", "evt_3"} {
			if d := w.delivery(id); d.State != outbox.Failed || d.Code != "body_error" || d.Attempts[0].Outcome != "refused" {
				t.Errorf("delivery of %s: %+v", id, d)
			}
		}
	})
}

// A batch gathers no more events when its bodies have taken the budget of one, so that its
// lease does not end before it goes.
func TestBatchOfExpensiveBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.batched(receiver, 10)
		e.Budget.Body = time.Millisecond
		e.Body = bodyOf(t, `body = { id = event.id, a = [for x in range(0, 500) : event.key] }`)
		w.start(e)
		w.accept(6, "billing")
		w.await(6)
		for i, n := range sizes(t, receiver) {
			if n > 4 {
				t.Errorf("batch %d has %d events", i, n)
			}
		}
	})
}

// A defect of ours fails one event of a batch, like one of an attempt.
func TestPanicInABatch(t *testing.T) {
	w := newWorld(t)
	e := endpointAt(t, "billing", endpointURL(t, "http://billing.test"))
	e.Batch = &policy.Batch{MaxEvents: 2}
	r := New(w.o, policy.New([]*policy.Endpoint{e})).runners["billing"]
	if f := r.add(new(draft), e, new(outbox.Claim)); f == nil || f.Code != codePanic {
		t.Errorf("an event that is nil: %v", f)
	}
}

func TestNDJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.batched(receiver, 2)
		e.Batch.NDJSON = true
		e.Body = bodyOf(t, "body = <<-X\n\t{\n\t\t\"id\": ${jsonencode(event.id)},\r\n\t\t\"text\": \"a\\n\"\n\t}\n\tX\n")
		w.start(e)
		w.accept(2, "billing")
		w.await(2)
		r := receiver.Requests()[0]
		lines := strings.Split(string(r.Body), "\n")
		if len(lines) != 3 || lines[2] != "" || !json.Valid([]byte(lines[0])) || !json.Valid([]byte(lines[1])) || strings.Contains(lines[0], "\r") {
			t.Errorf("body %q", r.Body)
		}
		if got := r.Header.Get("Content-Type"); got != "application/x-ndjson" {
			t.Errorf("content type %s", got)
		}
		shown, err := Preview(e, &outbox.Event{ID: "evt_1", Type: "a", Data: []byte(`1`)}, "1", time.Now())
		if err != nil || bytes.Count(shown.Body, []byte("\n")) != 1 || !bytes.HasSuffix(shown.Body, []byte("\n")) {
			t.Errorf("preview %q, %v", shown.Body, err)
		}
	})
}

// The limit and the breaker count requests.
func TestGateCountsBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503})
		e := w.batched(receiver, 10)
		e.RateLimit = &policy.RateLimit{N: 1, Per: time.Second, Burst: 1}
		e.Breaker = failing()
		begin := time.Now()
		w.start(e)
		w.accept(60, "billing")
		results := w.await(40)
		synctest.Wait()
		if last := results[39].Attempt.Started.Sub(begin).Round(time.Millisecond); last != 3*time.Second {
			t.Errorf("the fourth request went after %s, want 3s", last)
		}
		if s, _ := w.d.StatusOf("billing"); s.Breaker != BreakerOpen {
			t.Errorf("after four failures the breaker is %s", s.Breaker)
		}
		if n := len(receiver.Requests()); n != 4 {
			t.Errorf("%d requests", n)
		}
	})
}
