package delivertest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// Network is a network in memory, for synctest bubbles: connections are
// net.Pipe, which has no buffer. Tests on it have siblings on real
// sockets, which have one.
type Network struct {
	// Buffered gives connections buffers, which TLS and HTTP/2 need: both sides may write
	// at the same time. Set it before the first Dial.
	Buffered bool

	mu        sync.Mutex
	listeners map[string]*listener
	buffered  []*buffered
}

// NewNetwork returns a network where nobody listens.
func NewNetwork() *Network { return &Network{listeners: map[string]*listener{}} }

// Listen makes address, like "billing.test:443", answer.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, opError("listen", address, syscall.EADDRINUSE)
	}
	l := &listener{network: n, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dial connects to a listener; where there is none the connection is refused.
// It has the form of net.Dialer.DialContext.
func (n *Network) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, opError("dial", address, syscall.ECONNREFUSED)
	}
	ours, theirs := n.pipe(address)
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, opError("dial", address, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: ctx.Err()}
	}
}

func (n *Network) pipe(address string) (ours, theirs net.Conn) {
	if !n.Buffered {
		return net.Pipe()
	}
	a, b := newBuffered(address)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buffered = append(n.buffered, a)
	return a, b
}

// Lose silently drops all that is sent from now on over buffered connections
// that were dialled so far. New ones work.
func (n *Network) Lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.buffered {
		c.lose()
	}
}

type listener struct {
	network *Network
	address string
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	err := errors.New("listener is closed")
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
		close(l.closed)
		err = nil
	})
	return err
}

func (l *listener) Addr() net.Addr { return addr(l.address) }

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

func opError(op, address string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: addr(address), Err: os.NewSyscallError(op, errno)}
}
