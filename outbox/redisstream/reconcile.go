package redisstream

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	mendEvery = time.Minute
	mendSlice = 5000 // keys that are looked at each time, by one Relay of the fleet
	mendGroup = 50   // events of one script call
)

// reconcile looks through a slice of the events for pending deliveries that are in
// no line and in no lease: somebody deleted or trimmed keys, or half of them came back
// from a backup. They are put back in line. It returns where to go on, 0 at the end.
func (sh *shard) reconcile(ctx context.Context, cursor uint64) (next uint64, mended int, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return cursor, 0, sh.note(err)
	}
	for seen := 0; seen < mendSlice; {
		var found []string
		if found, cursor, err = node.Scan(ctx, cursor, escape(sh.prefix)+"e:*", 500).Result(); err != nil {
			return cursor, mended, sh.note(err)
		}
		seen += 500
		for len(found) > 0 {
			n := min(len(found), mendGroup)
			some, err := sh.mendEvents(ctx, found[:n])
			if err != nil {
				return cursor, mended, err
			}
			mended, found = mended+some, found[n:]
		}
		if cursor == 0 {
			break
		}
	}
	return cursor, mended, nil
}

// escape makes a key a pattern of itself.
func escape(key string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(key)
}

func (sh *shard) mendEvents(ctx context.Context, found []string) (int, error) {
	node, err := sh.node(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	p := node.Pipeline()
	for _, key := range found {
		p.HGetAll(ctx, key)
	}
	cmds, err := p.Exec(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	args := []any{sh.prefix}
	for i, cmd := range cmds {
		read, ok := cmd.(interface{ Val() map[string]string })
		if !ok || len(read.Val()) == 0 {
			continue
		}
		fields := read.Val()
		id := strings.TrimPrefix(found[i], sh.event(""))
		if fields["o"] == "" && fields["e"] == "" {
			// Somebody deleted the event while a delivery was under way, and its record is
			// left. Only the fields that were seen go: the id may be accepted again by now.
			if err := node.HDel(ctx, found[i], slices.Collect(maps.Keys(fields))...).Err(); err != nil {
				return 0, sh.note(err)
			}
			continue
		}
		_, endpoints, err := decodeEvent(id, fields["e"])
		order, errOrder := strconv.ParseInt(fields["o"], 10, 64)
		if err != nil || errOrder != nil {
			sh.s.log.Error().Str("event_id", id).Msg("an event in redis cannot be read")
			continue
		}
		for n, name := range endpoints {
			if record, settled := fields[strconv.Itoa(n)]; !settled || strings.HasPrefix(record, "p") {
				args = append(args, ref{order: order, n: n, total: len(endpoints), event: id}.tail(), name)
			}
		}
	}
	if len(args) == 1 {
		return 0, nil
	}
	v, err := sh.eval(ctx, &sh.s.scripts.mend, []string{sh.lease, sh.bell}, args)
	if err != nil {
		return 0, err
	}
	mended, _ := v.(int64)
	return int(mended), nil
}

// mend reconciles when its time has come and no other Relay does it.
func (sh *shard) mend(ctx context.Context, joined *session) {
	sh.mu.Lock()
	due := time.Since(sh.mended) >= mendEvery
	cursor := sh.cursor
	if due {
		sh.mended = time.Now()
	}
	sh.mu.Unlock()
	if !due {
		return
	}
	node, err := sh.node(ctx)
	if err != nil {
		return // the next call says so
	}
	mine, err := node.SetNX(ctx, sh.prefix+"reconciler", joined.fences.relay, mendEvery*9/10).Result()
	if err != nil || !mine {
		return
	}
	next, mended, err := sh.reconcile(ctx, cursor)
	if err != nil {
		return // noted; the next round goes on from where this one began
	}
	sh.mu.Lock()
	sh.cursor = next
	sh.mu.Unlock()
	if mended > 0 {
		sh.s.log.Warn().Int("events", mended).Str("code", "outbox_reconciled").
			Msg("pending deliveries were in no line and are due again: somebody deleted keys of this namespace, or redis lost some")
	}
}
