package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/ingest/problem"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// box is an outbox of which only the answers are there.
type box struct {
	health, err error
	counts      map[string]outbox.Counts
	fill        float64 // 0: it does not say
}

func (b box) Health(context.Context) error { return b.health }
func (b box) Durability() string           { return "fsync" }
func (b box) Fill(context.Context) (float64, error) {
	if b.fill == 0 {
		return 0, outbox.ErrUnavailable
	}
	return b.fill, nil
}
func (b box) Counts(context.Context) (map[string]outbox.Counts, error) {
	return b.counts, b.err
}

// warned is an outbox that sees something at its server.
type warned struct{ box }

func (warned) Warnings() []outbox.Warning {
	return []outbox.Warning{{What: "appendonly is no", Next: "set appendonly yes"}, {What: "a key is spoilt", Danger: true}}
}

// What is to be mended at the server of the outbox makes no Relay unready.
func TestReadinessShowsWarnings(t *testing.T) {
	w := get(Options{Outbox: warned{}, Engine: "redis"}, "GET", "/readyz")
	const want = `"warnings":[{"what":"appendonly is no","next":"set appendonly yes"},{"what":"a key is spoilt","danger":true}]}`
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
		t.Errorf("got %d %s, want %s", w.Code, w.Body, want)
	}
}

// running is a policy that runs.
func running(endpoints ...*policy.Endpoint) func() *policy.Policy {
	p := policy.New(endpoints)
	return func() *policy.Policy { return p }
}

// gates is a deliverer of which only the answers are there.
type gates struct {
	status []deliver.Status
	err    error
	asked  []string

	mu   sync.Mutex
	hear []func(*outbox.Item)
}

func (g *gates) Status() []deliver.Status { return g.status }

func (g *gates) Listen(hear func(*outbox.Item)) (stop func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hear = append(g.hear, hear)
	n := len(g.hear) - 1
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.hear[n] = nil
	}
}

func (g *gates) Tell(i *outbox.Item) { g.tell(i) }

// tell tells all who listen of an attempt, and returns how many those are.
func (g *gates) tell(i *outbox.Item) (listening int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, hear := range g.hear {
		if hear != nil {
			listening++
			hear(i)
		}
	}
	return listening
}

func (g *gates) StatusOf(endpoint string) (deliver.Status, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.status {
		if s.Endpoint == endpoint {
			return s, true
		}
	}
	return deliver.Status{}, false
}

func (g *gates) change(what, endpoint, by string, to deliver.State) (deliver.Status, error) {
	g.asked = append(g.asked, what+" "+endpoint+" by "+by)
	if g.err != nil {
		return deliver.Status{}, g.err
	}
	for i := range g.status {
		if s := &g.status[i]; s.Endpoint == endpoint {
			s.State, s.Code, s.Reason, s.Since = to, deliver.ByOperator, what+" by "+by, time.Unix(1e9, 0).UTC()
			return *s, nil
		}
	}
	return deliver.Status{}, deliver.ErrNoEndpoint
}

func (g *gates) Pause(_ context.Context, endpoint, by string) (deliver.Status, error) {
	return g.change("pause", endpoint, by, deliver.Paused)
}

func (g *gates) Resume(_ context.Context, endpoint, by string) (deliver.Status, error) {
	return g.change("resume", endpoint, by, deliver.Active)
}

func (g *gates) Enable(_ context.Context, endpoint, by string) (deliver.Status, error) {
	return g.change("enable", endpoint, by, deliver.Active)
}

func (g *gates) EnableAgain(_ context.Context, endpoint, by string) (deliver.Status, error) {
	s, err := g.change("enable again", endpoint, by, deliver.Active)
	s.Ended = []string{deliver.WaitDisabled}
	return s, err
}

func (g *gates) Disable(_ context.Context, endpoint, by string) (deliver.Status, error) {
	return g.change("disable", endpoint, by, deliver.Disabled)
}

// gatesOf are endpoints as the file says, and nothing else.
func gatesOf(p *policy.Policy) *gates {
	g := &gates{}
	for _, e := range p.Endpoints {
		s := deliver.Status{Endpoint: e.Name, State: deliver.Active}
		if !e.Enabled {
			s.State, s.Waiting = deliver.Disabled, deliver.WaitDisabled
		}
		g.status = append(g.status, s)
	}
	return g
}

