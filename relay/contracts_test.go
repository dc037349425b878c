package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const contractSecret = "canary-contract-secret"

// mac signs as the receivers of the contracts compute it.
func mac(signed ...string) string {
	h := hmac.New(sha256.New, []byte(contractSecret))
	for _, s := range signed {
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// rich is data whose bytes tell who touched them; plain is what JSON.stringify makes of it.
const (
	rich  = `{"b": 1.0, "a": 1e3, "big": 12345678901234567890, "s": "\u00e9\/\ud83d\ude00", "none": {}, "list": [[], -0]}`
	plain = `{"b":1,"a":1000,"big":12345678901234567000,"s":"é/😀","none":{},"list":[[],0]}`
	dense = `{"b":1.0,"a":1e3,"big":12345678901234567890,"s":"\u00e9\/\ud83d\ude00","none":{},"list":[[],-0]}`
)

const relayAgent = "User-Agent: Relay/test"

// What every contract says of an answer: a 2xx is a success.
var successes = []int{200, 201, 202, 204, 299}

func TestContractSaaSAlerts(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, map[string][]int{"/a up": {500, 0, 429, 204}, "/a down": {503}})
		c := startContract(t, "saas-alerts.hcl", outbox, a, map[string]string{
			"SAAS_ALERTS_URL": r.url + "/a", "SAAS_ALERTS_SECRET": contractSecret,
			"SAAS_EVERYTHING_URL": r.url + "/all", "SAAS_EVERYTHING_SECRET": contractSecret,
		})
		c.say(said{"up", "alert_triggered", rich}, said{"down", "device_offline", rich}, said{"other", "quota_warning", rich})
		c.settled("saas-alerts", counts{Delivered: 1, Failed: 1})
		c.settled("saas-everything", counts{Delivered: 3})

		lines := func(kind string) func(h *hook) []string {
			return func(h *hook) []string {
				at := h.recent(t, "X-SaaS-Timestamp")
				return []string{
					relayAgent,
					"X-SaaS-Signature: sha256=" + mac(at, ".", string(h.body)),
					"X-SaaS-Timestamp: " + at,
					"X-SaaS-Event: " + kind,
					"X-SaaS-Delivery-Id: " + h.header.Get("Relay-Delivery"),
				}
			}
		}
		body := func(id, kind string) string {
			return `{"id":"` + id + `","type":"` + kind + `","timestamp":"` + saidAtUTC + `","data":` + plain + `}`
		}
		r.check(t, "/a up", 4, body("up", "alert_triggered"), lines("alert_triggered"))
		r.check(t, "/a down", 4, body("down", "device_offline"), lines("device_offline"))
		r.check(t, "/a other", 0, "", nil)
		r.check(t, "/all other", 1, body("other", "quota_warning"), lines("quota_warning"))
	})
}

func TestContractGroupManager(t *testing.T) {
	a := newAuthority(t)
	// Every answer but a 2xx is tried again, and none of these ends it.
	answers := map[string][]int{"/b retried": {404, 410, 429, 200}, "/b broken": {0, 302, 400, 204}, "/b down": {500}, "/b gone": {410}}
	events := []said{{"retried", "message.received", rich}, {"broken", "member.joined", rich}, {"down", "member.left", rich},
		{"gone", "file.uploaded", rich}, {"other", "message.edited", rich}}
	for _, status := range successes {
		id := fmt.Sprint("ok", status)
		answers["/b "+id] = []int{status}
		events = append(events, said{id, "message.received", rich})
	}
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, answers)
		c := startContract(t, "group-manager.hcl", outbox, a, map[string]string{"GROUP_MANAGER_URL": r.url + "/b", "GROUP_MANAGER_SECRET": contractSecret})
		c.say(events...)
		c.settled("group-manager", counts{Delivered: 2 + int64(len(successes)), Failed: 2})
		for _, e := range events {
			attempts := map[string]int{"retried": 4, "broken": 4, "down": 4, "gone": 4, "other": 0}
			n, ok := attempts[e.id]
			if !ok {
				n = 1
			}
			body := `{"event":"` + e.kind + `","timestamp":"` + saidAtUTC + `","data":` + plain + `}`
			r.check(t, "/b "+e.id, n, body, func(h *hook) []string {
				return []string{relayAgent, "X-Webhook-Signature: sha256=" + mac(string(h.body))}
			})
		}
	})
}

