package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
	"relay/relay/admin"
)

// logged returns what each line of a log has at the keys, and empties it.
func logged(t *testing.T, b *bytes.Buffer, keys ...string) [][]any {
	t.Helper()
	var out [][]any
	for d := json.NewDecoder(b); ; {
		var line map[string]any
		if err := d.Decode(&line); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		var values []any
		for _, k := range keys {
			values = append(values, line[k])
		}
		out = append(out, values)
	}
}

func TestDisagreements(t *testing.T) {
	got := disagreements([]outbox.Relay{
		{Number: 1, Endpoints: map[string]string{"same": "x", "other": "a", "both": "a", "one": "a"}},
		{Number: 2, Endpoints: map[string]string{"same": "x", "other": "b", "both": "b"}},
		{Number: 3, Endpoints: map[string]string{"same": "x", "other": "b"}},
		{Number: 4}, // has not said what it does
	})
	want := map[string]string{
		"other": "a at relay 1; b at relay 2, 3",
		"both":  "a at relay 1; b at relay 2; not in the file of relay 3",
		"one":   "not in the file of relay 2, 3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("disagreements (-want +got):\n%s", diff)
	}
}

// A disagreement is told when it begins and when it becomes another one.
func TestDisagreementsAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	w := fleetWatch{log: zerolog.New(&log)}
	relay := func(n int64, hash string) outbox.Relay {
		r := outbox.Relay{Number: n, Endpoints: map[string]string{"steady": "s"}}
		if hash != "" {
			r.Endpoints["a"] = hash
		}
		return r
	}
	for _, step := range []struct {
		name   string
		relays []outbox.Relay
		lines  int
	}{
		{"alone", []outbox.Relay{relay(1, "x")}, 0},
		{"agree", []outbox.Relay{relay(1, "x"), relay(2, "x")}, 0},
		{"begin", []outbox.Relay{relay(1, "x"), relay(2, "y")}, 1},
		{"still", []outbox.Relay{relay(1, "x"), relay(2, "y")}, 0},
		{"a restart and one more", []outbox.Relay{relay(1, "x"), relay(3, "y"), relay(4, "x")}, 0},
		{"a third kind", []outbox.Relay{relay(1, "x"), relay(3, "y"), relay(4, "z")}, 1},
		{"one without it", []outbox.Relay{relay(1, "x"), relay(3, "y"), relay(4, "")}, 1},
		{"agree again", []outbox.Relay{relay(1, "x"), relay(3, "x")}, 0},
		{"begin again", []outbox.Relay{relay(1, "x"), relay(3, "y")}, 1},
	} {
		w.tell(fleetFrom(step.relays))
		lines := logged(t, &log, "level", "endpoint")
		if len(lines) != step.lines {
			t.Errorf("%s: %d lines, want %d", step.name, len(lines), step.lines)
		}
		for _, l := range lines {
			if diff := cmp.Diff([]any{"warn", "a"}, l); diff != "" {
				t.Errorf("%s: line (-want +got):\n%s", step.name, diff)
			}
		}
	}
}

// The fleet is looked at twice a minute, also after an outage, until the stop.
func TestFleetIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := fleetWatch{log: zerolog.New(&log)}
		ctx, stop := context.WithCancel(t.Context())
		start, looks := time.Now(), 0
		w.run(ctx, func(context.Context) (admin.Fleet, error) {
			looks++
			switch {
			case looks == 1:
				return admin.Fleet{}, outbox.ErrUnavailable
			case looks == 20:
				stop()
			}
			return fleetFrom([]outbox.Relay{
				{Number: 1, Endpoints: map[string]string{"a": "x"}},
				{Number: 2, Endpoints: map[string]string{"a": "y"}},
			}), nil
		})
		if each := time.Since(start) / time.Duration(looks); looks != 20 || each < fleetEvery*3/4 || each > fleetEvery*5/4 {
			t.Errorf("%d looks, one each %s", looks, each)
		}
		if lines := logged(t, &log, "endpoint"); len(lines) != 1 {
			t.Errorf("%d lines, want 1", len(lines))
		}
	})
}

// A new file for the whole fleet does not flood the log.
func TestManyDisagreementsAreCounted(t *testing.T) {
	var log bytes.Buffer
	w := fleetWatch{log: zerolog.New(&log)}
	one := outbox.Relay{Number: 1, Endpoints: map[string]string{}}
	two := outbox.Relay{Number: 2, Endpoints: map[string]string{}}
	for i := range 1000 {
		one.Endpoints[strconv.Itoa(i)], two.Endpoints[strconv.Itoa(i)] = "x", "y"
	}
	f := fleetFrom([]outbox.Relay{one, two})
	w.tell(f)
	lines := logged(t, &log, "endpoints")
	if len(lines) != fleetLines+1 || lines[fleetLines][0] != 990.0 {
		t.Errorf("%d lines, the last %v; want %d and 990 more", len(lines), lines[len(lines)-1], fleetLines+1)
	}
	if w.tell(f); log.Len() > 0 {
		t.Errorf("told again: %s", &log)
	}
}

