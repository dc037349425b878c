package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
	"relay/outbox/brief"
)

// Lookup implements outbox.Reader.
func (s *Store) Lookup(ctx context.Context, eventID string) (*outbox.Record, error) {
	var record *outbox.Record
	var failed error
	err := s.do(ctx, func() error {
		record, failed = s.lookup(eventID)
		return nil // a record that cannot be read breaks nothing else
	})
	if err != nil {
		return nil, err
	}
	return record, failed
}

func (s *Store) lookup(eventID string) (*outbox.Record, error) {
	r, err := s.readRecord(s.db.findEvent.text(eventID), 0)
	if err == nil && r == nil {
		return nil, fmt.Errorf("event %s: %w", eventID, outbox.ErrNotFound)
	}
	return r, err
}

// readRecord reads an event with its deliveries, or with one of them; nil when there is no such event.
func (s *Store) readRecord(q *query, only int64) (*outbox.Record, error) {
	r, number, parts, err := s.readParts(q)
	if err != nil {
		return nil, s.db.explain(err)
	}
	for _, p := range parts {
		if only > 0 && p.seq != only {
			continue
		}
		d, found, err := s.readDelivery(p, number)
		if err != nil {
			return nil, s.db.explain(err)
		}
		if found {
			d.EventID = r.Event.ID
			unpackHeads(&d)
			r.Deliveries = append(r.Deliveries, d)
		}
	}
	return r, nil
}

// unpackHeads makes the heads of attempts what they were.
func unpackHeads(d *outbox.DeliveryRecord) {
	for i := range d.Attempts {
		a := &d.Attempts[i]
		f := brief.Facts{Event: d.EventID, Delivery: d.ID, Attempt: a.N, Started: a.Started}
		a.Request, a.Head = f.Unpack(a.Request), f.Unpack(a.Head)
	}
}

// part is a delivery of an event.
type part struct {
	seq, created, origin int64
	endpoint             *endpoint
	manual, target       bool
}

// readParts reads an event, and which deliveries it had.
func (s *Store) readParts(q *query) (r *outbox.Record, number int64, parts []part, err error) {
	var accepted, first int64
	var targets []*endpoint
	if q.step() {
		number, accepted, first = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2)
		r = &outbox.Record{Accepted: s.clock.Wall(accepted)}
		if erased := q.stmt.ColumnInt64(4); erased > 0 {
			r.Erased = s.clock.Wall(erased)
		}
		targets, err = s.endpointsOf(q.stmt.ColumnRawBlob(3))
		err = errors.Join(err, s.readEvent(q, 5, &r.Event))
	}
	if err = errors.Join(err, q.done()); err != nil {
		return nil, 0, nil, fmt.Errorf("select event: %w", err)
	}
	if r == nil {
		return nil, 0, nil, nil
	}
	for i, ep := range targets {
		parts = append(parts, part{seq: first + int64(i), created: accepted, endpoint: ep, target: true})
	}
	q = s.db.manualOf.int(number)
	for q.step() {
		seq := q.stmt.ColumnInt64(0)
		if i := seq - first; i >= 0 && i < int64(len(targets)) {
			parts[i].manual = true
			continue
		}
		ep, known := s.endpointAt(q.stmt.ColumnInt64(1))
		if !known {
			return nil, 0, nil, errors.Join(fmt.Errorf("select redeliveries: %w", sqlite3.CORRUPT), q.done())
		}
		parts = append(parts, part{seq: seq, created: q.stmt.ColumnInt64(2), origin: q.stmt.ColumnInt64(3), endpoint: ep, manual: true})
	}
	if err := q.done(); err != nil {
		return nil, 0, nil, fmt.Errorf("select redeliveries: %w", err)
	}
	return r, number, parts, nil
}

// endpointAt returns the endpoint of a row.
func (s *Store) endpointAt(id int64) (ep *endpoint, known bool) {
	if id < 1 || id > int64(len(s.known)) {
		return nil, false
	}
	return s.known[id-1], true
}

// readDelivery reads a delivery with its attempts. It is not found when retention took it.
func (s *Store) readDelivery(p part, number int64) (d outbox.DeliveryRecord, found bool, err error) {
	created := s.clock.Wall(p.created)
	d.Delivery = outbox.Delivery{
		ID: deliveryID(s.meta.prefix, p.seq), Endpoint: p.endpoint.name,
		State: outbox.Pending, Due: created, Created: created, Manual: p.manual,
	}
	if p.origin > 0 {
		d.Origin = deliveryID(s.meta.prefix, p.origin)
	}
	q := s.db.attempts.int(attemptID(p.seq, 0)).int(attemptID(p.seq, maxAttempts))
	for q.step() {
		n, code := int(q.stmt.ColumnInt64(0)&maxAttempts), q.stmt.ColumnText(2)
		a, wrong := s.readAttempt(q, 3, n, code)
		err = errors.Join(err, wrong)
		d.Delivery.Attempts, d.Code, d.Due = n, code, s.clock.Wall(q.stmt.ColumnInt64(1))
		d.Attempts = append(d.Attempts, a)
	}
	if err = errors.Join(err, q.done()); err != nil {
		return d, false, fmt.Errorf("select attempts: %w", err)
	}
	if found, err = s.readEnd(p.seq, &d); found || err != nil {
		return d, found, err
	}
	q = s.db.pendings.int(p.seq).int(p.seq)
	if q.step() {
		found = true
		d.Due = s.clock.Wall(q.stmt.ColumnInt64(1))
	}
	if err := q.done(); err != nil {
		return d, false, fmt.Errorf("select pending delivery: %w", err)
	}
	return d, found || p.target && number > s.meta.watermark, nil
}

