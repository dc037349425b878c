package sqlite

import (
	"cmp"
	"fmt"
	"slices"
)

// Claims with Fresh take an endpoint's newest deliveries while older ones are still on
// disk only. They are loaded early, into a queue of their own, so that no other claim gets
// them before their turn. When the refill, which reads from the oldest on, comes to
// them, they join the others.

// takeNewest takes up to n of the newest fresh deliveries out of their queues, the oldest of
// them first, for a claim of most in all. When the claim has to wait for the owner,
// known is false and nothing is taken.
func (q *queues) takeNewest(ep *endpoint, n, most int, now int64) (newest []*entry, known bool) {
	all := !ep.more || ep.tail <= ep.last+1 // none is on disk only
	enough := all || ep.ahead(n)
	if !enough || !all && q.bytes < queueBytes && !ep.ahead(2*n) { // the next claim is to find as many
		ep.wanted = max(ep.wanted, 2*n)
		q.ask(ep)
	}
	if !enough && !ep.looked {
		return nil, false
	}
	if most > n && (ep.behind(now) || ep.next() == nil && ep.onDisk(now)) {
		return nil, false // those that are due first have their share
	}
	for len(newest) < n {
		from := &ep.newest
		if len(*from) == 0 && all {
			from = &ep.fresh
		}
		last := len(*from) - 1
		if last < 0 {
			break
		}
		newest = append(newest, (*from)[last])
		*from = slices.Delete(*from, last, last+1)
	}
	slices.Reverse(newest)
	return newest, true
}

// ahead tells whether the endpoint's n newest fresh deliveries are in memory, and free.
func (ep *endpoint) ahead(n int) bool {
	return len(ep.newest) >= n && ep.newest[len(ep.newest)-n].seq >= ep.tail
}

// arriveEarly takes in a fresh delivery while older ones are on disk only, if the newest
// are wanted. It takes the place of the oldest of them.
func (q *queues) arriveEarly(e *entry) {
	ep := e.endpoint
	if ep.tail == never {
		return
	}
	if !ep.active() || q.bytes >= queueBytes {
		ep.tail = never
		return
	}
	if len(ep.newest) >= queueLow {
		oldest := ep.newest.pop()
		q.bytes -= oldest.weight()
		delete(ep.early, oldest.seq)
		ep.tail = max(ep.tail, oldest.seq+1)
	}
	ep.keepEarly(e)
	q.put(e)
}

// keepEarly marks an entry that is loaded before its turn.
func (ep *endpoint) keepEarly(e *entry) {
	if ep.early == nil {
		ep.early = map[int64]*entry{}
	}
	e.early = true
	ep.early[e.seq] = e
}

// join puts entries that were loaded early among those that were loaded in order.
func (q *queues) join(ep *endpoint, seqs []int64) {
	for _, seq := range seqs {
		e := ep.early[seq]
		delete(ep.early, seq)
		e.early = false
		i, queued := slices.BinarySearchFunc(ep.newest, seq, func(e *entry, seq int64) int { return cmp.Compare(e.seq, seq) })
		if queued {
			ep.newest = slices.Delete(ep.newest, i, i+1)
			ep.fresh.add(e)
		}
	}
}

// loadNewest reads fresh deliveries that are on disk only from the newest on, those
// below tail and above last, as long as load takes them in. It returns the number from
// which on all are loaded then. Only the owner calls it.
func (s *Store) loadNewest(ep *endpoint, last, tail int64, load func(q *query, n int) bool) (int64, error) {
	from := last + 1
	q := s.db.freshNewest.int(ep.id).int(last).int(tail)
	for n := 0; q.step(); {
		seq := q.stmt.ColumnInt64(0)
		if _, ok := ep.early[seq]; ok {
			continue
		}
		if !load(q, n) {
			from = seq + 1
			break
		}
		n++
	}
	if err := q.done(); err != nil {
		return 0, fmt.Errorf("select newest deliveries: %w", err)
	}
	return from, nil
}
