package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/jobs"
)

// acme is an access to one tenant.
func acme(may ...Right) *Access { return &Access{Name: "acme", May: may, Tenants: []string{"acme"}} }

// Readiness has what is about the whole for those alone who may see the whole.
func TestReadinessOfABoundToken(t *testing.T) {
	h := newHouse(t)
	h.o.Config = func() Config { return Config{Generation: 7, Error: "/etc/relay/relay.hcl:3,1: endpoint of-beta"} }
	h.o.Fleet = func(context.Context) (Fleet, error) {
		return Fleet{Relays: []Relay{{Number: 1, Host: "machine-1"}}, Disagreements: map[string]string{"of-beta": "differs"}}, nil
	}
	for name, a := range map[string]*Access{"of a tenant": acme(Rights()...), "of an endpoint": {Name: "e", May: Rights(), Endpoints: []string{"of-acme"}}, "without read": {Name: "t", May: []Right{Test}}} {
		w := h.as(a, "GET", "/readyz", "")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ready"`) || strings.Contains(w.Body.String(), "of-beta") || strings.Contains(w.Body.String(), "machine-1") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := h.as(&Access{Name: "ops", May: []Right{Read}}, "GET", "/readyz", ""); !strings.Contains(w.Body.String(), "of-beta") || !strings.Contains(w.Body.String(), "machine-1") {
		t.Errorf("with the right read: %s", w.Body)
	}
	h.o.Ready = func() error { return errors.New("a reason") }
	if w := h.as(acme(Read), "GET", "/readyz", ""); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "a reason") {
		t.Errorf("not ready: %d %s", w.Code, w.Body)
	}
}

// Without the right payload a field of the data cannot be guessed by a filter either.
func TestFilterByData(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/deliveries?data.email=a", ""},
		{"GET", "/v1/tail?data.email=a", ""},
		{"POST", "/v1/retries", `{"data.email":"a","dry_run":true}`},
		{"POST", "/v1/redeliveries", `{"data.email":"a","dry_run":true}`},
	} {
		if w := h.as(acme(Read, Redeliver), c.method, c.path, c.body); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "payload") {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
		if w := h.as(acme(Read, Redeliver, Payload), c.method, c.path, c.body); w.Code == http.StatusForbidden {
			t.Errorf("%s %s with the right: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

// A redelivery says the same of an endpoint of others and of one that does not exist.
func TestTargetsOfOthers(t *testing.T) {
	h := newHouse(t)
	ask := func(path, to string) string {
		body := fmt.Sprintf(`{"to":%q}`, to)
		if path == "/v1/redeliveries" {
			body = fmt.Sprintf(`{"to":%q,"state":"failed","tenant":"acme"}`, to)
		}
		w := h.as(acme(Read, Redeliver), "POST", path, body)
		return fmt.Sprint(w.Code, strings.ReplaceAll(w.Body.String(), to, "NAME"))
	}
	for _, path := range []string{"/v1/deliveries/" + h.delivery["acme"] + "/redeliver", "/v1/redeliveries"} {
		if foreign, none := ask(path, "of-beta"), ask(path, "nowhere"); foreign != none || !strings.HasPrefix(foreign, "404") {
			t.Errorf("%s: of another tenant\n%s\nof none\n%s", path, foreign, none)
		}
	}
}

// A token that is bound to tenants and endpoints sees what fits both.
func TestEventsOfBothBounds(t *testing.T) {
	h := newHouse(t)
	both := &Access{Name: "both", May: Rights(), Tenants: []string{"acme"}, Endpoints: []string{"of-beta"}}
	if w := h.as(both, "GET", "/v1/events/"+h.event["acme"], ""); w.Code != http.StatusNotFound {
		t.Errorf("an event of the tenant for another endpoint: %d %s", w.Code, w.Body)
	}
	both.Endpoints = []string{"of-acme"}
	if w := h.as(both, "GET", "/v1/events/"+h.event["acme"], ""); w.Code != http.StatusOK {
		t.Errorf("an event of both: %d %s", w.Code, w.Body)
	}
}

// An event's data is that of all its endpoints, so a token for some of them erases none that others have, by a filter either.
func TestErasureOfABoundToken(t *testing.T) {
	h := newHouse(t)
	e := outbox.Event{ID: "evt_shared", Type: "a", Tenant: "acme", Data: []byte("1")}
	if _, err := h.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"of-acme", "fixed"}}}}); err != nil {
		t.Fatal(err)
	}
	one := &Access{Name: "one", May: Rights(), Endpoints: []string{"of-acme"}}
	if w := h.as(one, "DELETE", "/v1/events/evt_shared/data?force=true", ""); w.Code != http.StatusNotFound {
		t.Errorf("one event: %d %s", w.Code, w.Body)
	}
	if w := h.as(one, "POST", "/v1/erasures", `{"endpoint":"of-acme","force":true}`); w.Code != http.StatusForbidden {
		t.Errorf("by a filter: %d %s", w.Code, w.Body)
	}
	if w := h.as(acme(Operate), "POST", "/v1/erasures", `{"endpoint":"of-acme","force":true}`); w.Code != http.StatusAccepted {
		t.Errorf("of a tenant: %d %s", w.Code, w.Body)
	}
}

