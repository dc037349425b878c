package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// Bounds of one commit. Few events keep accepts from outrunning deliveries: settlements and refills
// come between them, and what is accepted finds room in memory.
const (
	groupEvents  = 128     // of batches; a larger batch goes alone
	groupBehind  = 64      // the same while queues want what is on disk, so that the backlog gets shorter
	groupBytes   = 4 << 20 // of batches, the same way
	groupRefills = 32      // endpoints whose backlogs are read before the next commit
)

// When a group gathers before it is taken.
const (
	gatherFrom   = 6 // batches that the group before had
	gatherYields = 2
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

// gather lets goroutines that are about to call Accept do so first, while there are many of them: a
// commit costs as much as some 10 events. It only yields, so on a machine with time to spare it
// returns at once.
func (s *Store) gather() {
	if s.grouped < gatherFrom {
		return
	}
	for range gatherYields {
		s.mu.Lock()
		n := len(s.accepts)
		s.mu.Unlock()
		if n >= s.grouped {
			return
		}
		runtime.Gosched()
	}
}

// group is what waits for the owner.
type group struct {
	accepts []*accept
	settles []*settle
	changes []*writing
	calls   []*call
	refills []*endpoint
}

// take takes the next group: all that waits, up to the bounds of a commit.
func (s *Store) take() group {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, events, size, most := 0, 0, int64(0), groupEvents
	if len(s.refills) > 0 {
		most = groupBehind
	}
	for n < len(s.accepts) && events < most && size < groupBytes {
		events += len(s.accepts[n].events)
		size += s.accepts[n].size
		n++
	}
	s.grouped = n
	g := group{accepts: slices.Clone(s.accepts[:n]), changes: s.writes, calls: s.calls}
	r := min(len(s.refills), groupRefills)
	g.refills, s.refills = s.refills[:r:r], s.refills[r:]
	if len(s.refills) > 0 {
		s.nudge()
	}
	s.accepts = slices.Delete(s.accepts, 0, n)
	s.calls, s.writes = nil, nil
	if !time.Now().Before(s.stalled) {
		g.settles, s.settles = s.settles, nil
	}
	if len(s.accepts) > 0 {
		s.nudge()
	}
	return g
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

// commit writes batches, settlements and changes in one transaction and answers them.
func (s *Store) commit(g group) error {
	g.accepts = s.refuseRemoved(g.accepts)
	raise := s.raiseAt() <= s.clock.Now() && !time.Now().Before(s.stalled)
	if len(g.accepts)+len(g.settles)+len(g.changes) == 0 {
		if !raise {
			return nil
		}
		defer func(since time.Time) { s.db.written = since }(s.db.written) // the log rests all the same
	}
	touched, err := s.apply(g, raise)
	var c *clash
	for errors.As(err, &c) {
		c.accept.answer(&outbox.ConflictError{Index: c.index, ID: c.accept.events[c.index].ID})
		g.accepts = slices.DeleteFunc(slices.Clone(g.accepts), func(a *accept) bool { return a == c.accept })
		touched, err = s.apply(g, raise)
	}
	if isFull(err) && raise { // which can wait
		s.raised = s.clock.Now()
		touched, err = s.apply(g, false)
	}
	if isFull(err) {
		for _, a := range g.accepts {
			a.answer(fmt.Errorf("%w: %w", outbox.ErrFull, err))
		}
		g.accepts = nil
		if err := s.makeRoom(); err != nil {
			return err
		}
		touched, err = s.apply(g, false)
	}
	if isFull(err) && len(g.changes) > 0 {
		for _, c := range g.changes {
			c.answer(fmt.Errorf("%w: %w", outbox.ErrUnavailable, err))
		}
		g.changes = nil
		touched, err = s.apply(g, false)
	}
	if isFull(err) { // even without the ballast: they stay in line
		s.stalled = time.Now().Add(retryFull)
		s.mu.Lock()
		s.settles = append(g.settles, s.settles...)
		s.halted = true
		s.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	s.publish(g, touched)
	return nil
}

// publish makes what was committed known: to the queues, then to the callers.
func (s *Store) publish(g group, touched []*endpoint) {
	s.mu.Lock()
	for _, st := range g.settles {
		e := st.entry
		if e.row {
			delete(s.loaded, e.seq)
		}
		if st.state == outbox.Pending {
			s.dueBy(e.endpoint, st.due)
		}
		e.event = nil
	}
	for _, a := range g.accepts {
		for _, e := range a.entries {
			if e.row {
				s.dueBy(e.endpoint, e.due)
			} else {
				s.put(e)
				s.bare = append(s.bare, e)
			}
		}
	}
	for _, a := range g.accepts {
		for _, m := range a.made {
			s.addToList(m)
		}
	}
	for _, c := range g.changes {
		if c.err == nil && c.then != nil {
			c.then()
		}
	}
	for _, ep := range touched {
		s.serve(ep)
	}
	if s.heard < s.meta.revision {
		s.heard = s.meta.revision
		close(s.noted)
		s.noted = make(chan struct{})
	}
	if s.halted && len(g.settles) > 0 {
		s.halted = false
		for _, ep := range s.endpoints {
			s.serve(ep)
		}
	}
	s.mu.Unlock()
	for range g.settles {
		<-s.slots
	}
	for _, a := range g.accepts {
		a.answer(a.err)
	}
	for _, c := range g.changes {
		c.answer(c.err)
	}
}

// apply runs the transaction of a group, which may raise the watermark, and returns the endpoints
// that it changed. After an error all is as it was.
func (s *Store) apply(g group, raise bool) (touched []*endpoint, err error) {
	sync := "NORMAL" // losing a settlement repeats an attempt; losing an accepted event is not forgiven
	if s.level == Fsync && len(g.accepts)+len(g.changes) > 0 {
		sync = "FULL"
	}
	s.mu.Lock()
	s.spare = queueBytes - s.bytes
	s.mu.Unlock()
	meta, known, named := s.meta, len(s.known), len(s.names.texts)
	s.now = s.clock.Now()
	s.stats.begin(s.hourNow())
	var r rise
	err = s.db.transact(sync, func() (err error) {
		if raise {
			if r, err = s.raise(s.clock.Now()-s.raiseAfter.Microseconds(), raiseSlice); err != nil {
				return err
			}
		}
		return s.write(g)
	})
	touched, s.touched = s.touched, nil
	for _, ep := range touched {
		if err == nil {
			ep.counts, ep.gone = ep.changed.counts, ep.gone.less(ep.changed.recorded)
		}
		ep.changed = nil
	}
	if err != nil {
		for _, ep := range s.known[known:] {
			ep.id = 0
		}
		s.meta, s.known = meta, s.known[:known]
		s.names.cut(named)
		s.putBack()
		return nil, err
	}
	s.stats.commit()
	s.letGo()
	if raise {
		s.rose(r)
	}
	return touched, nil
}

// write writes all of a group in the transaction under way.
func (s *Store) write(g group) error {
	if err := s.measure(); err != nil {
		return err
	}
	for _, st := range g.settles {
		if err := s.update(st); err != nil {
			return err
		}
	}
	for _, a := range g.accepts {
		if err := s.insert(a); err != nil {
			return err
		}
	}
	for _, c := range g.changes {
		if c.err = c.ctx.Err(); c.err != nil {
			continue
		}
		var err error
		if c.err, err = c.run(); err != nil {
			return err
		}
	}
	if err := s.writeTally(); err != nil {
		return err
	}
	for _, ep := range s.touched {
		c := ep.changed
		if err := s.db.setCounts.int(c.accepted).int(c.delivered).int(c.failed).int(c.discarded).int(ep.id).exec(); err != nil {
			return fmt.Errorf("update counts: %w", err)
		}
		if c.recorded == (counts{}) {
			continue
		}
		if err := s.countGone(map[*endpoint]counts{ep: counts{}.less(c.recorded)}); err != nil {
			return err
		}
	}
	return nil
}

// count returns what the transaction under way changes of the endpoint.
func (s *Store) count(ep *endpoint) *change {
	if ep.changed == nil {
		ep.changed = &change{counts: ep.counts}
		s.mu.Lock()
		ep.changed.room, ep.changed.lane = s.space(ep)
		s.mu.Unlock()
		s.touched = append(s.touched, ep)
	}
	return ep.changed
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
