package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/ingest/problem"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
	"relay/relay/admin"
)

func TestReload(t *testing.T) {
	p := newPlace(t)
	a1, b1 := endpointBlock("a", "https://a.example.com/1"), endpointBlock("b", "https://b.example.com")
	p.write(p.file, p.text(a1, b1))
	a := p.start(false)
	hash := a.live.Load().hash

	p.write(p.file, p.text(endpointBlock("c", "https://c.example.com"), endpointBlock("a", "https://a.example.com/2"), "retention {\n delivered = \"5m\"\n}"))
	text, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	p.write(p.file, strings.Replace(string(text), "admin {", "admin {\n page {\n title = \"Acme\"\n}\n", 1))
	done, err := a.Reload(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	want := admin.Reloaded{Generation: 2, Hash: done.Hash, Changed: []string{"a"}, Added: []string{"c"}, Removed: []string{"b"}, Lines: []string{
		"endpoint c: added: it gets events that are accepted from then on (all), at https://c.example.com",
		"endpoint a: changed", "  url: https://a.example.com/1 → https://a.example.com/2; pending deliveries go to the new one, too",
		"endpoint b: removed: it gets no more events; its pending deliveries will be held",
		"process: changed", "  admin.page.title: none → Acme", "  retention.delivered: 3d → 5m",
	}}
	if diff := cmp.Diff(want, done); diff != "" || done.Hash == hash || len(done.Hash) != 12 {
		t.Errorf("hash %s, then %s; reload (-want +got):\n%s", hash, done.Hash, diff)
	}
	if now := a.live.Load(); now.config.Retention.Delivered != 5*time.Minute || now.policy.Endpoint("b") != nil {
		t.Errorf("what is live is %+v", now)
	} else if want := (config.Page{Enabled: true, Title: "Acme"}); now.config.Admin.Page != want {
		t.Errorf("the page is %+v", now.config.Admin.Page)
	}

	// The same once more changes nothing. It names the last change, and who made it.
	loaded := a.live.Load().at
	last := &admin.Change{Reloaded: want, By: "test", At: loaded.UTC()}
	for range 2 {
		want = admin.Reloaded{Generation: 2, Hash: done.Hash, Changed: []string{}, Added: []string{}, Removed: []string{}, Lines: []string{}, LastChange: last}
		if done, err = a.Reload(t.Context(), "again"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, done); diff != "" {
			t.Errorf("reload of the same (-want +got):\n%s", diff)
		}
	}
	if now := a.live.Load(); !now.at.Equal(loaded) || a.running().LastChange.By != "test" {
		t.Errorf("after reloads of the same: loaded at %v, not %v", now.at, loaded)
	}

	// What an endpoint does not show is a change, too.
	p.write(p.file, strings.Replace(string(text), "delivered = \"5m\"", "delivered = \"6m\"", 1))
	done, err = a.Reload(t.Context(), "test")
	if lines := []string{"process: changed", "  retention.delivered: 5m → 6m", "  admin.page.title: Acme → none"}; err != nil || done.Generation != 3 || done.LastChange != nil || !cmp.Equal(lines, done.Lines) {
		t.Errorf("a change of the process: %+v, %v", done, err)
	}
	if last := a.running().LastChange; last.Generation != 3 || len(last.Lines) != 3 {
		t.Errorf("the last change is %+v", last)
	}
	if !strings.Contains(p.log.String(), `"message":"reloaded: changed a; added c; removed b"`) {
		t.Errorf("the log does not say what changed: %s", p.log.String())
	}
}

// All or nothing: whatever is wrong, what ran goes on whole.
func TestReloadRefused(t *testing.T) {
	good := endpointBlock("a", "https://a.example.com")
	p := newPlace(t)
	p.write(p.file, p.text(good))
	a := p.start(false)
	before := a.live.Load()
	for _, c := range []struct {
		name, text string
		code       problem.Code
		problem    string
	}{
		{"syntax", p.text(good, "endpoint \"b\" {"), problem.InvalidConfig, p.file + ":"},
		{"empty", "", problem.InvalidConfig, p.file + ": The configuration is empty"},
		{"unknown attribute", p.text(good, "retention {\n  forever = true\n}"), problem.InvalidConfig, p.file + ":18,3-10: "},
		{"policy", p.text(endpointBlock("a", "ftp://a.example.com")), problem.InvalidConfig, p.file + ":"},
		{"ingest", strings.Replace(p.text(good), "ingest {", "ingest {\n max_body = \"1MiB\"", 1), problem.NeedsRestart, "the ingest block"},
		{"outbox", strings.Replace(p.text(good), "\"sqlite\" {", "\"sqlite\" {\n durability = \"relaxed\"", 1), problem.NeedsRestart, "the outbox block"},
		{"admin", strings.Replace(p.text(good), "admin {", "admin {\n token = \"canary\"", 1), problem.NeedsRestart, "the admin block"},
		{"log, and an endpoint that is good", p.text(good, endpointBlock("b", "https://b.example.com"), "log {\n level = \"debug\"\n}"), problem.NeedsRestart, "the log block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.write(p.file, c.text)
			_, err := a.Reload(t.Context(), "test")
			e, ok := errors.AsType[*admin.ReloadError](err)
			if !ok || e.Code != c.code || !strings.HasPrefix(e.Problems[0], c.problem) {
				t.Fatalf("reload: %v, want %s: %s", err, c.code, c.problem)
			}
			if c.code == problem.NeedsRestart && !strings.Contains(e.Error(), "restart to change it") {
				t.Errorf("the error does not say what to do: %s", e)
			}
			if a.live.Load() != before {
				t.Error("something was taken over")
			}
			var s struct {
				Status string
				Config admin.Config
			}
			if code := ask(t, p.dir, "/readyz", &s); code != http.StatusOK || s.Config.Error != e.Error() || s.Config.Generation != 1 || strings.Contains(s.Config.Error, "\n") {
				t.Errorf("readiness is %d %+v", code, s)
			}
		})
	}
	if strings.Contains(p.log.String(), "canary") {
		t.Error("a secret got into the log")
	}

	p.write(p.file, p.text(good))
	if _, err := a.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	var s struct{ Config map[string]any }
	ask(t, p.dir, "/readyz", &s)
	delete(s.Config, "loaded_at")
	if diff := cmp.Diff(map[string]any{"generation": 1.0, "hash": before.hash}, s.Config); diff != "" {
		t.Errorf("readiness after a good reload (-want +got):\n%s", diff)
	}
}