// Links between deliveries lead to no endpoint of others.
func TestRepeatsElsewhere(t *testing.T) {
	h := newHouse(t)
	again := h.ok("POST", "/v1/deliveries/"+h.delivery["acme"]+"/redeliver", `{"to":"fixed"}`)["id"].(string)
	if got := h.ok("GET", "/v1/deliveries/"+h.delivery["acme"], "")["redelivered_as"]; got == nil {
		t.Fatal("nothing was redelivered")
	}
	if w := h.as(acme(Read), "GET", "/v1/deliveries/"+h.delivery["acme"], ""); w.Code != http.StatusOK || strings.Contains(w.Body.String(), again) {
		t.Errorf("the answer names a delivery to another endpoint: %d %s", w.Code, w.Body)
	}
}

// A name that a bound token cannot have is refused in one way, in the file or of another tenant.
func TestTakenNames(t *testing.T) {
	h := newHouse(t)
	var answers []string
	h.as(nil, "DELETE", "/v1/endpoints/of-acme?force=true", "")
	before := h.o.Policy()
	h.o.Policy = func() *policy.Policy { return before } // one that is made after it is as one that is not in force
	h.ok("POST", "/v1/endpoints", `{"name":"unused","url":"https://a.example.com/","tenants":["beta"]}`)
	for _, name := range []string{"of-beta", "fixed", "of-acme", "unused"} {
		w := h.as(acme(Endpoints), "POST", "/v1/endpoints", fmt.Sprintf(`{"name":%q,"url":"https://a.example.com/"}`, name))
		answers = append(answers, fmt.Sprint(w.Code, strings.ReplaceAll(w.Body.String(), name, "NAME")))
	}
	for _, got := range answers {
		if got != answers[0] || !strings.Contains(got, "endpoint_exists") || !strings.Contains(got, "this name is taken, or was: choose another") {
			t.Errorf("%s\nwhere another has\n%s", got, answers[0])
		}
	}
	if w := h.as(nil, "POST", "/v1/endpoints", `{"name":"fixed","url":"https://a.example.com/"}`); !strings.Contains(w.Body.String(), "endpoint_in_file") {
		t.Errorf("of the whole: %s", w.Body)
	}
}

