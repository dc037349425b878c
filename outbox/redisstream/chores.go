package redisstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// chores is what a heartbeat found to do for the history. Any Relay does it; where several do so at once one
// of them has an effect.
type chores struct{ logged, took, erased int }

// remember passes what the heartbeat told to the keeper of the history.
func (sh *shard) remember(logged, took, erased string) {
	var c chores
	c.logged, _ = strconv.Atoi(logged)
	c.took, _ = strconv.Atoi(took)
	c.erased, _ = strconv.Atoi(erased)
	if c.logged < sh.s.o.segment && c.took == 0 && c.erased == 0 {
		return
	}
	select {
	case sh.toDo <- c:
	default: // it is at work
	}
}

// keepHistory does the chores, until Close.
func (sh *shard) keepHistory() {
	var rolled time.Time
	next := time.NewTimer(rollEvery) // when old hours are folded
	defer next.Stop()
	for {
		var c chores
		var err error
		select {
		case <-sh.s.stop:
			return
		case <-next.C:
			err = sh.foldOld()
			next.Reset(foldEvery)
		case c = <-sh.toDo:
		}
		if c.took > 0 && (time.Since(rolled) > rollEvery || c.took > rollGroup) {
			err = errors.Join(err, sh.rollAll())
			rolled = time.Now()
		}
		if c.logged > 0 || c.erased > 0 {
			err = errors.Join(err, sh.sealAll(c))
		}
		if err != nil && !sh.s.sleep(retryMost) { // it is noted; the next heartbeat asks again
			return
		}
	}
}

// foldEvery is how often old hours are folded into days.
const foldEvery = time.Hour

func (sh *shard) foldOld() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return sh.fold(ctx)
}

