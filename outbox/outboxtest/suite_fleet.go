package outboxtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"relay/outbox"
)

// another opens the store's outbox a second time, as another process, when the engine
// can be shared; else it is the same store.
func (s *suite) another() outbox.Engine {
	s.Helper()
	if s.engine.Join == nil {
		return s.store
	}
	other := s.engine.Join(s.test, s.store)
	s.test.Cleanup(func() {
		if err := other.Close(); err != nil {
			s.test.Errorf("Close: %v", err)
		}
	})
	return other
}

// blocked checks that a claim waits.
func (s *suite) blocked(store outbox.Engine, r outbox.ClaimRequest) {
	s.Helper()
	ctx, cancel := s.within(s.blink)
	defer cancel()
	if claims, err := store.Claim(ctx, s.request(r)); !errors.Is(err, context.DeadlineExceeded) {
		s.Fatalf("Claim %+v: got %v, %v, want nothing until the deadline", r, eventIDs(claims), err)
	}
}

func testFleetMax(s *suite) {
	other := s.another()
	s.accept(entries("evt_", 40, "a", "b")...)
	r := outbox.ClaimRequest{Max: 3, FleetMax: 4}
	held := s.claimFrom(s.store, r)
	for len(held) < 4 {
		held = append(held, s.claimFrom(other, r)...)
	}
	if len(held) > 4 {
		s.Fatalf("%d claims are held together, want 4 at most", len(held))
	}
	s.blocked(s.store, r)
	s.blocked(other, r)
	s.want("who has no bound", 1, len(s.claimFrom(other, outbox.ClaimRequest{Max: 1})))
	s.blocked(other, r) // now there is one more than may be
	b := r
	b.Endpoint = "b"
	s.claimFrom(other, b)

	// Whatever ends two claims lets one who waits go on with one, not before.
	first := held[3]
	held = held[:3]
	s.settle(held[0], outbox.Delivered)
	s.blocked(s.store, r)
	for name, end := range map[string]func(outbox.Claim) error{
		"settle": func(c outbox.Claim) error {
			return s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(1, outbox.Failed), State: outbox.Failed})
		},
		"retry": func(c outbox.Claim) error {
			return s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(1, outbox.Pending), State: outbox.Pending, Due: time.Now().Add(long)})
		},
		"release": func(c outbox.Claim) error { return s.store.Release(s.ctx(), c) },
	} {
		type answer struct {
			claims []outbox.Claim
			err    error
		}
		waiting := make(chan answer, 1)
		go func() {
			ctx, cancel := s.within(s.patience)
			defer cancel()
			claims, err := other.Claim(ctx, s.request(r))
			waiting <- answer{claims, err}
		}()
		s.idle()
		if err := end(first); err != nil {
			s.Fatalf("%s: %v", name, err)
		}
		a := <-waiting
		if a.err != nil || len(a.claims) != 1 {
			s.Fatalf("Claim by one who waits for a place, after %s: %v, %v, want one", name, eventIDs(a.claims), a.err)
		}
		first = a.claims[0]
		s.blocked(s.store, r)
	}
}

// testFleetLeaseEnds: a claim whose lease has ended takes no place.
func testFleetLeaseEnds(s *suite) {
	other := s.another()
	s.accept(entries("evt_", 10, "a")...)
	r := outbox.ClaimRequest{Max: 2, FleetMax: 2, Lease: s.short}
	held := s.claimFrom(s.store, r)
	for len(held) < 2 {
		held = append(held, s.claimFrom(s.store, r)...)
	}
	s.blocked(other, r)
	ctx, cancel := s.within(s.short + s.patience)
	defer cancel()
	claims, err := other.Claim(ctx, s.request(r))
	if at := time.Now(); err != nil || len(claims) == 0 {
		s.Fatalf("Claim by one who waits for the end of a lease: %v, %v", eventIDs(claims), err)
	} else if at.Before(held[0].Until) {
		s.Errorf("claimed %v before the first lease ended", held[0].Until.Sub(at))
	}
}

// testFleetRacing: claimers of two processes never hold more together than the
// bound, whose places go on and on.
func testFleetRacing(s *suite) {
	const most = 5
	var mu sync.Mutex
	held := 0
	s.race(func(i int) outbox.ClaimRequest {
		return outbox.ClaimRequest{Max: 1 + i%4, Fresh: i % 2, FleetMax: most}
	}, 0, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if held += n; held > most {
			s.Errorf("%d claims are held together, want %d at most", held, most)
		}
	})
}
