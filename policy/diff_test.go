package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/config"
)

const (
	diffSecret  = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	otherSecret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
)

func TestDiff(t *testing.T) {
	with := func(lines string) string {
		return fmt.Sprintf("endpoint \"a\" {\n url = \"https://a.example.com/x?token=canary\"\n secrets = [%q]\n %s\n}\n", diffSecret, lines)
	}
	signed := func(scheme, secrets string) string {
		return fmt.Sprintf("signature \"own\" {\n signed = %s\n headers = { X = signature }\n}\nendpoint \"a\" {\n url = \"https://a.example.com\"\n %s\n}\n", scheme, secrets)
	}
	body, idBody := `"${body}"`, `"${id}.${body}"`
	for _, c := range []struct {
		name, old, new string
		want           []config.Change
	}{
		{"description", with(``), with(`description = "x"`), []config.Change{{Name: "description", New: `"x"`}}},
		{"enabled", with(``), with(`enabled = false`), []config.Change{{Name: "enabled", Old: "true", New: "false"}}},
		{"events", with(``), with(`events = ["x.*", "!x.y"]`), []config.Change{{Name: "events", Old: "all", New: "!x.y x.*"}}},
		{"filters", with("sample = 0.5\ndedupe {\n by = event.key\n window = \"1h\"\n}"), with("when = event.type == env(\"NAME\")\ntenants = [\"b\", \"a\"]\ncrossing {\n value = event.data.n\n at = [1, 2]\n by = event.key\n}"), []config.Change{
			{Name: "tenants", New: `["a" "b"]`}, {Name: "when", New: `event.type == env("NAME")`}, {Name: "crossing.value", New: "event.data.n"}, {Name: "crossing.at", New: "1 2"},
			{Name: "crossing.by", New: "event.key"}, {Name: "crossing.reset_below", New: "1"}, {Name: "crossing.remember", New: "400d"},
			{Name: "sample", Old: "0.5"}, {Name: "dedupe.by", Old: "event.key"}, {Name: "dedupe.window", Old: "1h"}}},
		{"concurrency", with(``), with(`concurrency = 2`), []config.Change{{Name: "concurrency", Old: "16", New: "2"}}},
		{"batch", with("batch {}"), with("batch {\n max_events = 10\n max_wait = \"1m\"\n format = \"ndjson\"\n}"), []config.Change{
			{Name: "batch", Old: "100 events, 1s, 256KiB, array, on_refused split", New: "10 events, 1m, 256KiB, ndjson, on_refused split"}}},
		{"batch off", with("batch {}"), with(``), []config.Change{{Name: "batch", Old: "100 events, 1s, 256KiB, array, on_refused split"}}},
		{"traces", with(``), with(`propagate_trace = true`), []config.Change{{Name: "propagate_trace", Old: "false", New: "true"}}},
		{"http2", with(``), with(`http2 = true`), []config.Change{{Name: "http2", Old: "false", New: "true"}}},
		{"handshake", with(``), with("handshake = true\norigin = \"a.test\""), []config.Change{{Name: "handshake", New: "a.test"}}},
		{"timeout", with(``), with("timeout {\n connect = \"1s\"\n total = \"90s\"\n}"), []config.Change{
			{Name: "timeout.connect", Old: "5s", New: "1s"}, {Name: "timeout.total", Old: "15s", New: "1m30s"}}},
		{"retry", with("retry {\n schedule = [\"5s\"]\n}"), with("retry {\n schedule = [\"1h\", \"1d\"]\n jitter = 0\n on = [\"410\", \"5xx\"]\n max_retry_after = \"0s\"\n}"), []config.Change{
			{Name: "retry.schedule", Old: "5s", New: "1h 1d"}, {Name: "retry.jitter", Old: "0.1", New: "0"},
			{Name: "retry.on", Old: "network timeout 408 409 425 429 5xx", New: "410 5xx"}, {Name: "retry.max_retry_after", Old: "1d", New: "0s"}}},
		{"no retries", with("retry {\n schedule = [\"5s\"]\n}"), with("retry {\n strategy = \"fixed\"\n max_attempts = 1\n}"), []config.Change{{Name: "retry.schedule", Old: "5s"}}},
		{"retry classes", with("retry \"429\" {\n schedule = [\"5s\"]\n}"), with("retry {\n max_age = \"1d\"\n}\nretry \"404\" {\n max_attempts = 1\n}"), []config.Change{
			{Name: "retry.max_age", New: "1d"}, {Name: "retry.on", Old: "network timeout 408 409 425 429 5xx", New: "network timeout 404 408 409 425 429 5xx"},
			{Name: "retry.404", New: "no more attempts, jitter 0.1, max_age 1d"}, {Name: "retry.429", Old: "5s, jitter 0.1"}}},
		{"limits", with("rate_limit {\n limit = 5\n}"), with("fleet_concurrency = 3\nfresh_share = 0.25\nobey_rate_headers = true\nconnection_max_age = \"1h\"\nrate_limit {\n limit = 10\n per = \"1m\"\n}"), []config.Change{
			{Name: "connection_max_age", Old: "5m", New: "1h"}, {Name: "fleet_concurrency", New: "3"}, {Name: "fresh_share", Old: "0.5", New: "0.25"}, {Name: "obey_rate_headers", Old: "false", New: "true"},
			{Name: "rate_limit", Old: "5 per 1s, burst 5", New: "10 per 1m, burst 1"}}},
		{"no limit", with("rate_limit {\n limit = 5\n}"), with("rate_limit {\n enabled = false\n}"), []config.Change{{Name: "rate_limit", Old: "5 per 1s, burst 5"}}},
		{"breaker", with(``), with("breaker {\n open = \"1m\"\n on = [\"5xx\"]\n}\ndisable {\n on_gone = false\n after_failing = \"0s\"\n}"), []config.Change{
			{Name: "breaker.open", Old: "30s", New: "1m"}, {Name: "breaker.on", Old: "network timeout 429 5xx", New: "5xx"},
			{Name: "disable.on_gone", Old: "true", New: "false"}, {Name: "disable.after_failing", Old: "5d"}}},
		{"no breaker", with(``), with("breaker {\n enabled = false\n}"), []config.Change{{Name: "breaker", Old: "on"}}},
		{"breaker again", with("breaker {\n enabled = false\n}"), with(``), []config.Change{{Name: "breaker", New: "on"}}},
		{"tls", with(``), with("tls {\n min_version = \"1.3\"\n server_name = \"b.test\"\n}"), []config.Change{
			{Name: "tls.min_version", Old: "1.2", New: "1.3"}, {Name: "tls.server_name", New: "b.test"}}},
		{"egress", with(``), with("egress {\n allow_private = [\"10.0.0.0/8\"]\n allow_plaintext = true\n ports = [443, 8443]\n}"), []config.Change{
			{Name: "egress.allow_private", New: "10.0.0.0/8"}, {Name: "egress.allow_plaintext", Old: "false", New: "true"}, {Name: "egress.ports", New: "443 8443"}}},
		{"headers", with(`headers = { A = "canary", B = "canary", C = "canary" }`), with(`headers = { C = "canary", A = "another", D = "canary" }`), []config.Change{
			{Name: "headers.A", Old: "***", New: "***", Unseen: true}, {Name: "headers.D", New: "***"}, {Name: "headers.B", Old: "***"}}},
		{"query", with(``), strings.Replace(with(``), "canary", "another", 1), []config.Change{
			{Name: "url", Old: "https://a.example.com/x?***", New: "https://a.example.com/x?***", Unseen: true}}},
		{"url", with(``), strings.Replace(with(``), "//a.", "//b.", 1), []config.Change{
			{Name: "url", Old: "https://a.example.com/x?***", New: "https://b.example.com/x?***"}}},
		{"order of lists", with("events = [\"b\", \"a\", \"!a.x\"]\n egress {\n ports = [8443, 443]\n}"), with("events = [\"!a.x\", \"a\", \"b\"]\n egress {\n ports = [443, 8443]\n}"), nil},

		{"secret", signed(body, `secrets = ["`+diffSecret+`"]`), signed(body, `secrets = ["`+otherSecret+`"]`), []config.Change{{Name: "secrets", Old: "1", New: "1", Unseen: true}}},
		{"rotation", signed(body, `secrets = ["`+diffSecret+`"]`), signed(body, `secrets = ["`+otherSecret+`", "`+diffSecret+`"]`), []config.Change{{Name: "secrets", Old: "1", New: "2", Unseen: true}}},
		{"order of secrets", signed(body, `secrets = ["`+diffSecret+`", "`+otherSecret+`"]`), signed(body, `secrets = ["`+otherSecret+`", "`+diffSecret+`"]`), []config.Change{{Name: "secrets", Old: "2", New: "2", Unseen: true}}},
		{"another scheme", signed(body, `secrets = ["`+diffSecret+`"]`), signed(body, `secrets = ["`+diffSecret+"\"]\n sign = [\"own\"]"), []config.Change{{Name: "sign", Old: "standard", New: "own"}}},
		{"one more scheme, another secret", signed(body, `secrets = ["`+diffSecret+`"]`), signed(body, `secrets = ["`+otherSecret+"\"]\n sign = [\"own\", \"standard\"]"), []config.Change{
			{Name: "sign", Old: "standard", New: "own standard"}, {Name: "secrets", Old: "1", New: "1", Unseen: true}}},
		{"no scheme", signed(body, `secrets = ["`+diffSecret+`"]`), signed(body, `sign = ["none"]`), []config.Change{{Name: "sign", Old: "standard", New: "none"}}},
		{"the scheme itself", signed(body, `secrets = ["`+diffSecret+"\"]\n sign = [\"own\"]"), signed(idBody, `secrets = ["`+diffSecret+"\"]\n sign = [\"own\"]"), []config.Change{{Name: "signature.own", Unseen: true}}},
		{"a scheme that is not used", signed(body, `secrets = ["`+diffSecret+`"]`), signed(idBody, `secrets = ["`+diffSecret+`"]`), nil},
		{"a policy", with(``), "policy \"default\" {\n concurrency = 3\n}\n" + with(``), []config.Change{{Name: "concurrency", Old: "16", New: "3"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []Change
			if len(c.want) > 0 {
				want = []Change{{Endpoint: "a", Kind: Changed, Settings: c.want}}
			}
			got := Diff(mustDecode(t, c.old), mustDecode(t, c.new))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("difference (-want +got):\n%s", diff)
			}
			if text := fmt.Sprint(got); strings.Contains(text, "canary") || strings.Contains(text, diffSecret) {
				t.Errorf("a secret is shown: %s", text)
			}
		})
	}
}

