package redisstream

import (
	"cmp"
	"context"
	"fmt"
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

// Statistics implements outbox.Statistics.
func (s *Store) Statistics(ctx context.Context, q outbox.StatQuery) ([]outbox.Stat, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	sum := map[statRow]*outbox.Stat{}
	for _, sh := range s.shards {
		for more := true; more; {
			var err error
			if more, err = sh.roll(ctx); err != nil {
				return nil, err
			}
		}
		if err := sh.fold(ctx); err != nil {
			return nil, err
		}
		if err := sh.readStats(ctx, &q, sum); err != nil {
			return nil, err
		}
	}
	rows := make([]outbox.Stat, 0, len(sum))
	for _, row := range sum {
		rows = append(rows, *row)
	}
	sorting.By(rows, func(a, b outbox.Stat) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant))
	})
	return rows, nil
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

// readStats adds the rows of a shard that match. A day and its hours are read at one moment, since a Relay may
// move rows from the hours to the day.
func (sh *shard) readStats(ctx context.Context, q *outbox.StatQuery, sum map[statRow]*outbox.Stat) error {
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	since, until := int64(0), int64(0)
	if !q.Since.IsZero() {
		since = q.Since.Unix() / 86400 * 86400 // with the whole day: its hours may be moved to it
	}
	if !q.Until.IsZero() {
		until = q.Until.Unix() + 1
	}
	periods, err := sh.periodsBetween(ctx, node, since, until)
	if err != nil {
		return err
	}
	seen := map[int64]bool{}
	for _, p := range periods {
		start := p.day()
		if seen[start] {
			continue
		}
		seen[start] = true
		parts := []period{{start, day}}
		for h := range int64(24) {
			parts = append(parts, period{start + h*3600, time.Hour})
		}
		if err := sh.readDay(ctx, parts, q, sum); err != nil {
			return err
		}
	}
	return nil
}

func (sh *shard) readDay(ctx context.Context, parts []period, q *outbox.StatQuery, sum map[statRow]*outbox.Stat) error {
	keys := make([]string, len(parts))
	for i, p := range parts {
		keys[i] = sh.period(p)
	}
	v, err := sh.eval(ctx, &sh.s.scripts.rows, keys, nil)
	if err != nil {
		return err
	}
	list, _ := v.([]any)
	for i, part := range list {
		flat, err := texts(part, 0)
		if err != nil {
			return err
		}
		for k := 0; k+1 < len(flat); k += 2 {
			key := parseStatKey(flat[k])
			row := outbox.Stat{Start: time.Unix(parts[i].start, 0).UTC(), Step: parts[i].step, Endpoint: key.endpoint, Type: key.eventType, Tenant: key.tenant}
			if !q.Match(&row) {
				continue
			}
			kept, err := parseStat(flat[k+1])
			if err != nil {
				return fmt.Errorf("%w: statistics of endpoint %s cannot be read", outbox.ErrCorrupt, key.endpoint)
			}
			row.Add(&kept)
			name := statRow{parts[i].start, parts[i].step, key}
			if before := sum[name]; before != nil {
				before.Add(&row)
			} else {
				sum[name] = &row
			}
		}
	}
	return nil
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
