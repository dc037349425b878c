package redisstream

import (
	"errors"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// What was claimed for a Claim that has gone goes back to the line while the order allows it (G3), because it is behind
// what came meanwhile then. On a machine that stalls it may come later, but not each time.
func TestReadyGoesBackInTime(t *testing.T) {
	t.Parallel()
	s := openTest(t, at(redistest.Start(t).URL()))
	ready := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.endpoints["a"].ready)
	}
	for range 5 {
		claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute, Ready: func() {}})
		if err != nil || len(claims) > 0 {
			t.Fatalf("Claim: %v, %v", claims, err)
		}
		began := time.Now()
		acceptOne(t, s, "evt_"+began.String(), "a")
		await(t, "the accept has claimed it", func() bool { return ready() > 0 })
		s.Withdraw("a")
		await(t, "it goes back", func() bool { return ready() == 0 })
		if time.Since(began) < outbox.OrderSlack {
			return
		}
		claimSome(t, s, "a", 1, time.Minute)
	}
	t.Errorf("a delivery that no Claim came for was held for %s or more", outbox.OrderSlack)
}

// Deliveries that could not be handed back come again long before their lease ends.
func TestHandBackThatFails(t *testing.T) {
	t.Parallel()
	s := openTest(t, at(redistest.Start(t).URL()))
	node, err := s.shards[0].node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e1", "e2"} {
		acceptOne(t, s, id, "a")
	}
	claims := claimSome(t, s, "a", 2, time.Hour)
	f := &failing{command: "evalsha", sha: s.scripts.settle.sha}
	f.left.Store(1)
	node.AddHook(f)
	if err := s.Release(t.Context(), claims...); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("Release: %v, want ErrUnavailable", err)
	}
	again := claimSome(t, s, "a", 2, time.Minute)
	if again[0].Fence == claims[0].Fence || again[0].Attempts != 0 {
		t.Errorf("claimed %+v, want another fence", again[0])
	}
}

// A delivery that waits for a later Claim must fit it. With a short lease it would not, and would lose its place in line each time.
func TestNothingAheadWithShortLease(t *testing.T) {
	for lease, want := range map[time.Duration]int{10 * time.Millisecond: 0, time.Second: 0, 15 * time.Second: 100} {
		e := endpoint{window: time.Now().Add(time.Hour), pace: 100, last: outbox.ClaimRequest{Lease: lease}}
		if got := e.ahead(); got != want {
			t.Errorf("%d deliveries are claimed ahead with a lease of %s, want %d", got, lease, want)
		}
	}
}
