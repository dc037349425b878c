package front

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy/sign"
)

func TestWellKnown(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the app's") }))
	c.Addresses = []string{"203.0.113.7"}
	off := s.frontTo("")
	off.Upstream, off.Host, off.WellKnown, off.TLS = c.Upstream, "off.example.com", nil, s.certificate("off.example.com")
	s.open(c, off)
	get := func(host, path string) (*http.Response, string) {
		return s.do(request(t, "GET", "https://"+host+path, ""))
	}

	if _, body := get(host, keysPath); body != "the app's" {
		t.Errorf("without keys: %s", body)
	}
	s.docs.Keys.Keys = []sign.JWK{{KeyType: "OKP", KeyID: "new"}, {KeyType: "OKP", KeyID: "old"}}
	s.docs.Types = []TypeShown{{Type: "order.created", Description: "An order", Schema: json.RawMessage(`{"type":"object"}`)}}
	s.docs.Signs = []string{"standard"}
	res, body := get(host, keysPath)
	var keys sign.JWKS
	if err := json.Unmarshal([]byte(body), &keys); err != nil || len(keys.Keys) != 2 || res.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%v: %s %s", err, res.Header, body)
	}
	res, body = get(host, webhooksPath)
	var page map[string]any
	testkit.Must(t, json.Unmarshal([]byte(body), &page))
	if fmt.Sprint(page["schemes"], page["addresses"], page["jwks_uri"]) != "[standard] [203.0.113.7]/.well-known/jwks.json" || !strings.Contains(body, "order.created") || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("got %s", body)
	}
	if res, _ := s.do(request(t, "POST", "https://"+host+webhooksPath, "x")); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", res.StatusCode)
	}
	for _, path := range []string{keysPath, webhooksPath} {
		if _, body := get("off.example.com", path); body != "the app's" {
			t.Errorf("off: %s", body)
		}
	}
}

// Ingest and admin are served only where the front says so, and with their token.
func TestServe(t *testing.T) {
	s := newStage(t)
	s.options.Admin = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "admin ", r.URL.Path) })
	plain := s.frontTo(app(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the app's") }))
	both, mixed := plain, plain
	both.Host, both.Upstream, both.Serve, both.Token, both.TLS = "relay.example.com", config.Upstream{}, []string{"admin", "ingest"}, config.NewSecret("t0ken"), s.certificate("relay.example.com")
	mixed.Host, mixed.Serve, mixed.Token, mixed.TLS = "mixed.example.com", []string{"ingest"}, config.NewSecret("t0ken"), s.certificate("mixed.example.com")
	s.open(plain, both, mixed)
	const event = `{"type":"a.b","data":1}`
	for _, tt := range []struct {
		method, url, token string
		status             int
		body               string
	}{
		{"POST", "https://relay.example.com/v1/events", "t0ken", 202, "deliveries"},
		{"POST", "https://relay.example.com/v1/events/a.b", "t0ken", 202, "deliveries"},
		{"POST", "https://relay.example.com/v1/events", "wrong", 401, "unauthorized"},
		{"POST", "https://relay.example.com/v1/events", "", 401, "unauthorized"},
		{"GET", "https://relay.example.com/v1/events/evt_1", "", 200, "admin /v1/events/evt_1"},
		{"GET", "https://relay.example.com/", "", 200, "admin /"},
		{"POST", "https://mixed.example.com/v1/events", "t0ken", 202, "deliveries"},
		{"POST", "https://mixed.example.com/v1/orders", "", 200, "the app's"},
		{"POST", "https://app.example.com/v1/events", "t0ken", 200, "the app's"},
		{"GET", "https://app.example.com/metrics", "", 200, "the app's"},
	} {
		r := request(t, tt.method, tt.url, event, "Content-Type", "application/json")
		if tt.token != "" {
			r.Header.Set("Authorization", "Bearer "+tt.token)
		}
		if res, body := s.do(r); res.StatusCode != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s: %d %s", tt.method, tt.url, res.StatusCode, body)
		}
	}
	if n := len(s.events()); n != 3 {
		t.Errorf("%d events", n)
	}
	r := request(t, "POST", "https://relay.example.com/v1/events", `"`+strings.Repeat("x", 70<<10)+`"`, "Content-Type", "application/json", "Authorization", "Bearer t0ken")
	if res, body := s.do(r); res.StatusCode != 413 {
		t.Errorf("too long for ingest: %d %s", res.StatusCode, body)
	}
}

// An event that comes through the front belongs to the trace of its request, as one that comes to a listener
// of ingest does.
func TestIngestKeepsTheTrace(t *testing.T) {
	s := newStage(t)
	c := s.frontTo("")
	c.Upstream, c.Serve, c.Token = config.Upstream{}, []string{"ingest"}, config.NewSecret("t0ken")
	s.open(c)
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, parents := range [][]string{{parent}, {parent, parent}, nil} {
		r := request(t, "POST", "https://"+host+"/v1/events", `{"type":"a.b","data":1}`, "Content-Type", "application/json", "Authorization", "Bearer t0ken")
		r.Header["Traceparent"], r.Header["Tracestate"] = parents, []string{"a=1", "b=2"}
		if res, body := s.do(r); res.StatusCode != 202 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	var got []string
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.accepted {
		got = append(got, e.Event.Trace)
	}
	if want := []string{parent + " a=1,b=2", "", ""}; !slices.Equal(got, want) {
		t.Errorf("traces %q, want %q", got, want)
	}
}
