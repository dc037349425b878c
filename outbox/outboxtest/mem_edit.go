package outboxtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"relay/outbox"
)

// Edit implements outbox.Editor.
func (m *Mem) Edit(ctx context.Context, changes []outbox.Change) ([]outbox.Edited, error) {
	if len(changes) > outbox.MaxChanges {
		return nil, fmt.Errorf("edit %d deliveries at once: at most %d are possible", len(changes), outbox.MaxChanges)
	}
	done, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	all := make([]outbox.Edited, len(changes))
	for i, c := range changes {
		all[i] = m.edit(c)
	}
	return all, nil
}

func (m *Mem) edit(c outbox.Change) outbox.Edited {
	k := m.kept
	if c.Action == outbox.Erase {
		repeated, err := k.erase(c)
		return outbox.Edited{Repeated: repeated, Err: err}
	}
	edited := outbox.Edited{Delivery: c.Delivery}
	if c.Action == outbox.Redeliver {
		if made := k.onces[c.Once]; made != nil {
			return outbox.Edited{Delivery: made.ID, Repeated: true}
		}
	}
	d := k.deliveries[c.Delivery]
	if d == nil {
		edited.Err = outbox.ErrNotFound
		return edited
	}
	switch c.Action {
	case outbox.Redeliver:
		edited.Delivery, edited.Err = m.redeliver(d, c)
	case outbox.Retry:
		edited.Repeated, edited.Err = k.retry(d)
	case outbox.Discard:
		edited.Repeated, edited.Err = k.discard(d, c.Code)
	default:
		edited.Err = fmt.Errorf("%q is no action", c.Action)
	}
	return edited
}

func (m *Mem) redeliver(old *delivery, c outbox.Change) (id string, err error) {
	k := m.kept
	size := sizeOf(outbox.Event{}, 1) - sizeOf(outbox.Event{}, 0)
	switch {
	case !old.State.Final():
		return old.ID, &outbox.StateError{State: old.State}
	case !old.event.erased.IsZero():
		return old.ID, outbox.ErrErased
	}
	endpoint := old.Endpoint
	if c.Endpoint != "" {
		endpoint = c.Endpoint
	}
	if err := k.needless(old, endpoint, c); err != nil {
		return old.ID, err
	}
	if m.full(size) {
		return old.ID, outbox.ErrFull
	}
	d := k.newDelivery(old.event, endpoint, k.now())
	d.Origin, d.Manual = old.ID, true
	old.event.size += size
	k.bytes += size
	if c.Once != "" {
		k.onces[c.Once], d.once = d, c.Once
	}
	k.endpoint(endpoint).add(d)
	return d.ID, nil
}

// needless tells whether another delivery of the event makes a redelivery needless: the newest that does.
func (k *contents) needless(old *delivery, endpoint string, c outbox.Change) error {
	if c.Unless == outbox.UnlessNothing {
		return nil
	}
	work, _, ofWork := strings.Cut(c.Once, ".")
	for _, d := range slices.Backward(old.event.deliveries) {
		switch {
		case d.Endpoint != endpoint || k.deliveries[d.ID] == nil:
		case ofWork && strings.HasPrefix(d.once, work+"."):
			return outbox.ErrRepeat
		case d == old:
		case d.State == outbox.Pending:
			return outbox.ErrOnItsWay
		case d.State == outbox.Delivered && c.Unless == outbox.UnlessDelivered && (endpoint != old.Endpoint || d.order > old.order):
			return outbox.ErrDelivered
		}
	}
	return nil
}

func (k *contents) retry(d *delivery) (repeated bool, err error) {
	now := k.now()
	if d.State != outbox.Pending {
		return false, &outbox.StateError{State: d.State}
	}
	if d.until.After(now) || !d.Due.After(now) {
		return true, nil
	}
	ep := k.endpoint(d.Endpoint)
	ep.remove(d)
	d.Due = now
	ep.add(d)
	return false, nil
}

func (k *contents) discard(d *delivery, code string) (repeated bool, err error) {
	switch {
	case d.State == outbox.Discarded:
		return true, nil
	case d.State != outbox.Pending:
		return false, &outbox.StateError{State: d.State}
	case d.until.After(k.now()):
		return false, outbox.ErrClaimed
	}
	k.drop(d, code)
	return false, nil
}

// drop ends a pending delivery, claimed or not, without an attempt.
func (k *contents) drop(d *delivery, code string) {
	ep := k.endpoint(d.Endpoint)
	ep.remove(d)
	d.until = time.Time{}
	k.finish(d, outbox.Discarded, code)
	ep.wake() // FleetMax has a place again
}

func (k *contents) erase(c outbox.Change) (repeated bool, err error) {
	e := k.events[c.Event]
	if e == nil {
		return false, outbox.ErrNotFound
	}
	if !e.erased.IsZero() {
		return true, nil
	}
	if !c.Force {
		for _, d := range e.deliveries {
			if d.State == outbox.Pending {
				return false, &outbox.StateError{State: d.State}
			}
		}
	}
	for _, d := range e.deliveries {
		if d.State == outbox.Pending {
			k.drop(d, c.Code)
		}
		for i := range d.attempts {
			d.attempts[i].Request, d.attempts[i].Head, d.attempts[i].Body = "", "", nil
		}
	}
	freed := int64(len(e.Data))
	e.size -= freed
	k.bytes -= freed
	e.Data, e.Fields, e.erased = nil, nil, k.now()
	return false, nil
}

// Record implements outbox.Editor.
func (m *Mem) Record(ctx context.Context, e outbox.Event, endpoint string, s outbox.Settlement) (string, error) {
	if !s.State.Final() {
		return "", fmt.Errorf("record an attempt as %q: its delivery must have ended", s.State)
	}
	done, err := m.lock(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	k := m.kept
	if _, ok := k.ids[e.ID]; ok {
		return "", &outbox.ConflictError{ID: e.ID}
	}
	if m.full(sizeOf(e, 1)) {
		return "", outbox.ErrFull
	}
	now := k.now()
	k.insert(outbox.Entry{Event: e}, now)
	ev := k.events[e.ID]
	d := k.newDelivery(ev, endpoint, now)
	d.Manual, d.unmeasured = true, true
	d.record(s.Attempt)
	k.finish(d, s.State, s.Attempt.Code)
	ep := k.endpoint(endpoint)
	ep.accepted--
	ep.final[s.State]--
	size := sizeOf(e, 1)
	k.bytes += size - ev.size
	ev.size = size
	k.ids[e.ID] = known{receipts: []outbox.Receipt{{ID: e.ID, Deliveries: 1}}, at: now}
	return d.ID, nil
}
