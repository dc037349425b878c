package sqlite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// TestNewest drains a backlog that is mostly on disk by both ends, at random, with
// everything that can happen to a claim, while more comes: claims with Fresh take the
// newest of all that is free, the others the oldest, and nothing is lost.
func TestNewest(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Store) {
				n := &newestTest{T: t, s: s, random: rand.New(rand.NewPCG(seed, 1)), retries: map[string]bool{}}
				n.accept(1500)
				for len(n.free)+len(n.retries) > 0 {
					if n.next < 2200 && n.random.IntN(3) == 0 {
						n.accept(1 + n.random.IntN(15))
					}
					n.claim()
				}
				synctest.Wait() // the last settlements are committed
				if held, bytes := held(s); held != 0 || bytes != 0 {
					t.Errorf("%d deliveries of %d bytes are in memory, when all are delivered", held, bytes)
				}
				if ep := s.endpoints["a"]; len(ep.early) > 0 || len(s.loaded) > 0 || ep.tail != never {
					t.Errorf("%d deliveries count as early, %d retries as loaded, the tail is at %d", len(ep.early), len(s.loaded), ep.tail)
				}
				counts, err := s.Counts(t.Context())
				if c := counts["a"]; err != nil || c.Delivered != int64(n.next) {
					t.Errorf("Counts: %+v, %v, want %d delivered", c, err, n.next)
				}
			})
		})
	}
}

type newestTest struct {
	*testing.T
	s       *Store
	random  *rand.Rand
	next    int             // number of the next delivery
	free    []string        // never attempted and not claimed, in order
	retries map[string]bool // due, and not claimed
}

func (n *newestTest) accept(count int) {
	var list []outbox.Entry
	for range count {
		id := fmt.Sprintf("evt_%06d", n.next)
		list, n.free = append(list, event(id, "a")), append(n.free, id)
		n.next++
	}
	mustAccept(n.T, n.s, list...)
}

// claim makes one claim, compares it with what is free, and ends what it got.
func (n *newestTest) claim() {
	r := outbox.ClaimRequest{Endpoint: "a", Max: 1 + n.random.IntN(40), Lease: time.Minute}
	if n.random.IntN(3) > 0 {
		r.Fresh = n.random.IntN(r.Max + 1)
	}
	claims, err := n.s.Claim(n.Context(), r)
	if err != nil {
		n.Fatal(err)
	}
	if len(claims) == 0 || len(claims) > r.Max {
		n.Fatalf("%d claims for %+v", len(claims), r)
	}
	most := min(r.Fresh, len(n.free))
	newest := slices.Clone(n.free[len(n.free)-most:])
	older := n.free[:len(n.free)-most]
	for i, c := range claims {
		switch {
		case i >= len(claims)-most:
			if want := newest[i-len(claims)+most]; c.EventID != want || c.Attempts > 0 {
				n.Fatalf("claimed %s as fresh, want %s", c.EventID, want)
			}
		case c.Attempts > 0:
			if !n.retries[c.EventID] {
				n.Fatalf("retry of %s is claimed, which is not due", c.EventID)
			}
			delete(n.retries, c.EventID)
		default:
			if c.EventID != older[0] {
				n.Fatalf("claimed %s, want %s", c.EventID, older[0])
			}
			older = older[1:]
		}
	}
	n.free = older
	if held, _ := held(n.s); held > 2*queueLength+4*queueLow {
		n.Fatalf("%d deliveries are in memory", held)
	}
	n.end(claims)
}

// end ends claims at random, now or after others were made.
func (n *newestTest) end(claims []outbox.Claim) {
	var back []outbox.Claim
	fate := n.random.IntN(12)
	for _, c := range claims {
		switch {
		case fate == 0: // all are lost
			back = append(back, c)
		case fate == 1 || fate < 4 && n.random.IntN(2) == 0:
			if err := n.s.Release(n.Context(), c); err != nil {
				n.Fatal(err)
			}
			back = append(back, c)
		case n.random.IntN(8) == 0:
			if err := n.s.Settle(n.Context(), c, outbox.Settlement{State: outbox.Pending, Due: time.Now()}); err != nil {
				n.Fatal(err)
			}
			n.retries[c.EventID] = true
		default:
			if err := n.s.Settle(n.Context(), c, outbox.Settlement{State: outbox.Delivered}); err != nil {
				n.Fatal(err)
			}
		}
	}
	if fate == 0 {
		time.Sleep(time.Minute)
	}
	for _, c := range back {
		if c.Attempts > 0 {
			n.retries[c.EventID] = true
		} else {
			n.free = append(n.free, c.EventID)
		}
	}
	slices.Sort(n.free)
}

// TestNewestBytes: with all memory in use a claim with Fresh gets the newest there is, and
// does not wait for more.
func TestNewestBytes(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const events = 48
		for i := range events {
			mustAccept(t, s, sized(fmt.Sprintf("evt_%02d", i), 1<<20, "a"))
		}
		got := map[string]bool{}
		for len(got) < events {
			claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 4, Fresh: 2, Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				if got[c.EventID] {
					t.Fatalf("%s is claimed twice", c.EventID)
				}
				got[c.EventID] = true
				mustSettle(t, s, c, outbox.Delivered)
			}
			if _, bytes := held(s); bytes > queueBytes+8<<20 {
				t.Fatalf("%d bytes are in memory", bytes)
			}
			synctest.Wait()
		}
	})
}

// TestNewestPlan: the newest are read from the end of the index, whatever lies before.
func TestNewestPlan(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir()})
	err := s.do(t.Context(), func() error {
		q, err := s.db.query("EXPLAIN QUERY PLAN " + s.db.freshNewest.stmt.SQL())
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		var plan []string
		for q.step() {
			plan = append(plan, q.stmt.ColumnText(3))
		}
		if len(plan) != 2 || !strings.Contains(plan[0], "delivery_pending (endpoint=? AND due=? AND rowid>? AND rowid<?)") {
			t.Errorf("plan: %q", plan)
		}
		return q.done()
	})
	if err != nil {
		t.Fatal(err)
	}
}
