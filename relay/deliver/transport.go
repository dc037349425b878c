package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/sign"
)

// sender posts to one endpoint. This file holds the only one, and the only
// use of an HTTP library on the way out.
type sender interface {
	// send makes one request, on the wire at most once, and reads the answer.
	// A failure means that there is no whole answer; the answer then holds what
	// is known all the same. It ends when ctx does.
	send(ctx context.Context, header []sign.Header, body []byte) (answer, *failure)

	// close closes connections that are not in use.
	close()
}

// answer is what a receiver said.
type answer struct {
	status     int
	head       string // header lines, at most maxKeptHead bytes
	retryAfter string
	body       []byte // at most maxKeptBody bytes
	timing     outbox.Timing
	reused     bool // the connection had served before
}

// failure is why there is no whole answer.
type failure struct {
	code string
	text string // for people; no secret
}

// Limits of an answer in bytes. What a receiver sends beyond maxBody is not
// read: the connection is closed.
const (
	maxHeader   = 64 << 10
	maxBody     = 64 << 10
	maxKeptHead = 8 << 10
	maxKeptBody = 16 << 10
	maxText     = 512
)

// An idle connection is kept for less than common front ends keep theirs (60 s
// and more), so that it is rarely closed while a request is on its way.
const idleTimeout = 55 * time.Second

// transport is the sender on net/http: HTTP/1.1, or HTTP/2 where the receiver
// chooses it.
//
// net/http by itself repeats a request that met a dead connection when it may
// assume that this is safe. Here it may not: the body cannot be rewound (GetBody is
// nil), so one attempt is one request on the wire, whatever headers it has.
type transport struct {
	url  *url.URL
	http *http.Transport
}

func newTransport(e *policy.Endpoint, d *dialer) *transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &transport{e.URL, &http.Transport{
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

func (t *transport) send(ctx context.Context, header []sign.Header, body []byte) (a answer, f *failure) {
	ready := time.Now()
	var firstByte atomic.Pointer[time.Time] // set by a goroutine of net/http
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) {
			ready = time.Now()
			if a.reused = c.Reused; !c.Reused {
				a.timing = timingOf(c.Conn)
			}
		},
		GotFirstResponseByte: func() {
			now := time.Now()
			firstByte.Store(&now)
		},
	})
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           t.url,
		Host:          t.url.Host,
		Header:        make(http.Header, len(header)),
		Body:          io.NopCloser(bytes.NewReader(body)),
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

func (t *transport) close() { t.http.CloseIdleConnections() }

// timingOf returns what it took to open c.
func timingOf(c net.Conn) outbox.Timing {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if opened, ok := c.(*conn); ok {
		return opened.timing
	}
	return outbox.Timing{}
}

func exchangeFailure(err error, answering bool) *failure {
	code := exchangeCode(err, answering)
	if code == codeBadResponse {
		// The library's words may quote the receiver.
		return &failure{code, "the answer is not HTTP, or its header is larger than 64 KiB"}
	}
	return &failure{code, clip(err.Error())}
}

// headText returns the header as lines, cut where it is too long to keep.
func headText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b) // a Builder takes all
	return b.String()[:min(b.Len(), maxKeptHead)]
}

// readBody reads up to maxBody bytes and returns the first maxKeptBody of them.
func readBody(r io.Reader) ([]byte, error) {
	kept, err := io.ReadAll(io.LimitReader(r, maxKeptBody))
	if err != nil {
		return kept, err
	}
	if _, err = io.CopyN(io.Discard, r, maxBody-maxKeptBody); err == io.EOF {
		err = nil
	}
	return kept, err
}

func clip(s string) string { return s[:min(len(s), maxText)] }
