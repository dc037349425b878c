package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"relay/outbox"
)

func testCountsSurvive(s *suite) {
	s.want("counts of an empty outbox", map[string]outbox.Counts{}, s.counts())
	s.accept(entry("evt_0", "a", "b"))
	s.elapse(2 * time.Millisecond)
	s.accept(entries("evt_more", 5, "a")...)
	created := func(id string) time.Time { return s.lookup(id).Deliveries[0].Created }
	s.want("oldest", created("evt_0"), s.counts()["a"].Oldest)

	claims := s.claimAll("a", 5)
	s.want("oldest, though claimed", created("evt_0"), s.counts()["a"].Oldest)
	s.settle(claims[0], outbox.Delivered)
	s.settle(claims[1], outbox.Failed)
	s.settle(claims[2], outbox.Discarded)
	s.retry(claims[3], time.Now().Add(long))
	s.settle(s.claimOne("b"), outbox.Delivered)
	s.commit()
	oldest := created(claims[3].EventID)
	s.want("oldest", oldest, s.counts()["a"].Oldest)

	want := map[string]outbox.Counts{
		"a": {Accepted: 6, Pending: 3, Delivered: 1, Failed: 1, Discarded: 1, Oldest: oldest},
		"b": {Accepted: 1, Delivered: 1},
	}
	s.want("counts", want, s.counts())
	s.reopen()
	s.want("counts over reopen", want, s.counts())
	s.elapse(time.Millisecond)
	s.want("reaped", 4, s.reap(outbox.Retention{}))
	s.want("counts over reap", want, s.counts())
	s.reopen()
	s.want("counts over reap and reopen", want, s.counts())
}

// testCountsWhileWorking: the equation holds at every commit, not only when all
// is quiet.
func testCountsWhileWorking(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	states := []outbox.State{outbox.Delivered, outbox.Failed, outbox.Pending, outbox.Discarded}
	var producers, workers sync.WaitGroup
	for p := range 3 {
		producers.Go(func() {
			for n := range 40 {
				batch := outbox.Batch{Entries: entries(fmt.Sprintf("evt_%d_%d_", p, n), 3, "a", "b")}
				if _, err := s.store.Accept(ctx, batch); err != nil {
					s.Errorf("Accept: %v", err)
				}
			}
		})
		workers.Go(func() {
			for n := 0; ; n++ {
				claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: []string{"a", "b"}[p%2], Max: 2, Lease: long})
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						s.Errorf("Claim: %v", err)
					}
					return
				}
				for i, c := range claims {
					state := states[(n+i)%4]
					settlement := outbox.Settlement{Attempt: attempt(c.Attempts+1, state), State: state, Due: time.Now()}
					if err := s.store.Settle(s.ctx(), c, settlement); err != nil {
						s.Errorf("Settle: %v", err)
					}
				}
			}
		})
	}
	for range 50 {
		s.counts()
	}
	producers.Wait()
	for range 50 {
		s.counts()
	}
	cancel()
	workers.Wait()
	s.commit()
	for _, endpoint := range []string{"a", "b"} {
		if c := s.counts()[endpoint]; c.Accepted != 360 {
			s.Errorf("counts of %s: %+v, want 360 accepted", endpoint, c)
		}
	}
}
