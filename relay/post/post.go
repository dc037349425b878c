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

// Sender posts to one endpoint, from many goroutines. Connections and TLS sessions are
// the endpoint's own.
type Sender interface {
	// Send makes one request, on the wire at most once, and reads the answer.
	// A Failure means that there is no whole head of an answer, and so no status; the Answer
	// then holds what is known all the same. With a whole head the Failure is nil, whatever
	// becomes of the body: see Answer.BodyFault. Send ends at r.Until, with policy.CodeTimeout and no text, and when
	// ctx does, which is one and the same for all that a Sender sends. Header and
	// body are the caller's again when it returns.
	Send(ctx context.Context, r Request) (Answer, *Failure)

	// Close closes all connections. Nothing is under way, and nothing is sent after it.
	Close()
}

// Request is what one Send sends, beside the URL.
type Request struct {
	Method string        // "" is POST
	Header []sign.Header // in the order of the wire; Host and Content-Length are added
	Body   []byte
	Until  time.Time // the end of the attempt
}

// Answer is what a receiver said.
type Answer struct {
	Status     int
	Head       string // header lines, at most maxKeptHead bytes
	RetryAfter string
	Body       []byte // at most maxKeptBody bytes

	// BodyFault is why the body is not whole: CodeBodyCut or CodeBodyTimeout. It is nil
	// where the body is whole or its first maxBody bytes are here.
	BodyFault *Failure

	Timing outbox.Timing
	Reused bool // the connection had served before

	RateHeaders RateHeaders // where the endpoint obeys them
}

// RateHeaders are the header lines in which a receiver says how much it still takes, each by its
// newest name; "" for none.
type RateHeaders struct {
	RateLimit, Remaining, Reset string
}

// Failure is why there is no answer, or no whole body of one.
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

// Client makes Senders, which share its buffers.
type Client struct {
	o         Options
	sockets   *sockets  // nil for no bound
	exchanges sync.Pool // of *exchange
}

// NewClient returns a Client. It opens nothing.
func NewClient(o Options) *Client {
	return &Client{o: o, sockets: newSockets(o.MaxConns), exchanges: sync.Pool{New: newExchange}}
}

// Sender makes what e needs to be posted to. It opens nothing. ctx is the one that all of its
// requests have.
func (c *Client) Sender(ctx context.Context, e *policy.Endpoint) Sender {
	d := &dialer{
		resolver:  c.o.Network.Resolver,
		guard:     newGuard(e.Egress, c.o.Own),
		plaintext: e.Egress.AllowPlaintext,
		timeout:   e.Timeout,
		dialNet:   c.o.Network.Dial,
	}
	d.secure(e, c.o.Network.Roots)
	if e.HTTP2 && e.URL.Scheme == "https" {
		d.tls.NextProtos = []string{"h2", "http/1.1"}
		t := newHTTP2(e, d)
		return c.bound(t, d, t.pool.spare)
	}
	t := newHTTP1(ctx, e, d, &c.exchanges)
	return c.bound(t, d, t.pool.spare)
}

// bound lets a sender, which dials with d, have its share of the sockets.
func (c *Client) bound(s Sender, d *dialer, spare func() bool) Sender {
	if c.sockets == nil {
		return s
	}
	d.sockets = c.sockets.share(spare)
	return &bounded{s, d.sockets}
}

// Same tells whether a Sender for a serves b as well: both connect in the same way.
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

// rateHeadersOf reads how much the receiver still takes, of each header the first line
// by its newest name; first returns it by canonical name, "" for none.
func rateHeadersOf(first func(name string) string) RateHeaders {
	newest := func(part string) string {
		return cmp.Or(first("Ratelimit-"+part), first("X-Ratelimit-"+part), first("X-Rate-Limit-"+part))
	}
	return RateHeaders{RateLimit: first("Ratelimit"), Remaining: newest("Remaining"), Reset: newest("Reset")}
}

// Limits of an answer in bytes. What a receiver sends beyond maxBody is not
// read: the connection is closed.
const (
	maxHeader   = 64 << 10
	maxBody     = 64 << 10
	maxExcess   = 16 << 10 // between chunks
	maxKeptHead = 8 << 10
	maxKeptBody = 16 << 10
	maxText     = 512
)
