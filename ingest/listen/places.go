package listen

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// When all places are taken and another connection arrives, a dispensable one is closed for it:
// one without a request that passed the guard within newPatience, else one that was idle for
// idlePatience. Of several it is the oldest one of the peer with the most connections.
const (
	newPatience  = 100 * time.Millisecond
	idlePatience = time.Second
)

// Places bounds the connections of a server.
type Places struct {
	taken chan struct{} // holds one for each connection

	mu  sync.Mutex
	all map[*Place]bool
}

// NewPlaces makes room for n connections at a time.
func NewPlaces(n int) *Places {
	return &Places{taken: make(chan struct{}, n), all: map[*Place]bool{}}
}

// Place is the place of one connection, which is new until a request passes the guard.
type Place struct {
	places *Places
	conn   net.Conn
	retire func() bool
	peer   netip.Prefix

	since  atomic.Int64 // since when it is new or idle, in Unix nanoseconds; 0 during a request
	passed atomic.Bool  // the guard
	gone   bool         // it gave way
}

// Enter waits for a place. It returns nil if stop is closed first. An idle connection is closed
// only if the optional retire returns true.
func (p *Places) Enter(c net.Conn, retire func() bool, stop <-chan struct{}) *Place {
	pl := &Place{places: p, conn: c, retire: retire, peer: peerOf(c)}
	if !p.wait(stop) {
		return nil
	}
	pl.since.Store(time.Now().UnixNano())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[pl] = true
	return pl
}

func (p *Places) wait(stop <-chan struct{}) bool {
	for {
		select {
		case p.taken <- struct{}{}:
			return true
		default:
		}
		again := p.makeRoom(time.Now())
		if again == 0 {
			continue
		}
		next := time.NewTimer(again)
		select {
		case p.taken <- struct{}{}:
			next.Stop()
			return true
		case <-stop:
			next.Stop()
			return false
		case <-next.C:
		}
	}
}

// makeRoom closes a dispensable connection, if there is one, and returns when to try again.
func (p *Places) makeRoom(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := map[netip.Prefix]int{}
	for pl := range p.all {
		count[pl.peer]++
	}
	var last *Place
	for pl := range p.all {
		if pl.since.Load() != 0 && !pl.gone && (last == nil || pl.before(last, count)) {
			last = pl
		}
	}
	switch {
	case last == nil: // all are busy
		return newPatience
	case last.patience(now) > 0:
		return min(last.patience(now), newPatience)
	case last.passed.Load() && last.retire != nil && !last.retire():
		last.since.Store(0) // its next request has begun
		return 0
	}
	last.gone = true
	_ = last.conn.Close() // the connection's own goroutine notices
	return newPatience
}

// patience is how long the connection still keeps its place.
func (pl *Place) patience(now time.Time) time.Duration {
	since := pl.since.Load()
	switch {
	case since == 0: // it has just become busy
		return newPatience
	case pl.passed.Load():
		return idlePatience - now.Sub(time.Unix(0, since))
	}
	return newPatience - now.Sub(time.Unix(0, since))
}

// before reports whether pl is closed before other.
func (pl *Place) before(other *Place, count map[netip.Prefix]int) bool {
	if a, b := pl.passed.Load(), other.passed.Load(); a != b {
		return b
	}
	if a, b := count[pl.peer], count[other.peer]; a != b {
		return a > b
	}
	return pl.since.Load() < other.since.Load()
}

// Busy records that a request passed the guard.
func (pl *Place) Busy() {
	pl.passed.Store(true)
	pl.since.Store(0)
}

// Idle records that the connection waits for its next request. If no request has passed the guard
// yet, it stays new.
func (pl *Place) Idle(now time.Time) {
	if pl.passed.Load() {
		pl.since.Store(now.UnixNano())
	}
}

// Leave frees the place, once.
func (pl *Place) Leave() {
	p := pl.places
	p.mu.Lock()
	delete(p.all, pl)
	p.mu.Unlock()
	<-p.taken
}

// peerOf is the address of the peer; for IPv6 its /64, which one host or site has. All peers of a
// Unix socket are the same.
func peerOf(c net.Conn) netip.Prefix {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	peer, _ := addr.Prefix(bits) // the bits fit the address
	return peer
}

// placeKey is of the Place in the context of a connection.
type placeKey struct{}

func placeOf(ctx context.Context) *Place {
	pl, _ := ctx.Value(placeKey{}).(*Place)
	return pl
}
