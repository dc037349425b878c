//go:build !race

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
	"relay/relay/app"
)

// mark is in every text that env() and file() give to the files of these tests.
const mark = "canary7f3a"

// canaries are values of all kinds, right and wrong ones, each with something that is told
// apart in any output.
var canaries = []struct {
	name, value string
	marks       []string // none may be shown
}{
	{"a text", mark + "-value", []string{mark}},
	{"a secret", "whsec_" + "Y2FuYXJ5N2YzYS1jYW5hcnk3ZjNhLWNhbmFyeTdmM2E=", []string{"Y2FuYXJ5"}},
	{"lines", mark + " one\n" + mark + "\ttwo\x1b[1m", []string{mark}},
	{"upper case", "CANARY7F3A.*", []string{"CANARY7F3A", mark}},
	{"a whole number", "7391", []string{"7391"}},
	{"a long number", "73917391739173917391", []string{"7391"}},
	{"a fraction", "0.73917391", []string{"7391", "73.91"}},
	{"a duration", "7391s", []string{"7391", "2h3m11s"}},
	{"a short duration", "473s", []string{"473s", "7m53s", "473000"}},
	{"a size", "7391KiB", []string{"7391"}},
	{"a status", "418", []string{" 418", `"418"`}},
	{"a range", "10.73.91.0/24", []string{"10.73.91"}},
	{"a range that is off", "10.73.91.7/24", []string{"10.73.91"}},
	{"a URL", "https://" + mark + ".example/" + mark + "?" + mark, []string{mark}},
	{"a URL of Redis", "redis://" + mark + ":" + mark + "@" + mark + ".invalid:7391/3", []string{mark, "7391"}},
	{"an address", mark + ".invalid:7391", []string{mark, "7391"}},
	{"a host", mark + ".example", []string{mark}},
	{"a path", "/nonexistent-" + mark + "/" + mark, []string{mark}},
	{"PEM", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5N2YzYQ==\n-----END PRIVATE KEY-----\n", []string{"Y2FuYXJ5"}},
	{"PEM of no kind", "-----BEGIN " + strings.ToUpper(mark) + "-----\nY2FuYXJ5N2YzYQ==\n-----END " + strings.ToUpper(mark) + "-----\n", []string{"Y2FuYXJ5", "CANARY7F3A"}},
	{"JSON", `{"` + mark + `": "` + mark + `"}`, []string{mark}},
	{"a schema", `{"type":"object","properties":{"` + mark + `":{"type":"` + mark + `"}}}`, []string{mark}},
	{"a schema that refers", `{"$ref":"https://` + mark + `.example/x","pattern":"` + mark + `("}`, []string{mark}},
}

// chance is what may hold the digits of a canary by chance: hashes and ids, times of day,
// durations that were measured.
var chance = regexp.MustCompile(`evt_[0-9a-f-]+|[0-9a-f]{12,}|[0-9T:-]{15,}[0-9.]*|[0-9]+\.[0-9]+(ms|µs|m?s)|"took":[0-9.]+`)

// ways are how an attribute can use what a call gives.
var ways = []string{
	"%s",
	"[%s]",
	"[%[1]s, %[1]s]",
	"{ (%s) = \"x\" }",
	"{ X-Canary = %s }",
	"{ (%[1]s) = %[1]s, X-Other = \"${%[1]s}\" }",
	"upper(%s)",
	"jsondecode(%s)",
	"regex(%[1]s, %[1]s)",
	"\"x${%s}\"",
	"env(%s)",
	"file(%s)",
	"[for x in [%s] : x.y]",
	"%s + 1",
	"%s.y",
	"event.data.x == %s",
}

// valuesOf are ways for the nth canary: all of them for some, the plain ones for all.
func valuesOf(n int) []string {
	some := ways
	if n%7 != 0 {
		some = ways[:5]
	}
	values := []string{`file("canary")`}
	for _, way := range some {
		values = append(values, strings.NewReplacer("%[1]s", `env("CANARY")`, "%s", `env("CANARY")`).Replace(way))
	}
	return values
}

// good is what blocks need beside the attribute that is looked at, by their path in
// config.Describe.
var good = map[string]string{
	`endpoint "LABEL"`:            "url = \"https://hooks.test/x\"\n secrets = [\"" + testkit.Secret + "\"]\n",
	`endpoint "LABEL" dedupe`:     "by = event.id\n window = \"1m\"\n",
	`endpoint "LABEL" crossing`:   "by = event.id\n value = event.data.n\n at = [1]\n",
	`signature "LABEL"`:           "signed = \"${body}\"\n headers = { X-S = signature }\n",
	`event_type "LABEL"`:          "",
	`front "LABEL"`:               "upstream = \"http://127.0.0.1:1\"\n https = []\n http = [\"127.0.0.1:0\"]\n",
	`front "LABEL" path "LABEL"`:  "upstream = \"http://127.0.0.1:1\"\n",
	`acme eab`:                    "key_id = \"k\"\n hmac = \"aGFsbG8\"\n",
	`acme on_demand`:              "ask = \"http://127.0.0.1:1/\"\n",
	`outbox "redis" sentinel`:     "master = \"m\"\n addrs = [\"127.0.0.1:1\"]\n",
	`outbox "redis" cluster`:      "addrs = [\"127.0.0.1:1\"]\n",
	`trace`:                       "otlp = \"http://127.0.0.1:1\"\n",
	`endpoint "LABEL" rate_limit`: "limit = 1\n",
	`policy "LABEL" rate_limit`:   "limit = 1\n",
}

// with is what an attribute needs beside it.
var with = map[string]string{
	"source": "body = cloudevent\n", "origin": "handshake = true\n",
	"initial": "strategy = \"exponential\"\n", "max": "strategy = \"exponential\"\n", "multiplier": "strategy = \"exponential\"\n",
}

// fileWith is a file that has one attribute of one block, and all that it needs for that.
func fileWith(a config.Attribute, value, dir string) string {
	if a.Block == "" { // of the top level
		return a.Name + " = " + value + "\n" + others("", dir)
	}
	return blockWith(strings.Fields(a.Block), "", a, value) + others(a.Block, dir)
}

// others are blocks that are to be there in any case.
func others(path, dir string) string {
	var b strings.Builder
	if !strings.HasPrefix(path, "endpoint") {
		b.WriteString("endpoint \"x\" {\n" + good[`endpoint "LABEL"`] + "}\n")
	}
	if !strings.HasPrefix(path, "outbox") {
		fmt.Fprintf(&b, "outbox \"sqlite\" {\n path = %q\n}\n", filepath.Join(dir, "outbox"))
	}
	if !strings.HasPrefix(path, "ingest") {
		fmt.Fprintf(&b, "ingest {\n unix %q {}\n}\n", filepath.Join(dir, "in.sock"))
	}
	if !strings.HasPrefix(path, "admin") {
		fmt.Fprintf(&b, "admin {\n http = \"\"\n unix = %q\n}\n", filepath.Join(dir, "admin.sock"))
	}
	return b.String()
}

// blockWith writes the blocks of a path, like `endpoint "LABEL" retry`, around the attribute.
func blockWith(path []string, above string, a config.Attribute, value string) string {
	head, rest := path[0], path[1:]
	if len(rest) > 0 && strings.HasPrefix(rest[0], `"`) {
		head, rest = head+" "+rest[0], rest[1:]
	}
	whole := strings.TrimSpace(above + " " + head)
	inside := ""
	for line := range strings.Lines(good[whole]) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); len(rest) > 0 || name != a.Name {
			inside += line
		}
	}
	if len(rest) == 0 {
		inside += with[a.Name]
	}
	if len(rest) > 0 {
		inside += blockWith(rest, whole, a, value)
	} else {
		inside += a.Name + " = " + value + "\n"
	}
	label := map[string]string{`http "LABEL"`: `http "127.0.0.1:0"`, `unix "LABEL"`: `unix "x.sock"`, `retry "LABEL"`: `retry "429"`, `path "LABEL"`: `path "/x/*"`, `policy "LABEL"`: `policy "default"`}[head]
	if label == "" {
		label = strings.ReplaceAll(head, "LABEL", "x")
	}
	return label + " {\n" + inside + "}\n"
}

