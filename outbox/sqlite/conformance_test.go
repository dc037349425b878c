package sqlite_test

import (
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/sqlite"
)

// TestConformance runs the suite that every engine passes.
func TestConformance(t *testing.T) { outboxtest.Run(t, engine(nil)) }

// TestOperable runs the suite of what an operator asks for.
func TestOperable(t *testing.T) { outboxtest.RunOperable(t, engine(nil)) }

// TestConformanceStepped runs it while the wall clock is set by up to a day, forward and back:
// nothing is forgotten, and nothing comes early or late.
func TestConformanceStepped(t *testing.T) {
	steps := new(outboxtest.Steps)
	outboxtest.Run(t, outboxtest.Stepped(engine(steps.Wall), steps))
}

func engine(wall func() time.Time) outboxtest.Harness {
	dirs := map[outbox.Engine]string{}
	open := func(t *testing.T, o sqlite.Options) outbox.Engine {
		if wall != nil {
			o = o.WithWall(wall)
			o.Durability = sqlite.Relaxed // the disk has nothing to do with it
		}
		s, err := sqlite.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		dirs[s] = o.Dir
		return s
	}
	return outboxtest.Harness{
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
	}
}
