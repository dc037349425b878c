// Package post makes one POST to an endpoint: egress guard, name resolution, TCP, TLS,
// HTTP/1.1 or HTTP/2, and the receiver's answer. It keeps the endpoint's connections and
// decides nothing about deliveries.
//
// Each HTTP library has its own file: http1.go knows fasthttp, http2.go knows net/http.
// DESIGN.md of relay/deliver lists the codes and the trade-offs.
package post

import (
	"cmp"
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
)

// Sender posts to one endpoint, from many goroutines. Endpoints share neither connections nor TLS
// sessions.
type Sender interface {
	// Send makes one request, on the wire at most once, and reads the answer. A Failure means
	// that there is no complete head of an answer, and so no status; the Answer then holds what
	// is known. With a complete head the Failure is nil, even if the body is incomplete: see
	// Answer.BodyFault. Send ends at r.Until, with policy.CodeTimeout and no text, and when ctx
	// ends, which must be the same context for all requests of a Sender. The caller may reuse
	// header and body after it returns.
	Send(ctx context.Context, r Request) (Answer, *Failure)

	// Close closes all connections. There must be no request under way or later.
	Close()
}

// Request is the content of one request, without the URL.
type Request struct {
	Method string        // "" is POST
	Header []sign.Header // in the order of the wire; Host and Content-Length are added
	Body   []byte
	Until  time.Time // the end of the attempt
}

// Answer is a receiver's answer.
type Answer struct {
	Status     int
	Head       string // header lines, at most maxKeptHead bytes
	RetryAfter string
	Body       []byte // at most maxKeptBody bytes

	// BodyFault is CodeBodyCut or CodeBodyTimeout for an incomplete body. It is nil if the body,
	// or its first maxBody bytes, were received.
	BodyFault *Failure

	Timing outbox.Timing
	Reused bool   // the connection had served before
	Peer   string // address and port of the receiver; "" if there was no connection

	RateHeaders RateHeaders // if the endpoint obeys them
}

// RateHeaders are the header lines in which a receiver says how much it still takes, each by its
// newest name; "" for none.
type RateHeaders struct {
	RateLimit, Remaining, Reset string
}

// Failure is why there is no answer, or no complete body.
type Failure struct {
	Code string // one of policy's, or CodeBodyCut, CodeBodyTimeout
	Text string // for people; no secret
}

// Options are what the senders of one process have in common.
type Options struct {
	Own      func() []netip.AddrPort // listeners of this process, never connected to; optional
	MaxConns int                     // connections of all senders together; 0 for no bound
	Network  Network
}

// Network replaces the system's network in tests. The zero value is the system's.
type Network struct {
	Roots    *x509.CertPool
	Resolver *net.Resolver

	// Dial replaces net.Dialer, and with it the guard.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client makes Senders, which share buffers and sockets.
type Client struct {
	o         Options
	sockets   *sockets  // nil for no bound
	exchanges sync.Pool // of *exchange
}

// NewClient returns a Client. It opens nothing.
func NewClient(o Options) *Client {
	return &Client{o: o, sockets: newSockets(o.MaxConns), exchanges: sync.Pool{New: newExchange}}
}

// Sender returns a Sender for e. It opens no connection. ctx is the context of all its requests.
func (c *Client) Sender(ctx context.Context, e *policy.Endpoint) Sender {
	d := c.dialer(e)
	if e.HTTP2 && e.URL.Scheme == "https" {
		d.tls.NextProtos = []string{"h2", "http/1.1"}
		t := newHTTP2(e, d)
		return c.bound(t, d, t.pool.spare)
	}
	t := newHTTP1(ctx, e, d, &c.exchanges)
	return c.bound(t, d, t.pool.spare)
}

func (c *Client) dialer(e *policy.Endpoint) *dialer {
	d := &dialer{
		resolver:  c.o.Network.Resolver,
		guard:     newGuard(e.Egress, c.o.Own),
		plaintext: e.Egress.AllowPlaintext,
		timeout:   e.Timeout,
		dialNet:   c.o.Network.Dial,
	}
	d.secure(e, c.o.Network.Roots)
	return d
}

// bound gives a sender, which dials with d, its share of the sockets.
func (c *Client) bound(s Sender, d *dialer, spare func() bool) Sender {
	if c.sockets == nil {
		return s
	}
	d.sockets = c.sockets.share(spare)
	return &bounded{s, d.sockets}
}

// Same reports whether a Sender for a can serve b, because both connect in the same way.
func Same(a, b *policy.Endpoint) bool {
	return a.URL.String() == b.URL.String() &&
		a.Timeout == b.Timeout &&
		a.HTTP2 == b.HTTP2 &&
		a.TLS.Digest == b.TLS.Digest && a.TLS.MinVersion == b.TLS.MinVersion && a.TLS.ServerName == b.TLS.ServerName &&
		a.ObeyRateHeaders == b.ObeyRateHeaders &&
		a.ConnectionMaxAge == b.ConnectionMaxAge &&
		a.Egress.AllowPlaintext == b.Egress.AllowPlaintext &&
		slices.Equal(a.Egress.AllowPrivate, b.Egress.AllowPrivate) &&
		slices.Equal(a.Egress.Ports, b.Egress.Ports)
}

// rateHeadersOf reads the rate headers, of each the first line, by its newest name; first returns
// it by canonical name, "" for none.
func rateHeadersOf(first func(name string) string) RateHeaders {
	newest := func(part string) string {
		return cmp.Or(first("Ratelimit-"+part), first("X-Ratelimit-"+part), first("X-Rate-Limit-"+part))
	}
	return RateHeaders{RateLimit: first("Ratelimit"), Remaining: newest("Remaining"), Reset: newest("Reset")}
}

// Limits of an answer in bytes. A body beyond maxBody is not read; the connection is closed.
const (
	maxHeader   = 64 << 10
	maxBody     = 64 << 10
	maxExcess   = 16 << 10 // between chunks
	maxKeptHead = 8 << 10
	maxKeptBody = 16 << 10
	maxText     = 512
)
