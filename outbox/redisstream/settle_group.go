package redisstream

import (
	"context"
	"errors"
	"fmt"
	"math"

	"relay/outbox"
)

// simple tells whether it is what nearly all are: a first attempt that delivered. The
// script takes these together.
func (m *settlement) simple() bool {
	return m.record.state == outbox.Delivered && m.lease.before == "" && !m.lease.waited && !m.strict && m.lease.times == 1
}

// trySettles makes one call. Claims of an outbox that is not there any more are lost.
func (sh *shard) trySettles(ctx context.Context, list []*settlement) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	call := settleCall{sh: sh}
	var lost []*settlement
	for _, m := range list {
		switch {
		case m.lease.outbox != joined.outbox:
			lost = append(lost, m)
		case m.simple():
			call.simple = append(call.simple, m)
		default:
			call.others = append(call.others, m)
		}
	}
	sh.settled(lost, "")
	if len(call.simple)+len(call.others) == 0 {
		return nil
	}
	keys, args := call.build(joined)
	list = append(call.simple, call.others...)
	v, err := sh.eval(ctx, &sh.s.scripts.settle, keys, args)
	if errors.Is(err, errEpoch) {
		sh.settled(list, "")
		return nil
	}
	if err != nil {
		return err
	}
	answer, _ := v.(string)
	if len(answer) != len(list) {
		return fmt.Errorf("%w: unexpected answer of the settle script", outbox.ErrUnavailable)
	}
	sh.settled(list, answer)
	return nil
}

// settleCall is what one script call settles.
type settleCall struct {
	sh             *shard
	simple, others []*settlement
}

// stream names a stream of deliveries.
type stream struct {
	line     byte
	endpoint string
}

func (m *settlement) stream() stream { return stream{m.lease.entry.line, m.lease.claim.Endpoint} }

// build writes the keys and arguments of the settle script, in the order that it reads them. It
// puts simple settlements in the order of their streams.
func (c *settleCall) build(joined *session) (keys []string, args []any) {
	sh := c.sh
	streams, byStream := groupBy(c.simple, (*settlement).stream)
	c.simple = byStream
	events, byEvent := groupBy(byStream, func(m *settlement) string { return m.lease.ref.event })
	bytes, deadline := 0, int64(math.MaxInt64)
	for _, m := range byStream {
		bytes += len(m.kept)
		deadline = min(deadline, m.lease.deadline)
	}
	number := map[stream]int{}
	inOrder := make([]stream, 0, len(streams)+len(c.others))
	for _, list := range [][]*settlement{first(streams, byStream), c.others} {
		for _, m := range list {
			if x := m.stream(); number[x] == 0 {
				inOrder = append(inOrder, x)
				number[x] = len(inOrder)
			}
		}
	}

	keys = append(make([]string, 0, 3+len(inOrder)+len(events)+len(c.others)), sh.meta, sh.counts, sh.done)
	args = append(make([]any, 0, 10+3*len(inOrder)+len(events)+4*len(byStream)+10*len(c.others)),
		sh.prefix, len(inOrder), len(byStream), len(events), len(byStream)+len(c.others), bytes, deadline, joined.outbox)
	args = append(args, statRows(byStream, c.others)...)
	for i, x := range inOrder {
		keys = append(keys, sh.prefix+string(x.line)+":"+x.endpoint)
		simple := 0
		if i < len(streams) {
			simple = streams[i].to - streams[i].from
		}
		args = append(args, x.endpoint, string(x.line), simple)
	}
	for _, m := range byStream {
		args = append(args, m.lease.entry.id())
	}
	for _, m := range byStream {
		args = append(args, m.lease.ref.tail())
	}
	for _, e := range events {
		keys = append(keys, sh.event(byEvent[e.from].lease.ref.event))
		args = append(args, e.to-e.from)
	}
	for _, m := range byEvent {
		args = append(args, m.lease.ref.n, m.kept)
	}
	for _, m := range c.others {
		keys = append(keys, sh.event(m.lease.ref.event))
		args = append(args, number[m.stream()])
		args = appendOther(args, m)
	}
	return keys, args
}

// run is a part of a list.
type run struct{ from, to int }

// groupBy puts settlements of one key side by side, in the order in which the keys come, and
// returns where each key's are.
func groupBy[K comparable](list []*settlement, key func(*settlement) K) ([]run, []*settlement) {
	numbers := make(map[K]int, len(list))
	of, runs := make([]int, len(list)), make([]run, 0, len(list))
	for i, m := range list {
		k := key(m)
		n, ok := numbers[k]
		if !ok {
			n = len(runs)
			numbers[k] = n
			runs = append(runs, run{})
		}
		of[i] = n
		runs[n].to++
	}
	at := 0
	for n := range runs {
		count := runs[n].to
		runs[n] = run{at, at}
		at += count
	}
	grouped := make([]*settlement, len(list))
	for i, m := range list {
		r := &runs[of[i]]
		grouped[r.to] = m
		r.to++
	}
	return runs, grouped
}

// first returns the first settlement of each run.
func first(runs []run, list []*settlement) []*settlement {
	heads := make([]*settlement, len(runs))
	for i, r := range runs {
		heads[i] = list[r.from]
	}
	return heads
}

// appendOther writes the arguments of a settlement that is not simple.
func appendOther(args []any, m *settlement) []any {
	h := m.lease
	what := make([]byte, 1, 4)
	what[0] = letters[m.record.state]
	if m.release {
		what[0] = 'r'
	}
	if h.waited {
		what = append(what, 'c')
	}
	if m.strict {
		what = append(what, 's')
	}
	if h.before != "" && !m.release {
		what = append(what, 'h')
	}
	args = append(args, h.entry.id(), h.times, h.ref.tail(), h.ref.n, m.kept, what)
	if h.before != "" && !m.release {
		args = append(args, fmt.Sprintf("%d.%d", h.ref.n, m.record.attempts-1), h.before)
	}
	if m.record.state == outbox.Pending {
		args = append(args, m.record.due)
	}
	return args
}
