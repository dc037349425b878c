package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// TestLane drains a backlog that is mostly on disk, and the express lane beside it, with
// everything that can happen to a claim, while more comes: no claim gets more of the lane
// than it asked for before the backlog, and nothing is lost or claimed twice.
func TestLane(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Store) {
				l := &laneTest{T: t, s: s, random: rand.New(rand.NewPCG(seed, 1)), free: map[string]bool{}}
				l.accept(1500)
				for len(l.free) > 0 {
					if l.next < 2200 && l.random.IntN(3) == 0 {
						l.accept(1 + l.random.IntN(15))
					}
					l.claim()
				}
				synctest.Wait() // the last settlements are committed
				if held, bytes := held(s); held != 0 || bytes != 0 {
					t.Errorf("%d deliveries of %d bytes are in memory, when all are delivered", held, bytes)
				}
				if len(s.loaded) > 0 {
					t.Errorf("%d deliveries count as loaded", len(s.loaded))
				}
				counts, err := s.Counts(t.Context())
				if c := counts["a"]; err != nil || c.Delivered != int64(l.next) {
					t.Errorf("Counts: %+v, %v, want %d delivered", c, err, l.next)
				}
			})
		})
	}
}

type laneTest struct {
	*testing.T
	s      *Store
	random *rand.Rand
	next   int             // number of the next delivery
	free   map[string]bool // not claimed
}

func (l *laneTest) accept(count int) {
	var list []outbox.Entry
	for range count {
		id := fmt.Sprintf("evt_%06d", l.next)
		list, l.free[id] = append(list, event(id, "a")), true
		l.next++
	}
	mustAccept(l.T, l.s, list...)
}

// claim makes one claim, compares it with what is free, and ends what it got.
func (l *laneTest) claim() {
	r := outbox.ClaimRequest{Endpoint: "a", Max: 1 + l.random.IntN(40), Lease: time.Minute, Behind: l.random.IntN(3) > 0}
	if r.Behind {
		r.Fresh = l.random.IntN(r.Max + 1)
	}
	claims, err := l.s.Claim(l.Context(), r)
	if err != nil {
		l.Fatal(err)
	}
	if len(claims) == 0 || len(claims) > r.Max {
		l.Fatalf("%d claims for %+v", len(claims), r)
	}
	for _, c := range claims {
		if !l.free[c.EventID] {
			l.Fatalf("%s is claimed, which is not free", c.EventID)
		}
		delete(l.free, c.EventID)
	}
	if held, _ := held(l.s); held > queueLength+laneLength {
		l.Fatalf("%d deliveries are in memory", held)
	}
	l.end(claims)
}

// end ends claims at random, now or after others were made.
func (l *laneTest) end(claims []outbox.Claim) {
	var back []outbox.Claim
	fate := l.random.IntN(12)
	for _, c := range claims {
		switch {
		case fate == 0: // all are lost
			back = append(back, c)
		case fate == 1 || fate < 4 && l.random.IntN(2) == 0:
			if err := l.s.Release(l.Context(), c); err != nil {
				l.Fatal(err)
			}
			back = append(back, c)
		case l.random.IntN(8) == 0:
			if err := l.s.Settle(l.Context(), c, outbox.Settlement{State: outbox.Pending, Due: time.Now()}); err != nil {
				l.Fatal(err)
			}
			back = append(back, c)
		default:
			if err := l.s.Settle(l.Context(), c, outbox.Settlement{State: outbox.Delivered}); err != nil {
				l.Fatal(err)
			}
		}
	}
	if fate == 0 {
		time.Sleep(time.Minute)
	}
	for _, c := range back {
		l.free[c.EventID] = true
	}
}

// TestLaneBytes: with all memory in use, claims of an endpoint that is behind get what there
// is, and do not wait for more.
func TestLaneBytes(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const events = 64
		got := map[string]bool{}
		for i := 0; len(got) < events; i++ {
			if i < events {
				mustAccept(t, s, sized(fmt.Sprintf("evt_%02d", i), 1<<20, "a"))
			}
			if i < events/2 {
				continue
			}
			claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 4, Fresh: 2, Behind: true, Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				if got[c.EventID] {
					t.Fatalf("%s is claimed twice", c.EventID)
				}
				got[c.EventID] = true
				if i%2 == 0 {
					mustSettle(t, s, c, outbox.Delivered)
				} else {
					defer mustSettle(t, s, c, outbox.Delivered)
				}
			}
			if _, bytes := held(s); bytes > queueBytes+8<<20 {
				t.Fatalf("%d bytes are in memory", bytes)
			}
			synctest.Wait()
		}
	})
}

// TestOneClaimAtATime: a second claim of an endpoint waits until the first has returned, and
// no longer than its context allows.
func TestOneClaimAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		got := make(chan string)
		for range 2 {
			go func() { got <- claimOne(t, s, "a").EventID }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("third Claim: %v, want it to give up", err)
		}
		mustAccept(t, s, event("evt_0", "a"), event("evt_1", "a"))
		if one, two := <-got, <-got; one == two {
			t.Errorf("both claims got %s", one)
		}
	})
}
