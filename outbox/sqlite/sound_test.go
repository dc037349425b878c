package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"relay/outbox"
)

// sound checks the file, of which nothing was reaped: its counts against its rows, and each delivery
// for being in one place.
func sound(ctx context.Context, s *Store) error {
	return soundFile(ctx, s, 1, `SELECT 'tests of ' || name FROM endpoint e WHERE (-gone_delivered, -gone_failed, -gone_discarded) <>
		(SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3)
		 FROM done d JOIN manual m ON m.seq = d.seq WHERE d.endpoint = e.id AND m.origin = 0)`)
}

// soundReaped checks a file of which something was reaped.
func soundReaped(ctx context.Context, s *Store) error { return soundFile(ctx, s, 0, `SELECT 'ok'`) }

// soundFile checks a file in which each delivery is in at least so many places. More is for soundRows.
func soundFile(ctx context.Context, s *Store, least int, more string) (fault error) {
	rows := soundRows(ctx, s, more+` UNION ALL SELECT 'ends at ' || name FROM endpoint e
		WHERE (delivered - gone_delivered, failed - gone_failed, discarded - gone_discarded) <>
		(SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3) FROM done WHERE endpoint = e.id)`)
	err := s.do(ctx, func() error { // which goes on after a fault, for the lists
		fault = errors.Join(soundDeliveries(s, least), soundStatistics(s))
		return nil
	})
	return errors.Join(rows, fault, err, soundLists(ctx, s))
}

// soundStatistics compares statistics with the counts of the same commits. Tests are in neither.
func soundStatistics(s *Store) error {
	ends := map[int64]counts{}
	add := func(id int64, row *outbox.Stat) {
		ends[id] = ends[id].plus(counts{0, row.Delivered, row.Failed, row.Discarded})
	}
	for key, row := range s.stats.open {
		add(key.endpoint, row)
	}
	for key, row := range pick(s.stats.frozen, s.stats.order, s.stats.written) {
		add(key.endpoint, row)
	}
	q, err := s.db.query(`SELECT endpoint, delivered, failed, discarded FROM stat`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		add(q.stmt.ColumnInt64(0), &outbox.Stat{Delivered: q.stmt.ColumnInt64(1), Failed: q.stmt.ColumnInt64(2), Discarded: q.stmt.ColumnInt64(3)})
	}
	if err := q.done(); err != nil {
		return err
	}
	var fault error
	for _, ep := range s.known {
		if got := ends[ep.id]; got != (counts{0, ep.counts.delivered, ep.counts.failed, ep.counts.discarded}) {
			fault = errors.Join(fault, fmt.Errorf("statistics of %s are %+v, counted are %+v", ep.name, got, ep.counts))
		}
	}
	return fault
}

// soundLists compares the pages of filters with what matches of all.
func soundLists(ctx context.Context, s *Store) error {
	pages := func(f outbox.Filter) (all []outbox.Item, err error) {
		for q := (outbox.Query{Filter: f, Limit: outbox.MaxPage}); ; {
			page, err := s.Deliveries(ctx, q)
			if all = append(all, page.Items...); err != nil || page.Next == "" {
				return all, err
			}
			q.Cursor = page.Next
		}
	}
	all, fault := pages(outbox.Filter{})
	filters := []outbox.Filter{{States: []outbox.State{outbox.Pending}}, {States: []outbox.State{outbox.Failed, outbox.Discarded}}, {Types: []string{"t"}}}
	for _, endpoint := range []string{"a", "b", "c"} {
		filters = append(filters, outbox.Filter{Endpoints: []string{endpoint}})
	}
	for _, f := range filters {
		var want []string
		for _, item := range all {
			if f.Match(&item) {
				want = append(want, item.ID)
			}
		}
		items, err := pages(f)
		var got []string
		for _, item := range items {
			got = append(got, item.ID)
		}
		n, exact, wrong := s.Count(ctx, f)
		fault = errors.Join(fault, err, wrong)
		if !slices.Equal(got, want) || n != int64(len(want)) || !exact {
			fault = errors.Join(fault, fmt.Errorf("filter %+v finds %d deliveries and counts %d, %d match", f, len(got), n, len(want)))
		}
	}
	return fault
}

