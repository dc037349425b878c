package deliver

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// A test goes out at once whatever holds the endpoint, is signed and recorded like all others, and changes nothing of the endpoint.
func TestTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 200}, delivertest.Step{Status: 503}, delivertest.Step{Status: 410}, delivertest.Step{Status: 503})
		receiver.Verifier = verifier(t)
		e := w.inMemory("billing", receiver)
		e.RateLimit = &policy.RateLimit{N: 1, Per: time.Hour, Burst: 1}
		e.Breaker = &policy.Breaker{FailureRatio: 0.1, MinAttempts: 1, Window: time.Minute, Open: time.Hour, Probes: 1}
		e.Disable.OnGone = true
		w.o.Self = func() Self { return Self{"relay-1", 7} }
		w.start(e)
		if _, err := w.d.Pause(t.Context(), "billing", "an operator"); err != nil {
			t.Fatal(err)
		}
		w.accept(3, "billing")
		event := outbox.Event{ID: "evt_test", Type: "relay.test", Time: time.Now(), Data: []byte(`{"n":1}`)}
		for i, want := range []struct {
			state   outbox.State
			outcome Outcome
			status  int
		}{{outbox.Delivered, Delivered, 200}, {outbox.Failed, Retry, 503}, {outbox.Failed, Gone, 410}, {outbox.Failed, Retry, 503}} {
			res, err := w.d.Test(e, &event)
			if err != nil {
				t.Fatal(err)
			}
			a := res.Attempt
			if res.State != want.state || a.Outcome != string(want.outcome) || a.Status != want.status || a.N != 1 || res.Endpoint != "billing" || res.EventID != "evt_test" {
				t.Errorf("test %d: %+v", i, res)
			}
			if a.Peer == "" || a.Relay != "relay-1" || a.Generation != 7 || !strings.Contains(a.Request, "webhook-signature: ***") || a.Reused || !a.Next.IsZero() {
				t.Errorf("test %d: %+v", i, a)
			}
		}
		requests := receiver.Requests()
		if len(requests) != 4 {
			t.Fatalf("the receiver had %d requests, want the 4 tests", len(requests))
		}
		for _, r := range requests {
			if r.Err != nil {
				t.Errorf("signature: %v", r.Err)
			}
			if r.Header.Get("webhook-id") != "evt_test" || r.Header.Get("Relay-Delivery") != TestDelivery || !strings.Contains(string(r.Body), `"n":1`) {
				t.Errorf("request: %v\n%s", r.Header, r.Body)
			}
		}
		s, _ := w.d.StatusOf("billing")
		if s.State != Paused || s.Breaker == BreakerOpen || len(s.Attempts) > 0 || s.Tokens < 1 {
			t.Errorf("after tests the endpoint is %+v", s)
		}

		// A disabled endpoint can be tested, and nothing can after the end.
		off := *e
		off.Enabled = false
		w.d.Apply(policy.New([]*policy.Endpoint{&off}))
		if res, err := w.d.Test(&off, &event); err != nil || res.Attempt.Status == 0 {
			t.Errorf("test of a disabled endpoint: %+v, %v", res, err)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.d.Test(e, &event); !errors.Is(err, ErrStopping) {
			t.Errorf("test after the end: %v", err)
		}
	})
}

// A test that a stop cuts short says so, and the stop waits for it.
func TestTestAmidStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: time.Hour}))
		e.Timeout.Total = 2 * time.Hour
		w.o.Grace = 3 * time.Second
		w.start(e)
		answer := make(chan error, 1)
		go func() {
			_, err := w.d.Test(e, &outbox.Event{ID: "evt_test", Type: "relay.test", Data: []byte(`1`)})
			answer <- err
		}()
		synctest.Wait()
		begin := time.Now()
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("the stop took %v, want the grace", took)
		}
		if err := <-answer; !errors.Is(err, ErrStopping) {
			t.Errorf("test amid a stop: %v", err)
		}
	})
}