func (sh *shard) rollAll() error {
	for more := true; more; {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		var err error
		more, err = sh.roll(ctx)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// sealAll makes segments of what the log has too much, and takes erased fields out of segments.
func (sh *shard) sealAll(c chores) error {
	for left := c.logged; left >= sh.s.o.segment; {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		n, err := sh.seal(ctx)
		cancel()
		if err != nil || n == 0 {
			return err
		}
		if left -= n; left >= sh.s.o.segment { // after a burst it goes on for long, and statistics must not wait for it
			if err := sh.rollAll(); err != nil {
				return err
			}
		}
	}
	if c.erased == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return sh.forgetFields(ctx)
}

// logPage is how many entries of the log, each with the events of a group of accepts, are read at once.
const logPage = 64

// seal makes a segment of the oldest events of the log, and returns how many it has: 0 if there are
// too few, or another Relay was first.
func (sh *shard) seal(ctx context.Context) (int, error) {
	node, err := sh.node(ctx)
	if err != nil {
		return 0, sh.note(err)
	}
	sealed, err := node.HGet(ctx, sh.meta, "sealed").Int64()
	if err != nil && !isNil(err) {
		return 0, sh.note(err)
	}
	var list []logged
	last := ""
	for from := "-"; len(list) < sh.s.o.segment; from = "(" + last {
		page, err := sh.readLog(ctx, "XRANGE", from, "+", logPage)
		if err != nil {
			return 0, err
		}
		if len(page) == 0 {
			return 0, nil
		}
		for _, group := range page {
			if list, last = append(list, group.events...), group.id; len(list) >= sh.s.o.segment {
				break
			}
		}
	}
	name := strconv.FormatInt(sealed, 10)
	done, err := sh.writeSegment(ctx, name, list, replaced{sealed: sealed, behind: behind(last)})
	if err != nil || !done {
		return 0, err
	}
	return len(list), nil
}

// logGroup is an entry of the log.
type logGroup struct {
	id     string
	events []logged // in the order of accept
}

// readLog reads entries of the log, with XRANGE or XREVRANGE. It does without the
// maps that the client makes of entries, because all events pass here.
func (sh *shard) readLog(ctx context.Context, command, from, to string, most int) ([]logGroup, error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	v, err := node.Do(ctx, command, sh.log, from, to, "COUNT", most).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	list, _ := v.([]any)
	page := make([]logGroup, 0, len(list))
	for _, entry := range list {
		pair, _ := entry.([]any)
		if len(pair) != 2 {
			return nil, errSegment
		}
		texts, err := texts(pair[1], 0)
		if err != nil {
			return nil, err
		}
		g := logGroup{events: make([]logged, 0, len(texts)/2)}
		g.id, _ = pair[0].(string)
		for i := 0; i+1 < len(texts); i += 2 {
			l, err := parseLogged(texts[i], texts[i+1])
			if err != nil {
				return nil, err
			}
			g.events = append(g.events, l)
		}
		page = append(page, g)
	}
	return page, nil
}

// replaced is what a new segment takes the place of: a segment, or the begin of the log.
type replaced struct {
	segment *segment
	sealed  int64  // events that are in segments already
	behind  string // the entry of the log that is the first one to stay
}

// writeSegment writes a segment in one step with the removal of what it replaces, and tells whether this
// Relay was the first to do so.
func (sh *shard) writeSegment(ctx context.Context, name string, list []logged, instead replaced) (bool, error) {
	joined, err := sh.session()
	if err != nil {
		return false, err
	}
	keys := []string{sh.meta, sh.log, sh.segments, sh.segment(name)}
	args := []any{joined.outbox, instead.sealed, instead.sealed + int64(len(list)), "", "", instead.behind, ""}
	if len(list) > 0 {
		g := segment{name: name, first: list[0].order, last: list[len(list)-1].order, events: len(list)}
		args[3], args[4] = g.first, g.member()
		args = append(args, segmentFields(list)...)
	}
	if g := instead.segment; g != nil {
		keys, args[6] = append(keys, sh.segment(g.name)), g.member()
	}
	v, err := sh.eval(ctx, &sh.s.scripts.seal, keys, args)
	done, _ := v.(int64)
	return done == 1, err
}

// rewrite replaces a segment by one of the events that are still kept, without what was erased.
func (sh *shard) rewrite(ctx context.Context, g segment) error {
	orders, ids, err := sh.readSegment(ctx, g)
	if err != nil {
		return err
	}
	var list []logged
	for some := range slices.Chunk(indexes(len(orders)), peekGroup) {
		var keys []string
		var args []any
		for _, i := range some {
			keys = append(keys, sh.event(ids[i].id))
			if only := ids[i].only; only >= 0 {
				args = append(args, orders[i], only, only, "m")
			} else {
				args = append(args, orders[i], 0, -1, "")
			}
		}
		found, err := sh.peek(ctx, keys, args)
		if err != nil {
			return err
		}
		for k, i := range some {
			if found[k] == nil {
				continue
			}
			l := logged{order: orders[i], only: ids[i].only, id: ids[i].id}
			e, endpoints, err := decodeHead(l.id, found[k].head)
			if err != nil {
				return err
			}
			l.event, l.endpoints = *e, endpoints
			if m, ok := madeBy(found[k].made, ref{}); ok && l.only >= 0 {
				l.endpoints = []string{m.endpoint}
			}
			list = append(list, l)
		}
	}
	name, times, _ := strings.Cut(g.name, ".")
	n, _ := strconv.Atoi(times)
	_, err = sh.writeSegment(ctx, fmt.Sprintf("%s.%d", name, n+1), list, replaced{segment: &g})
	return err
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// readSegment reads which events a segment has.
func (sh *shard) readSegment(ctx context.Context, g segment) (orders []int64, ids []kept, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, nil, sh.note(err)
	}
	fields := []string{"o"}
	for k := range (g.events + segmentPage - 1) / segmentPage {
		fields = append(fields, "i"+strconv.Itoa(k))
	}
	values, err := node.HMGet(ctx, sh.segment(g.name), fields...).Result()
	if err != nil {
		return nil, nil, sh.note(err)
	}
	for k, v := range values {
		text, _ := v.(string)
		if k == 0 {
			if orders, err = readOrders(text, g.first); err != nil {
				return nil, nil, err
			}
			continue
		}
		page, err := readIDs(text)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, page...)
	}
	if len(ids) != len(orders) {
		return nil, nil, nil // it was replaced a moment ago
	}
	return orders, ids, nil
}

// forgetFields takes the fields of erased events out of the segments that have them.
func (sh *shard) forgetFields(ctx context.Context) error {
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	orders, err := node.ZRange(ctx, sh.erased, 0, 999).Result()
	if err != nil {
		return sh.note(err)
	}
	done := map[string]bool{}
	for _, text := range orders {
		order, _ := strconv.ParseInt(text, 10, 64)
		list, err := sh.segmentsFrom(ctx, node, order, false, 1)
		if err != nil {
			return err
		}
		switch {
		case len(list) > 0 && list[0].last >= order:
			if !done[list[0].name] {
				if err := sh.rewrite(ctx, list[0]); err != nil {
					return err
				}
				done[list[0].name] = true
			}
		case sh.inLog(ctx, node, order):
			continue // until there is a segment of it
		}
		if err := node.ZRem(ctx, sh.erased, text).Err(); err != nil {
			return sh.note(err)
		}
	}
	return nil
}

// inLog tells whether the log may have an event of this order.
func (sh *shard) inLog(ctx context.Context, node *redis.Client, order int64) bool {
	found, err := node.XRangeN(ctx, sh.log, strconv.FormatInt(order, 10)+"-0", "+", 1).Result()
	return err != nil || len(found) > 0
}

// segmentsFrom returns up to n segments: those that may have events up to an order, last one first, or
// from it on, first one first.
func (sh *shard) segmentsFrom(ctx context.Context, node *redis.Client, order int64, rising bool, n int64) (list []segment, err error) {
	at := strconv.FormatInt(order, 10)
	by := redis.ZRangeArgs{Key: sh.segments, ByScore: true, Rev: true, Start: at, Stop: "-inf", Count: n}
	if rising {
		by.Count = 1 // the one in which the order may be
	}
	members, err := node.ZRangeArgs(ctx, by).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	if rising {
		more, err := node.ZRangeArgs(ctx, redis.ZRangeArgs{Key: sh.segments, ByScore: true, Start: "(" + at, Stop: "+inf", Count: n}).Result()
		if err != nil {
			return nil, sh.note(err)
		}
		members = append(members, more...)
	}
	for _, m := range members {
		g, err := parseSegment(m)
		if err != nil {
			return nil, err
		}
		// The first one may have been replaced by the second one between the two questions.
		if n := len(list); rising && n > 0 && g.base() == list[n-1].base() {
			list = list[:n-1]
		}
		if !rising || g.last >= order {
			list = append(list, g)
		}
	}
	return list, nil
}

const (
	pruneSome  = 4         // segments that one call of Reap looks at
	pruneAgain = time.Hour // between two looks at a segment
)

// prune looks at some old segments, and drops events from them that retention has removed, when these are
// more than half of them.
func (sh *shard) prune(ctx context.Context, r outbox.Retention) error {
	sh.pruning.Lock()
	defer sh.pruning.Unlock()
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	now := time.Now()
	if len(sh.looked) > 10_000 {
		sh.looked = nil
	}
	oldest := sh.clock.at(now).Add(-min(r.Delivered, r.Failed)).UnixMicro()
	looked := 0
	for from := int64(0); looked < pruneSome; {
		list, err := sh.segmentsFrom(ctx, node, from, true, 100)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, g := range list {
			from = g.last + 1
			if g.last > oldest || looked == pruneSome {
				return nil
			}
			if at, ok := sh.looked[g.name]; ok && now.Sub(at) < pruneAgain {
				continue
			}
			looked++
			if sh.looked == nil {
				sh.looked = map[string]time.Time{}
			}
			sh.looked[g.name] = now
			if err := sh.pruneOne(ctx, g); err != nil {
				delete(sh.looked, g.name) // it was not looked at
				return err
			}
		}
	}
	return nil
}

func (sh *shard) pruneOne(ctx context.Context, g segment) error {
	orders, ids, err := sh.readSegment(ctx, g)
	if err != nil {
		return err
	}
	alive := 0
	for some := range slices.Chunk(indexes(len(orders)), 1000) {
		var keys []string
		var args []any
		for _, i := range some {
			only := any("")
			if ids[i].only >= 0 {
				only = ids[i].only
			}
			keys, args = append(keys, sh.event(ids[i].id)), append(args, orders[i], only)
		}
		v, err := sh.eval(ctx, &sh.s.scripts.alive, keys, args)
		if err != nil {
			return err
		}
		text, _ := v.(string)
		alive += strings.Count(text, "1")
	}
	if 2*alive > len(orders) {
		return nil
	}
	delete(sh.looked, g.name)
	return sh.rewrite(ctx, g)
}
