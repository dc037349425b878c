package deliver

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/gate"
)

// Receivers tell in several dialects how much they still take. The standard's newer names
// come first, of each the first line, and only where the endpoint obeys them.
func TestRateHeaders(t *testing.T) {
	for _, c := range []struct {
		name   string
		header map[string]string
		obey   bool
		want   gate.RateHeaders
	}{
		{"none", nil, true, gate.RateHeaders{}},
		{"draft", map[string]string{"RateLimit": `"default";r=50;t=30`, "RateLimit-Policy": `"default";q=100;w=60`}, true, gate.RateHeaders{RateLimit: `"default";r=50;t=30`}},
		{"older draft", map[string]string{"RateLimit-Limit": "100", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"}, true, gate.RateHeaders{Remaining: "50", Reset: "30"}},
		{"X-RateLimit", map[string]string{"x-ratelimit-limit": "100", "X-RATELIMIT-Remaining": "50", "X-RateLimit-Reset": "1372700873"}, true, gate.RateHeaders{Remaining: "50", Reset: "1372700873"}},
		{"X-Rate-Limit", map[string]string{"X-Rate-Limit-Limit": "100", "X-Rate-Limit-Remaining": "50", "X-Rate-Limit-Reset": "30"}, true, gate.RateHeaders{Remaining: "50", Reset: "30"}},
		{"mixed", map[string]string{"X-RateLimit-Limit": "1", "RateLimit-Limit": "2", "X-Rate-Limit-Reset": "3", "X-RateLimit-Reset": "4", "RateLimit": "a"}, true, gate.RateHeaders{RateLimit: "a", Reset: "4"}},
		{"not obeyed", map[string]string{"RateLimit": "a", "X-RateLimit-Limit": "1"}, false, gate.RateHeaders{}},
	} {
		for _, status := range []int{200, 429} {
			t.Run(c.name, func(t *testing.T) {
				onEachSender(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
					e := put(delivertest.NewEndpoint(delivertest.Step{Status: status, Header: c.header}))
					e.ObeyRateHeaders = c.obey
					s := newSender(t.Context(), e, &w.o, &sync.Pool{New: newExchange})
					defer s.close()
					a, f := s.send(t.Context(), time.Now().Add(time.Minute), nil, []byte("{}"))
					if f != nil || a.status != status || a.rateHeaders != c.want {
						t.Errorf("status %d (%v), headers %+v, want %+v", a.status, f, a.rateHeaders, c.want)
					}
				})
			})
		}
	}
}

// Of several lines of one header the first counts, and none of an informational answer.
func TestRateHeadersSaidTwice(t *testing.T) {
	const raw = "HTTP/1.1 103 Early Hints\r\nRateLimit: early\r\n\r\nHTTP/1.1 429 Slow Down\r\nratelimit: one\r\nRateLimit: two\r\nContent-Length: 0\r\n\r\n"
	for _, http2 := range []bool{false, true} {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Raw: raw, Fault: delivertest.Close})
		a := newAuthority(t)
		w.o.roots = a.pool()
		receiver.TLS = a.issue("billing.test", time.Now().Add(time.Hour))
		e := w.named(receiver)
		e.HTTP2, e.ObeyRateHeaders = http2, true
		s := newSender(t.Context(), e, &w.o, &sync.Pool{New: newExchange})
		got, f := s.send(t.Context(), time.Now().Add(time.Minute), nil, []byte("{}"))
		s.close()
		if want := (gate.RateHeaders{RateLimit: "one"}); f != nil || got.rateHeaders != want {
			t.Errorf("http2 = %t: %+v (%v), want %+v", http2, got.rateHeaders, f, want)
		}
	}
}

// Fault F44: time limits of attempts do not follow the wall clock when it jumps. A clock
// cannot be made to jump here; a time with a monotonic reading, which String shows, is
// all that net and context look at. Signatures and due times are of the wall clock
// (TestScheduleOfDays).
func TestTimeLimitsAreMonotonic(t *testing.T) {
	w := newWorld(t)
	receiver := delivertest.NewEndpoint()
	e := endpointAt(t, "billing", receiver.Listen(t))
	address := e.URL.Host
	var limits, dials []time.Time
	w.o.dialNet = func(ctx context.Context, network, _ string) (net.Conn, error) {
		until, _ := ctx.Deadline()
		dials = append(dials, until)
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &limited{c, &limits}, err
	}
	e.Concurrency = 1
	w.start(e)
	w.accept(2, "billing")
	for _, r := range w.await(2) {
		if r.State != outbox.Delivered {
			t.Fatalf("delivery is %s, %s", r.State, r.Attempt.Error)
		}
	}
	if len(limits) != 2 || len(dials) != 1 {
		t.Fatalf("%d time limits of attempts and %d of dials, want 2, 1", len(limits), len(dials))
	}
	for _, at := range append(limits, dials...) {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("limit %s has no monotonic reading", at)
		}
	}
}

// limited keeps the time limits that a connection is given.
type limited struct {
	net.Conn
	limits *[]time.Time
}

func (c *limited) SetDeadline(t time.Time) error {
	*c.limits = append(*c.limits, t)
	return c.Conn.SetDeadline(t)
}
