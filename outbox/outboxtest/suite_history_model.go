package outboxtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"relay/outbox"
)

// past is a random history of one outbox, which knows what is in it by the records.
type past struct {
	*suite
	random *rand.Rand
	unit   time.Duration

	events  []string        // ids; some are reaped
	due     map[string]int  // deliveries that can be claimed, by endpoint
	later   map[string]bool // ids of deliveries that are due far later
	changed map[string]bool // ids of deliveries that were changed since the last look
	now     int             // settlements
}

func (s *suite) newPast() *past {
	seed := rand.Uint64()
	s.Logf("seed of the history: %d", seed)
	p := &past{suite: s, random: rand.New(rand.NewPCG(seed, 0)), unit: 5 * time.Millisecond,
		due: map[string]int{}, later: map[string]bool{}, changed: map[string]bool{}}
	if s.engine.Bubble {
		p.unit = time.Minute
	}
	return p
}

func (p *past) chance(percent int) bool { return p.random.IntN(100) < percent }

func pickOne[T any](p *past, list ...T) T { return list[p.random.IntN(len(list))] }

// work lets n things happen.
func (p *past) work(n int) {
	p.Helper()
	for range n {
		switch i := p.random.IntN(100); {
		case i < 35:
			p.acceptOne()
		case i < 80:
			p.settleOne()
		case i < 86:
			p.redeliverOne()
		case i < 90:
			p.discardOne()
		case i < 92:
			p.eraseOne()
		case i < 95:
			p.recordOne()
		default:
			p.elapse(p.unit)
		}
	}
	p.commit()
}

func (p *past) newEvent(endpoints ...string) outbox.Entry {
	e := entry(fmt.Sprintf("evt_%04d", len(p.events)), endpoints...)
	p.events = append(p.events, e.Event.ID)
	e.Event.Type = pickOne(p, "order.created", "order.paid", "invoice.sent", "a_b%.c")
	e.Event.Tenant = pickOne(p, "", "t1", "t2")
	e.Event.Key = pickOne(p, "", "k1", "k2")
	e.Event.Via = pickOne(p, "unix", "http")
	if p.chance(60) {
		e.Event.Fields = append(e.Event.Fields, outbox.Field{Path: "data.device", Value: pickOne(p, "d1", "d2", "")})
	}
	if p.chance(40) {
		e.Event.Fields = append(e.Event.Fields, outbox.Field{Path: "data.n", Value: pickOne(p, "1", "1.0", "d1")})
	}
	return e
}

func (p *past) acceptOne() {
	var endpoints []string
	for _, name := range []string{"a", "b", "c", "d_%"} {
		if p.chance(40) {
			endpoints = append(endpoints, name)
		}
	}
	e := p.newEvent(endpoints...)
	if len(endpoints) > 0 && p.chance(15) {
		e.Terms = make([]outbox.Term, len(endpoints))
		e.Terms[0] = outbox.Term{Code: "when_error", Error: "no amount"}
		p.due[endpoints[0]]--
	}
	for _, name := range endpoints {
		p.due[name]++
	}
	p.accept(e)
}

func (p *past) settleOne() {
	endpoint := ""
	for name, n := range p.due {
		if n > 0 && (endpoint == "" || name < endpoint) && p.chance(70) {
			endpoint = name
		}
	}
	if endpoint == "" {
		return
	}
	c := p.claimOne(endpoint)
	p.due[endpoint]--
	p.changed[c.ID] = true
	if p.chance(5) {
		return // it stays claimed
	}
	state := pickOne(p, outbox.Delivered, outbox.Delivered, outbox.Delivered, outbox.Failed, outbox.Failed, outbox.Discarded,
		outbox.Pending, outbox.Pending, outbox.Pending)
	a := detailedAttempt(c.Attempts+1, state)
	p.now++
	a.Started = time.Now().Truncate(time.Microsecond).UTC()
	if state == outbox.Failed {
		a.Status, a.Code = pickOne(p, 404, 500, 503, 0), pickOne(p, "http_4xx", "timeout")
	}
	due := time.Now()
	if state == outbox.Pending && p.chance(50) {
		due = due.Add(1000 * time.Hour)
		p.later[c.ID] = true
	} else if state == outbox.Pending {
		p.due[endpoint]++
	}
	if err := p.store.Settle(p.ctx(), c, outbox.Settlement{Attempt: a, State: state, Due: due}); err != nil {
		p.Fatalf("Settle: %v", err)
	}
}

// one returns a random delivery for which it holds, of a few that it looks at.
func (p *past) one(holds func(outbox.Item) bool) (outbox.Item, bool) {
	for range 10 {
		if len(p.events) == 0 {
			break
		}
		r, err := p.store.Lookup(p.ctx(), pickOne(p, p.events...))
		if err != nil || len(r.Deliveries) == 0 {
			continue
		}
		if item := pickOne(p, recordItems(r)...); holds(item) {
			return item, true
		}
	}
	return outbox.Item{}, false
}

func (p *past) edit(c outbox.Change) outbox.Edited {
	p.Helper()
	return p.editAll(c)[0]
}

func (p *past) redeliverOne() {
	i, ok := p.one(func(i outbox.Item) bool { return i.State.Final() && !i.Erased })
	if !ok {
		return
	}
	to := pickOne(p, "", "a", "e")
	if e := p.edit(outbox.Change{Action: outbox.Redeliver, Delivery: i.ID, Endpoint: to}); e.Err != nil {
		p.Fatalf("redeliver %s %s: %v", i.State, i.ID, e.Err)
	}
	if to == "" {
		to = i.Endpoint
	}
	p.due[to]++
	for _, d := range p.lookup(i.EventID).Deliveries {
		if d.Endpoint == to { // Resent of it is
			p.changed[d.ID] = true
		}
	}
}

func (p *past) discardOne() {
	i, ok := p.one(func(i outbox.Item) bool { return p.later[i.ID] && i.State == outbox.Pending })
	if !ok {
		return
	}
	if e := p.edit(outbox.Change{Action: outbox.Discard, Delivery: i.ID, Code: "discarded_by_operator"}); e.Err != nil {
		p.Fatalf("discard: %v", e.Err)
	}
	p.changed[i.ID] = true
}

func (p *past) eraseOne() {
	i, ok := p.one(func(i outbox.Item) bool { return i.State.Final() && !i.Erased })
	if !ok {
		return
	}
	for _, d := range p.lookup(i.EventID).Deliveries {
		if !d.State.Final() {
			return
		}
		p.changed[d.ID] = true
	}
	if e := p.edit(outbox.Change{Action: outbox.Erase, Event: i.EventID}); e.Err != nil {
		p.Fatalf("erase: %v", e.Err)
	}
}

func (p *past) recordOne() {
	e := p.newEvent()
	state := pickOne(p, outbox.Delivered, outbox.Failed)
	a := detailedAttempt(1, state)
	a.Started = time.Now().Truncate(time.Microsecond).UTC()
	if _, err := p.operator().Record(p.ctx(), e.Event, pickOne(p, "a", "f"), outbox.Settlement{Attempt: a, State: state}); err != nil {
		p.Fatalf("Record: %v", err)
	}
}

// items is what is in the outbox, by the records.
func (p *past) items() []outbox.Item {
	p.Helper()
	var items []outbox.Item
	for _, id := range p.events {
		r, err := p.store.Lookup(p.ctx(), id)
		if errors.Is(err, outbox.ErrNotFound) {
			continue // reaped
		}
		if err != nil {
			p.Fatalf("Lookup: %v", err)
		}
		items = append(items, recordItems(r)...)
	}
	return items
}
