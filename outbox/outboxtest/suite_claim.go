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

func testFirstClaimsInOrder(s *suite) {
	var want []string
	for i := range 30 {
		e := entry(fmt.Sprintf("evt_one_%d", i), "a", "b")
		e.Event.Time = e.Event.Time.Add(-time.Duration(i) * time.Hour) // the app's word on time is no order
		s.accept(e)
		want = append(want, e.Event.ID)
	}
	batch := entries("evt_many_", 30, "b", "a")
	s.accept(batch...)
	for _, e := range batch {
		want = append(want, e.Event.ID)
	}
	// Ids that sort the other way.
	for i := range 10 {
		e := entry(fmt.Sprintf("evt_%d", 9-i), "a")
		s.accept(e)
		want = append(want, e.Event.ID)
	}
	var got []string
	for len(got) < 20 {
		got = append(got, eventIDs(s.claim("a", 3, long))...)
	}
	s.want("first claims", want[:len(got)], got)

	s.reopen()
	if s.engine.SingleOwner { // the dead owner's claims come back
		s.wantSet("claims over reopen", want, eventIDs(s.claimAll("a", len(want))))
		return
	}
	rest := eventIDs(s.claimAll("a", len(want)-len(got)))
	s.want("claims over reopen", want[len(got):], rest)
}

// testOrderOverASecond: older goes before younger, by accept and by due time, where there is
// more than OrderSlack between them.
func testOrderOverASecond(s *suite) {
	const apart = 2 * outbox.OrderSlack
	s.accept(entry("evt_retried", "a"))
	c := s.claimOne("a")
	s.accept(entry("evt_1", "a"))
	s.retry(c, time.Now().Add(apart))
	s.elapse(2 * apart)
	s.accept(entry("evt_2", "a"))
	s.elapse(apart)
	s.want("claimed", []string{"evt_1", "evt_retried", "evt_2"}, eventIDs(s.claimAll("a", 3)))
}

func testBacklogElsewhere(s *suite) {
	s.accept(entries("evt_", 500, "slow")...)
	s.accept(entry("evt_quick", "slow", "quick"))
	s.want("claimed at quick", []string{"evt_quick"}, eventIDs(s.claimAll("quick", 1)))
	s.claimAll("slow", 100)
	s.accept(entry("evt_quick2", "slow", "quick"))
	c := s.claimOne("quick")
	s.want("claimed at quick", "evt_quick2", c.EventID)
	s.settle(c, outbox.Failed)
	s.wantCounts("slow", outbox.Counts{Accepted: 502, Pending: 502})
	s.claimAll("slow", 402)
	s.claimNone("slow")
	s.claimNone("quick")
}

// testWaitingClaims: claimers that wait at several endpoints get each what is
// accepted for theirs, and nothing else.
func testWaitingClaims(s *suite) {
	type got struct{ endpoint, event string }
	arrived := make(chan got)
	ctx, cancel := context.WithCancel(s.ctx())
	var claimers sync.WaitGroup
	for e := range 4 {
		endpoint := fmt.Sprintf("ep%d", e)
		for range 3 {
			claimers.Go(func() {
				claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 1, Lease: long})
				if err != nil || len(claims) != 1 {
					s.Errorf("Claim at %s: %d claims, %v", endpoint, len(claims), err)
					return
				}
				arrived <- got{endpoint, claims[0].EventID}
			})
		}
	}
	defer claimers.Wait()
	defer cancel()
	expect := func(want ...got) {
		s.Helper()
		missing := map[got]bool{}
		for _, w := range want {
			missing[w] = true
		}
		deadline := time.After(s.patience)
		for range want {
			select {
			case g := <-arrived:
				if !missing[g] {
					s.Fatalf("event %s was claimed at %s, twice or against its entry", g.event, g.endpoint)
				}
				delete(missing, g)
			case <-deadline:
				s.Fatalf("claimers still wait for %v", missing)
			}
		}
		s.idle()
		select {
		case g := <-arrived:
			s.Fatalf("event %s was claimed at %s, out of nowhere", g.event, g.endpoint)
		default:
		}
	}

	s.idle()
	s.accept(entry("evt_1", "ep2"))
	expect(got{"ep2", "evt_1"})
	s.accept(entry("evt_2", "ep0", "ep1", "ep2", "ep3"))
	expect(got{"ep0", "evt_2"}, got{"ep1", "evt_2"}, got{"ep2", "evt_2"}, got{"ep3", "evt_2"})
	s.accept(entry("evt_3", "ep0", "ep1", "ep3"), entry("evt_4", "ep0", "ep1", "ep2", "ep3"))
	expect(got{"ep0", "evt_3"}, got{"ep1", "evt_3"}, got{"ep3", "evt_3"},
		got{"ep0", "evt_4"}, got{"ep1", "evt_4"}, got{"ep2", "evt_4"}, got{"ep3", "evt_4"})
}

