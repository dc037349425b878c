package spool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"relay/outbox"
)

const (
	window     = 64                    // batches that move at the same time
	lease      = 24 * time.Hour        // the mover is the only one, so nothing has to end its claims
	emptyAfter = 20 * time.Millisecond // without a batch, then it is looked whether the spool is empty
	retryFirst = 50 * time.Millisecond // after the shared outbox did not take a batch
	retryMost  = time.Second
	moveFor    = 10 * time.Second // for the shared outbox to take one
	reapEvery  = 64               // windows
)

// move empties the spool whenever it is used, until ctx ends.
func (s *Store) move(ctx context.Context) {
	for {
		select {
		case <-s.kick:
			s.empty(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// empty moves all that is in the spool. It returns when the spool is empty, or ctx ends.
func (s *Store) empty(ctx context.Context) {
	began, moved := time.Now(), 0
	for n := 1; ; n++ {
		claims, err := s.claim(ctx)
		if err != nil {
			return // the spool is closed or broken, which its owner sees
		}
		if len(claims) == 0 {
			if s.leave(ctx) {
				s.clean(ctx)
				if moved > 0 {
					s.log.Info().Int("events", moved).Dur("took", time.Since(began)).Msg("the spool is empty: its requests are in the shared outbox")
				}
				return
			}
			continue
		}
		if !s.awaitShared(ctx) {
			s.giveBack(claims)
			return
		}
		moved += s.moveAll(ctx, claims)
		if n%reapEvery == 0 {
			s.clean(ctx)
		}
	}
}

// claim returns the oldest batches, none if there are none for a moment.
func (s *Store) claim(ctx context.Context) ([]outbox.Claim, error) {
	within, cancel := context.WithTimeout(ctx, emptyAfter)
	defer cancel()
	claims, err := s.local.Claim(within, outbox.ClaimRequest{Endpoint: lane, Max: window, Lease: lease})
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return claims, err
}

// leave lets events go to the shared outbox directly if the spool is empty.
func (s *Store) leave(ctx context.Context) bool {
	s.putting.Lock()
	defer s.putting.Unlock()
	counts, err := s.local.Counts(ctx)
	if err != nil || counts[lane].Pending > 0 {
		return false
	}
	s.setMoving(false, nil)
	s.used.Store(false)
	s.turn()
	return true
}

// clean removes what has moved. The ids stay known for a day.
func (s *Store) clean(ctx context.Context) {
	for more := true; more; {
		var err error
		if _, more, err = s.local.Reap(ctx, outbox.Retention{Failed: 1 << 62}); err != nil {
			return // the next time
		}
	}
}

// awaitShared waits until the shared outbox answers.
func (s *Store) awaitShared(ctx context.Context) bool {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		within, cancel := context.WithTimeout(ctx, moveFor)
		err := s.Store.Health(within)
		cancel()
		if err == nil {
			s.setMoving(true, nil)
			return true
		}
		s.setMoving(false, err)
		if !wait(ctx, pause) {
			return false
		}
	}
}

// sayEvery bounds the lines about an outbox that comes and goes.
const sayEvery = 30 * time.Second

// setMoving notes whether batches move, and why not.
func (s *Store) setMoving(moving bool, why error) {
	s.mu.Lock()
	say := why != nil && s.why == nil && time.Since(s.said) >= sayEvery
	if say {
		s.said = time.Now()
	}
	s.why = why
	s.mu.Unlock()
	if say {
		s.log.Warn().Err(why).Msg("the shared outbox takes no events: they go into the spool on this machine, and move when it does")
	}
	if s.moving.Swap(moving) != moving {
		s.turn()
	}
}

// moveAll moves the batches, all at the same time unless a mark makes their order count. It
// returns how many moved.
func (s *Store) moveAll(ctx context.Context, claims []outbox.Claim) (moved int) {
	batches := make([]outbox.Batch, len(claims))
	ordered := false
	for i, c := range claims {
		var err error
		if batches[i], err = unpack(c.Event.Data); err != nil {
			s.refuse(c, nil, err)
			batches[i].Entries = nil
		}
		ordered = ordered || hasMark(&batches[i])
	}
	if ordered {
		for i := range claims {
			if s.moveOne(ctx, claims[i], batches[i]) {
				moved++
			}
		}
		return moved
	}
	var wg sync.WaitGroup
	ok := make([]bool, len(claims))
	for i := range claims {
		wg.Go(func() { ok[i] = s.moveOne(ctx, claims[i], batches[i]) })
	}
	wg.Wait()
	for _, yes := range ok {
		if yes {
			moved++
		}
	}
	return moved
}

func hasMark(b *outbox.Batch) bool {
	return slices.ContainsFunc(b.Entries, func(e outbox.Entry) bool {
		return slices.ContainsFunc(e.Terms, func(t outbox.Term) bool { return t.Mark != nil })
	})
}

// moveOne moves a batch, however long the shared outbox does not take it. It returns false if
// ctx ends before, or the shared outbox refuses the batch for good.
func (s *Store) moveOne(ctx context.Context, c outbox.Claim, b outbox.Batch) bool {
	if len(b.Entries) == 0 {
		return false
	}
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		within, cancel := context.WithTimeout(ctx, moveFor)
		_, err := s.Store.Accept(within, b)
		late := within.Err() != nil
		cancel()
		switch {
		case err == nil:
			s.arrived.Add(1)
			s.settle(c, outbox.Delivered, outbox.Attempt{})
			s.setMoving(true, nil)
			s.permit()
			return true
		case ctx.Err() != nil, errors.Is(err, outbox.ErrClosed):
			s.giveBack([]outbox.Claim{c})
			return false
		case late, away(err), errors.Is(err, outbox.ErrFull):
			s.setMoving(false, err)
		default:
			s.refuse(c, &b, err)
			return false
		}
		if !wait(ctx, pause) {
			s.giveBack([]outbox.Claim{c})
			return false
		}
	}
}

// permit lets a batch into the spool after every second that left.
func (s *Store) permit() {
	if s.left.Add(1)%2 != 0 {
		return
	}
	select {
	case s.permits <- struct{}{}:
	default: // nobody wants in
	}
}

// refuse sets a batch aside that the shared outbox will never take, because an id or key in it
// was used there before with other content. It stays in the spool for retention.failed.
func (s *Store) refuse(c outbox.Claim, b *outbox.Batch, err error) {
	code := "idempotency_conflict"
	if !errors.Is(err, outbox.ErrConflict) {
		code = "spool_refused"
	}
	s.settle(c, outbox.Failed, outbox.Attempt{Code: code, Error: err.Error()})
	var ids []string
	if b != nil {
		for i := range b.Entries[:min(len(b.Entries), 10)] {
			ids = append(ids, b.Entries[i].Event.ID)
		}
	}
	s.log.Error().Err(err).Str("code", code).Str("event_id", strings.Join(ids, " ")).
		Str("next", "the app used an id or Idempotency-Key twice, once while Redis was away; send it again with another one").
		Msg("a request that was answered with 202, durability spooled, was refused by the shared outbox, and goes nowhere")
}

// settle ends a claim. If that is lost, the batch moves again, and is known.
func (s *Store) settle(c outbox.Claim, state outbox.State, a outbox.Attempt) {
	a.N, a.Started, a.Outcome = 1, time.Now(), string(state)
	_ = s.local.Settle(context.Background(), c, outbox.Settlement{Attempt: a, State: state})
}

// giveBack ends claims of a mover that stops.
func (s *Store) giveBack(claims []outbox.Claim) {
	_ = s.local.Release(context.Background(), claims...) // the next Open does it, else
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
