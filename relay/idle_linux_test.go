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

// TestIdle looks at the CPU time of a Relay that has nothing to do but wait: after events, while
// receivers hang, and behind each gate that keeps deliveries back. A busy loop would
// take all ticks that the machine has to give, some hundred in a second.
func TestIdle(t *testing.T) {
	const quiet, look, most = 2500 * time.Millisecond, 2 * time.Second, 10
	for _, test := range []struct {
		name   string
		rules  string
		answer int // 0: none, the receiver hangs
		reach  int // attempts that are made
	}{
		{name: "delivered", answer: 200, reach: 6},
		{name: "hanging", reach: 6},
		{name: "bounded", rules: "fleet_concurrency = 1", reach: 2},
		{name: "held by retry-after", answer: 503, rules: "fleet_concurrency = 1", reach: 2},
		{name: "limited", answer: 200, rules: "rate_limit {\n limit = 1\n per = \"1h\"\n}", reach: 2},
	} {
		for _, e := range engines() {
			t.Run(test.name+" "+e.name, func(t *testing.T) {
				t.Parallel()
				attempts, ended := make(chan struct{}, 100), make(chan struct{})
				web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					attempts <- struct{}{}
					if test.answer == 0 {
						<-ended
					}
					w.Header().Set("Retry-After", "3600")
					if test.answer != 0 {
						w.WriteHeader(test.answer)
					}
				}))
				t.Cleanup(web.Close)
				t.Cleanup(func() { close(ended) })
				p := &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a", "b"}, rules: test.rules}
				p.configure(e.open(t, p.dir), "20s", web.URL)
				p.start()
				p.await()
				client := p.client()
				for i := range 3 {
					testkit.Until(t, "202", func() bool { return post(client, fmt.Sprint("evt_", i)) })
				}
				for range test.reach {
					<-attempts
				}
				testkit.Wait(t.Context(), quiet) // the last commit is copied after a second of rest
				n := most + 1
				for looks := 10; n > most && looks > 0; looks-- { // on a busy machine what it has to do takes longer
					before := p.ticks()
					testkit.Wait(t.Context(), look)
					n = p.ticks() - before
				}
				if n > most {
					t.Errorf("an idle Relay used %d ticks of CPU in %s, want at most %d", n, look, most)
				} else {
					t.Logf("%d ticks of CPU in %s", n, look)
				}
			})
		}
	}
}
