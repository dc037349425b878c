package redisstream

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"relay/internal/sorting"
	"relay/outbox"
)

// ranges is a source for all others: the log of events, and the segments of those that were in it before.
type ranges struct {
	sc     *scan
	lists  *lists // to compare with, nil for none
	logged bool   // the log was read to its begin
	groups int    // of the log that are read next
	step   int    // segments that are read next
	wanted []alternatives
}

// alternatives are terms of which one must hold.
type alternatives struct {
	terms    []uint64
	endpoint bool // they tell numbers of deliveries
	likely   bool // they are the types of the segment that TypeLike holds for
}

// alternativesMost is how many terms are looked up in a segment at most, instead of a look at each event.
const alternativesMost = 200

func newRanges(sc *scan, l *lists) *ranges {
	r := &ranges{sc: sc, lists: l, groups: 2, step: 1}
	f := &sc.terms
	add := func(kind byte, values []string) {
		if len(values) == 0 || len(values) > alternativesMost || slices.Contains(values, "") {
			return
		}
		a := alternatives{endpoint: kind == 'e'}
		for _, v := range values {
			a.terms = append(a.terms, term(kind, v))
		}
		r.wanted = append(r.wanted, a)
	}
	add('e', f.Endpoints)
	if add('t', f.Types); len(f.Types) == 0 && f.TypeLike != nil {
		r.wanted = append(r.wanted, alternatives{likely: true})
	}
	add('n', f.Tenants)
	if f.Key != "" {
		add('k', []string{f.Key})
	}
	for _, field := range f.Fields {
		r.wanted = append(r.wanted, alternatives{terms: []uint64{fieldTerm(field)}})
	}
	if f.Manual != nil && *f.Manual {
		r.wanted = append(r.wanted, alternatives{terms: []uint64{term('m', "")}})
	}
	return r
}

func (r *ranges) next(ctx context.Context, low, high int64) (list []candidate, covered int64, done bool, err error) {
	node, err := r.sc.sh.node(ctx)
	if err != nil {
		return nil, 0, false, r.sc.sh.note(err)
	}
	if r.sc.q.Oldest {
		return r.rising(ctx, node, low, high)
	}
	if !r.logged {
		list, covered, err = r.newest(ctx, node, low, high)
		if err != nil || !r.logged || len(list) > 0 {
			return list, covered, err == nil && covered <= low, err
		}
		high = min(high, covered-1)
	}
	return r.segments(ctx, node, low, high)
}

// newest reads a page of the log, newest event first. What leaves the log meanwhile is found in segments later.
func (r *ranges) newest(ctx context.Context, node *redis.Client, low, high int64) (list []candidate, covered int64, err error) {
	sh, end := r.sc.sh, "+"
	if high < farthest { // entries have the order of their last event
		at, err := node.XRangeN(ctx, sh.log, strconv.FormatInt(high, 10)+"-0", "+", 1).Result()
		if err != nil {
			return nil, 0, sh.note(err)
		}
		if len(at) > 0 {
			end = at[0].ID
		}
	}
	page, err := sh.readLog(ctx, "XREVRANGE", end, "-", r.groups)
	if err != nil {
		return nil, 0, err
	}
	r.logged = len(page) < r.groups
	r.groups = min(4*r.groups, logPage)
	covered = high + 1
	for _, group := range page {
		slices.Reverse(group.events)
		for _, l := range group.events {
			covered = min(covered, l.order)
			if l.order >= low && l.order <= high {
				list = append(list, r.sc.candidates(l)...)
			}
		}
	}
	return list, covered, nil
}

// candidates are the deliveries of an entry of the log that may match.
func (sc *scan) candidates(l logged) []candidate {
	item := outbox.Item{Type: l.event.Type, Tenant: l.event.Tenant, Key: l.event.Key, Fields: l.event.Fields}
	item.Manual = l.only >= 0
	if l.only < 0 && sc.terms.Endpoints == nil && len(l.endpoints) > 0 {
		any := sc.terms
		any.Except = nil
		if !any.Match(&item) {
			return nil
		}
		return []candidate{sc.whole(candidate{order: l.order, id: l.id})}
	}
	var list []candidate
	for n, name := range l.endpoints {
		if l.only >= 0 {
			n = l.only
		}
		item.Endpoint = name
		if sc.terms.Match(&item) {
			list = append(list, candidate{order: l.order, low: n, high: n, made: l.only >= 0, id: l.id})
		}
	}
	if !sc.q.Oldest {
		slices.Reverse(list)
	}
	return list
}

