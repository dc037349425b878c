package admin

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/relay/deliver"
)

// Endpoints that need a person come first, what is worst before all; the summary is of all pages.
func TestEndpointsByAttention(t *testing.T) {
	p := decodePolicy(t, `
		endpoint "fine" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "late" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "busy" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "paused" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "open" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "fails" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "gone" {
			url  = "https://a.example.com/"
			sign = ["none"]
		}
		endpoint "off" {
			url     = "https://a.example.com/"
			sign    = ["none"]
			enabled = false
		}
		endpoint "off-held" {
			url     = "https://a.example.com/"
			sign    = ["none"]
			enabled = false
		}`)
	g := gatesOf(p)
	for i := range g.status {
		s := &g.status[i]
		switch s.Endpoint {
		case "paused":
			s.State = deliver.Paused
		case "open":
			s.Breaker = "open"
		case "fails":
			s.Failing = &deliver.Trouble{Since: time.Unix(1e9, 0).UTC(), Last: time.Unix(2e9, 0).UTC(), Code: "http_500", Attempts: 3}
		case "gone":
			s.State, s.Code = deliver.Disabled, "gone"
		}
	}
	hour := time.Now().Add(-time.Hour)
	counts := map[string]outbox.Counts{
		"late": {Pending: 1, Oldest: hour}, "busy": {Pending: 50, Oldest: time.Now()}, "off-held": {Pending: 2, Oldest: hour.Add(-time.Hour)}, "paused": {Pending: 9}, "fine": {Failed: 3},
	}
	o := Options{Outbox: box{counts: counts}, Policy: running(p.Endpoints...), Deliverer: g}
	w := get(o, "GET", "/v1/endpoints?sort=attention&limit=8")
	var list EndpointList
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	var names []string
	for _, e := range list.Endpoints {
		names = append(names, e.Name)
	}
	if diff := cmp.Diff([]string{"gone", "fails", "open", "paused", "off-held", "late", "busy", "fine"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s := list.Summary
	if s == nil || s.Attention != 6 || s.Pending != 51 || s.Held != 11 || s.OldestMS == nil || *s.OldestMS < 2*time.Hour.Milliseconds() || list.Total != 9 {
		t.Errorf("summary %+v of %d", s, list.Total)
	}
}

// A list has statistics where they are asked for, by hour or by day.
func TestEndpointsWithStats(t *testing.T) {
	s := newSequel(t)
	for _, e := range ask[EndpointList](t, s, "/v1/endpoints").Endpoints {
		if e.Stats != nil {
			t.Errorf("%s has statistics that nobody asked for", e.Name)
		}
	}
	for path, step := range map[string]time.Duration{"/v1/endpoints?stats=24h": time.Hour, "/v1/endpoints?stats=30d&limit=1000": 24 * time.Hour} {
		list := ask[EndpointList](t, s, path)
		if len(list.Endpoints) != 3 {
			t.Fatalf("%s: %d endpoints", path, len(list.Endpoints))
		}
		for i, want := range []EndpointStats{{Total: 1, Delivered: 1}, {Total: 2, Failed: 1, Pending: 1}, {Total: 1, Pending: 1}} {
			got := list.Endpoints[i].Stats
			if got == nil || got.Total != want.Total || got.Delivered != want.Delivered || got.Failed != want.Failed || got.Pending != want.Pending || !got.Since.Equal(got.Since.Truncate(step)) {
				t.Errorf("%s: %s has %+v", path, list.Endpoints[i].Name, got)
				continue
			}
			if i == 2 {
				if len(got.Steps) != 0 || got.P95MS != nil || got.SuccessRate != nil {
					t.Errorf("%s: nothing is %+v", path, got)
				}
				continue
			}
			var ended int64
			for _, r := range got.Steps {
				ended += r.Ended
				if !r.Start.Equal(r.Start.Truncate(step)) || r.Start.Before(got.Since) {
					t.Errorf("%s: a step begins at %v", path, r.Start)
				}
			}
			if ended != 1 || got.P95MS == nil || *got.P95MS < 15 || got.SuccessRate == nil {
				t.Errorf("%s: %s has %+v", path, list.Endpoints[i].Name, got)
			}
		}
	}
	for _, bad := range []string{"", "0h", "401d", "1w", "h", "-1h", "1.5h", "24"} {
		if w := get(s.options, "GET", "/v1/endpoints?stats="+bad); w.Code != http.StatusBadRequest {
			t.Errorf("stats=%s: %d", bad, w.Code)
		}
	}
}

// Statistics leave out the backlog where it is not asked for.
func TestStatisticsWithoutBacklog(t *testing.T) {
	s := newSequel(t)
	got := ask[Statistics](t, s, "/v1/stats?by=endpoint&backlog=false")
	if got.Total.Backlog != nil || len(got.Rows) != 2 || got.Total.Delivered != 1 {
		t.Errorf("%+v", got)
	}
	for _, r := range got.Rows {
		if r.Backlog != nil {
			t.Errorf("%s has a backlog", *r.Endpoint)
		}
	}
}

// Readiness says how full the outbox is, if that is known.
func TestReadinessSaysHowFull(t *testing.T) {
	for fill, want := range map[float64]bool{0: false, 0.25: true} {
		var s Status
		if err := json.Unmarshal(get(Options{Outbox: box{fill: fill}, Engine: "sqlite"}, "GET", "/readyz").Body.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		if s.Outbox == nil || (s.Outbox.Fill != nil) != want || want && *s.Outbox.Fill != fill {
			t.Errorf("%v: %+v", fill, s.Outbox)
		}
	}
}
