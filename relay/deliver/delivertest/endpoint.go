// Package delivertest has receivers for tests: an Endpoint that answers by a
// script, faults included, and records what came, and a Network in memory that works
// inside synctest bubbles.
package delivertest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"relay/policy/sign"
)

// Step is how an Endpoint treats one request. The zero value answers 200.
type Step struct {
	Delay  time.Duration // before anything else
	Status int           // 0 is 200
	Header map[string]string
	Body   string
	Slow   time.Duration // before each byte of Body
	Fault  Fault
	Raw    string           // what is written in place of an HTTP answer, before the Fault
	Serve  http.HandlerFunc // answers, in place of all above but Delay
}

// Fault is how an Endpoint breaks off.
type Fault int

// The faults.
const (
	None  Fault = iota
	Hang        // says nothing more until the client goes away
	Reset       // breaks the connection; on TCP the client sees a reset
	Close       // ends the connection in order
	Flood       // writes Raw again and again until the client goes away
)

// Request is what came.
type Request struct {
	At       time.Time
	Event    string // webhook-id
	Delivery string // Relay-Delivery
	Attempt  int    // Relay-Attempt
	Method   string
	Host     string
	Path     string
	Proto    string
	Header   http.Header
	Body     []byte
	Hash     [sha256.Size]byte // of Body
	Err      error             // what Endpoint.Verifier says of it
}

// Endpoint is a receiver. It is an http.Handler; Serve or Listen put it on a
// network.
type Endpoint struct {
	// Answer, when set, picks the step for a request in place of the script.
	Answer func(r *Request) Step

	// Verifier, when set, checks each request's signature, within 5 minutes.
	Verifier *sign.Verifier

	// TLS, when set, makes Serve speak TLS, and HTTP/2 where it offers h2. It needs a
	// network with buffers: both sides of a handshake may write at the same time.
	TLS *tls.Config

	script []Step

	mu       sync.Mutex
	requests []*Request
	conns    int
	busy     int
	peak     int
	changed  chan struct{} // closed and replaced by each request
}

// NewEndpoint returns an endpoint that treats its first request by the first
// step and so on; the last step is for all further requests.
func NewEndpoint(script ...Step) *Endpoint {
	if len(script) == 0 {
		script = []Step{{}}
	}
	return &Endpoint{script: script, changed: make(chan struct{})}
}

// Listen serves on a free port of 127.0.0.1 and returns the URL.
func (e *Endpoint) Listen(t testing.TB) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.Serve(t, l)
	u := &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/hook"}
	if e.TLS != nil {
		u.Scheme = "https"
	}
	return u
}

// Serve answers on l until the test ends.
func (e *Endpoint) Serve(t testing.TB, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:     e,
		TLSConfig:   e.TLS,
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				e.mu.Lock()
				e.conns++
				e.mu.Unlock()
			}
		},
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if e.TLS != nil {
			_ = server.ServeTLS(l, "", "")
		} else {
			_ = server.Serve(l)
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		serving.Wait()
	})
}

func (e *Endpoint) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := e.read(hr)
	step := e.record(r)
	defer e.done()
	if !wait(hr.Context(), step.Delay) {
		return
	}
	if step.Serve != nil {
		step.Serve(w, hr)
		return
	}
	if step.Fault != None || step.Raw != "" {
		e.breakOff(w, hr, step)
		return
	}
	for name, value := range step.Header {
		w.Header().Set(name, value)
	}
	if step.Status == 0 {
		step.Status = http.StatusOK
	}
	w.WriteHeader(step.Status)
	if step.Slow == 0 {
		_, _ = io.WriteString(w, step.Body)
		return
	}
	flush := http.NewResponseController(w)
	for _, b := range []byte(step.Body) {
		_ = flush.Flush()
		if !wait(hr.Context(), step.Slow) {
			return
		}
		_, _ = w.Write([]byte{b})
	}
}

func (e *Endpoint) read(hr *http.Request) *Request {
	body, _ := io.ReadAll(hr.Body)
	attempt, _ := strconv.Atoi(hr.Header.Get("Relay-Attempt"))
	r := &Request{
		At:       time.Now(),
		Event:    hr.Header.Get("webhook-id"),
		Delivery: hr.Header.Get("Relay-Delivery"),
		Attempt:  attempt,
		Method:   hr.Method,
		Host:     hr.Host,
		Path:     hr.URL.RequestURI(),
		Proto:    hr.Proto,
		Header:   hr.Header.Clone(),
		Body:     body,
		Hash:     sha256.Sum256(body),
	}
	if e.Verifier != nil {
		scheme := "http://"
		if hr.TLS != nil {
			scheme = "https://"
		}
		m := &sign.Message{Method: r.Method, URL: scheme + r.Host + r.Path, Time: r.At, Body: body}
		r.Err = e.Verifier.Verify(hr.Header.Values, m, 5*time.Minute)
	}
	return r
}

// record keeps r and returns the step for it.
func (e *Endpoint) record(r *Request) Step {
	e.mu.Lock()
	defer e.mu.Unlock()
	step := e.script[min(len(e.requests), len(e.script)-1)]
	if e.Answer != nil {
		step = e.Answer(r)
	}
	e.requests = append(e.requests, r)
	e.busy++
	e.peak = max(e.peak, e.busy)
	close(e.changed)
	e.changed = make(chan struct{})
	return step
}

func (e *Endpoint) done() {
	e.mu.Lock()
	e.busy--
	e.mu.Unlock()
}

// breakOff takes the connection from the server and ends it by the step.
func (e *Endpoint) breakOff(w http.ResponseWriter, hr *http.Request, step Step) {
	if step.Fault == Hang && step.Raw == "" {
		<-hr.Context().Done()
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	defer conn.Close()
	stop := context.AfterFunc(hr.Context(), func() { _ = conn.Close() })
	defer stop()
	_, err = io.WriteString(conn, step.Raw)
	switch step.Fault {
	case Hang:
		_, _ = io.Copy(io.Discard, conn)
	case Flood:
		for err == nil {
			_, err = io.WriteString(conn, step.Raw)
		}
	case Reset:
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Requests returns what came so far, in order of arrival.
func (e *Endpoint) Requests() []*Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// Await returns the requests once there are n. It is for tests in real time and
// fails them when that takes half a minute.
func (e *Endpoint) Await(t testing.TB, n int) []*Request {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		e.mu.Lock()
		requests, changed := slices.Clone(e.requests), e.changed
		e.mu.Unlock()
		if len(requests) >= n {
			return requests
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("%d of %d requests came", len(requests), n)
		}
	}
}

// Conns returns how many connections were opened to the endpoint.
func (e *Endpoint) Conns() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conns
}

// Peak returns how many requests were under way at the same time, at most.
func (e *Endpoint) Peak() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peak
}
