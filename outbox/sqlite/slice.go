package sqlite

import (
	"context"
	"fmt"
	"time"
)

// What reads much does it in slices of the owner's time, between commits.
const (
	sliceIdle  = 2 * time.Millisecond   // for all reads while nothing waits for a commit
	sliceShare = 12                     // else so many parts of the last commit's time are one for all reads
	sliceLeast = 100 * time.Microsecond // for each read
)

// read lets the owner run a function again and again until it is done, each time until Store.spent tells that it should
// pause. After a context's error run may still write to its variables. An error that run returns is the caller's
// alone: it breaks nothing.
func (s *Store) read(ctx context.Context, run func() (done bool, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for done := false; !done; {
		var failed error
		err := s.do(ctx, func() error {
			if done, failed = run(); failed != nil {
				failed = s.db.explain(failed)
			}
			return nil
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spent tells a read that its slice is over.
func (s *Store) spent() bool { return !time.Now().Before(s.until) }

// slice is how long a read may go on, when so many share what is left beside a commit that took so long.
func slice(commit time.Duration, busy bool, readers int) time.Duration {
	all := sliceIdle
	if busy {
		all = min(commit/sliceShare, sliceIdle)
	}
	return max(all/time.Duration(max(readers, 1)), sliceLeast)
}

// choresAt is when chores has something to do; now or before if it has now, zero for never.
func (s *Store) choresAt(now time.Time) time.Time {
	for _, until := range []time.Time{s.rested, s.stalled} {
		if now.Before(until) {
			return until
		}
	}
	at := s.rollAt(now)
	if s.listDue() || s.agePending {
		at = now
	}
	return at
}

// chores does a slice of what is due: sums of statistics, lists of deliveries, old hours.
func (s *Store) chores() error {
	now := time.Now()
	if now.Before(s.rested) || now.Before(s.stalled) {
		return nil
	}
	if hour := s.clock.Wall(s.clock.Now()).Unix() / 3600; hour != s.stats.aged {
		s.stats.aged, s.agePending = hour, true
	}
	rested := s.db.written
	var err error
	switch at := s.rollAt(now); {
	case s.listDue():
		err = s.list()
	case !at.IsZero() && !now.Before(at):
		err = s.rollUp()
	case s.agePending && s.stats.readers == 0:
		s.agePending, err = s.age()
		if err == nil && !s.agePending {
			s.agePending, err = s.forget()
		}
	default:
		return nil
	}
	s.db.written = rested // the log rests all the same
	if isFull(err) {
		s.rested = now.Add(retryFull)
		return nil
	}
	if at := s.choresAt(now); err == nil && !at.IsZero() && !now.Before(at) {
		s.nudge()
	}
	return err
}

// forget removes a slice of the documents that were removed long ago, and tells whether there are more.
func (s *Store) forget() (more bool, err error) {
	err = s.db.transact("NORMAL", func() error {
		if err := s.db.dropDocuments.int(s.clock.Now() - keepRemoved.Microseconds()).int(rollSlice).exec(); err != nil {
			return fmt.Errorf("delete documents: %w", err)
		}
		more = s.db.conn.Changes() == rollSlice
		return nil
	})
	return more, err
}
