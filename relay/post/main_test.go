package post

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

func TestMain(m *testing.M) {
	for _, name := range proxies {
		_ = os.Setenv(name, "http://127.0.0.1:9") // discard: nobody listens
	}
	testkit.Main(m)
}

// endpointAt returns an endpoint that may be on loopback.
func endpointAt(name string, u *url.URL) *policy.Endpoint {
	return &policy.Endpoint{
		Name:        name,
		URL:         u,
		Concurrency: 4,
		Timeout:     policy.Timeout{Connect: 5 * time.Second, Total: 15 * time.Second},
		Egress:      policy.Egress{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowPlaintext: true},
	}
}

// world sends events to endpoints, as many at once as each endpoint's concurrency, in
// the order in which they were accepted. It stands for a Deliverer: an event that failed is
// sent again after each step of its endpoint's schedule.
type world struct {
	t       *testing.T
	o       Options
	net     *delivertest.Network
	senders map[string]Sender
	queues  map[string]chan event
	work    sync.WaitGroup
	halt    context.CancelFunc

	accepted int // events so far

	mu      sync.Mutex
	results []result
	changed chan struct{}
}

type event struct {
	id   string
	body []byte
}

// result is what one Send came to.
type result struct {
	Endpoint, EventID string
	Attempt           outbox.Attempt
	State             outbox.State // Delivered with a 2xx, else Pending
	Reused            bool
}

func newWorld(t *testing.T) *world {
	return &world{t: t, net: delivertest.NewNetwork(), senders: map[string]Sender{}, queues: map[string]chan event{}, changed: make(chan struct{})}
}

