package outboxtest

import (
	"fmt"
	"slices"
	"time"

	"relay/outbox"
)

// backlog is more deliveries than an engine has at hand.
const backlog = 600

// claimAs makes a claim as it is requested, of which something must come. Endpoint and
// Lease need not be said.
func (s *suite) claimAs(r outbox.ClaimRequest) []outbox.Claim {
	s.Helper()
	return s.claimFrom(s.store, r)
}

func (s *suite) claimFrom(store outbox.Engine, r outbox.ClaimRequest) []outbox.Claim {
	s.Helper()
	ctx, cancel := s.within(s.patience)
	defer cancel()
	claims, err := store.Claim(ctx, s.request(r))
	if err != nil {
		s.Fatalf("Claim %+v: %v", r, err)
	}
	if len(claims) < 1 || len(claims) > r.Max {
		s.Fatalf("Claim %+v: %d claims", r, len(claims))
	}
	return claims
}

// request fills in what a test does not care about.
func (s *suite) request(r outbox.ClaimRequest) outbox.ClaimRequest {
	if r.Endpoint == "" {
		r.Endpoint = "a"
	}
	if r.Lease == 0 {
		r.Lease = long
	}
	return r
}

// numbered are the ids of entries.
func numbered(prefix string, numbers ...int) []string {
	var ids []string
	for _, n := range numbers {
		ids = append(ids, fmt.Sprintf("%s%04d", prefix, n))
	}
	return ids
}

func testFreshTakesNewest(s *suite) {
	s.accept(entries("evt_", backlog, "a", "b")...)
	mixed := s.claimAs(outbox.ClaimRequest{Max: 6, Fresh: 2})
	s.want("two of six fresh", numbered("evt_", 0, 1, 2, 3, 598, 599), eventIDs(mixed))
	s.want("all fresh", numbered("evt_", 595, 596, 597), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 3, Fresh: 3})))
	s.want("none fresh", numbered("evt_", 4, 5), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 2})))
	s.accept(entries("evt_new", 3, "a")...)
	s.want("what has just come", append(numbered("evt_", 6), numbered("evt_new", 2)...), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 1})))
	s.want("more than Max", numbered("evt_new", 0, 1), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 9})))

	// What was attempted is not fresh, however new it is.
	s.retry(mixed[5], time.Now())
	s.commit()
	s.want("beside a retry", numbered("evt_", 594), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 1, Fresh: 1})))

	s.want("another endpoint", numbered("evt_", 0, 599), eventIDs(s.claimAs(outbox.ClaimRequest{Endpoint: "b", Max: 2, Fresh: 1})))
}

// testFreshOfFew: when there is less than asked for, all of it comes, once.
func testFreshOfFew(s *suite) {
	s.accept(entries("evt_", 3, "a")...)
	claims := s.claimAs(outbox.ClaimRequest{Max: 5, Fresh: 4})
	s.want("all that there is", numbered("evt_", 0, 1, 2), eventIDs(claims))
	s.claimNone("a")
	for i, c := range claims {
		s.retry(c, time.Now().Add(time.Duration(i)*time.Millisecond).Truncate(time.Microsecond))
	}
	s.elapse(3 * time.Millisecond)
	s.accept(entry("evt_new", "a"))
	s.want("retries have the places of fresh ones", append(numbered("evt_", 0, 1, 2), "evt_new"),
		eventIDs(s.claimAs(outbox.ClaimRequest{Max: 4, Fresh: 3})))
}

// testFreshComesBack: what was claimed as fresh comes back like any other claim, to
// its place in the order.
func testFreshComesBack(s *suite) {
	s.accept(entries("evt_", backlog, "a")...)
	released := s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 2})
	lost := s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 2, Lease: s.short})
	s.want("claimed", numbered("evt_", 596, 597, 598, 599), eventIDs(slices.Concat(lost, released)))
	if err := s.store.Release(s.ctx(), released...); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.elapse(s.short + time.Millisecond)
	again := s.claimAs(outbox.ClaimRequest{Max: 6, Fresh: 4})
	s.want("claimed again", numbered("evt_", 0, 1, 596, 597, 598, 599), eventIDs(again))
	s.lost(lost[0])
	if err := s.store.Release(s.ctx(), again[2:]...); err != nil {
		s.Fatalf("Release: %v", err)
	}

	// Claims without Fresh pass none over for them.
	var got, want []string
	for n := 2; n < backlog; n++ {
		want = append(want, numbered("evt_", n)...)
	}
	for len(got) < len(want) {
		got = append(got, eventIDs(s.claimAs(outbox.ClaimRequest{Max: 7}))...)
	}
	s.want("the rest in order", want, got[:len(want)])
}

// testFreshDrain drains a backlog by both ends while more comes: each delivery is
// claimed for good once.
func testFreshDrain(s *suite) {
	s.accept(entries("evt_", backlog, "a")...)
	total, arrivals := backlog, 0
	turns, delivered := map[string]int{}, map[string]bool{}
	for n := 0; len(delivered) < total; n++ {
		if n%3 == 0 && arrivals < 60 {
			s.accept(entries(fmt.Sprintf("evt_late%d_", arrivals), 2, "a")...)
			arrivals++
			total += 2
		}
		if n == 40 || n == 90 {
			s.commit()
			s.reopen()
		}
		claims := s.claimAs(outbox.ClaimRequest{Max: 1 + n%9, Fresh: n % 5})
		for i, c := range claims {
			if delivered[c.ID] || slices.ContainsFunc(claims[:i], func(o outbox.Claim) bool { return o.ID == c.ID }) {
				s.Fatalf("delivery of %s is claimed again", c.EventID)
			}
		}
		for i, c := range claims {
			turns[c.ID]++
			switch turn := turns[c.ID]; {
			case turn == 1 && (n+i)%7 == 3:
				if err := s.store.Release(s.ctx(), c); err != nil {
					s.Fatalf("Release: %v", err)
				}
			case turn == 1 && (n+i)%7 == 5:
				s.retry(c, time.Now())
			default:
				s.settle(c, outbox.Delivered)
				delivered[c.ID] = true
			}
		}
	}
	s.commit()
	s.claimNone("a")
	s.wantCounts("a", outbox.Counts{Accepted: int64(total), Delivered: int64(total)})
}

// testRacingFresh: claimers who take from either end, or both, at once.
func testRacingFresh(s *suite) {
	s.accept(entries("evt_old", backlog, "a")...)
	s.race(func(i int) outbox.ClaimRequest { return outbox.ClaimRequest{Max: 1 + i%5, Fresh: i % 3} }, backlog, nil)
}
