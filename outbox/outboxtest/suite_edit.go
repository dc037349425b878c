package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"relay/outbox"
)

// editAll makes changes; each has an answer.
func (s *suite) editAll(changes ...outbox.Change) []outbox.Edited {
	s.Helper()
	all, err := s.operator().Edit(s.ctx(), changes)
	if err != nil || len(all) != len(changes) {
		s.Fatalf("Edit of %d changes: %d answers, %v", len(changes), len(all), err)
	}
	return all
}

// wantEdited makes one change, which must be answered so.
func (s *suite) wantEdited(want outbox.Edited, c outbox.Change) {
	s.Helper()
	s.wantAnswer(fmt.Sprintf("%s %s%s", c.Action, c.Delivery, c.Event), want, s.editAll(c)[0])
}

func (s *suite) wantAnswer(what string, want, got outbox.Edited) {
	s.Helper()
	state, isState := errors.AsType[*outbox.StateError](want.Err)
	gotState, gotIsState := errors.AsType[*outbox.StateError](got.Err)
	switch {
	case isState != gotIsState || isState && *state != *gotState:
		s.Errorf("%s: error %v, want %v", what, got.Err, want.Err)
	case !isState && !errors.Is(got.Err, want.Err):
		s.Errorf("%s: error %v, want %v", what, got.Err, want.Err)
	case want.Err == nil && got != want:
		s.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// ended accepts an event for endpoint a and ends its delivery, whose id it returns.
func (s *suite) ended(e outbox.Entry, state outbox.State) string {
	s.Helper()
	s.accept(e)
	c := s.claimOne(e.Endpoints[0])
	s.want("claimed", e.Event.ID, c.EventID)
	s.settleDetailed(c, state, time.Time{})
	s.commit()
	return c.ID
}

func testRedeliver(s *suite) {
	e := detailed("evt_1", "a")
	old := s.ended(e, outbox.Failed)
	before := s.lookup("evt_1")
	edited := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: old})[0]
	if edited.Err != nil || edited.Repeated || edited.Delivery == old || !strings.HasPrefix(edited.Delivery, "dlv_") {
		s.Fatalf("redeliver: %+v", edited)
	}
	s.reopen()
	r := s.lookup("evt_1")
	s.want("the old delivery", before.Deliveries[0], r.Deliveries[0])
	if len(r.Deliveries) != 2 {
		s.Fatalf("%d deliveries of the event, want 2", len(r.Deliveries))
	}
	made := r.Deliveries[1].Delivery
	s.want("the new delivery", outbox.Delivery{ID: edited.Delivery, EventID: "evt_1", Endpoint: "a", State: outbox.Pending,
		Due: made.Due, Created: made.Created, Origin: old, Manual: true}, made)
	if made.Created.Before(r.Deliveries[0].Finished) || made.Due.After(time.Now().Add(outbox.OrderSlack)) {
		s.Errorf("the new delivery was made at %v and is due at %v; the old one ended at %v", made.Created, made.Due, r.Deliveries[0].Finished)
	}
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 1, Failed: 1})
	s.wantEdited(outbox.Edited{Err: &outbox.StateError{State: outbox.Pending}}, outbox.Change{Action: outbox.Redeliver, Delivery: edited.Delivery})

	c := s.claimOne("a")
	s.want("event of the claim", e.Event, *c.Event)
	s.want("the claim", outbox.Delivery{ID: edited.Delivery, EventID: "evt_1", Endpoint: "a", State: outbox.Pending,
		Due: c.Due, Created: c.Created, Origin: old, Manual: true}, c.Delivery)
	s.retry(c, time.Now())
	s.reopen()
	c = s.claimOne("a")
	s.want("attempts", 1, c.Attempts)
	s.settle(c, outbox.Delivered)
	s.commit()
	s.wantCounts("a", outbox.Counts{Accepted: 2, Failed: 1, Delivered: 1})
	s.want("items of an operator", []string{edited.Delivery}, itemIDs(s.all(outbox.Query{Filter: outbox.Filter{Manual: new(true)}, Limit: 5})))

	// A delivered one can be sent again, and so can a redelivery; each change makes one more.
	for _, id := range []string{edited.Delivery, old, old} {
		again := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: id})[0]
		if again.Err != nil {
			s.Fatalf("redeliver: %v", again.Err)
		}
		s.want("origin", id, s.claimOne("a").Origin)
	}
	s.want("deliveries of the event", 5, len(s.deliveryIDs("evt_1")))

	// The event is kept as long as one of its deliveries is.
	s.elapse(time.Millisecond)
	s.want("reaped", 2, s.reap(outbox.Retention{}))
	s.want("deliveries of the event", 3, len(s.deliveryIDs("evt_1")))
	s.want("data", string(e.Event.Data), string(s.lookup("evt_1").Event.Data))
}

