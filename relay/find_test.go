package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
)

// A Relay whose outbox is no folder has its run file in the state folder, and one that has
// no such folder runs without.
func TestFindWithRedis(t *testing.T) {
	server := redistest.Start(t)
	for name, state := range map[string]string{
		"a state folder": filepath.Join(testkit.Dir(t), "state"),
		"no folder":      filepath.Join(os.DevNull, "state"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("STATE_DIRECTORY", state)
			p := &process{t: t, dir: testkit.Dir(t)}
			text := fmt.Sprintf("%s\ningest {\n unix %q {}\n}\nadmin {\n http = \"\"\n unix = %q\n}\n", sharedOutbox(server), p.socket(), filepath.Join(p.dir, "admin.sock"))
			file := filepath.Join(p.dir, "relay.hcl")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if p.cmd != nil {
					p.kill()
				}
			})
			p.start()
			health := func(args ...string) (int, string) {
				var out, errs bytes.Buffer
				code := run(append([]string{"health"}, args...), streams{strings.NewReader(""), &out, &errs})
				return code, out.String() + errs.String()
			}
			testkit.Until(t, "ready", func() bool { code, _ := health("--config", file); return code == exitOK })
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if name == "no folder" {
				if log := p.log.String(); !strings.Contains(log, "no run file: verbs find this Relay by its configuration only") {
					t.Errorf("log: %s", log)
				}
				return
			}
			for _, args := range [][]string{nil, {"--live"}, {"--config", file}} {
				if code, text := health(args...); code != exitOK {
					t.Errorf("relay health %s: %d, %s", strings.Join(args, " "), code, text)
				}
			}
			if code := p.stop(syscall.SIGINT); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if _, err := os.Stat(state); !os.IsNotExist(err) {
				t.Errorf("the state folder after the end: %v", err)
			}
		})
	}
}
