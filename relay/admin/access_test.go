package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/alert"
	"relay/relay/deliver"
	"relay/relay/explain"
	"relay/relay/jobs"
)

// house is an admin surface with two tenants.
type house struct {
	*platform
	delivery, event, job map[string]string // ids by tenant
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{platform: newPlatform(t), delivery: map[string]string{}, event: map[string]string{}, job: map[string]string{}}
	h.o.Edits = h.store
	h.o.Reload = func(context.Context) (Reloaded, error) { return Reloaded{}, nil }
	h.o.Alerts = func(context.Context) ([]alert.Firing, error) { return nil, nil }
	h.o.Running = func() Running { return Running{} }
	h.o.Explain = func([]byte, string) (explain.Explanation, error) { return explain.Explanation{}, nil }
	h.o.Metrics = http.NotFoundHandler()
	h.o.Deliverer = &seeing{}
	h.o.Links = func() Links { return Links{Keys: []string{strings.Repeat("l", 32)}} }
	h.o.Test = func(e *policy.Endpoint, event *outbox.Event) (deliver.Result, error) {
		return deliver.Result{Endpoint: e.Name, EventID: event.ID, State: outbox.Delivered, Attempt: outbox.Attempt{N: 1, Started: time.Now(), Status: 200, Outcome: "delivered", Body: []byte("canary-of-answer")}}, nil
	}
	h.o.Jobs = jobs.New(jobs.Options{
		Outbox: h.store, Surroundings: Surroundings(h.o), Relay: func() string { return "relay-1" }, Alone: true, Log: zerolog.Nop(),
		Endpoints: func(context.Context) (map[string]bool, error) {
			return map[string]bool{"of-acme": true, "of-beta": true, "fixed": true}, nil
		},
	})
	for _, tenant := range []string{"acme", "beta"} {
		h.ok("POST", "/v1/endpoints", `{"name":"of-`+tenant+`","url":"https://a.example.com/","tenants":["`+tenant+`"]}`)
		h.event[tenant] = "evt_" + tenant
		h.fail(tenant, "evt_"+tenant)
		h.job[tenant] = h.ok("POST", "/v1/redeliveries", `{"endpoint":"of-`+tenant+`","state":"failed"}`)["id"].(string)
	}
	return h
}

// seeing is a deliverer of which all endpoints are active.
type seeing struct{ gates }

func (*seeing) StatusOf(name string) (deliver.Status, bool) {
	return deliver.Status{Endpoint: name, State: deliver.Active}, true
}

func (*seeing) Pause(_ context.Context, name, _ string) (deliver.Status, error) {
	return deliver.Status{Endpoint: name, State: deliver.Paused}, nil
}
func (s *seeing) Resume(ctx context.Context, name, by string) (deliver.Status, error) {
	return s.Pause(ctx, name, by)
}
func (s *seeing) Enable(ctx context.Context, name, by string) (deliver.Status, error) {
	return s.Pause(ctx, name, by)
}
func (s *seeing) EnableAgain(ctx context.Context, name, by string) (deliver.Status, error) {
	return s.Pause(ctx, name, by)
}
func (s *seeing) Disable(ctx context.Context, name, by string) (deliver.Status, error) {
	return s.Pause(ctx, name, by)
}

// fail makes a failed delivery of a tenant.
func (h *house) fail(tenant, id string) {
	h.t.Helper()
	ctx := h.t.Context()
	e := outbox.Event{ID: id, Type: "a", Tenant: tenant, Time: time.Now().UTC(), Data: []byte(`"canary-of-data"`), Relay: "machine-1"}
	if _, err := h.store.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"of-" + tenant}}}}); err != nil {
		h.t.Fatal(err)
	}
	claims, err := h.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "of-" + tenant, Max: 1, Lease: time.Minute})
	if err != nil {
		h.t.Fatal(err)
	}
	a := outbox.Attempt{N: 1, Started: time.Now(), Status: 500, Outcome: "refused", Code: "http_500", Head: "X: canary-of-head\r\n", Body: []byte("canary-of-answer"),
		Request: "POST https://a.example.com/ HTTP/1.1\r\n", Error: "/etc/relay/relay.hcl:7,3: no such body", Relay: "machine-1", Generation: 987654}
	if err := h.store.Settle(ctx, claims[0], outbox.Settlement{Attempt: a, State: outbox.Failed}); err != nil {
		h.t.Fatal(err)
	}
	h.delivery[tenant] = claims[0].ID
}

