package sqlite

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
	"relay/outbox/clock"
)

// Bounds of what is kept in memory, however much waits on disk.
const (
	queueLength = 16384    // deliveries in an endpoint's queue
	queueShort  = 256      // in each when more than half of queueBytes are in use, so that no few endpoints take it all
	laneLength  = 64       // and in its express lane
	queueLow    = 64       // an endpoint with fewer is refilled
	queueBytes  = 48 << 20 // all entries, queued and leased; beyond it a waiting claim gets one at a time
)

// entry is a delivery in memory: queued, leased, or settled but not yet committed.
type entry struct {
	seq      int64
	number   int64 // of its event
	endpoint *endpoint
	event    *outbox.Event // nil when the delivery has left memory
	created  int64         // microseconds
	due      int64         // microseconds, created for a fresh one; like all times here of the outbox's clock
	attempts int
	code     string
	manual   bool  // an operator made it,
	origin   int64 // as a repeat of this one; 0 for none

	fence uint64    // of the lease
	until time.Time // its end
	lane  bool      // is one of the express lane
	row   bool      // may have a row in pending; belongs to the owner
}

// weight is about what the entry takes in memory, in bytes.
func (e *entry) weight() int64 { return int64(len(e.event.Data)+len(e.event.Trace)) + 512 }

// queue is entries by due time, then in the order of accept.
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

	ready     queue     // due
	lane      queue     // the express lane: accepted while the endpoint was behind
	laneUntil time.Time // end of the time for which the lane is open
	leased    int

	turn  chan struct{} // held by the Claim that blocks; made by the first one
	wait  wait          // of the last Claim, if it found nothing
	rests bool          // at the last sweep nobody worked on it, and no Claim has come since

	nextDue int64 // all that is on disk only is due then or later; never for none, 0 for unknown
	place   int   // in the heap of due times, -1 for none
	asked   bool  // is to be refilled

	// These belong to the owner.
	id      int64  // of its row, 0 before its first delivery
	term    uint64 // in lists, 0 when it is not known yet
	counts  counts
	gone    counts  // so many were removed, less those that are kept and that counts leaves out
	changed *change // by the transaction under way, nil when it does not touch the endpoint
}

// change is an endpoint's part of a transaction.
type change struct {
	counts            // as they will be
	recorded   counts // deliveries that are kept and that Counts leave out: they are taken off those that are gone
	room, lane int    // deliveries that can go to its queue, and to its express lane
}

// counts are what outbox.Counts says, but for what follows from it.
type counts struct{ accepted, delivered, failed, discarded int64 }

// end counts the end of a delivery.
func (c *counts) end(state outbox.State) {
	switch state {
	case outbox.Delivered:
		c.delivered++
	case outbox.Failed:
		c.failed++
	case outbox.Discarded:
		c.discarded++
	}
}

// plus is the sum of both.
func (c counts) plus(o counts) counts {
	return counts{c.accepted + o.accepted, c.delivered + o.delivered, c.failed + o.failed, c.discarded + o.discarded}
}

// less is c without o.
func (c counts) less(o counts) counts {
	return counts{c.accepted - o.accepted, c.delivered - o.delivered, c.failed - o.failed, c.discarded - o.discarded}
}

func (c counts) pending() int64 { return c.accepted - c.delivered - c.failed - c.discarded }

// active tells whether somebody works on the endpoint's deliveries. One that is
// paused takes no memory.
func (ep *endpoint) active() bool { return ep.leased > 0 || ep.wait.ready != nil }

// onDisk tells whether a delivery could be claimed that is not in memory.
func (ep *endpoint) onDisk(now int64) bool { return ep.nextDue <= now }

// next is the queue whose head was due first. It is nil when both are empty, and when a
// delivery that was due before is on disk only.
func (ep *endpoint) next(now int64) *queue {
	var first *queue
	due := int64(never)
	for _, q := range [...]*queue{&ep.ready, &ep.lane} {
		if len(*q) > 0 && (*q)[0].due < due {
			first, due = q, (*q)[0].due
		}
	}
	if ep.onDisk(now) && ep.nextDue < due {
		return nil
	}
	return first
}