func testRedeliverElsewhere(s *suite) {
	old := s.ended(detailed("evt_1", "a"), outbox.Delivered)
	for _, to := range []string{"never seen", "b"} {
		edited := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: old, Endpoint: to})[0]
		c := s.claimOne(to)
		s.want("claimed", edited.Delivery, c.ID)
		s.want("origin", old, c.Origin)
		s.settle(c, outbox.Delivered)
		s.commit()
		s.wantCounts(to, outbox.Counts{Accepted: 1, Delivered: 1})
	}
	s.wantCounts("a", outbox.Counts{Accepted: 1, Delivered: 1})
	s.claimNone("a")

	// A claim that waits hears of it.
	answer := make(chan []outbox.Claim, 1)
	go func() {
		ctx, cancel := s.within(s.patience)
		defer cancel()
		claims, _ := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "c", Max: 1, Lease: long})
		answer <- claims
	}()
	s.idle()
	edited := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: old, Endpoint: "c"})[0]
	if claims := <-answer; len(claims) != 1 || claims[0].ID != edited.Delivery {
		s.Errorf("the claim that waited got %+v, want %s", claims, edited.Delivery)
	}
}

func testRedeliverOnce(s *suite) {
	old := s.ended(entry("evt_1", "a"), outbox.Failed)
	other := s.ended(entry("evt_2", "a"), outbox.Failed)
	change := outbox.Change{Action: outbox.Redeliver, Delivery: old, Once: "job_1/" + strings.Repeat("x", 58)}
	both := s.editAll(change, change)
	s.want("second of the same in one call", outbox.Edited{Delivery: both[0].Delivery, Repeated: true}, both[1])
	made := s.record(both[0].Delivery)
	s.want("made by an operator, and of which", []any{true, old}, []any{made.Manual, made.Origin})
	again := outbox.Edited{Delivery: both[0].Delivery, Repeated: true}
	s.wantEdited(again, change)
	s.reopen()
	s.wantEdited(again, change)
	s.wantCounts("a", outbox.Counts{Accepted: 3, Pending: 1, Failed: 2})

	// It is the delivery that the first one made, whatever became of it and is asked for now.
	elsewhere := change
	elsewhere.Endpoint = "b"
	s.wantEdited(again, elsewhere)
	c := s.claimOne("a")
	s.wantEdited(again, change)
	s.settle(c, outbox.Delivered)
	s.commit()
	s.wantEdited(again, change)

	change.Once = "job_2"
	second := s.editAll(change)[0]
	if second.Err != nil || second.Repeated || second.Delivery == both[0].Delivery {
		s.Errorf("redeliver with another Once: %+v", second)
	}
	third := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: other, Once: "job_3"})[0]
	if third.Err != nil || third.Repeated {
		s.Errorf("redeliver another: %+v", third)
	}

	// What the first one made is reaped: it is forgotten.
	s.elapse(time.Millisecond)
	s.reap(outbox.Retention{Failed: long})
	change.Once = "job_1/" + strings.Repeat("x", 58)
	fresh := s.editAll(change)[0]
	if fresh.Err != nil || fresh.Repeated || fresh.Delivery == both[0].Delivery {
		s.Errorf("redeliver after the first one was reaped: %+v", fresh)
	}
}

