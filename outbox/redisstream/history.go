package redisstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"time"

	"relay/internal/sorting"
	"relay/outbox"
)

// position is where a delivery stands in the history. It never changes.
type position struct {
	order int64
	shard int
	n     int
}

// compare orders positions: rising, or newest first.
func (p position) compare(o position, rising bool) int {
	c := cmp.Or(cmp.Compare(p.order, o.order), cmp.Compare(p.shard, o.shard), cmp.Compare(p.n, o.n))
	if rising {
		return c
	}
	return -c
}

// match is a delivery that a query has found.
type match struct {
	position
	item outbox.Item
}

// LookupDelivery implements outbox.History.
func (s *Store) LookupDelivery(ctx context.Context, id string) (*outbox.Record, error) {
	r, ok := parseDeliveryID(id)
	if !ok {
		if err := s.refusal(); err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		return nil, cmp.Or(ctx.Err(), outbox.ErrNotFound)
	}
	e, err := s.Lookup(ctx, r.event)
	if err != nil {
		return nil, err
	}
	for _, d := range e.Deliveries {
		if d.ID == id {
			e.Deliveries = []outbox.DeliveryRecord{d}
			return e, nil
		}
	}
	return nil, outbox.ErrNotFound
}

// Deliveries implements outbox.History: each shard is looked through from the cursor on, and the first
// of what they found are the page.
func (s *Store) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	if err := q.Check(); err != nil {
		return outbox.Page{}, err
	}
	if err := ctx.Err(); err != nil {
		return outbox.Page{}, err
	}
	if err := s.ready(ctx); err != nil {
		return outbox.Page{}, err
	}
	c := cursor{skip: q.Offset}
	if q.Cursor != "" {
		var err error
		if c, err = s.parseCursor(&q); err != nil {
			return outbox.Page{}, err
		}
	}
	scans := s.scans(&q, c)
	list, end, err := s.look(ctx, scans, c.skip+q.Limit+1)
	if err != nil {
		return outbox.Page{}, err
	}
	return s.page(&q, c, list, end)
}

// page makes the page of what was found up to end, nil for all that there is.
func (s *Store) page(q *outbox.Query, c cursor, list []match, end *position) (page outbox.Page, err error) {
	skipped := min(c.skip, len(list))
	list = list[skipped:]
	for _, m := range list[:min(len(list), q.Limit)] {
		page.Items = append(page.Items, m.item)
	}
	switch {
	case len(list) > q.Limit:
		page.Next, err = s.cursor(q, cursor{at: list[q.Limit-1].position})
	case end != nil:
		page.Next, err = s.cursor(q, cursor{at: *end, skip: c.skip - skipped})
	}
	return page, err
}

// look lets scans find up to so many matches together, and returns these in order, and to where they looked, nil if there is no more.
func (s *Store) look(ctx context.Context, scans []*scan, most int) (list []match, end *position, err error) {
	var all sync.WaitGroup
	for _, sc := range scans {
		all.Go(func() { sc.run(ctx, most) })
	}
	all.Wait()
	return merge(scans, most)
}

// merge puts together what scans found.
func merge(scans []*scan, most int) (list []match, end *position, err error) {
	for _, sc := range scans {
		if sc.err != nil {
			return nil, nil, sc.err
		}
		if len(sc.found) >= most {
			sc.found = sc.found[:most]
			sc.reached, sc.done = sc.found[most-1].position, false
		}
		if !sc.done && (end == nil || sc.reached.compare(*end, sc.q.Oldest) < 0) {
			end = &sc.reached
		}
		list = append(list, sc.found...)
	}
	rising := len(scans) > 0 && scans[0].q.Oldest
	sorting.By(list, func(a, b match) int { return a.compare(b.position, rising) })
	if end != nil {
		list = slices.DeleteFunc(list, func(m match) bool { return m.compare(*end, rising) > 0 })
	}
	return list, end, nil
}

// scans prepares the scan of each shard, from a cursor on.
func (s *Store) scans(q *outbox.Query, c cursor) []*scan {
	if none(q.Endpoints) || none(q.States) || none(q.Types) || none(q.Tenants) {
		return nil
	}
	var all []*scan
	for _, sh := range s.shards {
		all = append(all, newScan(sh, q, c))
	}
	return all
}

// none tells whether a list of alternatives has none.
func none[T any](list []T) bool { return list != nil && len(list) == 0 }

// cursor is where the next page begins.
type cursor struct {
	at   position // all up to here was shown; zero for none
	skip int      // of what follows, so many are to be left out
}