// What was accepted goes where the file says when it is sent; an endpoint that is gone
// keeps its backlog, visible as held (fault F38), until it is back.
func TestReloadUnderWay(t *testing.T) {
	p := newPlace(t)
	first, second := newReceiver(t), newReceiver(t)
	p.write(p.file, p.text(endpointBlock("a", first.URL, local)))
	a := p.start(false)
	accept := func(id string) {
		t.Helper()
		event := outbox.Event{ID: id, Type: "a.b", Data: []byte("{}")}
		_, err := a.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: event, Endpoints: []string{"a"}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	reload := func(blocks ...string) {
		t.Helper()
		p.write(p.file, p.text(blocks...))
		if _, err := a.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
	}
	accept("evt_1")
	first.await(t, 1)
	reload(endpointBlock("a", second.URL, local))
	accept("evt_2")
	second.await(t, 1)

	settled := func() bool {
		counts, err := a.store.Counts(t.Context())
		return err == nil && counts["a"].Delivered == 2
	}
	testkit.Until(t, "both deliveries", settled)
	reload(endpointBlock("b", "https://b.example.com"))
	accept("evt_3")
	var e admin.Endpoint
	if ask(t, p.dir, "/v1/endpoints/a", &e); e.State != "removed" || e.Deliveries.Held != 1 {
		t.Errorf("the removed endpoint is %+v", e)
	}
	reload(endpointBlock("a", second.URL, local))
	second.await(t, 1)
}

// Reloads from all sides at once are made one after the other.
func TestReloadsAtTheSameTime(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com")))
	var busy, read atomic.Int64
	p.loading = func() func() {
		if busy.Add(1) > 1 {
			t.Error("the files are read twice at a time")
		}
		read.Add(1)
		return func() { busy.Add(-1) }
	}
	a := p.start(false)
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 25 {
				if _, err := a.Reload(t.Context(), "test"); err != nil {
					t.Error(err)
				}
				a.live.Load().policy.Match("a.b")
			}
		})
	}
	asking.Wait()
	if g := a.live.Load().generation; g != 1 || read.Load() != 201 { // once at the start
		t.Errorf("generation %d, and %d times read, after a start and 200 reloads of the same", g, read.Load())
	}
}

