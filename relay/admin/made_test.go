package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/ingest/problem"
	"relay/internal/seal"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
	"relay/relay/registry"
)

// platform is an admin surface with endpoints made at run time.
type platform struct {
	t     *testing.T
	store *outboxtest.Mem
	o     Options
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := decodePolicy(t, `
		runtime { max_endpoints = 3 }
		policy "gold-of-the-file" {}
		endpoint "fixed" {
			url    = "https://fixed.example.com/"
			sign   = ["none"]
			labels = { project = "web" }
		}`)
	keys, err := seal.New([]string{strings.Repeat("k", 32)})
	if err != nil {
		t.Fatal(err)
	}
	pl := &platform{t: t, store: outboxtest.NewMem(outboxtest.MemOptions{})}
	var live atomic.Pointer[policy.Policy]
	live.Store(p)
	var g *registry.Registry
	g = registry.New(registry.Options{Store: pl.store, Keys: keys, File: p, Log: zerolog.Nop(), Changed: func() { live.Store(p.With(g.Made())) }})
	if err := g.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		_ = g.Follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	pl.o = Options{Outbox: pl.store, Records: pl.store, Policy: live.Load, Deliverer: &gates{}, Registry: g, Log: zerolog.Nop()}
	return pl
}

// do makes a request and returns the answer with its body.
func (p *platform) do(method, path, body string, header ...string) (*httptest.ResponseRecorder, map[string]any) {
	p.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	New(p.o).ServeHTTP(w, r)
	var v map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			p.t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
		}
	}
	return w, v
}

// ok is do for a request that succeeds.
func (p *platform) ok(method, path, body string, header ...string) map[string]any {
	p.t.Helper()
	w, v := p.do(method, path, body, header...)
	if w.Code >= 300 {
		p.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return v
}

// An endpoint is made, shown, changed, rotated, exported and deleted.
func TestMadeEndpoint(t *testing.T) {
	p := newPlatform(t)
	w, e := p.do("POST", "/v1/endpoints", `{"name":"acme","url":"https://acme.example.com/?key=canary-of-url","tenants":["acme"],"labels":{"project":"shop"}}`)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/v1/endpoints/acme" || w.Header().Get("ETag") == "" || e["state"] != "active" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if url := e["url"]; url != "https://acme.example.com/" {
		t.Errorf("the url is %v", url)
	}
	tag := w.Header().Get("ETag")
	if w, e := p.do("PATCH", "/v1/endpoints/acme", `{"description":"the first","timeout":{"total":"9s"}}`, "If-Match", tag); w.Code != 200 || e["description"] != "the first" {
		t.Errorf("patch: %d %s", w.Code, w.Body)
	}
	if w, v := p.do("PATCH", "/v1/endpoints/acme", `{}`, "If-Match", tag); w.Code != http.StatusPreconditionFailed || v["code"] != string(problem.Changed) {
		t.Errorf("patch of an older revision: %d %s", w.Code, w.Body)
	}
	one := p.ok("GET", "/v1/endpoints/acme/secret", "")["secrets"].([]any)
	two := p.ok("POST", "/v1/endpoints/acme/secret/rotate", "")["secrets"].([]any)
	if len(one) != 1 || len(two) != 2 || two[1].(map[string]any)["secret"] != one[0].(map[string]any)["secret"] || two[1].(map[string]any)["until"] == nil {
		t.Errorf("secrets %v, then %v", one, two)
	}
	if s := p.ok("POST", "/v1/endpoints/acme/secret/rotate", `{"overlap":"0"}`)["secrets"].([]any); len(s) != 1 {
		t.Errorf("without an overlap: %v", s)
	}
	hcl := p.ok("GET", "/v1/endpoints/acme/hcl", "")["hcl"].(string)
	if !strings.Contains(hcl, "\nendpoint \"acme\" {\n") || strings.Contains(hcl, "whsec_") {
		t.Errorf("exported:\n%s", hcl)
	}
	if e := p.ok("PUT", "/v1/endpoints/acme", `{"url":"https://b.example.com/","sign":["standard"]}`); e["description"] != nil || e["made"].(map[string]any)["secrets"] != 1.0 {
		t.Errorf("put: %v", e)
	}
	if w, _ := p.do("DELETE", "/v1/endpoints/acme", ""); w.Code != http.StatusNoContent {
		t.Errorf("delete: %d %s", w.Code, w.Body)
	}
	if w, v := p.do("GET", "/v1/endpoints/acme", ""); w.Code != 404 || v["code"] != "endpoint_not_found" {
		t.Errorf("after delete: %d %s", w.Code, w.Body)
	}
}

