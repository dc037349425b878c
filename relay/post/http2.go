package post

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"relay/policy"
)

// http2 is the sender on net/http, for endpoints with http2 = true: HTTP/2 where
// the receiver chooses it, else HTTP/1.1.
//
// net/http by itself repeats a request that met a dead connection when it may
// assume that this is safe. Here it may not: the body cannot be rewound (GetBody is
// nil), so one attempt is one request on the wire, whatever headers it has.
type http2 struct {
	url  *url.URL
	http *http.Transport
	dial *dialer
	obey bool // rate headers
}

// A connection where nothing came for sendPing is asked for a sign of life, and
// closed when there is none for pingTimeout.
const (
	sendPing    = 5 * time.Second
	pingTimeout = 3 * time.Second
)

func newHTTP2(e *policy.Endpoint, d *dialer) *http2 {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	address := addressOf(e)
	return &http2{url: e.RequestURL(), dial: d, obey: e.ObeyRateHeaders, http: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.dialTLS(ctx, network, address)
		},
		Protocols:              protocols,
		MaxConnsPerHost:        e.Concurrency,
		MaxIdleConnsPerHost:    e.Concurrency,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true, // a small answer must not unpack to a large one
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{ // a dead connection is found while an attempt lasts
			SendPingTimeout:  sendPing,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: sendPing,

			MaxReceiveBufferPerStream: maxBody, // what a receiver may send unasked
		},
	}}
}

func (t *http2) Send(ctx context.Context, r Request) (a Answer, f *Failure) {
	ctx, cancel := context.WithDeadline(ctx, r.Until)
	defer cancel()
	defer func() {
		if f != nil && ctx.Err() != nil {
			f = &Failure{Code: policy.CodeTimeout}
			t.http.CloseIdleConnections() // as pool.doubt; a PING finds those that others use
		}
	}()
	ready := time.Now()
	var firstByte atomic.Pointer[time.Time] // set by a goroutine of net/http
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			ready = time.Now()
			if a.Reused = c.Reused; !c.Reused {
				a.Timing = baseOf(c.Conn).timing
			}
		},
		GotFirstResponseByte: func() {
			now := time.Now()
			firstByte.Store(&now)
		},
	})
	req := (&http.Request{
		Method:        cmp.Or(r.Method, http.MethodPost),
		URL:           t.url,
		Host:          t.url.Host,
		Header:        make(http.Header, len(r.Header)),
		Body:          io.NopCloser(bytes.NewReader(bytes.Clone(r.Body))), // may be read after RoundTrip returned
		ContentLength: int64(len(r.Body)),
	}).WithContext(ctx)
	for _, h := range r.Header {
		req.Header[h.Name] = append(req.Header[h.Name], h.Value) // names as they are written
	}

	resp, err := t.http.RoundTrip(req)
	first := firstByte.Load()
	if first != nil {
		a.Timing.FirstByte = first.Sub(ready)
	}
	if err != nil {
		if dial, ok := errors.AsType[*dialError](err); ok {
			a.Timing = dial.timing
			return a, &Failure{dial.code, clip(dial.Error())}
		}
		f = exchangeFailure(err, first != nil)
		if f.Code == policy.CodeReset && !a.Reused && t.dial.asked.Load() {
			// With TLS 1.3 it turns us away after the handshake. net/http, which writes
			// meanwhile, may see only that the connection ends.
			f = &Failure{policy.CodeTLS, "the receiver asked for a client certificate, then ended the connection"}
		}
		return a, f
	}
	defer resp.Body.Close()
	a.Status = resp.StatusCode
	a.RetryAfter = resp.Header.Get("Retry-After")
	a.Head = headText(resp.Header)
	if t.obey {
		a.RateHeaders = rateHeadersOf(resp.Header.Get)
	}
	if a.Status == http.StatusSwitchingProtocols {
		return a, nil // its body is the connection
	}
	if a.Body, err = readBody(resp.Body); err != nil {
		if a.BodyFault = bodyFault(err, r.Until); a.BodyFault.Code == CodeBodyTimeout {
			t.http.CloseIdleConnections()
		}
	}
	return a, nil
}

func (t *http2) Close() { t.http.CloseIdleConnections() }

// headText returns the header as lines, cut where it is too long to keep.
func headText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b) // a Builder takes all
	return b.String()[:min(b.Len(), maxKeptHead)]
}
