package redisstream

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// refitting is a store with the newer of two deliveries ahead, whose lease is being extended for a
// claim that waits; Redis does not answer that. The older one is leased, and nobody knows of it.
func refitting(t *testing.T) (s *Store, server *redistest.Server, proxy *redistest.FaultProxy, older []*held, claimed chan []outbox.Claim) {
	server = redistest.Start(t)
	proxy = redistest.StartFaultProxy(t, "unix", server.Socket())
	s = openTest(t, at(proxy.URL()))
	sh := s.shards[0]
	acceptOne(t, s, "older", "a")
	acceptOne(t, s, "newer", "a")
	e := &endpoint{name: "a"} // nothing is there that is not known
	newest := &fetch{endpoint: e, shard: sh, max: 1, fresh: 1, lease: time.Minute}
	oldest := &fetch{endpoint: e, shard: sh, max: 1, lease: time.Hour}
	for _, f := range []*fetch{newest, oldest} {
		if err := sh.fetch(t.Context(), []*fetch{f}); err != nil || f.err != nil || len(f.got) != 1 {
			t.Fatalf("fetch: %v, %v, %d deliveries", err, f.err, len(f.got))
		}
	}
	proxy.Hang()
	s.mu.Lock()
	s.endpoints["a"] = e
	for _, h := range append(newest.got, oldest.got...) {
		s.held[h.claim.Fence] = h
	}
	e.merge(newest.got)
	s.mu.Unlock()
	claimed = make(chan []outbox.Claim, 1)
	go func() {
		claims, _ := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 2, Fresh: 1, Lease: time.Hour})
		claimed <- claims
	}()
	await(t, "the lease ahead is extended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return e.refitting
	})
	return s, server, proxy, oldest.got, claimed
}

// While the lease of the newest is being extended nothing else is given out as the newest.
func TestRefitHoldsTheNewest(t *testing.T) {
	t.Parallel()
	s, _, proxy, older, claimed := refitting(t)
	s.mu.Lock()
	e := s.endpoints["a"]
	e.merge(older)
	s.serve(e)
	s.mu.Unlock()
	proxy.Resume()
	if diff := cmp.Diff([]string{"newer", "older"}, ids(<-claimed)); diff != "" {
		t.Errorf("claimed (-want +got):\n%s", diff)
	}
}

// Close hands back what is being extended, too.
func TestCloseWaitsForRefit(t *testing.T) {
	t.Parallel()
	s, server, proxy, older, claimed := refitting(t)
	s.mu.Lock()
	s.endpoints["a"].merge(older)
	s.mu.Unlock()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	<-claimed
	proxy.Resume()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if n := server.MustDo(t, "ZCARD", s.shards[0].lease); n != int64(0) {
		t.Errorf("%v deliveries are still leased, want 0", n)
	}
}

// What was leased for a claim is given to it though Redis took its time, or it would be
// extended for ever; what is ahead is not.
func TestSlowLeaseFits(t *testing.T) {
	began := time.Now()
	for _, c := range []struct {
		sent, now, lease time.Duration // the first two since the claim began
		fits             bool
	}{
		{sent: time.Millisecond, now: 10 * time.Second, lease: time.Minute, fits: true},
		{sent: time.Millisecond, now: 16 * time.Second, lease: time.Minute},
		{sent: time.Millisecond, now: 2 * time.Millisecond, lease: 30 * time.Second},
		{sent: -10 * time.Second, now: time.Millisecond, lease: time.Minute},
		{sent: -500 * time.Millisecond, now: time.Millisecond, lease: time.Minute, fits: true},
		{sent: -10 * time.Second, now: time.Millisecond, lease: time.Hour},
	} {
		h := &held{lease: c.lease}
		h.begin(1, nil, began.Add(c.sent))
		if got := h.fits(&waiter{lease: time.Minute, began: began}, began.Add(c.now)); got != c.fits {
			t.Errorf("%+v: fits = %t", c, got)
		}
	}
}