func get(o Options, method, path string) *httptest.ResponseRecorder {
	if o.Policy == nil {
		o.Policy = running()
	}
	if o.Deliverer == nil {
		o.Deliverer = gatesOf(o.Policy())
	}
	w := httptest.NewRecorder()
	New(o).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestHealth(t *testing.T) {
	stopping := errors.New("stopping")
	for _, c := range []struct {
		name, method, path string
		outbox             error
		ready              func() error
		code               int
		body               string
	}{
		{"live", "GET", "/healthz", nil, nil, 200, `"version":"v1"`},
		{"live while the outbox is down", "GET", "/healthz", outbox.ErrUnavailable, nil, 200, `"ok"`},
		{"ready", "GET", "/readyz", nil, nil, 200, `"ready"`},
		{"where events are kept", "GET", "/readyz?verbose", nil, nil, 200, `"outbox":{"engine":"sqlite","durability":"fsync"}`},
		{"outbox full", "GET", "/readyz", outbox.ErrFull, nil, 503, "outbox is full"},
		{"stopping", "GET", "/readyz", nil, func() error { return stopping }, 503, "stopping"},
		{"wrong method", "POST", "/readyz", nil, nil, 405, ""},
		{"wrong method for an endpoint", "DELETE", "/v1/endpoints/a", nil, nil, 405, ""},
		{"unknown path", "GET", "/v1/events", nil, nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(Options{Outbox: box{health: c.outbox}, Engine: "sqlite", Version: "v1", Ready: c.ready}, c.method, c.path)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("got %d %q, want %d with %q", w.Code, w.Body, c.code, c.body)
			}
			if c.code == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

// twoRelays disagree about b; only the second has c.
func twoRelays(context.Context) (Fleet, error) {
	return Fleet{
		Relays: []Relay{
			{Number: 1, Host: "one", PID: 11, Version: "v1", Seen: time.Unix(1e9, 0).UTC(), Self: true, Endpoints: map[string]string{"a": "aa", "b": "bb"}},
			{Number: 2, Host: "two", PID: 22, Version: "v2", Seen: time.Unix(1e9, 0).UTC(), Endpoints: map[string]string{"a": "aa", "b": "b2", "c": "cc"}},
		},
		Disagreements: map[string]string{"b": "bb at relay 1; b2 at relay 2", "c": "not in the file of relay 1"},
	}, nil
}

// The fleet is an addition: what is wrong with it, or in it, changes no readiness.
func TestReadinessShowsTheFleet(t *testing.T) {
	const relays = `"relays":[{"number":1,"host":"one","pid":11,"version":"v1","seen":"2001-09-09T01:46:40Z","self":true},` +
		`{"number":2,"host":"two","pid":22,"version":"v2","seen":"2001-09-09T01:46:40Z","self":false}],` +
		`"disagreements":{"b":"bb at relay 1; b2 at relay 2","c":"not in the file of relay 1"}`
	const where = `"outbox":{"engine":"redis","durability":"fsync"}`
	broken := func(context.Context) (Fleet, error) { return Fleet{}, outbox.ErrUnavailable }
	mustNotBeAsked := func(context.Context) (Fleet, error) { panic("asked") }
	for _, c := range []struct {
		name   string
		outbox error
		fleet  func(context.Context) (Fleet, error)
		code   int
		body   string
	}{
		{"disagreements", nil, twoRelays, 200, `{"status":"ready",` + where + "," + relays + "}\n"},
		{"full", outbox.ErrFull, twoRelays, 503, `{"status":"not ready","reason":"outbox is full",` + where + "," + relays + "}\n"},
		{"unknown", nil, broken, 200, `{"status":"ready",` + where + "}\n"},
		{"outbox down", outbox.ErrUnavailable, mustNotBeAsked, 503, `{"status":"not ready","reason":"outbox is unavailable",` + where + "}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(Options{Outbox: box{health: c.outbox}, Engine: "redis", Fleet: c.fleet}, "GET", "/readyz")
			if diff := cmp.Diff(c.body, w.Body.String()); w.Code != c.code || diff != "" {
				t.Errorf("code %d, want %d; body (-want +got):\n%s", w.Code, c.code, diff)
			}
		})
	}
}

func TestReadinessDoesNotWaitForTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) (Fleet, error) {
			<-ctx.Done()
			return Fleet{}, ctx.Err()
		}
		start := time.Now()
		w := get(Options{Outbox: box{}, Engine: "redis", Fleet: hangs}, "GET", "/readyz")
		if took := time.Since(start); w.Code != http.StatusOK || took != fleetTimeout || strings.Contains(w.Body.String(), "relays") {
			t.Errorf("answered %d %s after %s", w.Code, w.Body, took)
		}
	})
}