// whole asks for the first deliveries of an event, in the order of the query.
func (sc *scan) whole(c candidate) candidate {
	c.low, c.high = -windowSize, maxFanOut
	if sc.q.Oldest {
		c.low, c.high = 0, windowSize-1
	}
	return c
}

// rising reads segments, then the log: it looks for segments again after that, as the log may have become one.
func (r *ranges) rising(ctx context.Context, node *redis.Client, low, high int64) (list []candidate, covered int64, done bool, err error) {
	sh := r.sc.sh
	of, err := sh.segmentsFrom(ctx, node, low, true, 1)
	if err != nil {
		return nil, 0, false, err
	}
	if len(of) > 0 {
		if of[0].first > high {
			return nil, 0, true, nil
		}
		list, covered, _, err = r.segments(ctx, node, low, high)
		return list, covered, covered >= high, err
	}
	page, err := sh.readLog(ctx, "XRANGE", strconv.FormatInt(low, 10)+"-0", "+", logPage)
	if err != nil {
		return nil, 0, false, err
	}
	if of, err = sh.segmentsFrom(ctx, node, low, true, 1); err != nil || len(of) > 0 {
		return nil, low - 1, false, err
	}
	for _, group := range page {
		for _, l := range group.events {
			covered = max(covered, l.order)
			if l.order >= low && l.order <= high {
				list = append(list, r.sc.candidates(l)...)
			}
		}
	}
	return list, covered, len(page) < logPage || covered >= high, nil
}

// segments looks through the next segments, more of them each time.
func (r *ranges) segments(ctx context.Context, node *redis.Client, low, high int64) (list []candidate, covered int64, done bool, err error) {
	sh, rising := r.sc.sh, r.sc.q.Oldest
	from := high
	if rising {
		from = low
	}
	of, err := sh.segmentsFrom(ctx, node, from, rising, int64(r.step))
	if err != nil {
		return nil, 0, false, err
	}
	if len(of) == 0 {
		return nil, 0, true, nil
	}
	r.step = min(2*r.step, 64)
	found, err := r.lookUp(ctx, node, of)
	if err != nil {
		return nil, 0, false, err
	}
	for i, g := range of {
		more, err := r.open(ctx, node, g, found[i], low, high)
		if err != nil {
			return nil, 0, false, err
		}
		list = append(list, more...)
		if covered = g.first; rising {
			covered = g.last
		}
	}
	if r.lists != nil && len(list) > peekGroup {
		if list, err = r.lists.among(ctx, list); err != nil {
			return nil, 0, false, err
		}
	}
	return list, covered, !rising && covered <= low, nil
}

// opened is a segment of which ids are read as they are needed.
type opened struct {
	segment
	pages map[int][]kept
}

// looked is what was read of a segment.
type looked struct {
	places []place // of events that have the terms
	orders []int64 // of its events, nil if there are no places
	gone   bool    // it was replaced a moment ago
}

