package sqlite

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

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
	gatherYields = 3
)

// gather lets goroutines that are about to call Accept do so first, while there are many of them: a
// commit costs as much as some 10 events. It only yields, as long as that brings more of them, so on
// a machine with time to spare it returns at once.
func (s *Store) gather() {
	if s.grouped < gatherFrom {
		return
	}
	before := -1
	for range gatherYields {
		s.mu.Lock()
		n := len(s.accepts)
		s.mu.Unlock()
		if n <= before {
			return
		}
		before = n
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
	slices.SortFunc(g.settles, func(a, b *settle) int { return cmp.Compare(a.entry.seq, b.entry.seq) }) // as their rows lie in the file
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
