package deliver

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

func TestStatesOfAnEndpoint(t *testing.T) {
	w := newWorld(t)
	a := w.inMemory("a", &delivertest.Endpoint{})
	off := endpointAt(t, "off", a.URL)
	off.Enabled = false
	d := New(w.o, policy.New([]*policy.Endpoint{off, a}))
	ctx := t.Context()
	for _, c := range []struct {
		name     string
		do       func() (Status, error)
		state    State
		waiting  string
		code     string
		refusal  error
		endpoint string
	}{
		{"resume what is active", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"pause", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"pause again", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"enable what is paused", func() (Status, error) { return d.Enable(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"disable what is paused", func() (Status, error) { return d.Disable(ctx, "a", "x") }, Disabled, WaitDisabled, ByOperator, nil, "a"},
		{"pause what is disabled", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Disabled, WaitDisabled, ByOperator, nil, "a"},
		{"enable what is paused, too", func() (Status, error) { return d.Enable(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"resume at last", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"pause for a while", func() (Status, error) { return d.Pause(ctx, "a", "x") }, Paused, WaitPaused, ByOperator, nil, "a"},
		{"resume", func() (Status, error) { return d.Resume(ctx, "a", "x") }, Active, "", "", nil, "a"},
		{"enable against the file", func() (Status, error) { return d.Enable(ctx, "off", "x") }, "", "", "", ErrInFile, ""},
		{"pause nobody", func() (Status, error) { return d.Pause(ctx, "nobody", "x") }, "", "", "", ErrNoEndpoint, ""},
	} {
		s, err := c.do()
		if !errors.Is(err, c.refusal) || s.Endpoint != c.endpoint || s.State != c.state || s.Waiting != c.waiting || s.Code != c.code || (s.Reason != "") != (s.Code != "") || s.Since.IsZero() != (s.Code == "") {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
	all := d.Status()
	if len(all) != 2 || all[0].Endpoint != "a" || all[1].Endpoint != "off" || all[1].State != Disabled || all[1].Reason == "" {
		t.Errorf("status %+v", all)
	}
}

// While an endpoint was paused no attempt could succeed, so that time does not count.
func TestPauseIsNoFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 500}))
		e.Disable.AfterFailing = 48 * time.Hour
		e.Retry.Schedule = slices.Repeat([]time.Duration{30 * time.Minute}, 400)
		w.start(e)
		w.accept(1, "billing")
		w.await(4)
		if _, err := w.d.Pause(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Hour)
		if _, err := w.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(47 * time.Hour)
		if s, _ := w.d.StatusOf("billing"); s.State != Active {
			t.Fatalf("failing for less than 48 h beside the pause: %+v", s)
		}
		time.Sleep(2 * time.Hour)
		if s, _ := w.d.StatusOf("billing"); s.State != Disabled || s.Code != ByFailing {
			t.Errorf("failing for 48 h after the pause: %+v", s)
		}
	})
}

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

// A Relay that has not yet heard of another's change does not take what an operator wants
// for done.
func TestDecisionOnStaleKnowledge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := outboxtest.NewMem(outboxtest.MemOptions{Shared: true})
		late := outboxtest.NewFaulty(store)
		receiver := delivertest.NewEndpoint()
		one, two := newWorld(t), newWorld(t)
		one.store, two.store = store, store
		one.o.Source, two.o.Source = store, late
		e := one.inMemory("billing", receiver)
		two.o.network.Dial = one.o.network.Dial
		late.After("AwaitNotes", func(ctx context.Context, err error) error {
			testkit.Wait(ctx, time.Second)
			return err
		})
		one.start(e)
		two.start(e)
		if _, err := two.d.Pause(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if _, err := one.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		late.Fail("Notes", outbox.ErrUnavailable, 1)
		if s, err := two.d.Pause(t.Context(), "billing", "test"); err == nil {
			t.Errorf("the endpoint is said to be %s, though that cannot be known", s.State)
		}
		if s, err := two.d.Pause(t.Context(), "billing", "test"); err != nil || s.State != Paused {
			t.Fatalf("%+v, %v", s, err)
		}
		time.Sleep(time.Minute)
		for _, w := range []*world{one, two} {
			if s, _ := w.d.StatusOf("billing"); s.State != Paused {
				t.Errorf("the endpoint is %s after it was paused", s.State)
			}
		}
	})
}

// Enable ends also what the receiver asked for, and an opening of the breaker, of which the outbox
// could not be told.
func TestEnableEndsWhatOnlyThisRelayKnows(t *testing.T) {
	for name, step := range map[string]delivertest.Step{
		"hold":    {Status: 503, Header: map[string]string{"Retry-After": "3600"}},
		"breaker": {Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				deaf := outboxtest.NewFaulty(w.store)
				deaf.Fail("SetNote", outbox.ErrUnavailable, -1)
				w.o.Source = deaf
				script := append(slices.Repeat([]delivertest.Step{step}, 4), delivertest.Step{})
				e := w.inMemory("billing", delivertest.NewEndpoint(script...))
				e.Breaker = failing()
				w.start(e)
				w.accept(4, "billing")
				w.await(4)
				synctest.Wait()
				if s, _ := w.d.StatusOf("billing"); s.Waiting == "" {
					t.Fatalf("%+v", s)
				}
				deaf.Fail("SetNote", nil, 0)
				s, err := w.d.Enable(t.Context(), "billing", "test")
				if err != nil || s.Waiting != "" {
					t.Errorf("%+v, %v", s, err)
				}
				begin := time.Now()
				w.accept(1, "billing")
				w.await(5)
				if took := time.Since(begin); took > time.Second {
					t.Errorf("the next delivery waited %s", took)
				}
			})
		})
	}
}