func TestContractDeveloperPlatform(t *testing.T) {
	a := newAuthority(t)
	answers := map[string][]int{
		"/c up": {500, 0, 200}, "/c down": {599}, "/c refused": {429}, "/c moved": {302}, "/c gone": {410},
		"/c linear-down": {503}, "/c linear-refused": {500}, "/c linear-up": {429, 200}, "/c fixed-down": {500},
	}
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, answers)
		c := startContract(t, "developer-platform.hcl", outbox, a, map[string]string{
			"TRAE_URL": r.url + "/c", "TRAE_SECRET": contractSecret, "TRAE_AUTHORIZATION": "Bearer canary",
		})
		c.say(said{"up", "build.finished", rich}, said{"down", "build.failed", rich}, said{"refused", "deployment.started", rich},
			said{"moved", "test.ping", rich}, said{"gone", "build.failed", rich},
			said{"linear-down", "project.made", rich}, said{"linear-refused", "project.made", rich}, said{"linear-up", "project.made", rich},
			said{"fixed-down", "release.made", rich}, said{"other", "user.made", rich})
		c.tenant = "warehouse" // another project
		c.say(said{"elsewhere", "build.finished", rich})
		c.settled("wh-builds", counts{Delivered: 1, Failed: 4})
		c.settled("wh-linear", counts{Delivered: 1, Failed: 2})
		c.settled("wh-fixed", counts{Failed: 1})
		for _, want := range []struct {
			id, kind, endpoint string
			attempts           int
		}{
			{"up", "build.finished", "wh-builds", 3},
			{"down", "build.failed", "wh-builds", 3},
			{"refused", "deployment.started", "wh-builds", 1},
			{"moved", "test.ping", "wh-builds", 1},
			{"gone", "build.failed", "wh-builds", 1},
			{"linear-down", "project.made", "wh-linear", 3},
			{"linear-refused", "project.made", "wh-linear", 1},
			{"linear-up", "project.made", "wh-linear", 2},
			{"fixed-down", "release.made", "wh-fixed", 3},
			{"other", "user.made", "", 0},
			{"elsewhere", "build.finished", "", 0},
		} {
			body := `{"event":"` + want.kind + `","timestamp":"` + saidAtUTC + `","webhook_id":"` + want.endpoint + `","delivery_id":"<delivery>","data":` + dense + `}`
			r.check(t, "/c "+want.id, want.attempts, body, func(h *hook) []string {
				at := h.recent(t, "X-Trae-Timestamp")
				lines := []string{
					"User-Agent: Trae-Webhooks/1.0",
					"X-Trae-Signature-256: sha256=" + mac(string(h.body)),
					"X-Trae-Event: " + want.kind,
					"X-Trae-Delivery: " + h.header.Get("Relay-Delivery"),
					"X-Trae-Webhook-ID: " + want.endpoint,
					"X-Trae-Timestamp: " + at,
				}
				if want.endpoint == "wh-builds" {
					lines = append(lines, "Authorization: Bearer canary", "X-Environment: production")
				}
				return lines
			})
		}
	})
}

func TestContractAPIMonetization(t *testing.T) {
	a := newAuthority(t)
	const data = `{"organization": "acme", "developer": "dev@example.com", "products": ["maps", "routes"], "rate_plan": "gold",
		"quota": 10000, "percent_used": 80.0, "reason": "threshold", "reset_date": "2026-12-01"}`
	body := `{"organization":"acme","developer":"dev@example.com","products":["maps","routes"],"rate_plan":"gold",` +
		`"quota_target":10000,"percent_used":80.0,"trigger_time":"` + saidAtUTC + `","trigger_reason":"threshold","reset_date":"2026-12-01"}`
	line := strings.Join(strings.Fields(data), " ")
	// Only a 5xx is tried again, three times.
	attempts := map[string]int{"up": 4, "down": 4, "changes": 2}
	answers := map[string][]int{"/d up": {500, 503, 599, 200}, "/d down": {500}, "/d changes": {502, 404}, "/d broken": {0}}
	events := []said{{"up", "quota.used", line}, {"down", "quota.used", line}, {"changes", "quota.used", line}, {"broken", "quota.used", line}}
	for _, status := range []int{302, 304, 400, 401, 404, 408, 409, 410, 425, 429} {
		id := fmt.Sprint("final", status)
		answers["/d "+id] = []int{status}
		events = append(events, said{id, "quota.used", line})
	}
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, answers)
		c := startContract(t, "api-monetization.hcl", outbox, a, map[string]string{"MONETIZATION_URL": r.url + "/d"})
		c.say(events...)
		c.settled("quota-notice", counts{Delivered: 1, Failed: int64(len(events)) - 1})
		c.settled("quota-notice-disabled", counts{Held: int64(len(events))})
		for _, e := range events {
			r.check(t, "/d "+e.id, max(attempts[e.id], 1), body, func(*hook) []string { return []string{relayAgent} })
		}
	})
}

