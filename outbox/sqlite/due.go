package sqlite

import (
	"container/heap"
	"math"
	"slices"
	"time"
)

// sweepEvery is how long at most something that is due can be overlooked.
const sweepEvery = time.Minute

// never is the due time of nothing.
const never = math.MaxInt64

// tick hands back what is leased for longer than agreed and asks for what has become due
// on disk.
func (q *queues) tick() {
	now := time.Now()
	if !q.leaseEnd.IsZero() && !now.Before(q.leaseEnd) {
		q.leaseEnd = time.Time{}
		var over []*entry
		for _, e := range q.leases {
			if now.Before(e.until) {
				q.extend(e, e.until)
			} else {
				over = append(over, e)
			}
		}
		q.handBack(over)
	}
	for micros := q.clock.Now(); len(q.dues) > 0 && q.dues[0].nextDue <= micros; {
		if ep := heap.Pop(&q.dues).(*endpoint); ep.active() {
			q.ask(ep)
		} // else its next claim asks
	}
}

// sweep looks on disk for everybody who waits though something is pending. Nothing should be
// there that is in no heap and not asked for; a defect must not keep it for good. What is in memory for nobody
// leaves it.
func (s *Store) sweep() {
	now := time.Now()
	if now.Before(s.swept.Add(sweepEvery)) {
		return
	}
	s.swept = now
	for _, ep := range s.endpoints {
		if ep.wait.ready != nil && ep.counts.pending() > 0 {
			s.setDue(ep, 0)
			s.ask(ep)
		}
		if ep.rests {
			s.drop(ep)
		}
		ep.rests = !ep.active()
	}
}

// drop leaves deliveries to the disk that are queued at an endpoint that rests, or they would keep the memory of all from
// others for as long as it is paused.
func (s *Store) drop(ep *endpoint) {
	for _, q := range [...]*queue{&ep.ready, &ep.lane} {
		left := slices.DeleteFunc(*q, func(e *entry) bool {
			if s.loaded[e.seq] != e {
				return false // it has no row yet
			}
			delete(s.loaded, e.seq)
			s.bytes -= e.weight()
			e.event = nil
			s.dueBy(ep, e.due)
			return true
		})
		if *q = left; len(left) == 0 {
			*q = nil
		}
	}
}

// arm says how long the owner may sleep, at most limit, before tick is needed. It reads the
// clock once: armed must not lie after an end that it was made of, or waiting would wake the
// owner again and again until then.
func (q *queues) arm(limit time.Duration) time.Duration {
	now := time.Now()
	if len(q.dues) > 0 {
		limit = min(limit, q.clock.Moment(q.dues[0].nextDue).Sub(now))
	}
	if !q.leaseEnd.IsZero() {
		limit = min(limit, q.leaseEnd.Sub(now))
	}
	limit = max(limit, 0)
	q.armed = now.Add(limit)
	return limit
}

// waiting tells whether the owner has to be woken.
func (q *queues) waiting() bool {
	return len(q.refills) > 0 || !q.leaseEnd.IsZero() && q.leaseEnd.Before(q.armed) ||
		len(q.dues) > 0 && q.clock.Moment(q.dues[0].nextDue).Before(q.armed)
}

// ask puts an endpoint on the list of those that the owner refills.
func (q *queues) ask(ep *endpoint) {
	if !ep.asked {
		ep.asked = true
		q.refills = append(q.refills, ep)
	}
}

// setDue notes when the first delivery that is on disk only is due.
func (q *queues) setDue(ep *endpoint, due int64) {
	if ep.place >= 0 {
		heap.Remove(&q.dues, ep.place)
	}
	ep.nextDue = due
	q.await(ep, q.clock.Now())
}

// await puts an endpoint whose first delivery on disk is due later among the due times, if it is
// not there. The heap holds only times to come: what is due already is asked for when it
// is wanted.
func (q *queues) await(ep *endpoint, now int64) {
	if ep.place < 0 && ep.nextDue != never && ep.nextDue > now {
		heap.Push(&q.dues, ep)
	}
}

// dueBy notes a delivery that is on disk only.
func (q *queues) dueBy(ep *endpoint, due int64) {
	if due < ep.nextDue {
		q.setDue(ep, due)
	}
}

// dues is a heap of endpoints by the due time of their first delivery on disk.
type dues []*endpoint

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].nextDue < d[j].nextDue }

func (d dues) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *dues) Push(x any) {
	ep := x.(*endpoint)
	ep.place = len(*d)
	*d = append(*d, ep)
}

func (d *dues) Pop() any {
	last := len(*d) - 1
	ep := (*d)[last]
	(*d)[last], *d = nil, (*d)[:last]
	ep.place = -1
	return ep
}