// as makes a request with an access.
func (h *house) as(a *Access, method, path, body string) *httptest.ResponseRecorder {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(WithAccess(h.t.Context(), a), 5*time.Second)
	defer cancel()
	if path == "/v1/tail" {
		cancel() // it would go on
	}
	w := httptest.NewRecorder()
	New(h.o).ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
	return w
}

// bodies are of routes that need one to get beyond their checks.
func bodyOfRoute(id, tenant string) string {
	switch id {
	case "createEndpoint":
		return `{"url":"https://a.example.com/"}`
	case "putEndpoint":
		return `{"url":"https://b.example.com/"}`
	case "patchEndpoint", "rotateSecret", "testEndpoint", "redeliverDelivery":
		return `{}`
	case "retryDeliveries", "redeliverDeliveries", "discardDeliveries", "eraseEvents":
		return `{"tenant":"` + tenant + `","dry_run":true}`
	case "createLink":
		return `{"tenant":"` + tenant + `"}`
	}
	return ""
}

func (h *house) pathOf(r *route, tenant string) string {
	id := h.delivery[tenant]
	switch {
	case strings.HasPrefix(r.path, "/v1/events/"):
		id = h.event[tenant]
	case strings.HasPrefix(r.path, "/v1/jobs/"):
		id = h.job[tenant]
	}
	return strings.NewReplacer("{name}", "of-"+tenant, "{id}", id).Replace(r.path)
}

// Every route with every right, for what is one's own and for what is another tenant's.
func TestRights(t *testing.T) {
	for _, r := range newAPI(newHouse(t).o).table() {
		t.Run(r.id, func(t *testing.T) {
			if _, known := rightsOf()[r.id]; !known {
				t.Fatal("rightsOf does not have this route")
			}
			for _, right := range Rights() {
				h := newHouse(t)
				acme := &Access{Name: "acme", May: []Right{right}, Tenants: []string{"acme"}}
				whole := &Access{Name: "ops", May: []Right{right}}
				if r.id == "createLink" {
					whole.May = append(whole.May, Read) // it gives a link that right
				}
				own := h.as(acme, r.method, h.pathOf(&r, "acme"), bodyOfRoute(r.id, "acme"))
				foreign := h.as(acme, r.method, h.pathOf(&r, "beta"), bodyOfRoute(r.id, "beta"))
				all := h.as(whole, r.method, h.pathOf(&r, "beta"), bodyOfRoute(r.id, "beta"))
				may := r.right == "" || r.right == right || r.also == right
				if refused := own.Code == http.StatusForbidden; refused == (may && !r.whole || r.right == "") {
					t.Errorf("own with %s: %d %s", right, own.Code, own.Body)
				}
				if refused := all.Code == http.StatusForbidden; refused == may {
					t.Errorf("of all with %s: %d %s", right, all.Code, all.Body)
				}
				if !may || r.whole || r.right == "" {
					continue
				}
				if strings.Contains(r.path, "{") && foreign.Code != http.StatusNotFound {
					t.Errorf("of another tenant with %s: %d %s", right, foreign.Code, foreign.Body)
				}
				if strings.Contains(r.path, "{") && !strings.Contains(r.path, "/jobs/") && own.Code >= 400 && own.Code != http.StatusConflict {
					t.Errorf("own with %s: %d %s", right, own.Code, own.Body)
				}
				for _, id := range []string{h.delivery["beta"], h.event["beta"], h.job["beta"], "of-beta"} {
					for _, w := range []*httptest.ResponseRecorder{own, foreign} {
						if w.Code < 300 && strings.Contains(w.Body.String(), id) {
							t.Errorf("with %s the answer names %s:\n%s", right, id, w.Body)
						}
					}
				}
				if right != Payload && strings.Contains(own.Body.String(), "canary") {
					t.Errorf("with %s the answer has data:\n%s", right, own.Body)
				}
			}
		})
	}
}

