package deliver

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/deliver/delivertest"
)

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
