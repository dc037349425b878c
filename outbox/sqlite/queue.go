package sqlite

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strconv"
	"time"

	"relay/outbox"
	"relay/outbox/clock"
)

// Bounds of what is kept in memory, however much waits on disk.
const (
	queueLength = 256      // deliveries in an endpoint's queues; its express lane has as many
	queueLow    = 64       // an endpoint with fewer is refilled
	queueBytes  = 32 << 20 // all entries, queued and leased; beyond it a waiting claim gets one at a time
)

// sweepEvery is how long at most something that is due can be overlooked.
const sweepEvery = time.Minute

// never is the due time of nothing.
const never = math.MaxInt64

// entry is a delivery in memory: queued, leased, or settled but not yet committed.
type entry struct {
	seq      int64
	endpoint *endpoint
	event    *outbox.Event
	created  int64 // microseconds
	due      int64 // microseconds, 0 for a fresh one; like all times here of the outbox's clock
	attempts int
	code     string

	fence uint64    // of the lease
	until time.Time // its end
	lane  bool      // is one of the express lane
}

// ripe is when the delivery may be claimed: for a fresh one, since it was accepted.
func (e *entry) ripe() int64 { return cmp.Or(e.due, e.created) }

// weight is about what the entry takes in memory, in bytes.
func (e *entry) weight() int64 { return int64(len(e.event.Data)) + 512 }

// queue is entries by due time, then in the order of accept. Fresh ones have no
// due time: they stay in the order of accept whatever the clock does.
type queue []*entry

func (q *queue) add(e *entry) {
	i, _ := slices.BinarySearchFunc(*q, e, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.seq, b.seq))
	})
	*q = slices.Insert(*q, i, e)
}

func (q *queue) pop() *entry {
	e := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	return e
}

// endpoint is the work of one endpoint.
type endpoint struct {
	name string

	fresh     queue     // never attempted
	retries   queue     // due for another attempt
	lane      queue     // the express lane: accepted while the endpoint was behind
	laneUntil time.Time // end of the time for which the lane is open
	leased    int

	turn   chan struct{} // held by the Claim that is under way
	waiter *waiter       // which has found nothing so far

	// What is on disk only. Fresh deliveries are loaded in the order of their
	// numbers, so that one number tells them apart; for retries there is Store.loaded.
	last    int64 // the last fresh delivery that was loaded
	more    bool  // there may be fresh ones after it
	nextDue int64 // when the first retry that is not loaded is due; never for none, 0 for unknown
	place   int   // in the heap of due times, -1 for none
	asked   bool  // is to be refilled

	// These belong to the owner.
	express map[int64]struct{} // deliveries of the lane that the refill is still to come to
	id      int64              // of its row, 0 before its first delivery
	counts  counts
	changed *counts // by the transaction under way, nil when it does not touch them
}

// counts are what outbox.Counts says, but for what follows from it.
type counts struct{ accepted, delivered, failed, discarded int64 }

func (c counts) pending() int64 { return c.accepted - c.delivered - c.failed - c.discarded }

// active tells whether somebody works on the endpoint's deliveries. One that is
// paused takes no memory.
func (ep *endpoint) active() bool { return ep.leased > 0 || ep.waiter != nil }

// onDisk tells whether a delivery could be claimed that is not in memory.
func (ep *endpoint) onDisk(now int64) bool { return ep.more || ep.nextDue <= now }

// next is the queue whose head was ripe first. It is nil when all are empty, and when a
// delivery that was ripe before is on disk only.
func (ep *endpoint) next(now int64) *queue {
	if ep.more && len(ep.fresh) == 0 {
		return nil
	}
	var first *queue
	ripe := int64(never)
	for _, q := range []*queue{&ep.retries, &ep.fresh, &ep.lane} {
		if len(*q) > 0 && (*q)[0].ripe() < ripe {
			first, ripe = q, (*q)[0].ripe()
		}
	}
	if ep.nextDue <= now && ep.nextDue < ripe {
		return nil
	}
	return first
}

// waiter is a Claim that waits.
type waiter struct {
	request outbox.ClaimRequest
	claims  chan []outbox.Claim // gets one answer at most
}

// queues are the deliveries in memory and their leases. Store.mu guards them. They
// do no I/O: what is on disk only is asked for by way of refills.
type queues struct {
	prefix    string // of the ids of deliveries
	endpoints map[string]*endpoint
	leases    map[uint64]*entry // by fence
	fence     uint64            // the last one given
	leaseEnd  time.Time         // no lease ends before; zero when there is none
	bytes     int64             // weight of all entries, queued and leased
	clock     *clock.Clock
	dues      dues
	refills   []*endpoint // wait for what is on disk
	halted    bool        // settlements have no room: nothing is claimed
	armed     time.Time   // when the owner's sleep ends
}

// endpoint returns the endpoint of that name, new when it is not known.
func (q *queues) endpoint(name string) *endpoint {
	ep := q.endpoints[name]
	if ep == nil {
		ep = &endpoint{name: name, nextDue: never, place: -1, turn: make(chan struct{}, 1), express: map[int64]struct{}{}}
		q.endpoints[name] = ep
	}
	return ep
}

// arrive takes in a fresh delivery that has just been committed, or notes that it
// is on disk.
func (q *queues) arrive(e *entry) {
	ep := e.endpoint
	e.lane = len(ep.lane) < queueLength && time.Now().Before(ep.laneUntil)
	switch {
	case q.bytes >= queueBytes || !e.lane && (ep.more || !ep.active() || len(ep.fresh) >= queueLength):
		ep.more = true
		return
	case ep.more:
		ep.express[e.seq] = struct{}{}
	default:
		ep.last = e.seq
	}
	q.put(e)
}

