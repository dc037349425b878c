package deliver

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// asking is an endpoint that asks for consent, at a receiver that answers the handshakes
// by the script and takes all events.
func asking(w *world, answers ...delivertest.Step) (*policy.Endpoint, *delivertest.Endpoint) {
	receiver := delivertest.NewEndpoint()
	asked := 0 // guarded by the receiver
	receiver.Answer = func(r *delivertest.Request) delivertest.Step {
		if r.Method != http.MethodOptions {
			return delivertest.Step{}
		}
		asked++
		return answers[min(asked, len(answers))-1]
	}
	e := w.inMemory("billing", receiver)
	e.Handshake, e.Origin = true, "events.example.com"
	return e, receiver
}

// consents is an answer that allows an origin; rate may be "".
func consents(origin, rate string) delivertest.Step {
	s := delivertest.Step{Status: 204, Header: map[string]string{"WebHook-Allowed-Origin": origin, "Allow": "POST"}}
	if rate != "" {
		s.Header["WebHook-Allowed-Rate"] = rate
	}
	return s
}

// of are the requests by a method.
func of(e *delivertest.Endpoint, method string) []*delivertest.Request {
	return slices.DeleteFunc(e.Requests(), func(r *delivertest.Request) bool { return r.Method != method })
}

func TestHandshakeComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e, receiver := asking(w, consents("EVENTS.example.com", ""))
		e.RateLimit = &policy.RateLimit{N: 2, Per: time.Second, Burst: 10}
		e.Headers = []policy.Header{{Name: "Authorization", Value: config.NewSecret("canary")}}
		w.start(e)
		w.accept(3, "billing")
		w.await(3)
		asked := receiver.Requests()[0]
		h := asked.Header
		if asked.Method != "OPTIONS" || asked.Path != "/hook" || h.Get("WebHook-Request-Origin") != "events.example.com" || h.Get("WebHook-Request-Rate") != "120" {
			t.Errorf("the first request is %s %s with %v", asked.Method, asked.Path, h)
		}
		if h.Get("Authorization") != "" || h.Get("webhook-id") != "" || len(asked.Body) > 0 {
			t.Errorf("the handshake says too much: %v %q", h, asked.Body)
		}
		time.Sleep(23 * time.Hour)
		w.accept(1, "billing")
		w.await(4)
		if n := len(of(receiver, "OPTIONS")); n != 1 {
			t.Errorf("asked %d times within a day", n)
		}
		time.Sleep(time.Hour)
		w.accept(1, "billing")
		w.await(5)
		if n := len(of(receiver, "OPTIONS")); n != 2 {
			t.Errorf("asked %d times after a day", n)
		}
		w.apply(but(e, func(e *policy.Endpoint) { e.Description = "x" }))
		w.accept(1, "billing")
		w.await(6)
		w.apply(but(e, func(e *policy.Endpoint) { e.Origin = "other.example.com" }))
		synctest.Wait()
		if n := len(of(receiver, "OPTIONS")); n != 3 {
			t.Errorf("asked %d times after a change of the origin", n)
		}
	})
}