// soundRows runs checks whose rows are faults or ok.
func soundRows(ctx context.Context, s *Store, more string) (fault error) {
	err := s.do(ctx, func() error {
		q, err := s.db.query(more + ` UNION ALL SELECT integrity_check FROM pragma_integrity_check
			UNION ALL SELECT 'attempts of ' || seq FROM pending p WHERE attempts <> (SELECT count(*) FROM attempt WHERE id BETWEEN p.seq << 16 AND p.seq << 16 | 65535)
				OR attempts > 0 AND due > (SELECT due FROM attempt WHERE id = p.seq << 16 | p.attempts)
			UNION ALL SELECT 'attempts of ' || seq FROM done d WHERE attempts - (started IS NOT NULL) <> (SELECT count(*) FROM attempt WHERE id BETWEEN d.seq << 16 AND d.seq << 16 | 65535)
			UNION ALL SELECT 'attempt of nothing ' || id FROM attempt a WHERE (id >> 16) NOT IN (SELECT seq FROM pending UNION ALL SELECT seq FROM done)`)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			if v := q.stmt.ColumnText(0); v != "ok" {
				fault = errors.Join(fault, errors.New(v))
			}
		}
		return q.done()
	})
	return errors.Join(fault, err)
}

// soundDeliveries finds each target of each event in one place: it is over, or pending with a row, or above
// the watermark and in memory without one. What was reaped is in least = 0 places, below the
// watermark. The owner calls it.
func soundDeliveries(s *Store, least int) error {
	places, pending := map[string]int{}, map[int64]int64{}
	count := func(sql string, pending map[int64]int64) error {
		q, err := s.db.query(sql)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			places[fmt.Sprint(q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2))]++
			pending[q.stmt.ColumnInt64(2)]++
		}
		return q.done()
	}
	fault := errors.Join(count(`SELECT seq, event, endpoint FROM done`, map[int64]int64{}), count(`SELECT seq, event, endpoint FROM pending`, pending))
	for _, e := range s.bare {
		if e.event != nil {
			places[fmt.Sprint(e.seq, e.number, e.endpoint.id)]++
			pending[e.endpoint.id]++
			if e.number <= s.meta.watermark {
				fault = errors.Join(fault, fmt.Errorf("delivery %d without a row is of event %d, the watermark is %d", e.seq, e.number, s.meta.watermark))
			}
		}
	}
	q, err := s.db.query(`SELECT seq, first, targets FROM event WHERE kept < 2`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		number := q.stmt.ColumnInt64(0)
		targets, err := s.endpointsOf(q.stmt.ColumnRawBlob(2))
		fault = errors.Join(fault, err)
		for i, ep := range targets {
			where := fmt.Sprint(q.stmt.ColumnInt64(1)+int64(i), number, ep.id)
			if n := places[where]; n > 1 || n < least || n < 1 && number > s.meta.watermark {
				fault = errors.Join(fault, fmt.Errorf("delivery, event, endpoint %s: found in %d places", where, n))
			}
			delete(places, where)
		}
	}
	m, err := s.db.query(`SELECT seq, event, endpoint FROM manual`)
	if err != nil {
		return err
	}
	defer m.stmt.Close()
	for m.step() {
		where := fmt.Sprint(m.stmt.ColumnInt64(0), m.stmt.ColumnInt64(1), m.stmt.ColumnInt64(2))
		if n := places[where]; n > 1 {
			fault = errors.Join(fault, fmt.Errorf("redelivery, event, endpoint %s: found in %d places", where, n))
		}
		delete(places, where)
	}
	fault = errors.Join(fault, m.done())
	if len(places) > 0 {
		fault = errors.Join(fault, fmt.Errorf("deliveries of no event: %v", places))
	}
	for _, ep := range s.known {
		if n := pending[ep.id]; n != ep.counts.pending() {
			fault = errors.Join(fault, fmt.Errorf("%d deliveries of %s are pending, counted are %+v", n, ep.name, ep.counts))
		}
	}
	return errors.Join(fault, q.done())
}
