package redisstream

import (
	"context"
	"reflect"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// listed counts the deliveries that match a filter of endpoints and states alone, where states have lists or counts. ok is
// false for any other filter.
func (s *Store) listed(ctx context.Context, f *outbox.Filter) (n int64, ok bool, err error) {
	rest := *f
	rest.Endpoints, rest.Except, rest.States = nil, nil, nil
	if len(f.States) == 0 || slices.Contains(f.States, outbox.Delivered) || !reflect.DeepEqual(rest, outbox.Filter{}) {
		return 0, false, nil
	}
	states := slices.Compact(slices.Sorted(slices.Values(f.States)))
	for _, sh := range s.shards {
		node, err := sh.node(ctx)
		if err != nil {
			return 0, false, sh.note(err)
		}
		counts, err := node.HGetAll(ctx, sh.counts).Result()
		if err != nil {
			return 0, false, sh.note(err)
		}
		p := node.Pipeline()
		var cards []*redis.IntCmd
		for _, name := range endpointsOf(slices.Collect(keysOf(counts))) {
			if f.Endpoints != nil && !slices.Contains(f.Endpoints, name) || slices.Contains(f.Except, name) {
				continue
			}
			count := func(what string) int64 {
				n, _ := strconv.ParseInt(counts[name+"|"+what], 10, 64)
				return n
			}
			for _, state := range states {
				switch {
				case state == outbox.Pending:
					n += count("a") - count("d") - count("f") - count("x")
				case state == outbox.Failed && count("f")+count("t") > 0:
					cards = append(cards, p.ZCard(ctx, sh.failures(name)))
				case state == outbox.Discarded && count("x")+count("t") > 0:
					cards = append(cards, p.ZCard(ctx, sh.discards(name)))
				}
			}
		}
		if len(cards) > 0 {
			if _, err := p.Exec(ctx); err != nil {
				return 0, false, sh.note(err)
			}
		}
		for _, c := range cards {
			n += c.Val()
		}
	}
	return n, true, nil
}