// What is not consented to waits, and is an attempt of no delivery; the receiver is asked again.
func TestHandshakeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer delivertest.Step
		why    string
	}{
		"status":       {delivertest.Step{Status: 405, Header: map[string]string{"WebHook-Allowed-Origin": "*"}}, "the receiver answered 405 to the handshake"},
		"no header":    {delivertest.Step{Status: 200}, "the receiver's answer to the handshake has no WebHook-Allowed-Origin"},
		"other origin": {consents("other.example.com", ""), "the receiver allows events of another origin, not of events.example.com"},
		"rate of none": {consents("*", "0"), "the receiver's WebHook-Allowed-Rate is no number of requests per minute"},
		"no answer":    {delivertest.Step{Fault: delivertest.Hang}, "no answer within 15s"},
		"cut":          {delivertest.Step{Fault: delivertest.Close}, "the connection ended before the answer did"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e, receiver := asking(w, c.answer, c.answer, c.answer, consents("*", "*"))
				w.start(e)
				w.accept(1, "billing")
				time.Sleep(16 * time.Second)
				synctest.Wait()
				s, _ := w.d.StatusOf("billing")
				if s.State != Active || s.Waiting != "consent" || s.Code != "consent" || s.Reason != c.why || s.InFlight != 0 {
					t.Errorf("status %+v, want to wait for consent: %s", s, c.why)
				}
				begin := time.Now()
				if r := w.await(1)[0]; r.Attempt.N != 1 || r.Attempt.Status != 200 {
					t.Errorf("attempt %+v", r.Attempt)
				}
				if took := time.Since(begin); took > 2*time.Minute {
					t.Errorf("asked again after %s", took)
				}
				if s, _ := w.d.StatusOf("billing"); s.Waiting != "" || s.Code != "" || s.Reason != "" {
					t.Errorf("status after consent %+v", s)
				}
				if n := len(of(receiver, "OPTIONS")); n != 4 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// The receiver's rate holds where it is the lower one.
func TestHandshakeRate(t *testing.T) {
	for name, c := range map[string]struct {
		own  *policy.RateLimit
		rate string
		want float64 // sends per second, 0 for no limit
	}{
		"its own is lower":  {&policy.RateLimit{N: 1, Per: time.Second, Burst: 1}, "120", 1},
		"theirs is lower":   {&policy.RateLimit{N: 10, Per: time.Second, Burst: 10}, "120", 2},
		"there is only one": {nil, "120", 2},
		"any":               {nil, "*", 0},
		"not said":          {nil, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e, receiver := asking(w, consents("*", c.rate))
				e.RateLimit = c.own
				w.start(e)
				w.accept(21, "billing")
				w.await(21)
				at := of(receiver, "POST")
				took := at[20].At.Sub(at[0].At)
				if c.want == 0 {
					if took > time.Second {
						t.Errorf("21 attempts took %s", took)
					}
				} else if least := time.Duration((20 - 2) / c.want * float64(time.Second)); took < least || took > least+3*time.Second {
					t.Errorf("21 attempts took %s, want some %s", took, least)
				}
				if s, _ := w.d.StatusOf("billing"); s.Limit != c.want {
					t.Errorf("limit %g, want %g", s.Limit, c.want)
				}
			})
		})
	}
}

// A stop or a reload does not wait for a receiver that says nothing.
func TestHandshakeEndsWithItsSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e, _ := asking(w, delivertest.Step{Fault: delivertest.Hang})
		w.start(e)
		synctest.Wait()
		begin := time.Now()
		w.accept(1, "billing")
		w.apply(but(e, func(e *policy.Endpoint) { e.Handshake, e.Origin = false, "" }))
		w.await(1)
		w.apply(e)
		synctest.Wait()
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// Over real sockets, with TLS and by both senders; private addresses stay out of reach.
func TestHandshakeOverTLS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		a := delivertest.NewAuthority(t)
		receiver := delivertest.NewEndpoint()
		receiver.Answer = func(r *delivertest.Request) delivertest.Step {
			if r.Method == http.MethodOptions {
				return consents("*", "")
			}
			return delivertest.Step{}
		}
		receiver.TLS = a.Issue("localhost", time.Now().Add(time.Hour))
		if h2 {
			receiver.TLS.NextProtos = []string{"h2"}
		}
		u := receiver.Listen(t)
		u.Host = strings.Replace(u.Host, "127.0.0.1", "localhost", 1)
		w := newWorld(t)
		w.o.network.Roots = a.Pool()
		e := endpointAt(t, "billing", u)
		e.HTTP2, e.Handshake, e.Origin = h2, true, "events.example.com"
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		got := receiver.Requests()
		if got[0].Method != "OPTIONS" || got[1].Method != "POST" || (got[0].Proto == "HTTP/2.0") != h2 {
			t.Errorf("got %s %s, then %s", got[0].Method, got[0].Proto, got[1].Method)
		}
		guarded := but(e, func(e *policy.Endpoint) { e.Egress.AllowPrivate = nil })
		if c := w.d.askConsent(&setup{endpoint: guarded, claiming: t.Context()}); c.Given || !strings.Contains(c.Why, "egress") {
			t.Errorf("the guard was passed by: %+v", c)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	}
}

// Consent is in the head of an answer: a body that is cut takes nothing away.
func TestHandshakeWithACutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e, receiver := asking(w, delivertest.Step{Raw: "HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 9\r\n\r\nabc", Fault: delivertest.Close})
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		if n := len(of(receiver, "OPTIONS")); n != 1 {
			t.Errorf("asked %d times, want 1", n)
		}
	})
}

// An endpoint with batches asks first, too.
func TestHandshakeBeforeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e, receiver := asking(w, consents("*", ""))
		e.Batch = &policy.Batch{MaxEvents: 10, MaxWait: time.Second, MaxBytes: 1 << 20}
		w.start(e)
		w.accept(3, "billing")
		w.await(3)
		if n, posts := len(of(receiver, "OPTIONS")), len(of(receiver, "POST")); n != 1 || posts != 1 {
			t.Errorf("asked %d times, %d requests, want 1 and 1", n, posts)
		}
	})
}
