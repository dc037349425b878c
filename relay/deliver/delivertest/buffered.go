package delivertest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// room is how many bytes a connection holds that are written and not read yet.
const room = 256 << 10

// buffered is one end of a connection in memory that has buffers, as sockets do. It can
// be lost: then nothing more arrives at the other end, not even its end, and nobody is
// told.
type buffered struct {
	address addr
	in      *stream // from the other end
	out     *stream
}

// stream is one direction of a connection.
type stream struct {
	mu     sync.Mutex
	moved  sync.Cond // something changed
	data   []byte
	left   bool // by the writer
	closed bool // by the reader
	lost   bool

	readBy, writeBy limit
}

// limit is a deadline.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func newStream() *stream {
	s := new(stream)
	s.moved.L = &s.mu
	return s
}

// Pipe returns the two ends of a connection in memory that has buffers, as TLS needs.
func Pipe() (ours, theirs net.Conn) { return newBuffered("pipe") }

// newBuffered returns the two ends of a connection.
func newBuffered(address string) (ours, theirs *buffered) {
	a, b := newStream(), newStream()
	return &buffered{addr(address), a, b}, &buffered{addr(address), b, a}
}

func (c *buffered) Read(b []byte) (int, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, c.opError("read", net.ErrClosed)
		case s.readBy.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(s.data) > 0:
			n := copy(b, s.data)
			s.data = s.data[n:]
			s.moved.Broadcast()
			return n, nil
		case s.left && !s.lost:
			return 0, io.EOF
		}
		s.moved.Wait()
	}
}

func (c *buffered) Write(b []byte) (int, error) {
	s := c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := 0; ; {
		switch {
		case s.writeBy.passed():
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case s.left, s.closed && !s.lost:
			return n, c.opError("write", net.ErrClosed)
		case s.lost:
			return len(b), nil
		}
		part := b[n:min(len(b), n+room-len(s.data))]
		s.data = append(s.data, part...)
		s.moved.Broadcast()
		if n += len(part); n == len(b) {
			return n, nil
		}
		s.moved.Wait()
	}
}

func (c *buffered) Close() error {
	c.in.change(func(s *stream) {
		s.closed, s.data = true, nil
		s.readBy.stop()
	})
	c.out.change(func(s *stream) {
		s.left = true
		s.writeBy.stop()
	})
	return nil
}

// lose makes both directions silent.
func (c *buffered) lose() {
	c.in.change(func(s *stream) { s.lost = true })
	c.out.change(func(s *stream) { s.lost = true })
}

func (c *buffered) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *buffered) SetReadDeadline(t time.Time) error {
	c.in.change(func(s *stream) { s.readBy.set(t, s) })
	return nil
}

func (c *buffered) SetWriteDeadline(t time.Time) error {
	c.out.change(func(s *stream) { s.writeBy.set(t, s) })
	return nil
}

func (c *buffered) LocalAddr() net.Addr  { return c.address }
func (c *buffered) RemoteAddr() net.Addr { return c.address }

func (c *buffered) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: c.address, Err: err}
}

func (s *stream) change(do func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do(s)
	s.moved.Broadcast()
}

func (l *limit) set(t time.Time, s *stream) {
	l.stop()
	if l.at = t; time.Until(t) > 0 {
		l.timer = time.AfterFunc(time.Until(t), func() { s.change(func(*stream) {}) })
	}
}

func (l *limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *limit) passed() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }
