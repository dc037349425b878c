package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"relay/relay/admin"
)

// admin asks the admin listener and reads the answer, which must be 2xx.
func (c *contract) admin(method, path, body string, out any) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "http://relay"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.clients["admin"].Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		c.t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, text, err)
	}
	if err := json.Unmarshal(text, out); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// one is the only delivery on the page of a list.
func (c *contract) one(query string) admin.Delivery {
	c.t.Helper()
	var list admin.DeliveryList
	c.admin("GET", "/v1/deliveries?"+query, "", &list)
	if len(list.Items) != 1 {
		c.t.Fatalf("%s: %d deliveries, want 1", query, len(list.Items))
	}
	return list.Items[0]
}

// The log, test, redelivery and statistics that the contracts ask for, by the calls that
// examples/contracts/README.md names.
func TestContractLog(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, map[string][]int{"/a up": {500, 204}, "/a down": {503, 503, 503, 503, 200}})
		c := startContract(t, "saas-alerts.hcl", outbox, a, map[string]string{
			"SAAS_ALERTS_URL": r.url + "/a", "SAAS_ALERTS_SECRET": contractSecret,
			"SAAS_EVERYTHING_URL": r.url + "/all", "SAAS_EVERYTHING_SECRET": contractSecret,
		})
		c.say(said{"up", "alert_triggered", `{"device":"cam-7","scene":2}`}, said{"down", "device_offline", `{"device":"cam-8"}`})
		c.settled("saas-alerts", counts{Delivered: 1, Failed: 1})
		c.settled("saas-everything", counts{Delivered: 2})

		var list admin.DeliveryList
		one := func(query string) admin.Delivery {
			t.Helper()
			list = admin.DeliveryList{}
			c.admin("GET", "/v1/deliveries?endpoint=saas-alerts&"+query, "", &list)
			if len(list.Items) != 1 {
				t.Fatalf("%s: %d deliveries, want 1", query, len(list.Items))
			}
			return list.Items[0]
		}
		if d := one("state=success"); d.Event.ID != "up" || d.Attempts != 2 || d.MaxAttempts != 4 || d.Last.Status != 204 || d.Last.TookMS <= 0 || d.Created.IsZero() {
			t.Errorf("success: %+v", d)
		}
		if d := one("data.device=cam-7&data.scene=2&since=1h"); d.Event.ID != "up" {
			t.Errorf("by data: %+v", d)
		}
		if d := one("limit=1&offset=1&order=oldest"); d.Event.ID != "down" || list.Total == nil || list.Total.N != 2 && !list.Total.AtLeast {
			t.Errorf("page 2: %+v of %+v", d, list.Total)
		}
		failed := one("state=failed&type=device_offline")
		var whole admin.DeliveryWhole
		c.admin("GET", "/v1/deliveries/"+failed.ID, "", &whole)
		if n := len(whole.History); n != 4 || string(whole.Payload) != `{"device":"cam-8"}` || whole.Error == "" || whole.Code == "" || !whole.NextAttempt.IsZero() || whole.History[0].Status != 503 || whole.History[0].Response == nil || whole.History[0].NextAttempt.IsZero() {
			t.Errorf("failed: %+v", whole)
		}

		var again admin.Redelivery
		c.admin("POST", "/v1/deliveries/"+failed.ID+"/redeliver", "", &again)
		if again.RedeliveryOf != failed.ID || again.ID == failed.ID || again.ID == "" {
			t.Errorf("redelivery: %+v", again)
		}
		c.settled("saas-alerts", counts{Delivered: 2, Failed: 1})

		var test admin.TestResult
		c.admin("POST", "/v1/endpoints/saas-alerts/test", `{"type":"test.ping","data":{"n":1}}`, &test)
		if test.State != "delivered" || test.Status != 200 || test.TookMS <= 0 || test.Response == nil {
			t.Errorf("test: %+v", test)
		}

		var stats admin.Statistics
		c.admin("GET", "/v1/stats?endpoint=saas-alerts&by=type&step=day", "", &stats)
		if s := stats.Total; s.Ended != 3 || s.Delivered != 2 || s.Failed != 1 || s.SuccessRate == nil || s.TookMS == nil || len(stats.Rows) < 2 {
			t.Errorf("statistics: %+v", stats)
		}
		var e admin.Endpoint
		c.admin("GET", "/v1/endpoints/saas-alerts", "", &e)
		if e.Stats == nil || e.Stats.Delivered != 2 || e.Stats.SuccessRate == nil || len(e.Recent) < 3 {
			t.Errorf("endpoint: %+v", e)
		}
	})
}

// The alerts that two contracts ask for are watched.
func TestContractAlerts(t *testing.T) {
	a := newAuthority(t)
	for file, want := range map[string]string{
		"developer-platform.hcl": "unhealthy success_rate below 95.0 %, slow mean above 5s",
		"good-practice.hcl":      "failures success_rate below 90.0 %, no-events silence above 24h0m0s, backlog backlog_count above 10000",
	} {
		t.Run(file, func(t *testing.T) {
			env := map[string]string{}
			for _, name := range []string{"TRAE_URL", "PRACTICE_URL", "PRACTICE_BODY_URL", "PRACTICE_HEADER_URL", "PRACTICE_BATCH_URL"} {
				env[name] = "https://127.0.0.1:1/hooks"
			}
			env["TRAE_SECRET"], env["PRACTICE_SECRET"], env["TRAE_AUTHORIZATION"] = contractSecret, contractSecret, "Bearer x"
			c := startContract(t, file, fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", t.TempDir()), a, env)
			var list admin.AlertList
			c.admin("GET", "/v1/alerts", "", &list)
			var got []string
			for _, x := range list.Alerts {
				got = append(got, x.Name+" "+x.On+" "+x.Limit)
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("got %s", strings.Join(got, ", "))
			}
		})
	}
}
