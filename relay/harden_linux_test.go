package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// A Relay leaves no core dump, and has no profiles for anybody: both would hold secrets.
func TestNoDumpsAndNoProfiles(t *testing.T) {
	p := &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}}
	p.configure(engines()[0].open(t, p.dir), "20s", "http://127.0.0.1:1")
	p.start()
	p.await()
	f, err := os.Open(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid)) // see proc_pid_limits(5)
	testkit.Must(t, err)
	defer f.Close()
	found := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if limit, is := strings.CutPrefix(lines.Text(), "Max core file size"); is {
			found = true
			if fields := strings.Fields(limit); fields[0] != "0" || fields[1] != "0" {
				t.Errorf("core dumps may have %s bytes", strings.TrimSpace(limit))
			}
		}
	}
	if !found {
		t.Error("the system tells no limit of core dumps")
	}
	for name, socket := range map[string]string{"ingest": p.socket(), "admin": p.admin()} {
		answer, err := p.clientOf(socket).Get("http://relay/debug/pprof/")
		testkit.Must(t, err)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("profiles at the listener of %s: %d", name, answer.StatusCode)
		}
	}
}
