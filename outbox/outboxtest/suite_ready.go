package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"relay/outbox"
)

// waiting is a claimer without a goroutine: claims with Ready, one after the other.
type waiting struct {
	s     *suite
	store outbox.Engine
	r     outbox.ClaimRequest
	ready chan struct{}
	calls atomic.Int64 // of Ready
}

func (s *suite) waiting(store outbox.Engine, r outbox.ClaimRequest) *waiting {
	return &waiting{s: s, store: store, r: s.request(r), ready: make(chan struct{}, 100)}
}

// claim claims once, and does not wait.
func (w *waiting) claim() []outbox.Claim {
	w.s.Helper()
	r := w.r
	r.Ready = func() { w.calls.Add(1); w.ready <- struct{}{} }
	claims, err := w.store.Claim(w.s.ctx(), r)
	if err != nil || len(claims) > r.Max {
		w.s.Fatalf("Claim with Ready: %d claims, %v", len(claims), err)
	}
	return claims
}

// rest claims, each time that it is called, until nothing calls any more, and something was claimed if
// some is set. It returns what it claimed.
func (w *waiting) rest(some bool) (claims []outbox.Claim) {
	w.s.Helper()
	if some {
		claims = w.later(0)
	}
	for {
		got := w.claim()
		if claims = append(claims, got...); len(got) > 0 {
			continue
		}
		w.s.idle()
		select {
		case <-w.ready:
		default:
			return claims
		}
	}
}

// called checks that Ready is called, once, for a Claim that has claimed nothing.
func (w *waiting) called(why string) {
	w.s.Helper()
	select {
	case <-w.ready:
	case <-time.After(w.s.delay + w.s.patience):
		w.s.Fatalf("Ready was not called when %s", why)
	}
	w.silent("it was called when " + why)
}

// later claims, each time that it is called, until there is something, which comes after d.
func (w *waiting) later(d time.Duration) []outbox.Claim {
	w.s.Helper()
	for deadline := time.After(d + w.s.patience); ; {
		if claims := w.claim(); len(claims) > 0 {
			return claims
		}
		select {
		case <-w.ready:
		case <-deadline:
			w.s.Fatalf("Ready was not called")
		}
	}
}

func (w *waiting) silent(why string) {
	w.s.Helper()
	w.s.elapse(w.s.blink)
	select {
	case <-w.ready:
		w.s.Fatalf("Ready was called, though %s", why)
	default:
	}
}

// testReady: each way for work to come calls, once.
func testReady(s *suite) {
	w := s.waiting(s.store, outbox.ClaimRequest{Endpoint: "a", Max: 3})
	s.want("claimed at rest", 0, len(w.rest(false)))
	s.accept(entry("evt_elsewhere", "b"))
	w.silent("nothing is due at its endpoint")

	s.accept(entry("evt_1", "a"))
	w.called("an event was accepted")
	s.accept(entry("evt_2", "a"), entry("evt_3", "a"), entry("evt_4", "a"))
	w.silent("it had been called, and nobody has claimed since")
	claims := w.rest(true)
	s.want("claimed", 4, len(claims))
	w.silent("nothing is left")

	if err := s.store.Release(s.ctx(), claims[0]); err != nil {
		s.Fatalf("Release: %v", err)
	}
	w.called("a claim was released")
	again := w.rest(true)
	s.want("released", eventIDs(claims[:1]), eventIDs(again))

	due := time.Now().Add(s.delay)
	s.retry(again[0], due)
	s.want("retried", eventIDs(again), eventIDs(w.later(s.delay)))
	if now := time.Now(); now.Before(due) {
		s.Errorf("claimed %v before its due time", due.Sub(now))
	}

	s.settle(claims[1], outbox.Delivered)
	w.silent("what was claimed is settled")
}

// testReadyLeaseEnds: so does the end of a lease.
func testReadyLeaseEnds(s *suite) {
	w := s.waiting(s.store, outbox.ClaimRequest{Endpoint: "a", Max: 3, Lease: s.short})
	s.accept(entry("evt_1", "a"))
	first := w.rest(true)
	s.want("claimed", []string{"evt_1"}, eventIDs(first))
	second := w.later(s.short)
	s.want("claimed after the lease", []string{"evt_1"}, eventIDs(second))
	s.lost(first[0])
	s.settle(second[0], outbox.Delivered)
}

