package post

import (
	"context"
	"slices"
	"sync"
	"time"
)

// carrier is a connection that takes requests: with HTTP/2 several at a time.
type carrier interface {
	Reserve() error // a place for one request, which the request uses up
	Available() int // places
	Err() error     // why it takes no more requests; nil while it takes some
	Close() error
}

// shared is a carrier of a sharedPool.
type shared struct {
	carrier
	base    *conn // below TLS
	many    bool  // requests at one time
	expires time.Time

	// Guarded by the pool's mu.
	users int
	used  bool      // it has served
	idle  time.Time // since when, while there are no users
}

// sharedPool keeps an endpoint's connections where requests may share one. It opens one
// connection at a time, because the first may serve all waiting requests, until the receiver
// turns out to take one request per connection.
type sharedPool struct {
	open func(ctx context.Context) (*shared, error)

	mu      sync.Mutex
	all     []*shared
	opening *opening // under way; nil for none
	lone    bool     // connections take one request each
	alarm   alarm    // sweeps
	closed  bool
}

// opening is a connection that is being opened, which others wait for.
type opening struct {
	done chan struct{}
	err  error // set when done; nil also if the waiting requests must open their own
}

// take returns a connection with a place for one request, and whether it had served before. The
// error is of open, or of ctx.
func (p *sharedPool) take(ctx context.Context) (c *shared, reused bool, err error) {
	for {
		p.mu.Lock()
		if c := p.pick(time.Now()); c != nil {
			reused, c.used = c.used, true
			p.mu.Unlock()
			return c, reused, nil
		}
		o := p.opening
		if o == nil || p.lone {
			mine := &opening{done: make(chan struct{})}
			if o == nil {
				p.opening = mine
			}
			p.mu.Unlock()
			c, err := p.add(ctx, mine)
			return c, false, err
		}
		p.mu.Unlock()
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
		if o.err != nil {
			return nil, false, o.err
		}
	}
}

// pick returns a connection with a place for one request, the newest first. The caller holds mu.
func (p *sharedPool) pick(now time.Time) *shared {
	for _, c := range slices.Backward(p.all) {
		if (c.expires.IsZero() || now.Before(c.expires)) && c.Reserve() == nil {
			c.users++
			return c
		}
	}
	return nil
}

// add opens a connection for one request and for those that wait for it.
func (p *sharedPool) add(ctx context.Context, o *opening) (*shared, error) {
	defer p.opened(o)
	c, err := p.open(ctx)
	if err != nil {
		if ctx.Err() == nil {
			o.err = err
		}
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lone = !c.many
	_ = c.Reserve() // fails where it has ended, as the request will
	c.users, c.used = 1, true
	p.all = append(p.all, c)
	return c, nil
}

// opened wakes the requests that wait for o.
func (p *sharedPool) opened(o *opening) {
	p.mu.Lock()
	if p.opening == o {
		p.opening = nil
	}
	p.mu.Unlock()
	close(o.done)
}

// put gives a connection back after a request.
func (p *sharedPool) put(c *shared) {
	now := time.Now()
	p.mu.Lock()
	c.users--
	c.idle = now
	until := idleUntil(now, c.expires)
	end := c.users == 0 && (p.closed || c.Err() != nil || c.Available() == 0 || !now.Before(until))
	if end {
		p.remove(c)
	} else if c.users == 0 {
		p.alarm.set(until)
	}
	p.mu.Unlock()
	if end {
		_ = c.Close()
	}
}

// remove forgets a connection. The caller holds mu.
func (p *sharedPool) remove(c *shared) {
	if i := slices.Index(p.all, c); i >= 0 {
		p.all = slices.Delete(p.all, i, i+1)
	}
}

// sweep closes connections that were idle for too long, and sets its alarm again if idle ones are
// left.
func (p *sharedPool) sweep() {
	p.mu.Lock()
	p.alarm.rang()
	now := time.Now()
	old := p.cull(func(c *shared) bool { return !now.Before(idleUntil(c.idle, c.expires)) })
	for _, c := range p.all {
		if c.users == 0 && !p.closed {
			p.alarm.set(idleUntil(c.idle, c.expires))
		}
	}
	p.mu.Unlock()
	closeAll(old)
}

// dropIdle closes idle connections, as pool.dropIdle; a PING finds dead ones that others use.
func (p *sharedPool) dropIdle() {
	p.mu.Lock()
	idle := p.cull(func(*shared) bool { return true })
	p.mu.Unlock()
	closeAll(idle)
}

// close closes idle connections now, and others when their requests end.
func (p *sharedPool) close() {
	p.mu.Lock()
	p.closed = true
	p.alarm.stop()
	p.mu.Unlock()
	p.dropIdle()
}

// cull removes and returns the idle connections that have expired. The caller holds mu.
func (p *sharedPool) cull(old func(*shared) bool) (culled []*shared) {
	p.all = slices.DeleteFunc(p.all, func(c *shared) bool {
		if c.users > 0 || !old(c) {
			return false
		}
		culled = append(culled, c)
		return true
	})
	return culled
}

func closeAll(all []*shared) {
	for _, c := range all {
		_ = c.Close()
	}
}
