package sqlite

import (
	"errors"
	"fmt"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// read reads a delivery, if it is there and matches. A delivery that is not there tells where the
// next one is.
func (w *walk) read(seq int64) (item *outbox.Item, matches bool, err error) {
	w.rows++
	item = &outbox.Item{}
	number, found, err := w.readDone(seq, item)
	if err != nil {
		return nil, false, err
	}
	if !found {
		if !w.states.pending || w.only == nil && !w.pending.has(uint64(seq&(segmentSize-1))) {
			return nil, false, nil
		}
		if number, found, err = w.readPending(seq, item); !found || err != nil {
			return nil, false, err
		}
	}
	if !w.ends.Match(item) {
		return nil, false, nil
	}
	if !w.event || w.sure {
		return item, true, nil
	}
	if err := w.s.fillItem(item, seq, number); err != nil {
		return nil, false, err
	}
	return item, w.filter.Match(item), nil
}

// readDone reads a delivery that is over. When it is not, deliveries are passed over that are not there either.
func (w *walk) readDone(seq int64, item *outbox.Item) (number int64, found bool, err error) {
	base := seq &^ (segmentSize - 1)
	var q *query
	at := base - 1 // of the next one
	if w.oldest {
		q, at = w.s.db.doneAbove.int(seq).int(base+segmentSize-1), base+segmentSize
	} else {
		q = w.s.db.doneBelow.int(seq).int(base)
	}
	if q.step() {
		at = q.stmt.ColumnInt64(0)
	}
	if found = at == seq; found {
		number = q.stmt.ColumnInt64(1)
		err = w.s.readDoneItem(q, seq, item)
	} else if w.only == nil {
		w.skip(seq, at)
	}
	if err = errors.Join(err, q.done()); err != nil {
		return 0, false, fmt.Errorf("select end of a delivery: %w", err)
	}
	if found && item.Last == nil && item.Attempts > 0 {
		if item.Last, err = w.s.readLast(seq, item.Attempts); item.Last != nil {
			item.Error = item.Last.Error
		}
	}
	return number, found, err
}

// skip passes over deliveries between two that are neither over nor pending.
func (w *walk) skip(seq, at int64) {
	base := seq &^ (segmentSize - 1)
	gone := w.pending
	between := bitmap{}
	for i := range between {
		between[i] = ^uint64(0)
	}
	if w.oldest {
		between.keep(seq-base, at-base-1)
	} else {
		between.keep(at-base+1, seq-base)
	}
	for i := range w.set {
		w.set[i] &= ^between[i] | gone[i]
	}
}

// readDoneItem fills in what the end of a delivery tells.
func (s *Store) readDoneItem(q *query, seq int64, item *outbox.Item) error {
	ep, known := s.endpointAt(q.stmt.ColumnInt64(2))
	state := q.stmt.ColumnInt64(3)
	if !known || state < 1 || state >= int64(len(states)) {
		return sqlite3.CORRUPT
	}
	item.Delivery = outbox.Delivery{
		ID: deliveryID(s.meta.prefix, seq), Endpoint: ep.name, State: states[state], Attempts: q.stmt.ColumnInt(4),
		Finished: s.clock.Wall(q.stmt.ColumnInt64(5)), Code: q.stmt.ColumnText(6),
	}
	if q.stmt.ColumnType(7) == sqlite3.NULL {
		item.Error = q.stmt.ColumnText(7 + 8)
		return nil
	}
	last, err := s.readLean(q, 7, item.Attempts, item.Code)
	item.Last, item.Error = &last, last.Error
	return err
}

// readLast reads the last attempt of a delivery whose end has none.
func (s *Store) readLast(seq int64, n int) (last *outbox.Attempt, err error) {
	q := s.db.lastAttempt.int(attemptID(seq, n))
	if q.step() {
		var a outbox.Attempt
		a, err = s.readLean(q, 1, n, q.stmt.ColumnText(0))
		last = &a
	}
	if err = errors.Join(err, q.done()); err != nil {
		return nil, fmt.Errorf("select last attempt: %w", err)
	}
	return last, nil
}

// readPending reads a pending delivery.
func (w *walk) readPending(seq int64, item *outbox.Item) (number int64, found bool, err error) {
	s := w.s
	item.Delivery = outbox.Delivery{ID: deliveryID(s.meta.prefix, seq), State: outbox.Pending}
	q := s.db.pendingAt.int(seq)
	if found = q.step(); found {
		ep, known := s.endpointAt(q.stmt.ColumnInt64(0))
		if !known {
			return 0, false, errors.Join(sqlite3.CORRUPT, q.done())
		}
		item.Endpoint, item.Due, number = ep.name, s.clock.Wall(q.stmt.ColumnInt64(1)), q.stmt.ColumnInt64(2)
		item.Attempts, item.Code = q.stmt.ColumnInt(3), q.stmt.ColumnText(4)
	}
	if err := q.done(); err != nil {
		return 0, false, fmt.Errorf("select pending delivery: %w", err)
	}
	if !found {
		e := s.findBare(seq)
		if e == nil {
			return 0, false, nil
		}
		item.Endpoint, item.Due, number = e.endpoint.name, s.clock.Wall(e.due), e.number
		return number, true, nil
	}
	if item.Attempts > 0 {
		if item.Last, err = s.readLast(seq, item.Attempts); item.Last != nil {
			item.Error = item.Last.Error
		}
	}
	return number, true, err
}

// fillItem fills in what the event of a delivery tells.
func (s *Store) fillItem(item *outbox.Item, seq, number int64) error {
	d := entry{seq: seq, number: number}
	erased, err := s.readHead(&d)
	if err != nil {
		return err
	}
	item.EventID, item.Type, item.Tenant, item.Key = d.event.ID, d.event.Type, d.event.Tenant, d.event.Key
	item.Time, item.Fields, item.Erased = d.event.Time, d.event.Fields, erased
	item.Created, item.Manual = s.clock.Wall(d.created), d.manual
	if d.origin > 0 {
		item.Origin = deliveryID(s.meta.prefix, d.origin)
	}
	if item.Due.IsZero() {
		item.Due = item.Created
	}
	if !s.meta.manual {
		return nil
	}
	later, err := s.db.resent.int(number).int(seq).text(item.Endpoint).number()
	if err != nil {
		return fmt.Errorf("select later redelivery: %w", err)
	}
	item.Resent = later > 0
	return nil
}

// eventRow is where an event's deliveries are.
type eventRow struct{ number, accepted, first, targets int64 }

// eventBefore finds the last event that was accepted before a time, by halving: the outbox's time never goes back.
func (s *Store) eventBefore(t time.Time) (eventRow, error) {
	var found eventRow
	low, high := int64(0), s.meta.nextEvent // the event is above low, or low; it is below high
	for low+1 < high {
		e, err := s.eventAtOrBelow((low + high) / 2)
		switch {
		case err != nil:
			return found, err
		case e.number == 0 || e.number <= low: // there is none in the lower half
			low = (low + high) / 2
		case s.clock.Wall(e.accepted).Before(t):
			found, low = e, (low+high)/2
		default:
			high = e.number
		}
	}
	return found, nil
}

func (s *Store) eventAtOrBelow(number int64) (e eventRow, err error) {
	return readEventRow(s.db.eventBelow.int(number))
}

// eventAfter is the next event after one.
func (s *Store) eventAfter(number int64) (eventRow, error) {
	return readEventRow(s.db.eventAbove.int(number))
}

func readEventRow(q *query) (e eventRow, err error) {
	if q.step() {
		e = eventRow{q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2), int64(countTargets(q.stmt.ColumnRawBlob(3)))}
	}
	if err := q.done(); err != nil {
		return e, fmt.Errorf("select event: %w", err)
	}
	return e, nil
}