// testRacingRedeliveries: however many ask for it at once, with one Once there is one delivery.
func testRacingRedeliveries(s *suite) {
	old := s.ended(entry("evt_1", "a"), outbox.Failed)
	stores := []outbox.Operable{s.operator(), s.operable(s.another())}
	var mu sync.Mutex
	var made []outbox.Edited
	var workers sync.WaitGroup
	for i := range 16 {
		workers.Go(func() {
			all, err := stores[i%2].Edit(s.ctx(), []outbox.Change{{Action: outbox.Redeliver, Delivery: old, Once: "once"}})
			if err != nil {
				s.Errorf("Edit: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, all[0])
		})
	}
	workers.Wait()
	first := 0
	for _, e := range made {
		s.want("error", nil, e.Err)
		s.want("delivery", made[0].Delivery, e.Delivery)
		if !e.Repeated {
			first++
		}
	}
	s.want("changes that were made", 1, first)
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 1, Failed: 1})
}

// testEditWhileFull: a full outbox refuses what needs room, and nothing else.
func testEditWhileFull(s *suite) {
	s.openSized()
	failed := s.ended(entry("evt_failed", "b"), outbox.Failed)
	s.accept(entry("evt_later", "b"), entry("evt_waits", "c"))
	s.retry(s.claimOne("b"), time.Now().Add(long))
	s.fill("evt_", 64<<10)
	s.fill("evt_small", 0)
	s.wantEdited(outbox.Edited{Err: outbox.ErrFull}, outbox.Change{Action: outbox.Redeliver, Delivery: failed})
	counts := s.counts()["b"]
	s.want("accepted", int64(2), counts.Accepted)

	later, waits := s.deliveryIDs("evt_later")[0], s.deliveryIDs("evt_waits")[0]
	s.wantEdited(outbox.Edited{Delivery: later}, outbox.Change{Action: outbox.Retry, Delivery: later})
	s.want("claimed", later, s.claimOne("b").ID)
	s.wantEdited(outbox.Edited{Delivery: waits}, outbox.Change{Action: outbox.Discard, Delivery: waits, Code: "x"})
	s.wantEdited(outbox.Edited{}, outbox.Change{Action: outbox.Erase, Event: "evt_failed"})
	s.claimNone("c")
}

func testRetryNow(s *suite) {
	s.accept(entry("evt_1", "a"), entry("evt_2", "a"))
	var later []string
	for range 2 {
		c := s.claimOne("a")
		s.retry(c, time.Now().Add(long))
		later = append(later, c.ID)
	}
	s.commit()
	s.claimNone("a")
	first := outbox.Change{Action: outbox.Retry, Delivery: later[0]}
	s.wantEdited(outbox.Edited{Delivery: later[0]}, first)
	s.wantEdited(outbox.Edited{Delivery: later[0], Repeated: true}, first) // it is due now
	s.reopen()
	s.wantEdited(outbox.Edited{Delivery: later[0], Repeated: true}, first)
	r := s.lookup("evt_1")
	if r.Deliveries[0].ID != later[0] {
		r = s.lookup("evt_2")
	}
	if d := r.Deliveries[0]; d.Due.After(time.Now().Add(outbox.OrderSlack)) || len(d.Attempts) != 1 || d.State != outbox.Pending || d.Manual {
		s.Errorf("delivery after Retry: %+v", d.Delivery)
	}
	c := s.claimOne("a")
	s.want("claimed", later[0], c.ID)
	s.claimNone("a")

	// A claim that is held goes on, and its settlement counts.
	s.wantEdited(outbox.Edited{Delivery: later[0], Repeated: true}, first)
	s.claimNone("a")
	s.retry(c, time.Now().Add(long))
	s.commit()
	s.claimNone("a")
	s.wantEdited(outbox.Edited{Delivery: later[0]}, first)
	c = s.claimOne("a")
	s.want("attempts", 2, c.Attempts)
	s.settle(c, outbox.Failed)
	s.commit()
	s.wantEdited(outbox.Edited{Err: &outbox.StateError{State: outbox.Failed}}, first)
	s.want("attempts recorded", 3, len(s.record(later[0]).Attempts))
}

