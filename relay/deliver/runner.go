package deliver

import (
	"context"
	"fmt"
	"sync"

	"relay/outbox"
)

// runner delivers to one endpoint. While there is nothing to do it is one
// goroutine that waits in Claim; while the endpoint takes no deliveries, none.
type runner struct {
	d       *Deliverer
	name    string
	repeats repeats
	freed   chan struct{} // holds a token when a slot may have become free

	mu      sync.Mutex
	now     *setup // the endpoint as it is now; nil while it takes no deliveries
	busy    int    // slots that are in use; more than there are, after concurrency went down
	looping bool
}

func (d *Deliverer) newRunner(name string) *runner {
	return &runner{d: d, name: name, freed: make(chan struct{}, 1)}
}

// start begins to claim, if the endpoint takes deliveries and nobody does yet. The
// caller holds d.mu.
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

// loop claims work for free slots until the endpoint takes no more, and makes the
// attempts, which may go on after it returned. It returns nil then, else the error
// of Claim.
func (r *runner) loop() error {
	for s := r.current(); s != nil; s = r.current() {
		free := r.acquire(s)
		if free == 0 {
			continue
		}
		claims, err := r.d.o.Source.Claim(s.claiming, outbox.ClaimRequest{
			Endpoint: r.name,
			Max:      free,
			Lease:    s.lease(),
		})
		if err != nil && s.claiming.Err() == nil {
			return fmt.Errorf("claim deliveries of endpoint %s: %w", r.name, err)
		}
		if !r.begin(s, free, len(claims)) {
			r.release(claims...) // for whoever takes it now, with a lease of the right length
			continue
		}
		for i := range claims {
			r.d.work.Go(func() {
				defer r.end(s)
				r.attempt(s, &claims[i])
			})
		}
	}
	return nil
}

// current returns the endpoint as it is now, or nil for the end of the loop.
func (r *runner) current() *setup {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || r.d.claiming.Err() != nil {
		r.looping = false
		return nil
	}
	return r.now
}

// acquire waits for a free slot, then takes all that are free. It returns 0
// when s is no longer what the endpoint is.
func (r *runner) acquire(s *setup) (free int) {
	for s.claiming.Err() == nil {
		if free = r.takeFree(s.endpoint.Concurrency); free > 0 {
			return free
		}
		select {
		case <-r.freed:
		case <-s.claiming.Done():
		}
	}
	return 0
}

func (r *runner) takeFree(slots int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	free := max(0, slots-r.busy)
	r.busy += free
	return free
}

// begin keeps n of the slots that were taken for as many attempts. It returns false,
// and frees all, when s is no longer what the endpoint is: after a reload no attempt
// begins with what was before.
func (r *runner) begin(s *setup, taken, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := s.claiming.Err() == nil
	if !live {
		n = 0
	}
	r.busy -= taken - n
	s.wire.users += n
	return live
}

// end frees the slot of an attempt. The last one of connections that were replaced
// closes them.
func (r *runner) end(s *setup) {
	r.mu.Lock()
	r.busy--
	s.wire.users--
	last := s.wire.users == 0 && s.wire.replaced
	r.mu.Unlock()
	select {
	case r.freed <- struct{}{}:
	default:
	}
	if last {
		s.wire.close()
	}
}

// release hands claims back. Where that fails they return when their lease ends.
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
		s.wire.close()
	}
}
