package deliver

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// The delivery that heard Retry-After goes with the others when the hold ends before its time: by an
// operator, or by a lower max_retry_after that comes with a reload or a restart.
func TestHoldEndsEarly(t *testing.T) {
	lower := func(e *policy.Endpoint) { e.Retry.MaxRetryAfter = time.Minute }
	for _, c := range []struct {
		name string
		end  func(w *world, e *policy.Endpoint)
		left time.Duration
	}{
		{"resume", func(w *world, _ *policy.Endpoint) { _, _ = w.d.Resume(w.t.Context(), "billing", "test") }, 0},
		{"enable", func(w *world, _ *policy.Endpoint) { _, _ = w.d.Enable(w.t.Context(), "billing", "test") }, 0},
		{"reload", func(w *world, e *policy.Endpoint) { w.apply(but(e, lower)) }, 50 * time.Second},
		{"restart", func(w *world, e *policy.Endpoint) {
			_ = w.stop()
			w.start(but(e, lower))
		}, 50 * time.Second},
		{"restart that changes nothing", func(w *world, e *policy.Endpoint) {
			_ = w.stop()
			w.start(e)
		}, time.Hour - 10*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				wish := map[string]string{"Retry-After": "3600"}
				e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 503, Header: wish}, delivertest.Step{}))
				e.Retry.Schedule, e.Retry.MaxRetryAfter = []time.Duration{5 * time.Second, 5 * time.Second}, 24*time.Hour
				e.Retry.Jitter = 0
				w.start(e)
				w.accept(1, "billing")
				w.await(1)
				time.Sleep(10 * time.Second)
				begin := time.Now()
				c.end(w, e)
				if got := w.await(2)[1].Attempt.Started.Sub(begin); got < c.left-time.Millisecond || got > c.left+time.Millisecond {
					t.Errorf("tried again after %v, want %v", got, c.left)
				}
			})
		})
	}
}

// An operator who resumes does not wait for an open breaker: it probes at once.
func TestResumeProbesAnOpenBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var well atomic.Bool
		receiver := delivertest.NewEndpoint()
		receiver.Answer = func(*delivertest.Request) delivertest.Step {
			if well.Load() {
				return delivertest.Step{}
			}
			return delivertest.Step{Status: 503}
		}
		e := w.inMemory("billing", receiver)
		e.Breaker = failing()
		w.start(e)
		w.accept(10, "billing")
		w.await(4)
		synctest.Wait()
		well.Store(true)
		s, err := w.d.Resume(t.Context(), "billing", "test")
		if err != nil || !slices.Equal(s.Ended, []string{WaitBreaker}) {
			t.Errorf("%+v, %v", s, err)
		}
		synctest.Wait()
		if s, _ := w.d.StatusOf("billing"); s.Breaker != BreakerClosed || s.Attempts[Delivered] == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// The outbox's clock decides in a fleet: one that is an hour off moves neither a due time nor
// max_age, nor what counts as late.
func TestDueTimesAreOfTheOutboxClock(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			source := &shifted{Source: w.store, ahead: ahead}
			w.o.Source, w.o.Clock = source, source
			e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 503}, delivertest.Step{}))
			e.Retry.Schedule, e.Retry.Jitter, e.Retry.MaxAge = []time.Duration{5 * time.Second}, 0, time.Minute
			w.start(e)
			w.accept(1, "billing")
			both := w.await(2)
			if got := both[1].Attempt.Started.Sub(both[0].Attempt.Started); got != 5*time.Second {
				t.Errorf("tried again after %v", got)
			}
			if want := time.Now().Add(ahead).UTC(); !both[1].Attempt.Started.Equal(want) {
				t.Errorf("recorded as begun at %v, want %v", both[1].Attempt.Started, want)
			}
			s, _ := w.d.StatusOf("billing")
			if s.LateBy.Sum > 1 {
				t.Errorf("late by %v s", s.LateBy.Sum)
			}
		})
	}
}

// shifted is an outbox whose clock is ahead of this process's.
type shifted struct {
	Source
	ahead time.Duration
}

func (s *shifted) At(t time.Time) time.Time { return t.Add(s.ahead) }

func (s *shifted) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	claims, err := s.Source.Claim(ctx, r)
	for i := range claims {
		claims[i].Created, claims[i].Due = claims[i].Created.Add(s.ahead), claims[i].Due.Add(s.ahead)
	}
	return claims, err
}

func (s *shifted) Settle(ctx context.Context, c outbox.Claim, o outbox.Settlement) error {
	if o.State == outbox.Pending {
		o.Due = o.Due.Add(-s.ahead)
	}
	return s.Source.Settle(ctx, c, o)
}
