package page_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/app"
	"relay/relay/page"
)

const operator = "token-of-the-operator"

// walkConfig has something for every screen. Names in <> are replaced.
const walkConfig = `
secrets_key = ["0123456789abcdef0123456789abcdef"]
ingest {
  unix "<dir>/relay.sock" {}
  index = ["data.customer"]
}
admin {
  http     = "127.0.0.1:0"
  token    = "token-of-the-operator"
  link_key = ["0123456789abcdef0123456789abcdef"]
}
outbox "sqlite" {
  path = "<dir>/outbox"
}
policy "default" {
  retry {
    schedule = ["1h", "2h"]
  }
  breaker {
    enabled = false
  }
  egress {
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}
alert "behind" {
  on    = "backlog_count"
  above = 1
  for   = "0s"
}
event_type "order.created" {
  description = "An order was placed"
  example     = jsonencode({ amount = 1200, customer = "c-1" })
}
event_type "order.paid" {}
endpoint "good" {
  url  = "<receiver>/good"
  sign = ["none"]
}
endpoint "later" {
  url  = "<receiver>/later"
  sign = ["none"]
}
endpoint "never" {
  url  = "<receiver>/never"
  sign = ["none"]
}
endpoint "paused" {
  url  = "<receiver>/paused"
  sign = ["none"]
}
endpoint "disabled" {
  url  = "<receiver>/disabled"
  sign = ["none"]
}
`

// running is a whole Relay, and a page that asks it over its listener, so that what the page asks is known.
type running struct {
	url   string            // of the page
	typed map[string]string // what a person types into fields, by name

	api   *url.URL
	known *http.ServeMux // operations by route

	mu    sync.Mutex
	asked map[string]bool // operations
}

func newRunning(t *testing.T) *running {
	t.Helper()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(cmp.Or(map[string]int{"/later": 503, "/never": 422}[r.URL.Path], 200))
	}))
	t.Cleanup(receiver.Close)
	dir := testkit.Dir(t)
	file := filepath.Join(dir, "relay.hcl")
	text := strings.NewReplacer("<dir>", dir, "<receiver>", receiver.URL).Replace(walkConfig)
	testkit.Must(t, os.WriteFile(file, []byte(text), 0o600))
	load := func() (*config.File, *policy.Policy, error) {
		f, err := config.Load([]string{file}, os.LookupEnv)
		if err != nil {
			return f, nil, err
		}
		p, err := policy.Decode(f)
		return f, p, err
	}
	f, p, err := load()
	testkit.Must(t, err)
	log := new(testkit.Log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Relay:\n%s", log)
		}
	})
	a, err := app.Open(t.Context(), app.Options{Config: f.Config, Policy: p, Version: "test", Grace: time.Second, Log: zerolog.New(log).Level(zerolog.WarnLevel), Load: load})
	testkit.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { stop(); testkit.Must(t, <-done) })

	r := &running{api: &url.URL{Scheme: "http", Host: a.Addrs("admin")[0].String()}, asked: map[string]bool{}, typed: map[string]string{
		"name": "walked", "url": receiver.URL + "/good", "tenant": "acme", "tenants": "acme", "description": "seen by a walker", "type": "order.created", "data": `{"amount":1}`,
		"event": `{"type":"order.created","data":{"amount":1}}`, "ttl": "1h", "overlap": "1h", "q": "order",
	}}
	r.readDocument(t)
	r.openPage(t)
	r.fill(t, filepath.Join(dir, "relay.sock"))
	return r
}

// document is the part of /openapi.json that says which operation is where.
type document struct {
	Paths map[string]map[string]struct{ OperationID string }
}

func (r *running) readDocument(t *testing.T) {
	t.Helper()
	var doc document
	r.ask(t, "GET", "/openapi.json", "", &doc)
	r.known = http.NewServeMux()
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			if id := operation.OperationID; id != "" {
				r.known.HandleFunc(strings.ToUpper(method)+" "+path, func(http.ResponseWriter, *http.Request) {
					r.mu.Lock()
					defer r.mu.Unlock()
					r.asked[id] = true
				})
				r.asked[id] = false
			}
		}
	}
}

