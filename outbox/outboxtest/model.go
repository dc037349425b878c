package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
)

// testModel lets a random history happen to the store and to a model of it, and
// compares the two as it goes. All histories share the store: each has
// endpoints and events of its own, and the others' are in its way.
func testModel(s *suite) {
	runs := 0
	noDeadline := struct{ rapid.TB }{s.test} // Check would ask testing.T for its deadline, which panics in a bubble
	rapid.Check(noDeadline, func(t *rapid.T) {
		runs++
		s.TB = t // so that a failure is shrunk
		m := &model{suite: s, run: runs, unit: 10 * time.Millisecond, way: 3 * time.Millisecond,
			notes: map[string]outbox.Note{}, marks: map[string]*modelMark{}, leases: map[string]time.Duration{}}
		if s.engine.Bubble {
			m.unit, m.way = time.Minute, 0
		} else {
			m.pulse = startPulse(m.ctx(), func(ctx context.Context) error { return s.store.Health(ctx) })
			defer m.pulse.stop()
		}
		for i := range m.endpoints {
			m.endpoints[i] = fmt.Sprintf("%c%d", 'a'+i, runs)
			m.leases[m.endpoints[i]] = rapid.SampledFrom([]time.Duration{m.unit, long}).Draw(t, "lease")
		}
		t.Repeat(map[string]func(*rapid.T){
			"":             m.compareSometimes,
			"accept":       m.acceptSome,
			"accept more":  m.acceptSome,
			"repeat an id": m.repeatID,
			"repeat a key": m.repeatKey,
			"claim":        m.claimSome,
			"claim more":   m.claimSome,
			"settle":       m.settleOne,
			"settle more":  m.settleOne,
			"note":         m.noteOne,
			"release":      m.releaseSome,
			"pass time":    m.passTime,
			"reap":         m.reapSome,
			"reopen":       m.reopenSometimes,
		})
		s.commit()
		for _, e := range m.events {
			m.compare(e)
		}
	})
	s.TB = s.test
}

// model is what the store should hold of one history.
type model struct {
	*suite
	run       int
	unit      time.Duration // time passes in steps of this order
	way       time.Duration // by how much a server rounds times
	pulse     *pulse        // nil in a bubble
	endpoints [3]string
	leases    map[string]time.Duration // by endpoint
	events    []*modelEvent
	batches   []modelBatch   // those with a key
	claims    []outbox.Claim // every one ever given, by now lost or not
	accepts   int
	notes     map[string]outbox.Note // by endpoint
	marks     map[string]*modelMark  // by key
}

// modelBatch is a batch as first accepted.
type modelBatch struct {
	outbox.Batch
	receipts []outbox.Receipt
}

type modelEvent struct {
	outbox.Entry
	alone      bool // it came in a request of its own, without a key
	deliveries []*modelDelivery
	reaped     bool
}

type modelDelivery struct {
	outbox.DeliveryRecord
	unordered bool      // there is no order, because there are shards
	joined    time.Time // at the latest: when it last joined the queue, but for the end of a lease
	fences    []uint64
	reaped    bool

	// The lease ends not before leased and at leasedMax at the latest: both are the
	// zero time when there is none.
	leased, leasedMax time.Time
}

// newEntry draws an event for some of the endpoints.
func (m *model) newEntry(t *rapid.T) outbox.Entry {
	m.accepts++
	id := fmt.Sprintf("evt_%d_%d", m.run, m.accepts)
	var endpoints []string
	for _, name := range m.endpoints {
		if rapid.Bool().Draw(t, "for "+name) {
			endpoints = append(endpoints, name)
		}
	}
	e := entry(id, endpoints...)
	if rapid.Bool().Draw(t, "repeatable") {
		e = repeatable(id, id, endpoints...)
	}
	if rapid.IntRange(0, 2).Draw(t, "on terms") == 0 {
		e.Terms = m.newTerms(t, len(endpoints))
	}
	return e
}

// note takes an accepted entry into the model. When it was accepted, since before, only
// the store knows exactly.
func (m *model) note(e outbox.Entry, receipt outbox.Receipt, before time.Time) *modelEvent {
	after := time.Now()
	event := &modelEvent{Entry: e}
	m.events = append(m.events, event)
	left := m.lookup(e.Event.ID).Deliveries
	m.want("receipt", outbox.Receipt{ID: e.Event.ID, Deliveries: len(left)}, receipt)
	for i, name := range e.Endpoints {
		var term outbox.Term
		if e.Terms != nil {
			term = e.Terms[i]
		}
		made := len(left) > 0 && left[0].Endpoint == name
		m.judge(e.Event.ID, term.Mark, made, before, after)
		if !made {
			continue
		}
		d := left[0]
		left = left[1:]
		want := outbox.DeliveryRecord{Delivery: outbox.Delivery{ID: d.ID, EventID: e.Event.ID, Endpoint: name, State: outbox.Pending, Due: d.Due, Created: d.Created}}
		if term.Code != "" {
			want.State, want.Finished, want.Code, want.Error = outbox.Failed, d.Created, term.Code, term.Error
		}
		m.want("new delivery", want, d)
		event.deliveries = append(event.deliveries, &modelDelivery{DeliveryRecord: d, joined: after, unordered: m.engine.Sharded})
	}
	if len(left) > 0 {
		m.Fatalf("event %s has deliveries that nobody asked for: %v", e.Event.ID, left)
	}
	return event
}