// Bulk acts reach one's own deliveries alone, whatever the filter says, also later as a job.
func TestBoundBulk(t *testing.T) {
	h := newHouse(t)
	acme := &Access{Name: "acme", May: Rights(), Tenants: []string{"acme"}}
	w := h.as(acme, "POST", "/v1/redeliveries", `{"state":"failed","until":"0s"}`)
	var out BulkAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusAccepted || out.Matched.N != 1 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := out.Filter["tenant"]; !slices.Equal(got, []string{"acme"}) {
		t.Errorf("the job's filter is %v", out.Filter)
	}
	if w := h.as(acme, "POST", "/v1/redeliveries", `{"tenant":"beta","state":"failed"}`); w.Code != http.StatusUnprocessableEntity && w.Code != http.StatusNotFound && w.Code != http.StatusConflict {
		t.Errorf("of another tenant: %d %s", w.Code, w.Body)
	}
	if w := h.as(acme, "POST", "/v1/redeliveries", `{"state":"failed","until":"0s","to":"of-beta"}`); w.Code != http.StatusNotFound {
		t.Errorf("to another tenant's endpoint: %d %s", w.Code, w.Body)
	}
	if w := h.as(acme, "POST", "/v1/deliveries/"+h.delivery["acme"]+"/redeliver", `{"to":"fixed"}`); w.Code != http.StatusNotFound {
		t.Errorf("to an endpoint of all tenants: %d %s", w.Code, w.Body)
	}
	var list JobList
	if err := json.Unmarshal(h.as(acme, "GET", "/v1/jobs", "").Body.Bytes(), &list); err != nil || len(list.Items) != 1 || list.Total.N != 1 {
		t.Errorf("jobs: %+v, %v", list, err)
	}
}

