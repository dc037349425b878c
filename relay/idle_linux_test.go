package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit"
)

// ticks is the CPU time that a process has used, in ticks of 10 ms: fields 14 and 15 of
// /proc/PID/stat, see proc(5).
func (p *process) ticks() (n int) {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	field := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the third on
	var user, system int
	if _, err := fmt.Sscan(field[11]+" "+field[12], &user, &system); err != nil {
		p.t.Fatal(err)
	}
	return user + system
}

// TestIdle looks at the CPU time of a Relay that has nothing to do: after one event, and
// while the receiver of one hangs. A busy loop would take some 300 ticks.
func TestIdle(t *testing.T) {
	const quiet, look, most = 3 * time.Second, 3 * time.Second, 15
	for _, e := range engines() {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hangs=%v", e.name, hangs), func(t *testing.T) {
				t.Parallel()
				began, ended := make(chan struct{}, 2), make(chan struct{})
				web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					began <- struct{}{}
					if hangs {
						<-ended
					}
				}))
				t.Cleanup(web.Close)
				t.Cleanup(func() { close(ended) })
				p := &process{t: t, dir: t.TempDir(), endpoints: []string{"a", "b"}}
				p.configure(e.open(t, p.dir), "20s", web.URL)
				p.start()
				p.await()
				client := p.client()
				testkit.Until(t, "202", func() bool { return post(client, "evt_1") })
				<-began
				<-began
				testkit.Wait(t.Context(), quiet) // the last commit is copied after a second of rest
				before := p.ticks()
				testkit.Wait(t.Context(), look)
				if n := p.ticks() - before; n > most {
					t.Errorf("an idle Relay used %d ticks of CPU in %s, want at most %d", n, look, most)
				}
			})
		}
	}
}
