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
	for _, m := range list {
		keys = append(keys, sh.event(m.lease.ref.event))
	}
	args = append(make([]any, 0, 7+3*len(streams)+4*simple+9*(len(list)-simple)), sh.prefix, len(streams), simple, len(list), bytes, deadline, joined.outbox)
	for _, m := range inOrder {
		args = append(args, m.lease.claim.Endpoint, string(m.lease.entry.line), streams[m.stream].simple)
	}
	for _, column := range []func(m *settlement) any{
		func(m *settlement) any { return m.lease.entry.id() },
		func(m *settlement) any { return m.lease.ref.tail() },
		func(m *settlement) any { return m.lease.ref.n },
		func(m *settlement) any { return m.kept },
	} {
		for _, m := range list[:simple] {
			args = append(args, column(m))
		}
	}
	for i, m := range list[simple:] {
		args = append(args, of[simple+i].number)
		args = appendOther(args, m)
	}
	return keys, args
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
