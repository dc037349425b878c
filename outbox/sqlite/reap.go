package sqlite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// reapSlice is how much of a kind one Reap removes at most: a few milliseconds of
// the owner's time.
const reapSlice = 200

// reapWalk is how many deliveries one Reap looks at while it walks past those that are kept.
const reapWalk = 1000

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
			if err == nil {
				err = s.countGone(slice.gone)
			}
			return err
		})
		if err == nil {
			s.rose(raised)
			s.walked = slice.walked
			for ep, gone := range slice.gone {
				ep.gone = ep.gone.plus(gone)
			}
		}
		if err == nil && !slice.more {
			slice.more, err = s.dropLists()
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
	more       bool  // a bound was met
	walked     int64 // as Store.walked will be
	gone       map[*endpoint]counts
}

// reap removes a slice in the transaction under way.
func (s *Store) reap(r outbox.Retention, now int64) (done reaped, err error) {
	before := func(age time.Duration) int64 { return now - age.Microseconds() }
	window := before(outbox.IdempotencyWindow)

	if err := s.reapPunctual(before(r.Delivered), window, &done); err != nil {
		return done, err
	}
	for _, final := range []struct {
		state int64 // place in states
		age   time.Duration
	}{{1, r.Delivered}, {2, r.Failed}, {3, r.Delivered}} {
		if err := s.reapLate(final.state, before(final.age), window, &done); err != nil {
			return done, err
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

// over is a delivery that ended.
type over struct{ seq, event, endpoint, state int64 }

// reapLate removes deliveries that are in the index of late ones.
func (s *Store) reapLate(state, before, window int64, done *reaped) error {
	var rows []over
	q := s.db.finals.int(state).int(before).int(reapSlice)
	for q.step() {
		rows = append(rows, over{q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2), q.stmt.ColumnInt64(3)})
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select final deliveries: %w", err)
	}
	done.more = done.more || len(rows) == reapSlice
	return s.dropDeliveries(rows, window, done)
}

// reapPunctual removes deliveries that were delivered soon after their accept. These are in no index: they lie in
// the order of accept, so none is old enough behind the first that was accepted too late for that.
func (s *Store) reapPunctual(before, window int64, done *reaped) error {
	var rows []over
	walked, passed := s.walked, false
	q := s.db.punctual.int(s.walked)
	for seen := 0; q.step(); seen++ {
		if len(rows) == reapSlice || seen == reapWalk {
			done.more = len(rows) == reapSlice || walked > s.walked // else it would find the same again until time has passed
			break
		}
		if q.stmt.ColumnInt64(6) > before {
			break
		}
		seq, late := q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(4) > 0
		switch {
		case late:
		case q.stmt.ColumnInt64(5) <= before:
			rows = append(rows, over{seq, q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2), q.stmt.ColumnInt64(3)})
		default:
			passed = true // it is found again
		}
		if !passed {
			walked = seq
		}
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select delivered deliveries: %w", err)
	}
	done.walked = walked
	return s.dropDeliveries(rows, window, done)
}

// dropDeliveries removes deliveries, and events that have none left.
func (s *Store) dropDeliveries(rows []over, window int64, done *reaped) error {
	for _, row := range rows {
		if err := s.dropDelivery(row.seq); err != nil {
			return err
		}
		ep, known := s.endpointAt(row.endpoint)
		if !known || row.state < 1 || row.state >= int64(len(states)) {
			return fmt.Errorf("delete delivery: %w", sqlite3.CORRUPT)
		}
		if done.gone == nil {
			done.gone = map[*endpoint]counts{}
		}
		gone := done.gone[ep]
		gone.end(states[row.state])
		done.gone[ep] = gone
	}
	done.deliveries += len(rows)
	for _, row := range slices.CompactFunc(rows, func(a, b over) bool { return a.event == b.event }) {
		if err := s.dropSpent(row.event, window); err != nil {
			return err
		}
	}
	return nil
}

// dropDelivery removes a delivery and its attempts.
func (s *Store) dropDelivery(seq int64) error {
	if err := s.db.dropAttempts.int(attemptID(seq, 0)).int(attemptID(seq, maxAttempts)).exec(); err != nil {
		return fmt.Errorf("delete attempts: %w", err)
	}
	if err := s.db.dropDone.int(seq).exec(); err != nil {
		return fmt.Errorf("delete delivery: %w", err)
	}
	if err := s.db.dropManual.int(seq).exec(); err != nil {
		return fmt.Errorf("delete redelivery: %w", err)
	}
	return nil
}

// dropSpent removes an event if it has no deliveries left.
func (s *Store) dropSpent(number, window int64) (err error) {
	var known, first, repeated int64
	targets := 0
	q := s.db.targets.int(window).int(number)
	if q.step() {
		known, first, targets, repeated = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), countTargets(q.stmt.ColumnRawBlob(2)), q.stmt.ColumnInt64(3)
	}
	if err = q.done(); err != nil {
		return fmt.Errorf("select spent event: %w", err)
	}
	if repeated > 0 {
		return nil // by a redelivery, whose row goes with it
	}
	for i := range targets {
		if left, err := s.hasRow(first + int64(i)); left || err != nil {
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

// countGone writes how many deliveries were removed.
func (s *Store) countGone(gone map[*endpoint]counts) error {
	for ep, c := range gone {
		c = c.plus(ep.gone)
		if err := s.db.goneCounts.int(c.delivered).int(c.failed).int(c.discarded).int(ep.id).exec(); err != nil {
			return fmt.Errorf("update counts: %w", err)
		}
	}
	return nil
}

// dropLists removes a slice of the lists of segments whose deliveries are all gone, and tells whether there is more to
// look at. Each round begins with the first segment.
func (s *Store) dropLists() (more bool, err error) {
	l := &s.lists
	for range dropListsRounds {
		live, err := s.liveFrom(l.swept << segmentBits)
		if err != nil {
			return false, err
		}
		if upto := min(live>>segmentBits, s.meta.listed); upto > l.swept {
			err := s.db.transact("NORMAL", func() error {
				return s.db.dropPostings.int(l.swept).int(upto).int(reapSlice).exec()
			})
			if err != nil {
				return false, fmt.Errorf("delete lists: %w", err)
			}
			if s.db.conn.Changes() == reapSlice {
				return true, nil
			}
			l.swept = upto
		}
		if l.swept++; l.swept >= s.meta.listed {
			l.swept = 0
			return false, nil
		}
	}
	return false, nil
}

// dropListsRounds is how many segments one Reap looks at.
const dropListsRounds = 50

// liveFrom is the first delivery from a number on that is there.
func (s *Store) liveFrom(seq int64) (int64, error) {
	live := int64(never)
	for _, e := range s.bareFrom(seq) {
		if e.event != nil {
			live = e.seq
			break
		}
	}
	for _, q := range []*query{s.db.doneAbove.int(seq).int(never), s.db.pendingAbove.int(seq)} {
		if q.step() {
			live = min(live, q.stmt.ColumnInt64(0))
		}
		if err := q.done(); err != nil {
			return 0, fmt.Errorf("select next delivery: %w", err)
		}
	}
	return live, nil
}