// fleetFile is a Relay's file, with its own sockets in dir.
func fleetFile(dir, redis, blocks string) string {
	return fmt.Sprintf(`
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
		  unix = %q
		}
		outbox "redis" {
		  url       = %q
		  namespace = "fleet"
		}
		%s
	`, filepath.Join(dir, "relay.sock"), filepath.Join(dir, "admin.sock"), redis, blocks)
}

func fleetEndpoint(name, path string) string {
	return fmt.Sprintf("endpoint %q {\n url = \"https://example.com%s\"\n secrets = [%q]\n enabled = false\n}\n", name, path, secret)
}

// Two Relays with one outbox and different files: each shows both, calls itself ready
// and warns.
func TestFleetThatDisagrees(t *testing.T) {
	redis := redistest.Start(t).URL()
	dirs := []string{testkit.Dir(t), testkit.Dir(t)}
	apps := []*App{
		run(t, fleetFile(dirs[0], redis, fleetEndpoint("same", "/s")+fleetEndpoint("crm", "/v1")+fleetEndpoint("audit", "/a"))),
		run(t, fleetFile(dirs[1], redis, fleetEndpoint("same", "/s")+fleetEndpoint("crm", "/v2"))),
	}
	_, err := apps[0].store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
		Event:     outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")},
		Endpoints: []string{"crm", "audit", "forgotten"},
	}}})
	if err != nil {
		t.Fatal(err)
	}

	hash := func(a *App, name string) string { return a.live.Load().policy.Endpoint(name).Hash() }
	// Numbers are given in the order of joining.
	const first, second = 1, 2
	type readiness struct {
		Status        string
		Outbox        map[string]any
		Relays        []admin.Relay
		Disagreements map[string]string
	}
	want := readiness{
		Status: "ready", Outbox: map[string]any{"engine": "redis", "durability": "memory"},
		Disagreements: map[string]string{"audit": "not in the file of relay 2"},
	}
	texts := []string{hash(apps[0], "crm") + " at relay 1", hash(apps[1], "crm") + " at relay 2"}
	if texts[0] > texts[1] {
		texts[0], texts[1] = texts[1], texts[0]
	}
	want.Disagreements["crm"] = strings.Join(texts, "; ")

	for i, dir := range dirs {
		var got readiness
		testkit.Until(t, "both Relays", func() bool {
			got = readiness{}
			return ask(t, dir, "/readyz", &got) == http.StatusOK && len(got.Relays) == 2
		})
		for n, r := range got.Relays {
			if r.Number != int64(n+1) || r.Self != (n == i) || r.Host == "" || r.PID == 0 || r.Version != "test" || time.Since(r.Seen).Abs() > time.Minute {
				t.Errorf("Relay %d shows %+v", i+1, r)
			}
		}
		got.Relays = nil
		if ahead, is := got.Outbox["clock_ahead_ms"].(float64); !is || math.Abs(ahead) > 1000 { // one machine
			t.Errorf("the clock is %v ms ahead", got.Outbox["clock_ahead_ms"])
		}
		delete(got.Outbox, "clock_ahead_ms")
		if warnings, _ := got.Outbox["warnings"].([]any); len(warnings) != 1 || !strings.Contains(fmt.Sprint(warnings), "maxmemory is not set") {
			t.Errorf("warnings about the server: %v", got.Outbox["warnings"])
		}
		delete(got.Outbox, "warnings")
		delete(got.Outbox, "fill") // once its memory was looked at
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("readiness of Relay %d (-want +got):\n%s", i+1, diff)
		}
	}

	type seen struct {
		Name, State   string
		Pending, Held int64
		Relays        map[int64]string
		Agrees        *bool
	}
	both := func(name string) map[int64]string {
		return map[int64]string{first: hash(apps[0], name), second: hash(apps[1], name)}
	}
	audit := map[int64]string{first: hash(apps[0], "audit")}
	lists := [][]seen{{
		{"same", "disabled", 0, 0, both("same"), new(true)},
		{"crm", "disabled", 0, 1, both("crm"), new(false)},
		{"audit", "disabled", 0, 1, audit, new(false)},
		{"forgotten", "removed", 0, 1, nil, nil},
	}, {
		{"same", "disabled", 0, 0, both("same"), new(true)},
		{"crm", "disabled", 0, 1, both("crm"), new(false)},
		{"audit", "elsewhere", 1, 0, audit, new(false)},
		{"forgotten", "removed", 0, 1, nil, nil},
	}}
	for i, dir := range dirs {
		var list admin.EndpointList
		testkit.Until(t, "the fleet in the list", func() bool { // it waits for the fleet for a moment only
			list = admin.EndpointList{}
			if code := ask(t, dir, "/v1/endpoints", &list); code != http.StatusOK {
				t.Fatalf("endpoints of Relay %d: status %d", i+1, code)
			}
			return list.Endpoints[0].Relays != nil
		})
		var got []seen
		for _, e := range list.Endpoints {
			got = append(got, seen{e.Name, e.State, e.Deliveries.Pending, e.Deliveries.Held, e.Relays, e.Agrees})
		}
		if diff := cmp.Diff(lists[i], got); diff != "" {
			t.Errorf("endpoints of Relay %d (-want +got):\n%s", i+1, diff)
		}
	}

	// What waits for an endpoint of another Relay is not held.
	testkit.Until(t, "the fleet in the metrics", func() bool {
		_, body := askText(t, dirs[1], http.MethodGet, "/metrics")
		return strings.Contains(body, "relay_deliver_pending{endpoint=\"audit\"} 1\n")
	})

	var log bytes.Buffer
	w := fleetWatch{log: zerolog.New(&log)}
	f, err := apps[0].fleetOf()(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.tell(f)
	const text = "the Relays of this outbox have different settings for an endpoint, and each delivers by its own file: "
	told := [][]any{{"audit", text + want.Disagreements["audit"]}, {"crm", text + want.Disagreements["crm"]}}
	if diff := cmp.Diff(told, logged(t, &log, "endpoint", "message")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// A Redis that hangs makes Relay unready, and no request hang.
func TestFleetThatCannotBeAsked(t *testing.T) {
	redis := redistest.Start(t)
	dir := testkit.Dir(t)
	run(t, fleetFile(dir, redis.URL(), fleetEndpoint("a", "/")))
	redis.Pause()
	defer redis.Continue()
	var s struct{ Status, Reason string }
	if code := ask(t, dir, "/readyz", &s); code != http.StatusServiceUnavailable || s.Status != "not ready" {
		t.Errorf("ready: status %d, %+v", code, s)
	}
	var p struct{ Code string }
	if code := ask(t, dir, "/v1/endpoints", &p); code != http.StatusServiceUnavailable || p.Code != "outbox_unavailable" {
		t.Errorf("endpoints: status %d, %+v", code, p)
	}
	if code, body := askText(t, dir, http.MethodGet, "/metrics"); code != http.StatusOK || !strings.Contains(body, "relay_outbox_up 0\n") || !strings.Contains(body, "relay_deliver_in_flight{endpoint=\"a\"} 0\n") {
		t.Errorf("metrics: status %d\n%s", code, body)
	}
}

// A Relay starts while Redis is down. It accepts nothing until it knows the endpoints that were made at run time,
// so that none of them misses an event.
func TestStartsWithoutRedis(t *testing.T) {
	redis := redistest.Start(t)
	dir := testkit.Dir(t)
	file := fleetFile(dir, redis.URL(), fleetEndpoint("a", "/")+"secrets_key = [\""+strings.Repeat("k", 32)+"\"]\nruntime {}\n")
	first := open(t, file, time.Second)
	made, err := first.registry.Create(t.Context(), json.RawMessage(`{"url":"https://example.com/made"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	redis.Stop()
	run(t, file)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "relay.sock"))
		},
	}}
	send := func(id string) int {
		resp, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader(`{"id":"`+id+`","type":"a","data":1}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if code := send("evt_early"); code != http.StatusServiceUnavailable {
		t.Errorf("without Redis: status %d", code)
	}
	redis.Start()
	testkit.Until(t, "an event is accepted", func() bool { return send("evt_1") == http.StatusAccepted })
	var got struct {
		Deliveries []struct{ Endpoint string }
	}
	if code := ask(t, dir, "/v1/events/evt_1", &got); code != http.StatusOK {
		t.Fatalf("event: status %d", code)
	}
	names := map[string]bool{}
	for _, d := range got.Deliveries {
		names[d.Endpoint] = true
	}
	if !names["a"] || !names[made.Name] {
		t.Errorf("delivered to %v, want a and %s", names, made.Name)
	}
}