// openPage serves a page whose API is the listener of Relay, and notes the operations.
func (r *running) openPage(t *testing.T) {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(r.api)
			p.Out.Header.Set("Authorization", "Bearer "+operator)
		},
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.known.ServeHTTP(httptest.NewRecorder(), req)
		if req.URL.Path != "/v1/tail" {
			w = struct{ http.ResponseWriter }{w} // the proxy flushes no answer of the page itself
		}
		proxy.ServeHTTP(w, req)
	})
	p := page.New(page.Options{API: api, Tokens: func() *admin.Tokens { return &admin.Tokens{Whole: operator} }, Version: "test"})
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	r.url = srv.URL
}

// ask asks the API, not by the page.
func (r *running) ask(t *testing.T, method, path, body string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.api.String()+path, strings.NewReader(body))
	testkit.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+operator)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	testkit.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.Must(t, err)
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s answers %d: %s", method, path, resp.StatusCode, text)
	}
	if into != nil {
		testkit.Must(t, json.Unmarshal(text, into))
	}
}

// fill makes deliveries in every state, an endpoint at run time, a job that ended and one that goes on.
func (r *running) fill(t *testing.T, socket string) {
	t.Helper()
	r.ask(t, "POST", "/v1/endpoints/paused/pause", "", nil)
	r.ask(t, "POST", "/v1/endpoints/disabled/disable", "", nil)
	r.ask(t, "POST", "/v1/endpoints", `{"name":"made","url":"`+r.typed["url"]+`","tenants":["acme"]}`, nil)
	r.ask(t, "POST", "/v1/endpoints", `{"name":"made-too","url":"`+r.typed["url"]+`","tenants":["acme"]}`, nil)
	var events []string
	for i := range 30 {
		events = append(events, fmt.Sprintf(`{"id":"evt_%d","type":"order.created","tenant":"acme","key":"order-%d","data":{"amount":%d,"customer":"c-%d"}}`, i, i, i, i))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader("["+strings.Join(events, ",")+"]"))
	testkit.Must(t, err)
	resp.Body.Close()
	client.CloseIdleConnections()
	for _, query := range []string{"endpoint=good&state=delivered", "endpoint=never&state=failed", "endpoint=later&state=pending&attempts=1", "endpoint=paused&state=held", "endpoint=made&state=delivered"} {
		testkit.Until(t, query, func() bool {
			var list struct{ Total int }
			r.ask(t, "GET", "/v1/deliveries?"+query, "", &list)
			return list.Total == 30
		})
	}
	r.ask(t, "POST", "/v1/discards", `{"endpoint":"paused","key":"order-1"}`, nil)
	r.ask(t, "POST", "/v1/redeliveries", `{"endpoint":"never","rate":0.01}`, nil) // for longer than any test
}

// notForPeople are operations that no screen does, and why.
func notForPeople() map[string]string {
	return map[string]string{
		"getHealth":   "a probe of what runs Relay",
		"getMetrics":  "for Prometheus",
		"getDocument": "for programs, and linked from the documentation",
		"getAccess":   "the page has it of its session",
		"putEndpoint": "the page changes what a person changed, by patchEndpoint",
	}
}

// compareOperations fails if an operation is done by no screen and nobody said why, and if a reason is out of date.
func (r *running) compareOperations(t *testing.T) {
	t.Helper()
	reasons := notForPeople()
	for _, id := range slices.Sorted(maps.Keys(r.asked)) {
		switch why, excused := reasons[id]; {
		case !r.asked[id] && !excused:
			t.Errorf("no screen does the operation %s", id)
		case r.asked[id] && excused:
			t.Errorf("a screen does the operation %s: it is more than %s", id, why)
		}
	}
	for id := range reasons {
		if _, known := r.asked[id]; !known {
			t.Errorf("the document has no operation %s", id)
		}
	}
}