// testReadyWithdrawn: Withdraw ends a wait, and so does the next Claim.
func testReadyWithdrawn(s *suite) {
	w := s.waiting(s.store, outbox.ClaimRequest{Endpoint: "a", Max: 1})
	s.store.Withdraw("a") // there is nothing to end
	w.rest(false)
	s.store.Withdraw("a")
	s.accept(entry("evt_1", "a"))
	w.silent("it was withdrawn")
	s.want("claimed", []string{"evt_1"}, eventIDs(w.rest(true)))

	other := s.waiting(s.store, outbox.ClaimRequest{Endpoint: "a", Max: 1})
	other.rest(false) // takes the place of the first
	s.accept(entry("evt_2", "a"))
	other.called("an event was accepted")
	w.silent("another Claim has taken its place")
	s.want("claimed", []string{"evt_2"}, eventIDs(other.rest(true)))

	s.claimNone("a") // so does a Claim that blocks
	s.accept(entry("evt_3", "a"))
	other.silent("another Claim has taken its place")
	s.want("claimed", "evt_3", s.claimOne("a").EventID)

	other.rest(false)
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	r := other.r
	r.Ready = func() { other.ready <- struct{}{} }
	if claims, err := s.store.Claim(ended, r); !errors.Is(err, context.Canceled) {
		s.Errorf("Claim with an ended context: %v, %v", eventIDs(claims), err)
	}
	s.accept(entry("evt_4", "a"))
	other.silent("its Claim answered an error, and took the place of the one before")
}

// testReadyClosed: Close calls, so that who waits learns of it.
func testReadyClosed(s *suite) {
	var all []*waiting
	for i := range 8 {
		w := s.waiting(s.store, outbox.ClaimRequest{Endpoint: fmt.Sprintf("ep%d", i), Max: 1})
		w.rest(false)
		all = append(all, w)
	}
	s.store.Withdraw("ep7")
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	for _, w := range all[:7] {
		w.called("the store was closed")
		r := w.r
		r.Ready = func() { w.ready <- struct{}{} }
		if _, err := s.store.Claim(s.ctx(), r); !errors.Is(err, outbox.ErrClosed) {
			s.Errorf("Claim with Ready after Close: %v, want ErrClosed", err)
		}
		w.silent("Claim answered an error")
	}
	all[7].silent("it was withdrawn")
	s.store.Withdraw("ep0")
}

// testReadyFleet: a bound of the fleet keeps from calling until a claim ends.
func testReadyFleet(s *suite) {
	w := s.waiting(s.store, outbox.ClaimRequest{Endpoint: "a", Max: 3, FleetMax: 2})
	s.accept(entries("evt_", 4, "a")...)
	claims := w.rest(true)
	s.want("claimed", 2, len(claims))
	w.silent("as many are claimed as may be")
	s.settle(claims[0], outbox.Delivered)
	third := w.rest(true)
	s.want("claimed after one has ended", 1, len(third))
	if err := s.store.Release(s.ctx(), claims[1]); err != nil {
		s.Fatalf("Release: %v", err)
	}
	s.want("claimed after a release", 1, len(w.rest(true)))
	w.silent("as many are claimed as may be")
}

// testReadyRacing: whatever comes at the same time as a Claim, no call is lost: all that is
// accepted is claimed by claimers that come only when they are called.
func testReadyRacing(s *suite) {
	const claimers, each = 4, 60
	left := int64(claimers * each)
	var settled atomic.Int64
	done := make(chan struct{})
	var work sync.WaitGroup
	for i := range claimers {
		endpoint := fmt.Sprintf("ep%d", i)
		work.Go(func() {
			for n := range each {
				id := fmt.Sprintf("evt_%s_%d", endpoint, n)
				if _, err := s.store.Accept(s.ctx(), outbox.Batch{Entries: []outbox.Entry{entry(id, endpoint)}}); err != nil {
					s.Errorf("Accept: %v", err)
				}
			}
		})
		work.Go(func() {
			called := make(chan struct{}, 1)
			r := outbox.ClaimRequest{Endpoint: endpoint, Max: 1 + i, Lease: long, Ready: func() { called <- struct{}{} }}
			for {
				claims, err := s.store.Claim(s.ctx(), r)
				if err != nil {
					s.Errorf("Claim: %v", err)
					return
				}
				for n, c := range claims {
					if n%2 == 1 { // it calls this very claimer
						_ = s.store.Release(s.ctx(), c)
						continue
					}
					if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(c.Attempts+1, outbox.Delivered), State: outbox.Delivered}); err != nil {
						s.Errorf("Settle: %v", err)
					}
					if settled.Add(1) == left {
						close(done)
					}
				}
				if len(claims) > 0 {
					continue
				}
				select {
				case <-called:
				case <-done:
					return
				case <-time.After(s.patience):
					s.Errorf("%s was not called, with %d of %d settled", endpoint, settled.Load(), left)
					return
				}
			}
		})
	}
	work.Wait()
}
