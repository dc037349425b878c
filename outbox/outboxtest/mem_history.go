package outboxtest

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"relay/outbox"
)

// LookupDelivery implements outbox.History.
func (m *Mem) LookupDelivery(ctx context.Context, id string) (*outbox.Record, error) {
	done, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	d := m.kept.deliveries[id]
	if d == nil {
		return nil, outbox.ErrNotFound
	}
	return m.kept.whole(d.event, d), nil
}

// Deliveries implements outbox.History.
func (m *Mem) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	if err := q.Check(); err != nil {
		return outbox.Page{}, err
	}
	done, err := m.lock(ctx)
	if err != nil {
		return outbox.Page{}, err
	}
	defer done()
	k := m.kept
	after, err := k.position(&q)
	if err != nil {
		return outbox.Page{}, err
	}
	var page outbox.Page
	skip := q.Offset
	last := after
	for _, d := range k.ordered(q.Oldest) {
		if q.Cursor != "" && (d.order == after || d.order > after != q.Oldest) {
			continue
		}
		item := k.item(d)
		switch {
		case !q.Match(&item):
		case skip > 0:
			skip--
		case len(page.Items) == q.Limit:
			page.Next = k.cursor(&q, last)
			return page, nil
		default:
			page.Items, last = append(page.Items, item), d.order
		}
	}
	return page, nil
}

// ordered returns all deliveries, newest first unless oldest.
func (k *contents) ordered(oldest bool) []*delivery {
	return slices.SortedFunc(maps.Values(k.deliveries), func(a, b *delivery) int {
		if oldest {
			a, b = b, a
		}
		return cmp.Compare(b.order, a.order)
	})
}

// cursor names the last delivery of a page, in its outbox and query.
func (k *contents) cursor(q *outbox.Query, order int64) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "1 %s %016x %d", k.name, q.Sum(), order))
}

// position reads a cursor: it names the last delivery of the page before.
func (k *contents) position(q *outbox.Query) (order int64, err error) {
	if q.Cursor == "" {
		return 0, nil
	}
	var name string
	var sum uint64
	text, _ := base64.RawURLEncoding.DecodeString(q.Cursor) // what is not base64 is no such text, either
	n, _ := fmt.Sscanf(string(text), "1 %s %x %d", &name, &sum, &order)
	if n != 3 || name != k.name || sum != q.Sum() || k.cursor(q, order) != q.Cursor {
		return 0, outbox.ErrCursor
	}
	return order, nil
}

// item is a delivery in a page.
func (k *contents) item(d *delivery) outbox.Item {
	e := d.event
	i := outbox.Item{Delivery: k.shown(d), Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time,
		Fields: slices.Clone(e.Fields), Erased: !e.erased.IsZero(), Error: d.err}
	i.Resent = slices.ContainsFunc(e.deliveries, func(o *delivery) bool {
		return o.Endpoint == d.Endpoint && o.order > d.order && k.deliveries[o.ID] != nil
	})
	if n := len(d.attempts); n > 0 {
		last := d.attempts[n-1]
		last.Request, last.Head, last.Body = "", "", nil
		i.Last, i.Error = &last, last.Error
	}
	return i
}

// Count implements outbox.History.
func (m *Mem) Count(ctx context.Context, f outbox.Filter) (n int64, exact bool, err error) {
	done, err := m.lock(context.WithoutCancel(ctx))
	if err != nil {
		return 0, false, err
	}
	defer done()
	for _, d := range m.kept.deliveries {
		if ctx.Err() != nil {
			return n, false, nil
		}
		if item := m.kept.item(d); f.Match(&item) {
			n++
		}
	}
	return n, true, nil
}

// Ages implements outbox.History.
func (m *Mem) Ages(ctx context.Context, endpoint string, quantiles []float64) ([]time.Duration, error) {
	done, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	k := m.kept
	ep := k.endpoints[endpoint]
	if ep == nil || len(ep.pending) == 0 {
		return nil, nil
	}
	var ages []time.Duration
	for _, d := range ep.pending {
		ages = append(ages, k.now().Sub(d.Created))
	}
	slices.Sort(ages)
	at := make([]time.Duration, len(quantiles))
	for i, q := range quantiles {
		rank := int(math.Ceil(q * float64(len(ages))))
		at[i] = ages[min(max(rank, 1), len(ages))-1]
	}
	return at, nil
}

// lock locks the contents, unless the context or the Mem has ended.
func (m *Mem) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.isClosed() {
		m.mu.Unlock()
		return nil, outbox.ErrClosed
	}
	return m.mu.Unlock, nil
}
