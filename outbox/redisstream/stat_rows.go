package redisstream

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/internal/sorting"
	"relay/outbox"
)

const day = 24 * time.Hour

// statRow names a row of statistics.
type statRow struct {
	start int64 // seconds
	step  time.Duration
	key   statKey
}

// tookMost is how many entries of took an answer adds up itself. More are there only when nobody kept the history for a while.
const tookMost = 2 * rollGroup

// Statistics implements outbox.Statistics. What settlements left, and no Relay has added to the rows yet, is added to the answer
// alone: to write it there may take a second after a burst.
func (s *Store) Statistics(ctx context.Context, q outbox.StatQuery) ([]outbox.Stat, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	sum := statSum{q: &q, rows: map[statRow]*outbox.Stat{}}
	for _, sh := range s.shards {
		if err := sh.readStats(ctx, &sum); err != nil {
			return nil, err
		}
	}
	rows := make([]outbox.Stat, 0, len(sum.rows))
	for _, row := range sum.rows {
		rows = append(rows, *row)
	}
	sorting.By(rows, func(a, b outbox.Stat) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant))
	})
	return rows, nil
}

// statSum are the rows of an answer.
type statSum struct {
	q    *outbox.StatQuery
	now  time.Time // of the shard that is read
	rows map[statRow]*outbox.Stat
}

// row is a row of the answer, nil if the query leaves it out. Rows of old hours are those of their day, whether it has them
// already or not, and those of days that are too old are no more.
func (x *statSum) row(p period, key statKey) *outbox.Stat {
	at := time.Unix(p.start, 0)
	if p.step == time.Hour && at.Before(x.now.Add(-outbox.HourlyFor)) {
		p = period{p.day(), day}
		at = time.Unix(p.start, 0)
	}
	if p.step == day && at.Before(x.now.Add(-outbox.DailyFor)) {
		return nil
	}
	name := statRow{p.start, p.step, key}
	if known := x.rows[name]; known != nil {
		return known
	}
	row := &outbox.Stat{Start: at.UTC(), Step: p.step, Endpoint: key.endpoint, Type: key.eventType, Tenant: key.tenant}
	if !x.q.Match(row) {
		return nil
	}
	x.rows[name] = row
	return row
}

// period is an hour or a day of which there are rows.
type period struct {
	start int64 // seconds
	step  time.Duration
}

func (p period) day() int64 { return p.start - p.start%int64(day/time.Second) }

// periodsBetween are the hours and days that begin from since and before until, in seconds; until 0 is no bound.
func (sh *shard) periodsBetween(ctx context.Context, node *redis.Client, since, until int64) ([]period, error) {
	by := redis.ZRangeArgs{Key: sh.periods, ByScore: true, Start: strconv.FormatInt(since, 10), Stop: "+inf"}
	if until != 0 {
		by.Stop = "(" + strconv.FormatInt(until, 10)
	}
	names, err := node.ZRangeArgs(ctx, by).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	all := make([]period, 0, len(names))
	for _, name := range names {
		p := period{step: time.Hour}
		if name[0] == 'd' {
			p.step = day
		}
		p.start, _ = strconv.ParseInt(name[1:], 10, 64)
		all = append(all, p)
	}
	return all, nil
}

// readStats adds the rows of a shard that match. A day, its hours and what is not in them yet are read at one moment,
// since a Relay may move rows meanwhile.
func (sh *shard) readStats(ctx context.Context, sum *statSum) error {
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	for more := true; more; {
		left, err := node.XLen(ctx, sh.took).Result()
		if err != nil {
			return sh.note(err)
		}
		if more = left > tookMost; more {
			if _, err := sh.roll(ctx); err != nil {
				return err
			}
		}
	}
	days, err := sh.days(ctx, node, sum.q)
	if err != nil {
		return err
	}
	sum.now = sh.clock.at(time.Now())
	for _, start := range days {
		if err := sh.readDay(ctx, start, sum); err != nil {
			return err
		}
	}
	return nil
}

