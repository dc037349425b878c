package outboxtest

import (
	"errors"
	"time"

	"relay/outbox"
)

// erased is a record without what Erase removes.
func erased(r outbox.Record) outbox.Record {
	r.Event.Data, r.Event.Fields = nil, nil
	deliveries := r.Deliveries
	r.Deliveries = nil
	for _, d := range deliveries {
		attempts := d.Attempts
		d.Attempts = nil
		for _, a := range attempts {
			a.Request, a.Head, a.Body = "", "", nil
			d.Attempts = append(d.Attempts, a)
		}
		r.Deliveries = append(r.Deliveries, d)
	}
	return r
}

func testErase(s *suite) {
	e := detailed("evt_1", "a", "b")
	e.Fingerprint = outbox.Fingerprint{1}
	s.accept(e, detailed("evt_2", "a"), detailed("evt_none"))
	for _, endpoint := range []string{"a", "b"} {
		c := s.claimOne(endpoint)
		for c.EventID != "evt_1" {
			c = s.claimOne(endpoint)
		}
		s.settleDetailed(c, outbox.Pending, time.Now())
	}
	for _, endpoint := range []string{"a", "b"} {
		c := s.claimOne(endpoint)
		for c.EventID != "evt_1" {
			c = s.claimOne(endpoint)
		}
		s.settleDetailed(c, outbox.Delivered, time.Time{})
	}
	s.commit()
	before, other, counts := s.lookup("evt_1"), s.lookup("evt_2"), s.counts()
	at := time.Now().Truncate(time.Microsecond)
	s.wantEdited(outbox.Edited{}, outbox.Change{Action: outbox.Erase, Event: "evt_1"})
	check := func() {
		s.Helper()
		got := s.lookup("evt_1")
		if got.Erased.Before(at.Add(-outbox.OrderSlack)) || got.Erased.After(time.Now().Add(outbox.OrderSlack)) {
			s.Errorf("erased at %v, want about %v", got.Erased, at)
		}
		want := erased(*before)
		want.Erased = got.Erased
		s.want("record", want, *got)
		for i, id := range s.deliveryIDs("evt_1") {
			s.want("delivery", want.Deliveries[i], s.record(id))
		}
		s.want("items", s.itemsOf("evt_1"), s.all(outbox.Query{Filter: outbox.Filter{Event: "evt_1"}, Limit: 5, Oldest: true}))
		s.want("found by a field", []string{"evt_2"}, itemEvents(s.all(outbox.Query{Filter: outbox.Filter{Fields: e.Event.Fields[:1]}, Limit: 5})))
		s.want("another event", other, s.lookup("evt_2"))
		s.want("counts", counts, s.counts())
	}
	check()
	s.reopen()
	check()
	s.wantEdited(outbox.Edited{Repeated: true}, outbox.Change{Action: outbox.Erase, Event: "evt_1"})
	s.wantEdited(outbox.Edited{Repeated: true}, outbox.Change{Action: outbox.Erase, Event: "evt_1", Force: true})
	check()
	s.wantEdited(outbox.Edited{Err: outbox.ErrErased}, outbox.Change{Action: outbox.Redeliver, Delivery: s.deliveryIDs("evt_1")[0]})

	// The event is known, so its data does not come back with a repeat.
	s.want("repeat", []outbox.Receipt{{ID: "evt_1", Deliveries: 2, Duplicate: true}}, s.accept(e))
	check()
	s.wantEdited(outbox.Edited{}, outbox.Change{Action: outbox.Erase, Event: "evt_none"}) // an event that nobody wanted
	s.want("data of an event without deliveries", "", string(s.lookup("evt_none").Event.Data))
	s.elapse(time.Millisecond)
	s.want("reaped", 2, s.reap(outbox.Retention{}))
	s.absent("evt_1")
}

func testEraseForced(s *suite) {
	s.accept(detailed("evt_1", "a", "b", "c", "d"))
	delivered := s.claimOne("a")
	s.settleDetailed(delivered, outbox.Delivered, time.Time{})
	s.settleDetailed(s.claimOne("b"), outbox.Pending, time.Now().Add(s.delay))
	held := s.claimOne("c")
	s.commit()
	before := s.lookup("evt_1")
	s.wantEdited(outbox.Edited{Err: &outbox.StateError{State: outbox.Pending}}, outbox.Change{Action: outbox.Erase, Event: "evt_1"})
	s.want("record after a refusal", before, s.lookup("evt_1"))

	s.wantEdited(outbox.Edited{}, outbox.Change{Action: outbox.Erase, Event: "evt_1", Force: true, Code: "erased"})
	if err := s.store.Settle(s.ctx(), held, outbox.Settlement{Attempt: detailedAttempt(1, outbox.Delivered), State: outbox.Delivered}); !errors.Is(err, outbox.ErrLeaseLost) {
		s.Errorf("Settle of an erased event: %v, want ErrLeaseLost", err)
	}
	if err := s.store.Release(s.ctx(), held); err != nil {
		s.Errorf("Release of an erased event: %v, want silence", err)
	}
	s.reopen()
	s.elapse(s.delay)
	r := s.lookup("evt_1")
	s.want("data", "", string(r.Event.Data))
	s.want("fields", 0, len(r.Event.Fields))
	for i, d := range r.Deliveries {
		state, code, attempts := outbox.Discarded, "erased", 0
		if i == 0 {
			state, code = outbox.Delivered, ""
		}
		if i <= 1 {
			attempts = 1
		}
		if d.State != state || d.Code != code || len(d.Attempts) != attempts || d.Finished.IsZero() {
			s.Errorf("delivery to %s: %+v", d.Endpoint, d)
		}
		for _, a := range d.Attempts {
			s.want("what the receiver answered", "", a.Request+a.Head+string(a.Body))
		}
	}
	for _, endpoint := range []string{"b", "c", "d"} {
		s.wantCounts(endpoint, outbox.Counts{Accepted: 1, Discarded: 1})
		s.claimNone(endpoint)
	}
}