// An endpoint made with a bound token gets events of its tenants alone, and stays so.
func TestBoundEndpoints(t *testing.T) {
	h := newHouse(t)
	acme := &Access{Name: "acme", May: []Right{Endpoints, Read}, Tenants: []string{"acme"}}
	if w := h.as(acme, "DELETE", "/v1/endpoints/of-acme?force=true", ""); w.Code != http.StatusNoContent {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var made Endpoint
	w := h.as(acme, "POST", "/v1/endpoints", `{"name":"new","url":"https://a.example.com/"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusCreated || !strings.Contains(string(made.Made.Settings), `"tenants":["acme"]`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for body, method := range map[string]string{`{"tenants":["beta"]}`: "PATCH", `{"tenants":null}`: "PATCH", `{"tenants":[]}`: "PATCH", `{"url":"https://a.example.com/","tenants":["acme","beta"]}`: "PUT"} {
		if w := h.as(acme, method, "/v1/endpoints/new", body); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s %s: %d %s", method, body, w.Code, w.Body)
		}
	}
	one := &Access{Name: "one", May: []Right{Endpoints}, Endpoints: []string{"only"}}
	if w := h.as(one, "POST", "/v1/endpoints", `{"url":"https://a.example.com/","sign":["none"]}`); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("without the name: %d %s", w.Code, w.Body)
	}
	if w := h.as(one, "DELETE", "/v1/events/"+h.event["acme"]+"/data", ""); w.Code != http.StatusForbidden {
		t.Errorf("erase: %d", w.Code)
	}
}

// What is pending at an endpoint that is gone does not go to another one of its name, and a bound token gets no name that was used.
func TestNamesOfOthers(t *testing.T) {
	h := newHouse(t)
	e := outbox.Event{ID: "evt_waits", Type: "a", Tenant: "acme", Data: []byte("1")}
	if _, err := h.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"of-acme"}}}}); err != nil {
		t.Fatal(err)
	}
	h.as(nil, "DELETE", "/v1/endpoints/of-acme?force=true", "")
	if w := h.as(nil, "POST", "/v1/endpoints", `{"name":"of-acme","url":"https://b.example.com/"}`); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), `"has_pending"`) {
		t.Errorf("with pending deliveries: %d %s", w.Code, w.Body)
	}
	beta := &Access{Name: "beta", May: []Right{Endpoints}, Tenants: []string{"beta"}}
	h.as(nil, "DELETE", "/v1/endpoints/of-beta", "")
	if w := h.as(beta, "POST", "/v1/endpoints", `{"name":"of-acme","url":"https://b.example.com/"}`); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), `"endpoint_exists"`) {
		t.Errorf("with a bound token: %d %s", w.Code, w.Body)
	}
	if w := h.as(nil, "POST", "/v1/endpoints", `{"name":"of-beta","url":"https://b.example.com/"}`); w.Code != http.StatusCreated {
		t.Errorf("a name of which nothing is pending: %d %s", w.Code, w.Body)
	}
}

// Headers that a token may not see go to no URL of its choice.
func TestHeadersStay(t *testing.T) {
	h := newHouse(t)
	h.as(nil, "PATCH", "/v1/endpoints/of-acme", `{"headers":{"Authorization":"Bearer canary"}}`)
	acme := &Access{Name: "acme", May: []Right{Endpoints, Test}, Tenants: []string{"acme"}}
	if w := h.as(acme, "PATCH", "/v1/endpoints/of-acme", `{"url":"https://evil.example.com/"}`); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), `"/url"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := h.as(acme, "PATCH", "/v1/endpoints/of-acme", `{"url":"https://new.example.com/","headers":null}`); w.Code != http.StatusOK {
		t.Errorf("without headers: %d %s", w.Code, w.Body)
	}
	acme.May = append(acme.May, Secrets)
	h.as(nil, "PATCH", "/v1/endpoints/of-acme", `{"headers":{"Authorization":"Bearer canary"}}`)
	if w := h.as(acme, "PATCH", "/v1/endpoints/of-acme", `{"url":"https://new.example.com/b"}`); w.Code != http.StatusOK {
		t.Errorf("with the right secrets: %d %s", w.Code, w.Body)
	}
}

// What a token may not see is not said to be absent.
func TestLeftOut(t *testing.T) {
	h := newHouse(t)
	acme := &Access{Name: "acme", May: []Right{Read}, Tenants: []string{"acme"}}
	e := outbox.Event{ID: "evt_fixed", Type: "a", Tenant: "acme", Data: []byte("1")}
	if _, err := h.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"fixed"}}}}); err != nil {
		t.Fatal(err)
	}
	var event EventWhole
	if err := json.Unmarshal(h.as(acme, "GET", "/v1/events/evt_fixed", "").Body.Bytes(), &event); err != nil || event.Unwanted || !event.LeftOut || len(event.Deliveries) != 0 {
		t.Errorf("%+v, %v", event, err)
	}
	var delivery DeliveryWhole
	if err := json.Unmarshal(h.as(acme, "GET", "/v1/deliveries/"+h.delivery["acme"], "").Body.Bytes(), &delivery); err != nil || !delivery.LeftOut {
		t.Errorf("%+v, %v", delivery, err)
	}
	if w := h.as(&Access{Name: "ops", May: []Right{Operate}}, "POST", "/v1/links", `{"tenant":"acme","may":["payload"]}`); w.Code != http.StatusForbidden {
		t.Errorf("a link with a right that its maker lacks: %d %s", w.Code, w.Body)
	}
}

