package post

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errCut is the error of take once the context of all requests has ended.
var errCut = errors.New("requests are cut short")

// trustIdle is how long a connection may be idle and still be used without a check. The check
// costs a system call, and an end would rarely have arrived so early.
const trustIdle = time.Millisecond

// pool keeps an endpoint's connections. Idle ones are in a stack, so that the one used last,
// which is the likeliest to be alive, is used first. A connection is opened only if none is idle,
// so there are never more than the endpoint's slots, now or a short time ago.
//
// Connections have neither goroutine nor timer: attempts read, time limits are deadlines, and one
// timer, which runs only while connections are idle, closes them after idleTimeout.
type pool struct {
	dial     func(ctx context.Context) (net.Conn, error)
	cut      atomic.Bool // attempts are being cut short
	distrust atomic.Bool // the receiver closes connections that it said it would keep

	maxAge time.Duration // of a connection when a request begins; 0 for unlimited

	mu     sync.Mutex
	all    []*link
	idle   []*link // the longest idle first
	alarm  alarm   // sweeps
	closed bool
}

// link is a connection of a pool.
type link struct {
	net.Conn       // with TLS, where the URL has it
	base     *conn // below TLS
	reused   bool
	since    time.Time // when it became idle, or ready for use
	expires  time.Time // no request begins after this time; zero for never
	at       int       // in pool.all
	peek     *peek
	probe    [1]byte
}

// take returns a connection that an attempt may use until then. The error is a
// *dialError, errCut, or that of a connection that broke at once.
func (p *pool) take(ctx context.Context, until time.Time) (*link, error) {
	for l := p.pop(); l != nil; l = p.pop() {
		now := time.Now()
		if p.limit(l, until) == nil && l.usable(now, p.distrust.Load()) {
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
	l.peek = newPeek(l.base.Conn)
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

// limit sets the end of an attempt. It checks for a cut after setting the deadline, and end sets
// a deadline after setting the cut, so the attempt ends in either order.
func (p *pool) limit(l *link, until time.Time) error {
	if err := l.SetDeadline(until); err != nil {
		return err
	}
	if p.cut.Load() {
		return errCut
	}
	return nil
}

// end cuts short the attempts under way and all later ones.
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

// sweep closes connections that were idle for too long or have reached their age, and sets its
// alarm again if any are left.
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

// dropIdle closes idle connections after an attempt without any answer: the path to the receiver
// may have died silently, and then each of them would cost an attempt. A connection whose attempt
// is answered later is kept.
func (p *pool) dropIdle() {
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

// hangUp closes a connection in order: with TLS's close_notify.
func (p *pool) hangUp(l *link) {
	p.forget(l)
	_ = l.Close()
}

// drop closes a connection at once, without a farewell.
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

// usable tells whether an idle connection can take a request: it is not too old or idle for too
// long, and the receiver has neither ended it nor sent data unasked, which would be taken for the
// answer to the next request. careful checks the network even after a short idle time.
func (l *link) usable(now time.Time, careful bool) bool {
	idle := now.Sub(l.since)
	if !now.Before(idleUntil(l.since, l.expires)) || l.Conn != net.Conn(l.base) && l.holdsMore() {
		return false
	}
	return idle < trustIdle && !careful || !l.peek.waiting()
}

// holdsMore tells whether TLS has read more than was asked of it: data, or the
// connection's end.
func (l *link) holdsMore() bool {
	l.base.peeking = true
	_, err := l.Conn.Read(l.probe[:])
	l.base.peeking = false
	return !errors.Is(err, errPeeking{})
}