// quoter tries one file after the other, in a folder of its own.
type quoter struct {
	t      *testing.T
	dir    string
	canary string // what env("CANARY") gives
	app    *app.App
	log    *testkit.Log
	lines  *app.Lines
	admin  *http.Client
}

func newQuoter(t *testing.T) *quoter {
	t.Helper()
	q := &quoter{t: t, dir: testkit.Dir(t), log: new(testkit.Log)}
	q.write("event.json", `{"type":"a.b","tenant":"t","data":{"n":5,"x":{}}}`)
	q.write("base.hcl", others("", q.dir))
	q.write("live.hcl", others("", q.dir))
	c := &command{env: q.env}
	load := func() (*config.File, *policy.Policy, error) { return c.read([]string{q.path("live.hcl")}) }
	file, p, err := load()
	testkit.Must(t, err)
	q.lines = app.NewLines(q.log)
	q.app, err = app.Open(t.Context(), app.Options{Config: file.Config, Policy: p, Log: app.NewLogger(file.Config.Log, q.lines), Load: load})
	testkit.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = q.app.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	q.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", q.path("admin.sock"))
	}}}
	t.Cleanup(q.admin.CloseIdleConnections)
	return q
}

func (q *quoter) path(name string) string { return filepath.Join(q.dir, name) }

