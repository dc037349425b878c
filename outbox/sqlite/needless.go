package sqlite

import (
	"fmt"
	"slices"
	"strings"

	"relay/outbox"
)

// target is the endpoint that gets a redelivery. It has no id yet if it is new.
func (s *Store) target(old *entry, c outbox.Change) *endpoint {
	if c.Endpoint == "" {
		return old.endpoint
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoint(c.Endpoint)
}

// needless tells whether another delivery of the event makes a redelivery needless: the newest that does.
func (e *edits) needless(old *stored, c outbox.Change) (refusal, err error) {
	s, ep := e.s, e.s.target(&old.entry, c)
	after := int64(0) // a delivery with a greater number counts as made later
	if ep == old.endpoint {
		after = old.seq
	}
	if c.Unless == outbox.UnlessNothing || ep.id == 0 || !s.meta.manual && after > 0 {
		return nil, nil
	}
	others, err := s.others(old.number, ep, c.Once)
	for _, o := range others {
		if o.sameWork {
			return outbox.ErrRepeat, nil
		}
		if o.seq == old.seq {
			continue
		}
		d, err := s.find(o.seq)
		switch {
		case err != nil:
			return nil, err
		case d == nil: // retention took it
		case d.state == outbox.Pending:
			return outbox.ErrOnItsWay, nil
		case d.state == outbox.Delivered && c.Unless == outbox.UnlessDelivered && d.seq > after:
			return outbox.ErrDelivered, nil
		}
	}
	return nil, err
}

// other is a delivery of an event.
type other struct {
	seq      int64
	sameWork bool // as a change with a Once
}

// others are the deliveries of an event to an endpoint, newest first.
func (s *Store) others(number int64, ep *endpoint, once string) (all []other, err error) {
	work, _, ofWork := strings.Cut(once, ".")
	q := s.db.repeats.int(number).int(ep.id)
	for q.step() {
		o := other{seq: q.stmt.ColumnInt64(0)}
		o.sameWork = ofWork && strings.HasPrefix(q.stmt.ColumnText(1), work+".")
		all = append(all, o)
	}
	if err := q.done(); err != nil {
		return nil, fmt.Errorf("select redeliveries: %w", err)
	}
	var first int64
	var targets []*endpoint
	q = s.db.targets.int(0).int(number)
	if q.step() {
		first = q.stmt.ColumnInt64(1)
		targets, err = s.endpointsOf(q.stmt.ColumnRawBlob(2))
	}
	if err := q.done(); err != nil {
		return nil, fmt.Errorf("select endpoints of an event: %w", err)
	}
	if i := slices.Index(targets, ep); i >= 0 && !slices.Contains(all, other{seq: first + int64(i)}) {
		all = append(all, other{seq: first + int64(i)})
	}
	return all, err
}
