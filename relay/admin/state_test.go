package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/relay/deliver"
)

func TestChangeOfState(t *testing.T) {
	a := endpoint(t, "a", "https://a.example.com", true)
	counts := map[string]outbox.Counts{"a": {Accepted: 5, Pending: 3, Delivered: 2}}
	for _, c := range []struct {
		verb, state   string
		pending, held int64
	}{
		{"pause", "paused", 0, 3},
		{"pause", "paused", 0, 3}, // again: no error
		{"disable", "disabled", 0, 3},
		{"enable", "active", 3, 0},
		{"resume", "active", 3, 0},
	} {
		var log bytes.Buffer
		g := gatesOf(running(a)())
		o := Options{Outbox: box{counts: counts}, Policy: running(a), Deliverer: g, Log: zerolog.New(&log)}
		w := get(o, "POST", "/v1/endpoints/a/"+c.verb)
		var got Endpoint
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s (%v)", c.verb, w.Code, w.Body, err)
		}
		if got.State != c.state || got.Code != "operator" || got.Reason != c.verb+" by an operator" || got.Since.IsZero() || got.Deliveries.Pending != c.pending || got.Deliveries.Held != c.held {
			t.Errorf("%s: answered %+v", c.verb, got)
		}
		if diff := cmp.Diff([]string{c.verb + " a by an operator"}, g.asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		if want := `{"level":"info","by":"local","endpoint":"a","state":"` + c.state + `","message":"asked to ` + c.verb + ` an endpoint"}` + "\n"; log.String() != want {
			t.Errorf("logged %s", &log)
		}
	}
}

func TestChangeOfStateRefused(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		err                error
		code               int
		problem            string
	}{
		{"nobody", "POST", "/v1/endpoints/nobody/pause", nil, 404, "endpoint_not_found"},
		{"off in the file", "POST", "/v1/endpoints/a/enable", deliver.ErrInFile, 409, "disabled_in_file"},
		{"outbox down", "POST", "/v1/endpoints/a/resume", outbox.ErrUnavailable, 503, "outbox_unavailable"},
		{"a defect", "POST", "/v1/endpoints/a/disable", outbox.ErrConflict, 500, "internal_error"},
		{"a read", "GET", "/v1/endpoints/a/pause", nil, 405, ""},
		{"another verb", "POST", "/v1/endpoints/a/remove", nil, 404, ""},
	} {
		var log bytes.Buffer
		g := gatesOf(running(endpoint(t, "a", "https://a.example.com", true))())
		g.err = c.err
		w := get(Options{Outbox: box{}, Deliverer: g, Log: zerolog.New(&log)}, c.method, c.path)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.problem) || log.Len() > 0 {
			t.Errorf("%s: %d %s, logged %q", c.name, w.Code, w.Body, &log)
		}
	}
}

// What the deliverer says of endpoints of the file, and of others.
func TestStatusIsShown(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	g := &gates{status: []deliver.Status{
		{Endpoint: "a", State: deliver.Active, Waiting: deliver.WaitBreaker, Breaker: deliver.BreakerOpen, OpenUntil: at, HeldUntil: at, Limit: 50, Tokens: 1.5,
			InFlight: 2, Attempts: map[deliver.Outcome]int64{deliver.Retry: 7}},
		{Endpoint: "c", State: deliver.Paused, Waiting: deliver.WaitPaused, Reason: "paused by an operator", Code: deliver.ByOperator, Since: at},
		{Endpoint: "gone", State: deliver.Disabled, Waiting: deliver.WaitDisabled, Reason: "the receiver answered 410", Code: deliver.ByGone, Since: at},
	}}
	counts := map[string]outbox.Counts{"a": {Accepted: 1, Pending: 1}, "c": {Accepted: 2, Pending: 2}, "gone": {Accepted: 3, Pending: 3}}
	o := Options{Outbox: box{counts: counts}, Policy: running(endpoint(t, "a", "https://a.example.com", true)), Deliverer: g, Fleet: twoRelays}
	w := get(o, "GET", "/v1/endpoints")
	var got struct{ Endpoints []map[string]any }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	byName := map[string]map[string]any{}
	for _, e := range got.Endpoints {
		for _, other := range []string{"relays", "agrees", "hash", "url", "enabled", "events", "concurrency"} {
			delete(e, other)
		}
		byName[e["name"].(string)] = e
	}
	deliveries := func(kind string, n float64) map[string]any {
		d := map[string]any{"accepted": n, "pending": 0.0, "held": 0.0, "delivered": 0.0, "failed": 0.0, "discarded": 0.0}
		d[kind] = n
		return d
	}
	const when = "2001-09-09T01:46:40Z"
	want := map[string]map[string]any{
		"a": {"name": "a", "state": "active", "waiting": "breaker", "breaker": "open", "open_until": when, "held_until": when,
			"rate_limit": map[string]any{"per_second": 50.0, "tokens": 1.5}, "in_flight": 2.0, "attempts": map[string]any{"retry": 7.0}, "deliveries": deliveries("pending", 1)},
		"b":    {"name": "b", "state": "elsewhere", "in_flight": 0.0, "deliveries": deliveries("pending", 0)},
		"c":    {"name": "c", "state": "paused", "reason": "paused by an operator", "code": "operator", "since": when, "waiting": "paused", "in_flight": 0.0, "deliveries": deliveries("held", 2)},
		"gone": {"name": "gone", "state": "removed", "reason": "the receiver answered 410", "code": "gone", "since": when, "waiting": "disabled", "in_flight": 0.0, "deliveries": deliveries("held", 3)},
	}
	if diff := cmp.Diff(want, byName); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
}