// wait is that of a Claim that found nothing. The zero value is none.
type wait struct {
	ready       func()
	called      bool // and the next Claim has not come yet
	most, bound int  // of its request
}

func (w *wait) call() {
	if w.ready != nil && !w.called {
		w.called = true
		w.ready()
	}
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
		ep = &endpoint{name: name, nextDue: never, place: -1}
		q.endpoints[name] = ep
	}
	return ep
}

// space is how many deliveries can go to the endpoint's queue, and to its express lane.
func (q *queues) space(ep *endpoint) (room, lane int) {
	length := queueLength
	if q.bytes > queueBytes/2 {
		length = queueShort
	}
	if ep.active() && !ep.onDisk(q.clock.Now()) {
		room = max(length-len(ep.ready), 0)
	}
	if time.Now().Before(ep.laneUntil) {
		lane = max(laneLength-len(ep.lane), 0)
	}
	return room, lane
}

// put queues an entry.
func (q *queues) put(e *entry) {
	q.bytes += e.weight()
	if e.lane {
		e.endpoint.lane.add(e)
	} else {
		e.endpoint.ready.add(e)
	}
}

// serve calls for the endpoint's next Claim, when one waits and may find something.
func (q *queues) serve(ep *endpoint) {
	w := &ep.wait
	if w.ready == nil || w.called || q.halted || w.bound > 0 && ep.leased >= w.bound {
		return
	}
	now := q.clock.Now()
	switch {
	case len(ep.ready)+len(ep.lane) > 0:
		w.call() // that Claim asks for what is on disk and was due before
	case ep.onDisk(now):
		q.ask(ep)
	default:
		q.await(ep, now)
	}
}

// lease leases what can be claimed now. When that is nothing, or when little is
// left, it asks for what is on disk.
func (q *queues) lease(ep *endpoint, r outbox.ClaimRequest) []outbox.Claim {
	ep.rests = false
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
	claims := make([]outbox.Claim, 0, min(most, len(ep.ready)+len(ep.lane)))
	for from := &ep.lane; len(claims) < most; {
		if len(claims) >= fresh {
			if from = ep.next(micros); from == nil {
				break
			}
		}
		claims = append(claims, q.grant(from.pop(), now.Add(r.Lease)))
	}
	if ep.onDisk(micros) && len(ep.ready) < queueLow && q.bytes < queueBytes {
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
	origin := ""
	if e.origin > 0 {
		origin = deliveryID(q.prefix, e.origin)
	}
	return outbox.Claim{
		Delivery: outbox.Delivery{
			ID:       deliveryID(q.prefix, e.seq),
			EventID:  e.event.ID,
			Endpoint: e.endpoint.name,
			State:    outbox.Pending,
			Attempts: e.attempts,
			Due:      q.clock.Moment(e.due),
			Created:  q.clock.Moment(e.created),
			Code:     e.code,
			Origin:   origin,
			Manual:   e.manual,
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

// deliveryID is unique beyond one outbox: the prefix is drawn when it is made.
func deliveryID(prefix string, seq int64) string {
	return "dlv_" + prefix + strconv.FormatInt(seq, 10)
}

// deliveryNumber is the reverse of deliveryID, 0 for what is no id of this outbox.
func deliveryNumber(prefix, id string) int64 {
	digits, ok := strings.CutPrefix(id, "dlv_"+prefix)
	seq, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || deliveryID(prefix, seq) != id {
		return 0
	}
	return max(seq, 0)
}

// fromMicros is a time that the app or a worker gave: it stays what it was. Those of the
// outbox itself are shown by clock.Wall.
func fromMicros(v int64) time.Time { return time.UnixMicro(v).UTC() }
