package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"relay/outbox"
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

func (s *Store) lookup(eventID string) (r *outbox.Record, err error) {
	var seq, accepted, first int64
	var targets []*endpoint
	q := s.db.findEvent.text(eventID)
	if q.step() {
		seq, accepted, first = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2)
		r = &outbox.Record{Event: readEvent(q, 4), Accepted: s.clock.Wall(accepted)}
		targets, err = s.endpointsOf(q.stmt.ColumnRawBlob(3))
	}
	if err = errors.Join(err, q.done()); err != nil {
		return nil, s.db.explain(fmt.Errorf("select event: %w", err))
	}
	if r == nil {
		return nil, fmt.Errorf("event %s: %w", eventID, outbox.ErrNotFound)
	}
	all := make([]outbox.DeliveryRecord, len(targets))
	for i, ep := range targets {
		all[i].Delivery = outbox.Delivery{
			ID: deliveryID(s.meta.prefix, first+int64(i)), EventID: eventID, Endpoint: ep.name,
			State: outbox.Pending, Due: r.Accepted, Created: r.Accepted,
		}
	}
	if err := errors.Join(s.readAttempts(all, first), s.readEnds(all, first)); err != nil {
		return nil, s.db.explain(err)
	}
	for i, d := range all {
		kept := d.State.Final() || len(d.Attempts) > 0 || seq > s.meta.watermark
		if !kept { // it has a row, or retention took it
			if kept, err = s.hasRow(first+int64(i), targets[i], accepted); err != nil {
				return nil, s.db.explain(err)
			}
		}
		if kept {
			r.Deliveries = append(r.Deliveries, d)
		}
	}
	return r, nil
}

// readAttempts reads the attempts of an event's deliveries, but for those that ended one.
func (s *Store) readAttempts(all []outbox.DeliveryRecord, first int64) error {
	q := s.db.attempts.int(attemptID(first, 0)).int(attemptID(first+int64(len(all))-1, maxAttempts))
	for q.step() {
		id := q.stmt.ColumnInt64(0)
		d := &all[id>>16-first]
		d.Delivery.Attempts, d.Code = int(id&maxAttempts), q.stmt.ColumnText(2)
		d.Due = s.clock.Wall(q.stmt.ColumnInt64(1))
		d.Attempts = append(d.Attempts, readAttempt(q, 3, d.Delivery.Attempts, d.Code))
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select attempts: %w", err)
	}
	return nil
}

// readEnds reads which of an event's deliveries are over.
func (s *Store) readEnds(all []outbox.DeliveryRecord, first int64) error {
	q := s.db.ends.int(first).int(first + int64(len(all)) - 1)
	for q.step() {
		d := &all[q.stmt.ColumnInt64(0)-first]
		d.State = states[q.stmt.ColumnInt64(1)]
		d.Delivery.Attempts, d.Code = q.stmt.ColumnInt(2), q.stmt.ColumnText(4)
		d.Finished = s.clock.Wall(q.stmt.ColumnInt64(3))
		last := readAttempt(q, 5, d.Delivery.Attempts, d.Code)
		if last.N > 0 {
			d.Attempts = append(d.Attempts, last)
		} else {
			d.Error = last.Error
		}
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select ends of deliveries: %w", err)
	}
	return nil
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
func (s *Store) Fill(ctx context.Context) (fill float64, err error) {
	err = s.do(ctx, func() error {
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
	return fill, err
}

// Broken implements outbox.Store.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Durability implements outbox.Store: Fsync or Relaxed.
func (s *Store) Durability() string { return s.level }
