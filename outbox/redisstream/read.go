package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
	"relay/outbox/brief"
)

// Lookup implements outbox.Reader.
func (s *Store) Lookup(ctx context.Context, eventID string) (*outbox.Record, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	for _, sh := range s.shards { // which one depends on the request that brought it
		node, err := sh.node(ctx)
		if err != nil {
			return nil, sh.note(err)
		}
		fields, err := node.HGetAll(ctx, sh.event(eventID)).Result()
		if isStray(err) {
			sh.stray(eventID)
			continue
		}
		if err != nil {
			return nil, sh.note(err)
		}
		if fields["o"] != "" { // without it, it is what was settled after somebody deleted the event
			return readEvent(eventID, fields)
		}
	}
	return nil, outbox.ErrNotFound
}

// ready waits for settlements in line, so that what is read is up to date.
func (s *Store) ready(ctx context.Context) error {
	if err := s.refusal(); err != nil {
		return err
	}
	for _, sh := range s.shards {
		if _, err := sh.session(); err != nil {
			return err
		}
		if lasts, why := sh.outage(); lasts > failFast {
			return why
		}
	}
	return s.flush(ctx)
}

func readEvent(id string, fields map[string]string) (*outbox.Record, error) {
	order, err := strconv.ParseInt(fields["o"], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: event %s has no order", outbox.ErrCorrupt, id)
	}
	e, endpoints, err := decodeEvent(id, fields["e"])
	if err != nil {
		return nil, err
	}
	out := &outbox.Record{Event: *e, Accepted: time.UnixMicro(order).UTC(), Erased: erasedAt(fields["z"])}
	for _, m := range deliveriesOf(id, order, endpoints, fields) {
		d, err := m.read(fields)
		if err != nil {
			return nil, fmt.Errorf("%w: event %s at %s: %w", outbox.ErrCorrupt, id, m.endpoint, err)
		}
		if d != nil {
			out.Deliveries = append(out.Deliveries, *d)
		}
	}
	return out, nil
}

// erasedAt is when an event's data was erased.
func erasedAt(text string) time.Time {
	at, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(at).UTC()
}

// named is a delivery as its event names it.
type named struct {
	ref      ref
	endpoint string
	origin   string // id of the delivery that it repeats
	manual   bool
}

// deliveriesOf are the deliveries that an event ever had and of which something is known.
func deliveriesOf(id string, order int64, endpoints []string, fields map[string]string) (all []named) {
	total := len(endpoints)
	for n, name := range endpoints {
		_, manual := fields["r"+strconv.Itoa(n)]
		all = append(all, named{ref: ref{order: order, n: n, total: total, event: id}, endpoint: name, manual: manual})
	}
	more, _ := strconv.Atoi(fields["x"])
	for n := total; n < more; n++ {
		if m, ok := madeBy(fields["r"+strconv.Itoa(n)], ref{n: n, total: total, event: id}); ok {
			all = append(all, m)
		}
	}
	return all
}

// madeBy reads what is kept of a delivery that an operator made: "<order>|<origin>|<length>|<once><endpoint>".
func madeBy(text string, r ref) (named, bool) {
	part := strings.SplitN(text, "|", 4)
	if len(part) != 4 {
		return named{}, false
	}
	order, err1 := strconv.ParseInt(part[0], 10, 64)
	length, err2 := strconv.Atoi(part[2])
	if err1 != nil || err2 != nil || length < 0 || length > len(part[3]) {
		return named{}, false
	}
	r.order = order
	return named{ref: r, endpoint: part[3][length:], origin: part[1], manual: true}, true
}

// delivery is a delivery of which there is no record yet, or with its record.
func (m *named) delivery(kept *record) outbox.Delivery {
	created := m.ref.created()
	d := outbox.Delivery{
		ID: m.ref.deliveryID(), EventID: m.ref.event, Endpoint: m.endpoint, State: outbox.Pending, Due: created, Created: created,
		Origin: m.origin, Manual: m.manual,
	}
	if kept == nil {
		return d
	}
	d.State, d.Attempts, d.Code = kept.state, kept.attempts, kept.reason()
	d.Due = time.UnixMicro(kept.due).UTC()
	if kept.finished > 0 {
		d.Finished = time.UnixMicro(kept.finished).UTC()
	}
	return d
}