func endpoint(t *testing.T, name, link string, enabled bool) *policy.Endpoint {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	return &policy.Endpoint{Name: name, URL: u, Enabled: enabled, Concurrency: 16}
}

func TestEndpoints(t *testing.T) {
	b := endpoint(t, "b", "https://user:canary@b.example.com/hooks?token=canary", true)
	a := endpoint(t, "a", "https://a.example.com/?", false)
	counts := map[string]outbox.Counts{
		"a": {Accepted: 9, Pending: 4, Delivered: 3, Failed: 2},
		"b": {Accepted: 10, Pending: 1, Delivered: 2, Failed: 3, Discarded: 4, Oldest: time.Unix(1e9, 0)},
		"c": {Accepted: 1, Pending: 1},
		"z": {Accepted: 5, Pending: 5},
	}
	shownB := Endpoint{Name: "b", URL: "https://b.example.com/hooks", State: "active", Enabled: true, Events: "all", Concurrency: 16, Hash: b.Hash(),
		Deliveries: Deliveries{Accepted: 10, Pending: 1, Delivered: 2, Failed: 3, Discarded: 4}}
	shownA := Endpoint{Name: "a", URL: "https://a.example.com/", State: "disabled", Waiting: "disabled", Events: "all", Concurrency: 16, Hash: a.Hash(),
		Deliveries: Deliveries{Accepted: 9, Held: 4, Delivered: 3, Failed: 2}}
	removedC := Endpoint{Name: "c", State: "removed", Deliveries: Deliveries{Accepted: 1, Held: 1}}
	removedZ := Endpoint{Name: "z", State: "removed", Deliveries: Deliveries{Accepted: 5, Held: 5}}

	fleetB, fleetA := shownB, shownA
	fleetB.Relays, fleetB.Agrees = map[int64]string{1: "bb", 2: "b2"}, new(false)
	fleetA.Relays, fleetA.Agrees = map[int64]string{1: "aa", 2: "aa"}, new(true)
	elsewhereC := Endpoint{Name: "c", State: "elsewhere", Deliveries: Deliveries{Accepted: 1, Pending: 1}, Relays: map[int64]string{2: "cc"}, Agrees: new(false)}

	o := Options{Outbox: box{counts: counts}, Policy: running(b, a)}
	shared := o
	shared.Fleet = twoRelays
	blind := o
	blind.Fleet = func(context.Context) (Fleet, error) { return Fleet{}, context.DeadlineExceeded }
	for _, c := range []struct {
		name string
		o    Options
		path string
		want []Endpoint
	}{
		{"all", o, "/v1/endpoints?limit=1000", []Endpoint{shownB, shownA, removedC, removedZ}},
		{"with a fleet", shared, "/v1/endpoints", []Endpoint{fleetB, fleetA, elsewhereC, removedZ}},
		{"with a fleet that is unknown", blind, "/v1/endpoints", []Endpoint{shownB, shownA, removedC, removedZ}},
		{"none", Options{Outbox: box{}, Policy: running()}, "/v1/endpoints", []Endpoint{}},
		{"one", o, "/v1/endpoints/a?x=y", []Endpoint{shownA}},
		{"one with a fleet", shared, "/v1/endpoints/b", []Endpoint{fleetB}},
		{"a removed one", o, "/v1/endpoints/z", []Endpoint{removedZ}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(c.o, "GET", c.path)
			var list EndpointList
			into := any(&list)
			if !strings.HasPrefix(c.path, "/v1/endpoints?") && c.path != "/v1/endpoints" {
				list.Endpoints = make([]Endpoint, 1)
				into = &list.Endpoints[0]
			}
			if err := json.Unmarshal(w.Body.Bytes(), into); err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("answered %d %s (%v)", w.Code, w.Body, err)
			}
			for i := range list.Endpoints {
				d := &list.Endpoints[i].Deliveries
				if has := d.OldestMS != nil; has != (list.Endpoints[i].Name == "b") || has && *d.OldestMS < 1 {
					t.Errorf("%s has the age %v", list.Endpoints[i].Name, d.OldestMS)
				}
				d.OldestMS = nil
			}
			if diff := cmp.Diff(c.want, list.Endpoints); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
			if strings.Contains(w.Body.String(), "canary") {
				t.Errorf("a secret got out: %s", w.Body)
			}
		})
	}
}

