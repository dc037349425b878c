package redisstream

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// orphanAge is longer than any call that may still be under way.
const orphanAge = 6 * time.Second

const (
	claimsMost  = 100_000 // more than one Relay has of an endpoint
	expireGroup = 1000    // claims of one script call
)

// orphan is a claim that Redis has and no process works on.
type orphan struct {
	endpoint string
	entry    entry
}

// claimsOf returns the claims that a consumer has in Redis. It asks about many endpoints in one round trip, because a
// heartbeat waits for it.
func (sh *shard) claimsOf(ctx context.Context, consumer string) (list []orphan, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	endpoints, err := node.ZRange(ctx, sh.leases, 0, -1).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	for some := range slices.Chunk(endpoints, checkGroup) {
		p := node.Pipeline()
		var asked []stream
		var answers []*redis.XPendingExtCmd
		for _, name := range some {
			for _, line := range []byte("qx") {
				asked = append(asked, stream{line, name})
				answers = append(answers, p.XPendingExt(ctx, &redis.XPendingExtArgs{
					Stream: sh.stream(entry{line: line}, name), Group: group, Start: "-", End: "+", Count: claimsMost, Consumer: consumer,
				}))
			}
		}
		_, failed := p.Exec(ctx)
		for i, answer := range answers {
			claims, err := answer.Result()
			if claims == nil && err == nil {
				err = failed // see result
			}
			if reply(err) == "no_group" {
				continue
			}
			if err != nil {
				return nil, sh.note(err)
			}
			for _, c := range claims {
				list = append(list, orphan{asked[i].endpoint, parseEntry(asked[i].line, c.ID)})
			}
		}
	}
	return list, nil
}

// expire ends the leases of claims that no process works on.
func (sh *shard) expire(ctx context.Context, consumer string, list []orphan) (int, error) {
	expired := 0
	for some := range slices.Chunk(list, expireGroup) {
		args := []any{sh.prefix, consumer}
		for _, o := range some {
			args = append(args, o.endpoint, string(o.entry.line), o.entry.id())
		}
		v, err := sh.eval(ctx, &sh.s.scripts.expire, []string{sh.leases}, args)
		if err != nil {
			return expired, err
		}
		n, _ := v.(int64)
		expired += int(n)
	}
	return expired, nil
}

// seekOrphans looks for claims of this Relay that it does not know of, since the
// answer to the script that made them was lost. Unknown twice in a row means so.
func (sh *shard) seekOrphans(ctx context.Context, joined *session) {
	sh.mu.Lock()
	unsure, before := sh.unsure, sh.orphans
	sh.mu.Unlock()
	if unsure.IsZero() || time.Since(unsure) < orphanAge {
		return
	}
	claims, err := sh.claimsOf(ctx, joined.consumer)
	if err != nil {
		return // noted; the next tick tries again
	}
	known := sh.known()
	unknown := map[orphan]bool{}
	var lost []orphan
	for _, o := range claims {
		if known[o] {
			continue
		}
		unknown[o] = true
		if before[o] {
			lost = append(lost, o)
		}
	}
	if _, err := sh.expire(ctx, joined.consumer, lost); err != nil {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case sh.unsure != unsure: // it happened again meanwhile
		sh.orphans = nil
	case before == nil && len(unknown) > 0:
		sh.orphans, sh.unsure = unknown, time.Now()
	default:
		sh.orphans, sh.unsure = nil, time.Time{}
	}
}

// known are the claims in this shard that this process has.
func (sh *shard) known() map[orphan]bool {
	sh.s.mu.Lock()
	defer sh.s.mu.Unlock()
	all := make(map[orphan]bool, len(sh.s.leases))
	for _, h := range sh.s.leases {
		if h.shard == sh {
			all[orphan{h.claim.Endpoint, h.entry}] = true
		}
	}
	return all
}
