package outboxtest

import (
	"time"

	"relay/outbox"
)

// resend asks for a redelivery of one delivery, unless it is needless.
func resend(id, once string, unless outbox.Unless) outbox.Change {
	return outbox.Change{Action: outbox.Redeliver, Delivery: id, Once: once, Unless: unless}
}

// wantResent makes a redelivery and returns its id.
func (s *suite) wantResent(c outbox.Change) string {
	s.Helper()
	e := s.editAll(c)[0]
	if e.Err != nil || e.Repeated || e.Delivery == c.Delivery {
		s.Fatalf("redeliver %+v: %+v", c, e)
	}
	return e.Delivery
}

// settleNext claims the next delivery of an endpoint, which has this id, and ends it.
func (s *suite) settleNext(endpoint, id string, state outbox.State) {
	s.Helper()
	c := s.claimOne(endpoint)
	s.want("claimed", id, c.ID)
	s.settle(c, state)
	s.commit()
}

func testNeedless(s *suite) {
	first := s.ended(entry("evt_1", "a", "other"), outbox.Failed)
	second := s.wantResent(resend(first, "job_1.x", outbox.UnlessDelivered))
	s.wantEdited(outbox.Edited{Delivery: second, Repeated: true}, resend(first, "job_1.x", outbox.UnlessDelivered)) // the same once more
	s.wantEdited(outbox.Edited{Err: outbox.ErrRepeat}, resend(first, "job_1.y", outbox.UnlessDelivered))
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "job_2.x", outbox.UnlessDelivered))
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "job_2.x", outbox.UnlessPending))
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "", outbox.UnlessPending))
	s.reopen()
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "job_10.x", outbox.UnlessDelivered)) // its name begins alike
	c := s.claimOne("a")
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "", outbox.UnlessDelivered))
	s.retry(c, time.Now().Add(s.delay))
	s.commit()
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, resend(first, "", outbox.UnlessDelivered))
	s.elapse(s.delay)
	s.settleNext("a", second, outbox.Failed)

	// It has failed, so either of them can be sent again, once in one work.
	s.wantEdited(outbox.Edited{Err: outbox.ErrRepeat}, resend(second, "job_1.z", outbox.UnlessDelivered))
	both := s.editAll(resend(first, "job_2.x", outbox.UnlessDelivered), resend(second, "job_2.y", outbox.UnlessDelivered))
	s.wantAnswer("the second of one event", outbox.Edited{Err: outbox.ErrRepeat}, both[1])
	third := both[0].Delivery
	s.settleNext("a", third, outbox.Delivered)
	s.reopen()
	for _, id := range []string{first, second} {
		s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, resend(id, "job_3.x", outbox.UnlessDelivered))
		s.wantEdited(outbox.Edited{Err: outbox.ErrRepeat}, resend(id, "job_2.z", outbox.UnlessPending))
	}

	// What was delivered can be sent again, and what came before a delivery is not made needless by that.
	fourth := s.wantResent(resend(third, "job_4.x", outbox.UnlessDelivered))
	s.settleNext("a", fourth, outbox.Failed)
	fifth := s.wantResent(resend(fourth, "job_5.x", outbox.UnlessDelivered))
	s.settleNext("a", fifth, outbox.Discarded)
	s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, resend(second, "job_6.x", outbox.UnlessDelivered))
	s.settleNext("a", s.wantResent(resend(second, "job_6.x", outbox.UnlessPending)), outbox.Failed)
	s.wantResent(resend(first, "", outbox.UnlessNothing))
	s.wantResent(resend(first, "job_7.x", outbox.UnlessNothing))

	// Retention removes what made it needless: the delivered one, and with it the discarded one.
	for range 2 {
		s.settle(s.claimOne("a"), outbox.Failed)
	}
	s.commit()
	s.elapse(time.Millisecond)
	s.want("reaped", 2, s.reap(outbox.Retention{Failed: long}))
	s.wantResent(resend(second, "job_8.x", outbox.UnlessDelivered))
}

func testNeedlessElsewhere(s *suite) {
	to := func(id, once, endpoint string) outbox.Change {
		c := resend(id, once, outbox.UnlessDelivered)
		c.Endpoint = endpoint
		return c
	}
	old := s.ended(entry("evt_1", "a", "b"), outbox.Failed)
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, to(old, "job_1.x", "b")) // by itself
	made := s.wantResent(to(old, "job_1.x", "c"))
	s.wantEdited(outbox.Edited{Err: outbox.ErrRepeat}, to(old, "job_1.y", "c"))
	s.settleNext("c", made, outbox.Delivered)
	s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, to(old, "job_2.x", "c"))
	s.settleNext("b", s.deliveryIDs("evt_1")[1], outbox.Delivered)
	s.reopen()
	s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, to(old, "job_2.x", "b"))
	s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, to(old, "job_2.x", "c"))
	s.wantEdited(outbox.Edited{Err: outbox.ErrDelivered}, to(made, "job_2.x", "b"))
	again := to(old, "job_2.x", "b")
	again.Unless = outbox.UnlessPending
	s.settleNext("b", s.wantResent(again), outbox.Failed)

	// None of that says anything about its own endpoint, named or not.
	s.wantResent(to(old, "job_3.x", "a"))
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, to(old, "job_4.x", "a"))
	s.wantEdited(outbox.Edited{Err: outbox.ErrOnItsWay}, to(made, "job_4.x", "a"))
}

func testResent(s *suite) {
	first := s.ended(entry("evt_1", "a", "b"), outbox.Failed)
	lone := s.ended(entry("evt_2", "a"), outbox.Failed)
	resent := func(yes bool, states ...outbox.State) []string {
		s.Helper()
		f := outbox.Filter{Endpoints: []string{"a"}, States: states, Resent: &yes}
		found := itemIDs(s.all(outbox.Query{Filter: f, Limit: 1, Oldest: true}))
		n, exact, err := s.operator().Count(s.ctx(), f)
		if err != nil || !exact || n != int64(len(found)) {
			s.Errorf("Count: %d, %v, %v, and %d are found", n, exact, err, len(found))
		}
		return found
	}
	s.want("before", []string{first, lone}, resent(false, outbox.Failed))
	s.want("sent again before", 0, len(resent(true)))
	other := s.wantResent(outbox.Change{Action: outbox.Redeliver, Delivery: first, Endpoint: "c"})
	s.want("after one elsewhere", []string{first, lone}, resent(false, outbox.Failed))
	second := s.wantResent(resend(first, "", outbox.UnlessNothing))
	s.reopen()
	s.want("failed after one", []string{lone}, resent(false, outbox.Failed))
	s.want("all after one", []string{lone, second}, resent(false))
	s.want("sent again after one", []string{first}, resent(true, outbox.Failed))
	s.settleNext("a", second, outbox.Failed)
	s.want("failed after it failed", []string{lone, second}, resent(false, outbox.Failed))
	third := s.wantResent(resend(first, "", outbox.UnlessNothing))
	s.settleNext("a", third, outbox.Delivered)
	s.want("failed after it was delivered", []string{lone}, resent(false, outbox.Failed))
	s.want("sent again", []string{first, second}, resent(true))
	one := outbox.Query{Filter: outbox.Filter{Event: "evt_1", Resent: new(false), Endpoints: []string{"a", "c"}}, Limit: 5, Oldest: true}
	s.want("of one event", []string{other, third}, itemIDs(s.all(one)))
	s.elapse(time.Millisecond)
	s.want("reaped", 1, s.reap(outbox.Retention{Failed: long}))
	s.want("failed after the last one was reaped", []string{lone, second}, resent(false, outbox.Failed))
}
