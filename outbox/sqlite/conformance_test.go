package sqlite_test

import (
	"testing"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/sqlite"
)

// TestConformance runs the suite that every engine passes.
func TestConformance(t *testing.T) {
	dirs := map[outbox.Store]string{}
	open := func(t *testing.T, o sqlite.Options) outbox.Store {
		s, err := sqlite.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		dirs[s] = o.Dir
		return s
	}
	outboxtest.Run(t, outboxtest.Engine{
		Open: func(t *testing.T) outbox.Store { return open(t, sqlite.Options{Dir: t.TempDir()}) },
		OpenSized: func(t *testing.T, size int64) outbox.Store {
			return open(t, sqlite.Options{Dir: t.TempDir(), MaxSize: size})
		},
		Reopen: func(t *testing.T, s outbox.Store) outbox.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, sqlite.Options{Dir: dirs[s]})
		},
		Bubble:      true,
		SingleOwner: true,
	})
}
