package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"relay/internal/throttle"
	"relay/outbox"
	"relay/relay/gate"
)

// runner delivers to one endpoint. Without work it is one goroutine that waits in Claim; it has
// none while the endpoint takes no deliveries.
type runner struct {
	d       *Deliverer
	name    string
	retries throttle.Lines // in the log, by code
	gate    *gate.Gate
	counts  counts
	freed   chan struct{} // holds a token when a slot may have become free

	mu      sync.Mutex
	now     *setup // nil while the endpoint takes no deliveries
	busy    int    // slots in use; may exceed concurrency after that was lowered
	looping bool
}

func (d *Deliverer) newRunner(name string) *runner {
	return &runner{d: d, name: name, gate: d.gates.Gate(name), freed: make(chan struct{}, 1), retries: throttle.Lines{Every: quiet}}
}

// start begins to claim, if the endpoint takes deliveries and no loop runs yet. The caller holds
// d.mu.
func (r *runner) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looping || r.now == nil {
		return
	}
	r.looping = true
	r.d.work.Go(func() {
		if err := r.loop(); err != nil {
			r.d.stop(err)
		}
	})
}

// loop claims work for free slots, as the gate allows, until the endpoint takes no more, and
// starts the attempts, which may still run after it has returned. It returns nil or the error of
// Claim.
func (r *runner) loop() error {
	var order fairness
	for s := r.current(); s != nil; s = r.current() {
		if s.endpoint.Batch != nil {
			if err := r.loopBatches(s, &order); err != nil {
				return err
			}
			continue
		}
		free := r.acquire(s, unbounded)
		if free == 0 {
			continue
		}
		v := r.gate.Look(s.claiming, free)
		if v.N == 0 {
			r.begin(s, free, 0)
			r.wait(s, v)
			continue
		}
		passed := r.gate.Passed(s.claiming)
		claims, err := r.claim(passed, s, v.N, &order)
		if err != nil && passed.Err() == nil {
			return err
		}
		n, probe, _ := r.admit(s, free, len(claims))
		for i := range claims[:n] {
			r.d.begin(job{r: r, s: s, claims: claims[i : i+1], probe: probe})
		}
		r.release(claims[n:]...) // may take time, during which tokens would lapse
	}
	return nil
}

// claim waits for at least one delivery and takes up to most.
func (r *runner) claim(ctx context.Context, s *setup, most int, order *fairness) ([]outbox.Claim, error) {
	claims, err := r.d.o.Source.Claim(ctx, outbox.ClaimRequest{
		Endpoint: r.name,
		Max:      most,
		Lease:    s.lease(),
		Behind:   order.late,
		Fresh:    order.fresh(most, s.endpoint.FreshShare),
		FleetMax: s.endpoint.FleetConcurrency,
	})
	if err != nil {
		return nil, fmt.Errorf("claim deliveries of endpoint %s: %w", r.name, err)
	}
	order.observe(claims, most, r.d.at(time.Now()))
	return claims, nil
}

// admit asks the gate for n attempts and keeps as many of the slots that were taken. If s is no
// longer the endpoint's setup, live is false and nothing is admitted; the caller then claims with
// the lease of the new setup.
func (r *runner) admit(s *setup, taken, n int) (admitted int, probe, live bool) {
	n, probe = r.gate.Admit(s.claiming, n)
	if r.begin(s, taken, n) {
		return n, probe, true
	}
	for range n {
		r.gate.Ended(r.d.settling, gate.Attempt{Probe: probe, Void: true})
	}
	return 0, false, false
}

// wait returns when it is time to ask the shut gate again, or when the setup has changed. If
// consent is missing it asks the receiver.
func (r *runner) wait(s *setup, v gate.Grant) {
	if v.Cause == gate.NoConsent && v.Wait == 0 {
		r.handshake(s)
		return
	}
	var later <-chan time.Time
	if v.Wait > 0 {
		t := time.NewTimer(v.Wait)
		defer t.Stop()
		later = t.C
	}
	select {
	case <-later:
	case <-r.gate.Changed():
	case <-s.claiming.Done():
	}
}

// current returns the present setup, or nil if the loop must end.
func (r *runner) current() *setup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || r.d.claiming.Err() != nil {
		r.looping = false
		return nil
	}
	return r.now
}

// unbounded is more than any endpoint has slots.
const unbounded = 1 << 20

// acquire waits for a free slot, then takes all free ones, at most most. It returns 0 if s is no
// longer the endpoint's setup.
func (r *runner) acquire(s *setup, most int) (free int) {
	for s.claiming.Err() == nil {
		if free = r.takeFree(s.endpoint.Concurrency, most); free > 0 {
			return free
		}
		select {
		case <-r.freed:
		case <-s.claiming.Done():
		}
	}
	return 0
}

func (r *runner) takeFree(slots, most int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	free := min(max(0, slots-r.busy), most)
	r.busy += free
	return free
}

// begin keeps n of the taken slots for n attempts and frees the others. If s is no longer the
// endpoint's setup it frees all and returns false, so that no attempt begins with the old
// settings after a reload.
func (r *runner) begin(s *setup, taken, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := s.claiming.Err() == nil
	if !live {
		n = 0
	}
	r.busy -= taken - n
	s.conns.users += n
	return live
}

// end frees the slot of an attempt. The last attempt on replaced connections closes them.
func (r *runner) end(s *setup) {
	r.mu.Lock()
	r.busy--
	s.conns.users--
	last := s.conns.users == 0 && s.conns.replaced
	r.mu.Unlock()
	select {
	case r.freed <- struct{}{}:
	default:
	}
	if last {
		s.conns.close()
	}
}

// release hands claims back. If that fails, they can be claimed again when their lease ends.
func (r *runner) release(claims ...outbox.Claim) {
	if len(claims) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := r.d.o.Source.Release(ctx, claims...); err != nil {
		r.d.o.Log.Warn().Str("endpoint", r.name).Err(err).Msg("claims were not handed back")
	}
}

// close closes the connections, after the last attempt.
func (r *runner) close() {
	r.mu.Lock()
	s := r.now
	r.mu.Unlock()
	if s != nil {
		s.conns.close()
	}
}
