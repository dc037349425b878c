package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"relay/outbox"
)

// operated is what an operator did.
type operated struct {
	document outbox.Document // the last one acknowledged; the numbers in it rise
	line     uint64          // and the last line of the journal
	made     map[string]bool // redeliveries and tests that were acknowledged, by id
	erasing  map[string]bool // events that were to be erased
	ending   map[string]bool // events of which an operator may have ended a delivery
}

// nearlyFull makes the numbers of deliveries such that a segment is complete soon.
func (p *powerTest) nearlyFull(s *Store) *Store {
	p.Helper()
	err := s.do(p.Context(), func() error {
		s.meta.nextDelivery = segmentSize - 60
		return s.db.transact("FULL", func() error { return s.db.writeMeta(s.meta, s.clock.State()) })
	})
	if err != nil {
		p.Fatal(err)
	}
	return s
}

// write puts documents and appends lines, until the power is cut.
func (p *powerTest) write(s *Store) {
	for o := &p.operated; ; {
		d := o.document
		d.Kind, d.Name, d.Body = "job", "one", fmt.Append(nil, d.Revision+1)
		d, err := s.PutDocument(p.Context(), d)
		if err != nil {
			return
		}
		o.document = d
		line, err := s.Append(p.Context(), fmt.Append(nil, d.Revision))
		if err != nil {
			return
		}
		o.line = line.N
	}
}

// edit changes deliveries, until the power is cut.
func (p *powerTest) edit(s *Store, random *rand.Rand) {
	for o := &p.operated; ; {
		page, err := s.Deliveries(p.Context(), outbox.Query{Limit: 20})
		if err != nil {
			return
		}
		var changes []outbox.Change
		for _, item := range page.Items {
			c := outbox.Change{Action: outbox.Redeliver, Delivery: item.ID, Once: "once " + item.ID, Endpoint: "b"}
			switch random.IntN(6) {
			case 0:
				o.ending[item.EventID] = true
				c = outbox.Change{Action: outbox.Discard, Delivery: item.ID, Code: "operator"}
			case 1:
				c = outbox.Change{Action: outbox.Retry, Delivery: item.ID}
			case 2:
				o.erasing[item.EventID], o.ending[item.EventID] = true, true
				c = outbox.Change{Action: outbox.Erase, Event: item.EventID, Force: random.IntN(2) == 0}
			}
			changes = append(changes, c)
		}
		all, err := s.Edit(p.Context(), changes)
		if err != nil {
			return
		}
		for i, edited := range all {
			if changes[i].Action == outbox.Redeliver && edited.Err == nil {
				p.makes(edited.Delivery)
			}
		}
	}
}

// test tests an endpoint, until the power is cut.
func (p *powerTest) test(s *Store, random *rand.Rand) {
	for {
		p.mu.Lock()
		p.events++
		test := outbox.Entry{Event: outbox.Event{ID: fmt.Sprint("evt_test", p.events), Type: "t"}, Endpoints: []string{"a"}}
		p.tried[test.Event.ID] = test
		p.mu.Unlock()
		state := states[1+random.IntN(len(states)-1)]
		id, err := s.Record(p.Context(), test.Event, "a", outbox.Settlement{State: state})
		if err != nil {
			return
		}
		p.makes(id)
	}
}

// makes notes a delivery that an operator made.
func (p *powerTest) makes(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.operated.made[id] = true
}

// checkOperated looks at what the cut has left of it.
func (p *powerTest) checkOperated(s *Store) {
	p.Helper()
	o := &p.operated
	d, err := s.Document(p.Context(), "job", "one")
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	lines, err := s.Lines(p.Context(), 0, 1)
	if err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	last := append(lines, outbox.Line{})[0].N
	if p.durability == Fsync && (d.Revision < o.document.Revision || last < o.line) {
		p.Errorf("seed %d: document %d or line %d is lost", p.seed, o.document.Revision, o.line)
	}
	if d.Revision > 0 && string(d.Body) != fmt.Sprint(d.Revision) {
		p.Errorf("seed %d: document %d says %q", p.seed, d.Revision, d.Body)
	}
	o.document, o.line = d, last
	for id := range o.made {
		_, err := s.LookupDelivery(p.Context(), id)
		if err != nil && (!errors.Is(err, outbox.ErrNotFound) || p.durability == Fsync && !p.reaps) {
			p.Errorf("seed %d: delivery %s that an operator made: %v", p.seed, id, err)
		}
		if err != nil {
			delete(o.made, id)
		}
	}
}