// Errors of the outbox show no value that must not be shown, and to bound tokens nothing of the machine.
func TestErrorsOfTheOutbox(t *testing.T) {
	h := newHouse(t)
	h.o.Hush = func(text string) string { return strings.ReplaceAll(text, "redis.internal", "***") }
	h.o.Records = lost{h.o.Records}
	for name, a := range map[string]*Access{"whole": nil, "bound": acme(Read)} {
		w := h.as(a, "GET", "/v1/deliveries", "")
		if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "redis.internal") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if told := strings.Contains(w.Body.String(), "no route to host"); told != (a == nil) {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
}

// lost is an outbox that is away.
type lost struct{ Records }

func (lost) Deliveries(context.Context, outbox.Query) (outbox.Page, error) {
	return outbox.Page{}, fmt.Errorf("%w: dial redis.internal: no route to host", outbox.ErrUnavailable)
}

// A slip of the pen in a rotation is refused, not taken for the default.
func TestRotationIsStrict(t *testing.T) {
	h := newHouse(t)
	for body, code := range map[string]string{`{"overlpa":"0"}`: "unknown_parameter", `{"overlap":"0","overlap":"1h"}`: "invalid_json", `[]`: "invalid_json", `{"overlap":0}`: "invalid_parameter", `{"secret":1}`: "invalid_parameter"} {
		var p struct{ Code string }
		w := h.as(nil, "POST", "/v1/endpoints/of-acme/secret/rotate", body)
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusBadRequest || p.Code != code {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, body := range []string{"", "{}", `{"overlap":"0"}`} {
		if w := h.as(nil, "POST", "/v1/endpoints/of-acme/secret/rotate", body); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

// A token may see more endpoints than a filter may name.
func TestBulkOverManyEndpoints(t *testing.T) {
	h := newHouse(t)
	many := &Access{Name: "many", May: Rights()}
	for i := range 150 {
		many.Endpoints = append(many.Endpoints, fmt.Sprintf("e%d", i))
	}
	many.Endpoints = append(many.Endpoints, "of-acme")
	if w := h.as(many, "POST", "/v1/redeliveries", `{"state":"failed","until":"0s"}`); w.Code != http.StatusAccepted {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Readers that are bound to tenants leave room for others.
func TestCrowd(t *testing.T) {
	c := NewCrowd(16)
	var leaves []func()
	enter := func(a *Access) bool {
		leave, ok := c.Enter(a)
		if ok {
			leaves = append(leaves, leave)
		}
		return ok
	}
	for _, step := range []struct {
		name string
		n    int
	}{{"a", 4}, {"b", 4}, {"c", 4}, {"d", 0}} {
		n := 0
		for range 16 {
			if enter(&Access{Name: step.name, Tenants: []string{step.name}}) {
				n++
			}
		}
		if n != step.n {
			t.Errorf("%d of %s enter, want %d", n, step.name, step.n)
		}
	}
	n := 0
	for range 16 {
		if enter(nil) {
			n++
		}
	}
	if n != 4 || enter(&Access{Name: "ops"}) {
		t.Errorf("%d of the whole enter, want 4", n)
	}
	for _, leave := range leaves {
		leave()
	}
	if c.all != 0 || c.bound != 0 || len(c.of) != 0 {
		t.Errorf("after all have left: %d, %d, %v", c.all, c.bound, c.of)
	}
}

// A bound token opens no more jobs than its share.
func TestJobsOfABoundToken(t *testing.T) {
	h := newHouse(t)
	body := `{"state":"failed","until":"0s"}`
	for range maxOfBound {
		if w := h.as(acme(Redeliver), "POST", "/v1/redeliveries", body); w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if w := h.as(acme(Redeliver), "POST", "/v1/redeliveries", body); !strings.Contains(w.Body.String(), "too_many_jobs") {
		t.Errorf("one too many: %d %s", w.Code, w.Body)
	}
	if w := h.as(nil, "POST", "/v1/redeliveries", body); w.Code != http.StatusAccepted {
		t.Errorf("of another: %d %s", w.Code, w.Body)
	}
}

// away is an outbox of which documents cannot be read.
type away struct{ outbox.Operable }

func (away) Document(context.Context, string, string) (outbox.Document, error) {
	return outbox.Document{}, outbox.ErrUnavailable
}

// That a job cannot be read now does not say that there is none.
func TestJobsOfABoundTokenDuringAnOutage(t *testing.T) {
	h := newHouse(t)
	h.o.Jobs = jobs.New(jobs.Options{Outbox: away{h.store}, Surroundings: Surroundings(h.o), Relay: func() string { return "relay-1" }, Alone: true, Log: zerolog.Nop()})
	for _, path := range []string{"/v1/jobs/" + h.job["acme"], "/v1/jobs/" + h.job["beta"], "/v1/jobs/none"} {
		if w := h.as(acme(Rights()...), "GET", path, ""); w.Code != 503 || !strings.Contains(w.Body.String(), string(problem.OutboxUnavailable)) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