func (q *quoter) write(name, text string) {
	testkit.Must(q.t, os.WriteFile(q.path(name), []byte(text), 0o600))
}

func (q *quoter) env(name string) (string, bool) {
	if name == "CANARY" {
		return q.canary, true
	}
	return os.LookupEnv(name)
}

// verbs are all that check, diff and explain say of a file; ok when check takes it.
func (q *quoter) verbs(src string) (said string, ok bool) {
	q.write("relay.hcl", src)
	file, base, event := q.path("relay.hcl"), q.path("base.hcl"), q.path("event.json")
	var b strings.Builder
	c := &command{streams: streams{strings.NewReader(""), &b, &b}, env: q.env}
	verb := func(verb *cobra.Command, args ...string) int {
		verb.SilenceErrors, verb.SilenceUsage = true, true
		return c.run(verb, args)
	}
	if verb(c.check(), file) != exitOK {
		return b.String(), false // of the others the same is said
	}
	verb(c.check(), "--json", file)
	verb(c.diff(), base, file)
	verb(c.diff(), "--json", file, base)
	verb(c.explain(), "--config", file, event)
	verb(c.explain(), "--config", file, "--json", event)
	return b.String(), true
}

// answers are those of the admin API that tell of the configuration, but for /v1/types: what the
// file publishes of event types, most often with file(), is meant to be read.
func (q *quoter) answers() string {
	var b strings.Builder
	for _, path := range []string{"/readyz", "/metrics", "/v1/endpoints", "/v1/endpoints/x", "/v1/config", "/v1/access", "/v1/alerts"} {
		resp, err := q.admin.Get("http://relay" + path)
		testkit.Must(q.t, err)
		text, err := io.ReadAll(resp.Body)
		testkit.Must(q.t, err)
		resp.Body.Close()
		fmt.Fprintf(&b, "%s: %s %s\n", path, resp.Status, text)
	}
	return b.String()
}

