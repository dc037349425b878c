package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/relay/admin"
	"relay/relay/deliver"
)

// What is paused is held and nothing of it is sent; after resume it is delivered.
func TestPauseHoldsAndResumeDelivers(t *testing.T) {
	got := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Webhook-Id") }))
	defer receiver.Close()
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", receiver.URL, local)))
	a := p.start(false)

	if code, body := askText(t, p.dir, "POST", "/v1/endpoints/a/pause"); code != http.StatusOK {
		t.Fatalf("pause: %d %s", code, body)
	}
	_, err := a.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
		Event: outbox.Event{ID: "evt_1", Type: "x", Data: []byte("1")}, Endpoints: []string{"a"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var e admin.Endpoint
	if code, body := askText(t, p.dir, "GET", "/v1/endpoints/a"); code != http.StatusOK || json.Unmarshal([]byte(body), &e) != nil || e.State != "paused" || e.Deliveries.Held != 1 {
		t.Fatalf("while paused: %d %s", code, body)
	}
	if pending, held, _ := a.waiting(t.Context()); pending != 0 || held != 1 {
		t.Errorf("%d pending and %d held", pending, held)
	}
	if _, body := askText(t, p.dir, "GET", "/metrics"); !strings.Contains(body, "relay_deliver_held{endpoint=\"a\"} 1\n") || !strings.Contains(body, "relay_deliver_waiting{endpoint=\"a\",cause=\"paused\"} 1\n") {
		t.Errorf("metrics of a paused endpoint:\n%s", body)
	}
	select {
	case id := <-got:
		t.Errorf("%s was sent while paused", id)
	default:
	}
	if code, body := askText(t, p.dir, "POST", "/v1/endpoints/a/resume"); code != http.StatusOK {
		t.Fatalf("resume: %d %s", code, body)
	}
	if id := <-got; id != "evt_1" {
		t.Errorf("delivered %s", id)
	}
}

// The metrics follow reloads and events, ask for the token, and know no secret.
func TestMetricsRoute(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com/canary?token=canary", "enabled = false", `headers = { "X-A" = "canary" }`)))
	a := p.start(false)
	say(t, p.dir, `{"type":"x.y","data":{"n":"canary"}}`)

	p.write(p.file, "endpoint {")
	if _, err := a.Reload(t.Context(), "test"); err == nil {
		t.Fatal("a bad file was taken over")
	}
	code, body := askText(t, p.dir, "GET", "/metrics")
	if code != http.StatusOK {
		t.Fatalf("answered %d %s", code, body)
	}
	for _, line := range []string{
		"relay_outbox_up 1\n", "relay_config_generation 1\n", "relay_config_reload_failed 1\n", `relay_config_info{hash="` + a.live.Load().hash + `"} 1` + "\n",
		`relay_ingest_events_total{result="accepted"} 1` + "\n", `relay_deliver_held{endpoint="a"} 1` + "\n", `version="test"} 1` + "\n",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no line %s", line)
		}
	}
	for _, hidden := range []string{"canary", "x.y", secret, "example.com"} {
		if strings.Contains(body, hidden) {
			t.Errorf("%s is in the metrics", hidden)
		}
	}
	if code, _ := askText(t, p.dir, "POST", "/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}

// An endpoint made at run time is in the sum, until a reload gives each its own series.
func TestMetricsOfMadeEndpoints(t *testing.T) {
	p := newPlace(t)
	text := p.text(endpointBlock("a", "https://a.example.com", "enabled = false"))
	p.write(p.file, text)
	a := p.start(false)
	_, err := a.registry.Create(t.Context(), []byte(`{"name":"b","url":"https://b.example.com","enabled":false,"sign":["none"]}`))
	testkit.Must(t, err)
	for _, c := range []struct{ block, line, other string }{
		{"", `{endpoint="(made)"}`, `endpoint="b"`},
		{"metrics {\n per_endpoint = \"all\"\n}\n", `{endpoint="b"}`, `endpoint="(made)"`},
		{"metrics {\n per_endpoint = \"file\"\n}\n", `{endpoint="(made)"}`, `endpoint="b"`},
	} {
		p.write(p.file, text+"\n"+c.block)
		_, err := a.Reload(t.Context(), "test")
		testkit.Must(t, err)
		code, body := askText(t, p.dir, "GET", "/metrics")
		if code != http.StatusOK || !strings.Contains(body, "relay_deliver_in_flight"+c.line+" 0\n") || strings.Contains(body, c.other) || !strings.Contains(body, `relay_deliver_in_flight{endpoint="a"} 0`) {
			t.Errorf("with %q: %d %s", c.block, code, body)
		}
	}
}

// say posts an event to the ingest socket in dir.
func say(t *testing.T, dir, event string) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, "relay.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(event), event)
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 202") {
		t.Fatalf("%v: %s", err, answer)
	}
}

