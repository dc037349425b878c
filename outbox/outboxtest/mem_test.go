package outboxtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"relay/outbox"
	"relay/outbox/outboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mem is the memory engine as the suite sees it.
func mem(shared bool) outboxtest.Engine {
	return outboxtest.Engine{
		Open: func(*testing.T) outbox.Store {
			return outboxtest.NewMem(outboxtest.MemOptions{Shared: shared})
		},
		Reopen: func(_ *testing.T, s outbox.Store) outbox.Store {
			return s.(*outboxtest.Mem).Crash()
		},
		OpenSized: func(_ *testing.T, maxBytes int64) outbox.Store {
			return outboxtest.NewMem(outboxtest.MemOptions{MaxBytes: maxBytes, Shared: shared})
		},
		Bubble:      true,
		SingleOwner: !shared,
	}
}

func TestMem(t *testing.T) { outboxtest.Run(t, mem(false)) }
