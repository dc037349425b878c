package deliver

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// defaults is the retry policy that the file has when it says nothing.
var defaults = policy.Retry{
	Steps: policy.Steps{
		Schedule: []time.Duration{
			5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
			10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
		},
		Jitter: 0.1,
	},
	On:            retryOn("network", "timeout", "408", "409", "425", "429", "5xx"),
	MaxRetryAfter: 24 * time.Hour,
}

func retryOn(list ...string) policy.Outcomes {
	on, err := policy.ParseOutcomes(list)
	if err != nil {
		panic(err)
	}
	return on
}

var secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

func signer(t testing.TB) *sign.Signer {
	t.Helper()
	s, err := sign.NewSigner(sign.Standard(), []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t testing.TB) *sign.Verifier {
	t.Helper()
	v, err := sign.NewVerifier(sign.Standard(), []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// endpointAt returns an endpoint that may be on loopback.
func endpointAt(t testing.TB, name string, u *url.URL) *policy.Endpoint {
	t.Helper()
	return &policy.Endpoint{
		Name:        name,
		URL:         u,
		Enabled:     true,
		Signers:     []*sign.Signer{signer(t)},
		Concurrency: 4,
		Timeout:     policy.Timeout{Connect: 5 * time.Second, Total: 15 * time.Second},
		Retry:       defaults,
		Egress:      policy.Egress{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowPlaintext: true},
	}
}

// world is a Deliverer at work on a memory outbox.
type world struct {
	t     *testing.T
	o     Options
	net   *delivertest.Network
	store *outboxtest.Mem
	d     *Deliverer
	halt  context.CancelFunc
	ended chan struct{}
	err   error // of Run, once ended

	accepted int // events so far
	begin    time.Time

	mu      sync.Mutex
	results []Result
	changed chan struct{}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: delivertest.NewNetwork(), store: outboxtest.NewMem(outboxtest.MemOptions{}), changed: make(chan struct{})}
	w.o = Options{Source: w.store, Version: "test", observe: w.observe}
	return w
}

// inMemory puts a receiver on the network in memory and returns a policy for it.
func (w *world) inMemory(name string, e *delivertest.Endpoint) *policy.Endpoint {
	w.t.Helper()
	u := &url.URL{Scheme: "http", Host: name + ".test:80", Path: "/hook"}
	l, err := w.net.Listen(u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	e.Serve(w.t, l)
	w.o.network.Dial = w.net.Dial
	return endpointAt(w.t, name, u)
}

// start runs a Deliverer until the test ends or stop is called.
func (w *world) start(endpoints ...*policy.Endpoint) {
	w.t.Helper()
	ctx, halt := context.WithCancel(context.Background())
	w.halt, w.ended = halt, make(chan struct{})
	w.d = New(w.o, &policy.Policy{Endpoints: endpoints})
	go func() {
		w.err = w.d.Run(ctx)
		close(w.ended)
	}()
	w.t.Cleanup(func() {
		w.stop()
		_ = w.store.Close()
	})
}

func (w *world) stop() error {
	w.halt()
	<-w.ended
	return w.err
}

func (w *world) observe(r Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.results = append(w.results, r)
	close(w.changed)
	w.changed = make(chan struct{})
}

// await returns the results once there are n. In a bubble time passes meanwhile.
func (w *world) await(n int) []Result {
	w.t.Helper()
	for {
		w.mu.Lock()
		results, changed := slices.Clone(w.results), w.changed
		w.mu.Unlock()
		if len(results) >= n {
			return results
		}
		select {
		case <-changed:
		case <-w.ended:
			w.t.Fatalf("run ended with %d of %d results: %v", len(results), n, w.err)
		}
	}
}

const payload = `{"amount": 1000, "note": "a \"b\" c"}`

// accept brings n events for each endpoint and returns their ids.
func (w *world) accept(n int, endpoints ...string) (ids []string) {
	w.t.Helper()
	var b outbox.Batch
	for range n {
		id := fmt.Sprintf("evt_%s_%d", strings.Join(endpoints, "_"), w.accepted)
		w.accepted++
		ids = append(ids, id)
		b.Entries = append(b.Entries, outbox.Entry{
			Event: outbox.Event{
				ID: id, Type: "invoice.paid", Time: time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC), Data: []byte(payload),
			},
			Endpoints: endpoints,
		})
	}
	if _, err := w.store.Accept(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// delivery returns the only delivery of an event.
func (w *world) delivery(event string) outbox.DeliveryRecord {
	w.t.Helper()
	r, err := w.store.Lookup(w.t.Context(), event)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Deliveries[0]
}

func endpointURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// acceptSized brings an event of that many bytes.
func (w *world) acceptSized(n int) (id string) {
	w.t.Helper()
	b := outbox.Batch{Entries: []outbox.Entry{{
		Event:     outbox.Event{ID: "evt_sized", Type: "a", Time: time.Now(), Data: []byte(`"` + strings.Repeat("x", n) + `"`)},
		Endpoints: []string{"billing"},
	}}}
	if _, err := w.store.Accept(w.t.Context(), b); err != nil {
		w.t.Fatal(err)
	}
	return "evt_sized"
}

// secureInMemory puts a receiver with TLS on the network in memory.
func (w *world) secureInMemory(name string, e *delivertest.Endpoint, protocols ...string) *policy.Endpoint {
	w.t.Helper()
	a := delivertest.NewAuthority(w.t)
	w.o.network.Roots, w.o.network.Dial, w.net.Buffered = a.Pool(), w.net.Dial, true
	e.TLS = a.Issue(name+".test", time.Now().Add(1000*time.Hour))
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
