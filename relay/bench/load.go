package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	requestTimeout = 30 * time.Second
	stall          = 20 * time.Second // without an arrival, before a run is given up
	lookEvery      = 50 * time.Millisecond
)

// load is the senders of one run.
type load struct {
	network, addr, path string
	first               int64 // number of the first event
	events, batch       int
	fan, endpoints      int
	group               int64 // of endpoints, the first that gets events
	senders, size       int
	rate                float64
	envelope            bool   // requests to ingest; otherwise the body is a signed event
	secret              []byte // of the signature, without an envelope

	next         atomic.Int64
	due          chan int64 // with a rate: the numbers of events, as they are due
	began, ended time.Time
}

// run sends all events and returns once the receiver has every delivery of them.
func (l *load) run(ctx context.Context, r *receiver, progress func(done int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.began = time.Now()
	r.start(l.began) // before the first delivery can come
	sent := l.begin(ctx, cancel)
	err := r.await(ctx, l.events*l.fan, progress)
	if err != nil {
		cancel(err)
	}
	<-sent
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// sendAll sends all events and returns once they are accepted. progress tells how many were given to a sender.
func (l *load) sendAll(ctx context.Context, progress func(done int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.began = time.Now()
	for sent := l.begin(ctx, cancel); ; {
		select {
		case <-sent:
			return context.Cause(ctx)
		case <-time.After(lookEvery):
			progress(min(int(l.next.Load()), l.events))
		}
	}
}

// begin starts the senders, which cancel with their first error. The channel is closed when they have ended.
func (l *load) begin(ctx context.Context, cancel context.CancelCauseFunc) (sent chan struct{}) {
	if l.rate > 0 {
		l.due = make(chan int64, l.events)
		go l.pace(ctx)
	}
	var senders sync.WaitGroup
	for range l.senders {
		senders.Go(func() {
			if err := l.send(ctx); err != nil {
				cancel(err)
			}
		})
	}
	sent = make(chan struct{})
	go func() { senders.Wait(); l.ended = time.Now(); close(sent) }()
	return sent
}

// took is how long the requests took, from the first to the last.
func (l *load) took() time.Duration { return l.ended.Sub(l.began) }

// pace makes events due at a fixed rate, even if earlier ones are late, so that time in the
// senders' queue counts as latency.
func (l *load) pace(ctx context.Context) {
	defer close(l.due)
	for n := range l.events {
		at := l.began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
		if !wait(ctx, time.Until(at)) {
			return
		}
		l.due <- int64(n)
	}
}

// take returns the number of the next event, and false after the last.
func (l *load) take(ctx context.Context) (int64, bool) {
	if l.due != nil {
		n, ok := <-l.due
		return n, ok
	}
	n := l.next.Add(int64(l.batch)) - int64(l.batch)
	return n, n < int64(l.events) && ctx.Err() == nil
}

// send is one sender: a connection, one request after the other.
func (l *load) send(ctx context.Context) error {
	conn, err := net.DialTimeout(l.network, l.addr, requestTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	out, in := bufio.NewWriter(conn), bufio.NewReader(conn)
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethod(fasthttp.MethodPost)
	req.SetRequestURI("http://localhost" + l.path)
	req.Header.SetContentType("application/json")
	if l.batch > 1 {
		req.Header.SetContentType("application/x-ndjson")
	}
	mac := newMAC(l.secret)
	pad := bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz012345"), l.size/32+2)
	var body []byte
	var deadline time.Time
	for {
		first, ok := l.take(ctx)
		if !ok {
			return nil
		}
		now := time.Now().UnixNano()
		body = body[:0]
		for n := first; n < min(first+int64(l.batch), int64(l.events)); n++ {
			body = l.appendEvent(body, l.first+n, now, pad)
		}
		if !l.envelope {
			mac.sign(req, first, body)
		}
		req.SetBodyRaw(body)
		if now := time.Now(); now.After(deadline) { // a deadline for each request would be too expensive
			deadline = now.Add(requestTimeout)
			_ = conn.SetDeadline(deadline.Add(requestTimeout)) // fails only once the connection is closed
		}
		if err := errors.Join(req.Write(out), out.Flush()); err != nil {
			return fmt.Errorf("send event %d: %w", first, err)
		}
		if err := resp.Read(in); err != nil {
			return fmt.Errorf("answer to event %d: %w", first, err)
		}
		if code := resp.StatusCode(); code/100 != 2 {
			return fmt.Errorf("send event %d: status %d: %.200s", first, code, resp.Body())
		}
	}
}

// appendEvent writes the n-th event: data of exactly the size asked for, in which the
// receiver finds the number and the time of sending.
func (l *load) appendEvent(b []byte, n, now int64, pad []byte) []byte {
	if l.envelope {
		b = append(b, `{"type":"bench.`...)
		b = strconv.AppendInt(b, l.groupOf(n), 10)
		b = append(b, `","data":`...)
	}
	start := len(b)
	b = append(b, dataStart...)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, `,"t":`...)
	b = strconv.AppendInt(b, now, 10)
	b = append(b, `,"pad":"`...)
	shift := int(n % 32) // events differ
	b = append(b, pad[shift:shift+max(0, l.size-(len(b)-start)-2)]...)
	b = append(b, `"}`...)
	if l.envelope {
		b = append(b, '}')
	}
	if l.batch > 1 {
		b = append(b, '\n')
	}
	return b
}

// groupOf is the group of endpoints that get the n-th event; each group has Fan endpoints.
func (l *load) groupOf(n int64) int64 { return l.group + n%int64(max(1, l.endpoints/l.fan)) }

// mac makes and checks signatures of Standard Webhooks with the standard library, so that the
// check shares no code with Relay.
type mac struct {
	h    hash.Hash
	text []byte
	sum  []byte
}

func newMAC(secret []byte) *mac { return &mac{h: hmac.New(sha256.New, secret)} }

// signature of "<id>.<seconds>.<body>", in base64.
func (m *mac) signature(id, seconds, body []byte) []byte {
	m.h.Reset()
	m.text = append(append(append(append(m.text[:0], id...), '.'), seconds...), '.')
	_, _ = m.h.Write(m.text) // never fails
	_, _ = m.h.Write(body)
	m.sum = m.h.Sum(m.sum[:0])
	m.text = base64.StdEncoding.AppendEncode(m.text[:0], m.sum)
	return m.text
}

func (m *mac) sign(req *fasthttp.Request, n int64, body []byte) {
	id := strconv.AppendInt([]byte("evt_"), n, 10)
	seconds := strconv.AppendInt(nil, time.Now().Unix(), 10)
	req.Header.SetBytesV("webhook-id", id)
	req.Header.SetBytesV("webhook-timestamp", seconds)
	req.Header.Set("webhook-signature", "v1,"+string(m.signature(id, seconds, body)))
}

// wait returns false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
