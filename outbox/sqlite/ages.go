package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// mostAges is how many ages are kept of an endpoint's pending deliveries: with more of them, each second one, each fourth
// one and so on.
const mostAges = 1 << 16

// Ages implements outbox.History.
func (s *Store) Ages(ctx context.Context, endpoint string, quantiles []float64) ([]time.Duration, error) {
	r := &ageRead{s: s, name: endpoint, stride: 1}
	if err := s.read(ctx, r.step); err != nil {
		return nil, err
	}
	if len(r.created) == 0 {
		return nil, nil
	}
	slices.Sort(r.created)
	slices.Reverse(r.created) // the youngest first
	ages := make([]time.Duration, len(quantiles))
	for i, q := range quantiles {
		rank := int(math.Ceil(q * float64(len(r.created))))
		ages[i] = time.Duration(r.now-r.created[min(max(rank, 1), len(r.created))-1]) * time.Microsecond
	}
	return ages, nil
}

// ageRead is a read of ages under way.
type ageRead struct {
	s       *Store
	name    string
	ep      *endpoint
	created []int64 // when the deliveries were made
	stride  int     // of so many, one is kept
	seen    int
	now     int64

	due, seq int64 // the fresh one that was read last
	retried  int64 // and the retried one
	fresh    bool  // all fresh ones were read
}

// step reads a slice.
func (r *ageRead) step() (done bool, err error) {
	s := r.s
	if r.ep == nil {
		s.mu.Lock()
		r.ep = s.endpoints[r.name]
		s.mu.Unlock()
		if r.ep == nil || r.ep.id == 0 {
			return true, nil
		}
		r.now = s.clock.Now()
		for _, e := range s.bare {
			if e.event != nil && e.endpoint == r.ep {
				_ = r.add(func() (int64, error) { return e.created, nil })
			}
		}
	}
	if !r.fresh {
		if r.fresh, err = r.readFresh(); !r.fresh || err != nil {
			return false, err
		}
	}
	return r.readRetried()
}

// add keeps a delivery, if it is its turn.
func (r *ageRead) add(created func() (int64, error)) error {
	if r.seen++; r.seen%r.stride != 0 {
		return nil
	}
	at, err := created()
	if err != nil {
		return err
	}
	if r.created = append(r.created, at); len(r.created) == mostAges {
		for i := range mostAges / 2 {
			r.created[i] = r.created[2*i+1]
		}
		r.created, r.stride = r.created[:mostAges/2], 2*r.stride
	}
	return nil
}

// readFresh reads deliveries without an attempt, which are due since they were made.
func (r *ageRead) readFresh() (done bool, err error) {
	q := r.s.db.fresh.int(r.ep.id).int(r.due).int(r.seq).int(r.now)
	for done = true; q.step(); {
		r.due, r.seq = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
		if q.stmt.ColumnInt64(2) == 0 {
			_ = r.add(func() (int64, error) { return r.due, nil })
		}
		if done = !r.s.spent(); !done {
			break
		}
	}
	if err := q.done(); err != nil {
		return false, fmt.Errorf("select pending deliveries: %w", err)
	}
	return done, nil
}

// readRetried reads deliveries with attempts.
func (r *ageRead) readRetried() (done bool, err error) {
	q := r.s.db.retried.int(r.ep.id).int(r.retried)
	for done = true; err == nil && q.step(); {
		r.retried = q.stmt.ColumnInt64(0)
		d := entry{seq: r.retried, number: q.stmt.ColumnInt64(1)}
		err = r.add(func() (int64, error) {
			_, err := r.s.readHead(&d)
			return d.created, err
		})
		if done = !r.s.spent(); !done {
			break
		}
	}
	if err := errors.Join(err, q.done()); err != nil {
		return false, fmt.Errorf("select retries: %w", err)
	}
	return done, nil
}
