package deliver

import (
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// secureInMemory puts a receiver with TLS on the network in memory.
func (w *world) secureInMemory(name string, e *delivertest.Endpoint, protocols ...string) *policy.Endpoint {
	w.t.Helper()
	a := newAuthority(w.t)
	w.o.roots, w.o.dialNet, w.net.Buffered = a.pool(), w.net.Dial, true
	e.TLS = a.issue(name+".test", time.Now().Add(1000*time.Hour))
	e.TLS.NextProtos = protocols
	u := &url.URL{Scheme: "https", Host: name + ".test:443", Path: "/hook"}
	l, err := w.net.Listen(u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Serve(w.t, l)
	p := endpointAt(w.t, name, u)
	p.HTTP2 = len(protocols) > 0 && protocols[0] == "h2"
	return p
}

// Fault F32: packets are dropped in silence after the connection served. PING finds it
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
				id := w.accept(1, "billing")[0]
				if r := w.await(2)[1]; r.Attempt.Code != c.code || r.Attempt.Took != c.took || !r.Reused {
					t.Errorf("attempt on the dead connection: %q after %s (%s), want %q after %s", r.Attempt.Code, r.Attempt.Took, r.Attempt.Error, c.code, c.took)
				}
				time.Sleep(time.Minute)
				d := w.delivery(id)
				if n := len(d.Attempts); d.State != outbox.Delivered || n > c.most {
					t.Fatalf("delivery is %s after %d attempts, %s", d.State, n, d.Code)
				}
				if took := d.Finished.Sub(lost); took > sendPing+pingTimeout+time.Second {
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

// Fault F32, HTTP/1.1: one attempt loses its time on a dead connection. Other idle ones
// are not tried one after the other.
func TestDeadIdleConnections(t *testing.T) {
	for _, c := range []struct {
		name  string
		http2 bool // by the policy; the receiver has HTTP/1.1 only
	}{{"http1", false}, {"http2 = true", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Second})
				e := w.secureInMemory("billing", receiver, "http/1.1")
				e.HTTP2 = c.http2
				e.Retry.Schedule = []time.Duration{time.Millisecond}
				w.start(e)
				w.accept(4, "billing") // as many connections as there are slots
				w.await(4)
				w.net.Lose()
				w.accept(1, "billing")
				results := w.await(6)
				if a := results[4].Attempt; a.Code != "timeout" || !results[4].Reused {
					t.Errorf("attempt on a dead connection: %q (%s), reused %t, want timeout", a.Code, a.Error, results[4].Reused)
				}
				if r := results[5]; r.State != outbox.Delivered || r.Reused {
					t.Errorf("the attempt after it: %s, reused connection %t (%s)", r.State, r.Reused, r.Attempt.Error)
				}
			})
		})
	}
}