// name is a hash of the ids of the shards' outboxes.
func (s *Store) name() (uint64, error) {
	h := fnv.New64a()
	for _, sh := range s.shards {
		joined, err := sh.session()
		if err != nil {
			return 0, err
		}
		_, _ = h.Write([]byte(joined.outbox))
	}
	return h.Sum64(), nil
}

func (s *Store) cursor(q *outbox.Query, c cursor) (string, error) {
	name, err := s.name()
	text := fmt.Appendf(nil, "1 %016x %016x %d %d %d %d", name, q.Sum(), c.at.order, c.at.shard, c.at.n, c.skip)
	return base64.RawURLEncoding.EncodeToString(text), err
}

func (s *Store) parseCursor(q *outbox.Query) (c cursor, err error) {
	own, err := s.name()
	if err != nil {
		return cursor{}, err
	}
	var name, sum uint64
	text, _ := base64.RawURLEncoding.DecodeString(q.Cursor) // what is not base64 is no such text, either
	n, _ := fmt.Sscanf(string(text), "1 %x %x %d %d %d %d", &name, &sum, &c.at.order, &c.at.shard, &c.at.n, &c.skip)
	if n != 6 || name != own || sum != q.Sum() || c.skip < 0 || c.skip > outbox.MaxOffset {
		return cursor{}, outbox.ErrCursor
	}
	if again, _ := s.cursor(q, c); again != q.Cursor {
		return cursor{}, outbox.ErrCursor
	}
	return c, nil
}

// Count implements outbox.History.
func (s *Store) Count(ctx context.Context, f outbox.Filter) (n int64, exact bool, err error) {
	if ctx.Err() != nil {
		return 0, false, s.refusal()
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), countMost)
	defer cancel()
	if err := s.ready(within); err != nil {
		return 0, false, err
	}
	if n, ok, err := s.listed(within, &f); ok || err != nil {
		return n, ok, err
	}
	q := outbox.Query{Filter: f}
	for _, sc := range s.scans(&q, cursor{}) {
		for !sc.done {
			if ctx.Err() != nil {
				return n, false, nil
			}
			sc.run(within, countSome)
			if sc.err != nil {
				if within.Err() != nil {
					return n, false, nil
				}
				return 0, false, sc.err
			}
			n += int64(len(sc.found))
			sc.found = sc.found[:0]
		}
	}
	return n, true, nil
}

const (
	countSome = 1000             // deliveries between two looks at the time
	countMost = 60 * time.Second // for a caller that sets no end
)

// ofEvent is a scan of the deliveries of one event.
func (sc *scan) ofEvent(ctx context.Context) error {
	node, err := sc.sh.node(ctx)
	if err != nil {
		return sc.sh.note(err)
	}
	fields, err := node.HGetAll(ctx, sc.sh.event(sc.q.Event)).Result()
	if isStray(err) {
		sc.sh.stray(sc.q.Event)
		return nil
	}
	if err != nil {
		return sc.sh.note(err)
	}
	if fields["o"] == "" {
		return nil
	}
	e, err := readEvent(sc.q.Event, fields)
	if err != nil {
		return err
	}
	newest := map[string]int{} // of each endpoint
	for _, d := range e.Deliveries {
		r, _ := parseDeliveryID(d.ID)
		newest[d.Endpoint] = max(newest[d.Endpoint], r.n)
	}
	for _, d := range e.Deliveries {
		r, _ := parseDeliveryID(d.ID)
		item := outbox.Item{Delivery: d.Delivery, Error: d.Error, Resent: newest[d.Endpoint] > r.n}
		if n := len(d.Attempts); n > 0 {
			last := d.Attempts[n-1]
			last.Request, last.Head, last.Body = "", "", nil
			item.Last, item.Error = &last, last.Error
		}
		sc.take(r.order, r.n, item, &e.Event, !e.Erased.IsZero())
	}
	rising := sc.q.Oldest
	sorting.By(sc.found, func(a, b match) int { return a.compare(b.position, rising) })
	return nil
}

// take adds a delivery to what was found, if it comes behind the cursor and matches.
func (sc *scan) take(order int64, n int, item outbox.Item, e *outbox.Event, erased bool) {
	at := position{order, sc.sh.index, n}
	if sc.after != (position{}) && at.compare(sc.after, sc.q.Oldest) <= 0 {
		return
	}
	item.Type, item.Tenant, item.Key, item.Time, item.Fields, item.Erased = e.Type, e.Tenant, e.Key, e.Time, e.Fields, erased
	if sc.q.Match(&item) {
		sc.found = append(sc.found, match{at, item})
	}
}

// farthest is behind all orders.
const farthest = math.MaxInt64 / 2
