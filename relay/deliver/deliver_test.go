package deliver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/config"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

// Promises P3, P6 and P10: over a schedule of days every attempt carries the same
// id and bytes, a signature of its own time, and starts when it is due.
func TestScheduleOfDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503, Body: "busy"})
		receiver.Verifier = verifier(t)
		w.start(w.inMemory("billing", receiver))
		id := w.accept(1, "billing")[0]

		results := w.await(10)
		requests := receiver.Requests()
		if len(requests) != 10 {
			t.Fatalf("%d requests for 10 attempts", len(requests))
		}
		for i, r := range requests {
			if r.Err != nil {
				t.Errorf("attempt %d: %v", i+1, r.Err)
			}
			if r.Attempt != i+1 || r.Event != id || r.Hash != requests[0].Hash {
				t.Errorf("attempt %d: number %d, event %s, same body %t", i+1, r.Attempt, r.Event, r.Hash == requests[0].Hash)
			}
			if i == 0 {
				continue
			}
			step := defaults.Schedule[i-1]
			waited := r.At.Sub(requests[i-1].At)
			if waited < step*9/10 || waited > step*11/10+time.Second {
				t.Errorf("attempt %d came %s after the one before, want %s ± 10%%", i+1, waited, step)
			}
			if due := results[i-1].Due; r.At.Before(due) || r.At.Sub(due) > time.Second {
				t.Errorf("attempt %d came at %s, was due at %s", i+1, r.At, due)
			}
		}
		d := w.delivery(id)
		if d.State != outbox.Failed || d.Code != "http_503" || len(d.Attempts) != 10 {
			t.Errorf("delivery is %s, code %q, with %d attempts, want failed, http_503, 10", d.State, d.Code, len(d.Attempts))
		}
		last := d.Attempts[9]
		if last.N != 10 || last.Status != 503 || last.Outcome != "retry" || string(last.Body) != "busy" || !strings.Contains(last.Head, "Content-Length: 4") {
			t.Errorf("last attempt is %+v", last)
		}
	})
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		receiver.Verifier = verifier(t)
		e := w.inMemory("billing", receiver)
		e.Headers = []policy.Header{
			{Name: "X-MixedCase", Value: config.NewSecret("prod")},
			{Name: "user-agent", Value: config.NewSecret("Acme-Webhooks/1.0")},
			{Name: "relay-attempt", Value: config.NewSecret("99")},
			{Name: "webhook-id", Value: config.NewSecret("forged")},
		}
		w.start(e)
		id := w.accept(1, "billing")[0]
		w.await(1)
		r := receiver.Requests()[0]
		if r.Err != nil {
			t.Errorf("signature: %v", r.Err)
		}
		if want := `{"id":"` + id + `","type":"invoice.paid","timestamp":"2026-01-02T03:04:05.678Z","data":{"amount":1000,"note":"a \"b\" c"}}`; string(r.Body) != want {
			t.Errorf("body\n got %s\nwant %s", r.Body, want)
		}
		r.Header.Del("webhook-signature")
		r.Header.Del("webhook-timestamp")
		want := map[string][]string{
			"Content-Length": {strconv.Itoa(len(r.Body))},
			"Content-Type":   {"application/json"},
			"User-Agent":     {"Acme-Webhooks/1.0"},
			"Webhook-Id":     {id},
			"Relay-Attempt":  {"1"},
			"Relay-Delivery": {w.delivery(id).ID},
			"X-Mixedcase":    {"prod"},
		}
		if diff := cmp.Diff(want, map[string][]string(r.Header)); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if got := r.Method + " " + r.Path + " " + r.Host; got != "POST /hook billing.test" {
			t.Errorf("request is %s", got)
		}
	})
}

