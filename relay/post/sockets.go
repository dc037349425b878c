package post

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// CodeNoSocket is an attempt for which this process had no socket: as many connections are open
// as its limit of open files allows. It is no failure of the receiver.
const CodeNoSocket = "no_socket"

const (
	// While a connection is being opened it takes up to two more sockets, for queries to name
	// servers and for IPv4 beside IPv6. At most this part of all connections may be opening at a
	// time.
	dialing = 4

	// spareEvery is how often a waiting attempt looks for an idle connection to close.
	spareEvery = 50 * time.Millisecond
)

// sockets bounds the connections of all senders of a Client. An endpoint has at most half of
// them, so that a receiver that hangs leaves some to others. nil has no bound.
type sockets struct {
	open  chan struct{} // holds one for each connection
	dials chan struct{} // holds one for each that is being opened

	mu     sync.Mutex
	spares map[*share]bool
}

// newSockets returns nil for 0.
func newSockets(n int) *sockets {
	if n == 0 {
		return nil
	}
	return &sockets{
		open:   make(chan struct{}, n),
		dials:  make(chan struct{}, max(1, n/dialing)),
		spares: map[*share]bool{},
	}
}

// share is what one sender has of the sockets.
type share struct {
	of    *sockets
	open  chan struct{}
	spare func() bool // closes an idle connection; false if there is none
}

// share is for a sender, until it is closed.
func (s *sockets) share(spare func() bool) *share {
	sh := &share{of: s, open: make(chan struct{}, max(1, cap(s.open)/2)), spare: spare}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares[sh] = true
	return sh
}

// close removes the sender. Connections that are open keep their sockets.
func (sh *share) close() {
	sh.of.mu.Lock()
	defer sh.of.mu.Unlock()
	delete(sh.of.spares, sh)
}

// take waits for a socket, at most until ctx ends, and returns a function that gives it back. The
// caller calls dialed when the connection is open or has failed.
func (sh *share) take(ctx context.Context) (dialed, closed func(), err error) {
	if sh == nil {
		return func() {}, func() {}, nil
	}
	var got []chan struct{}
	give := func(all ...chan struct{}) {
		for _, c := range all {
			<-c
		}
	}
	for _, step := range []struct {
		from  chan struct{}
		spare func() bool
	}{{sh.open, sh.spare}, {sh.of.open, sh.of.spareOne}, {sh.of.dials, nil}} {
		if err := wait(ctx, step.from, step.spare); err != nil {
			give(got...)
			return nil, nil, fmt.Errorf("no socket is free: %d connections to receivers are all that the limit of open files allows; raise it (ulimit -n, LimitNOFILE=)", cap(sh.of.open))
		}
		got = append(got, step.from)
	}
	return sync.OnceFunc(func() { give(sh.of.dials) }), sync.OnceFunc(func() { give(sh.open, sh.of.open) }), nil
}

// wait puts a token into c, closing idle connections to make room.
func wait(ctx context.Context, c chan struct{}, spare func() bool) error {
	select {
	case c <- struct{}{}:
		return nil
	default:
	}
	look := time.NewTicker(spareEvery)
	defer look.Stop()
	for {
		if spare != nil {
			spare()
		}
		select {
		case c <- struct{}{}:
			return nil
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// spareOne closes an idle connection of any sender.
func (s *sockets) spareOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sh := range s.spares {
		if sh.spare() {
			return true
		}
	}
	return false
}

// spare closes the connection that was idle for the longest time.
func (p *pool) spare() bool {
	p.mu.Lock()
	if len(p.idle) == 0 {
		p.mu.Unlock()
		return false
	}
	l := p.idle[0]
	p.idle = append(p.idle[:0], p.idle[1:]...)
	p.mu.Unlock()
	p.drop(l)
	return true
}

// spare closes an idle connection.
func (p *sharedPool) spare() bool {
	found := false
	p.mu.Lock()
	one := p.cull(func(*shared) bool {
		first := !found
		found = true
		return first
	})
	p.mu.Unlock()
	closeAll(one)
	return found
}

// isOutOfFiles tells whether the system gave no socket because it lacks descriptors or memory.
func isOutOfFiles(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// bounded is a sender whose connections are among the sockets.
type bounded struct {
	Sender
	share *share
}

func (b *bounded) Close() {
	b.share.close()
	b.Sender.Close()
}
