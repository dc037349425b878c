package sqlite

import (
	"context"
	"fmt"
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

// refill loads deliveries of an endpoint that are due and only on disk. Only the
// owner calls it, when all that was settled is committed or still among the loaded: so
// a row that it finds is nobody's.
func (s *Store) refill(ep *endpoint) error {
	s.mu.Lock()
	ep.asked = false
	most, spare := queueLength-len(ep.fresh)-len(ep.retries), queueBytes-s.bytes
	wanted := 0
	if ep.waiter != nil {
		wanted = max(ep.waiter.request.Max, 1)
	}
	nextDue, last, more := ep.nextDue, ep.last, ep.more
	s.mu.Unlock()

	l := &loading{endpoint: ep, most: max(most, wanted), least: min(wanted, 1), spare: spare}
	var err error
	if now := s.clock.Now(); nextDue <= now {
		nextDue, err = s.loadRetries(l, now)
	}
	if err == nil && more {
		last, more, err = s.loadFresh(l, last)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	ep.last, ep.more = last, more
	s.setDue(ep, nextDue)
	for _, e := range l.loaded {
		s.put(e)
	}
	s.serve(ep)
	return nil
}

// loading is what a refill takes in.
type loading struct {
	endpoint    *endpoint
	most, least int   // of a kind, and of a kind when memory is full
	spare       int64 // bytes of memory
	loaded      []*entry
}

// load takes in the row that q is at, unless there is no room for it after n others.
func (l *loading) load(q *query, n int) bool {
	if n >= l.most || l.spare <= 0 && n >= l.least {
		return false
	}
	e := readEntry(q, l.endpoint)
	l.spare -= e.weight()
	l.loaded = append(l.loaded, e)
	return true
}

// loadRetries loads retries that are due, and returns when the first other one is.
func (s *Store) loadRetries(l *loading, now int64) (nextDue int64, err error) {
	nextDue = never
	q := s.db.retryDue.int(l.endpoint.id)
	for n := 0; q.step(); {
		seq, due := q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
		if _, ok := s.loaded[seq]; ok {
			continue
		}
		if due > now || !l.load(q, n) {
			nextDue = due
			break
		}
		s.loaded[seq] = struct{}{}
		n++
	}
	if err := q.done(); err != nil {
		return 0, fmt.Errorf("select retries: %w", err)
	}
	return nextDue, nil
}

// loadFresh loads fresh deliveries after the last one, but for those of the express lane.
func (s *Store) loadFresh(l *loading, last int64) (_ int64, more bool, err error) {
	q := s.db.freshDue.int(l.endpoint.id).int(last)
	for n := 0; q.step(); {
		seq := q.stmt.ColumnInt64(0)
		if _, ok := l.endpoint.express[seq]; ok {
			delete(l.endpoint.express, seq)
		} else if !l.load(q, n) {
			more = true
			break
		} else {
			n++
		}
		last = seq
	}
	if err := q.done(); err != nil {
		return 0, false, fmt.Errorf("select fresh deliveries: %w", err)
	}
	return last, more, nil
}

// readEntry reads a row of freshDue or retryDue.
func readEntry(q *query, ep *endpoint) *entry {
	return &entry{
		seq:      q.stmt.ColumnInt64(0),
		endpoint: ep,
		due:      q.stmt.ColumnInt64(1),
		attempts: q.stmt.ColumnInt(2),
		code:     q.stmt.ColumnText(3),
		created:  q.stmt.ColumnInt64(9),
		event: &outbox.Event{
			ID:     q.stmt.ColumnText(4),
			Type:   q.stmt.ColumnText(5),
			Time:   fromMicros(q.stmt.ColumnInt64(6)),
			Tenant: q.stmt.ColumnText(7),
			Key:    q.stmt.ColumnText(8),
			Data:   q.stmt.ColumnBlob(10, nil),
		},
	}
}
