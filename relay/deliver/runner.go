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

// runner delivers to one endpoint. It has a goroutine, a worker's, only while there is
// something to do: what it waits for wakes it.
type runner struct {
	d       *Deliverer
	name    string
	retries throttle.Lines // in the log, by code
	gate    *gate.Gate
	counts  counts

	mu      sync.Mutex
	now     *setup // nil while the endpoint takes no deliveries
	busy    int    // slots in use; may exceed concurrency after that was lowered
	starved bool   // it waits for a slot

	life

	// These belong to the goroutine that runs it.
	order fairness
	batch *gathering  // nil without batches
	asked bool        // a Claim waits in the outbox
	later *time.Timer // when the gate is to be asked again; nil for none
	last  job         // an attempt that has not begun; without a setup none
}

func (d *Deliverer) newRunner(name string) *runner {
	r := &runner{d: d, name: name, gate: d.gates.Gate(name), retries: throttle.Lines{Every: quiet}}
	r.gate.Tell(r.wake)
	return r
}

// claimAll claims work for free slots, as the gate allows, and starts the attempts, until something has to be
// waited for. It returns nil or the error of Claim.
func (r *runner) claimAll() error {
	for {
		s := r.current()
		if r.last.s != s {
			r.start(job{}) // with another setup something may have to be waited for
		}
		if g := r.batch; g != nil && g.s != s {
			g.drop()
			r.batch = nil
		}
		if s == nil {
			r.withdraw()
			return nil
		}
		step := r.claimOnce
		if s.endpoint.Batch != nil {
			step = r.claimBatch
		}
		if more, err := step(s); !more || err != nil {
			return err
		}
	}
}

// claimOnce claims once, and starts an attempt with each claim. It returns false if something has to be waited
// for: a slot, the gate or work.
func (r *runner) claimOnce(s *setup) (more bool, err error) {
	free := r.takeFree(s.endpoint.Concurrency, unbounded)
	if free == 0 {
		r.withdraw() // a reload may have taken slots from a Claim that waits
		return false, nil
	}
	v := r.gate.Look(s.claiming, free)
	if v.N == 0 {
		r.begin(s, free, 0)
		return r.wait(s, v), nil
	}
	claims, err := r.claim(s.claiming, s, v.N, r.wake)
	if err != nil || len(claims) == 0 {
		return !r.begin(s, free, 0), err
	}
	r.start(job{}) // the gate may have to ask the outbox about these, which takes time
	n, probe, _ := r.admit(s, free, len(claims))
	for i := range claims[:n] {
		r.start(job{r: r, s: s, claims: claims[i : i+1], probe: probe})
	}
	if n < len(claims) || r.d.o.Limiter != nil && (s.endpoint.RateLimit != nil || s.endpoint.Handshake) {
		r.start(job{}) // what comes next may take time, during which tokens would lapse
	}
	r.release(claims[n:]...)
	return true, nil
}

// start begins the attempt that it was given before. The last one is for the goroutine that runs the runner,
// when that has to wait anyway: so a single attempt needs no other. Between the two nothing may be waited for, because
// the gate has let the attempt begin now, with this setup. A Claim with Ready does not wait.
func (r *runner) start(j job) {
	if r.last.s != nil {
		r.d.begin(r.last)
	}
	r.last = j
}

// claim takes up to most deliveries. Without ready it waits for at least one. It returns no error if ctx has ended.
func (r *runner) claim(ctx context.Context, s *setup, most int, ready func()) ([]outbox.Claim, error) {
	claims, err := r.d.o.Source.Claim(ctx, outbox.ClaimRequest{
		Endpoint: r.name,
		Max:      most,
		Ready:    ready,
		Lease:    s.lease(),
		Behind:   r.order.late,
		Fresh:    r.order.fresh(most, s.endpoint.FreshShare),
		FleetMax: s.endpoint.FleetConcurrency,
	})
	if err == nil {
		r.asked = ready != nil && len(claims) == 0
	}
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("claim deliveries of endpoint %s: %w", r.name, err)
	}
	r.order.observe(claims, most, r.d.at(time.Now()))
	return claims, nil
}

// withdraw ends the wait of the last Claim.
func (r *runner) withdraw() {
	if r.asked {
		r.asked = false
		r.d.o.Source.Withdraw(r.name)
	}
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

// wait sees to it that the runner is woken when it is time to ask the shut gate again. If consent is missing it
// asks the receiver, and returns true.
func (r *runner) wait(s *setup, v gate.Grant) (again bool) {
	r.withdraw()
	if v.Cause == gate.NoConsent && v.Wait == 0 {
		r.start(job{})
		r.handshake(s)
		return true
	}
	if v.Wait > 0 {
		r.later = time.AfterFunc(v.Wait, r.wake)
	}
	return false // a gate that changes wakes, too
}

// current returns the present setup, or nil if there is none or nothing more is to be claimed.
func (r *runner) current() *setup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.d.claiming.Err() != nil {
		return nil
	}
	return r.now
}

// unbounded is more than any endpoint has slots.
const unbounded = 1 << 20

// takeFree takes free slots, at most most. If there are none, the next one wakes the runner.
func (r *runner) takeFree(slots, most int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	free := min(max(0, slots-r.busy), most)
	r.busy += free
	r.starved = free == 0
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
	last, starved := s.conns.users == 0 && s.conns.replaced, r.starved
	r.starved = false
	r.mu.Unlock()
	if starved {
		r.wake()
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
