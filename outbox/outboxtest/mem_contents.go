package outboxtest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"slices"
	"time"

	"relay/outbox"
	"relay/outbox/clock"
)

// contents is what a Mem keeps. Its owner locks.
type contents struct {
	events     map[string]*event
	deliveries map[string]*delivery
	endpoints  map[string]*endpoint
	ids        map[string]known // by event id
	keys       map[string]known // by the idempotency key of a batch
	marks      map[string]mark  // by key; some are over
	bytes      int64            // size of events
	fence      uint64           // the last one given
	notes      map[string]outbox.Note
	revision   uint64        // of the last note
	noted      chan struct{} // closed, and replaced, when a note is written
	clock      *clock.Clock  // all times are of this clock, but for those of events and attempts
	name       string        // of the outbox, for its cursors
	sequence   int64         // of the last delivery
	onces      map[string]*delivery
	documents  map[string]*documents // by kind
	lines      []outbox.Line
	stats      map[statKey]*outbox.Stat
	statKeys   map[time.Time]int // how many combinations an hour has, at least
}

type event struct {
	outbox.Event
	accepted   time.Time
	erased     time.Time   // zero if it has its data
	deliveries []*delivery // in the order of Entry.Endpoints, then those of Redeliver
	size       int64
}

type delivery struct {
	outbox.Delivery
	event      *event
	order      int64 // of accept
	lane       bool  // it was accepted into the express lane
	attempts   []outbox.Attempt
	err        string    // why it was failed from the start
	once       string    // of the change that made it
	unmeasured bool      // Statistics leave it out
	fence      uint64    // of the last claim
	until      time.Time // end of that claim's lease, zero when it was settled or released
}

type endpoint struct {
	pending  []*delivery   // leased ones too, by due time, then order of accept
	changed  chan struct{} // closed, and replaced, when a claimer should look again
	waits    map[*Mem]*readyCall
	accepted int64
	final    map[outbox.State]int64

	laneUntil time.Time // the express lane is open until then
}

// known is what is remembered of an id or key: its first use.
type known struct {
	fingerprint outbox.Fingerprint
	receipts    []outbox.Receipt
	at          time.Time
}

// laneSize bounds an express lane.
const laneSize = 64

// mark is the level that is remembered under a key.
type mark struct {
	level int64
	until time.Time
}

// pass tells whether a mark lets its delivery be made, and remembers its level.
func (k *contents) pass(m outbox.Mark, now time.Time) bool {
	last := k.marks[m.Key]
	if !last.until.After(now) {
		last.level = 0
	}
	above := m.Level > last.level
	if above || m.Lower && m.Level < last.level {
		k.marks[m.Key] = mark{m.Level, now.Add(m.For)}
	}
	return above
}

// insert writes an event and those of its deliveries that are made, and returns how many.
func (k *contents) insert(e outbox.Entry, now time.Time) int {
	ev := &event{Event: e.Event, accepted: now}
	ev.Time = down(ev.Time)
	ev.Data, ev.Fields = bytes.Clone(ev.Data), slices.Clone(ev.Fields)
	for i, name := range e.Endpoints {
		var term outbox.Term
		if e.Terms != nil {
			term = e.Terms[i]
		}
		if term.Mark != nil && !k.pass(*term.Mark, now) {
			continue
		}
		d := k.newDelivery(ev, name, now)
		if term.Code == "" {
			k.endpoint(name).add(d)
			continue
		}
		d.err = term.Error
		k.finish(d, outbox.Failed, term.Code)
	}
	ev.size = sizeOf(ev.Event, len(ev.deliveries))
	k.events[ev.ID] = ev
	k.bytes += ev.size
	return len(ev.deliveries)
}

// newDelivery adds a pending delivery to its event, but not yet to its endpoint's queue.
func (k *contents) newDelivery(ev *event, endpoint string, now time.Time) *delivery {
	ep := k.endpoint(endpoint)
	ep.accepted++
	k.sequence++
	d := &delivery{
		Delivery: outbox.Delivery{
			ID:       "dlv_" + rand.Text(),
			EventID:  ev.ID,
			Endpoint: endpoint,
			State:    outbox.Pending,
			Due:      now,
			Created:  now,
		},
		event: ev,
		order: k.sequence,
		lane:  now.Before(ep.laneUntil) && ep.inLane() < laneSize,
	}
	ev.deliveries = append(ev.deliveries, d)
	k.deliveries[d.ID] = d
	return d
}

