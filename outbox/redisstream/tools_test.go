package redisstream_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// sample is a command of docs/redis.md with the output that follows it there.
var sample = regexp.MustCompile("(?s)```sh run-by: TestToolsOfRedis\nredis-cli ([^\n]*)\n```\n```text\n(.*?)```")

// numbers and machines differ from run to run; notes stand after an arrow.
var (
	note   = regexp.MustCompile(` +←.*`)
	idle   = regexp.MustCompile(`3\) \(integer\) \d+`)
	digits = regexp.MustCompile(`\d{2,}(-\d+)?`)
)

// The commands of docs/redis.md, on an outbox with five deliveries of which three are
// claimed, and one that waits for a retry: they show what the page says.
func TestToolsOfRedis(t *testing.T) {
	page, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t)
	host := fillForTools(t, server)
	samples := sample.FindAllStringSubmatch(string(page), -1)
	if len(samples) != 6 {
		t.Fatalf("found %d commands, want 6", len(samples))
	}
	for _, m := range samples {
		args := append([]string{"-s", server.Socket(), "--no-raw"}, strings.Fields(strings.ReplaceAll(m[1], "'", ""))...)
		out, err := exec.Command("redis-cli", args...).Output()
		if err != nil {
			t.Fatalf("redis-cli %s: %v", m[1], err)
		}
		plain := func(text string) string {
			text = idle.ReplaceAllString(text, "3) (integer) idle")
			return digits.ReplaceAllString(strings.ReplaceAll(note.ReplaceAllString(text, ""), host, "web-1"), "N")
		}
		if diff := cmp.Diff(plain(m[2]), plain(string(out))); diff != "" {
			t.Errorf("redis-cli %s (-page +redis):\n%s", m[1], diff)
		}
	}
}

// fillForTools makes the outbox that the page shows, and returns the name of this machine.
func fillForTools(t *testing.T, server *redistest.Server) string {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	open := func() *redisstream.Store {
		s, err := redisstream.Open(t.Context(), redisstream.Options{URL: server.URL(), Database: -1, Namespace: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	first, second := open(), open()
	accept := func(id string) {
		e := outbox.Event{ID: id, Type: "a", Data: []byte("1")}
		if _, err := first.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"billing"}}}}); err != nil {
			t.Fatal(err)
		}
	}
	claim := func(s *redisstream.Store, n int) (all []outbox.Claim) {
		for len(all) < n {
			claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: n - len(all), Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, claims...)
		}
		return all
	}
	accept("evt_6")
	retried := claim(first, 1)[0]
	a := outbox.Attempt{N: 1, Started: time.Now(), Status: 503, Outcome: "retry", Code: "http_503"}
	if err := first.Settle(t.Context(), retried, outbox.Settlement{Attempt: a, State: outbox.Pending, Due: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Counts(t.Context()); err != nil { // it waits for the settlement
		t.Fatal(err)
	}
	for _, id := range []string{"evt_1", "evt_2", "evt_3", "evt_4", "evt_5"} {
		accept(id)
	}
	claim(first, 1)
	claim(second, 2)
	return host
}

// redis_exporter, run as docs/redis.md says and as the user that it names, shows the figures that the page explains, and may
// change nothing.
func TestRedisExporter(t *testing.T) {
	text, err := os.ReadFile("../../docs/redis.md")
	testkit.Must(t, err)
	page := string(text)
	server := redistest.Start(t)
	fillForTools(t, server)
	found := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(page)
		if m == nil {
			t.Fatalf("the page has no %s", pattern)
		}
		return m[1]
	}
	server.MustDo(t, append([]string{"ACL", "SETUSER", "exporter"}, strings.Fields(found("`ACL SETUSER exporter (.*?)`"))...)...)
	if said := server.MustDo(t, "ACL", "DRYRUN", "exporter", "XACK", "{orders:0}:q:billing", "relay", "1-0"); said == "OK" {
		t.Error("the exporter may change the outbox")
	}
	line := found("(?m)^redis_exporter (.*)$")
	line = strings.ReplaceAll(line, "127.0.0.1:6379", server.Addr())
	figures := exported(t, strings.Fields(strings.ReplaceAll(line, "'", "")))
	for name, want := range map[string]string{"redis_stream_length": "5", "redis_stream_group_messages_pending": "3", "redis_exporter_last_scrape_error": "0"} {
		if name != "redis_exporter_last_scrape_error" && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page does not explain %s", name)
		}
		m := regexp.MustCompile(`(?m)^`+name+`\{(?:[^}]|\}:)*\} (\S+)$`).FindAllStringSubmatch(figures, -1)
		if len(m) != 1 || m[0][1] != want {
			t.Errorf("%s is %v, want once %s", name, m, want)
		}
	}
}

// exported starts the exporter and returns what it tells Prometheus.
func exported(t *testing.T, args []string) string {
	t.Helper()
	binary, err := exec.LookPath("redis_exporter")
	if err != nil {
		binary = "prometheus-redis-exporter" // as Debian calls it
	}
	addr := testkit.Loopback(testkit.Port(t))
	log := new(testkit.Log)
	cmd := exec.CommandContext(t.Context(), binary, append(args, "--web.listen-address", addr)...)
	cmd.Stdout, cmd.Stderr = log, log
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has ended then
	var body []byte
	testkit.Until(t, "figures of the exporter", func() bool {
		answer, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, err = io.ReadAll(answer.Body)
		return err == nil && answer.StatusCode == http.StatusOK
	})
	if t.Failed() {
		t.Log(log)
	}
	return string(body)
}