// lookUp reads the terms of segments, all in one round trip (two where types are asked for by a pattern), and in another
// one the orders of those that have such events.
func (r *ranges) lookUp(ctx context.Context, node *redis.Client, of []segment) ([]looked, error) {
	sh, wanted := r.sc.sh, make([][]alternatives, len(of))
	for i := range of {
		wanted[i] = r.wanted
	}
	if slices.ContainsFunc(r.wanted, func(a alternatives) bool { return a.likely }) {
		types, err := sh.readFields(ctx, node, of, func(int) []string { return []string{"T"} })
		if err != nil {
			return nil, err
		}
		for i := range of {
			wanted[i] = r.likely(types[i][0])
		}
	}
	texts, err := sh.readFields(ctx, node, of, func(i int) []string {
		fields := []string{"v"}
		for _, a := range wanted[i] {
			for _, t := range a.terms {
				fields = append(fields, commonField(t), bucketField(t))
			}
		}
		return fields
	})
	if err != nil {
		return nil, err
	}
	found := make([]looked, len(of))
	for i, g := range of {
		if found[i].gone = texts[i][0] == ""; found[i].gone {
			continue
		}
		if found[i].places, err = meet(wanted[i], texts[i], g.events); err != nil {
			return nil, err
		}
	}
	orders, err := sh.readFields(ctx, node, of, func(i int) []string {
		if len(found[i].places) == 0 {
			return nil
		}
		return []string{"o"}
	})
	if err != nil {
		return nil, err
	}
	for i, g := range of {
		if len(orders[i]) == 0 {
			continue
		}
		if found[i].orders, err = readOrders(orders[i][0], g.first); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readFields reads fields of segments in one round trip.
func (sh *shard) readFields(ctx context.Context, node *redis.Client, of []segment, fields func(i int) []string) ([][]string, error) {
	all := make([][]string, len(of))
	cmds := make([]*redis.SliceCmd, len(of))
	p := node.Pipeline()
	for i, g := range of {
		if names := fields(i); len(names) > 0 {
			cmds[i] = p.HMGet(ctx, sh.segment(g.name), names...)
		}
	}
	if p.Len() == 0 {
		return all, nil
	}
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	for i, cmd := range cmds {
		if cmd == nil {
			continue
		}
		for _, v := range cmd.Val() {
			text, _ := v.(string)
			all[i] = append(all[i], text)
		}
	}
	return all, nil
}

// open returns the candidates of a segment in the order of the query.
func (r *ranges) open(ctx context.Context, node *redis.Client, g segment, found looked, low, high int64) ([]candidate, error) {
	orders := found.orders
	if found.gone || len(found.places) > 0 && len(orders) != g.events {
		return r.reopen(ctx, node, g, low, high) // the new one has all that is kept
	}
	in := &opened{segment: g, pages: map[int][]kept{}}
	list := make([]candidate, 0, len(found.places))
	for _, p := range found.places {
		if p.at >= len(orders) || orders[p.at] < low || orders[p.at] > high {
			continue
		}
		c := candidate{order: orders[p.at], low: p.n, high: p.n, in: in, at: p.at}
		if p.n == noNumber {
			c = r.sc.whole(c)
		}
		list = append(list, c)
	}
	if !r.sc.q.Oldest {
		slices.Reverse(list)
	}
	return list, nil
}

// reopen opens what has replaced a segment.
func (r *ranges) reopen(ctx context.Context, node *redis.Client, g segment, low, high int64) (list []candidate, err error) {
	of, err := r.sc.sh.segmentsFrom(ctx, node, g.last, false, 1)
	if err != nil || len(of) == 0 || of[0].last < g.first {
		return nil, err
	}
	if of[0].base() != g.base() || of[0].name == g.name {
		return nil, nil
	}
	found, err := r.lookUp(ctx, node, of)
	if err != nil {
		return nil, err
	}
	return r.open(ctx, node, of[0], found[0], low, high)
}

// likely replaces TypeLike by the types of a segment that it holds for.
func (r *ranges) likely(types string) []alternatives {
	wanted := slices.Clone(r.wanted)
	for i, a := range wanted {
		if !a.likely {
			continue
		}
		for t := range strings.SplitSeq(types, "\n") {
			if t != "" && r.sc.q.TypeLike(t) {
				wanted[i].terms = append(wanted[i].terms, term('t', t))
			}
		}
	}
	return wanted
}

// meet returns the places that have a term of each of the alternatives, in order. Texts are two fields for each term, from
// the second one on.
func meet(wanted []alternatives, texts []string, events int) ([]place, error) {
	var list []place
	if len(wanted) == 0 {
		for at := range events {
			list = append(list, place{at, noNumber})
		}
		return list, nil
	}
	field := 1
	var all bitmap
	for i, a := range wanted {
		some := make(bitmap, (events+63)/64)
		for _, t := range a.terms {
			places, err := readPlaces(t, texts[field], texts[field+1])
			if err != nil {
				return nil, err
			}
			field += 2
			for _, p := range places {
				if p.at < events {
					some.set(p.at)
				}
			}
			if a.endpoint {
				list = append(list, places...)
			}
		}
		if i == 0 {
			all = some
		} else {
			all.and(some)
		}
	}
	if list != nil {
		list = slices.DeleteFunc(list, func(p place) bool { return p.at >= events || !all.has(p.at) })
		sorting.By(list, func(a, b place) int { return cmp.Or(a.at-b.at, a.n-b.n) })
		return slices.Compact(list), nil
	}
	for k, word := range all {
		for ; word != 0; word &= word - 1 {
			list = append(list, place{64*k + bits.TrailingZeros64(word), noNumber})
		}
	}
	return list, nil
}

// bitmap is a set of places.
type bitmap []uint64

func (b bitmap) set(at int)      { b[at/64] |= 1 << (at % 64) }
func (b bitmap) has(at int) bool { return b[at/64]&(1<<(at%64)) != 0 }

func (b bitmap) and(o bitmap) {
	for i := range b {
		b[i] &= o[i]
	}
}
