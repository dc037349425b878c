package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"relay/internal/testkit"
	"relay/relay/app"
	"relay/relay/client"
)

// A supervisor starts the next Relay while the one before still runs: it waits, gets the outbox,
// and its run file stands.
func TestNextStartsBeforeTheEnd(t *testing.T) {
	for name, end := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			p := newProcess(t, "http://127.0.0.1:1", "a")
			p.start()
			p.await()
			before := p.cmd
			p.start()
			testkit.Until(t, "the next one to wait", func() bool { return p.log.Count("waiting up to 5s for what another process has") == 1 })
			testkit.Must(t, before.Process.Signal(end))
			_ = before.Wait()
			testkit.Until(t, "the next one to be ready", func() bool { return p.log.Count(`"message":"ready"`) == 1 })
			text, err := os.ReadFile(filepath.Join(p.outbox(), client.RunFile))
			testkit.Must(t, err)
			var r client.Running
			if err := json.Unmarshal(text, &r); err != nil || r.PID != p.cmd.Process.Pid {
				t.Errorf("the run file is of process %d (%v), want %d", r.PID, err, p.cmd.Process.Pid)
			}
			if code := p.stop(syscall.SIGINT); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// A signal while Relay starts is a stop like any other.
func TestStopBeforeItIsReady(t *testing.T) {
	p := newProcess(t, "http://127.0.0.1:1", "a")
	p.start()
	p.await()
	before := p.cmd
	p.start()
	testkit.Until(t, "the next one to wait", func() bool { return p.log.Count("waiting up to 5s for what another process has") == 1 })
	if code := p.stop(syscall.SIGTERM); code != exitOK || p.log.Count(`"message":"stopped before it was ready"`) != 1 {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	p.cmd = before
	if code := p.stop(syscall.SIGINT); code != exitOK {
		t.Errorf("exit code %d", code)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cancelled := fmt.Errorf("read endpoints: %w", context.Canceled)
	if _, told := stoppedIn(ctx, cancelled); told {
		t.Error("a start that fails without a signal is a stop")
	}
	cancel(app.Stop{By: "interrupt"})
	for err, want := range map[error]bool{cancelled: true, context.Cause(ctx): true, os.ErrNotExist: false, nil: false} {
		if stop, told := stoppedIn(ctx, err); told != want || stop.By != "interrupt" {
			t.Errorf("%v: a stop by %q, %t", err, stop.By, told)
		}
	}
}
