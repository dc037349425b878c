package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	redis := func(lines string) string { return "outbox \"redis\" {\n" + lines + "\n}\n" }
	for _, c := range []struct {
		name, old, new string
		want           []Change
	}{
		{"nothing", `log {}`, `admin {}`, nil},
		{"listeners", "ingest {\n unix \"/run/a.sock\" {}\n http \"127.0.0.1:1\" { token = \"canary-token-one\" }\n}",
			"ingest {\n unix \"/run/a.sock\" { mode = \"0600\" }\n http \"127.0.0.1:1\" { token = \"canary-token-two\" }\n http \"127.0.0.1:2\" {}\n}", []Change{
				{Name: "ingest.unix /run/a.sock", Old: "mode 0660", New: "mode 0600"},
				{Name: "ingest.http 127.0.0.1:1 token", Old: "set", New: "set", Unseen: true},
				{Name: "ingest.http 127.0.0.1:2", New: "listens"}}},
		{"sizes and times", "retention {\n failed = \"1d\"\n}", "retention {\n failed = \"2h\"\n}\ningest { max_body = \"1MiB\" }\noutbox \"sqlite\" {\n max_size = \"1GiB\"\n durability = \"relaxed\"\n}", []Change{
			{Name: "ingest.max_body", Old: "256KiB", New: "1MiB"}, {Name: "outbox.durability", Old: "fsync", New: "relaxed"},
			{Name: "outbox.max_size", Old: "4GiB", New: "1GiB"}, {Name: "retention.failed", Old: "1d", New: "2h"}}},
		{"admin and log", "admin { http = \"127.0.0.1:1\" }", "admin {\n unix = \"/run/a.sock\"\n http = \"127.0.0.1:1\"\n token = \"canary-token-one\"\n}\nlog {\n level = \"debug\"\n format = \"json\"\n}", []Change{
			{Name: "admin.unix", New: "/run/a.sock"}, {Name: "admin.token", New: "set"},
			{Name: "log.level", Old: "info", New: "debug"}, {Name: "log.format", New: "json"}}},
		{"page", "admin {\n page { title = \"Old\" }\n}", "admin {\n page {\n enabled = false\n accent = \"#2F6F4F\"\n docs_url = \"https://example.com/hooks\"\n}\n}", []Change{
			{Name: "admin.page.enabled", Old: "true", New: "false"}, {Name: "admin.page.accent", New: "#2f6f4f"}, {Name: "admin.page.docs_url", New: "https://example.com/hooks"}, {Name: "admin.page.title", Old: "Old"}}},
		{"metrics", "metrics {}", "metrics {\n per_endpoint = \"all\"\n}", []Change{{Name: "metrics.per_endpoint", Old: "file", New: "all"}}},
		{"password in a URL", redis(`url = "redis://u:canary-one@h:1/0"`), redis(`url = "redis://u:canary-two@h:1/0"`), []Change{
			{Name: "outbox.server", Old: "redis://u:***@h:1/0", New: "redis://u:***@h:1/0", Unseen: true}}},
		{"server", redis(`url = "redis://h:1/0"`), redis("url = \"redis://h:2/0\"\n password = \"canary-one\"\n namespace = \"orders\"\n shards = 2"), []Change{
			{Name: "outbox.server", Old: "redis://h:1/0", New: "redis://:***@h:2/0"}, {Name: "outbox.password", New: "set"},
			{Name: "outbox.namespace", Old: "relay", New: "orders"}, {Name: "outbox.shards", Old: "1", New: "2"}}},
		{"sentinel", redis("sentinel {\n master = \"m\"\n addrs = [\"s:1\"]\n password = \"canary-one\"\n}"), redis("sentinel {\n master = \"m\"\n addrs = [\"s:1\"]\n password = \"canary-two\"\n}\ntls { ca = \"/ca.pem\" }"), []Change{
			{Name: "outbox.sentinel.password", Old: "set", New: "set", Unseen: true},
			{Name: "outbox.tls", New: "on"}, {Name: "outbox.tls.ca", New: "/ca.pem"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			load := func(text string) Config {
				f, err := Parse("relay.hcl", []byte(text), environ{}.get)
				if err != nil {
					t.Fatal(err)
				}
				return f.Config
			}
			got := Diff(load(c.old), load(c.new))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("difference (-want +got):\n%s", diff)
			}
			if strings.Contains(fmt.Sprint(got), "canary") {
				t.Errorf("a secret is shown: %v", got)
			}
		})
	}
}

// Settings that a reload applies need no restart, whatever else differs.
func TestNeedRestart(t *testing.T) {
	load := func(text string) Config {
		t.Helper()
		f, err := Parse("relay.hcl", []byte(text), environ{}.get)
		if err != nil {
			t.Fatal(err)
		}
		return f.Config
	}
	old := load("log {}")
	for text, want := range map[string]string{
		"log {}":                                "",
		"retention {\n failed = \"1d\"\n}":      "",
		"ingest {\n max_body = \"1MiB\"\n}":     "ingest",
		"admin {\n token = \"canary-token\"\n}": "admin",
		"admin {\n page {\n enabled = false\n title = \"T\"\n accent = \"#2f6f4f\"\n docs_url = \"http://127.0.0.1:8000/hooks\"\n}\n}": "",
		"outbox \"sqlite\" {\n path = \"x\"\n}\nlog {\n level = \"debug\"\n}":                                                          "outbox log",
	} {
		if got := strings.Join(NeedRestart(old, load(text)), " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
