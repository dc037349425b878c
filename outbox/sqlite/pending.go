package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// A fresh delivery that is in memory has no row: that it is pending follows from its event.
// ../DESIGN.md tells which deliveries get one, and how the watermark bounds what Open
// looks for.

const (
	raiseAfter  = time.Second // a delivery that is in memory for longer gets a row
	raiseSlice  = 512         // deliveries that get one in a commit
	refillSlice = 256         // deliveries that a refill loads, so that it delays no accept for long
)

// appendTarget adds an endpoint to the targets of an event.
func appendTarget(targets []byte, ep *endpoint) []byte {
	return binary.AppendUvarint(targets, uint64(ep.id))
}

// countTargets is how many deliveries an event has.
func countTargets(targets []byte) (n int) {
	for _, b := range targets {
		if b < 0x80 { // the last byte of a uvarint
			n++
		}
	}
	return n
}

// endpointsOf returns the endpoints of an event's deliveries.
func (s *Store) endpointsOf(targets []byte) ([]*endpoint, error) {
	list := make([]*endpoint, 0, len(targets))
	for len(targets) > 0 {
		id, n := binary.Uvarint(targets)
		if n <= 0 || id == 0 || id > uint64(len(s.known)) {
			return nil, fmt.Errorf("targets of an event: %w", sqlite3.CORRUPT)
		}
		list, targets = append(list, s.known[id-1]), targets[n:]
	}
	return list, nil
}

// hasRow tells whether a delivery has a row: it is over, or pending.
func (s *Store) hasRow(seq int64) (bool, error) {
	n, err := s.db.hasRow.int(seq).number()
	if err != nil {
		return false, fmt.Errorf("select delivery: %w", err)
	}
	return n > 0, nil
}

// addPending writes a delivery's row in the transaction under way.
func (s *Store) addPending(e *entry, due int64, attempts int, code string) error {
	if err := s.db.addPending.int(e.endpoint.id).int(due).int(e.seq).int(e.number).int(int64(attempts)).text(code).exec(); err != nil {
		return fmt.Errorf("insert pending delivery: %w", err)
	}
	return nil
}

// dropPending removes a delivery's row, if it has one.
func (s *Store) dropPending(e *entry) error {
	if !e.row {
		return nil
	}
	if err := s.db.dropPending.int(e.endpoint.id).int(e.due).int(e.seq).exec(); err != nil {
		return fmt.Errorf("delete pending delivery: %w", err)
	}
	return nil
}

// recoverRows gives a row to all that a process before had in memory only, and raises the epoch.
func (s *Store) recoverRows() error {
	return s.db.transact("FULL", func() error {
		q := s.db.unmarked.int(s.meta.watermark)
		for q.step() {
			s.meta.watermark = q.stmt.ColumnInt64(0)
			accepted, first := q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2)
			targets, err := s.endpointsOf(q.stmt.ColumnRawBlob(3))
			if err != nil {
				return err
			}
			for i, ep := range targets {
				e := &entry{seq: first + int64(i), number: s.meta.watermark, endpoint: ep}
				if known, err := s.hasRow(e.seq); err != nil {
					return err
				} else if known {
					continue
				}
				if err := s.addPending(e, accepted, 0, ""); err != nil {
					return err
				}
			}
		}
		if err := q.done(); err != nil {
			return fmt.Errorf("select events above the watermark: %w", err)
		}
		s.meta.epoch++
		return s.db.writeMeta(s.meta, s.clock.State())
	})
}

// rise is what a transaction makes of the deliveries without a row.
type rise struct {
	rows      int   // so many of the oldest have one now, or are over
	watermark int64 // of the file
	more      bool  // the limit was met
}

// raise gives rows to at most limit deliveries that are in memory since before the time given, and
// raises the watermark, in the transaction under way. It comes before all else of the
// transaction, whose settlements remove such rows. Once it is committed, rose must follow.
func (s *Store) raise(before int64, limit int) (r rise, err error) {
	r.watermark = s.meta.nextEvent - 1
	for written := 0; r.rows < len(s.bare); r.rows++ {
		e := s.bare[r.rows]
		if e.event == nil {
			continue
		}
		if r.more = written == limit; r.more || e.created > before {
			r.watermark = e.number - 1
			break
		}
		if err := s.addPending(e, e.due, 0, ""); err != nil {
			return r, err
		}
		e.row = true // should the transaction fail, there is one less to remove, which is no error
		written++
	}
	m := s.meta
	m.watermark = r.watermark
	return r, s.db.writeMeta(m, s.clock.State())
}

