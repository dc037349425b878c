package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

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
		two.o.dialNet = one.o.dialNet
		late.After("AwaitNotes", func(ctx context.Context, err error) error {
			wait(ctx, time.Second)
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
