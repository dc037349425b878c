package outboxtest_test

import (
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// mem is the memory engine as the suite sees it.
func mem(shared bool, wall func() time.Time) outboxtest.Harness {
	var join func(*testing.T, outbox.Engine) outbox.Engine
	if shared {
		join = func(_ *testing.T, s outbox.Engine) outbox.Engine { return s.(*outboxtest.Mem).Join() }
	}
	return outboxtest.Harness{
		Open: func(*testing.T) outbox.Engine {
			return outboxtest.NewMem(outboxtest.MemOptions{Shared: shared, Wall: wall})
		},
		Reopen: func(_ *testing.T, s outbox.Engine) outbox.Engine {
			return s.(*outboxtest.Mem).Crash()
		},
		OpenSized: func(_ *testing.T, maxBytes int64) outbox.Engine {
			return outboxtest.NewMem(outboxtest.MemOptions{MaxBytes: maxBytes, Shared: shared, Wall: wall})
		},
		Join:        join,
		Bubble:      true,
		SingleOwner: !shared,
	}
}

func TestMem(t *testing.T) { outboxtest.Run(t, mem(false, nil)) }

// TestMemStepped runs the suite while the wall clock is set by up to a day, forward and back.
func TestMemStepped(t *testing.T) {
	for _, shared := range []bool{false, true} {
		steps := new(outboxtest.Steps)
		outboxtest.Run(t, outboxtest.Stepped(mem(shared, steps.Wall), steps))
	}
}

// TestMemSettleAsHeld: Held is a view, not a state to settle as.
func TestMemSettleAsHeld(t *testing.T) {
	m := outboxtest.NewMem(outboxtest.MemOptions{})
	_, err := m.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_1"}, Endpoints: []string{"a"}}}})
	testkit.Must(t, err)
	claims, err := m.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
	testkit.Must(t, err)
	if err := m.Settle(t.Context(), claims[0], outbox.Settlement{State: "held"}); err == nil {
		t.Error("Settle as held: no error")
	}
	testkit.Must(t, m.Settle(t.Context(), claims[0], outbox.Settlement{State: outbox.Delivered}))
}

func TestMemOperable(t *testing.T) {
	for _, shared := range []bool{false, true} {
		outboxtest.RunOperable(t, mem(shared, nil))
	}
}
