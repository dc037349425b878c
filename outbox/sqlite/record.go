package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"relay/outbox"
)

// Record implements outbox.Editor.
func (s *Store) Record(ctx context.Context, e outbox.Event, name string, st outbox.Settlement) (string, error) {
	if !st.State.Final() {
		return "", fmt.Errorf("record an attempt as %q: its delivery must have ended", st.State)
	}
	e.Time = fromMicros(e.Time.UnixMicro())
	e.Data, st.Attempt.Body = slices.Clone(e.Data), slices.Clone(st.Attempt.Body)
	r := &record{s: s, event: &e, name: name, settlement: st}
	if err := s.change(ctx, writing{run: r.run, then: func() { s.addToList(r.made) }}); err != nil {
		return "", err
	}
	return r.id, nil
}

// record is an event with an attempt that was made outside the queue.
type record struct {
	s          *Store
	event      *outbox.Event
	name       string
	settlement outbox.Settlement

	id   string
	made madeEvent
}

// run writes it in the transaction under way.
func (r *record) run() (refusal, err error) {
	s, known := r.s, false
	q := s.db.knownEvent.text(r.event.ID)
	known = q.step()
	if err := q.done(); err != nil {
		return nil, fmt.Errorf("select event: %w", err)
	}
	size := sizeOf(outbox.Entry{Event: *r.event, Endpoints: []string{r.name}})
	switch {
	case known:
		return &outbox.ConflictError{ID: r.event.ID}, nil
	case s.full != nil || size > s.room:
		return cmp.Or(s.full, outbox.ErrFull), nil
	}
	s.room -= size
	s.mu.Lock()
	ep := s.endpoint(r.name)
	s.mu.Unlock()
	if ep.id == 0 {
		if err := s.addEndpoint(ep); err != nil {
			return nil, err
		}
	}
	d := &entry{seq: s.meta.nextDelivery, number: s.meta.nextEvent, endpoint: ep, event: r.event, created: s.now, manual: true}
	r.id, r.made = deliveryID(s.meta.prefix, d.seq), madeEvent{number: d.number, event: r.event, first: d.seq, targets: []*endpoint{ep}, manual: true}
	if err := s.addEvent(d.event, r.made.targets, outbox.Fingerprint{}, s.now); err != nil {
		return nil, err
	}
	s.meta.nextDelivery++
	s.meta.nextEvent++
	if err := s.addManual(d, ""); err != nil {
		return nil, err
	}
	s.count(ep).recorded.end(r.settlement.State)
	a := &r.settlement.Attempt
	return nil, s.addDone(d, end{state: r.settlement.State, attempts: 1, finished: s.now, code: a.Code, last: a})
}
