package sqlite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"relay/outbox"
)

// reapSlice is how much of a kind one Reap removes at most: a few milliseconds of
// the owner's time.
const reapSlice = 200

// Why an event is kept that has no deliveries.
const (
	keptUnwanted = 1 // no endpoint wanted it
	keptID       = 2 // its id must be known again; the rest is gone
)

// Reap implements outbox.Store. When nothing is left to remove it gives a part of
// the free pages back to the file system.
func (s *Store) Reap(ctx context.Context, r outbox.Retention) (removed int, more bool, err error) {
	var slice reaped
	var full error
	err = s.do(ctx, func() error {
		err := s.db.transact("NORMAL", func() (err error) {
			slice, err = s.reap(r)
			return err
		})
		if err == nil && !slice.more {
			slice.more, err = s.shrink()
		}
		if isFull(err) {
			slice, full = reaped{}, fmt.Errorf("reap: %w: %w", outbox.ErrFull, err)
			return s.makeRoom() // for the next one
		}
		return err
	})
	if err != nil {
		return 0, false, err // what run writes is still its own after a context's error
	}
	return slice.deliveries, slice.more, full
}

// reaped is what one slice removed.
type reaped struct {
	deliveries int
	more       bool // a bound was met
}

// reap removes a slice in the transaction under way.
func (s *Store) reap(r outbox.Retention) (done reaped, err error) {
	now := s.clock.Now()
	before := func(age time.Duration) int64 { return now - age.Microseconds() }
	window := before(outbox.IdempotencyWindow)

	for _, final := range []struct {
		state int64 // place in states
		age   time.Duration
	}{{1, r.Delivered}, {2, r.Failed}, {3, r.Delivered}} {
		rows, err := s.db.finals.int(final.state).int(before(final.age)).int(reapSlice).pairs()
		if err != nil {
			return done, fmt.Errorf("select final deliveries: %w", err)
		}
		for _, row := range rows {
			if err := s.dropDelivery(row[0]); err != nil {
				return done, err
			}
		}
		for _, row := range slices.CompactFunc(rows, func(a, b [2]int64) bool { return a[1] == b[1] }) {
			spent, err := s.db.spent.int(window).int(row[1]).pairs()
			if err != nil {
				return done, fmt.Errorf("select spent event: %w", err)
			}
			if err := s.dropEvents(spent); err != nil {
				return done, err
			}
		}
		done.deliveries += len(rows)
		done.more = done.more || len(rows) == reapSlice
	}

	for kept, age := range map[int64]time.Duration{keptUnwanted: r.Delivered, keptID: outbox.IdempotencyWindow} {
		rows, err := s.db.bare.int(window).int(kept).int(before(age)).int(reapSlice).pairs()
		if err != nil {
			return done, fmt.Errorf("select events without deliveries: %w", err)
		}
		if err := s.dropEvents(rows); err != nil {
			return done, err
		}
		done.more = done.more || len(rows) == reapSlice
	}

	for what, q := range map[string]*query{"keys": s.db.dropKeys, "marks": s.db.dropMarks} {
		if err := q.int(now).int(reapSlice).exec(); err != nil {
			return done, fmt.Errorf("delete %s: %w", what, err)
		}
		done.more = done.more || s.db.conn.Changes() == reapSlice
	}

	// The numbers of what is gone are never given again.
	if err := s.db.saveNext.int(s.meta.nextEvent).int(s.meta.nextDelivery).exec(); err != nil {
		return done, fmt.Errorf("update meta: %w", err)
	}
	return done, s.saveClock()
}

// dropDelivery removes a delivery and its attempts.
func (s *Store) dropDelivery(seq int64) error {
	if err := s.db.dropAttempts.int(attemptID(seq, 0)).int(attemptID(seq, maxAttempts)).exec(); err != nil {
		return fmt.Errorf("delete attempts: %w", err)
	}
	if err := s.db.dropDelivery.int(seq).exec(); err != nil {
		return fmt.Errorf("delete delivery: %w", err)
	}
	return nil
}

// dropEvents removes events, given with 1 for those whose id must be known again:
// of these all else goes.
func (s *Store) dropEvents(rows [][2]int64) error {
	for _, row := range rows {
		q := s.db.dropEvent
		if row[1] == 1 {
			q = s.db.strip
		}
		if err := q.int(row[0]).exec(); err != nil {
			return fmt.Errorf("delete event: %w", err)
		}
	}
	return nil
}

// shrink gives a slice of the free pages back to the file system, when there are
// many. It tells whether there are still.
func (s *Store) shrink() (more bool, err error) {
	many := func() (bool, error) {
		used, free, err := s.db.used()
		return free > max(used/4, walLong), err
	}
	if yes, err := many(); err != nil || !yes {
		return false, err
	}
	if err := s.db.vacuum.exec(); err != nil {
		return false, fmt.Errorf("shrink file: %w", err)
	}
	return many()
}