func TestLinks(t *testing.T) {
	h := newHouse(t)
	var link Link
	w := h.as(nil, "POST", "/v1/links", `{"tenant":"acme","may":["read","test"],"ttl":"2h"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &link); err != nil || w.Code != http.StatusCreated {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	links := h.o.Links()
	a := links.Access(link.Token, time.Now())
	if a == nil || !slices.Equal(a.Tenants, []string{"acme"}) || !slices.Equal(a.May, []Right{Read, Test}) {
		t.Fatalf("access %+v", a)
	}
	if links.Access(link.Token, link.Expires) != nil {
		t.Error("it holds after its end")
	}
	if (Links{Keys: []string{strings.Repeat("x", 32)}}).Access(link.Token, time.Now()) != nil {
		t.Error("it holds with another key")
	}
	if (Links{Keys: []string{strings.Repeat("x", 32), links.Keys[0]}}).Access(link.Token, time.Now()) == nil {
		t.Error("it does not hold while its key is the second")
	}
	for i := range link.Token {
		forged := []byte(link.Token)
		forged[i] ^= 1
		if got := links.Access(string(forged), time.Now()); got != nil && (!slices.Equal(got.Tenants, a.Tenants) || !slices.Equal(got.May, a.May)) {
			t.Fatalf("byte %d can be changed: %+v", i, got)
		}
	}
	for body, want := range map[string]problem.Code{
		`{"tenant":"acme","may":["payload"]}`: problem.InvalidParameter, `{"tenant":"acme","for":""}`: problem.InvalidParameter, `{"tenant":"acme","for":"a\nb"}`: problem.InvalidParameter,
		`{"tenant":"acme","for":"` + strings.Repeat("é", 101) + `"}`: problem.InvalidParameter,
		`{}`: problem.InvalidParameter, `{"tenant":"a\nb"}`: problem.InvalidParameter, `{"tenant":"acme","may":["operate"]}`: problem.InvalidParameter,
		`{"tenant":"acme","may":[]}`: problem.InvalidParameter, `{"tenant":"acme","ttl":"31d"}`: problem.InvalidParameter, `{"tenant":"acme","x":1}`: problem.UnknownParameter, `[`: problem.InvalidJSON,
	} {
		if w := h.as(nil, "POST", "/v1/links", body); !strings.Contains(w.Body.String(), `"`+string(want)+`"`) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	h.o.Links = nil
	if w := h.as(nil, "POST", "/v1/links", `{"tenant":"acme"}`); w.Code != http.StatusConflict {
		t.Errorf("without a key: %d %s", w.Code, w.Body)
	}
}

// A token is known as long as the file has it.
func TestAuthorize(t *testing.T) {
	tokens := &Tokens{Whole: "whole-token", Others: map[string]*Access{"support-token": {Name: "support", May: []Right{Read}}}, Links: Links{Keys: []string{strings.Repeat("k", 32)}}}
	link := tokens.Links.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: time.Now().Add(time.Hour).Unix()})
	var seen *Access
	handler := func(open bool) http.Handler {
		return Authorize(func() *Tokens { return tokens }, open, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = AccessOf(r.Context()) }))
	}
	ask := func(open bool, header string) int {
		seen = &Access{Name: "nobody"}
		r := httptest.NewRequest("GET", "/", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		handler(open).ServeHTTP(w, r)
		return w.Code
	}
	for _, c := range []struct {
		open   bool
		header string
		code   int
		name   string // of the access, "" for the whole power
	}{
		{true, "", 200, ""}, {false, "", 401, "nobody"},
		{false, "Bearer whole-token", 200, ""}, {true, "bearer whole-token", 200, ""},
		{true, "Bearer support-token", 200, "support"}, {true, "Bearer wrong", 401, "nobody"}, {false, "Basic whole-token", 401, "nobody"}, {false, "Bearer ", 401, "nobody"},
		{false, "Bearer " + link, 200, "link of acme"}, {false, "Bearer " + link + "x", 401, "nobody"},
	} {
		name := ""
		if code := ask(c.open, c.header); code != c.code {
			t.Errorf("%+v: %d", c, code)
		}
		if seen != nil {
			name = seen.Name
		}
		if name != c.name {
			t.Errorf("%+v: access %q", c, name)
		}
	}
	tokens = &Tokens{Whole: "whole-token"}
	if ask(false, "Bearer support-token") != 401 || ask(false, "Bearer "+link) != 401 {
		t.Error("tokens hold that the file no longer has")
	}
}
