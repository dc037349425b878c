package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"relay/internal/testkit"
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
