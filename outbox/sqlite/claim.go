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
	if s.refusal != nil {
		defer s.mu.Unlock()
		return nil, s.refusal
	}
	s.tick() // a lease that ends now, ended before
	ep := s.endpoint(r.Endpoint)
	if len(ep.waiters) == 0 {
		if claims := s.lease(ep, r); len(claims) > 0 {
			s.unlock()
			return claims, nil
		}
	}
	w := &waiter{request: r, claims: make(chan []outbox.Claim, 1)}
	ep.waiters = append(ep.waiters, w)
	s.unlock()

	select {
	case claims := <-w.claims:
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
	if i := slices.Index(ep.waiters, w); i >= 0 {
		ep.waiters = slices.Delete(ep.waiters, i, i+1)
		s.serve(ep) // the next one may have no such bound
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
	now := s.clock.Now()
	s.mu.Lock()
	ep.asked = false
	wanted, waiters := 0, len(ep.waiters)
	for _, w := range ep.waiters {
		wanted += max(w.request.Max, 1)
	}
	length, bytes := queueLength-len(ep.fresh)-len(ep.retries), queueBytes-s.bytes
	nextDue, last, more := ep.nextDue, ep.last, ep.more
	newest, tail := 0, ep.tail
	if ep.wanted > 0 {
		newest = max(ep.wanted, queueLow)
	}
	known := ep.ahead()
	ep.wanted = 0
	s.mu.Unlock()

	var loaded []*entry
	most := max(wanted, length)
	// load takes in the row that q is at, unless there is no room for it after n others.
	load := func(q *query, n int) bool {
		if bytes <= 0 {
			most = min(most, waiters)
		}
		if n >= most {
			return false
		}
		e := readEntry(q, ep)
		bytes -= e.weight()
		loaded = append(loaded, e)
		return true
	}

	if nextDue <= now {
		nextDue = never
		q := s.db.retryDue.int(ep.id)
		for n := 0; q.step(); {
			seq, due := q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
			if _, ok := s.loaded[seq]; ok {
				continue
			}
			if due > now || !load(q, n) {
				nextDue = due
				break
			}
			s.loaded[seq] = struct{}{}
			n++
		}
		if err := q.done(); err != nil {
			return fmt.Errorf("select retries: %w", err)
		}
	}
	var joined []int64
	if more {
		more = false
		q := s.db.freshDue.int(ep.id).int(last)
		for n := 0; q.step(); {
			seq := q.stmt.ColumnInt64(0)
			if _, ok := ep.early[seq]; ok {
				joined = append(joined, seq)
			} else if load(q, n) {
				n++
			} else {
				more = true
				break
			}
			last = seq
		}
		if err := q.done(); err != nil {
			return fmt.Errorf("select fresh deliveries: %w", err)
		}
	}
	inOrder := len(loaded)
	switch {
	case !more:
		tail = never
	case newest > 0:
		var err error
		most = newest - known
		if tail, err = s.loadNewest(ep, last, tail, load); err != nil {
			return err
		}
	}

	s.mu.Lock()
	defer s.unlock()
	ep.last, ep.more, ep.tail = last, more, tail
	s.setDue(ep, nextDue)
	s.join(ep, joined)
	for i, e := range loaded {
		if i >= inOrder {
			ep.keepEarly(e)
		}
		s.put(e)
	}
	if newest > 0 {
		s.trimNewest(ep, newest)
		ep.looked = true
	}
	s.serve(ep)
	ep.looked = false
	return nil
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
