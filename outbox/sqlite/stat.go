package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"relay/internal/sorting"
	"relay/outbox"
)

// Statistics implements outbox.Statistics: what is in stat, and what is not yet. Nothing moves from the one to
// the other meanwhile.
func (s *Store) Statistics(ctx context.Context, q outbox.StatQuery) ([]outbox.Stat, error) {
	r := &statRead{s: s, query: q, rows: map[statRow]*outbox.Stat{}, after: statKey{hour: math.MinInt64}}
	defer func() { // even after a context's error
		_ = s.do(context.WithoutCancel(ctx), func() error { r.end(); return nil })
	}()
	if err := s.read(ctx, r.step); err != nil {
		return nil, err
	}
	rows := make([]outbox.Stat, 0, len(r.rows))
	for _, row := range r.rows {
		rows = append(rows, *row)
	}
	sorting.By(rows, func(a, b outbox.Stat) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(b.Step, a.Step), cmp.Compare(a.Endpoint, b.Endpoint),
			cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant))
	})
	return rows, nil
}

// statRow is a key with its step.
type statRow struct {
	step int64 // hours
	key  statKey
}

// statRead is a read of statistics under way.
type statRead struct {
	s     *Store
	query outbox.StatQuery
	rows  map[statRow]*outbox.Stat
	begun bool
	place int // place in steps
	after statKey
}

// steps are those of the rows of stat, in hours.
var steps = [...]int64{24, 1}

// begin takes what is not in stat yet.
func (r *statRead) begin() (wait bool, err error) {
	s := r.s
	if s.agePending || s.stats.aged != s.hourNow() { // old hours first
		s.stats.aged, s.agePending = s.hourNow(), false
		if s.stats.readers == 0 {
			if s.agePending, err = s.age(); err != nil && !isFull(err) {
				return false, err
			}
		}
		if s.agePending {
			return true, nil
		}
	}
	r.begun = true
	s.stats.readers++
	for _, sums := range []map[statKey]*outbox.Stat{s.stats.open, pick(s.stats.frozen, s.stats.order, s.stats.written)} {
		for key, sum := range sums {
			if err := r.add(statRow{1, key}, func(row *outbox.Stat) error { row.Add(sum); return nil }); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// pick returns the sums of keys from a place on.
func pick(sums map[statKey]*outbox.Stat, order []statKey, from int) map[statKey]*outbox.Stat {
	if from == 0 {
		return sums
	}
	rest := maps.Clone(sums)
	for _, key := range order[:from] {
		delete(rest, key)
	}
	return rest
}

// end lets what is not in stat yet go there.
func (r *statRead) end() {
	if r.begun {
		r.begun = false
		r.s.stats.readers--
	}
}

// step reads a slice.
func (r *statRead) step() (done bool, err error) {
	if !r.begun {
		if wait, err := r.begin(); wait || err != nil {
			return false, err
		}
	}
	for ; r.place < len(steps); r.place++ {
		if paused, err := r.scan(steps[r.place]); paused || err != nil {
			return false, err
		}
		r.after = statKey{hour: math.MinInt64}
	}
	return true, nil
}

// scan reads rows of a step until the slice is over.
func (r *statRead) scan(step int64) (paused bool, err error) {
	from, until := r.after, int64(math.MaxInt64)
	if since := r.query.Since; !since.IsZero() {
		from = maxKey(from, statKey{hour: (since.Unix() - 1) / 3600})
	}
	if !r.query.Until.IsZero() {
		until = r.query.Until.Unix()/3600 + 1
	}
	q := r.s.db.stats.int(step).int(from.hour).int(from.endpoint).string(from.kind).string(from.tenant).int(until)
	for q.step() {
		r.after = statKey{q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnText(2), q.stmt.ColumnText(3)}
		err = r.add(statRow{step, r.after}, func(row *outbox.Stat) error {
			var sums outbox.Stat
			err := readSums(q, 4, &sums)
			row.Add(&sums)
			return err
		})
		if paused = r.s.spent(); paused || err != nil {
			break
		}
	}
	if err := cmp.Or(err, q.done()); err != nil {
		return false, fmt.Errorf("select statistics: %w", err)
	}
	return paused, nil
}

func maxKey(a, b statKey) statKey {
	if compareKeys(a, b) < 0 {
		return b
	}
	return a
}

// add adds to a row of the answer, if the query asks for it.
func (r *statRead) add(at statRow, add func(*outbox.Stat) error) error {
	row := r.rows[at]
	if row == nil {
		ep, known := r.s.endpointAt(at.key.endpoint)
		if !known {
			return nil
		}
		row = &outbox.Stat{
			Start: time.Unix(at.key.hour*3600, 0).UTC(), Step: time.Duration(at.step) * time.Hour,
			Endpoint: ep.name, Type: at.key.kind, Tenant: at.key.tenant,
		}
		if !r.query.Match(row) {
			return nil
		}
		r.rows[at] = row
	}
	return add(row)
}

// hourNow is the hour since 1970, by the wall clock.
func (s *Store) hourNow() int64 { return s.clock.Wall(s.clock.Now()).Unix() / 3600 }
