package post

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"relay/policy"
)

// http2 is the sender on net/http, for endpoints with http2 = true. It uses HTTP/2 if the
// receiver chooses it, else HTTP/1.1.
//
// Connections are this package's, so net/http repeats no request by itself. Send repeats one only
// if the receiver says that it did not process it: see unprocessed.
type http2 struct {
	url  *url.URL
	http *http.Transport
	pool sharedPool
	dial *dialer
	obey bool // rate headers
}

// A connection without data for sendPing gets a PING, and is closed if there is no answer within
// pingTimeout.
const (
	sendPing    = 5 * time.Second
	pingTimeout = 3 * time.Second
)

func newHTTP2(e *policy.Endpoint, d *dialer) *http2 {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	t := &http2{url: e.RequestURL(), dial: d, obey: e.ObeyRateHeaders, http: &http.Transport{
		DialContext:            handOver(d.dial),
		DialTLSContext:         handOver(d.dialTLS),
		Protocols:              protocols,
		DisableCompression:     true, // a small answer must not decompress to a large one
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{ // a dead connection is noticed during an attempt
			SendPingTimeout:  sendPing,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: sendPing,

			MaxReceiveBufferPerStream: maxBody, // that a receiver may send unasked
		},
	}}
	address := addressOf(e)
	t.pool.open = func(ctx context.Context) (*shared, error) {
		var c net.Conn
		cc, err := t.http.NewClientConn(context.WithValue(ctx, dialled{}, &c), t.url.Scheme, address)
		if err != nil {
			return nil, err
		}
		secure, ok := c.(*tls.Conn)
		many := ok && secure.ConnectionState().NegotiatedProtocol == "h2"
		return &shared{carrier: cc, base: baseOf(c), many: many, expires: expiry(time.Now(), e.ConnectionMaxAge)}, nil
	}
	t.pool.alarm.ring = t.pool.sweep
	return t
}

// dialled is the context key for where a dial puts its connection.
type dialled struct{}

// handOver makes dials put their connection where the context says.
func handOver(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if place, ok := ctx.Value(dialled{}).(*net.Conn); ok {
			*place = c
		}
		return c, err
	}
}

func (t *http2) Send(ctx context.Context, r Request) (a Answer, f *Failure) {
	ctx, cancel := context.WithDeadline(ctx, r.Until)
	defer cancel()
	r.Body = bytes.Clone(r.Body) // net/http may still read it after the answer has arrived
	for n := 0; ; n++ {
		var answering bool
		var err error
		if a, answering, err = t.try(ctx, r); err == nil {
			return a, nil
		}
		if unprocessed(err) && pause(ctx, n) {
			continue
		}
		f := t.failure(err, answering, a.Reused)
		if ctx.Err() != nil && f.Code != CodeNoSocket {
			t.pool.dropIdle()
			return a, &Failure{Code: policy.CodeTimeout}
		}
		return a, f
	}
}

// try sends the request once, on one connection. After an error, answering is true if a part of
// an answer had arrived.
func (t *http2) try(ctx context.Context, r Request) (a Answer, answering bool, err error) {
	c, reused, err := t.pool.take(ctx)
	if err != nil {
		if dial, ok := errors.AsType[*dialError](err); ok {
			a.Timing = dial.timing
		}
		return a, false, err
	}
	defer t.pool.put(c)
	a.Peer = c.base.peer
	if a.Reused = reused; !reused {
		a.Timing = c.base.timing
	}
	ready := time.Now()
	var firstByte atomic.Pointer[time.Time] // set by a goroutine of net/http
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() {
		now := time.Now()
		firstByte.Store(&now)
	}})
	resp, err := c.carrier.(*http.ClientConn).RoundTrip(t.request(ctx, r))
	first := firstByte.Load()
	if first != nil {
		a.Timing.FirstByte = first.Sub(ready)
	}
	if err != nil {
		return a, first != nil, err
	}
	defer resp.Body.Close()
	a.Status = resp.StatusCode
	a.RetryAfter = resp.Header.Get("Retry-After")
	a.Head = headText(resp.Header)
	if t.obey {
		a.RateHeaders = rateHeadersOf(resp.Header.Get)
	}
	if a.Status == http.StatusSwitchingProtocols {
		return a, true, nil // the connection is the body
	}
	if a.Body, err = readBody(resp.Body); err == nil {
		err = ctx.Err() // a body that ends with the attempt's time may be one that net/http cut itself
	}
	if err != nil {
		a.BodyFault = bodyFault(err, r.Until)
	}
	if a.BodyFault != nil && a.BodyFault.Code == CodeBodyTimeout {
		t.pool.dropIdle()
	}
	return a, true, nil
}

// request is r for net/http. Its body cannot be rewound.
func (t *http2) request(ctx context.Context, r Request) *http.Request {
	req := (&http.Request{
		Method:        cmp.Or(r.Method, http.MethodPost),
		URL:           t.url,
		Host:          t.url.Host,
		Header:        make(http.Header, len(r.Header)),
		Body:          io.NopCloser(bytes.NewReader(r.Body)),
		ContentLength: int64(len(r.Body)),
	}).WithContext(ctx)
	for _, h := range r.Header {
		req.Header[h.Name] = append(req.Header[h.Name], h.Value) // names keep their case
	}
	return req
}

// failure says why try got no answer. reused is true if the connection had served before.
func (t *http2) failure(err error, answering, reused bool) *Failure {
	if dial, ok := errors.AsType[*dialError](err); ok {
		return &Failure{dial.code, clip(reason(dial))}
	}
	if unprocessed(err) {
		return &Failure{policy.CodeReset, "the receiver ended each connection before it took the request"}
	}
	f := exchangeFailure(err, answering)
	if f.Code == policy.CodeReset && !reused && t.dial.asked.Load() {
		// With TLS 1.3 a receiver refuses the client after the handshake. net/http is writing
		// then, and may see only that the connection ends.
		return &Failure{policy.CodeTLS, "the receiver asked for a client certificate, then ended the connection"}
	}
	return f
}

// unprocessed reports whether a request was certainly not processed, so that sending it again
// cannot duplicate it: the receiver said so by GOAWAY (RFC 9113 section 6.8) or REFUSED_STREAM
// (section 8.7), or nothing was sent. net/http identifies the first and the last only by their
// text. The whole text is compared, so that an error that quotes the receiver cannot match.
func unprocessed(err error) bool {
	if stream, ok := errors.AsType[streamError](err); ok {
		const refusedStream = 7
		return stream.Code == refusedStream
	}
	switch err.Error() {
	case "http2: Transport received Server's graceful shutdown GOAWAY", "http2: client conn not usable":
		return true
	}
	return false
}

// streamError is the target for errors.As of net/http's errors of one stream.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error" }

// pause waits before a request is sent again, after n times: not at all, then up to 200 ms, so
// that a receiver that refuses requests is not asked continuously. It returns false when ctx
// ends.
func pause(ctx context.Context, n int) bool {
	if n == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(rand.N(time.Duration(min(n, 20)) * 10 * time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *http2) Close() { t.pool.close() }

// headText returns the header as lines, cut if it is too long to keep.
func headText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b) // a Builder returns no error
	return b.String()[:min(b.Len(), maxKeptHead)]
}
