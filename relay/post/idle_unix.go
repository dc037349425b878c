//go:build unix

package post

import (
	"errors"
	"net"
	"syscall"
)

// peek tells whether a connection has bytes or an end to be read. It belongs to the connection, so
// that a peek allocates nothing.
type peek struct {
	raw  syscall.RawConn // nil for a connection in memory
	look func(fd uintptr) bool
	b    [1]byte
	err  error
}

func newPeek(c net.Conn) *peek {
	p := new(peek)
	if s, ok := c.(syscall.Conn); ok {
		p.raw, _ = s.SyscallConn() // fails only on a closed connection
	}
	p.look = func(fd uintptr) bool {
		_, _, p.err = syscall.Recvfrom(int(fd), p.b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}
	return p
}

// waiting reads nothing and does not wait.
func (p *peek) waiting() bool {
	return p.raw != nil && (p.raw.Read(p.look) != nil || !errors.Is(p.err, syscall.EAGAIN))
}
