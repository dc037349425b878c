package deliver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"relay/policy"
	"relay/relay/sign"
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

	method string // "" is POST
}

func newHTTP2(e *policy.Endpoint, d *dialer) *http2 {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http2{url: e.URL, http: &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		Protocols:              protocols,
		MaxConnsPerHost:        e.Concurrency,
		MaxIdleConnsPerHost:    e.Concurrency,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true, // a small answer must not unpack to a large one
		MaxResponseHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{ // find a dead connection in seconds
			SendPingTimeout:  15 * time.Second,
			PingTimeout:      5 * time.Second,
			WriteByteTimeout: 10 * time.Second,
		},
	}}
}

func (t *http2) send(ctx context.Context, until time.Time, header []sign.Header, body []byte) (a answer, f *failure) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	defer func() {
		if f != nil && ctx.Err() != nil {
			f = &failure{code: codeTimeout}
		}
	}()
	ready := time.Now()
	var firstByte atomic.Pointer[time.Time] // set by a goroutine of net/http
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			ready = time.Now()
			if a.reused = c.Reused; !c.Reused {
				a.timing = baseOf(c.Conn).timing
			}
		},
		GotFirstResponseByte: func() {
			now := time.Now()
			firstByte.Store(&now)
		},
	})
	req := (&http.Request{
		Method:        cmp.Or(t.method, http.MethodPost),
		URL:           t.url,
		Host:          t.url.Host,
		Header:        make(http.Header, len(header)),
		Body:          io.NopCloser(bytes.NewReader(bytes.Clone(body))), // may be read after RoundTrip returned
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	for _, h := range header {
		req.Header[h.Name] = append(req.Header[h.Name], h.Value) // names as they are written
	}

	resp, err := t.http.RoundTrip(req)
	first := firstByte.Load()
	if first != nil {
		a.timing.FirstByte = first.Sub(ready)
	}
	if err != nil {
		if dial, ok := errors.AsType[*dialError](err); ok {
			a.timing = dial.timing
			return a, &failure{dial.code, clip(dial.Error())}
		}
		return a, exchangeFailure(err, first != nil)
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	a.retryAfter = resp.Header.Get("Retry-After")
	a.head = headText(resp.Header)
	if a.status == http.StatusSwitchingProtocols {
		return a, nil // its body is the connection
	}
	if a.body, err = readBody(resp.Body); err != nil {
		return a, exchangeFailure(err, true)
	}
	return a, nil
}

func (t *http2) close() { t.http.CloseIdleConnections() }

// headText returns the header as lines, cut where it is too long to keep.
func headText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b) // a Builder takes all
	return b.String()[:min(b.Len(), maxKeptHead)]
}
