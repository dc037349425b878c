package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
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
		var raised rise
		err := s.db.transact("NORMAL", func() (err error) {
			// A removed delivery must not look like one without a row yet. It is older than this.
			now := s.clock.Now()
			if raised, err = s.raise(now-min(s.raiseAfter, r.Delivered, r.Failed).Microseconds(), math.MaxInt); err == nil {
				slice, err = s.reap(r, now)
			}
			return err
		})
		if err == nil {
			s.rose(raised)
		}
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
func (s *Store) reap(r outbox.Retention, now int64) (done reaped, err error) {
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
		done.deliveries += len(rows)
		done.more = done.more || len(rows) == reapSlice
		for _, row := range slices.CompactFunc(rows, func(a, b [2]int64) bool { return a[1] == b[1] }) {
			if err := s.dropSpent(row[1], window); err != nil {
				return done, err
			}
		}
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
	return done, nil
}

// dropDelivery removes a delivery and its attempts.
func (s *Store) dropDelivery(seq int64) error {
	if err := s.db.dropAttempts.int(attemptID(seq, 0)).int(attemptID(seq, maxAttempts)).exec(); err != nil {
		return fmt.Errorf("delete attempts: %w", err)
	}
	if err := s.db.dropDone.int(seq).exec(); err != nil {
		return fmt.Errorf("delete delivery: %w", err)
	}
	return nil
}

// dropSpent removes an event if it has no deliveries left.
func (s *Store) dropSpent(number, window int64) (err error) {
	var known, accepted, first int64
	var targets []*endpoint
	q := s.db.targets.int(window).int(number)
	if q.step() {
		known, accepted, first = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2)
		targets, err = s.endpointsOf(q.stmt.ColumnRawBlob(3))
	}
	if err = errors.Join(err, q.done()); err != nil {
		return fmt.Errorf("select spent event: %w", err)
	}
	for i, ep := range targets {
		if left, err := s.hasRow(first+int64(i), ep, accepted); left || err != nil {
			return err
		}
	}
	return s.dropEvents([][2]int64{{number, known}})
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