func TestDiffOfEndpoints(t *testing.T) {
	file := func(names string) *Policy {
		var b strings.Builder
		b.WriteString("log {}\n")
		for _, n := range strings.Fields(names) {
			fmt.Fprintf(&b, "endpoint %q {\n url = \"https://x.example.com\"\n sign = [\"none\"]\n}\n", n)
		}
		return mustDecode(t, b.String())
	}
	got := Diff(file("a b c"), file("d c e"))
	want := []Change{{Endpoint: "d", Kind: Added}, {Endpoint: "e", Kind: Added}, {Endpoint: "a", Kind: Removed}, {Endpoint: "b", Kind: Removed}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
}

func TestExplainMatch(t *testing.T) {
	for _, c := range []struct {
		patterns, eventType string
		want                Verdict
	}{
		{"", "a", Verdict{true, ""}},
		{"", "relay.x", Verdict{false, ""}},
		{"a.* a.**", "a.b", Verdict{true, "a.*"}},
		{"b a.**", "a.b", Verdict{true, "a.**"}},
		{"b", "a.b", Verdict{false, ""}},
		{"** !a.* !a.b", "a.b", Verdict{false, "!a.*"}},
		{"!a.*", "b", Verdict{true, ""}},
		{"**", "relay.x", Verdict{false, ""}},
		{"relay.** !relay.x", "relay.x", Verdict{false, "!relay.x"}},
	} {
		m, err := NewMatcher(strings.Fields(c.patterns))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Explain(c.eventType); got != c.want {
			t.Errorf("%q, type %s: %+v, want %+v", c.patterns, c.eventType, got, c.want)
		}
	}
}

func TestOutcomesList(t *testing.T) {
	for _, text := range []string{"", "network", "timeout 3xx 404 5xx", "network timeout 408 409 425 429 5xx"} {
		on, err := ParseOutcomes(strings.Fields(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := on.List(); !slices.Equal(got, strings.Fields(text)) {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Alerts, and what endpoints made at run time may be, are compared like endpoints; what the environment gave is not
// shown.
func TestDiffOfAlertsAndRuntime(t *testing.T) {
	load := func(text string) *Policy {
		t.Helper()
		f, err := config.Parse("relay.hcl", []byte(text), func(name string) (string, bool) { return "canary-" + name, true })
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	old := load("alert \"slow\" {\n on = \"p95\"\n above = \"5s\"\n}\nalert \"gone\" {\n on = \"disabled\"\n}\nalert \"same\" {\n on = \"silence\"\n above = \"1h\"\n}")
	now := load("alert \"slow\" {\n on = \"p95\"\n above = \"2s\"\n min = 5\n endpoints = [env(\"A\")]\n}\nalert \"same\" {\n on = \"silence\"\n above = \"1h\"\n}\nalert \"new\" {\n on = \"breaker_open\"\n}\nruntime {\n max_endpoints = 5\n https_only = true\n}")
	wantAlerts := []AlertChange{
		{"slow", Changed, []config.Change{{Name: "above", Old: "5s", New: "2s"}, {Name: "min", Old: "20", New: "5"}, {Name: "endpoints", New: Hidden}}},
		{"new", Added, nil}, {"gone", Removed, nil},
	}
	if diff := cmp.Diff(wantAlerts, DiffAlerts(old, now)); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
	wantRuntime := []config.Change{{Name: "max_endpoints", Old: "10000", New: "5"}, {Name: "https_only", Old: "false", New: "true"}}
	if diff := cmp.Diff(wantRuntime, DiffRuntime(old, now)); diff != "" {
		t.Errorf("runtime (-want +got):\n%s", diff)
	}
	if a, r := DiffAlerts(now, now), DiffRuntime(now, now); len(a)+len(r) > 0 {
		t.Errorf("of the same: %v, %v", a, r)
	}
	if got := now.Alerts[0].ShownLimit(); got != "2s" {
		t.Errorf("limit is shown as %q", got)
	}
	drawn := load("alert \"slow\" {\n on = \"p95\"\n above = \"${env(\"A\") != \"\" ? 7 : 8}s\"\n}")
	if got := drawn.Alerts[0].ShownLimit(); got != Hidden || drawn.Hash() == old.Hash() {
		t.Errorf("a limit of the environment is shown as %q", got)
	}
}
