package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relay/outbox"
	"relay/outbox/brief"
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
		next.due = s.clock.Of(st.Due)
	} else {
		next.finished = s.clock.Now()
	}
	s.settles = append(s.settles, next)
	if ep := e.endpoint; ep.wait.bound > 0 {
		s.serve(ep) // it has a place again
	}
	return nil
}

// update writes a settlement in the transaction under way.
func (s *Store) update(st *settle) error {
	e, n, a := st.entry, st.entry.attempts+1, &st.attempt
	if s.room < -s.maxSize/16 {
		a.Request, a.Head, a.Body = "", "", nil // beyond max_size: what happened is kept, not what was said
	}
	if err := s.dropPending(e); err != nil {
		return err
	}
	s.tally(e, settled{state: st.state, n: n, attempt: true, took: a.Took})
	c := s.count(e.endpoint) // which is served after the commit, whatever the state
	if st.state == outbox.Pending {
		if err := s.addPending(e, st.due, n, a.Code); err != nil {
			return err
		}
		return s.addAttempt(e, n, st.due, a)
	}
	c.end(st.state)
	return s.addDone(e, end{state: st.state, attempts: n, finished: st.finished, code: a.Code, last: a})
}

// addAttempt writes the n-th attempt of a delivery that goes on, in the transaction under way.
func (s *Store) addAttempt(e *entry, n int, due int64, a *outbox.Attempt) error {
	q := s.db.addAttempt.int(attemptID(e.seq, n)).int(due).text(a.Code)
	if err := s.bindAttempt(q, a, s.facts(e, n, a)); err != nil {
		return err
	}
	if err := q.exec(); err != nil {
		return fmt.Errorf("insert attempt: %w", err)
	}
	return nil
}

// end is the end of a delivery.
type end struct {
	state    outbox.State
	attempts int
	finished int64
	code     string
	last     *outbox.Attempt // nil when it is among the others, or there was none
	error    string          // of one without an attempt
}

// addDone writes the end of a delivery, with its last attempt, in the transaction under way.
func (s *Store) addDone(e *entry, end end) error {
	late := int64(1)
	if end.state == outbox.Delivered && end.finished-e.created <= lateAfter.Microseconds() && e.seq > s.walked {
		late = 0
	}
	place := int64(slices.Index(states[:], end.state))
	q := s.db.addDone.int(e.seq).int(e.number).int(e.endpoint.id).int(place).int(late).int(int64(end.attempts)).int(end.finished).text(end.code)
	if end.last != nil {
		if err := s.bindAttempt(q, end.last, s.facts(e, end.attempts, end.last)); err != nil {
			return err
		}
	} else {
		q.null().int(0).int(0).int(0).int(0).int(0).int(0).null().text(end.error).null().null().null().null()
	}
	if err := q.exec(); err != nil {
		return fmt.Errorf("insert end of a delivery: %w", err)
	}
	return nil
}

// facts are what the heads of an attempt are kept without.
func (s *Store) facts(e *entry, n int, a *outbox.Attempt) brief.Facts {
	return brief.Facts{Event: e.event.ID, Delivery: deliveryID(s.meta.prefix, e.seq), Attempt: n, Started: a.Started}
}

// bindAttempt binds attemptColumns.
func (s *Store) bindAttempt(q *query, a *outbox.Attempt, f brief.Facts) error {
	more, err := s.appendAttemptMore(nil, a)
	if err != nil {
		return errors.Join(err, q.done())
	}
	q.int(a.Started.UnixMicro()).int(a.Took.Microseconds()).
		int(a.Timing.DNS.Microseconds()).int(a.Timing.Connect.Microseconds()).int(a.Timing.TLS.Microseconds()).int(a.Timing.FirstByte.Microseconds()).
		int(int64(a.Status)).text(shortOutcome(a.Outcome)).text(a.Error).blob(more)
	s.heads = f.Pack(s.heads[:0], a.Request)
	request := len(s.heads)
	s.heads = f.Pack(s.heads, a.Head)
	q.rawText(s.heads[:request]).rawText(s.heads[request:]).blob(a.Body)
	return nil
}

// readAttempt reads the n-th attempt, whose attemptColumns begin at a column. Its heads are as they are kept.
func (s *Store) readAttempt(q *query, column, n int, code string) (outbox.Attempt, error) {
	a, err := s.readLean(q, column, n, code)
	a.Request, a.Head, a.Body = q.stmt.ColumnText(column+10), q.stmt.ColumnText(column+11), q.stmt.ColumnBlob(column+12, nil)
	return a, err
}

// readLean reads an attempt's leanColumns.
func (s *Store) readLean(q *query, column, n int, code string) (outbox.Attempt, error) {
	micros := func(i int) time.Duration {
		return time.Duration(q.stmt.ColumnInt64(column+i)) * time.Microsecond
	}
	a := outbox.Attempt{
		N:       n,
		Started: fromMicros(q.stmt.ColumnInt64(column)),
		Took:    micros(1),
		Timing:  outbox.Timing{DNS: micros(2), Connect: micros(3), TLS: micros(4), FirstByte: micros(5)},
		Status:  q.stmt.ColumnInt(column + 6),
		Outcome: longOutcome(q.stmt.ColumnText(column + 7)),
		Code:    code,
		Error:   q.stmt.ColumnText(column + 8),
	}
	return a, s.readAttemptMore(q.stmt.ColumnRawBlob(column+9), &a)
}

// attemptID is the row of a delivery's n-th attempt. All of a delivery's attempts
// lie side by side, and those of an event's deliveries too.
func attemptID(seq int64, n int) int64 { return seq<<16 | int64(min(n, maxAttempts)) }