// The audit has what an endpoint was and became, and no secret.
func TestMadeEndpointsInTheAudit(t *testing.T) {
	p := newPlatform(t)
	p.o.Edits = p.store
	p.ok("POST", "/v1/endpoints", `{"name":"acme","url":"https://acme.example.com/canary?key=canary","headers":{"X-Key":"canary"},"secret":"whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5"}`)
	p.ok("PATCH", "/v1/endpoints/acme", `{"url":"https://acme.example.com/elsewhere?key=canary","headers":{"X-Key":"canary-2"}}`)
	p.ok("PATCH", "/v1/endpoints/acme", `{"timeout":{"total":"9s"},"headers":null}`)
	p.ok("GET", "/v1/endpoints/acme/secret", "")
	p.ok("POST", "/v1/endpoints/acme/secret/rotate", "")
	p.ok("PUT", "/v1/endpoints/acme", `{"url":"https://b.example.com/"}`)
	p.do("DELETE", "/v1/endpoints/acme", "")
	var lines []string
	for _, item := range p.ok("GET", "/v1/audit", "")["items"].([]any) {
		e := item.(map[string]any)
		for _, side := range []string{"before", "after"} {
			if state, ok := e[side].(map[string]any); ok {
				if state["revision"] == "" {
					t.Errorf("%v has no revision", state)
				}
				delete(state, "revision")
			}
		}
		lines = append(lines, fmt.Sprint(e["verb"], " ", e["before"], " ", e["after"]))
	}
	one := "map[headers:map[X-Key:***] url:https://acme.example.com/***?***]"
	two := "map[timeout:map[total:9s] url:https://acme.example.com/***?***]"
	three := "map[url:https://b.example.com/]"
	want := []string{
		"endpoints rm map[secrets:2 settings:" + three + "] <nil>",
		"endpoints set map[secrets:2 settings:" + two + "] map[secrets:2 settings:" + three + "]",
		"secret rotate map[secrets:1] map[secrets:2]",
		"secret show <nil> <nil>",
		"endpoints set map[secrets:1 settings:" + one + "] map[secrets:1 settings:" + two + "]",
		"endpoints set map[secrets:1 settings:" + one + "] map[changed:[url headers.X-Key] secrets:1 settings:" + one + "]",
		"endpoints add <nil> map[secrets:1 settings:" + one + "]",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func TestMadeRefusals(t *testing.T) {
	p := newPlatform(t)
	for i := range 3 {
		p.ok("POST", "/v1/endpoints", fmt.Sprintf(`{"name":"n%d","url":"https://a.example.com/"}`, i))
	}
	if _, err := p.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")}, Endpoints: []string{"n0"}}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		code               problem.Code
		pointer            string
	}{
		{"POST", "/v1/endpoints", `{"name":"fixed","url":"https://a.example.com/"}`, 409, problem.EndpointInFile, ""},
		{"POST", "/v1/endpoints", `{"name":"n0","url":"https://a.example.com/"}`, 409, problem.EndpointExists, ""},
		{"POST", "/v1/endpoints", `{"url":"https://a.example.com/"}`, 409, problem.QuotaReached, ""},
		{"POST", "/v1/endpoints", `{"url":"https://a.example.com/","evnts":["a"]}`, 422, problem.InvalidEndpoint, "/evnts"},
		{"POST", "/v1/endpoints", `nope`, 422, problem.InvalidEndpoint, ""},
		{"POST", "/v1/endpoints", `{"a":"` + strings.Repeat("x", maxSettings) + `"}`, 413, problem.BodyTooLarge, ""},
		{"PATCH", "/v1/endpoints/fixed", `{}`, 409, problem.EndpointInFile, ""},
		{"PATCH", "/v1/endpoints/nobody", `{}`, 404, problem.EndpointNotFound, ""},
		{"PATCH", "/v1/endpoints/n0", `{"secret":"canary-canary-canary"}`, 422, problem.InvalidEndpoint, "/secret"},
		{"PUT", "/v1/endpoints/n0", `{}`, 422, problem.InvalidEndpoint, ""},
		{"DELETE", "/v1/endpoints/fixed", ``, 409, problem.EndpointInFile, ""},
		{"DELETE", "/v1/endpoints/n0", ``, 409, problem.HasPending, ""},
		{"DELETE", "/v1/endpoints/n0?force=maybe", ``, 400, problem.InvalidParameter, ""},
		{"DELETE", "/v1/endpoints/n0?forse=true", ``, 400, problem.UnknownParameter, ""},
		{"GET", "/v1/endpoints/fixed/secret", ``, 409, problem.EndpointInFile, ""},
		{"GET", "/v1/endpoints/nobody/hcl", ``, 404, problem.EndpointNotFound, ""},
		{"POST", "/v1/endpoints/n0/secret/rotate", `{"overlap":"8d"}`, 400, problem.InvalidParameter, ""},
		{"POST", "/v1/endpoints/n0/secret/rotate", `{"overlap":`, 400, problem.InvalidJSON, ""},
		{"POST", "/v1/endpoints/n0/secret/rotate", `{"secret":"whsec_canary"}`, 422, problem.InvalidEndpoint, "/secrets"},
		{"GET", "/v1/endpoints?stat=paused", ``, 400, problem.UnknownParameter, ""},
		{"GET", "/v1/endpoints?state=pausd", ``, 400, problem.InvalidParameter, ""},
		{"GET", "/v1/endpoints?sort=size", ``, 400, problem.InvalidParameter, ""},
		{"GET", "/v1/endpoints?limit=0", ``, 400, problem.InvalidParameter, ""},
	} {
		w, v := p.do(c.method, c.path, c.body)
		pointer, _ := v["pointer"].(string)
		if w.Code != c.status || v["code"] != string(c.code) || pointer != c.pointer || v["detail"] == "" {
			t.Errorf("%s %s %.80s: %d %.300s", c.method, c.path, c.body, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "canary") {
			t.Errorf("%s %s: the answer has a secret: %s", c.method, c.path, w.Body)
		}
	}
	if w, _ := p.do("PATCH", "/v1/endpoints/n0", `{}`, "If-Match", "x"); w.Code != http.StatusPreconditionFailed {
		t.Errorf("If-Match x: %d", w.Code)
	}
	if w, _ := p.do("DELETE", "/v1/endpoints/n0?force=true", ""); w.Code != http.StatusNoContent {
		t.Errorf("forced: %d %s", w.Code, w.Body)
	}
	if e := p.ok("GET", "/v1/endpoints/n0", ""); e["state"] != removed || e["deliveries"].(map[string]any)["held"] != 1.0 {
		t.Errorf("its deliveries: %v", e)
	}
}

func TestListOfEndpoints(t *testing.T) {
	p := newPlatform(t)
	p.ok("POST", "/v1/endpoints", `{"name":"acme","url":"https://acme.example.com/","tenants":["acme"],"description":"Shop of Acme","labels":{"project":"shop"}}`)
	p.ok("POST", "/v1/endpoints", `{"name":"beta","url":"https://beta.example.com/","tenants":["beta","acme"]}`)
	for query, want := range map[string]string{
		"":                            "fixed acme beta",
		"made=true":                   "acme beta",
		"made=false":                  "fixed",
		"tenant=acme":                 "acme beta",
		"tenant=nobody":               "",
		"label.project=shop":          "acme",
		"label.project=web&made=true": "",
		"q=SHOP+of":                   "acme",
		"q=example.com&sort=name":     "acme beta fixed",
		"limit=1&offset=1":            "acme",
		"offset=7":                    "",
		"state=active&state=paused":   "fixed acme beta",
		"state=disabled":              "",
	} {
		v := p.ok("GET", "/v1/endpoints?"+query, "")
		var names []string
		for _, e := range v["endpoints"].([]any) {
			names = append(names, e.(map[string]any)["name"].(string))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if v := p.ok("GET", "/v1/endpoints?limit=1", ""); v["total"] != 3.0 {
		t.Errorf("total is %v", v["total"])
	}
}

// countless is a deliverer with so many endpoints that nobody asks for all of them.
type countless struct {
	*gates
	t *testing.T
}

func (c countless) Status() []deliver.Status {
	c.t.Error("an answer about one endpoint asks for the status of all")
	return nil
}

func TestOneEndpointCostsNotAll(t *testing.T) {
	p := newPlatform(t)
	p.o.Deliverer = countless{&gates{}, t}
	p.ok("POST", "/v1/endpoints", `{"name":"acme","url":"https://acme.example.com/"}`)
	p.ok("PATCH", "/v1/endpoints/acme", `{"description":"the first"}`)
	if e := p.ok("GET", "/v1/endpoints/acme", ""); e["description"] != "the first" || e["made"] == nil {
		t.Errorf("%v", e)
	}
	p.ok("GET", "/v1/endpoints/fixed", "")
}

// Headers whose values an access may not see stay with their URL, also those that no Relay of this key can open now.
func TestMaskedHeadersStay(t *testing.T) {
	const url = `{"url":"https://b.test/"}`
	for _, c := range []struct {
		spec, patch string
		lost        []string
		may         bool
	}{
		{`{"url":"https://a.test/"}`, url, nil, true},
		{`{"headers":{}}`, url, nil, true},
		{`{"headers":{"X-Key":"a"}}`, url, nil, false},
		{`{"headers":{"X-Key":"a"}}`, `{"url":"https://b.test/","headers":null}`, nil, true},
		{`{"headers":{"X-Key":"a"}}`, `{"description":"x"}`, nil, true},
		{`{}`, url, []string{"url"}, true},
		{`{}`, url, []string{"headers", "url"}, false},
	} {
		before := registry.Endpoint{Spec: json.RawMessage(c.spec), Lost: c.lost}
		if err := maskedStay(&Access{}, before, json.RawMessage(c.patch)); (err == nil) != c.may {
			t.Errorf("%s with %v lost, changed by %s: %v", c.spec, c.lost, c.patch, err)
		}
		if err := maskedStay(&Access{May: []Right{Secrets}}, before, json.RawMessage(c.patch)); err != nil {
			t.Errorf("by who sees secrets: %v", err)
		}
	}
}
