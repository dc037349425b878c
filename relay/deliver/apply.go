package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"relay/policy"
	"relay/relay/post"
)

// leaseMargin is how much longer a lease is than the attempt: time to settle, also on a machine
// that stalls. Leases outlast attempts, so none needs to be extended.
const leaseMargin = 15 * time.Second

// Apply replaces the policy. It cannot fail and waits for no attempt, and may be called at any
// time; after the end of Run it does nothing.
//
// Unchanged endpoints go on untouched. Attempts under way end as they began, with the old URL,
// secrets, headers, time limits and schedule. Attempts that begin after Apply has returned use
// the new policy; earlier attempts of a delivery still count (fault F39). Removed and disabled
// endpoints claim nothing more. Their pending deliveries stay in the outbox (F38), and go on when
// the endpoints come back.
func (d *Deliverer) Apply(p *policy.Policy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase == ended {
		return
	}
	d.enabled = make(map[string]bool, len(p.Endpoints))
	for _, e := range p.Endpoints {
		d.enabled[e.Name] = e.Enabled
		if !e.Enabled {
			continue
		}
		r := d.runners[e.Name]
		if r == nil {
			r = d.newRunner(e.Name)
			d.runners[e.Name] = r
		}
		changed, unused := r.become(e)
		d.closeLater(unused)
		if changed && d.phase == running {
			r.open()
		}
	}
	for name, r := range d.runners {
		if !d.enabled[name] {
			changed, unused := r.become(nil)
			d.closeLater(unused)
			if changed {
				r.wake() // what it asked for is to be withdrawn
			}
			if r.idle() {
				delete(d.runners, name) // otherwise the next Apply forgets it
				d.gates.Forget(name)
			}
		}
	}
}

// closeLater closes unused connections without waiting for the receivers. The caller holds mu.
func (d *Deliverer) closeLater(c *connections) {
	if c != nil && d.phase == running { // before, there are no runners
		d.work.Go(c.close)
	}
}

// setup is an endpoint of one policy. It never changes; a reload that changes the endpoint puts
// another setup in its place.
type setup struct {
	endpoint *policy.Endpoint
	url      string
	record   *recorder
	conns    *connections

	// Ends when the setup is replaced, or nothing more is to be claimed.
	claiming context.Context
	replace  context.CancelFunc
}

// late is the text of an attempt that ended at its total time.
func (s *setup) late() string { return fmt.Sprintf("no answer within %s", s.endpoint.Timeout.Total) }

// lease is how long a claim is ours. A claim for a batch may also wait for other events and, if
// the batch before it had no room, for an attempt to end.
func (s *setup) lease() time.Duration {
	lease := s.endpoint.Timeout.Total*3/2 + s.endpoint.Budget.Body + leaseMargin
	if b := s.endpoint.Batch; b != nil {
		lease += b.MaxWait + s.endpoint.Timeout.Total + s.endpoint.Budget.Body
	}
	return lease
}

// connections are those of an endpoint. Setups that connect in the same way share one.
type connections struct {
	once sync.Once
	out  post.Sender // made by the first attempt, so 10,000 unused endpoints cost nothing

	// Guarded by the runner's mu.
	users    int // attempts under way
	replaced bool
}

// sender returns the endpoint's Sender. Only an attempt that is one of the users of the
// connections calls it.
func (s *setup) sender(d *Deliverer) post.Sender {
	s.conns.once.Do(func() { s.conns.out = d.client.Sender(d.working, s.endpoint) })
	return s.conns.out
}

// close closes all connections, after their last user has gone.
func (c *connections) close() {
	c.once.Do(func() {}) // no sender can be made now
	if c.out != nil {
		c.out.Close()
	}
}

// become replaces the setup, if e is another one; nil means that the endpoint takes no deliveries. It returns
// the connections to close, if any.
func (r *runner) become(e *policy.Endpoint) (changed bool, unused *connections) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.now
	if old == nil && e == nil || old != nil && e != nil && old.endpoint.Equal(e) {
		return false, nil
	}
	r.now = nil
	if e != nil {
		r.gate.Use(e)
		s := &setup{
			endpoint: e,
			url:      e.RequestURL().String(),
			record:   newRecorder(e),
			conns:    new(connections),
		}
		s.claiming, s.replace = context.WithCancel(r.d.claiming)
		if old != nil && post.Same(old.endpoint, e) {
			s.conns = old.conns
		}
		r.now = s
	}
	if old == nil {
		return true, nil
	}
	old.replace()
	if r.now != nil && r.now.conns == old.conns {
		return true, nil
	}
	old.conns.replaced = true
	if old.conns.users > 0 {
		return true, nil // the last attempt closes them
	}
	return true, old.conns
}

// idle reports whether the runner can be forgotten, because the next reload could not make use of
// it.
func (r *runner) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now == nil && r.busy == 0 && r.gate.Rested() && r.sleep()
}