// Contract D, condition: each threshold once for each subject, when it is crossed.
func TestContractThresholds(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, nil)
		c := startContract(t, "api-monetization.hcl", outbox, a, map[string]string{"MONETIZATION_URL": r.url + "/d"})
		var notices int64
		for i, e := range []struct {
			developer, percent, reset string
			notice                    bool
		}{
			{"one", "40", "2026-12-01", false},
			{"one", "50", "2026-12-01", true},
			{"one", "74.99", "2026-12-01", false},
			{"one", "75.0", "2026-12-01", true},
			{"one", "80", "2026-12-01", true},
			{"one", "80", "2026-12-01", false},
			{"one", "89", "2026-12-01", false},
			{"two", "85", "2026-12-01", true}, // 50, 75 and 80 at once
			{"two", "60", "2026-12-01", false},
			{"one", "9.1e1", "2026-12-01", true},
			{"one", "130", "2026-12-01", true}, // 100, 110 and 120
			{"one", "500", "2026-12-01", false},
			{"one", "55", "2027-01-01", true}, // another period
			{"two", "3", "2026-12-01", false}, // the quota begins again,
			{"two", "80", "2026-12-01", true}, // and so do its thresholds
		} {
			id := fmt.Sprint("n", i)
			text := func(quota, time, reason string) string {
				return `{"organization":"acme","developer":"` + e.developer + `","products":[],"rate_plan":"gold","` + quota + `":10,"percent_used":` + e.percent +
					time + `,"` + reason + `":"threshold","reset_date":"` + e.reset + `"}`
			}
			c.say(said{id, "quota.counted", text("quota", "", "reason")})
			attempts := 0
			if e.notice {
				notices++
				attempts = 1
			}
			c.settled("quota-threshold", counts{Delivered: notices})
			r.check(t, "/d "+id, attempts, text("quota_target", `,"trigger_time":"`+saidAtUTC+`"`, "trigger_reason"), func(*hook) []string { return []string{relayAgent} })
		}
		// What has no percentage is no notice, and does not vanish.
		c.say(said{"none", "quota.counted", `{"organization":"acme","developer":"one","rate_plan":"gold"}`})
		c.settled("quota-threshold", counts{Delivered: notices, Failed: 1})
		r.check(t, "/d none", 0, "", nil)
	})
}

func TestContractGoodPractice(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, map[string][]int{"/e up": {500, 0, 408, 200}, "/e down": {500}})
		c := startContract(t, "good-practice.hcl", outbox, a, map[string]string{
			"PRACTICE_URL": r.url + "/e", "PRACTICE_HEADER_URL": r.url + "/h", "PRACTICE_BATCH_URL": r.url + "/m", "PRACTICE_SECRET": contractSecret,
		})
		events := []said{{"up", "user.created", rich}, {"down", "user.deleted", rich}}
		for i := range 60 {
			events = append(events, said{fmt.Sprint("more", i), "user.updated", rich})
		}
		c.say(events...)
		c.settled("practice", counts{Delivered: 61, Failed: 1})
		c.settled("practice-header", counts{Delivered: 62})
		c.settled("practice-batch", counts{Delivered: 62})
		checkBatches(t, r.at("/m"), events)
		lines := func(more ...string) func(h *hook) []string {
			return func(h *hook) []string {
				return append(more, relayAgent, "X-Webhook-Signature: "+mac(string(h.body)))
			}
		}
		r.check(t, "/e up", 4, `{"version":"1.0","event_type":"user.created","data":`+dense+`}`, lines())
		r.check(t, "/e down", 12, `{"version":"1.0","event_type":"user.deleted","data":`+dense+`}`, lines())
		r.check(t, "/h up", 1, `{"id":"up","type":"user.created","timestamp":"`+saidAtUTC+`","data":`+dense+`}`, lines("X-Webhook-Version: 1.0"))

		// Connections are kept: one after the other they go over the same one.
		for i := range 5 {
			c.say(said{fmt.Sprint("kept", i), "user.updated", rich})
			c.settled("practice-header", counts{Delivered: int64(63 + i)})
			c.settled("practice", counts{Delivered: int64(62 + i), Failed: 1})
		}
		for i := range 5 {
			for _, h := range r.of(fmt.Sprint("/h kept", i)) {
				if h.from != r.of("/h kept0")[0].from {
					t.Errorf("event %d came over another connection", i)
				}
			}
		}
	})
}