// days are those of which there may be rows, by their begin in seconds.
func (sh *shard) days(ctx context.Context, node *redis.Client, q *outbox.StatQuery) ([]int64, error) {
	since, until := int64(0), int64(0)
	if !q.Since.IsZero() {
		since = q.Since.Unix() / 86400 * 86400 // with the whole day: its hours may be moved to it
	}
	if !q.Until.IsZero() {
		until = q.Until.Unix() + 1
	}
	p := node.Pipeline()
	first, last := p.XRangeN(ctx, sh.took, "-", "+", 1), p.XRevRangeN(ctx, sh.took, "+", "-", 1)
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	periods, err := sh.periodsBetween(ctx, node, since, until) // after took, so that what moves is in one of them
	if err != nil {
		return nil, err
	}
	seen := map[int64]bool{}
	for _, p := range periods {
		seen[p.day()] = true
	}
	if len(first.Val()) > 0 && len(last.Val()) > 0 {
		for start := hourOf(first.Val()[0].ID); start <= hourOf(last.Val()[0].ID); start += 3600 {
			if start >= since && (until == 0 || start < until) {
				seen[period{start, time.Hour}.day()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// readDay adds the rows of a day.
func (sh *shard) readDay(ctx context.Context, start int64, sum *statSum) error {
	parts := []period{{start, day}}
	for h := range int64(24) {
		parts = append(parts, period{start + h*3600, time.Hour})
	}
	keys := make([]string, 0, len(parts)+1)
	for _, p := range parts {
		keys = append(keys, sh.period(p))
	}
	v, err := sh.eval(ctx, &sh.s.scripts.rows, append(keys, sh.took), []any{start * 1000, (start+86400)*1000 - 1})
	if err != nil {
		return err
	}
	list, _ := v.([]any)
	if len(list) != len(parts)+1 {
		return fmt.Errorf("%w: unexpected answer of the rows script", outbox.ErrUnavailable)
	}
	for i, p := range parts {
		if err := sum.addKept(p, list[i]); err != nil {
			return err
		}
	}
	left, err := unadded(list[len(parts)])
	if err != nil {
		return err
	}
	for start, rows := range left {
		kept, _ := list[1+(start-parts[0].start)/3600].([]any)
		sum.addLeft(start, rows, newCap(kept, len(rows), sh.statKeys()))
	}
	return nil
}

// addKept adds the rows of an hour or a day.
func (x *statSum) addKept(p period, part any) error {
	flat, err := texts(part, 0)
	if err != nil {
		return err
	}
	for k := 0; k+1 < len(flat); k += 2 {
		key := parseStatKey(flat[k])
		row := x.row(p, key)
		if row == nil {
			continue
		}
		kept, err := parseStat(flat[k+1])
		if err != nil {
			return fmt.Errorf("%w: statistics of endpoint %s cannot be read", outbox.ErrCorrupt, key.endpoint)
		}
		row.Add(&kept)
	}
	return nil
}

// statCap bounds the rows of an hour as grow does.
type statCap struct {
	kept  map[string]bool // fields of the hour; nil where the bound is far
	n     int64
	bound int64
}

// newCap is for an hour with these fields and values, that gets so many rows more at most.
func newCap(kept []any, more int, bound int64) *statCap {
	c := &statCap{n: int64(len(kept) / 2), bound: bound}
	if c.n+int64(more) <= bound {
		return c
	}
	c.kept = make(map[string]bool, len(kept)/2)
	for k := 0; k < len(kept); k += 2 {
		field, _ := kept[k].(string)
		c.kept[field] = true
	}
	return c
}

// key is the one that a row is counted under.
func (c *statCap) key(key statKey) statKey {
	switch {
	case c.kept == nil || c.kept[key.field()]:
	case c.n >= c.bound:
		return statKey{endpoint: key.endpoint}
	default:
		c.n++
	}
	return key
}

// addLeft adds what is not in its hour yet. It goes by the order of keys, so that each answer counts the same ones under a bound.
func (x *statSum) addLeft(start int64, rows map[statKey]*outbox.Stat, most *statCap) {
	byField := func(a, b statKey) int { return cmp.Compare(a.field(), b.field()) }
	for _, key := range slices.SortedFunc(maps.Keys(rows), byField) {
		if row := x.row(period{start, time.Hour}, most.key(key)); row != nil {
			row.Add(rows[key])
		}
	}
}

// unadded reads entries of took.
func unadded(part any) (hours, error) {
	entries, _ := part.([]any)
	left := hours{}
	for _, one := range entries {
		pair, _ := one.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("%w: unexpected entry in an answer of the rows script", outbox.ErrUnavailable)
		}
		id, _ := pair[0].(string)
		flat, err := texts(pair[1], 0)
		if err != nil {
			return nil, err
		}
		m := redis.XMessage{ID: id, Values: map[string]any{}}
		for k := 0; k+1 < len(flat); k += 2 {
			m.Values[flat[k]] = flat[k+1]
		}
		left.add(m)
	}
	return left, nil
}

// foldGroup is how many rows are moved by one call.
const foldGroup = 500

// fold moves the rows of old hours to their days, and removes old days.
func (sh *shard) fold(ctx context.Context) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	now := sh.clock.at(time.Now())
	old, err := sh.periodsBetween(ctx, node, 0, now.Add(-outbox.HourlyFor).Unix())
	if err != nil {
		return err
	}
	for _, p := range old {
		if p.step == time.Hour {
			err = sh.foldHour(ctx, node, joined, p)
		} else if time.Unix(p.start, 0).Before(now.Add(-outbox.DailyFor)) {
			err = sh.removeDay(ctx, node, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (sh *shard) foldHour(ctx context.Context, node *redis.Client, joined *session, hour period) error {
	of := period{hour.day(), day}
	rows, err := node.HGetAll(ctx, sh.period(hour)).Result()
	if err != nil {
		return sh.note(err)
	}
	fields := make([]string, 0, len(rows))
	for f := range rows {
		fields = append(fields, f)
	}
	if len(fields) == 0 { // somebody deleted it
		return sh.note(node.ZRem(ctx, sh.periods, "h"+strconv.FormatInt(hour.start, 10)).Err())
	}
	for some := range slices.Chunk(fields, foldGroup) {
		before, err := node.HMGet(ctx, sh.period(of), some...).Result()
		if err != nil {
			return sh.note(err)
		}
		args := []any{joined.outbox, hour.start, of.start}
		for i, f := range some {
			row, err := parseStat(rows[f])
			text, _ := before[i].(string)
			if text != "" && err == nil {
				var sum outbox.Stat
				sum, err = parseStat(text)
				row.Add(&sum)
			}
			if err != nil {
				return fmt.Errorf("%w: statistics of endpoint %s cannot be read", outbox.ErrCorrupt, parseStatKey(f).endpoint)
			}
			args = append(args, f, rows[f], text, appendStat(nil, &row))
		}
		if _, err := sh.eval(ctx, &sh.s.scripts.fold, []string{sh.meta, sh.periods, sh.period(hour), sh.period(of)}, args); err != nil {
			return err
		}
	}
	return nil
}

func (sh *shard) removeDay(ctx context.Context, node *redis.Client, p period) error {
	rows, err := node.HGetAll(ctx, sh.period(p)).Result()
	if err != nil {
		return sh.note(err)
	}
	freed := int64(0)
	for f, v := range rows {
		freed += int64(len(f) + len(v) + statCost)
	}
	gone, err := node.Del(ctx, sh.period(p)).Result() // of several Relays that do so one removes it
	if err == nil && gone > 0 {
		err = node.HIncrBy(ctx, sh.meta, "bytes", -freed).Err()
	}
	if err == nil {
		err = node.ZRem(ctx, sh.periods, "d"+strconv.FormatInt(p.start, 10)).Err()
	}
	return sh.note(err)
}