// Every scheme's requests carry webhook-id, so that a duplicate can always be told.
func TestUnsignedRequestHasItsID(t *testing.T) {
	got := appendHeader(nil, new(policy.Endpoint), &sign.Message{EventID: "evt_1", DeliveryID: "dlv_1", Attempt: 2}, "Relay/1")
	want := []sign.Header{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "User-Agent", Value: "Relay/1"},
		{Name: "webhook-id", Value: "evt_1"},
		{Name: "Relay-Attempt", Value: "2"},
		{Name: "Relay-Delivery", Value: "dlv_1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name  string
		step  delivertest.Step
		state outbox.State
		code  string
		least time.Duration // until the next attempt
		most  time.Duration
	}{
		{"200", delivertest.Step{}, outbox.Delivered, "", 0, 0},
		{"204", delivertest.Step{Status: 204}, outbox.Delivered, "", 0, 0},
		{"299", delivertest.Step{Status: 299}, outbox.Delivered, "", 0, 0},
		{"404", delivertest.Step{Status: 404}, outbox.Failed, "http_404", 0, 0},
		{"410", delivertest.Step{Status: 410}, outbox.Failed, "gone", 0, 0},
		{"redirect", delivertest.Step{Status: 307, Header: map[string]string{"Location": "http://billing.test/elsewhere"}}, outbox.Failed, "redirect_not_followed", 0, 0},
		{"101", delivertest.Step{Raw: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Fault: delivertest.Hang}, outbox.Failed, "http_101", 0, 0},
		{"1xx then nothing", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\n\r\n", Fault: delivertest.Close}, outbox.Pending, "connection_reset", 4 * time.Second, 6 * time.Second},
		{"500", delivertest.Step{Status: 500}, outbox.Pending, "http_500", 4 * time.Second, 6 * time.Second},
		{"wait 0", retryAfter("0"), outbox.Pending, "http_429", 4 * time.Second, 6 * time.Second},
		{"wait seconds", retryAfter("7200"), outbox.Pending, "http_429", 2 * time.Hour, 2 * time.Hour},
		{"wait until date", retryAfter("Sat, 01 Jan 2000 01:00:00 GMT"), outbox.Pending, "http_429", 59 * time.Minute, time.Hour},
		{"wait for ever", retryAfter("1000000000000"), outbox.Pending, "http_429", 24 * time.Hour, 24 * time.Hour},
		{"wait until past date", retryAfter("Wed, 21 Oct 1998 07:28:00 GMT"), outbox.Pending, "http_429", 4 * time.Second, 6 * time.Second},
		{"wait garbage", retryAfter("soon; \"x\""), outbox.Pending, "http_429", 4 * time.Second, 6 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(c.step)
				w.start(w.inMemory("billing", receiver))
				id := w.accept(1, "billing")[0]
				res := w.await(1)[0]
				w.stop()
				if n := len(receiver.Requests()); n != 1 {
					t.Errorf("%d requests for one attempt", n)
				}
				if res.State != c.state || res.Attempt.Code != c.code {
					t.Errorf("state %s, code %q, want %s, %q", res.State, res.Attempt.Code, c.state, c.code)
				}
				if (res.Attempt.Error == "") != (c.state == outbox.Delivered) {
					t.Errorf("error text is %q", res.Attempt.Error)
				}
				d := w.delivery(id)
				if d.State != c.state || c.state.Final() == d.Finished.IsZero() {
					t.Errorf("delivery is %s, finished %s", d.State, d.Finished)
				}
				if c.state == outbox.Pending {
					if wait := res.Due.Sub(res.Attempt.Started.Add(res.Attempt.Took)); wait < c.least || wait > c.most {
						t.Errorf("next attempt in %s, want %s to %s", wait, c.least, c.most)
					}
				}
			})
		})
	}
}

func retryAfter(value string) delivertest.Step {
	return delivertest.Step{Status: 429, Header: map[string]string{"Retry-After": value}}
}

