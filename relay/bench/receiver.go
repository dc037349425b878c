package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// dataStart is how the data of an event begins.
const dataStart = `{"n":`

// receiver verifies every POST and records deliveries by endpoint and number of the event.
// Endpoint i has the path /e<i>.
type receiver struct {
	key    []byte // of the signatures
	ln     net.Listener
	server *fasthttp.Server
	served chan error
	macs   sync.Pool // of *mac

	arrived [][]atomic.Int64 // by endpoint and event: latency in ns, 0 if it has not come
	unique  atomic.Int64
	again   atomic.Int64
	last    atomic.Int64 // time of the last first arrival, ns since the start
	began   time.Time
	wrong   atomic.Pointer[error] // the first wrong POST
}

func openReceiver(endpoints, events int) (*receiver, error) {
	r := &receiver{key: make([]byte, 32), served: make(chan error, 1), arrived: make([][]atomic.Int64, endpoints)}
	_, _ = rand.Read(r.key) // never fails
	r.macs.New = func() any { return newMAC(r.key) }
	for i := range r.arrived {
		r.arrived[i] = make([]atomic.Int64, events)
	}
	var err error
	if r.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("open receiver: %w", err)
	}
	r.server = &fasthttp.Server{Handler: r.handle, NoDefaultServerHeader: true, NoDefaultDate: true, MaxRequestBodySize: 16 << 20}
	go func() { r.served <- r.server.Serve(r.ln) }()
	return r, nil
}

func (r *receiver) addr() string   { return r.ln.Addr().String() }
func (r *receiver) secret() string { return "whsec_" + base64.StdEncoding.EncodeToString(r.key) }

// close ends all connections.
func (r *receiver) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.server.ShutdownWithContext(ctx) // hanging requests end with the process
	<-r.served
}

// start sets the time from which the run counts, while nothing can arrive.
func (r *receiver) start(at time.Time) {
	r.began = at
	r.last.Store(0)
}

func (r *receiver) handle(c *fasthttp.RequestCtx) {
	if err := r.take(c); err != nil {
		r.wrong.CompareAndSwap(nil, &err)
		c.SetStatusCode(fasthttp.StatusBadRequest)
	}
}

// take records one delivery.
func (r *receiver) take(c *fasthttp.RequestCtx) error {
	now := time.Now()
	body := c.PostBody()
	h := &c.Request.Header
	m := r.macs.Get().(*mac)
	want := m.signature(h.Peek("webhook-id"), h.Peek("webhook-timestamp"), body)
	good := hmac.Equal(bytes.TrimPrefix(h.Peek("webhook-signature"), []byte("v1,")), want)
	r.macs.Put(m)
	if !good {
		return fmt.Errorf("a delivery to %s has a wrong signature", c.Path())
	}
	endpoint, err := strconv.Atoi(string(bytes.TrimPrefix(c.Path(), []byte("/e"))))
	if err != nil || endpoint >= len(r.arrived) {
		return fmt.Errorf("a delivery came to %s, which is no endpoint", c.Path())
	}
	n, sent, err := numbers(body)
	if err != nil || n >= int64(len(r.arrived[endpoint])) {
		return fmt.Errorf("a delivery to %s is none of this run's", c.Path())
	}
	if !r.arrived[endpoint][n].CompareAndSwap(0, max(1, now.UnixNano()-sent)) {
		r.again.Add(1)
		return nil
	}
	since := int64(now.Sub(r.began))
	for last := r.last.Load(); since > last && !r.last.CompareAndSwap(last, since); last = r.last.Load() {
	}
	r.unique.Add(1)
	return nil
}

var errNoNumbers = errors.New("no number or time in the event")

// numbers finds the number and the time of sending in a body with unchanged data.
func numbers(body []byte) (n, sent int64, err error) {
	_, rest, ok := bytes.Cut(body, []byte(dataStart))
	if !ok {
		return 0, 0, errNoNumbers
	}
	number, rest, ok := bytes.Cut(rest, []byte(`,"t":`))
	when, _, ok2 := bytes.Cut(rest, []byte(","))
	if !ok || !ok2 {
		return 0, 0, errNoNumbers
	}
	n, err = strconv.ParseInt(string(number), 10, 64)
	if err == nil {
		sent, err = strconv.ParseInt(string(when), 10, 64)
	}
	if err != nil || n < 0 {
		return 0, 0, errNoNumbers
	}
	return n, sent, nil
}

// await returns once all deliveries have come. Errors: the context's cause, a wrong delivery,
// missing deliveries.
func (r *receiver) await(ctx context.Context, deliveries int, progress func(done int)) error {
	seen, moved := int64(0), time.Now()
	for {
		if err := r.wrong.Load(); err != nil {
			return *err
		}
		now := r.unique.Load()
		progress(int(now))
		if now >= int64(deliveries) {
			return nil
		}
		if now != seen {
			seen, moved = now, time.Now()
		}
		if time.Since(moved) > stall {
			return fmt.Errorf("%d of %d deliveries came, and no more for %v", now, deliveries, stall)
		}
		if !wait(ctx, lookEvery) {
			return context.Cause(ctx)
		}
	}
}

// took is from the start to the last delivery.
func (r *receiver) took() time.Duration { return time.Duration(r.last.Load()) }

func (r *receiver) duplicates() int { return int(r.again.Load()) }

// latencies from sending to arrival, sorted.
func (r *receiver) latencies() []time.Duration {
	var all []time.Duration
	for i := range r.arrived {
		for n := range r.arrived[i] {
			if d := r.arrived[i][n].Load(); d != 0 {
				all = append(all, time.Duration(d))
			}
		}
	}
	slices.Sort(all)
	return all
}