// Relay's own events are delivered like any other, to those that ask for them.
func TestOwnEventsAreDelivered(t *testing.T) {
	got := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	defer receiver.Close()
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("alerts", receiver.URL, `events = ["relay.**"]`, local), endpointBlock("a", "https://a.example.com")))
	a := p.start(false)
	a.events.raise(deliver.OwnEvent{Type: deliver.EndpointPaused, Endpoint: "a", At: a.started, Data: deliver.EndpointChanged{Endpoint: "a", State: deliver.Paused}})
	var body struct {
		ID, Type string
		Data     deliver.EndpointChanged
	}
	if text := <-got; json.Unmarshal([]byte(text), &body) != nil || body.Type != "relay.endpoint.paused" || body.Data.Endpoint != "a" || body.Data.State != deliver.Paused {
		t.Errorf("delivered %s", text)
	}
	r, err := a.store.Lookup(t.Context(), body.ID)
	if err != nil || len(r.Deliveries) != 1 || r.Deliveries[0].Endpoint != "alerts" {
		t.Errorf("%+v, %v", r, err)
	}
}

// All routes are behind the token. Probes without one hear whether, and nothing else.
func TestOperatorNeedsTheToken(t *testing.T) {
	p := newPlace(t)
	text := strings.Replace(p.text(endpointBlock("a", "https://a.example.com")), `  http = ""`, "  http = \"127.0.0.1:0\"\n  token = \"0123456789abcdef0123\"", 1)
	p.write(p.file, text)
	a := p.start(false)
	addr := a.Addrs("admin")[1].String()
	for _, c := range []struct {
		method, path, token, host string
		code                      int
	}{
		{"GET", "/metrics", "", "", http.StatusUnauthorized},
		{"GET", "/metrics", "0123456789abcdef0123", "", http.StatusOK},
		{"GET", "/metrics", "0123456789abcdef0123", "rebound.example.com", http.StatusMisdirectedRequest},
		{"GET", "/healthz", "", "", http.StatusOK},
		{"GET", "/healthz", "wrong", "", http.StatusOK}, // a probe may have lost its token
		{"GET", "/readyz", "wrong", "", http.StatusOK},
		{"POST", "/healthz", "", "", http.StatusMethodNotAllowed},
		{"GET", "/readyz", "", "", http.StatusOK},
		{"GET", "/readyz", "", "rebound.example.com", http.StatusMisdirectedRequest},
		{"GET", "/readyz/", "", "", http.StatusUnauthorized},
		{"GET", "/readyz", "0123456789abcdef0123", "", http.StatusOK},
		{"GET", "/v1/endpoints", "", "", http.StatusUnauthorized},
		{"POST", "/v1/endpoints/a/pause", "", "", http.StatusUnauthorized},
		{"POST", "/v1/endpoints/a/pause", "wrong", "", http.StatusUnauthorized},
		{"POST", "/v1/endpoints/a/pause", "0123456789abcdef0123", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+addr+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if probe := "{\"status\":\"ready\"}\n"; c.path == "/readyz" && c.code == http.StatusOK && (string(body) == probe) != (c.token == "" || c.token == "wrong") {
			t.Errorf("%s with token %q: %s", c.path, c.token, body)
		}
		if resp.StatusCode != c.code {
			t.Errorf("%s %s with token %q and host %q: %d, want %d", c.method, c.path, c.token, c.host, resp.StatusCode, c.code)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if strings.Contains(p.log.String(), "0123456789abcdef0123") {
		t.Error("the token is in the log")
	}
}
