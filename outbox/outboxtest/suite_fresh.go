package outboxtest

import (
	"fmt"
	"slices"
	"strings"
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

// behind opens the express lane: it claims the oldest of the backlog for an endpoint that
// cannot keep up.
func (s *suite) behind(n int) []outbox.Claim {
	s.Helper()
	return s.claimAs(outbox.ClaimRequest{Max: n, Behind: true})
}

// testLane: what comes while an endpoint is behind goes past its backlog, first in first
// out, as far as claims ask for it.
func testLane(s *suite) {
	s.accept(entries("evt_", backlog, "a", "b")...)
	s.want("the oldest", numbered("evt_", 0, 1), eventIDs(s.behind(2)))
	s.accept(entries("evt_new", 5, "a")...)
	claims := s.claimAs(outbox.ClaimRequest{Max: 4, Fresh: 2, Behind: true})
	s.wantSet("two of four from the lane", append(numbered("evt_", 2, 3), numbered("evt_new", 0, 1)...), eventIDs(claims))
	s.want("none from the lane", numbered("evt_", 4, 5), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 2, Behind: true})))
	s.want("all from the lane", numbered("evt_new", 2, 3), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 9, Behind: true})))

	// Places that the lane cannot fill go to the backlog.
	claims = s.claimAs(outbox.ClaimRequest{Max: 4, Fresh: 3, Behind: true})
	s.wantSet("one from the lane", append(numbered("evt_", 6, 7, 8), numbered("evt_new", 4)...), eventIDs(claims))

	// A delivery that was attempted is none of the lane's, however new it is.
	s.accept(entry("evt_tried", "a"))
	tried := s.claimAs(outbox.ClaimRequest{Max: 1, Fresh: 1, Behind: true})
	s.want("from the lane", []string{"evt_tried"}, eventIDs(tried))
	s.retry(tried[0], time.Now())
	s.commit()
	s.want("beside a retry", numbered("evt_", 9), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 1, Fresh: 1, Behind: true})))

	s.want("another endpoint has none", numbered("evt_", 0, 1), eventIDs(s.claimAs(outbox.ClaimRequest{Endpoint: "b", Max: 2, Fresh: 1})))
}

// testLaneIsBounded: what does not fit joins the backlog, and comes behind it.
func testLaneIsBounded(s *suite) {
	s.accept(entries("evt_old", backlog, "a")...)
	s.behind(1)
	const burst = 3000
	for i := range burst / 500 {
		s.accept(entries(fmt.Sprintf("evt_%d", i), 500, "a")...)
	}
	fresh := 0
	for {
		c := s.claimAs(outbox.ClaimRequest{Max: 1, Fresh: 1, Behind: true})[0]
		if strings.HasPrefix(c.EventID, "evt_old") {
			break
		}
		if fresh++; fresh > 1024 {
			s.Fatal("more than 1,024 deliveries came from the express lane")
		}
	}
	if fresh < 64 {
		s.Errorf("%d deliveries came from the express lane, want 64 at least", fresh)
	}
	old := s.claimAll("a", backlog-2)
	for _, c := range old {
		if !strings.HasPrefix(c.EventID, "evt_old") {
			s.Fatalf("event %s was claimed before the older backlog", c.EventID)
		}
	}
	s.claimAll("a", burst-fresh)
	s.claimNone("a")
}

// testLaneCloses: once the endpoint keeps up, deliveries queue in order again.
func testLaneCloses(s *suite) {
	s.accept(entries("evt_", backlog, "a")...)
	s.behind(1)
	s.elapse(outbox.LaneOpen + 2*outbox.OrderSlack)
	s.accept(entry("evt_new", "a"))
	s.want("the lane is closed", numbered("evt_", 1), eventIDs(s.claimAs(outbox.ClaimRequest{Max: 1, Fresh: 1})))
}

// testLaneComesBack: deliveries of the lane that are released, or whose lease ends, are
// claimed again.
func testLaneComesBack(s *suite) {
	s.accept(entries("evt_", 20, "a")...)
	s.settle(s.behind(1)[0], outbox.Delivered)
	s.accept(entries("evt_new", 4, "a")...)
	released := s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 2, Behind: true, Lease: s.short})
	lost := s.claimAs(outbox.ClaimRequest{Max: 2, Fresh: 2, Behind: true, Lease: s.short})
	s.want("claimed", numbered("evt_new", 0, 1, 2, 3), eventIDs(slices.Concat(released, lost)))
	if err := s.store.Release(s.ctx(), released...); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.elapse(s.short + time.Millisecond)
	again := eventIDs(s.claimAll("a", 19+4))
	for _, id := range numbered("evt_new", 0, 1, 2, 3) {
		if !slices.Contains(again, id) {
			s.Errorf("event %s did not come back", id)
		}
	}
	s.lost(lost[0])
	s.claimNone("a")
}

// testFreshDrain drains a backlog and the express lane while more comes: each delivery is
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
		claims := s.claimAs(outbox.ClaimRequest{Max: 1 + n%9, Fresh: n % 5, Behind: n%4 > 0})
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

// testRacingFresh: claimers of the backlog and of the express lane, at once.
func testRacingFresh(s *suite) {
	s.accept(entries("evt_old", backlog, "a")...)
	s.race(func(i int) outbox.ClaimRequest {
		return outbox.ClaimRequest{Max: 1 + i%5, Fresh: i % 3, Behind: i%2 > 0}
	}, backlog, nil)
}
