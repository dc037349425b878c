package testkit_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !testkit.Wait(t.Context(), time.Second) || time.Since(start) != time.Second {
			t.Errorf("Wait(1s) took %v", time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if testkit.Wait(ctx, time.Hour) || time.Since(start) != 2*time.Second {
			t.Error("Wait did not end with its context")
		}
	})
}

// failure stands in for a test that fails.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Fatalf(string, ...any) { f.failed = true; panic(f) }

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		testkit.Until(t, "the third look", func() bool { n++; return n == 3 })

		f := &failure{TB: t}
		func() {
			defer func() { _ = recover() }()
			testkit.Until(f, "what never comes", func() bool { return false })
		}()
		if !f.failed {
			t.Error("a condition that is never true did not end the test")
		}
	})
}

func TestLogCounts(t *testing.T) {
	var l testkit.Log
	for _, line := range []string{"one\n", "two\n", "one more\n"} {
		_, err := l.Write([]byte(line))
		testkit.Must(t, err)
	}
	if got := l.Count("one"); got != 2 {
		t.Errorf("Count = %d, want 2", got)
	}
}

// Ports that are given out at the same time differ, and nobody listens on them.
func TestPort(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port := testkit.Port(t)
		if seen[port] || port < 10000 || port >= 20000 {
			t.Errorf("port %d, after %v", port, seen)
		}
		seen[port] = true
		l, err := net.Listen("tcp", testkit.Loopback(port))
		testkit.Must(t, err)
		testkit.Must(t, l.Close())
	}
}