// Several events in one request, none of them twice.
func checkBatches(t *testing.T, hooks []hook, events []said) {
	t.Helper()
	want := map[string]string{}
	for _, e := range events {
		want[e.id] = `{"version":"1.0","id":"` + e.id + `","event_type":"` + e.kind + `","data":` + dense + `}`
	}
	for _, h := range hooks {
		if got := h.header.Get("X-Webhook-Signature"); got != mac(string(h.body)) {
			t.Errorf("signature is %s", got)
		}
		var bodies []json.RawMessage
		if err := json.Unmarshal(h.body, &bodies); err != nil {
			t.Fatal(err)
		}
		for _, b := range bodies {
			var e struct{ ID string }
			if err := json.Unmarshal(b, &e); err != nil || string(b) != want[e.ID] {
				t.Errorf("event %q is\n%s, want\n%s", e.ID, b, want[e.ID])
			}
			delete(want, e.ID)
		}
	}
	if len(want) > 0 || len(hooks) >= len(events) {
		t.Errorf("%d events came in %d requests, %d did not", len(events)-len(want), len(hooks), len(want))
	}
}

// What the contracts say of the endpoint itself: its URL and its secret.
func TestContractLimits(t *testing.T) {
	good := map[string]string{
		"SAAS_ALERTS_URL": "https://a.example.com/x", "SAAS_ALERTS_SECRET": contractSecret,
		"SAAS_EVERYTHING_URL": "https://a.example.com/y", "SAAS_EVERYTHING_SECRET": contractSecret,
		"GROUP_MANAGER_URL": "https://b.example.com/x", "GROUP_MANAGER_SECRET": contractSecret,
	}
	for _, c := range []struct {
		name, file, variable, value, problem string
	}{
		{"as they are", "saas-alerts.hcl", "SAAS_ALERTS_URL", "https://a.example.com/" + strings.Repeat("x", 478), ""},
		{"plain text", "saas-alerts.hcl", "SAAS_ALERTS_URL", "http://a.example.com/x", "http:// sends events in the clear"},
		{"plain text", "group-manager.hcl", "GROUP_MANAGER_URL", "http://b.example.com/x", "http:// sends events in the clear"},
		{"shortest secret", "saas-alerts.hcl", "SAAS_ALERTS_SECRET", strings.Repeat("x", 16), ""},
		{"longest secret", "saas-alerts.hcl", "SAAS_ALERTS_SECRET", strings.Repeat("x", 128), ""},
		{"short secret", "saas-alerts.hcl", "SAAS_ALERTS_SECRET", strings.Repeat("x", 15), "16"},
		{"long secret", "saas-alerts.hcl", "SAAS_ALERTS_SECRET", strings.Repeat("x", 129), "128"},
	} {
		t.Run(c.name+" "+c.file, func(t *testing.T) {
			env := map[string]string{c.variable: c.value}
			for name, value := range good {
				if name != c.variable {
					env[name] = value
				}
			}
			// A policy "default" that allows plain text does not reach these endpoints.
			_, _, err := example(t, c.file, "policy \"default\" {\n egress {\n allow_plaintext = true\n }\n}", env)
			if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("got %v, want %q", err, c.problem)
			}
			if err != nil && strings.Contains(err.Error(), c.value) {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
}