// reload is all that a Relay says which is given the file while it runs.
func (q *quoter) reload(src string) string {
	q.write("live.hcl", src)
	done, err := q.app.Reload(q.t.Context(), "test")
	q.lines.Flush(time.Minute)
	answer, _ := json.Marshal(done)
	said := fmt.Sprint(q.log.Take(), string(answer), err)
	if err == nil {
		// Numbers of what goes on may be those of a canary.
		said += regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?\b`).ReplaceAllString(chance.ReplaceAllString(q.answers(), ""), "N")
	}
	return said
}

// try gives one attribute the values of every canary, and counts those that are right.
func (q *quoter) try(a config.Attribute) (accepted int) {
	refused := false
	for n, c := range canaries {
		q.canary = c.value
		q.write("canary", c.value)
		for _, value := range valuesOf(n) {
			src := fileWith(a, value, q.dir)
			said, ok := q.verbs(src)
			if ok {
				accepted++
			}
			// What is wrong with a file a reload says in the words of check, so one will do.
			if ok || !refused {
				said += q.reload(src)
				refused = refused || !ok
			}
			said = chance.ReplaceAllStringFunc(strings.ReplaceAll(said, q.dir, ""), func(s string) string {
				if strings.ContainsAny(s, "abcdefµm:") {
					return "" // digits alone may be those of a canary
				}
				return s
			})
			for _, m := range c.marks {
				if i := strings.Index(said, m); i >= 0 {
					q.t.Errorf("%s %s = %s with %s is quoted:\n…%s…\nin\n%s", a.Block, a.Name, value, c.name, said[max(0, i-200):min(len(said), i+100)], src)
					break
				}
			}
		}
	}
	return accepted
}

// Nothing that Relay says quotes what env() or file() gave, whatever the attribute and
// whatever is wrong with it: check, diff, explain, a start, a reload (P and S of secrets).
func TestNothingQuotesWhatWasDrawn(t *testing.T) {
	attributes := config.Describe(func(f *config.File) { _, _ = policy.Decode(f) })
	if len(attributes) < 100 {
		t.Fatalf("only %d attributes", len(attributes))
	}
	// A policy is read as the endpoint is, and shown at it.
	attributes = slices.DeleteFunc(attributes, func(a config.Attribute) bool {
		return strings.HasPrefix(a.Block, "policy") && a.Block != `policy "LABEL" retry` && a.Block != `policy "LABEL" tls`
	})
	work := make(chan config.Attribute, len(attributes))
	for _, a := range attributes {
		work <- a
	}
	close(work)
	var accepted sync.Map // by block and name, how many values were right
	var working sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		q := newQuoter(t)
		working.Go(func() {
			for a := range work {
				accepted.Store(a.Block+" "+a.Name, q.try(a))
			}
		})
	}
	working.Wait()
	// The test is of use only while right values are among the canaries.
	for _, name := range []string{`endpoint "LABEL" url`, `endpoint "LABEL" concurrency`, `outbox "sqlite" path`, `outbox "redis" url`, `endpoint "LABEL" headers`, `endpoint "LABEL" source`, `endpoint "LABEL" origin`, `endpoint "LABEL" retry initial`, `endpoint "LABEL" timeout total`} {
		if n, _ := accepted.Load(name); n == 0 || n == nil {
			t.Errorf("no canary is right for %s", name)
		}
	}
}

// What a start says of right values: where the outbox is and what listens.
func TestStartQuotesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, tt := range map[string]struct{ value, src string }{
		"folder":        {filepath.Join(dir, mark), `outbox "sqlite" { path = env("CANARY") }`},
		"a bad folder":  {"/proc/" + mark, `outbox "sqlite" { path = env("CANARY") }`},
		"admin socket":  {filepath.Join(dir, mark+".sock"), `admin { unix = env("CANARY") }`},
		"admin address": {mark + ".invalid:0", `admin { http = env("CANARY") }`},
		"redis":         {"redis://" + mark + ":" + mark + "@" + mark + ".invalid:1", `outbox "redis" { url = env("CANARY") }`},
		"namespace":     {mark, `outbox "redis" { namespace = env("CANARY") }`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CANARY", tt.value)
			path := strings.Fields(tt.src)[0]
			src := strings.NewReplacer("{ ", "{\n", " }", "\n}\n").Replace(tt.src)
			testkit.Must(t, os.WriteFile("relay.hcl", []byte(src+others(path, dir)), 0o600))
			p := &process{t: t, dir: dir}
			self, err := os.Executable()
			testkit.Must(t, err)
			p.serve(self)
			testkit.Until(t, "a word", func() bool {
				return p.log.Count(`"message":"ready"`) > 0 || p.log.Count("relay: ") > 0 || p.log.Count("warn") > 0
			})
			p.kill()
			if said := p.log.String(); strings.Contains(said, mark) {
				t.Errorf("the start says\n%s", said)
			}
		})
	}
}
