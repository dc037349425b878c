package sqlite

import (
	"context"
	"slices"

	"relay/outbox"
)

// Claim implements outbox.Store. Leases are in memory: they end with the process.
func (s *Store) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if r.Ready == nil {
		return s.block(ctx, r)
	}
	if err := ctx.Err(); err != nil {
		s.Withdraw(r.Endpoint) // the Claim before, whose place this one takes
		return nil, err
	}
	s.mu.Lock()
	defer s.unlock()
	if s.refusal != nil {
		return nil, s.refusal
	}
	s.tick() // a lease that ends now, ended before
	ep := s.endpoint(r.Endpoint)
	claims := s.lease(ep, r)
	if ep.wait = (wait{}); len(claims) == 0 {
		ep.wait = wait{ready: r.Ready, most: r.Max, bound: r.FleetMax}
	}
	return claims, nil
}

// block is a Claim that waits for its turn, and then for work.
func (s *Store) block(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	ep := s.endpoint(r.Endpoint)
	if ep.turn == nil {
		ep.turn = make(chan struct{}, 1)
	}
	s.mu.Unlock()
	select {
	case ep.turn <- struct{}{}:
		defer func() { <-ep.turn }()
		return outbox.Block(ctx, s, r)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	case <-s.broken:
		return nil, s.refused()
	}
}

// Withdraw implements outbox.Store.
func (s *Store) Withdraw(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ep := s.endpoints[endpoint]; ep != nil {
		ep.wait = wait{}
	}
}

// callAll lets every Claim that waits come for the refusal. The caller holds mu.
func (s *Store) callAll() {
	for _, ep := range s.endpoints {
		ep.wait.call()
	}
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