func (m *model) acceptSome(t *rapid.T) {
	var b outbox.Batch
	for range rapid.IntRange(1, 3).Draw(t, "events") {
		b.Entries = append(b.Entries, m.newEntry(t))
	}
	if rapid.Bool().Draw(t, "with key") {
		b.Key = fmt.Sprintf("key_%d_%d", m.run, m.accepts)
		b.Fingerprint = [32]byte{1}
	}
	before := time.Now()
	receipts := m.acceptBatch(b)
	for i, e := range b.Entries {
		m.note(e, receipts[i], before).alone = len(b.Entries) == 1 && b.Key == ""
	}
	if b.Key != "" {
		m.batches = append(m.batches, modelBatch{b, receipts})
	}
}

func (m *model) repeatID(t *rapid.T) {
	known := slices.DeleteFunc(slices.Clone(m.events), func(e *modelEvent) bool {
		return e.Fingerprint == outbox.Fingerprint{} || m.engine.Sharded && !e.alone
	})
	if len(known) == 0 {
		return
	}
	first := rapid.SampledFrom(known).Draw(t, "event")
	again := outbox.Receipt{ID: first.Event.ID, Deliveries: len(first.deliveries), Duplicate: true}
	if m.engine.Sharded {
		m.want("receipts", []outbox.Receipt{again}, m.accept(first.Entry))
		return
	}
	fresh := m.newEntry(t)
	if rapid.Bool().Draw(t, "other content") {
		other := repeatable(first.Event.ID, "other", first.Endpoints...)
		m.conflict(outbox.Batch{Entries: []outbox.Entry{fresh, other}}, 1)
		m.absent(fresh.Event.ID)
		return
	}
	before := time.Now()
	receipts := m.accept(fresh, first.Entry)
	m.note(fresh, receipts[0], before)
	m.want("receipt", again, receipts[1])
}

func (m *model) repeatKey(t *rapid.T) {
	if len(m.batches) == 0 {
		return
	}
	first := rapid.SampledFrom(m.batches).Draw(t, "batch")
	again := outbox.Batch{Key: first.Key, Fingerprint: first.Fingerprint}
	for range first.Entries {
		again.Entries = append(again.Entries, m.newEntry(t))
	}
	if rapid.Bool().Draw(t, "other content") {
		again.Fingerprint[0]++
		m.conflict(again, -1)
	} else {
		m.want("receipts", duplicates(first.receipts), m.acceptBatch(again))
	}
	for _, e := range again.Entries {
		m.absent(e.Event.ID)
	}
}

// drawClaim picks a claim, lost or not, of which there must be one.
func (m *model) drawClaim(t *rapid.T) (outbox.Claim, *modelDelivery) {
	back := rapid.IntRange(0, len(m.claims)-1).Draw(t, "claim from the end")
	c := m.claims[len(m.claims)-1-back]
	return c, m.delivery(c.ID)
}

// try makes a call that needs c's lease, and tells whether it took effect.
func (m *model) try(t *rapid.T, c outbox.Claim, call func() error) bool {
	d := m.delivery(c.ID)
	current := d.fences[len(d.fences)-1] == c.Fence
	mustLose := !current || !d.leasedMax.After(time.Now())
	err := call()
	mustHold := current && d.leased.After(time.Now())
	if err == nil && mustLose || err != nil && (mustHold || !errors.Is(err, outbox.ErrLeaseLost)) {
		t.Fatalf("call with fence %d for event %s: %v, but the fence is %d, leased until %v", c.Fence, c.EventID, err, d.fences[len(d.fences)-1], d.leased)
	}
	return err == nil
}

