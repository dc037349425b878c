package post

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/relay/deliver/delivertest"
)

// HTTP/2 where the receiver chooses it: all attempts on one connection, and still one
// request for each, also where the stream is reset.
func TestHTTP2(t *testing.T) {
	w := newWorld(t)
	a := delivertest.NewAuthority(t)
	w.o.Network.Roots = a.Pool()
	receiver := delivertest.NewEndpoint()
	receiver.Answer = func(r *delivertest.Request) delivertest.Step {
		if r.Event == "evt_billing_39" {
			return delivertest.Step{Fault: delivertest.Reset}
		}
		return delivertest.Step{Body: "ok"}
	}
	receiver.TLS = a.Issue("billing.test", time.Now().Add(time.Hour))
	receiver.TLS.NextProtos = []string{"h2", "http/1.1"}
	e := w.named(receiver)
	e.HTTP2 = true
	w.start(e)
	w.accept(40, "billing")
	for _, r := range w.await(40) {
		want := ""
		if r.EventID == "evt_billing_39" {
			want = "connection_reset"
		}
		if r.Attempt.Code != want {
			t.Errorf("attempt for %s came to %q (%s), want %q", r.EventID, r.Attempt.Code, r.Attempt.Error, want)
		}
	}
	w.stop()
	requests := receiver.Requests()
	for _, r := range requests {
		if r.Proto != "HTTP/2.0" || r.Err != nil {
			t.Fatalf("request by %s, signature %v", r.Proto, r.Err)
		}
	}
	if len(requests) != 40 || receiver.Conns() > 4 {
		t.Errorf("%d requests on %d connections for 40 attempts", len(requests), receiver.Conns())
	}
}

// Without http2 = true a receiver that prefers HTTP/2 is not offered it.
func TestNoHTTP2UnlessAskedFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		http2  bool
		offers []string
		proto  string
	}{
		{"prefers HTTP/2", false, []string{"h2", "http/1.1"}, "HTTP/1.1"},
		{"prefers HTTP/2, and may", true, []string{"h2", "http/1.1"}, "HTTP/2.0"},
		{"has no HTTP/2", true, []string{"http/1.1"}, "HTTP/1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a := delivertest.NewAuthority(t)
			w.o.Network.Roots = a.Pool()
			receiver := delivertest.NewEndpoint(delivertest.Step{Body: "ok"})
			receiver.TLS = a.Issue("billing.test", time.Now().Add(time.Hour))
			receiver.TLS.NextProtos = c.offers
			e := w.named(receiver)
			e.HTTP2 = c.http2
			w.start(e)
			w.accept(1, "billing")
			if r := w.await(1)[0]; r.State != outbox.Delivered {
				t.Fatalf("delivery is %s, %s", r.State, r.Attempt.Error)
			}
			w.stop()
			if proto := receiver.Requests()[0].Proto; proto != c.proto {
				t.Errorf("request by %q, want %q", proto, c.proto)
			}
		})
	}
}

// Fault F32: packets are silently dropped after the first request of a connection. PING finds it
// within 8 s, and the next attempt opens another one.
func TestDeadHTTP2Connection(t *testing.T) {
	for _, c := range []struct {
		name  string
		total time.Duration
		code  string // of the first attempt
		took  time.Duration
		most  int // attempts in all
	}{
		{"while an attempt waits", 15 * time.Second, "connection_reset", sendPing + pingTimeout, 2},
		{"after an attempt gave up", 5 * time.Second, "timeout", 5 * time.Second, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint()
				e := w.secureInMemory("billing", receiver, "h2")
				e.Timeout.Total, e.Concurrency = c.total, 1 // the dead one does not count as the one connection there may be
				e.Retry.Schedule = []time.Duration{time.Millisecond, time.Millisecond}
				w.start(e)
				w.accept(1, "billing")
				if r := w.await(1)[0]; r.State != outbox.Delivered {
					t.Fatalf("first delivery is %s, %s", r.State, r.Attempt.Error)
				}
				w.net.Lose()
				lost := time.Now()
				w.accept(1, "billing")
				if r := w.await(2)[1]; r.Attempt.Code != c.code || r.Attempt.Took != c.took || !r.Reused {
					t.Errorf("attempt on the dead connection: %q after %s (%s), want %q after %s", r.Attempt.Code, r.Attempt.Took, r.Attempt.Error, c.code, c.took)
				}
				time.Sleep(time.Minute)
				all := w.await(2)
				last := all[len(all)-1]
				if n := len(all) - 1; last.State != outbox.Delivered || n > c.most {
					t.Fatalf("the last of %d attempts came to %q", n, last.Attempt.Code)
				}
				if took := last.Attempt.Started.Add(last.Attempt.Took).Sub(lost); took > sendPing+pingTimeout+time.Second {
					t.Errorf("delivered after %s", took)
				}
				if n := len(receiver.Requests()); n != 2 || receiver.Conns() != 2 {
					t.Errorf("%d requests on %d connections came, want 2 on 2", n, receiver.Conns())
				}
			})
		})
	}
}

// An answer that takes its time is no reason to give a connection up, as long as the
// receiver answers PINGs.
func TestSlowHTTP2ReceiverIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: 14 * time.Second}, delivertest.Step{})
		e := w.secureInMemory("billing", receiver, "h2")
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		w.accept(1, "billing")
		for _, r := range w.await(2) {
			if r.State != outbox.Delivered {
				t.Errorf("delivery is %s: %s", r.State, r.Attempt.Error)
			}
		}
		if n := receiver.Conns(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// Fault F30: over HTTP/2 a receiver can send ahead of what is read, but little.
func TestUnreadBodyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		block := make([]byte, 32<<10)
		e := w.secureInMemory("billing", delivertest.NewEndpoint(delivertest.Step{Serve: forEver(func(w http.ResponseWriter) error {
			_, err := w.Write(block)
			return err
		})}), "h2")
		read := w.meter(e.URL.Host)
		s := NewClient(w.o).Sender(t.Context(), e).(*http2)
		defer s.Close()
		c, _, err := s.pool.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.pool.put(c)
		resp, err := c.carrier.(*http.ClientConn).RoundTrip(s.request(t.Context(), Request{}))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		synctest.Wait()
		if n := read.Load(); n > maxBody+room {
			t.Errorf("%d bytes came that nobody read", n)
		}
	})
}