// A reload that comes while Relay stops opens nothing that nobody would close.
func TestReloadDuringAStop(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com")))
	f, decoded, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), Options{Config: f.Config, Policy: decoded, Version: "test", Log: zerolog.New(&p.log), Load: p.load, File: f})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com"), `front "a.test" {
		upstream = "http://127.0.0.1:1"
		https    = []
		http     = ["127.0.0.1:0"]
	}`))
	_, err = a.Reload(t.Context(), "test")
	if err == nil || !strings.Contains(err.Error(), "stops") {
		t.Errorf("a reload after the stop: %v", err)
	}
	if at := a.front.Addr("http", "127.0.0.1:0"); at != nil {
		t.Errorf("it listens on %s", at)
	}
}

func TestReloadWithoutFiles(t *testing.T) {
	dir := testkit.Dir(t)
	p := &place{t: t, dir: dir}
	a := run(t, p.text(endpointBlock("a", "https://a.example.com")))
	if _, err := a.Reload(t.Context(), "test"); err == nil {
		t.Error("a Relay that was not started from files was reloaded")
	}
	resp := askRaw(t, dir, http.MethodPost, "/v1/reload")
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the route answers %s", resp.Status)
	}
}

// The other Relays of the outbox see the new settings at once.
func TestReloadTellsTheFleet(t *testing.T) {
	redis := redistest.Start(t).URL()
	p := newPlace(t)
	text := func(path string) string { return fleetFile(p.dir, redis, fleetEndpoint("crm", path)) }
	p.write(p.file, text("/v1"))
	a := p.start(false)
	other := run(t, fleetFile(testkit.Dir(t), redis, fleetEndpoint("crm", "/v2")))
	disagree := func() int {
		f, err := other.fleetOf()(t.Context())
		if err != nil || len(f.Relays) < 2 {
			return -1
		}
		return len(f.Disagreements)
	}
	testkit.Until(t, "a disagreement", func() bool { return disagree() == 1 })
	p.write(p.file, text("/v2"))
	if _, err := a.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if n := disagree(); n != 0 {
		t.Errorf("%d disagreements after the reload", n)
	}
}

func TestReloadRoute(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com")))
	p.start(false)
	for _, c := range []struct {
		name, text string
		status     int
		want       string
	}{
		{"good", p.text(endpointBlock("b", "https://b.example.com")), 200, `"generation":2,"hash":"`},
		{"names", p.text(endpointBlock("b", "https://b.example.com/2")), 200, `"changed":["b"],"added":[],"removed":[]`},
		{"bad", "endpoint {", 422, `"code":"invalid_config"`},
		{"restart", p.text("log {\n level = \"warn\"\n}"), 409, `"code":"needs_restart"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.write(p.file, c.text)
			resp := askRaw(t, p.dir, http.MethodPost, "/v1/reload")
			defer resp.Body.Close()
			var body bytes.Buffer
			if _, err := body.ReadFrom(resp.Body); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || !strings.Contains(body.String(), c.want) {
				t.Errorf("answered %d %s", resp.StatusCode, &body)
			}
			var problem struct{ Diagnostics []string }
			if err := json.Unmarshal(body.Bytes(), &problem); err != nil || (c.status != 200) != (len(problem.Diagnostics) > 0) {
				t.Errorf("diagnostics are %v (%v)", problem.Diagnostics, err)
			}
		})
	}
}

func TestSummaryIsBounded(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint("e", i))
	}
	got := summary(admin.Reloaded{Changed: []string{"x"}, Removed: many})
	if got != "changed x; removed e0, e1, e2, e3, e4, e5, e6, e7, e8, e9 and 990 more" {
		t.Errorf("summary is %q", got)
	}
}

// A reload swaps what is promised of event types, too; a bad schema changes nothing.
func TestReloadOfEventTypes(t *testing.T) {
	p := newPlace(t)
	good := endpointBlock("a", "https://a.example.com", "enabled = false")
	schema := func(kind string) string {
		return fmt.Sprintf("event_type \"invoice.paid\" {\n  schema = jsonencode({ type = %q })\n}", kind)
	}
	p.write(p.file, p.text(good, schema("object")))
	a := p.start(false)
	hash := a.live.Load().hash
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.dir, "relay.sock"))
	}}}
	defer client.CloseIdleConnections()
	send := func(want int) {
		t.Helper()
		resp, err := client.Post("http://relay/v1/events/invoice.paid", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("got %d, %v, want %d", resp.StatusCode, err, want)
		}
	}
	send(202)
	p.write(p.file, p.text(good, schema("string")))
	if done, err := a.Reload(t.Context(), "test"); err != nil || done.Hash == hash || len(done.Changed) > 0 {
		t.Errorf("reload: %+v, %v", done, err)
	}
	send(422)
	p.write(p.file, p.text(good, schema("strng")))
	if _, err := a.Reload(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "no JSON Schema") {
		t.Errorf("a bad schema: %v", err)
	}
	send(422)
	p.write(p.file, p.text(good))
	if _, err := a.Reload(t.Context(), "test"); err != nil {
		t.Error(err)
	}
	send(202)
}
