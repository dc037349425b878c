package redisstream

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	mendEvery  = time.Minute
	mendGroup  = 50                    // events of one script call
	mendPause  = 20 * time.Millisecond // between two looks at some events
	checkGroup = 100                   // endpoints of one script call
	linePage   = 1000                  // entries of a line that are read at once
)

// mend looks once a minute whether all that is pending is in a line, in the name of the
// fleet, until Close.
func (sh *shard) mend() {
	for sh.s.sleep(mendEvery) {
		ctx := context.Background()
		joined, err := sh.session()
		if err != nil {
			continue
		}
		node, err := sh.node(ctx)
		if err != nil {
			continue // the next call says so
		}
		mine, err := node.SetNX(ctx, sh.prefix+"reconciler", joined.consumer, mendEvery*9/10).Result()
		if err != nil || !mine {
			continue
		}
		mended, _ := sh.reconcile(ctx) // noted; the next round tries again
		if mended > 0 {
			sh.s.log.Warn().Int("events", mended).Str("code", "outbox_reconciled").
				Msg("pending deliveries were in no line and are due again: somebody deleted keys of this namespace, or redis lost some")
		}
	}
}

// reconcile finds endpoints whose lines lack what counts say is pending, because somebody
// deleted or trimmed keys, or half of them came back from a backup, and puts the deliveries
// back in line. It reads events only where something is missing.
func (sh *shard) reconcile(ctx context.Context) (mended int, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	fields, err := node.HKeys(ctx, sh.counts).Result()
	if err != nil {
		return 0, sh.note(err)
	}
	lacking := map[string]bool{}
	for some := range slices.Chunk(endpointsOf(fields), checkGroup) {
		args := []any{sh.prefix}
		for _, name := range some {
			args = append(args, name)
		}
		v, err := sh.eval(ctx, &sh.s.scripts.check, []string{sh.counts, sh.leases, sh.agenda}, args)
		if err != nil {
			return mended, err
		}
		list, err := texts(v, 0)
		if err != nil {
			return mended, err
		}
		for i := 0; i+1 < len(list); i += 2 {
			if list[i+1] == "" {
				lacking[list[i]] = true
				continue
			}
			n, err := sh.free(ctx, list[i], list[i+1])
			if err != nil {
				return mended, err
			}
			mended += n
		}
	}
	if len(lacking) == 0 {
		return mended, nil
	}
	n, err := sh.mendEndpoints(ctx, lacking)
	return mended + n, err
}

// endpointsOf are the endpoints that fields of the counts name.
func endpointsOf(fields []string) []string {
	all := map[string]bool{}
	for _, f := range fields {
		if i := strings.LastIndexByte(f, '|'); i >= 0 {
			all[f[:i]] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// free puts entries that nobody can claim at the end of the line.
func (sh *shard) free(ctx context.Context, endpoint, line string) (int, error) {
	v, err := sh.eval(ctx, &sh.s.scripts.free, []string{sh.meta}, []any{sh.prefix, endpoint, line})
	n, _ := v.(int64)
	return int(n), err
}

// mendEndpoints looks through all events for pending deliveries that are in no line of these
// endpoints.
func (sh *shard) mendEndpoints(ctx context.Context, lacking map[string]bool) (mended int, err error) {
	back := map[string]bool{}
	for name := range lacking {
		if err := sh.readLine(ctx, name, back); err != nil {
			return 0, err
		}
	}
	node, err := sh.node(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	for cursor := uint64(0); ; {
		var found []string
		if found, cursor, err = node.Scan(ctx, cursor, escape(sh.prefix)+"e:*", 500).Result(); err != nil {
			return mended, sh.note(err)
		}
		for some := range slices.Chunk(found, mendGroup) {
			n, err := sh.mendEvents(ctx, some, lacking, back)
			if err != nil {
				return mended, err
			}
			mended += n
		}
		if cursor == 0 || !sh.s.sleep(mendPause) {
			return mended, nil
		}
	}
}

// readLine notes the deliveries that came back and are in the line: of the others the
// script knows where they are.
func (sh *shard) readLine(ctx context.Context, endpoint string, back map[string]bool) error {
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	for from := "-"; from != ""; {
		page, err := node.XRangeN(ctx, sh.backlog(endpoint), from, "+", linePage).Result()
		if err != nil {
			return sh.note(err)
		}
		from = ""
		for _, m := range page {
			tail, _ := m.Values["d"].(string)
			if r, err := parseTail(tail); err == nil && parseEntry('q', m.ID).order != r.order {
				back[tail] = true
			}
			if len(page) == linePage {
				from = "(" + m.ID
			}
		}
	}
	return nil
}

// escape makes a key a pattern of itself.
func escape(key string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(key)
}

func (sh *shard) mendEvents(ctx context.Context, found []string, lacking, back map[string]bool) (int, error) {
	node, err := sh.node(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	p := node.Pipeline()
	read := make([]*redis.MapStringStringCmd, len(found))
	for i, key := range found {
		read[i] = p.HGetAll(ctx, key)
	}
	_, failed := p.Exec(ctx)
	if err := outcomes(read, failed); err != nil {
		return 0, sh.note(err)
	}
	args := []any{sh.prefix}
	for i, key := range found {
		if isStray(read[i].Err()) {
			sh.stray(strings.TrimPrefix(key, sh.event("")))
			continue
		}
		fields := read[i].Val()
		if len(fields) == 0 {
			continue
		}
		if fields["o"] == "" && fields["e"] == "" {
			// Somebody deleted the event while a delivery was under way, and its record is
			// left. Only the fields that were seen go: the id may be accepted again by now.
			if err := node.HDel(ctx, key, slices.Collect(maps.Keys(fields))...).Err(); err != nil {
				return 0, sh.note(err)
			}
			continue
		}
		for _, m := range sh.pendingOf(strings.TrimPrefix(key, sh.event("")), fields) {
			if tail := m.ref.tail(); lacking[m.endpoint] && !back[tail] {
				args = append(args, tail, m.endpoint)
			}
		}
	}
	if len(args) == 1 {
		return 0, nil
	}
	v, err := sh.eval(ctx, &sh.s.scripts.mend, []string{sh.meta}, args)
	if err != nil {
		return 0, err
	}
	mended, _ := v.(int64)
	return int(mended), nil
}

// pendingOf are the deliveries of an event that are not over.
func (sh *shard) pendingOf(id string, fields map[string]string) (list []named) {
	_, endpoints, err := decodeHead(id, fields["e"])
	order, errOrder := strconv.ParseInt(fields["o"], 10, 64)
	if err != nil || errOrder != nil {
		sh.s.log.Error().Str("event_id", id).Msg("an event in redis cannot be read")
		return nil
	}
	for _, m := range deliveriesOf(id, order, endpoints, fields) {
		if record, settled := fields[strconv.Itoa(m.ref.n)]; !settled || strings.HasPrefix(record, "p") {
			list = append(list, m)
		}
	}
	return list
}