// finish ends a delivery that is in no queue.
func (k *contents) finish(d *delivery, s outbox.State, code string) {
	d.State, d.Code, d.Finished = s, code, k.now()
	k.endpoint(d.Endpoint).final[s]++
	k.countEnd(d)
}

func (k *contents) endpoint(name string) *endpoint {
	ep := k.endpoints[name]
	if ep == nil {
		ep = &endpoint{changed: make(chan struct{}), waits: map[*Mem]*readyCall{}, final: map[outbox.State]int64{}}
		k.endpoints[name] = ep
	}
	return ep
}

// leased returns the delivery that c still holds, nil when the lease was lost.
func (k *contents) leased(c outbox.Claim) *delivery {
	d := k.deliveries[c.ID]
	if d == nil || d.fence != c.Fence || !k.now().Before(d.until) {
		return nil
	}
	return d
}

// add makes d pending and wakes the claimers.
func (ep *endpoint) add(d *delivery) {
	i, _ := slices.BinarySearchFunc(ep.pending, d, byDue)
	ep.pending = slices.Insert(ep.pending, i, d)
	ep.wake()
}

// inLane is how many deliveries of the express lane wait.
func (ep *endpoint) inLane() (n int) {
	for _, d := range ep.pending {
		if d.lane && d.Attempts == 0 {
			n++
		}
	}
	return n
}

// remove takes a pending delivery out.
func (ep *endpoint) remove(d *delivery) {
	i, _ := slices.BinarySearchFunc(ep.pending, d, byDue)
	ep.pending = slices.Delete(ep.pending, i, i+1)
}

// wake lets every waiting claimer look again.
func (ep *endpoint) wake() {
	close(ep.changed)
	ep.changed = make(chan struct{})
	for m := range ep.waits {
		ep.call(m)
	}
}

// readyCall is what a Claim with Ready that found nothing has left.
type readyCall struct {
	ready func()
	due   *time.Timer // nil when only a change can bring work
}

// wait makes the Claim of m wait for a change, or until then.
func (ep *endpoint) wait(m *Mem, ready func(), until time.Time) {
	c := &readyCall{ready: ready}
	if !until.IsZero() {
		c.due = time.AfterFunc(time.Until(until), func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if ep.waits[m] == c {
				ep.call(m)
			}
		})
	}
	ep.waits[m] = c
}

// forget ends the wait of m's Claim, and returns it.
func (ep *endpoint) forget(m *Mem) *readyCall {
	c := ep.waits[m]
	delete(ep.waits, m)
	if c != nil && c.due != nil {
		c.due.Stop()
	}
	return c
}

func (ep *endpoint) call(m *Mem) {
	if c := ep.forget(m); c != nil {
		c.ready()
	}
}

func byDue(a, b *delivery) int {
	return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.order, b.order))
}

// sizeOf is what an event counts against MemOptions.MaxBytes.
func sizeOf(e outbox.Event, deliveries int) int64 {
	return int64(len(e.Data)) + 512*int64(1+deliveries)
}

// duplicates are the receipts of a repeat.
func duplicates(receipts []outbox.Receipt) []outbox.Receipt {
	again := slices.Clone(receipts)
	for i := range again {
		again[i].Duplicate = true
	}
	return again
}

func (k *contents) now() time.Time { return time.UnixMicro(k.clock.Now()).UTC() }

// wall is a time for people; the zero time stays what it is.
func (k *contents) wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return k.clock.Wall(t.UnixMicro())
}

// claimed is a delivery for a worker, who compares its times with time.Now.
func (k *contents) claimed(d *delivery) outbox.Delivery {
	out := d.Delivery
	out.Due, out.Created = k.clock.Moment(d.Due.UnixMicro()), k.clock.Moment(d.Created.UnixMicro())
	return out
}

// shown is a delivery for people.
func (k *contents) shown(d *delivery) outbox.Delivery {
	out := d.Delivery
	out.Due, out.Created, out.Finished = k.wall(d.Due), k.wall(d.Created), k.wall(d.Finished)
	return out
}

// whole is an event with some of its deliveries.
func (k *contents) whole(e *event, deliveries ...*delivery) *outbox.Record {
	r := &outbox.Record{Event: e.Event, Accepted: k.wall(e.accepted), Erased: k.wall(e.erased)}
	for _, d := range deliveries {
		r.Deliveries = append(r.Deliveries, outbox.DeliveryRecord{Delivery: k.shown(d), Attempts: slices.Clone(d.attempts), Error: d.err})
	}
	return r
}

// down brings a time to what an engine keeps: UTC, whole microseconds.
func down(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
