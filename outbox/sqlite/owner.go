package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// call is something else that the owner has to do. An error that run returns
// breaks the store; what concerns the caller alone it keeps in its closure.
type call struct {
	run  func() error
	err  error // valid once done is closed
	done chan struct{}
}

// answer ends the call, unless it has ended.
func (c *call) answer(err error) {
	select {
	case <-c.done:
	default:
		c.err = err
		close(c.done)
	}
}

// do lets the owner run a function, after it has committed all that was settled
// before.
func (s *Store) do(ctx context.Context, run func() error) error {
	c := &call{run: run, done: make(chan struct{})}
	s.mu.Lock()
	if s.refusal != nil {
		defer s.mu.Unlock()
		return s.refusal
	}
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	s.nudge()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nudge wakes the owner, or keeps it from falling asleep.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the owner: the one goroutine that uses the database. While it commits, the
// next group gathers.
func (s *Store) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-timer.C:
		}
		if s.woke != nil {
			s.woke()
		}
		s.gather()
		g := s.take()
		if err := s.work(g); err != nil {
			s.fail(err, g)
			break
		}
		if s.finished() {
			break
		}
		timer.Reset(s.sleep())
	}
	<-s.stop
	s.closeErr = s.shut()
}

// work does all that a group asks for. After an error nobody knows what the disk
// holds.
func (s *Store) work(g group) error {
	began := time.Now()
	if err := s.commit(g); err != nil {
		return err
	}
	long := slice(time.Since(began), len(g.accepts)+len(g.settles) > 0, len(g.calls))
	s.mu.Lock()
	s.tick()
	s.sweep()
	s.unlock()
	if err := s.heedClock(); err != nil {
		return err
	}
	for _, ep := range g.refills {
		if err := s.refill(ep); err != nil {
			return err
		}
	}
	for _, c := range g.calls {
		s.until = time.Now().Add(long)
		if err := c.run(); err != nil {
			return err
		}
		c.answer(nil)
	}
	if err := s.chores(); err != nil {
		return err
	}
	return s.tend()
}

// tend does what can wait: checkpoints, and a new ballast when there is room again.
func (s *Store) tend() error {
	s.restoreBallast()
	if !s.checkpointDue() {
		return nil
	}
	mode := sqlite3.CheckpointMode(sqlite3.CHECKPOINT_PASSIVE)
	if s.scrub {
		mode = sqlite3.CHECKPOINT_TRUNCATE
	}
	err := s.db.checkpoint(mode)
	if err == nil {
		s.scrub = false
	}
	if isFull(err) {
		return s.makeRoom()
	}
	return err
}

// checkpointDue tells whether to copy the write-ahead log into the file: when it
// is long, at the next chance; when it is too long, or everything rests, now.
func (s *Store) checkpointDue() bool {
	now := time.Now()
	if s.db.wal == 0 || now.Before(s.stalled) {
		return false
	}
	s.mu.Lock()
	idle := len(s.accepts)+len(s.settles)+len(s.writes)+len(s.calls) == 0
	s.mu.Unlock()
	return s.db.wal >= walLong && idle || s.db.wal >= walTooLong || idle && now.Sub(s.db.written) >= calm
}

// sleep is how long the owner has nothing to do, if nobody wakes it. It is never long: the
// wall clock may be set while it sleeps.
func (s *Store) sleep() time.Duration {
	limit := time.Until(s.swept.Add(sweepEvery))
	if wait := time.Until(s.stalled); wait > 0 {
		limit = wait
	} else if s.db.wal > 0 {
		limit = time.Until(s.db.written.Add(calm))
	}
	if !s.disk.hasBallast {
		limit = min(limit, time.Until(s.disk.retry))
	}
	if at := s.choresAt(time.Now()); !at.IsZero() {
		limit = min(limit, max(time.Until(at), 0))
	}
	if at := s.raiseAt(); at != never && !time.Now().Before(s.stalled) {
		limit = min(limit, time.Until(s.clock.Moment(at)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arm(limit)
}

// heedClock tells that the wall clock was set, and keeps by how much: after a restart the
// outbox's own time is found from the wall clock again.
func (s *Store) heedClock() error {
	step := s.clock.Step()
	if step == 0 {
		return nil
	}
	s.log.Warn().Str("code", "clock_stepped").Dur("step", step).
		Msg("the machine's clock was set: due times and retention go on as if it had not been")
	if err := s.keepClock(); !isFull(err) {
		return err
	}
	return nil // the next reap keeps it
}

// keepClock writes down the outbox's time.
func (s *Store) keepClock() error {
	return s.db.transact("NORMAL", func() error { return s.db.writeMeta(s.meta, s.clock.State()) })
}

// finished tells whether the store was closed and has answered everybody. What the
// disk has no room for is left: those attempts are repeated.
func (s *Store) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled := len(s.settles) == 0 || time.Now().Before(s.stalled)
	return s.refusal != nil && len(s.accepts)+len(s.writes)+len(s.calls) == 0 && settled
}

// fail ends the store after an error that leaves unknown what is on the disk.
// Nothing is tried again: a second fsync would succeed and prove nothing.
func (s *Store) fail(cause error, g group) {
	err := fmt.Errorf("%w: %w", outbox.ErrUnavailable, s.db.explain(cause))
	s.mu.Lock()
	if s.refusal != nil {
		s.late = err
	}
	s.refusal = cmp.Or(s.refusal, err)
	g.accepts = append(g.accepts, s.accepts...)
	g.changes = append(g.changes, s.writes...)
	g.calls = append(g.calls, s.calls...)
	s.accepts, s.writes, s.calls, s.settles = nil, nil, nil, nil
	s.callAll()
	s.mu.Unlock()
	close(s.broken)
	for _, a := range g.accepts {
		a.answer(err)
	}
	for _, c := range g.changes {
		c.answer(err)
	}
	for _, c := range g.calls {
		c.answer(err)
	}
}

// refused is why calls are refused now.
func (s *Store) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}
