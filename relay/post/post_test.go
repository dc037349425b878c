package post

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Receivers tell in several dialects how much they still take. The standard's newer names
// come first, of each the first line, and only where the endpoint obeys them.
func TestRateHeaders(t *testing.T) {
	for _, c := range []struct {
		name   string
		header map[string]string
		obey   bool
		want   RateHeaders
	}{
		{"none", nil, true, RateHeaders{}},
		{"draft", map[string]string{"RateLimit": `"default";r=50;t=30`, "RateLimit-Policy": `"default";q=100;w=60`}, true, RateHeaders{RateLimit: `"default";r=50;t=30`}},
		{"older draft", map[string]string{"RateLimit-Limit": "100", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"}, true, RateHeaders{Remaining: "50", Reset: "30"}},
		{"X-RateLimit", map[string]string{"x-ratelimit-limit": "100", "X-RATELIMIT-Remaining": "50", "X-RateLimit-Reset": "1372700873"}, true, RateHeaders{Remaining: "50", Reset: "1372700873"}},
		{"X-Rate-Limit", map[string]string{"X-Rate-Limit-Limit": "100", "X-Rate-Limit-Remaining": "50", "X-Rate-Limit-Reset": "30"}, true, RateHeaders{Remaining: "50", Reset: "30"}},
		{"mixed", map[string]string{"X-RateLimit-Limit": "1", "RateLimit-Limit": "2", "X-Rate-Limit-Reset": "3", "X-RateLimit-Reset": "4", "RateLimit": "a"}, true, RateHeaders{RateLimit: "a", Reset: "4"}},
		{"not obeyed", map[string]string{"RateLimit": "a", "X-RateLimit-Limit": "1"}, false, RateHeaders{}},
	} {
		for _, status := range []int{200, 429} {
			t.Run(c.name, func(t *testing.T) {
				onEachSender(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
					e := put(delivertest.NewEndpoint(delivertest.Step{Status: status, Header: c.header}))
					e.ObeyRateHeaders = c.obey
					s := NewClient(w.o).Sender(t.Context(), e)
					defer s.Close()
					a, f := s.Send(t.Context(), Request{Body: []byte("{}"), Until: time.Now().Add(time.Minute)})
					if f != nil || a.Status != status || a.RateHeaders != c.want {
						t.Errorf("status %d (%v), headers %+v, want %+v", a.Status, f, a.RateHeaders, c.want)
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
		a := delivertest.NewAuthority(t)
		w.o.Network.Roots = a.Pool()
		receiver.TLS = a.Issue("billing.test", time.Now().Add(time.Hour))
		e := w.named(receiver)
		e.HTTP2, e.ObeyRateHeaders = http2, true
		s := NewClient(w.o).Sender(t.Context(), e)
		got, f := s.Send(t.Context(), Request{Body: []byte("{}"), Until: time.Now().Add(time.Minute)})
		s.Close()
		if want := (RateHeaders{RateLimit: "one"}); f != nil || got.RateHeaders != want {
			t.Errorf("http2 = %t: %+v (%v), want %+v", http2, got.RateHeaders, f, want)
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
	e := endpointAt("billing", receiver.Listen(t))
	address := e.URL.Host
	var limits, dials []time.Time
	w.o.Network.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
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

func TestConnectionsAreReused(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
		receiver := delivertest.NewEndpoint(delivertest.Step{Body: "ok"})
		w.start(put(receiver))
		w.accept(300, "billing")
		opened := 0
		for _, r := range w.await(300) {
			if r.State != outbox.Delivered {
				t.Fatalf("delivery is %s: %s", r.State, r.Attempt.Error)
			}
			if !r.Reused {
				opened++
			}
		}
		if opened < 1 || opened > 4 || receiver.Conns() > 4 {
			t.Errorf("%d attempts on new connections, %d connections opened, want 1 to 4, the concurrency", opened, receiver.Conns())
		}
		for _, r := range receiver.Requests() {
			if r.Err != nil {
				t.Fatalf("signature: %v", r.Err)
			}
		}
	})
}

// Timings of a new connection, and none of them for a reused one.
func TestTimings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: 3 * time.Second}))
		dial := w.o.Network.Dial
		w.o.Network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(2 * time.Second)
			return dial(ctx, network, address)
		}
		e.Concurrency = 1
		w.start(e)
		w.accept(2, "billing")
		results := w.await(2)
		if got, want := results[0].Attempt.Timing, (outbox.Timing{Connect: 2 * time.Second, FirstByte: 3 * time.Second}); got != want || results[0].Attempt.Took != 5*time.Second {
			t.Errorf("timing is %+v of %s, want %+v", got, results[0].Attempt.Took, want)
		}
		if got, want := results[1].Attempt.Timing, (outbox.Timing{FirstByte: 3 * time.Second}); got != want {
			t.Errorf("timing on a reused connection is %+v, want %+v", got, want)
		}
	})
}

// S10: no compressed answer is asked for, and none is unpacked.
func TestNothingUnpacks(t *testing.T) {
	packed := gzipped(1000)
	onEachSender(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
		receiver := delivertest.NewEndpoint(delivertest.Step{Body: packed, Header: map[string]string{"Content-Encoding": "gzip"}})
		w.start(put(receiver))
		w.accept(1, "billing")
		if r := w.await(1)[0]; string(r.Attempt.Body) != packed {
			t.Errorf("body is %q (%s)", r.Attempt.Body, r.Attempt.Error)
		}
		w.stop()
		if v := receiver.Requests()[0].Header.Values("Accept-Encoding"); len(v) != 0 {
			t.Errorf("asks for %q", v)
		}
	})
}

// A Sender serves another endpoint only where it would connect in the same way.
func TestSame(t *testing.T) {
	e := policy.Endpoint{
		URL: &url.URL{Scheme: "https", Host: "billing.test"}, HTTP2: true, Concurrency: 4,
		TLS: policy.TLS{MinVersion: tls.VersionTLS12, ServerName: "a", Digest: "1"},
	}
	for name, c := range map[string]struct {
		change func(*policy.Endpoint)
		want   bool
	}{
		"nothing":          {func(*policy.Endpoint) {}, true},
		"name":             {func(e *policy.Endpoint) { e.Name = "b" }, true},
		"digest":           {func(e *policy.Endpoint) { e.TLS.Digest = "2" }, false},
		"version":          {func(e *policy.Endpoint) { e.TLS.MinVersion = tls.VersionTLS13 }, false},
		"server name":      {func(e *policy.Endpoint) { e.TLS.ServerName = "b" }, false},
		"rate headers":     {func(e *policy.Endpoint) { e.ObeyRateHeaders = true }, false},
		"HTTP/2":           {func(e *policy.Endpoint) { e.HTTP2 = false }, false},
		"concurrency":      {func(e *policy.Endpoint) { e.Concurrency = 5 }, true},
		"age":              {func(e *policy.Endpoint) { e.ConnectionMaxAge = time.Minute }, false},
		"time":             {func(e *policy.Endpoint) { e.Timeout.Total = time.Second }, false},
		"ports":            {func(e *policy.Endpoint) { e.Egress.Ports = []uint16{443} }, false},
		"private networks": {func(e *policy.Endpoint) { e.Egress.AllowPrivate = prefixes("10.0.0.0/8") }, false},
	} {
		other := e
		c.change(&other)
		if got := Same(&e, &other); got != c.want {
			t.Errorf("%s: connections are kept: %t, want %t", name, got, c.want)
		}
	}
}