func testExclusiveClaim(s *suite) {
	s.accept(entries("evt_", 3, "a")...)
	before := time.Now()
	claims := s.claimAll("a", 2)
	for i, c := range claims {
		s.want("event", fmt.Sprintf("evt_%04d", i), c.EventID)
		s.want("endpoint", "a", c.Endpoint)
		s.want("state", outbox.Pending, c.State)
		s.want("attempts", 0, c.Attempts)
		if c.Until.Before(before.Add(long)) || c.Until.After(time.Now().Add(long+time.Millisecond)) {
			s.Errorf("Until = %v, want %v from now", c.Until, long)
		}
	}
	s.want("the rest", []string{"evt_0002"}, eventIDs(s.claimAll("a", 1)))
	s.claimNone("a")
	s.accept(entry("evt_new", "a"))
	s.want("new", []string{"evt_new"}, eventIDs(s.claimAll("a", 1)))
	s.settle(claims[0], outbox.Delivered)
	s.claimNone("a")
}

// testRacingClaimers: many claimers at one endpoint, while events come in and some
// deliveries are released once or retried once.
func testRacingClaimers(s *suite) {
	s.race(func(i int) outbox.ClaimRequest { return outbox.ClaimRequest{Max: 1 + i%5} }, 0, nil)
}

// race lets sixty-four claimers, half of them of another process, deliver what comes
// in and what was accepted before. It tells holds how
// many claims more are held, or less.
func (s *suite) race(request func(claimer int) outbox.ClaimRequest, before int, holds func(n int)) {
	const arrivals = 640
	n := arrivals + before
	if holds == nil {
		holds = func(int) {}
	}
	stores := []outbox.Engine{s.store, s.another()}
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	var mu sync.Mutex
	held := map[string]bool{}       // delivery id → a claimer has it
	fences := map[string][]uint64{} // of every claim
	delivered := map[string]int{}
	var claimers sync.WaitGroup
	work := func(store outbox.Engine, c outbox.Claim) error {
		mu.Lock()
		if held[c.ID] {
			s.Errorf("delivery of %s is claimed twice at once", c.EventID)
		}
		held[c.ID] = true
		for _, f := range fences[c.ID] {
			if f == c.Fence {
				s.Errorf("delivery of %s: fence %d is given again", c.EventID, f)
			}
		}
		fences[c.ID] = append(fences[c.ID], c.Fence)
		turn := len(fences[c.ID])
		held[c.ID] = false // from here on another may claim it
		mu.Unlock()
		holds(-1)

		switch {
		case turn == 1 && strings.HasSuffix(c.EventID, "3"):
			return store.Release(ctx, c)
		case turn == 1 && strings.HasSuffix(c.EventID, "7"):
			return store.Settle(ctx, c, outbox.Settlement{Attempt: attempt(1, outbox.Pending), State: outbox.Pending, Due: time.Now()})
		}
		err := store.Settle(ctx, c, outbox.Settlement{Attempt: attempt(c.Attempts+1, outbox.Delivered), State: outbox.Delivered})
		mu.Lock()
		defer mu.Unlock()
		if delivered[c.ID]++; len(delivered) == n || delivered[c.ID] > 1 {
			cancel()
		}
		return err
	}
	for i := range 64 {
		claimers.Go(func() {
			for {
				store := stores[i%2]
				claims, err := store.Claim(ctx, s.request(request(i)))
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil {
					s.Errorf("Claim: %v", err)
					cancel()
					return
				}
				holds(len(claims))
				for _, c := range claims {
					if err := work(store, c); err != nil && ctx.Err() == nil {
						s.Errorf("end claim of %s: %v", c.EventID, err)
					}
				}
			}
		})
	}
	for i := range 8 {
		s.accept(entries(fmt.Sprintf("evt_%d_", i), arrivals/8, "a")...)
	}
	timeout := time.AfterFunc(s.patience, cancel)
	defer timeout.Stop()
	claimers.Wait()

	s.commit()
	if _, err := stores[1].Counts(s.ctx()); err != nil { // with what that process settled
		s.Fatalf("Counts: %v", err)
	}
	for id, times := range delivered {
		if times != 1 {
			s.Errorf("delivery %s was claimed for good %d times", id, times)
		}
	}
	s.want("deliveries claimed", n, len(delivered))
	s.wantCounts("a", outbox.Counts{Accepted: int64(n), Delivered: int64(n)})
}

