package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"relay/outbox"
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
	out := &outbox.Record{Event: *e, Accepted: time.UnixMicro(order).UTC()}
	for n, name := range endpoints {
		d, err := readDelivery(ref{order: order, n: n, total: len(endpoints), event: id}, name, fields)
		if err != nil {
			return nil, fmt.Errorf("%w: event %s at %s: %w", outbox.ErrCorrupt, id, name, err)
		}
		if d != nil {
			out.Deliveries = append(out.Deliveries, *d)
		}
	}
	return out, nil
}

// readDelivery returns nil for a delivery that retention removed or a mark left out.
func readDelivery(r ref, endpoint string, fields map[string]string) (*outbox.DeliveryRecord, error) {
	created := r.created()
	d := &outbox.DeliveryRecord{Delivery: outbox.Delivery{
		ID: r.deliveryID(), EventID: r.event, Endpoint: endpoint, State: outbox.Pending, Due: created, Created: created,
	}}
	n := strconv.Itoa(r.n)
	kept, settled := fields[n]
	switch {
	case !settled:
		return d, nil
	case kept == gone:
		return nil, nil
	}
	last, err := decodeRecord(kept)
	if err != nil {
		return nil, err
	}
	d.State, d.Delivery.Attempts, d.Code = last.state, last.attempts, last.last.Code
	d.Due = time.UnixMicro(last.due).UTC()
	if last.finished > 0 {
		d.Finished = time.UnixMicro(last.finished).UTC()
	}
	if last.attempts == 0 {
		d.Error = last.last.Error
		return d, nil
	}
	for k := 1; k < last.attempts; k++ {
		before, err := decodeRecord(fields[n+"."+strconv.Itoa(k)])
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
	v, err := sh.eval(ctx, &sh.s.scripts.reap, []string{sh.meta, history}, []any{sh.prefix, cutoff, reapSome, sh.s.window.Microseconds()})
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