// put queues an entry.
func (q *queues) put(e *entry) {
	q.bytes += e.weight()
	switch {
	case e.due > 0:
		e.endpoint.retries.add(e)
	case e.lane:
		e.endpoint.lane.add(e)
	default:
		e.endpoint.fresh.add(e)
	}
}

// serve answers the endpoint's claim that waits, when there is something for it.
func (q *queues) serve(ep *endpoint) {
	if w := ep.waiter; w != nil {
		if claims := q.lease(ep, w.request); len(claims) > 0 {
			ep.waiter = nil
			w.claims <- claims
		}
	}
}

// lease leases what can be claimed now. When that is nothing, or when little is
// left, it asks for what is on disk.
func (q *queues) lease(ep *endpoint, r outbox.ClaimRequest) []outbox.Claim {
	if q.halted {
		return nil
	}
	now, micros := time.Now(), q.clock.Now()
	if r.Behind {
		ep.laneUntil = now.Add(outbox.LaneOpen)
	}
	most := max(r.Max, 1)
	if r.FleetMax > 0 {
		if most = min(most, r.FleetMax-ep.leased); most <= 0 {
			return nil // until one of them ends
		}
	}
	fresh := min(r.Fresh, most, len(ep.lane))
	if fresh < most && ep.onDisk(micros) && ep.next(micros) == nil {
		q.ask(ep) // the backlog has its share
		return nil
	}
	var claims []outbox.Claim
	for from := &ep.lane; len(claims) < most; {
		if len(claims) >= fresh {
			if from = ep.next(micros); from == nil {
				break
			}
		}
		claims = append(claims, q.grant(from.pop(), now.Add(r.Lease)))
	}
	if ep.onDisk(micros) && len(ep.fresh)+len(ep.retries) < queueLow && q.bytes < queueBytes {
		q.ask(ep)
	}
	q.await(ep, micros)
	return claims
}

// grant leases an entry that is in no queue any more.
func (q *queues) grant(e *entry, until time.Time) outbox.Claim {
	q.fence++
	e.fence = q.fence
	q.leases[e.fence] = e
	e.endpoint.leased++
	q.extend(e, until)
	return q.claim(e)
}

func (q *queues) claim(e *entry) outbox.Claim {
	return outbox.Claim{
		Delivery: outbox.Delivery{
			ID:       deliveryID(q.prefix, e.seq),
			EventID:  e.event.ID,
			Endpoint: e.endpoint.name,
			State:    outbox.Pending,
			Attempts: e.attempts,
			Due:      q.clock.Moment(e.ripe()),
			Created:  q.clock.Moment(e.created),
			Code:     e.code,
		},
		Event: e.event,
		Fence: e.fence,
		Until: e.until,
	}
}

// leased returns what a claim still holds, nil when its lease is over.
func (q *queues) leased(c outbox.Claim) *entry {
	e := q.leases[c.Fence]
	if e == nil || !time.Now().Before(e.until) {
		return nil
	}
	return e
}

// extend moves the end of a lease.
func (q *queues) extend(e *entry, until time.Time) {
	e.until = until
	if q.leaseEnd.IsZero() || until.Before(q.leaseEnd) {
		q.leaseEnd = until
	}
}

// end ends a lease; its entry is in no queue then.
func (q *queues) end(e *entry) {
	delete(q.leases, e.fence)
	e.endpoint.leased--
	q.bytes -= e.weight()
}

// handBack ends leases and queues what they held, all of it before the first is
// claimed again.
func (q *queues) handBack(entries []*entry) {
	for _, e := range entries {
		q.end(e)
		q.put(e)
	}
	for _, e := range entries {
		q.serve(e.endpoint)
	}
}

// tick hands back what is leased for longer than agreed and asks for the retries that
// have become due.
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
// there that is in no heap and not asked for; a defect must not keep it for good.
func (s *Store) sweep() {
	now := time.Now()
	if now.Before(s.swept.Add(sweepEvery)) {
		return
	}
	s.swept = now
	for _, ep := range s.endpoints {
		if ep.waiter != nil && ep.counts.pending() > 0 {
			ep.more = true
			s.setDue(ep, 0)
			s.ask(ep)
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

// setDue notes when the endpoint's first retry on disk is due.
func (q *queues) setDue(ep *endpoint, due int64) {
	if ep.place >= 0 {
		heap.Remove(&q.dues, ep.place)
	}
	ep.nextDue = due
	q.await(ep, q.clock.Now())
}

// await puts an endpoint whose first retry on disk is due later among the due times, if it is
// not there. The heap holds only times to come: what is due already is asked for when it
// is wanted.
func (q *queues) await(ep *endpoint, now int64) {
	if ep.place < 0 && ep.nextDue != never && ep.nextDue > now {
		heap.Push(&q.dues, ep)
	}
}

// dueBy notes a retry that is on disk, or on its way.
func (q *queues) dueBy(ep *endpoint, due int64) {
	if due < ep.nextDue {
		q.setDue(ep, due)
	}
}

// dues is a heap of endpoints by the due time of their first retry on disk.
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

// deliveryID is unique beyond one outbox: the prefix is drawn when it is made.
func deliveryID(prefix string, seq int64) string {
	return "dlv_" + prefix + strconv.FormatInt(seq, 10)
}

// fromMicros is a time that the app or a worker gave: it stays what it was. Those of the
// outbox itself are shown by clock.Wall.
func fromMicros(v int64) time.Time { return time.UnixMicro(v).UTC() }