// inMemory puts a receiver on the network in memory and returns an endpoint for it.
func (w *world) inMemory(name string, e *delivertest.Endpoint) *policy.Endpoint {
	w.t.Helper()
	u := &url.URL{Scheme: "http", Host: name + ".test:80", Path: "/hook"}
	l, err := w.net.Listen(u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Serve(w.t, l)
	w.o.Network.Dial = w.net.Dial
	return endpointAt(name, u)
}

// secureInMemory puts a receiver with TLS on the network in memory.
func (w *world) secureInMemory(name string, e *delivertest.Endpoint, protocols ...string) *policy.Endpoint {
	w.t.Helper()
	a := delivertest.NewAuthority(w.t)
	w.o.Network.Roots, w.o.Network.Dial, w.net.Buffered = a.Pool(), w.net.Dial, true
	e.TLS = a.Issue(name+".test", time.Now().Add(1000*time.Hour))
	e.TLS.NextProtos = protocols
	u := &url.URL{Scheme: "https", Host: name + ".test:443", Path: "/hook"}
	l, err := w.net.Listen(u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Serve(w.t, l)
	p := endpointAt(name, u)
	p.HTTP2 = len(protocols) > 0 && protocols[0] == "h2"
	return p
}

// named puts a receiver on loopback under the name billing.test. TLS needs a
// network with buffers: in a handshake both sides may write at the same time.
func (w *world) named(r *delivertest.Endpoint) *policy.Endpoint {
	u := r.Listen(w.t)
	address := u.Host
	w.o.Network.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	u.Host = "billing.test:" + u.Port()
	return endpointAt("billing", u)
}

// start makes the endpoints' senders, which work until the test ends or stop is called.
func (w *world) start(endpoints ...*policy.Endpoint) {
	ctx, halt := context.WithCancel(context.Background())
	w.halt = halt
	client := NewClient(w.o)
	for _, e := range endpoints {
		s, queue := client.Sender(ctx, e), make(chan event, 1000)
		w.senders[e.Name], w.queues[e.Name] = s, queue
		for range e.Concurrency {
			w.work.Go(func() {
				for ev := range queue {
					w.deliver(ctx, s, e, ev)
				}
			})
		}
	}
	w.t.Cleanup(w.stop)
}

// deliver sends an event until it is answered well or the schedule has ended.
func (w *world) deliver(ctx context.Context, s Sender, e *policy.Endpoint, ev event) {
	for n := 1; ; n++ {
		r := w.try(ctx, s, e, ev, n)
		w.mu.Lock()
		w.results = append(w.results, r)
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		if r.State == outbox.Delivered || n > len(e.Retry.Schedule) {
			return
		}
		if d := e.Retry.Schedule[n-1]; d > 0 {
			<-time.After(d)
		}
	}
}

func (w *world) try(ctx context.Context, s Sender, e *policy.Endpoint, ev event, n int) result {
	header := []sign.Header{
		{Name: "Content-Type", Value: "application/json"}, {Name: "User-Agent", Value: "Relay/test"},
		{Name: "webhook-id", Value: ev.id}, {Name: "Relay-Attempt", Value: strconv.Itoa(n)}, {Name: "Relay-Delivery", Value: "dlv_" + ev.id},
	}
	for _, h := range e.Headers {
		header = append(header, sign.Header{Name: h.Name, Value: h.Value.Reveal()})
	}
	start := time.Now()
	a, f := s.Send(ctx, Request{Header: header, Body: ev.body, Until: start.Add(e.Timeout.Total)})
	r := result{
		Endpoint: e.Name, EventID: ev.id, State: outbox.Pending, Reused: a.Reused,
		Attempt: outbox.Attempt{N: n, Started: start, Took: time.Since(start), Timing: a.Timing, Status: a.Status, Head: a.Head, Body: a.Body},
	}
	if f != nil {
		r.Attempt.Code, r.Attempt.Error = f.Code, f.Text
		return r
	}
	if f := a.BodyFault; f != nil {
		r.Attempt.Code, r.Attempt.Error = f.Code, f.Text
	}
	if a.Status >= 200 && a.Status <= 299 {
		r.State = outbox.Delivered
	}
	return r
}

// accept brings n events for an endpoint.
func (w *world) accept(n int, endpoint string) {
	for range n {
		w.queues[endpoint] <- event{fmt.Sprintf("evt_%s_%d", endpoint, w.accepted), []byte(`{"amount": 1000, "note": "a \"b\" c"}`)}
		w.accepted++
	}
}

// acceptSized brings an event of that many bytes.
func (w *world) acceptSized(n int) {
	w.queues["billing"] <- event{"evt_sized", []byte(`"` + strings.Repeat("x", n) + `"`)}
}

// await returns the results once there are n. In a bubble time passes meanwhile.
func (w *world) await(n int) []result {
	for {
		w.mu.Lock()
		results, changed := slices.Clone(w.results), w.changed
		w.mu.Unlock()
		if len(results) >= n {
			return results
		}
		<-changed
	}
}

// stop waits for what was accepted, then closes all connections.
func (w *world) stop() {
	for _, q := range w.queues {
		close(q)
	}
	w.work.Wait()
	for _, s := range w.senders {
		s.Close()
	}
	clear(w.queues)
	clear(w.senders)
	w.halt()
}

// onEachNetwork runs a test on the network in memory, on loopback TCP and on a
// Unix socket: they differ in buffering and in how connections break.
func onEachNetwork(t *testing.T, run func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint { return w.inMemory("billing", r) })
		})
	})
	t.Run("tcp", func(t *testing.T) {
		run(t, newWorld(t), func(r *delivertest.Endpoint) *policy.Endpoint { return endpointAt("billing", r.Listen(t)) })
	})
	t.Run("unix", func(t *testing.T) {
		w := newWorld(t)
		run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint {
			path := filepath.Join(testkit.Dir(t), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			e := w.inMemory("billing", delivertest.NewEndpoint())
			w.o.Network.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			r.Serve(t, l)
			return e
		})
	})
}

// onEachSender runs a test for HTTP/1.1, for HTTP/2 and for HTTP/1.1 where HTTP/2 was
// offered.
func onEachSender(t *testing.T, run func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint)) {
	for _, c := range []struct {
		name, protocol string
		http2          bool
	}{
		{"http1", "http/1.1", false},
		{"http2", "h2", true},
		{"http2 = true, but HTTP/1.1", "http/1.1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint {
					e := w.secureInMemory("billing", r, c.protocol)
					e.HTTP2 = c.http2
					return e
				})
			})
		})
	}
}

// onBothSenders runs a test for HTTP/1.1 without TLS and for HTTP/2 with it.
func onBothSenders(t *testing.T, run func(t *testing.T, protocols ...string)) {
	t.Run("http1", func(t *testing.T) { run(t) })
	t.Run("http2", func(t *testing.T) { run(t, "h2", "http/1.1") })
}

// onBothSecureSenders runs a test with TLS for HTTP/1.1 and for HTTP/2.
func onBothSecureSenders(t *testing.T, run func(t *testing.T, protocols ...string)) {
	t.Run("http1", func(t *testing.T) { run(t, "http/1.1") })
	t.Run("http2", func(t *testing.T) { run(t, "h2") })
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func addrs(list ...string) (all []netip.Addr) {
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// counted is a connection that knows whether it was closed.
type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// countedDials counts connections that are open.
type countedDials struct{ n atomic.Int64 }

func (o *countedDials) count(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		o.n.Add(1)
		return &counted{Conn: c, open: &o.n}, nil
	}
}