// tested is a settlement of an attempt outside the queue.
func tested(state outbox.State) outbox.Settlement {
	return outbox.Settlement{Attempt: detailedAttempt(1, state), State: state}
}

func testRecord(s *suite) {
	before := time.Now().Truncate(time.Microsecond)
	e := detailed("evt_test", "a").Event
	e.Type = "relay.test"
	id, err := s.operator().Record(s.ctx(), e, "a", tested(outbox.Failed))
	if err != nil {
		s.Fatalf("Record: %v", err)
	}
	s.reopen()
	r := s.lookup("evt_test")
	s.want("event", e, r.Event)
	if len(r.Deliveries) != 1 {
		s.Fatalf("%d deliveries, want one", len(r.Deliveries))
	}
	d := r.Deliveries[0]
	if d.Created.Before(before.Add(-outbox.OrderSlack)) || d.Finished.Before(d.Created) || d.Finished.After(time.Now().Add(outbox.OrderSlack)) {
		s.Errorf("recorded delivery made at %v, ended at %v", d.Created, d.Finished)
	}
	s.want("delivery", outbox.DeliveryRecord{
		Delivery: outbox.Delivery{ID: id, EventID: "evt_test", Endpoint: "a", State: outbox.Failed, Attempts: 1, Manual: true,
			Due: d.Due, Created: d.Created, Finished: d.Finished, Code: "tls_name"},
		Attempts: []outbox.Attempt{detailedAttempt(1, outbox.Failed)},
	}, d)
	s.wantCounts("a", outbox.Counts{})
	s.claimNone("a")
	s.want("items", s.itemsOf("evt_test"), s.all(outbox.Query{Filter: outbox.Filter{Manual: new(true)}, Limit: 5}))
	s.want("statistics", 0, len(s.statistics(outbox.StatQuery{})))

	if _, err := s.operator().Record(s.ctx(), e, "a", tested(outbox.Delivered)); !errors.Is(err, outbox.ErrConflict) {
		s.Errorf("Record of an event that is known: %v, want ErrConflict", err)
	}
	if _, err := s.operator().Record(s.ctx(), entry("evt_pending").Event, "a", tested(outbox.Pending)); err == nil {
		s.Error("Record of an attempt that did not end its delivery: no error")
	}
	s.wantCounts("a", outbox.Counts{})
	failed := outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Failed}}, Limit: 5}
	s.want("failed items", s.itemsOf("evt_test"), s.all(failed))
	if n, _, err := s.operator().Count(s.ctx(), failed.Filter); err != nil || n != 1 {
		s.Errorf("%d failed, %v, want 1", n, err)
	}

	for _, state := range []outbox.State{outbox.Delivered, outbox.Discarded} {
		if _, err := s.operator().Record(s.ctx(), entry("evt_"+string(state)).Event, "a", tested(state)); err != nil {
			s.Fatalf("Record: %v", err)
		}
	}
	s.checkBooks()
	s.reopen()
	s.checkBooks()

	// It can be redelivered, which is no test: statistics have it.
	edited := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: id})[0]
	c := s.claimOne("a")
	s.want("claimed", edited.Delivery, c.ID)
	s.settle(c, outbox.Delivered)
	s.commit()
	s.want("rows of statistics", 1, len(s.statistics(outbox.StatQuery{})))
	s.checkBooks()
	s.elapse(time.Millisecond)
	s.want("reaped", 4, s.reap(outbox.Retention{}))
	s.absent("evt_test")
	s.wantCounts("a", outbox.Counts{Accepted: 1, Delivered: 1})
	if n, _, err := s.operator().Count(s.ctx(), outbox.Filter{}); err != nil || n != 0 {
		s.Errorf("%d deliveries after all were removed, %v, want none", n, err)
	}
}

func (s *suite) checkBooks() {
	s.Helper()
	if err := CheckBooks(s.ctx(), s.operator()); err != nil {
		s.Error(err)
	}
}

func testRecordWhileFull(s *suite) {
	s.openSized()
	s.fill("evt_", 64<<10)
	s.fill("evt_small", 0)
	if _, err := s.operator().Record(s.ctx(), entry("evt_test").Event, "b", tested(outbox.Delivered)); !errors.Is(err, outbox.ErrFull) {
		s.Errorf("Record in a full outbox: %v, want ErrFull", err)
	}
	s.absent("evt_test")
	s.wantCounts("b", outbox.Counts{})
}
