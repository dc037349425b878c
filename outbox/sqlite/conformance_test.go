package sqlite_test

import (
	"testing"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/sqlite"
)

// TestConformance runs the suite that every engine passes.
func TestConformance(t *testing.T) {
	dirs := map[outbox.Engine]string{}
	open := func(t *testing.T, o sqlite.Options) outbox.Engine {
		s, err := sqlite.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		dirs[s] = o.Dir
		return s
	}
	outboxtest.Run(t, outboxtest.Harness{
		Open: func(t *testing.T) outbox.Engine { return open(t, sqlite.Options{Dir: t.TempDir()}) },
		OpenSized: func(t *testing.T, size int64) outbox.Engine {
			return open(t, sqlite.Options{Dir: t.TempDir(), MaxSize: size})
		},
		Reopen: func(t *testing.T, s outbox.Engine) outbox.Engine {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, sqlite.Options{Dir: dirs[s]})
		},
		Bubble:      true,
		SingleOwner: true,
	})
}
