package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
)

// A Relay that starts while the one before still ends waits for what that has: the outbox,
// a socket, a port.
func TestOpenWaits(t *testing.T) {
	dir := testkit.Dir(t)
	file := func(box, socket, address string) string {
		return fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}\ningest {\n unix %q {}\n}\nadmin {\n http = %q\n}\n",
			filepath.Join(dir, box), filepath.Join(dir, socket), address)
	}
	var log testkit.Log
	open := func(ctx context.Context, text string, wait time.Duration) (*App, error) {
		f, err := config.Parse("relay.hcl", []byte(text), func(string) (string, bool) { return "", false })
		testkit.Must(t, err)
		p, err := policy.Decode(f)
		testkit.Must(t, err)
		return Open(ctx, Options{Config: f.Config, Policy: p, Version: "test", Log: zerolog.New(&log), LockWait: wait})
	}
	first, err := open(t.Context(), file("a", "a.sock", "127.0.0.1:0"), 0)
	testkit.Must(t, err)
	port := first.Addrs("admin")[0].String()
	const free = "127.0.0.1:0"
	next := map[string]string{
		"outbox": file("a", "b.sock", free),
		"socket": file("b", "a.sock", free),
		"port":   file("c", "c.sock", port),
	}
	say := map[string]string{"outbox": "is in use by process", "socket": "another process answers", "port": "address already in use"}
	for what, text := range next {
		if _, err := open(t.Context(), text, 0); err == nil || !strings.Contains(err.Error(), say[what]) || strings.Contains(err.Error(), "waited") {
			t.Errorf("%s, without patience: %v", what, err)
		}
		if _, err := open(t.Context(), text, time.Millisecond); err == nil || !strings.Contains(err.Error(), say[what]) || !strings.Contains(err.Error(), "(waited for 1ms)") {
			t.Errorf("%s, with little patience: %v", what, err)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		stop(Stop{By: "test"})
		if _, err := open(ctx, text, time.Hour); !errors.As(err, new(Stop)) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s, stopped meanwhile: %v", what, err)
		}
	}
	const waiting = "waiting up to 1h0m0s for what another process has"
	told := log.Count(waiting)
	type result struct {
		app *App
		err error
	}
	opened := make(chan result, len(next))
	for _, text := range next {
		go func() {
			a, err := open(t.Context(), text, time.Hour)
			opened <- result{a, err}
		}()
	}
	testkit.Until(t, "all of them to wait", func() bool { return log.Count(waiting) == told+len(next) })
	testkit.Must(t, first.close())
	for range next {
		r := <-opened
		if r.err != nil {
			t.Errorf("after the first one ended: %v", r.err)
			continue
		}
		testkit.Must(t, r.app.close())
	}
	if n := log.Count(waiting) - told; n != len(next) {
		t.Errorf("%d lines for %d that waited:\n%s", n, len(next), &log)
	}
}