// Promise P8: a hanging endpoint uses its own slots and nobody else's.
func TestIsolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hanging := delivertest.NewEndpoint(delivertest.Step{Fault: delivertest.Hang})
		endpoints := []*policy.Endpoint{w.inMemory("hanging", hanging)}
		var healthy []string
		for i := range 5 {
			name := fmt.Sprintf("healthy%d", i)
			healthy = append(healthy, name)
			endpoints = append(endpoints, w.inMemory(name, delivertest.NewEndpoint(delivertest.Step{Delay: time.Millisecond})))
		}
		w.start(endpoints...)
		start := time.Now()
		w.accept(100, "hanging")
		for _, name := range healthy {
			w.accept(100, name)
		}
		for _, r := range w.await(500) {
			if r.State != outbox.Delivered {
				t.Fatalf("delivery to %s is %s, %s", r.Endpoint, r.State, r.Attempt.Code)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("healthy endpoints took %s beside a hanging one", took)
		}
		if peak := hanging.Peak(); peak != 4 {
			t.Errorf("hanging endpoint got %d requests at a time, want its concurrency of 4", peak)
		}
		w.d.Abort()
	})
}

// watched counts the claims under way.
type watched struct {
	*outboxtest.Mem
	mu     sync.Mutex
	open   int
	peak   int
	most   int  // asked for at a time
	deaf   bool // to the end of contexts, and Claim waits for its answer
	leases []time.Duration
	settle error
	claim  func() error
}

func (s *watched) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if s.claim != nil {
		if err := s.claim(); err != nil {
			return nil, err
		}
	}
	if s.deaf {
		ctx, r.Ready = context.WithoutCancel(ctx), nil
	}
	claims, err := s.Mem.Claim(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = append(s.leases, r.Lease)
	s.open += len(claims)
	s.peak = max(s.peak, s.open)
	s.most = max(s.most, r.Max)
	return claims, err
}

func (s *watched) Settle(ctx context.Context, c outbox.Claim, o outbox.Settlement) error {
	s.end(1)
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.settle != nil {
		return s.settle
	}
	return s.Mem.Settle(ctx, c, o)
}

func (s *watched) Release(ctx context.Context, claims ...outbox.Claim) error {
	s.end(len(claims))
	return s.Mem.Release(ctx, claims...)
}

func (s *watched) end(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open -= n
}

func TestClaimsNoMoreThanFreeSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := &watched{Mem: w.store}
		w.o.Source = source
		receiver := delivertest.NewEndpoint()
		receiver.Answer = func(r *delivertest.Request) delivertest.Step {
			return delivertest.Step{Delay: time.Duration(len(r.Event)%3) * time.Second}
		}
		w.start(w.inMemory("billing", receiver))
		w.accept(120, "billing")
		w.await(120)
		w.stop()
		if source.peak != 4 || source.open != 0 {
			t.Errorf("at most %d claims at a time and %d left, want the concurrency of 4 and 0", source.peak, source.open)
		}
		if source.most != 4 {
			t.Errorf("asked for at most %d claims at a time, want all free slots", source.most)
		}
		if peak := receiver.Peak(); peak != 4 {
			t.Errorf("at most %d requests at a time, want 4: free slots were left empty", peak)
		}
		for _, lease := range source.leases {
			if lease <= 15*time.Second*3/2 {
				t.Fatalf("lease of %s for attempts of up to 15s", lease)
			}
		}
	})
}

func TestFinalErrorOfClaimEndsRun(t *testing.T) {
	broken := errors.New("disk is gone")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"broken", broken, broken},
		{"closed", outbox.ErrClosed, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.o.Source = &watched{Mem: w.store, claim: func() error { return c.err }}
				w.start(endpointAt(t, "billing", &url.URL{Scheme: "http", Host: "billing.test"}), endpointAt(t, "crm", &url.URL{Scheme: "http", Host: "crm.test"}))
				<-w.ended
				if !errors.Is(w.err, c.want) {
					t.Errorf("run returned %v, want %v", w.err, c.want)
				}
			})
		})
	}
}

func TestLostLeaseIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Source = &watched{Mem: w.store, settle: outbox.ErrLeaseLost}
		receiver := delivertest.NewEndpoint()
		w.start(w.inMemory("billing", receiver))
		w.accept(1, "billing")
		time.Sleep(time.Second)
		w.stop()
		if len(receiver.Requests()) != 1 || len(w.results) != 0 {
			t.Errorf("%d requests, %d results told of, want 1 and 0", len(receiver.Requests()), len(w.results))
		}
	})
}

// Fault F47: a panic in an attempt is that attempt's failure, and only that.
func TestPanicIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		e.Signers = []*sign.Signer{nil}
		healthy := w.inMemory("crm", delivertest.NewEndpoint())
		w.start(e, healthy)
		id := w.accept(1, "billing")[0]
		w.await(10)
		w.accept(1, "crm")
		if last := w.await(11)[10]; last.State != outbox.Delivered {
			t.Errorf("another endpoint's delivery is %s", last.State)
		}
		d := w.delivery(id)
		if d.State != outbox.Failed || d.Code != "panic" || len(d.Attempts) != 10 {
			t.Errorf("delivery is %s, code %q, %d attempts, want failed, panic, 10", d.State, d.Code, len(d.Attempts))
		}
	})
}

func TestDisabledEndpointTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.inMemory("billing", receiver)
		e.Enabled = false
		w.start(e)
		id := w.accept(1, "billing")[0]
		time.Sleep(time.Hour)
		if n := len(receiver.Requests()); n != 0 || w.delivery(id).State != outbox.Pending {
			t.Errorf("%d requests, delivery is %s", n, w.delivery(id).State)
		}
	})
}

func TestIdleEndpointsAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before := runtime.NumGoroutine()
		var endpoints []*policy.Endpoint
		for i := range 10_000 {
			e := *endpointAt(t, fmt.Sprintf("e%d", i), &url.URL{Scheme: "https", Host: "x.test"})
			endpoints = append(endpoints, &e)
		}
		w.start(endpoints...)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > maxResting+10 {
			t.Errorf("%d goroutines for 10,000 idle endpoints", n)
		}
		for _, r := range w.d.runners {
			if r.now.conns.out != nil {
				t.Fatal("an idle endpoint has a transport")
			}
		}
	})
}

// No secret of an endpoint reaches a record: not in the URL, not in a header.
func TestErrorsHoldNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(
			delivertest.Step{Raw: "canary HTTP\r\n", Fault: delivertest.Close},
			delivertest.Step{Fault: delivertest.Reset},
			delivertest.Step{Fault: delivertest.Hang},
			delivertest.Step{Status: 500})
		e := w.inMemory("billing", receiver)
		e.URL.RawQuery = "token=canary"
		e.Headers = []policy.Header{{Name: "Authorization", Value: config.NewSecret("canary")}}
		gone := endpointAt(t, "gone", &url.URL{Scheme: "http", Host: "nobody.test:80", RawQuery: "token=canary"})
		w.start(e, gone)
		w.accept(1, "billing")
		w.accept(1, "gone")
		var codes []string
		for _, r := range w.await(14) {
			codes = append(codes, r.Attempt.Code)
			if strings.Contains(r.Attempt.Error, "canary") || r.Attempt.Error == "" {
				t.Errorf("error of %s is %q", r.Attempt.Code, r.Attempt.Error)
			}
		}
		slices.Sort(codes)
		if diff := cmp.Diff([]string{"bad_response", "connection_refused", "connection_reset", "http_500", "timeout"}, slices.Compact(codes)); diff != "" {
			t.Errorf("codes (-want +got):\n%s", diff)
		}
	})
}

// The error of an attempt out of time names the configured time.
func TestTimeoutNamesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Fault: delivertest.Hang}))
		e.Timeout.Total = 1500 * time.Millisecond
		w.start(e)
		w.accept(1, "billing")
		if a := w.await(1)[0].Attempt; a.Error != "no answer within 1.5s" {
			t.Errorf("error is %q", a.Error)
		}
	})
}