// rose notes what raise has written.
func (s *Store) rose(r rise) {
	for _, e := range s.bare[:r.rows] {
		if e.event != nil {
			s.loaded[e.seq] = e
		}
	}
	if s.bare = s.bare[r.rows:]; len(s.bare) == 0 {
		s.bare = nil
	}
	s.meta.watermark = r.watermark
	if !r.more {
		s.raised = s.clock.Now()
	}
}

// raiseAt is when raise has something to do, never for nothing.
func (s *Store) raiseAt() int64 {
	if s.meta.watermark == s.meta.nextEvent-1 {
		return never
	}
	since := s.raised
	if len(s.bare) > 0 && s.bare[0].number == s.meta.watermark+1 {
		since = max(since, s.bare[0].created)
	}
	return since + s.raiseAfter.Microseconds()
}

// place decides whether a fresh delivery goes to memory, where it needs no row, or to the disk
// only. What was accepted before and is on disk only is not overtaken, but by the express
// lane.
func (s *Store) place(e *entry) {
	c := s.count(e.endpoint)
	switch {
	case s.spare > 0 && c.lane > 0:
		c.lane--
		e.lane = true
	case s.spare > 0 && c.room > 0:
		c.room--
	default:
		c.room = 0
		e.row = true
		return
	}
	s.spare -= e.weight()
}

// refill loads deliveries of an endpoint that are due and only on disk. Only the
// owner calls it, when all that was settled is committed or still among the loaded: so
// a row that it finds is nobody's.
func (s *Store) refill(ep *endpoint) error {
	s.mu.Lock()
	ep.asked = false
	most, least, spare := min(queueLength-len(ep.ready), refillSlice), 0, queueBytes-s.bytes
	if ep.wait.ready != nil {
		most, least = max(most, ep.wait.most), 1
	}
	from := ep.nextDue
	s.mu.Unlock()

	now, nextDue := s.clock.Now(), int64(never)
	var loaded []*entry
	q := s.db.due.int(ep.id).int(from)
	for q.step() {
		seq, due := q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
		if _, ok := s.loaded[seq]; ok {
			continue
		}
		if due > now || len(loaded) >= most || spare <= 0 && len(loaded) >= least {
			nextDue = due
			break
		}
		e := &entry{
			seq:      seq,
			number:   q.stmt.ColumnInt64(2),
			endpoint: ep,
			due:      due,
			attempts: q.stmt.ColumnInt(3),
			code:     q.stmt.ColumnText(4),
			created:  q.stmt.ColumnInt64(5),
			manual:   q.stmt.ColumnType(6) != sqlite3.NULL,
			origin:   q.stmt.ColumnInt64(6),
			event:    new(outbox.Event),
			row:      true,
		}
		if err := s.readEvent(q, 7, e.event); err != nil {
			return errors.Join(err, q.done())
		}
		spare -= e.weight()
		s.loaded[seq] = e
		loaded = append(loaded, e)
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select pending deliveries: %w", err)
	}

	s.mu.Lock()
	defer s.unlock()
	s.setDue(ep, nextDue)
	for _, e := range loaded {
		s.put(e)
	}
	s.serve(ep)
	return nil
}

// readEvent reads an event whose columns begin at one.
func (s *Store) readEvent(q *query, column int, e *outbox.Event) error {
	*e = outbox.Event{
		ID:     q.stmt.ColumnText(column),
		Type:   q.stmt.ColumnText(column + 1),
		Time:   fromMicros(q.stmt.ColumnInt64(column + 2)),
		Tenant: q.stmt.ColumnText(column + 3),
		Key:    q.stmt.ColumnText(column + 4),
		Trace:  q.stmt.ColumnText(column + 5),
		Data:   q.stmt.ColumnBlob(column+7, nil),
	}
	return s.readEventMore(q.stmt.ColumnRawBlob(column+6), e)
}
