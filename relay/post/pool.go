package post

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errCut is why nothing is taken once the context of all requests has ended.
var errCut = errors.New("requests are cut short")

// moment is how long a connection may lie idle and still be used unseen: a look at
// it costs a system call, and so early its end would hardly be here.
const moment = time.Millisecond

// pool keeps an endpoint's connections. Those that are idle lie in a stack, so
// the one used last, the likeliest to be alive, is used first. One is
// opened only when none is idle, so there are never more than the endpoint has, or
// had lately, slots.
//
// No connection has a goroutine or a timer: reading is done by attempts, time
// limits are deadlines, and one timer, which runs only while connections are idle,
// closes those that were so for too long.
type pool struct {
	dial func(ctx context.Context) (net.Conn, error)
	cut  atomic.Bool // attempts are cut short
	wary atomic.Bool // the receiver closes connections that it let us keep

	maxAge time.Duration // of a connection when a request begins; 0 for unlimited

	mu     sync.Mutex
	all    []*link
	idle   []*link // the one idle for the longest time first
	alarm  alarm   // sweeps
	closed bool
}

// link is a connection of a pool.
type link struct {
	net.Conn       // with TLS, where the URL has it
	base     *conn // below TLS
	reused   bool
	since    time.Time // of lying idle, or of being ready for use
	expires  time.Time // no request begins after it; zero for never
	at       int       // in pool.all
	probe    [1]byte
}

// take returns a connection that an attempt may use until then. The error is a
// *dialError, errCut, or that of a connection that broke at once.
func (p *pool) take(ctx context.Context, until time.Time) (*link, error) {
	for l := p.pop(); l != nil; l = p.pop() {
		now := time.Now()
		if p.limit(l, until) == nil && l.usable(now, p.wary.Load()) {
			l.since = now
			return l, nil
		}
		p.drop(l)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	l := &link{Conn: c, base: baseOf(c), since: now, expires: expiry(now, p.maxAge)}
	p.mu.Lock()
	l.at = len(p.all)
	p.all = append(p.all, l)
	p.mu.Unlock()
	if err := p.limit(l, until); err != nil {
		p.drop(l)
		return nil, err
	}
	return l, nil
}

// limit sets the end of an attempt. It looks for a cut after that, and end sets its
// own end after telling of the cut: whichever comes first, the attempt ends.
func (p *pool) limit(l *link, until time.Time) error {
	if err := l.SetDeadline(until); err != nil {
		return err
	}
	if p.cut.Load() {
		return errCut
	}
	return nil
}

// end cuts attempts under way short, and those that come.
func (p *pool) end() {
	p.cut.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.all {
		_ = l.SetDeadline(time.Unix(1, 0)) // long past
	}
}

func (p *pool) pop() *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	l := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	return l
}

// put keeps a connection for the next attempt, unless it has reached its age.
func (p *pool) put(l *link) {
	l.since, l.reused = time.Now(), true
	until := idleUntil(l.since, l.expires)
	p.mu.Lock()
	if p.closed || !l.since.Before(until) {
		p.mu.Unlock()
		p.hangUp(l)
		return
	}
	defer p.mu.Unlock()
	p.idle = append(p.idle, l)
	if p.alarm.ring == nil {
		p.alarm.ring = p.sweep
	}
	p.alarm.set(until)
}

// sweep closes what was idle for too long or has reached its age, and comes again if anything is left.
func (p *pool) sweep() {
	p.mu.Lock()
	p.alarm.rang()
	now := time.Now()
	var old []*link
	p.idle = slices.DeleteFunc(p.idle, func(l *link) bool {
		until := idleUntil(l.since, l.expires)
		if now.Before(until) {
			if !p.closed {
				p.alarm.set(until)
			}
			return false
		}
		old = append(old, l)
		return true
	})
	p.mu.Unlock()
	for _, l := range old {
		p.hangUp(l)
	}
}

// doubt closes idle connections after an attempt that heard nothing to its end: the way
// to the receiver may have died in silence, and each of them would cost an attempt. One
// under way that is answered after all is kept as ever.
func (p *pool) doubt() {
	for l := p.pop(); l != nil; l = p.pop() {
		p.drop(l)
	}
}

// close closes idle connections now, and others when their attempts end.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.alarm.stop()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, l := range idle {
		p.hangUp(l)
	}
}

// hangUp closes a connection in order: TLS says goodbye.
func (p *pool) hangUp(l *link) {
	p.forget(l)
	_ = l.Close()
}

// drop closes a connection in the middle of something, and waits for nobody.
func (p *pool) drop(l *link) {
	p.forget(l)
	_ = l.base.Close()
}

func (p *pool) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.all) - 1
	p.all[l.at] = p.all[last]
	p.all[l.at].at = l.at
	p.all[last] = nil
	p.all = p.all[:last]
}

// usable tells whether an idle connection can take a request: it is not too old or idle for too long, and
// the receiver has neither ended it nor said anything unasked, which would be
// taken for the answer to the next request. careful asks the network however short
// the connection was idle.
func (l *link) usable(now time.Time, careful bool) bool {
	idle := now.Sub(l.since)
	if !now.Before(idleUntil(l.since, l.expires)) || l.Conn != net.Conn(l.base) && l.holdsMore() {
		return false
	}
	if idle < moment && !careful {
		return true
	}
	if c, ok := l.base.Conn.(syscall.Conn); ok { // one in memory is not
		raw, err := c.SyscallConn()
		return err == nil && !waiting(raw)
	}
	return true
}

// holdsMore tells whether TLS has read more than was asked of it: data, or the
// connection's end.
func (l *link) holdsMore() bool {
	l.base.hushed = true
	_, err := l.Conn.Read(l.probe[:])
	l.base.hushed = false
	return !errors.Is(err, errHushed{})
}
