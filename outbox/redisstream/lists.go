package redisstream

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"relay/internal/sorting"
	"relay/outbox"
)

// lists is a source for deliveries that are pending, failed or discarded: each endpoint has a list of those, in the
// order of accept.
type lists struct {
	sc    *scan
	names []string // of endpoints, nil if not known yet
	step  int
}

// line is a list of deliveries of one endpoint.
type line struct {
	key    string
	stream bool
}

// endpoints are those that may have something.
func (l *lists) endpoints(ctx context.Context, node *redis.Client) ([]string, error) {
	if l.names != nil {
		return l.names, nil
	}
	names := slices.Clone(l.sc.q.Endpoints)
	if names == nil {
		flat, err := node.HGetAll(ctx, l.sc.sh.counts).Result()
		if err != nil {
			return nil, l.sc.sh.note(err)
		}
		names = l.withSome(flat)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	l.names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(l.sc.q.Except, name) })
	if l.names == nil {
		l.names = []string{}
	}
	return l.names, nil
}

// withSome are the endpoints of which counts say that some deliveries are, or were, in one of the states.
func (l *lists) withSome(counts map[string]string) (names []string) {
	for _, name := range endpointsOf(slices.Collect(keysOf(counts))) {
		n := func(what string) int64 {
			n, _ := strconv.ParseInt(counts[name+"|"+what], 10, 64)
			return n
		}
		for _, state := range l.sc.q.States {
			if state == outbox.Pending && n("a") > n("d")+n("f")+n("x") ||
				state == outbox.Failed && n("f")+n("t") > 0 || state == outbox.Discarded && n("x")+n("t") > 0 {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// lines are the lists in the order in which they are read. What is pending moves from the streams to
// the set of those that came back, and never the other way; from either it moves to those that have ended.
func (l *lists) lines(names []string) (all []line) {
	sh := l.sc.sh
	if slices.Contains(l.sc.q.States, outbox.Pending) {
		for _, name := range names {
			all = append(all, line{sh.backlog(name), true}, line{sh.lane(name), true})
		}
		for _, name := range names {
			all = append(all, line{sh.created(name), false})
		}
	}
	for _, name := range names {
		if slices.Contains(l.sc.q.States, outbox.Failed) {
			all = append(all, line{sh.failures(name), false})
		}
		if slices.Contains(l.sc.q.States, outbox.Discarded) {
			all = append(all, line{sh.discards(name), false})
		}
	}
	return all
}

func (l *lists) next(ctx context.Context, low, high int64) ([]candidate, int64, bool, error) {
	if l.step == 0 {
		l.step = scanLeast
	}
	list, covered, done, err := l.read(ctx, low, high, l.step)
	l.step = min(2*l.step, 512)
	return list, covered, done, err
}

// read takes at most so many of each list. What it returns goes up to the first end of a list that has more.
func (l *lists) read(ctx context.Context, low, high int64, most int) (list []candidate, covered int64, done bool, err error) {
	node, err := l.sc.sh.node(ctx)
	if err != nil {
		return nil, 0, false, l.sc.sh.note(err)
	}
	names, err := l.endpoints(ctx, node)
	if err != nil {
		return nil, 0, false, err
	}
	rising := l.sc.q.Oldest
	done = true
	for some := range slices.Chunk(l.lines(names), 500) {
		p := node.Pipeline()
		cmds := make([]redis.Cmder, len(some))
		for i, of := range some {
			cmds[i] = of.ask(ctx, p, low, high, rising, most)
		}
		if _, err := p.Exec(ctx); err != nil {
			return nil, 0, false, l.sc.sh.note(err)
		}
		for _, cmd := range cmds {
			got, last, n := answered(cmd)
			list = append(list, got...)
			if n < most {
				continue
			}
			if done || last < covered == rising {
				covered = last
			}
			done = false
		}
	}
	if !done {
		list = slices.DeleteFunc(list, func(c candidate) bool { return c.order != covered && c.order > covered == rising })
	}
	sorting.By(list, func(a, b candidate) int {
		c := cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.low, b.low))
		if rising {
			return c
		}
		return -c
	})
	list = slices.CompactFunc(list, func(a, b candidate) bool { return a.order == b.order && a.low == b.low })
	return list, covered, done, nil
}

// ask asks for entries between two orders.
func (of line) ask(ctx context.Context, p redis.Pipeliner, low, high int64, rising bool, most int) redis.Cmder {
	from, to := strconv.FormatInt(low, 10), strconv.FormatInt(high, 10)
	switch {
	case of.stream && rising:
		return p.XRangeN(ctx, of.key, from, to, int64(most)) // to the last entry of that order
	case of.stream:
		return p.XRevRangeN(ctx, of.key, to, from, int64(most))
	case !rising:
		from, to = to, from
	}
	return p.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{Key: of.key, ByScore: true, Rev: !rising, Start: from, Stop: to, Count: int64(most)})
}

// answered reads an answer: deliveries, the order of the last entry, how many entries there were. A delivery that came
// back to its stream is in the set of those, too.
func answered(cmd redis.Cmder) (list []candidate, last int64, n int) {
	add := func(tail string, order int64) {
		r, err := parseTail(tail)
		if err == nil && (order == 0 || r.order == order) {
			list = append(list, candidate{order: r.order, low: r.n, high: r.n, made: r.repeats(), id: r.event})
		}
	}
	switch cmd := cmd.(type) {
	case *redis.XMessageSliceCmd:
		for _, m := range cmd.Val() {
			tail, _ := m.Values["d"].(string)
			last = parseEntry('q', m.ID).order
			add(tail, last)
		}
		return list, last, len(cmd.Val())
	case *redis.ZSliceCmd:
		for _, z := range cmd.Val() {
			tail, _ := z.Member.(string)
			last = int64(z.Score)
			add(tail, 0)
		}
		return list, last, len(cmd.Val())
	}
	return nil, 0, 0
}

// listsMost is how many entries of a list are read to compare it with candidates of segments.
const listsMost = 2000

// among returns those of the candidates that are in the lists, or all where these are long.
func (l *lists) among(ctx context.Context, list []candidate) ([]candidate, error) {
	low, high := list[0].order, list[len(list)-1].order
	in, _, done, err := l.read(ctx, min(low, high), max(low, high), listsMost)
	if err != nil || !done {
		return list, err
	}
	has := make(map[int64]bool, len(in))
	for _, c := range in {
		has[c.order] = true
	}
	return slices.DeleteFunc(list, func(c candidate) bool { return !has[c.order] }), nil
}