// readEnd reads whether and how a delivery ended.
func (s *Store) readEnd(seq int64, d *outbox.DeliveryRecord) (found bool, err error) {
	q := s.db.ends.int(seq).int(seq)
	if q.step() {
		found = true
		d.State = states[q.stmt.ColumnInt64(1)]
		d.Delivery.Attempts, d.Code = q.stmt.ColumnInt(2), q.stmt.ColumnText(4)
		d.Finished = s.clock.Wall(q.stmt.ColumnInt64(3))
		if q.stmt.ColumnType(5) != sqlite3.NULL {
			var last outbox.Attempt
			last, err = s.readAttempt(q, 5, d.Delivery.Attempts, d.Code)
			d.Attempts = append(d.Attempts, last)
		} else {
			d.Error = q.stmt.ColumnText(13)
		}
	}
	if err = errors.Join(err, q.done()); err != nil {
		return false, fmt.Errorf("select end of a delivery: %w", err)
	}
	return found, nil
}

// countsSlice is how many endpoints are counted in one go, so that ten thousand of
// them keep nobody waiting.
const countsSlice = 250

// Counts implements outbox.Store. Each endpoint's counts are those of one commit.
func (s *Store) Counts(ctx context.Context) (map[string]outbox.Counts, error) {
	all := map[string]outbox.Counts{}
	for from, more := 0, true; more; from += countsSlice {
		var slice map[string]outbox.Counts
		var failed error
		err := s.do(ctx, func() error {
			upto := min(from+countsSlice, len(s.known))
			more = upto < len(s.known)
			slice, failed = s.countSlice(s.known[from:upto])
			return nil
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, slice)
	}
	return all, nil
}

func (s *Store) countSlice(endpoints []*endpoint) (map[string]outbox.Counts, error) {
	bare := map[*endpoint]int64{} // creation of the oldest delivery without a row
	for _, e := range slices.Backward(s.bare) {
		if e.event != nil {
			bare[e.endpoint] = e.created
		}
	}
	slice := map[string]outbox.Counts{}
	for _, ep := range endpoints {
		c := outbox.Counts{
			Accepted:  ep.counts.accepted,
			Pending:   ep.counts.pending(),
			Delivered: ep.counts.delivered,
			Failed:    ep.counts.failed,
			Discarded: ep.counts.discarded,
		}
		if c.Pending > 0 {
			oldest, err := s.oldest(ep)
			if err != nil {
				return nil, s.db.explain(err)
			}
			if created, ok := bare[ep]; ok {
				oldest = min(oldest, created)
			}
			c.Oldest = s.clock.Wall(oldest)
		}
		slice[ep.name] = c
	}
	return slice, nil
}

// oldest is the creation of the endpoint's oldest pending delivery that has a row. Fresh ones are
// sought among those that are due before the oldest retry was made: no retries are there to
// be passed, because they are due later than that.
func (s *Store) oldest(ep *endpoint) (int64, error) {
	retried, err := s.db.oldestRetried.int(ep.id).number() // 0 for none
	if err != nil {
		return 0, fmt.Errorf("select oldest retry: %w", err)
	}
	retried = cmp.Or(retried, never)
	fresh, err := s.db.oldestFresh.int(ep.id).int(retried).number()
	if err != nil {
		return 0, fmt.Errorf("select oldest delivery: %w", err)
	}
	return cmp.Or(fresh, retried), nil
}

// Health implements outbox.Store.
func (s *Store) Health(ctx context.Context) error {
	var full error
	err := s.do(ctx, func() error {
		if err := s.measure(); err != nil {
			return err
		}
		full = s.full
		return nil
	})
	if err != nil {
		return err
	}
	return full
}

// Fill implements outbox.Store. A disk that is nearly full counts as full.
func (s *Store) Fill(ctx context.Context) (float64, error) {
	var fill float64
	err := s.do(ctx, func() error {
		if err := s.measure(); err != nil {
			return err
		}
		most := s.maxSize - s.maxSize/16
		fill = float64(most-s.room) / float64(most)
		if s.full != nil {
			fill = max(fill, 1)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return fill, nil
}

// Broken implements outbox.Store.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Durability implements outbox.Store: Fsync or Relaxed.
func (s *Store) Durability() string { return s.level }
