package sqlite

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// Bounds of the work for a page.
const (
	pageRows     = 20_000 // deliveries that are looked at
	pageSegments = 2000
	aheadRows    = 200 // after a page is full: is there another one?
)

// LookupDelivery implements outbox.History.
func (s *Store) LookupDelivery(ctx context.Context, id string) (*outbox.Record, error) {
	var record *outbox.Record
	err := s.read(ctx, func() (done bool, err error) {
		seq := deliveryNumber(s.meta.prefix, id)
		d, err := s.find(seq)
		if err != nil || d == nil {
			return true, err
		}
		record, err = s.readRecord(s.db.eventAt.int(d.number), seq)
		return true, err
	})
	if err == nil && (record == nil || len(record.Deliveries) == 0) {
		err = fmt.Errorf("delivery %s: %w", id, outbox.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return record, nil
}

// Deliveries implements outbox.History.
func (s *Store) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	if err := q.Check(); err != nil {
		return outbox.Page{}, err
	}
	p := &pageRead{query: q, skip: q.Offset}
	if err := s.read(ctx, func() (bool, error) { return p.step(s) }); err != nil {
		return outbox.Page{}, err
	}
	return p.page, nil
}

// pageRead is a read of a page under way.
type pageRead struct {
	query outbox.Query
	walk  *walk
	skip  int
	last  int64 // the last delivery of the page
	rows  int   // looked at when the page was full
	page  outbox.Page
}

// step reads a slice.
func (p *pageRead) step(s *Store) (done bool, err error) {
	if p.walk == nil {
		p.walk = &walk{s: s, filter: p.query.Filter, oldest: p.query.Oldest}
		if p.query.Cursor != "" {
			if p.walk.after, p.skip, err = s.position(&p.query); err != nil {
				return false, err
			}
		}
	}
	w := p.walk
	err = w.run(func(item *outbox.Item, seq int64) (more bool) {
		switch {
		case p.skip > 0:
			p.skip--
		case len(p.page.Items) == p.query.Limit:
			p.page.Next = s.cursor(&p.query, p.last, 0)
			return false
		default:
			p.page.Items, p.last = append(p.page.Items, *item), seq
			p.rows = w.rows
		}
		return true
	})
	full := len(p.page.Items) == p.query.Limit
	switch {
	case err != nil:
		return false, err
	case w.over || p.page.Next != "":
		return true, nil
	case full && w.rows > p.rows+aheadRows, w.rows > pageRows, w.segments > pageSegments:
		at := w.passed()
		if full {
			at = p.last
		}
		p.page.Next = s.cursor(&p.query, at, p.skip)
		return true, nil
	}
	return false, nil
}

// cursor names the delivery after which a page goes on, and how many to leave out of it.
func (s *Store) cursor(q *outbox.Query, seq int64, skip int) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "1 %s %016x %d %d", s.meta.prefix, q.Sum(), seq, skip))
}

// position reads a cursor.
func (s *Store) position(q *outbox.Query) (seq int64, skip int, err error) {
	var prefix string
	var sum uint64
	text, _ := base64.RawURLEncoding.DecodeString(q.Cursor) // what is not base64 is no such text, either
	n, _ := fmt.Sscanf(string(text), "1 %s %x %d %d", &prefix, &sum, &seq, &skip)
	if n != 4 || prefix != s.meta.prefix || sum != q.Sum() || seq < 1 || skip < 0 || skip > outbox.MaxOffset || s.cursor(q, seq, skip) != q.Cursor {
		return 0, 0, outbox.ErrCursor
	}
	return seq, skip, nil
}

// Count implements outbox.History.
func (s *Store) Count(ctx context.Context, f outbox.Filter) (n int64, exact bool, err error) {
	w := &walk{s: s, filter: f, counts: true}
	var counted atomic.Int64 // ctx may end amid a slice
	err = s.read(ctx, func() (done bool, err error) {
		if total, known := s.countAll(&f); known {
			counted.Store(total)
			return true, nil
		}
		err = w.run(func(*outbox.Item, int64) bool { counted.Add(1); return true })
		return w.over, err
	})
	switch {
	case err == nil:
		return counted.Load(), true, nil
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		if err := s.refused(); err != nil {
			return 0, false, err
		}
		return counted.Load(), false, nil
	}
	return 0, false, err
}

// countAll counts by what is counted anyway, if the filter names nothing but endpoints and states.
func (s *Store) countAll(f *outbox.Filter) (n int64, known bool) {
	if f.Types != nil || f.TypeLike != nil || f.Event != "" || f.Tenants != nil || f.Key != "" || len(f.Fields) > 0 || f.Code != "" || f.Manual != nil || f.Resent != nil {
		return 0, false
	}
	if (f.Status != outbox.Range{} || f.Attempts != outbox.Range{} || f.Accepted != outbox.Span{} || f.Attempted != outbox.Span{}) {
		return 0, false
	}
	has := func(state outbox.State) bool { return f.States == nil || slices.Contains(f.States, state) }
	for _, ep := range s.known {
		if f.Endpoints != nil && !slices.Contains(f.Endpoints, ep.name) || slices.Contains(f.Except, ep.name) {
			continue
		}
		for state, count := range map[outbox.State]int64{
			outbox.Pending:   ep.counts.pending(),
			outbox.Delivered: ep.counts.delivered - ep.gone.delivered,
			outbox.Failed:    ep.counts.failed - ep.gone.failed,
			outbox.Discarded: ep.counts.discarded - ep.gone.discarded,
		} {
			if has(state) {
				n += count
			}
		}
	}
	return n, true
}

// readLeanEvent reads an event without its data.
func (s *Store) readLeanEvent(q *query, e *outbox.Event) (accepted int64, erased bool, err error) {
	*e = outbox.Event{
		ID:     q.stmt.ColumnText(0),
		Type:   q.stmt.ColumnText(1),
		Time:   fromMicros(q.stmt.ColumnInt64(2)),
		Tenant: q.stmt.ColumnText(3),
		Key:    q.stmt.ColumnText(4),
	}
	return q.stmt.ColumnInt64(7), q.stmt.ColumnType(6) != sqlite3.NULL, s.readEventMore(q.stmt.ColumnRawBlob(5), e)
}