// record is the record of a delivery.
func (s *suite) record(id string) outbox.DeliveryRecord {
	s.Helper()
	r, err := s.operator().LookupDelivery(s.ctx(), id)
	if err != nil {
		s.Fatalf("LookupDelivery %s: %v", id, err)
	}
	return r.Deliveries[0]
}

func testRetryWakes(s *suite) {
	other := s.another()
	s.accept(entry("evt_1", "a"))
	c := s.claimOne("a")
	s.retry(c, time.Now().Add(long))
	s.commit()
	answer := make(chan []outbox.Claim, 1)
	go func() {
		ctx, cancel := s.within(s.patience)
		defer cancel()
		claims, _ := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long})
		answer <- claims
	}()
	s.idle()
	if _, err := s.operable(other).Edit(s.ctx(), []outbox.Change{{Action: outbox.Retry, Delivery: c.ID}}); err != nil {
		s.Fatalf("Edit: %v", err)
	}
	if claims := <-answer; len(claims) != 1 || claims[0].ID != c.ID {
		s.Errorf("the claim that waited got %+v, want %s", claims, c.ID)
	}
}

func testDiscard(s *suite) {
	s.accept(entry("evt_fresh", "a", "b"), entry("evt_other", "a"))
	fresh := s.deliveryIDs("evt_fresh")
	before := time.Now().Truncate(time.Microsecond)
	discard := func(id string) outbox.Change {
		return outbox.Change{Action: outbox.Discard, Delivery: id, Code: "discarded_by_operator"}
	}
	s.wantEdited(outbox.Edited{Delivery: fresh[0]}, discard(fresh[0]))
	s.reopen()
	d := s.record(fresh[0])
	if d.State != outbox.Discarded || d.Code != "discarded_by_operator" || d.Finished.Before(before.Add(-outbox.OrderSlack)) || d.Finished.After(time.Now().Add(outbox.OrderSlack)) || len(d.Attempts) > 0 {
		s.Errorf("discarded delivery: %+v", d)
	}
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 1, Discarded: 1})
	s.wantCounts("b", outbox.Counts{Accepted: 1, Pending: 1})
	again := discard(fresh[0])
	again.Code = "other"
	s.wantEdited(outbox.Edited{Delivery: fresh[0], Repeated: true}, again)
	s.want("record", d, s.record(fresh[0]))

	// The rest goes on. One that is claimed cannot be discarded, one that waits for its retry can.
	c := s.claimOne("a")
	s.want("claimed", "evt_other", c.EventID)
	s.claimNone("a")
	s.wantEdited(outbox.Edited{Err: outbox.ErrClaimed}, discard(c.ID))
	s.retry(c, time.Now().Add(s.delay))
	s.commit()
	s.wantEdited(outbox.Edited{Delivery: c.ID}, discard(c.ID))
	s.elapse(s.delay)
	s.claimNone("a")
	s.want("attempts", 1, len(s.record(c.ID).Attempts))
	s.wantCounts("a", outbox.Counts{Accepted: 2, Discarded: 2})
	c = s.claimOne("b")
	s.settle(c, outbox.Delivered)
	s.commit()
	s.wantEdited(outbox.Edited{Err: &outbox.StateError{State: outbox.Delivered}}, discard(c.ID))
	s.claimNone("b")

	// What was discarded can be redelivered, and is reaped in its time.
	edited := s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: fresh[0]})[0]
	s.want("claimed", edited.Delivery, s.claimOne("a").ID)
	s.elapse(time.Millisecond)
	s.want("reaped", 3, s.reap(outbox.Retention{Failed: long}))
}

