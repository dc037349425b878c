package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// nodeHook is what the receiver in JavaScript says of a request.
type nodeHook struct {
	Port  int
	Path  string
	Event string
	Wrong string // "" when nothing is
}

// startNode runs the receiver of testdata/contracts, which has to know each event's data, until
// the test ends. It returns its URL and a function that waits for what it says of the next request.
func startNode(t *testing.T, a authority, data map[string]string) (url string, next func() nodeHook) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("this test needs Node.js; make setup installs it:", err)
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	events := filepath.Join(t.TempDir(), "events.json")
	if err := os.WriteFile(events, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, script(t, "testdata/contracts/receiver.mjs"))
	cmd.Env = append(os.Environ(), "CERT="+a.cert, "KEY="+a.key, "SECRET="+contractSecret, "EVENTS="+events)
	var problems testkit.Log
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	next = func() (h nodeHook) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("node says no more: %v\n%s", err, &problems)
		}
		if err := json.Unmarshal(line, &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	return fmt.Sprintf("https://127.0.0.1:%d", next().Port), next
}

// awkward is JSON that few programs write twice in the same way.
func awkward() []string {
	values := []string{
		`1.0`, `1e3`, `-0`, `-0.0`, `0.1`, `1E400`, `1e-7`, `1e21`, `123456789012345678901234567890`, `9007199254740993`, `5e-324`, `0.30000000000000004`,
		`""`, `"\u0000\u001f\u007f"`, `"\ud83d\ude00 😀"`, `"\u2028\u2029"`, "\"\u2028\u2029\"", `"<b>&amp;</b>"`, `"\/\b\f\n\r\t\"\\"`, `"\u00e9é\u00C9"`,
		`"\ud83d"`, `"\uDE00\ud83d"`, `{"\uD83D":1,"\ud83e":{"\ufffd":[]},"\ufffd":"\ude00"}`,
		`{}`, `[]`, `[{},[]]`, `{"a":{"b":{"c":[[[]]]}}}`, `{"__proto__":{"x":1},"constructor":null}`, `{"__proto__":1}`,
		`{"b":1,"10":2,"9":3,"a":4,"01":5,"-1":6,"4294967295":7}`, `{"": 1, "é": 2, "\u2028": 3}`, `{ "a" : [ 1 , 2.50 , true , null ] }`,
		`{"data":{"data":1.0}}`, `null`, `true`,
	}
	// And all of them in one, as members and as elements.
	var members []string
	for i, v := range values {
		members = append(members, fmt.Sprintf(`"k%d": %s`, i, v))
	}
	return append(values, "{"+strings.Join(members, ", ")+"}", "["+strings.Join(values, ",")+"]")
}

// Contracts A and B: their receivers sign JSON.stringify(JSON.parse(body)). Node.js is one.
func TestContractsSurviveStringify(t *testing.T) {
	t.Parallel() // it mostly waits
	texts := awkward()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	draw := rand.New(rand.NewPCG(seed, 1))
	for range 100 {
		a, b := texts[draw.IntN(30)], texts[draw.IntN(30)]
		texts = append(texts, fmt.Sprintf(`{"%d":%s,"x":[%s,%d.%de%d]}`, draw.IntN(20), a, b, draw.IntN(100), draw.IntN(1e6), draw.IntN(40)-20))
	}
	data := map[string]string{}
	for i, text := range texts {
		data[fmt.Sprint("n", i)] = text
	}
	a := newAuthority(t)
	url, next := startNode(t, a, data)
	for _, sender := range []struct {
		file, path, kind string
		env              map[string]string
	}{
		{"saas-alerts.hcl", "/a", "alert_triggered", map[string]string{
			"SAAS_ALERTS_URL": url + "/a", "SAAS_ALERTS_SECRET": contractSecret, "SAAS_EVERYTHING_URL": url + "/a", "SAAS_EVERYTHING_SECRET": contractSecret,
		}},
		{"group-manager.hcl", "/b", "message.received", map[string]string{"GROUP_MANAGER_URL": url + "/b", "GROUP_MANAGER_SECRET": contractSecret}},
	} {
		onEngines(t, func(t *testing.T, outbox string) {
			c := startContract(t, sender.file, outbox, a, sender.env)
			var events []said
			for i, text := range texts {
				events = append(events, said{fmt.Sprint("n", i), sender.kind, text})
			}
			c.say(events...)
			for left := len(texts) * len(c.names); left > 0; {
				h := next()
				if h.Wrong != "" {
					t.Errorf("%s %s: %s; the data was %s", h.Path, h.Event, h.Wrong, data[h.Event])
				}
				if h.Path == sender.path { // else it repeats what an earlier Relay was not answered in time
					left--
				}
			}
			for _, name := range c.names {
				c.settled(name, counts{Delivered: int64(len(texts))})
			}
		})
	}
}
