package redistest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// FaultProxy stands between clients and a Redis server, and breaks the way
// between them on cue. It knows where a request or a reply ends, so a cue hits
// exactly one. Clients may pipeline and speak RESP2 or RESP3. They may not
// subscribe: those requests have no reply, or more than one. All methods may be
// called at any time from any goroutine.
type FaultProxy struct {
	network, upstream string
	testing           context.Context // until the cleanup
	listener          net.Listener
	running           sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conns    map[*proxyConn]struct{}
	gate     chan struct{} // closed while bytes may pass
	refusing bool
	closed   bool
	drop     int      // replies left to lose
	dropTo   []string // the reply to a request with this text is lost, once for each
	dropped  int
}

// proxyConn is one client's connection and its twin to the server.
type proxyConn struct {
	client, server net.Conn
	cut            chan struct{} // closed by the first to end it
	once           sync.Once
	awaited        []bool // guarded by FaultProxy.mu: requests without a reply yet, in order; true: it gets lost
}

// StartFaultProxy listens on a loopback TCP port and passes everything on to
// upstream ("unix" and a path, or "tcp" and host:port), until the test ends. A
// client whose connection cannot be passed on is disconnected.
func StartFaultProxy(t testing.TB, network, upstream string) *FaultProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start proxy: %v", err)
	}
	open := make(chan struct{})
	close(open)
	p := &FaultProxy{network: network, upstream: upstream, testing: t.Context(), listener: listener,
		conns: map[*proxyConn]struct{}{}, gate: open}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Addr is host:port on loopback.
func (p *FaultProxy) Addr() string { return p.listener.Addr().String() }

// URL is redis://127.0.0.1:….
func (p *FaultProxy) URL() string { return "redis://" + p.Addr() }

// DropReplies loses the next n replies, of whichever commands: each is swallowed
// and its client disconnected, after the server has done all that it got on that
// connection. A pipeline that arrives in one piece, of 64 KiB at most, is passed on
// in one piece, and so is done whole. Mind that clients greet on a new connection
// and await the reply. 0 ends it.
func (p *FaultProxy) DropReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = n
}

// DropReplyTo does what DropReplies does, to the reply to the next request that
// contains text, in upper or lower case and anywhere in it: "EVALSHA", or a
// key. Called twice, it loses two replies.
func (p *FaultProxy) DropReplyTo(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropTo = append(p.dropTo, text)
}

// Dropped is how many replies were lost by DropReplies and DropReplyTo.
func (p *FaultProxy) Dropped() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Hang holds back what either side sends, on old and new connections, and closes
// none. A request that is held reaches the server after Resume, even if its
// client has long given up: so it goes on a network, too.
func (p *FaultProxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isClosed(p.gate) {
		p.gate = make(chan struct{})
	}
}

// Resume ends Hang; what was held goes on its way.
func (p *FaultProxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isClosed(p.gate) {
		close(p.gate)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Cut closes all connections. What was on its way is lost.
func (p *FaultProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.close()
	}
}

// Refuse closes every new connection at once. Old ones stay.
func (p *FaultProxy) Refuse() { p.refuse(true) }

// Allow ends Refuse.
func (p *FaultProxy) Allow() { p.refuse(false) }

func (p *FaultProxy) refuse(refusing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = refusing
}

func (p *FaultProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *FaultProxy) serve(client net.Conn) {
	c := p.connect(client)
	if c == nil {
		_ = client.Close()
		return
	}
	p.running.Go(func() { p.forward(c) })
	p.backward(c)
	c.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// connect dials the server for a client; nil when there is to be no connection.
func (p *FaultProxy) connect(client net.Conn) *proxyConn {
	if p.unwelcome() {
		return nil
	}
	var d net.Dialer
	server, err := d.DialContext(p.testing, p.network, p.upstream)
	if err != nil {
		return nil
	}
	c := &proxyConn{client: client, server: server, cut: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = server.Close()
		return nil
	}
	p.conns[c] = struct{}{}
	return c
}

func (p *FaultProxy) unwelcome() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refusing || p.closed
}

func (c *proxyConn) close() {
	c.once.Do(func() {
		close(c.cut)
		_ = c.client.Close()
		_ = c.server.Close()
	})
}

// writeCloser is a connection whose two directions end apart: TCP and Unix sockets.
type writeCloser interface{ CloseWrite() error }

// finish tells the server that no more requests come. It then does those that it
// has, and closes the connection.
func (c *proxyConn) finish() {
	if half, ok := c.server.(writeCloser); ok {
		_ = half.CloseWrite()
	}
}

// forward passes requests on until the client ends or the way is cut.
func (p *FaultProxy) forward(c *proxyConn) {
	defer c.finish()
	r := bufio.NewReaderSize(c.client, 64<<10)
	for {
		// What came in one piece goes on in one piece: when a reply gets lost, the server
		// has the whole pipeline.
		var requests [][]byte
		for len(requests) == 0 || r.Buffered() > 0 {
			request, err := readFrame(r, nil)
			if err != nil {
				return
			}
			requests = append(requests, request)
		}
		if !p.pass(c) {
			return
		}
		p.expect(c, requests)
		if _, err := c.server.Write(slices.Concat(requests...)); err != nil {
			return
		}
	}
}

// backward passes replies on until the server ends, a reply is to be lost, or
// the way is cut.
func (p *FaultProxy) backward(c *proxyConn) {
	r := bufio.NewReader(c.server)
	for {
		reply, err := readFrame(r, nil)
		if err != nil || !p.pass(c) {
			return
		}
		lost := reply[0] != '>' && p.lose(c)
		if lost {
			// Closing at once could keep the server from requests that it has not read yet.
			// The client hears nothing until they are done.
			c.finish()
		} else if _, err = c.client.Write(reply); err == nil {
			continue
		}
		_, _ = io.Copy(io.Discard, r)
		return
	}
}

// pass waits while the proxy hangs. It tells whether the connection still is.
func (p *FaultProxy) pass(c *proxyConn) bool {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	select {
	case <-gate:
		return !isClosed(c.cut)
	case <-c.cut:
		return false
	}
}

// expect notes that replies will come, and which of them get lost.
func (p *FaultProxy) expect(c *proxyConn, requests [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range requests {
		i := slices.IndexFunc(p.dropTo, func(text string) bool {
			return bytes.Contains(bytes.ToUpper(request), bytes.ToUpper([]byte(text)))
		})
		if i >= 0 {
			p.dropTo = slices.Delete(p.dropTo, i, i+1)
		}
		c.awaited = append(c.awaited, i >= 0)
	}
}

// lose takes note of a reply and tells whether it is to be lost.
func (p *FaultProxy) lose(c *proxyConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(c.awaited) == 0 {
		return false // nobody asked: the server says why it closes
	}
	lost := c.awaited[0]
	c.awaited = c.awaited[1:]
	if !lost && p.drop > 0 {
		p.drop--
		lost = true
	}
	if lost {
		p.dropped++
	}
	return lost
}