// testDiscardBesideWorkers: each delivery ends once, by its settlement or by its discard.
func testDiscardBesideWorkers(s *suite) {
	const n = 120
	s.accept(entries("evt_", n, "a")...)
	ids := itemIDs(s.all(outbox.Query{Limit: outbox.MaxPage}))
	s.want("deliveries", n, len(ids))
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	var workers sync.WaitGroup
	var mu sync.Mutex
	settled, discarded := 0, 0
	for range 3 {
		workers.Go(func() {
			for {
				claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 2, Lease: long})
				if err != nil {
					return // the test is over
				}
				for _, c := range claims {
					if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(1, outbox.Delivered), State: outbox.Delivered}); err != nil {
						s.Errorf("Settle: %v", err)
					}
					mu.Lock()
					settled++
					mu.Unlock()
				}
			}
		})
	}
	for i := 0; i < n; i += 5 {
		var changes []outbox.Change
		for _, id := range ids[i : i+5] {
			changes = append(changes, outbox.Change{Action: outbox.Discard, Delivery: id, Code: "x"})
		}
		for _, e := range s.editAll(changes...) {
			_, over := errors.AsType[*outbox.StateError](e.Err)
			switch {
			case e.Err == nil && !e.Repeated:
				discarded++
			case !over && !errors.Is(e.Err, outbox.ErrClaimed):
				s.Errorf("discard beside workers: %+v", e)
			}
		}
	}
	deadline := time.Now().Add(s.patience)
	for s.counts()["a"].Pending > 0 {
		if time.Now().After(deadline) {
			s.Fatalf("deliveries still wait: %+v", s.counts()["a"])
		}
		s.elapse(time.Millisecond)
		s.commit()
	}
	cancel()
	workers.Wait()
	s.commit()
	s.want("settled and discarded", n, settled+discarded)
	s.wantCounts("a", outbox.Counts{Accepted: n, Delivered: int64(settled), Discarded: int64(discarded)})
}

func testManyChanges(s *suite) {
	s.accept(entries("evt_", 150, "a", "b")...)
	var changes []outbox.Change
	for _, i := range s.all(outbox.Query{Filter: outbox.Filter{Endpoints: []string{"a"}}, Limit: outbox.MaxPage}) {
		changes = append(changes, outbox.Change{Action: outbox.Discard, Delivery: i.ID, Code: "x"})
	}
	// An error of one keeps none of the others back.
	changes[10].Delivery = "dlv_absent"
	changes[20].Action = outbox.Redeliver
	changes[30].Action = "nothing"
	for i, e := range s.editAll(changes...) {
		if failed := e.Err != nil; failed != (i == 10 || i == 20 || i == 30) {
			s.Errorf("change %d: %+v", i, e)
		}
	}
	s.wantCounts("a", outbox.Counts{Accepted: 150, Pending: 3, Discarded: 147})
	s.reopen()
	s.wantCounts("a", outbox.Counts{Accepted: 150, Pending: 3, Discarded: 147})
	s.wantCounts("b", outbox.Counts{Accepted: 150, Pending: 150})
	s.want("claimed", 3, len(s.claimAll("a", 3)))
	s.claimNone("a")

	s.want("no change", 0, len(s.editAll()))
	changes = make([]outbox.Change, outbox.MaxChanges+1)
	for i := range changes {
		changes[i] = outbox.Change{Action: outbox.Retry, Delivery: "dlv_absent"}
	}
	if _, err := s.operator().Edit(s.ctx(), changes); err == nil {
		s.Errorf("Edit of %d changes: no error", len(changes))
	}
	s.want("most changes", outbox.MaxChanges, len(s.editAll(changes[1:]...)))
}

func testAbsentChanges(s *suite) {
	s.ended(entry("evt_1", "a"), outbox.Delivered)
	for _, id := range []string{"", "dlv_", "dlv_0", "evt_1", strings.Repeat("x", 300), "\x00é"} {
		for _, action := range []outbox.Action{outbox.Redeliver, outbox.Retry, outbox.Discard} {
			s.wantEdited(outbox.Edited{Err: outbox.ErrNotFound}, outbox.Change{Action: action, Delivery: id})
		}
		if id != "evt_1" {
			s.wantEdited(outbox.Edited{Err: outbox.ErrNotFound}, outbox.Change{Action: outbox.Erase, Event: id, Force: true})
		}
	}
	s.wantEdited(outbox.Edited{Err: outbox.ErrNotFound}, outbox.Change{Action: outbox.Erase, Event: s.deliveryIDs("evt_1")[0]})
	s.wantCounts("a", outbox.Counts{Accepted: 1, Delivered: 1})
}
