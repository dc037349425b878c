package redisstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

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
	list = slices.DeleteFunc(slices.Clone(list), func(m *settlement) bool {
		lost := m.lease.outbox != joined.outbox
		if lost {
			sh.settled(m, false)
		}
		return lost
	})
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *settlement) int {
		sa, sb := a.simple(), b.simple()
		if sa && sb {
			return cmp.Compare(a.stream, b.stream)
		}
		return cmp.Compare(rank(sa), rank(sb))
	})
	keys, args := sh.settleCall(joined, list)
	v, err := sh.eval(ctx, &sh.s.scripts.settle, keys, args)
	if errors.Is(err, errEpoch) {
		for _, m := range list {
			sh.settled(m, false)
		}
		return nil
	}
	if err != nil {
		return err
	}
	answer, _ := v.(string)
	if len(answer) != len(list) {
		return fmt.Errorf("%w: unexpected answer of the settle script", outbox.ErrUnavailable)
	}
	for i, m := range list {
		sh.settled(m, answer[i] == '1')
	}
	return nil
}

func rank(simple bool) int {
	if simple {
		return 0
	}
	return 1
}

// settleCall writes the keys and arguments of the settle script, in the order that it reads them.
// The list is in order: simple ones by stream, then the others.
func (sh *shard) settleCall(joined *session, list []*settlement) (keys []string, args []any) {
	type stream struct{ number, simple int }
	streams, inOrder, of := map[string]*stream{}, []*settlement{}, make([]*stream, len(list))
	simple, bytes, deadline := 0, 0, int64(math.MaxInt64)
	keys = append(make([]string, 0, 3+2*len(list)), sh.meta, sh.counts, sh.done)
	for i, m := range list {
		x := streams[m.stream]
		if x == nil {
			x = &stream{number: len(streams) + 1}
			streams[m.stream] = x
			inOrder = append(inOrder, m)
			keys = append(keys, m.stream)
		}
		of[i] = x
		if m.simple() {
			x.simple++
			simple++
			bytes += len(m.kept)
			deadline = min(deadline, m.lease.deadline)
		}
	}
	events, byEvent := groupByEvent(list[:simple])
	args = append(make([]any, 0, 8+3*len(streams)+4*simple+len(events)+9*(len(list)-simple)),
		sh.prefix, len(streams), simple, len(events), len(list), bytes, deadline, joined.outbox)
	for _, m := range inOrder {
		args = append(args, m.lease.claim.Endpoint, string(m.lease.entry.line), streams[m.stream].simple)
	}
	for _, m := range list[:simple] {
		args = append(args, m.lease.entry.id())
	}
	for _, m := range list[:simple] {
		args = append(args, m.lease.ref.tail())
	}
	for _, e := range events {
		keys = append(keys, sh.event(byEvent[e.from].lease.ref.event))
		args = append(args, e.to-e.from)
	}
	for _, m := range byEvent {
		args = append(args, m.lease.ref.n, m.kept)
	}
	for i, m := range list[simple:] {
		keys = append(keys, sh.event(m.lease.ref.event))
		args = append(args, of[simple+i].number)
		args = appendOther(args, m)
	}
	return keys, args
}

// run is a part of a list.
type run struct{ from, to int }

// groupByEvent puts settlements of one event side by side, so that their records are written
// together, and returns where each event's are.
func groupByEvent(list []*settlement) ([]run, []*settlement) {
	numbers := make(map[string]int, len(list))
	of, events := make([]int, len(list)), make([]run, 0, len(list))
	for i, m := range list {
		n, ok := numbers[m.lease.ref.event]
		if !ok {
			n = len(events)
			numbers[m.lease.ref.event] = n
			events = append(events, run{})
		}
		of[i] = n
		events[n].to++
	}
	at := 0
	for n := range events {
		count := events[n].to
		events[n] = run{at, at}
		at += count
	}
	sorted := make([]*settlement, len(list))
	for i, m := range list {
		e := &events[of[i]]
		sorted[e.to] = m
		e.to++
	}
	return events, sorted
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