func (m *model) settleOne(t *rapid.T) {
	if len(m.claims) == 0 {
		return
	}
	c, d := m.drawClaim(t)
	state := rapid.SampledFrom([]outbox.State{outbox.Delivered, outbox.Pending, outbox.Failed, outbox.Discarded}).Draw(t, "state")
	settlement := outbox.Settlement{Attempt: attempt(c.Attempts+1, state), State: state}
	if state == outbox.Pending {
		wait := rapid.SampledFrom([]time.Duration{-m.unit, 0, m.unit, 3 * m.unit, long}).Draw(t, "due in")
		settlement.Due = time.Now().UTC().Add(wait).Truncate(time.Microsecond)
	}
	if !m.try(t, c, func() error { return m.store.Settle(m.ctx(), c, settlement) }) {
		return
	}
	d.State, d.Code = state, settlement.Attempt.Code
	d.Attempts = append(d.Attempts, settlement.Attempt)
	d.Delivery.Attempts++
	d.leased, d.leasedMax = time.Time{}, time.Time{}
	if d.joined = time.Now(); state == outbox.Pending {
		d.Due = settlement.Due
	}
}

func (m *model) releaseSome(t *rapid.T) {
	if len(m.claims) == 0 {
		return
	}
	var claims []outbox.Claim
	for range rapid.IntRange(1, 3).Draw(t, "claims") {
		c, _ := m.drawClaim(t)
		claims = append(claims, c)
	}
	if err := m.store.Release(m.ctx(), claims...); err != nil {
		t.Fatalf("Release: %v", err)
	}
	for _, c := range claims {
		if d := m.delivery(c.ID); d.fences[len(d.fences)-1] == c.Fence {
			d.leased, d.leasedMax, d.joined = time.Time{}, time.Time{}, time.Now()
		}
	}
}

func (m *model) passTime(t *rapid.T) {
	m.elapse(time.Duration(rapid.IntRange(1, 3).Draw(t, "units")) * m.unit)
}

func (m *model) reapSome(*rapid.T) {
	m.commit()
	m.elapse(time.Millisecond)
	m.reap(outbox.Retention{Failed: 1000 * time.Hour})
	for _, e := range m.events {
		left := 0
		for _, d := range e.deliveries {
			d.reaped = d.State == outbox.Delivered || d.State == outbox.Discarded
			if !d.reaped {
				left++
			}
		}
		e.reaped = left == 0
	}
}

// reopenSometimes: it is the slowest step.
func (m *model) reopenSometimes(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "reopen") > 0 {
		return
	}
	m.commit()
	m.pulse.without(m.reopen)
	if m.engine.SingleOwner {
		for _, d := range m.deliveries() {
			d.leased, d.leasedMax, d.joined = time.Time{}, time.Time{}, time.Now()
		}
	}
}

// compareSometimes compares counts and one event. Not after every step, so that others
// go on while settlements wait for their commit.
func (m *model) compareSometimes(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "compare") > 0 {
		return
	}
	m.commit()
	all := m.counts()
	for _, name := range m.endpoints {
		var want outbox.Counts
		for _, d := range m.deliveries() {
			if d.Endpoint != name {
				continue
			}
			want.Accepted++
			switch d.State {
			case outbox.Pending:
				want.Pending++
				if want.Oldest.IsZero() || d.Created.Before(want.Oldest) {
					want.Oldest = d.Created
				}
			case outbox.Delivered:
				want.Delivered++
			case outbox.Failed:
				want.Failed++
			case outbox.Discarded:
				want.Discarded++
			}
		}
		m.want("counts of "+name, want, all[name])
	}
	m.compareNotes()
	if len(m.events) > 0 {
		m.compare(rapid.SampledFrom(m.events).Draw(t, "event"))
	}
}

// compare compares an event and all that came of it.
func (m *model) compare(e *modelEvent) {
	if e.reaped {
		m.absent(e.Event.ID)
		return
	}
	record := m.lookup(e.Event.ID)
	want := &outbox.Record{Event: e.Event, Accepted: record.Accepted}
	for _, d := range e.deliveries {
		if d.reaped {
			continue
		}
		if i := len(want.Deliveries); d.Finished.IsZero() && d.State.Final() && i < len(record.Deliveries) {
			d.Finished, d.Due = record.Deliveries[i].Finished, record.Deliveries[i].Due // known now
			if d.Finished.IsZero() {
				m.Errorf("event %s is %s at %s, but Finished is zero", e.Event.ID, d.State, d.Endpoint)
			}
		}
		want.Deliveries = append(want.Deliveries, d.DeliveryRecord)
	}
	m.want("event "+e.Event.ID, want, record)
}

func (m *model) deliveries() []*modelDelivery {
	var all []*modelDelivery
	for _, e := range m.events {
		all = append(all, e.deliveries...)
	}
	return all
}

func (m *model) delivery(id string) *modelDelivery {
	for _, d := range m.deliveries() {
		if d.ID == id {
			return d
		}
	}
	return nil
}
