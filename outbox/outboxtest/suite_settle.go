package outboxtest

import (
	"errors"
	"fmt"
	"time"

	"relay/outbox"
)

func testSettleStates(s *suite) {
	s.accept(entry("evt_1", "delivered", "failed", "discarded", "pending"))
	before := time.Now().Truncate(time.Microsecond)
	due := before.Add(long)
	states := map[string]outbox.State{"delivered": outbox.Delivered, "failed": outbox.Failed, "discarded": outbox.Discarded, "pending": outbox.Pending}
	for endpoint, state := range states {
		c := s.claimOne(endpoint)
		if state == outbox.Pending {
			s.retry(c, due)
		} else {
			s.settle(c, state)
		}
		s.claimNone(endpoint)
	}
	s.commit()
	s.reopen()

	codes := map[string]string{"delivered": "", "failed": "tls_name", "discarded": "endpoint_gone", "pending": "http_503"}
	r := s.lookup("evt_1")
	s.want("deliveries", 4, len(r.Deliveries))
	for _, d := range r.Deliveries {
		state := states[d.Endpoint]
		s.want(d.Endpoint+" state", state, d.State)
		s.want(d.Endpoint+" code", codes[d.Endpoint], d.Code)
		s.want(d.Endpoint+" attempts", []outbox.Attempt{attempt(1, state)}, d.Attempts)
		s.want(d.Endpoint+" attempt count", 1, d.Delivery.Attempts)
		switch {
		case state == outbox.Pending:
			s.want("due", due.UTC(), d.Due)
			s.want("finished", time.Time{}, d.Finished)
		case d.Finished.Before(before.Add(-outbox.OrderSlack)) || d.Finished.After(time.Now().Add(outbox.OrderSlack)):
			s.Errorf("%s finished at %v, want between %v and now", d.Endpoint, d.Finished, before)
		}
		s.claimNone(d.Endpoint)
	}
	s.wantCounts("delivered", outbox.Counts{Accepted: 1, Delivered: 1})
	s.wantCounts("failed", outbox.Counts{Accepted: 1, Failed: 1})
	s.wantCounts("discarded", outbox.Counts{Accepted: 1, Discarded: 1})
	s.wantCounts("pending", outbox.Counts{Accepted: 1, Pending: 1})
}

func testSettleTwice(s *suite) {
	s.accept(entry("evt_1", "a", "b"))
	c := s.claimOne("a")
	s.settle(c, outbox.Failed)
	s.lost(c)
	s.reopen()
	s.lost(c)
	s.claimNone("a")

	// A retry ends the claim as well, also while the delivery waits.
	c = s.claimOne("b")
	s.retry(c, time.Now().Add(long))
	s.lost(c)
	s.wantCounts("a", outbox.Counts{Accepted: 1, Failed: 1})
	s.wantCounts("b", outbox.Counts{Accepted: 1, Pending: 1})
}

func testLookup(s *suite) {
	s.absent("evt_1")
	s.accept(entry("evt_1", "b", "a"), entry("evt_2", "c"))
	other := s.lookup("evt_2")
	states := []outbox.State{outbox.Pending, outbox.Pending, outbox.Pending, outbox.Delivered}
	var attempts []outbox.Attempt
	due := s.lookup("evt_1").Deliveries[1].Due
	for i, state := range states {
		c := s.claimOne("a")
		s.want("event", "evt_1", c.EventID)
		s.want("attempts before", i, c.Attempts)
		settlement := outbox.Settlement{Attempt: attempt(i+1, state), State: state, Due: due.Add(-time.Second)}
		if err := s.store.Settle(s.ctx(), c, settlement); err != nil {
			s.Fatalf("Settle: %v", err)
		}
		attempts = append(attempts, settlement.Attempt)
		s.commit()

		r := s.lookup("evt_1")
		s.want("endpoints", []string{"b", "a"}, []string{r.Deliveries[0].Endpoint, r.Deliveries[1].Endpoint})
		s.want("attempts of a", attempts, r.Deliveries[1].Attempts)
		s.want("state of a", state, r.Deliveries[1].State)
		s.want("code of a", settlement.Attempt.Code, r.Deliveries[1].Code)
		s.want("attempts of b", 0, len(r.Deliveries[0].Attempts))
		s.want("other event", other, s.lookup("evt_2"))
	}
}

