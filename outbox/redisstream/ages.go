package redisstream

import (
	"cmp"
	"context"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/internal/sorting"
)

// weighted is an order that stands for so many deliveries.
type weighted struct {
	order  int64
	weight float64
}

const (
	agesMost   = 4096 // deliveries of a line from which on only some are looked at
	agesSample = 64   // places that are looked at then
	agesPlace  = 8    // deliveries of a place in a stream
)

// Ages implements outbox.History. Of long lines it looks at some places.
func (s *Store) Ages(ctx context.Context, endpoint string, quantiles []float64) ([]time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	type aged struct {
		age    time.Duration
		weight float64
	}
	var all []aged
	total := 0.0
	for _, sh := range s.shards {
		list, err := sh.waiting(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		for _, w := range list {
			all = append(all, aged{max(0, sh.clock.at(now).Sub(time.UnixMicro(w.order))), w.weight})
			total += w.weight
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	sorting.By(all, func(a, b aged) int { return cmp.Compare(a.age, b.age) })
	ages := make([]time.Duration, len(quantiles))
	for i, q := range quantiles {
		ages[i] = all[len(all)-1].age
		sum := 0.0
		for _, a := range all {
			if sum += a.weight; sum >= q*total-1e-9 {
				ages[i] = a.age
				break
			}
		}
	}
	return ages, nil
}

// waiting are the pending deliveries of an endpoint in a shard, or some of them.
func (sh *shard) waiting(ctx context.Context, endpoint string) (list []weighted, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	for _, stream := range []string{sh.backlog(endpoint), sh.lane(endpoint)} {
		some, err := sh.inStream(ctx, node, stream)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	some, err := sh.returned(ctx, node, endpoint)
	return append(list, some...), err
}

// returned are those that came back.
func (sh *shard) returned(ctx context.Context, node *redis.Client, endpoint string) (list []weighted, err error) {
	key := sh.created(endpoint)
	n, err := node.ZCard(ctx, key).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	if n <= agesMost {
		all, err := node.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{Key: key, Start: 0, Stop: -1}).Result()
		for _, z := range all {
			list = append(list, weighted{int64(z.Score), 1})
		}
		return list, sh.note(err)
	}
	p := node.Pipeline()
	cmds := make([]*redis.ZSliceCmd, agesSample)
	for i := range cmds {
		at := (2*int64(i) + 1) * n / (2 * agesSample)
		cmds[i] = p.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{Key: key, Start: at, Stop: at})
	}
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	for _, cmd := range cmds {
		for _, z := range cmd.Val() {
			list = append(list, weighted{int64(z.Score), float64(n) / agesSample})
		}
	}
	return list, nil
}

// inStream are those that were in line from the start.
func (sh *shard) inStream(ctx context.Context, node *redis.Client, stream string) (list []weighted, err error) {
	n, err := node.XLen(ctx, stream).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	if n <= agesMost {
		all, err := node.XRange(ctx, stream, "-", "+").Result()
		return firsts(all, 1), sh.note(err)
	}
	first, err := node.XRangeN(ctx, stream, "-", "+", 1).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	last, err := node.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil || len(first) == 0 || len(last) == 0 {
		return nil, sh.note(err)
	}
	// The ids are times. Where entries stand close together, one stands for more of them.
	from, to := parseEntry('q', first[0].ID).order, parseEntry('q', last[0].ID).order
	p := node.Pipeline()
	cmds := make([]*redis.XMessageSliceCmd, agesSample)
	for i := range cmds {
		cmds[i] = p.XRangeN(ctx, stream, strconv.FormatInt(from+(to-from)/agesSample*int64(i), 10), "+", agesPlace)
	}
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	sum := 0.0
	for _, cmd := range cmds {
		all := cmd.Val()
		if len(all) == 0 {
			continue
		}
		width := parseEntry('q', all[len(all)-1].ID).order - parseEntry('q', all[0].ID).order
		some := firsts(all, 1/math.Max(1, float64(width)))
		sum += float64(len(some)) / math.Max(1, float64(width))
		list = append(list, some...)
	}
	for i := range list {
		list[i].weight *= float64(n) / sum
	}
	return list, nil
}

// firsts are the entries of deliveries that did not come back: the others are in a set.
func firsts(all []redis.XMessage, weight float64) (list []weighted) {
	for _, m := range all {
		tail, _ := m.Values["d"].(string)
		if r, err := parseTail(tail); err == nil && parseEntry('q', m.ID).order == r.order {
			list = append(list, weighted{r.order, weight})
		}
	}
	return list
}
