package post

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// moving is a name with TLS on the network in memory, whose address is the one of a receiver.
type moving struct {
	mu    sync.Mutex
	at    string
	dials []time.Time
}

func (m *moving) move(to string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = to
}

// moves makes billing.test lead to the receiver one, which move can change.
func (w *world) moves(receivers map[string]*delivertest.Endpoint, protocol string) (*policy.Endpoint, *moving) {
	w.t.Helper()
	a := delivertest.NewAuthority(w.t)
	w.o.Network.Roots, w.net.Buffered = a.Pool(), true
	for at, r := range receivers {
		r.TLS = a.Issue("billing.test", time.Now().Add(1000*time.Hour))
		r.TLS.NextProtos = []string{protocol}
		l, err := w.net.Listen(at)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Serve(w.t, l)
	}
	m := &moving{at: "one"}
	w.o.Network.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		m.mu.Lock()
		at := m.at
		m.dials = append(m.dials, time.Now())
		m.mu.Unlock()
		return w.net.Dial(ctx, network, at)
	}
	return endpointAt("billing", &url.URL{Scheme: "https", Host: "billing.test", Path: "/hook"}), m
}

// A busy connection is left for a new one at the age that the policy says, so that a name that
// moved is followed although its old address answers.
func TestBusyConnectionsFollowTheName(t *testing.T) {
	for _, c := range []struct {
		name, protocol string
		http2          bool
	}{{"http1", "http/1.1", false}, {"http2", "h2", true}, {"http2 = true, but HTTP/1.1", "http/1.1", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const age, every = 5 * time.Minute, 3 * time.Second
				w := newWorld(t)
				one, two := delivertest.NewEndpoint(), delivertest.NewEndpoint()
				e, name := w.moves(map[string]*delivertest.Endpoint{"one": one, "two": two}, c.protocol)
				e.HTTP2, e.ConnectionMaxAge = c.http2, age
				w.start(e)
				begin := time.Now()
				const moved = time.Minute
				for n := 1; time.Since(begin) < 30*time.Minute; n++ {
					if time.Since(begin) == moved {
						name.move("two")
					}
					w.accept(1, "billing")
					if r := w.await(n)[n-1]; r.State != outbox.Delivered {
						t.Fatalf("%q (%s)", r.Attempt.Code, r.Attempt.Error)
					}
					time.Sleep(every)
				}
				w.stop()
				last := one.Requests()[len(one.Requests())-1].At.Sub(begin)
				if last < 4*time.Minute-every || last >= age {
					t.Errorf("the last request came to the old address after %s, want 4 to 5 minutes", last)
				}
				for i, at := range name.dials[1:] {
					if lived := at.Sub(name.dials[i]); lived < age*4/5 || lived > age+every {
						t.Errorf("connection %d was used for %s, want 4 to 5 minutes", i, lived)
					}
				}
				if n := len(name.dials); n < 6 || n > 8 {
					t.Errorf("%d connections in 30 minutes", n)
				}
			})
		})
	}
}

// An idle connection is closed when it reaches its age, and an attempt on one ends as it began.
func TestAgeOfConnections(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint(delivertest.Step{Delay: 14 * time.Second}, delivertest.Step{})
			e, _ := w.moves(map[string]*delivertest.Endpoint{"one": receiver}, protocol)
			var open countedDials
			w.o.Network.Dial = open.count(w.o.Network.Dial)
			e.HTTP2, e.ConnectionMaxAge = protocol == "h2", 10*time.Second
			w.start(e)
			w.accept(1, "billing")
			if r := w.await(1)[0]; r.State != outbox.Delivered {
				t.Errorf("%s: an attempt longer than the age: %q (%s)", protocol, r.Attempt.Code, r.Attempt.Error)
			}
			synctest.Wait()
			if n := open.n.Load(); n != 0 {
				t.Errorf("%s: %d connections are open beyond their age", protocol, n)
			}
			w.accept(1, "billing")
			w.await(2)
			if n := open.n.Load(); n != 1 {
				t.Errorf("%s: %d connections are open, want 1", protocol, n)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if n := open.n.Load(); n != 0 {
				t.Errorf("%s: %d idle connections are open beyond their age", protocol, n)
			}
		})
	}
}