func TestEndpointsRefused(t *testing.T) {
	for _, c := range []struct {
		name, path string
		err        error
		code       int
		problem    string
	}{
		{"unknown", "/v1/endpoints/nobody", nil, 404, "endpoint_not_found"},
		{"unknown, with a slash", "/v1/endpoints/no%2Fbody", nil, 404, "endpoint_not_found"},
		{"outbox down", "/v1/endpoints", outbox.ErrUnavailable, 503, "outbox_unavailable"},
		{"outbox slow", "/v1/endpoints/a", context.DeadlineExceeded, 503, "outbox_unavailable"},
		{"stopping", "/v1/endpoints/a", outbox.ErrClosed, 503, "outbox_unavailable"},
		{"outbox corrupt", "/v1/endpoints", outbox.ErrCorrupt, 500, "internal_error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(Options{Outbox: box{err: c.err}}, "GET", c.path)
			var p problem.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			if w.Code != c.code || p.Status != c.code || string(p.Code) != c.problem || p.Type != "urn:relay:problem:"+c.problem || p.Title == "" || p.Detail == "" {
				t.Errorf("answered %d %+v, want %d %s", w.Code, p, c.code, c.problem)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
			if (c.code == 503) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

func TestReload(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	w := get(Options{Outbox: box{}, Config: func() Config {
		return Config{Generation: 3, Hash: "0123456789ab", LoadedAt: at, Error: "relay.hcl:1,1-2: bad"}
	}}, "GET", "/readyz")
	const config = `"config":{"generation":3,"hash":"0123456789ab","loaded_at":"2001-09-09T01:46:40Z","error":"relay.hcl:1,1-2: bad"}`
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), config) {
		t.Errorf("readiness with a bad reload: %d %s", w.Code, w.Body)
	}
	for _, c := range []struct {
		name string
		err  error
		code int
		body string
	}{
		{"done", nil, 200, `{"generation":2,"hash":"h","changed":["a"],"added":[],"removed":[],"lines":["endpoint a: changed"]}`},
		{"bad", &ReloadError{problem.InvalidConfig, []string{"x:1,1-2: y", "x:2,1-2: z"}}, 422,
			`"status":422,"code":"invalid_config","detail":"x:1,1-2: y (and 1 more)","diagnostics":["x:1,1-2: y","x:2,1-2: z"]}`},
		{"restart", &ReloadError{problem.NeedsRestart, []string{"the log block"}}, 409, `"status":409,"code":"needs_restart","detail":"the log block"`},
		{"other", outbox.ErrClosed, 503, `"code":"outbox_unavailable"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			reload := func(context.Context) (Reloaded, error) {
				return Reloaded{Generation: 2, Hash: "h", Changed: []string{"a"}, Added: []string{}, Removed: []string{}, Lines: []string{"endpoint a: changed"}}, c.err
			}
			w := get(Options{Outbox: box{}, Reload: reload}, "POST", "/v1/reload")
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
		})
	}
	if w := get(Options{Outbox: box{}}, "POST", "/v1/reload"); w.Code != http.StatusNotFound {
		t.Errorf("without files: %d", w.Code)
	}
	if w := get(Options{Outbox: box{}, Reload: func(context.Context) (Reloaded, error) { panic("asked") }}, "GET", "/v1/reload"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}
