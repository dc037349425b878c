package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"relay/internal/testkit"
)

// startPageDemo runs "relay demo --page", and returns what it prints, the address of its page and tokens: of the operator,
// of acme and of globex.
func startPageDemo(t *testing.T) (cmd *exec.Cmd, out *testkit.Log, address string, tokens []string) {
	t.Helper()
	self, err := os.Executable()
	testkit.Must(t, err)
	out = new(testkit.Log)
	cmd = &exec.Cmd{Path: self, Args: []string{"relay", "demo", "--page"}, Env: append(os.Environ(), "TMPDIR="+testkit.Dir(t)), Stdout: out, Stderr: out}
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the demo said:\n%s", out)
		}
	})
	awaitLine(t, out, `Ctrl-C ends it`)
	for _, line := range strings.Fields(out.String()) {
		if before, token, ok := strings.Cut(line, "/enter/"); ok {
			address, tokens = before, append(tokens, token)
		}
	}
	if len(tokens) != 3 {
		t.Fatalf("%d links, want 3", len(tokens))
	}
	_, file, _ := strings.Cut(out.String(), "  configuration  ")
	file, _, _ = strings.Cut(file, "\n")
	text, err := os.ReadFile(file)
	testkit.Must(t, err)
	_, token, _ := strings.Cut(string(text), `token    = "`)
	tokens[0], _, _ = strings.Cut(token, `"`)
	return cmd, out, address, tokens
}

// linksOf are the codes of links that log in once, in what the demo prints.
func linksOf(out string) []string {
	return regexp.MustCompile(`/enter/(relay_once_\w+)`).FindAllString(out, -1)
}

// The operator's link logs in once, and the demo prints the next one as soon as it is used.
func TestDemoLinkLogsInOnce(t *testing.T) {
	_, out, address, tokens := startPageDemo(t)
	if strings.Contains(out.String(), tokens[0]) {
		t.Error("it prints the token of the operator")
	}
	enter := func(method, link string) (status, cookies int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, address+link, nil)
		testkit.Must(t, err)
		resp, err := http.DefaultTransport.RoundTrip(req)
		testkit.Must(t, err)
		defer resp.Body.Close()
		return resp.StatusCode, len(resp.Cookies())
	}
	_, file, _ := strings.Cut(out.String(), "  configuration  ")
	file, _, _ = strings.Cut(file, "\n")
	if files := asked(t, address, tokens[0], "/v1/config")["files"]; fmt.Sprint(files) != "["+file+"]" {
		t.Errorf("the configuration is read from %v, not from %s", files, file)
	}
	link := linksOf(out.String())[0]
	if status, cookies := enter(http.MethodGet, link); status != http.StatusOK || cookies != 0 {
		t.Errorf("a program that looks at the link gets %d with %d cookies", status, cookies)
	}
	if status, cookies := enter(http.MethodPost, link); status != http.StatusSeeOther || cookies == 0 {
		t.Errorf("the first use: %d with %d cookies", status, cookies)
	}
	if status, cookies := enter(http.MethodPost, link); status != http.StatusGone || cookies != 0 {
		t.Errorf("the second use: %d with %d cookies", status, cookies)
	}
	testkit.Until(t, "the next link", func() bool { return len(linksOf(out.String())) == 2 })
	next := linksOf(out.String())[1]
	if status, _ := enter(http.MethodPost, next); next == link || status != http.StatusSeeOther {
		t.Errorf("the next link %s: %d", next, status)
	}
}

// asked is the answer of an admin route.
func asked(t *testing.T, address, token, path string) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
	testkit.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	testkit.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.Must(t, err)
	answer := map[string]any{"status": float64(resp.StatusCode)}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v: %s", path, err, text)
	}
	return answer
}

// The story has something for every screen: deliveries in every state an operator meets, an alert that fires, an
// endpoint in every condition, customers who see only what is theirs. It ends by a signal and leaves nothing.
func TestDemoPage(t *testing.T) {
	cmd, _, address, tokens := startPageDemo(t)
	ask := func(token int, path string) map[string]any { t.Helper(); return asked(t, address, tokens[token], path) }
	some := func(query string) {
		t.Helper()
		testkit.Until(t, query, func() bool { return len(ask(0, "/v1/deliveries?"+query)["items"].([]any)) > 0 })
	}
	some("state=delivered&endpoint=storefront")
	some("state=pending&endpoint=warehouse&status=503")
	some("state=held&endpoint=newsletter")
	some("state=failed&endpoint=crm&status=422")
	some("state=delivered&endpoint=analytics")
	some("state=delivered&endpoint=on-call&type=relay.alert.firing")
	some("state=delivered&endpoint=acme-erp&tenant=acme")
	some("state=delivered&endpoint=globex-erp&tenant=globex")
	some("type=device.*")
	firing := fmt.Sprint(ask(0, "/v1/alerts")["firing"])
	if !strings.Contains(firing, "warehouse-fails") && !strings.Contains(firing, "slow-analytics") {
		t.Errorf("alerts that fire: %s", firing)
	}
	if state := ask(0, "/v1/endpoints/newsletter")["state"]; state != "paused" {
		t.Errorf("newsletter is %v, want paused", state)
	}
	for i, tenant := range demoTenants() {
		other := demoTenants()[1-i]
		if got := ask(1+i, "/v1/endpoints/"+tenant+"-erp"); got["name"] != tenant+"-erp" {
			t.Errorf("%s gets %v of its own endpoint", tenant, got)
		}
		if got := ask(1+i, "/v1/endpoints/"+other+"-erp")["status"]; got != float64(404) {
			t.Errorf("%s gets %v of the endpoint of %s, want 404", tenant, got, other)
		}
	}

	testkit.Must(t, cmd.Process.Signal(syscall.SIGINT))
	testkit.Must(t, cmd.Wait())
	for _, line := range cmd.Environ() { // as it got it: of two lines the last one
		if dir, ok := strings.CutPrefix(line, "TMPDIR="); ok {
			left, err := os.ReadDir(dir)
			testkit.Must(t, err)
			if len(left) > 0 {
				t.Errorf("it leaves %v in %s", left, dir)
			}
		}
	}
}

// Every event of the story fits the schema of its type, so that it would be taken by a strict Relay, too.
func TestStoryFitsItsTypes(t *testing.T) {
	d := &pageDemo{command: &command{streams: streams{out: io.Discard, err: os.Stderr}, env: func(string) (string, bool) { return "", false }}, dir: testkit.Dir(t), receiver: "127.0.0.1:1"}
	testkit.Must(t, d.write())
	_, p, err := d.load([]string{d.file})
	testkit.Must(t, err)
	s, seen := newStory(7), map[string]int{}
	for range 2000 {
		e := s.next()
		seen[e.Type]++
		data, err := json.Marshal(e.Data)
		testkit.Must(t, err)
		kind, known := p.Type(e.Type)
		if !known {
			t.Fatalf("the file declares no type %s", e.Type)
		}
		if kind.Schema == nil {
			continue
		}
		if m := kind.Schema.Check(data); m != nil {
			t.Errorf("%s %s: %+v", e.Type, data, m)
		}
	}
	if len(seen) != len(p.Types) || len(s.open) > 200 {
		t.Errorf("seen %v of %d types; %d orders never end", seen, len(p.Types), len(s.open))
	}
}
