package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"relay/policy"
	"relay/relay/post"
)

// leaseMargin is what a lease has beyond the attempt, for settling and for a
// machine that stalls. Leases outlast attempts, so none needs to be extended.
const leaseMargin = 15 * time.Second

// Apply replaces the policy. It cannot fail and waits for no attempt, and may be
// called at any time; after the end of Run it does nothing.
//
// Endpoints that are as before go on untouched. Attempts under way end as they began:
// with the URL, secrets, headers, time limits and schedule of that time. When Apply has
// returned, each attempt that begins is made with the new policy; attempts that a
// delivery already had count (fault F39). Endpoints that are gone or disabled claim
// nothing more: what waits for them stays where it is (F38), and goes on when they
// come back.
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
		d.closeLater(r.become(e))
		if d.phase == running {
			r.start()
		}
	}
	for name, r := range d.runners {
		if !d.enabled[name] {
			d.closeLater(r.become(nil))
			if r.idle() {
				delete(d.runners, name) // else the next Apply forgets it
				d.gates.Forget(name)
			}
		}
	}
}

// closeLater closes connections that nobody uses any more, without waiting for
// receivers to hear of it. The caller holds mu.
func (d *Deliverer) closeLater(w *wire) {
	if w != nil && d.phase == running { // before, there are none
		d.work.Go(w.close)
	}
}

// setup is an endpoint as one policy has it. It never changes; a reload that changes
// the endpoint puts another one in its place.
type setup struct {
	endpoint *policy.Endpoint
	url      string
	wire     *wire

	// Ends when the setup is replaced, or nothing more is to be claimed.
	claiming context.Context
	replace  context.CancelFunc
}

// late says why an attempt ended at its total time.
func (s *setup) late() string { return fmt.Sprintf("no answer within %s", s.endpoint.Timeout.Total) }

// lease is how long a claim is ours. One for a batch may wait for others and, where the
// batch before it had no room, for an attempt to end.
func (s *setup) lease() time.Duration {
	lease := s.endpoint.Timeout.Total*3/2 + s.endpoint.Budget.Body + leaseMargin
	if b := s.endpoint.Batch; b != nil {
		lease += b.MaxWait + s.endpoint.Timeout.Total + s.endpoint.Budget.Body
	}
	return lease
}

// wire is the connections of an endpoint. Setups share one where they would connect
// in the same way.
type wire struct {
	once sync.Once
	out  post.Sender // made by the first attempt: 10,000 endpoints that are never used cost none

	// Guarded by the runner's mu.
	users    int // attempts under way
	replaced bool
}

// sender returns what posts to the endpoint. Only an attempt that is one of the
// wire's users calls it.
func (s *setup) sender(d *Deliverer) post.Sender {
	s.wire.once.Do(func() { s.wire.out = d.client.Sender(d.working, s.endpoint) })
	return s.wire.out
}

// close closes all connections, once nobody uses them any more.
func (w *wire) close() {
	w.once.Do(func() {}) // nobody makes a sender now
	if w.out != nil {
		w.out.Close()
	}
}

// become puts the endpoint as it is now in place, nil for one that takes no
// deliveries. It returns connections that are to be closed, if there are any.
func (r *runner) become(e *policy.Endpoint) (unused *wire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.now
	if old == nil && e == nil || old != nil && e != nil && old.endpoint.Equal(e) {
		return nil
	}
	r.now = nil
	if e != nil {
		r.gate.Use(e)
		s := &setup{
			endpoint: e,
			url:      e.RequestURL().String(),
			wire:     new(wire),
		}
		s.claiming, s.replace = context.WithCancel(r.d.claiming)
		if old != nil && post.Same(old.endpoint, e) {
			s.wire = old.wire
		}
		r.now = s
	}
	if old == nil {
		return nil
	}
	old.replace()
	if r.now != nil && r.now.wire == old.wire {
		return nil
	}
	old.wire.replaced = true
	if old.wire.users > 0 {
		return nil // the last of them closes
	}
	return old.wire
}

// idle tells whether the runner can be forgotten: were it back by the next reload, it would
// take no advantage of that.
func (r *runner) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now == nil && r.busy == 0 && !r.looping && r.gate.Rested()
}