func testLeaseEnds(s *suite) {
	s.accept(entry("evt_1", "a"), entry("evt_2", "a"))
	first := s.claim("a", 1, s.short)[0]
	other := s.claim("a", 1, s.short)[0]
	s.want("second in order", "evt_2", other.EventID)
	s.settle(other, outbox.Failed)
	s.elapse(s.short + time.Millisecond)
	s.lost(first) // even before another has it

	second := s.claimOne("a")
	s.want("delivery", first.ID, second.ID)
	s.want("attempts", 0, second.Attempts)
	if first.Fence == second.Fence {
		s.Errorf("fence %d did not change with the claim", first.Fence)
	}
	s.lost(first)
	s.claimNone("a")
	s.settle(second, outbox.Delivered)
	s.lost(first)
	s.lost(second)
	s.commit()
	s.wantCounts("a", outbox.Counts{Accepted: 2, Delivered: 1, Failed: 1})
}

// testWaitingClaimTakesOver: the end of a lease wakes who waits, whether he came
// long before or at the last moment; and never early.
func testWaitingClaimTakesOver(s *suite) {
	s.accept(entry("evt_1", "a"))
	for _, early := range []time.Duration{s.short, 100 * time.Microsecond} {
		first := s.claim("a", 1, s.short)[0]
		s.elapse(time.Until(first.Until) - early)
		ctx, cancel := s.within(s.short + s.patience)
		claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long})
		at := time.Now()
		cancel()
		if err != nil || len(claims) != 1 {
			s.Fatalf("Claim: %v, %v", claims, err)
		}
		if at.Before(first.Until) {
			s.Errorf("claimed %v before the lease ended", first.Until.Sub(at))
		}
		s.lost(first)
		s.retry(claims[0], time.Now())
	}
}

func testRelease(s *suite) {
	s.accept(entry("evt_1", "a"))
	first := s.claimOne("a")
	s.claimNone("a")
	if err := s.store.Release(s.ctx(), first); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.lost(first)
	second := s.claimOne("a")
	s.want("delivery", first.Delivery, second.Delivery)
	if first.Fence == second.Fence {
		s.Errorf("fence %d did not change with the claim", first.Fence)
	}

	// A released retry keeps its attempts.
	s.retry(second, time.Now())
	third := s.claimOne("a")
	if err := s.store.Release(s.ctx(), third); err != nil {
		s.Fatalf("Release: %v", err)
	}
	fourth := s.claimOne("a")
	s.want("delivery", third.Delivery, fourth.Delivery)
	s.want("attempts", 1, fourth.Attempts)

	// Release wakes who waits.
	claimed := make(chan error)
	go func() {
		ctx, cancel := s.within(s.patience)
		defer cancel()
		_, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long})
		claimed <- err
	}()
	s.idle()
	if err := s.store.Release(s.ctx(), fourth); err != nil {
		s.Errorf("Release: %v", err)
	}
	if err := <-claimed; err != nil {
		s.Errorf("Claim by one who waits for a release: %v", err)
	}
	s.commit()
	s.want("attempts", 1, len(s.lookup("evt_1").Deliveries[0].Attempts))
}

func testReleaseMany(s *suite) {
	s.accept(entries("evt_", 6, "a")...)
	claims := s.claimAll("a", 5)
	s.settle(claims[1], outbox.Delivered)
	// Out of order, with one that is over among them.
	if err := s.store.Release(s.ctx(), claims[4], claims[1], claims[0], claims[3]); err != nil {
		s.Fatalf("Release: %v", err)
	}
	if err := s.store.Release(s.ctx(), claims[2]); err != nil {
		s.Fatalf("Release: %v", err)
	}
	want := []string{"evt_0000", "evt_0002", "evt_0003", "evt_0004", "evt_0005"}
	s.wantSet("claimed again", want, eventIDs(s.claimAll("a", 5)))
	s.claimNone("a")
}

// testDeadOwner: what becomes of claims when the process that held them dies.
func testDeadOwner(s *suite) {
	s.accept(entries("evt_", 3, "a")...)
	lease := s.short
	if s.engine.SingleOwner {
		lease = long
	}
	var before []outbox.Claim
	for len(before) < 2 {
		before = append(before, s.claim("a", 2-len(before), lease)...)
	}
	s.reopen()
	if !s.engine.SingleOwner {
		other := s.claim("a", 1, lease)[0]
		s.want("not claimed before", "evt_0002", other.EventID)
		s.settle(other, outbox.Delivered)
		s.elapse(lease)
	}
	for i, c := range s.claimAll("a", 2) {
		s.want("claimed again", before[i].Delivery, c.Delivery)
		if c.Fence == before[i].Fence {
			s.Errorf("fence %d of %s did not change with the claim", c.Fence, c.EventID)
		}
		s.lost(before[i])
		s.settle(c, outbox.Delivered)
	}
}