// testCrashInSettle: a settlement may be lost by a crash, never half of it.
func testCrashInSettle(s *suite) {
	s.accept(entries("evt_", 20, "a")...)
	due := time.Now().Add(long).UTC().Truncate(time.Microsecond)
	claims := s.claimAll("a", 20)
	for i, c := range claims {
		if i%2 == 0 {
			s.settle(c, outbox.Delivered)
		} else {
			s.retry(c, due)
		}
	}
	s.reopen()
	var delivered int64
	for i, c := range claims {
		d := s.lookup(c.EventID).Deliveries[0]
		s.want("attempts", len(d.Attempts), d.Delivery.Attempts)
		switch {
		case len(d.Attempts) == 0:
			s.want("lost settlement of "+c.EventID, c.Delivery, d.Delivery)
		case i%2 == 0:
			s.want("state", outbox.Delivered, d.State)
			delivered++
		default:
			s.want("state", outbox.Pending, d.State)
			s.want("due", due, d.Due)
		}
	}
	s.wantCounts("a", outbox.Counts{Accepted: 20, Delivered: delivered, Pending: 20 - delivered})
}

func testRetryWaits(s *suite) {
	s.accept(entry("evt_1", "a"), entry("evt_2", "a"))
	c := s.claimOne("a")
	s.want("the other", "evt_2", s.claimOne("a").EventID)

	// Who waits wakes by itself when the time comes, whether he came long before or
	// at the last moment.
	for i, early := range []time.Duration{s.delay / 2, 100 * time.Microsecond} {
		due := time.Now().Add(s.delay).Truncate(time.Microsecond)
		s.retry(c, due)
		s.claimNone("a")
		s.elapse(time.Until(due) - early)
		ctx, cancel := s.within(s.delay + s.patience)
		claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 5, Lease: long})
		at := time.Now()
		cancel()
		if err != nil {
			s.Fatalf("Claim: %v", err)
		}
		if at.Before(due) {
			s.Errorf("claimed %v before its due time", due.Sub(at))
		}
		s.want("claimed", []string{"evt_1"}, eventIDs(claims))
		c = claims[0]
		s.want("attempts", i+1, c.Attempts)
		s.want("due", due.UTC(), c.Due)
	}

	// An accept that wakes a claimer does not wake a retry with it.
	s.retry(c, time.Now().Add(long))
	s.accept(entry("evt_3", "a"))
	s.want("claimed", []string{"evt_3"}, eventIDs(s.claim("a", 5, long)))
	s.claimNone("a")
}

func testRetryAtOnce(s *suite) {
	s.accept(entry("evt_1", "a"))
	claimed := make(chan error)
	c := s.claimOne("a")
	go func() {
		ctx, cancel := s.within(s.patience)
		defer cancel()
		claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long})
		if err == nil && (len(claims) != 1 || claims[0].Attempts != 1) {
			err = fmt.Errorf("claims = %+v", claims)
		}
		claimed <- err
	}()
	s.idle()
	s.retry(c, time.Now())
	if err := <-claimed; err != nil {
		s.Errorf("Claim by one who waits for a retry that is due: %v", err)
	}
}

// testOldestDueFirst: what became due first goes first, whatever was accepted first.
func testOldestDueFirst(s *suite) {
	step := max(s.delay/4, 2*outbox.OrderSlack)
	s.accept(entries("evt_", 3, "a")...)
	claims := s.claimAll("a", 3)
	start := time.Now()
	for i, c := range claims {
		s.retry(c, start.Add(time.Duration(3-i)*step)) // the last one first
	}
	s.elapse(4 * step)
	s.accept(entry("evt_new", "a"))
	s.want("claimed", []string{"evt_0002", "evt_0001", "evt_0000", "evt_new"}, eventIDs(s.claimAll("a", 4)))
}

func testAttemptsSurvive(s *suite) {
	s.accept(entry("evt_1", "a"))
	var attempts []outbox.Attempt
	for n := 1; n <= 3; n++ {
		c := s.claimOne("a")
		s.want("attempts before", n-1, c.Attempts)
		due := time.Now().Add(s.delay).Truncate(time.Microsecond)
		s.retry(c, due)
		attempts = append(attempts, attempt(n, outbox.Pending))
		s.commit()
		s.reopen()
		d := s.lookup("evt_1").Deliveries[0]
		s.want("due over reopen", due.UTC(), d.Due)
		s.want("attempts over reopen", attempts, d.Attempts)
		s.claimNone("a")
		s.elapse(s.delay)
	}
	c := s.claimOne("a")
	s.settle(c, outbox.Delivered)
	if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(4, outbox.Pending), State: outbox.Pending}); !errors.Is(err, outbox.ErrLeaseLost) {
		s.Errorf("Settle of what was delivered: %v, want ErrLeaseLost", err)
	}
	s.commit()
	s.reopen()
	d := s.lookup("evt_1").Deliveries[0]
	s.want("attempts", append(attempts, attempt(4, outbox.Delivered)), d.Attempts)
	s.want("code", "", d.Code)
	s.claimNone("a")
}
