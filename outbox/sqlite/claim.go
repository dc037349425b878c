package sqlite

import (
	"context"
	"slices"

	"relay/outbox"
)

// Claim implements outbox.Store. Leases are in memory: they end with the process.
func (s *Store) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	ep := s.endpoint(r.Endpoint)
	s.mu.Unlock()
	select {
	case ep.turn <- struct{}{}:
		defer func() { <-ep.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	case <-s.broken:
		return nil, s.refused()
	}

	s.mu.Lock()
	if s.refusal != nil {
		defer s.mu.Unlock()
		return nil, s.refusal
	}
	s.tick() // a lease that ends now, ended before
	claims := s.lease(ep, r)
	if len(claims) > 0 {
		s.unlock()
		return claims, nil
	}
	w := &waiter{request: r, claims: make(chan []outbox.Claim, 1)}
	ep.waiter = w
	s.unlock()

	select {
	case claims = <-w.claims:
		return claims, nil
	case <-ctx.Done():
		s.withdraw(ep, w)
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	case <-s.broken:
		return nil, s.refused()
	}
}

// withdraw ends the wait of a claim that nobody waits for any more.
func (s *Store) withdraw(ep *endpoint, w *waiter) {
	s.mu.Lock()
	defer s.unlock()
	if ep.waiter == w {
		ep.waiter = nil
		return
	}
	s.release(<-w.claims) // it was answered meanwhile
}

// Release implements outbox.Store.
func (s *Store) Release(_ context.Context, claims ...outbox.Claim) error {
	s.mu.Lock()
	defer s.unlock()
	if s.refusal != nil {
		return s.refusal
	}
	s.release(claims)
	return nil
}

func (s *Store) release(claims []outbox.Claim) {
	var held []*entry
	for _, c := range claims {
		if e := s.leased(c); e != nil && !slices.Contains(held, e) {
			held = append(held, e)
		}
	}
	s.handBack(held)
}

// unlock ends a use of the queues and wakes the owner when they need it.
func (s *Store) unlock() {
	waiting := s.waiting()
	s.mu.Unlock()
	if waiting {
		s.nudge()
	}
}