// record reads a record, with its heads as they were.
func (m *named) record(kept string) (record, error) {
	r, err := decodeRecord(kept)
	if err != nil {
		return record{}, err
	}
	a := &r.last
	f := brief.Facts{Event: m.ref.event, Delivery: m.ref.deliveryID(), Attempt: a.N, Started: a.Started}
	a.Request, a.Head = f.Unpack(a.Request), f.Unpack(a.Head)
	return r, nil
}

// read returns nil for a delivery that retention removed or a mark left out.
func (m *named) read(fields map[string]string) (*outbox.DeliveryRecord, error) {
	n := strconv.Itoa(m.ref.n)
	kept, settled := fields[n]
	switch {
	case !settled:
		return &outbox.DeliveryRecord{Delivery: m.delivery(nil)}, nil
	case kept == gone:
		return nil, nil
	}
	last, err := m.record(kept)
	if err != nil {
		return nil, err
	}
	d := &outbox.DeliveryRecord{Delivery: m.delivery(&last)}
	if last.attempts == 0 {
		d.Error = last.last.Error
		return d, nil
	}
	for k := 1; k < last.attempts; k++ {
		before, err := m.record(fields[n+"."+strconv.Itoa(k)])
		if err != nil {
			return nil, err
		}
		d.Attempts = append(d.Attempts, before.last)
	}
	d.Attempts = append(d.Attempts, last.last)
	return d, nil
}

// Counts implements outbox.Store.
func (s *Store) Counts(ctx context.Context) (map[string]outbox.Counts, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	all := map[string]outbox.Counts{}
	for _, sh := range s.shards {
		v, err := sh.eval(ctx, &s.scripts.counts, []string{sh.counts}, []any{sh.prefix})
		if err != nil {
			return nil, err
		}
		list, err := texts(v, 0)
		if err != nil {
			return nil, err
		}
		for i := 0; i+5 < len(list); i += 6 {
			var n [5]int64
			for k := range n {
				n[k], _ = strconv.ParseInt(list[i+1+k], 10, 64)
			}
			c := all[list[i]]
			c.Accepted += n[0]
			c.Delivered += n[1]
			c.Failed += n[2]
			c.Discarded += n[3]
			c.Pending += n[0] - n[1] - n[2] - n[3]
			if oldest := time.UnixMicro(n[4]).UTC(); n[4] > 0 && (c.Oldest.IsZero() || oldest.Before(c.Oldest)) {
				c.Oldest = oldest
			}
			all[list[i]] = c
		}
	}
	return all, nil
}

// reapSome is how many deliveries one call removes from each history, about.
const reapSome = 500

// Reap implements outbox.Store.
func (s *Store) Reap(ctx context.Context, r outbox.Retention) (removed int, more bool, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, false, err
	}
	for _, sh := range s.shards {
		for _, h := range []struct {
			key  string
			keep time.Duration
		}{{sh.done, r.Delivered}, {sh.failed, r.Failed}} {
			n, again, err := sh.reap(ctx, h.key, h.keep)
			if err != nil {
				return removed, more, err
			}
			removed, more = removed+n, more || again
		}
		if err := sh.prune(ctx, r); err != nil {
			return removed, more, err
		}
	}
	return removed, more, nil
}

func (sh *shard) reap(ctx context.Context, history string, keep time.Duration) (removed int, more bool, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return 0, false, sh.note(err)
	}
	now, err := node.Time(ctx).Result()
	if err != nil {
		return 0, false, sh.note(err)
	}
	cutoff := now.Add(-keep).UnixMilli()
	if cutoff < 0 {
		return 0, false, nil
	}
	v, err := sh.eval(ctx, &sh.s.scripts.reap, []string{sh.meta, history}, []any{sh.prefix, cutoff, reapSome, sh.s.window.Microseconds(), repeatCost})
	if err != nil {
		return 0, false, err
	}
	answer, err := texts(v, 2)
	if err != nil {
		return 0, false, err
	}
	removed, _ = strconv.Atoi(answer[0])
	return removed, answer[1] == "1", nil
}
