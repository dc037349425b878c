package sqlite

import (
	"bytes"
	"context"
	"fmt"

	"relay/outbox"
)

// settle is the end of a claim on its way into the database.
type settle struct {
	entry    *entry
	attempt  outbox.Attempt
	state    outbox.State
	due      int64 // microseconds, for a pending one
	finished int64 // microseconds, for a final one
}

// states as they are stored; pending is 0.
var states = [...]outbox.State{outbox.Pending, outbox.Delivered, outbox.Failed, outbox.Discarded}

// maxAttempts is the highest number under which an attempt is kept: a later one
// takes the place of the last.
const maxAttempts = 1<<16 - 1

// Settle implements outbox.Store. It returns when the settlement is in line for the
// next commit; it waits only when backlog others are in line before it.
func (s *Store) Settle(ctx context.Context, c outbox.Claim, st outbox.Settlement) error {
	if st.State != outbox.Pending && !st.State.Final() {
		return fmt.Errorf("settle %s: %q is not a state to settle as", c.ID, st.State)
	}
	select {
	case s.slots <- struct{}{}: // even when ctx is done
	default:
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stop:
			return outbox.ErrClosed
		case <-s.broken:
			return s.refused()
		}
	}
	if err := s.queueSettle(c, st); err != nil {
		<-s.slots
		return err
	}
	s.nudge()
	return nil
}

// queueSettle ends the claim's lease and puts the settlement in line.
func (s *Store) queueSettle(c outbox.Claim, st outbox.Settlement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal != nil {
		return s.refusal
	}
	e := s.leased(c)
	if e == nil {
		return outbox.ErrLeaseLost
	}
	s.end(e)
	st.Attempt.Body = bytes.Clone(st.Attempt.Body) // it is the caller's again
	next := &settle{entry: e, attempt: st.Attempt, state: st.State}
	if st.State == outbox.Pending {
		next.due = max(s.clock.Of(st.Due), 1) // 0 is what is fresh
		s.dueBy(e.endpoint, next.due)
	} else {
		next.finished = s.clock.Now()
	}
	s.settles = append(s.settles, next)
	if ep := e.endpoint; ep.waiter != nil && ep.waiter.request.FleetMax > 0 {
		s.serve(ep) // it has a place again
	}
	return nil
}

// update writes a settlement in the transaction under way.
func (s *Store) update(st *settle) error {
	e, state := st.entry, 0
	switch c := s.count(e.endpoint); st.state {
	case outbox.Delivered:
		state, c.delivered = 1, c.delivered+1
	case outbox.Failed:
		state, c.failed = 2, c.failed+1
	case outbox.Discarded:
		state, c.discarded = 3, c.discarded+1
	}
	n := e.attempts + 1
	if err := s.db.settle.int(int64(state)).int(int64(n)).int(st.due).int(st.finished).text(st.attempt.Code).int(e.seq).exec(); err != nil {
		return fmt.Errorf("update delivery: %w", err)
	}
	a := &st.attempt
	if s.room < -s.maxSize/16 {
		a.Head, a.Body = "", nil // beyond max_size: what happened is kept, not what was said
	}
	err := s.db.addAttempt.int(attemptID(e.seq, n)).int(a.Started.UnixMicro()).int(a.Took.Microseconds()).
		int(a.Timing.DNS.Microseconds()).int(a.Timing.Connect.Microseconds()).int(a.Timing.TLS.Microseconds()).int(a.Timing.FirstByte.Microseconds()).
		int(int64(a.Status)).text(a.Outcome).text(a.Code).text(a.Error).text(a.Head).blob(a.Body).exec()
	if err != nil {
		return fmt.Errorf("insert attempt: %w", err)
	}
	return nil
}

// attemptID is the row of a delivery's n-th attempt. All of a delivery's attempts
// lie side by side, and those of an event's deliveries too.
func attemptID(seq int64, n int) int64 { return seq<<16 | int64(min(n, maxAttempts)) }
