package post

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"relay/outbox"
	"relay/policy"
)

// dialer opens an endpoint's connections: name resolution, guard, TCP, TLS. It does not know
// HTTP.
type dialer struct {
	resolver  *net.Resolver // nil for the system's resolver
	guard     *guard
	tls       *tls.Config
	plaintext bool // http:// is allowed
	timeout   policy.Timeout
	sockets   *share // nil for no bound

	// dialNet replaces net.Dialer, and with it the guard, in tests on a network in memory.
	dialNet func(ctx context.Context, network, address string) (net.Conn, error)

	certificate *tls.Certificate // own listeners; nil for none
	asked       atomic.Bool      // the receiver asked for it
}

// secure makes the endpoint's settings of TLS; roots replace the system's authorities.
func (d *dialer) secure(e *policy.Endpoint, roots *x509.CertPool) {
	d.certificate = e.TLS.Certificate
	d.tls = &tls.Config{
		MinVersion:           max(e.TLS.MinVersion, tls.VersionTLS12),
		ServerName:           cmp.Or(e.TLS.ServerName, e.RequestURL().Hostname()),
		NextProtos:           []string{"http/1.1"},
		RootCAs:              cmp.Or(e.TLS.Roots, roots),
		GetClientCertificate: d.clientCertificate,
		ClientSessionCache:   tls.NewLRUClientSessionCache(1), // one host; a full handshake costs as much as some fifty requests
	}
}

// clientCertificate is sent to a receiver that asks for one, whatever issuers it names, because
// its list may lack intermediate issuers.
func (d *dialer) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	d.asked.Store(true)
	return cmp.Or(d.certificate, new(tls.Certificate)), nil // an empty one is none
}

// addressOf is the address to dial for e. A name that ends with a dot keeps it, so that no search
// domain is tried.
func addressOf(e *policy.Endpoint) string {
	return net.JoinHostPort(e.URL.Hostname(), strconv.Itoa(int(e.Port())))
}

// conn is a connection below TLS. It remembers how long opening took.
type conn struct {
	net.Conn
	timing  outbox.Timing
	peer    string // address and port
	peeking bool   // Read brings nothing
	closed  func() // gives the socket back
}

func (c *conn) Close() error {
	if c.closed != nil {
		defer c.closed()
	}
	return c.Conn.Close()
}

func (c *conn) Read(b []byte) (int, error) {
	if c.peeking {
		return 0, errPeeking{}
	}
	return c.Conn.Read(b)
}

// errPeeking is the result of Read instead of reading from the network. It is temporary, so that
// TLS can go on after it.
type errPeeking struct{}

func (errPeeking) Error() string   { return "nothing is read now" }
func (errPeeking) Timeout() bool   { return true }
func (errPeeking) Temporary() bool { return true }

// baseOf returns the connection below TLS.
func baseOf(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return c.(*conn) // no other type is opened in this file
}

// dialError is a connection that could not be opened.
type dialError struct {
	err    error
	code   string
	timing outbox.Timing
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// errPlaintext refuses plaintext, as the policy's decoder does; this is a second line of defence.
var errPlaintext = errors.New("connection denied: http:// needs allow_plaintext = true")

// dial opens a connection without TLS.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !d.plaintext {
		return nil, &dialError{err: errPlaintext, code: policy.CodeEgress}
	}
	c, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// dialTLS opens a connection with TLS; all of it ends within the attempt's total time.
func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout.Total)
	defer cancel()
	c, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	shake, stop := context.WithTimeout(ctx, d.timeout.Connect)
	defer stop()
	secure := tls.Client(c, d.tls)
	err = secure.HandshakeContext(shake)
	c.timing.TLS = time.Since(start)
	if err != nil {
		c.Close()
		return nil, &dialError{fmt.Errorf("tls handshake: %w", err), d.limit(ctx, start, dialCode(err, true)), c.timing}
	}
	return secure, nil
}

// connect resolves the name and opens a TCP connection, both within the connect time.
func (d *dialer) connect(ctx context.Context, network, address string) (*conn, error) {
	dialed, closed, err := d.socket(ctx)
	if err != nil {
		return nil, err
	}
	defer dialed()
	var resolved atomic.Pointer[time.Time] // just before the first address was dialled
	start := time.Now()
	if _, err := netip.ParseAddrPort(address); err == nil || d.dialNet != nil {
		resolved.Store(&start)
	}
	open := d.dialNet
	if open == nil {
		open = (&net.Dialer{
			Resolver: d.resolver,
			Timeout:  min(d.timeout.Connect, d.timeout.Total),
			ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
				now := time.Now()
				resolved.CompareAndSwap(nil, &now)
				return d.guard.control(ctx, network, address, c)
			},
		}).DialContext
	}
	c, err := open(ctx, network, address)
	end := time.Now()
	timing := outbox.Timing{DNS: end.Sub(start)}
	if at := resolved.Load(); at != nil {
		timing = outbox.Timing{DNS: at.Sub(start), Connect: end.Sub(*at)}
	}
	if err != nil {
		closed()
		return nil, &dialError{err, d.limit(ctx, start, dialCode(err, false)), timing}
	}
	return &conn{Conn: c, timing: timing, peer: c.RemoteAddr().String(), closed: closed}, nil
}

// socket waits for the right to open a connection, within the connect time.
func (d *dialer) socket(ctx context.Context) (dialed, closed func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout.Connect)
	defer cancel()
	if dialed, closed, err = d.sockets.take(ctx); err != nil {
		err = &dialError{err: err, code: CodeNoSocket}
	}
	return dialed, closed, err
}

// limit corrects the code of a timeout after start, because the end of the attempt may come
// before the end of the connect time.
func (d *dialer) limit(ctx context.Context, start time.Time, code string) string {
	until, ok := ctx.Deadline()
	if ok && code == policy.CodeConnectTimeout && !until.After(start.Add(d.timeout.Connect)) {
		return policy.CodeTimeout
	}
	return code
}
