package sqlite

import (
	"context"
	"fmt"
	"maps"
	"time"

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

func (s *Store) lookup(eventID string) (*outbox.Record, error) {
	var r *outbox.Record
	var first, count int64
	q := s.db.findEvent.text(eventID)
	if q.step() {
		r = &outbox.Record{
			Event: outbox.Event{
				ID:     eventID,
				Type:   q.stmt.ColumnText(0),
				Time:   fromMicros(q.stmt.ColumnInt64(1)),
				Tenant: q.stmt.ColumnText(2),
				Key:    q.stmt.ColumnText(3),
				Data:   q.stmt.ColumnBlob(7, nil),
			},
			Accepted: s.clock.Wall(q.stmt.ColumnInt64(4)),
		}
		first, count = q.stmt.ColumnInt64(5), q.stmt.ColumnInt64(6)
	}
	if err := q.done(); err != nil {
		return nil, s.db.explain(fmt.Errorf("select event: %w", err))
	}
	if r == nil {
		return nil, fmt.Errorf("event %s: %w", eventID, outbox.ErrNotFound)
	}
	if err := s.readDeliveries(r, first, first+count-1); err != nil {
		return nil, s.db.explain(err)
	}
	return r, nil
}

// readDeliveries adds an event's deliveries first to last, and their attempts.
func (s *Store) readDeliveries(r *outbox.Record, first, last int64) error {
	places := map[int64]int{}
	q := s.db.deliveries.int(first).int(last)
	for q.step() {
		seq := q.stmt.ColumnInt64(0)
		d := outbox.Delivery{
			ID:       deliveryID(s.meta.prefix, seq),
			EventID:  r.Event.ID,
			Endpoint: s.known[q.stmt.ColumnInt64(1)-1].name,
			State:    states[q.stmt.ColumnInt64(2)],
			Attempts: q.stmt.ColumnInt(3),
			Due:      r.Accepted,
			Created:  r.Accepted,
			Code:     q.stmt.ColumnText(6),
		}
		if due := q.stmt.ColumnInt64(4); due > 0 {
			d.Due = s.clock.Wall(due)
		}
		if d.State.Final() {
			d.Finished = s.clock.Wall(q.stmt.ColumnInt64(5))
		}
		places[seq] = len(r.Deliveries)
		r.Deliveries = append(r.Deliveries, outbox.DeliveryRecord{Delivery: d})
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select deliveries: %w", err)
	}

	q = s.db.attempts.int(attemptID(first, 0)).int(attemptID(last, maxAttempts))
	for q.step() {
		id, micros := q.stmt.ColumnInt64(0), func(column int) time.Duration {
			return time.Duration(q.stmt.ColumnInt64(column)) * time.Microsecond
		}
		d := &r.Deliveries[places[id>>16]]
		if id&maxAttempts == 0 {
			d.Error = q.stmt.ColumnText(10)
			continue
		}
		d.Attempts = append(d.Attempts, outbox.Attempt{
			N:       int(id & maxAttempts),
			Started: fromMicros(q.stmt.ColumnInt64(1)),
			Took:    micros(2),
			Timing:  outbox.Timing{DNS: micros(3), Connect: micros(4), TLS: micros(5), FirstByte: micros(6)},
			Status:  q.stmt.ColumnInt(7),
			Outcome: q.stmt.ColumnText(8),
			Code:    q.stmt.ColumnText(9),
			Error:   q.stmt.ColumnText(10),
			Head:    q.stmt.ColumnText(11),
			Body:    q.stmt.ColumnBlob(12, nil),
		})
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select attempts: %w", err)
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
			c.Oldest = oldest
		}
		slice[ep.name] = c
	}
	return slice, nil
}

// oldest is the creation of the endpoint's oldest pending delivery: the first by
// number, either of the fresh ones or of the others.
func (s *Store) oldest(ep *endpoint) (time.Time, error) {
	first, created := int64(never), int64(0)
	for _, q := range []*query{s.db.oldestFresh, s.db.oldestRetried} {
		if q.int(ep.id).step() && q.stmt.ColumnInt64(0) < first {
			first, created = q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
		}
		if err := q.done(); err != nil {
			return time.Time{}, fmt.Errorf("select oldest delivery: %w", err)
		}
	}
	return s.clock.Wall(created), nil
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
