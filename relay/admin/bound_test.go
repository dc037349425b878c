package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

// ofTheWhole are texts that tell of the process, its network and its files, as newHouse and tellingHouse have them.
func ofTheWhole() []string {
	return []string{"machine-1", "relay-1", "987654", "of-the-file", "relay.hcl", "v9.8.7", "10.0.0.", "/outbox", `"hash"`, `"agrees"`, "uid 4711"}
}

// tellingHouse is a house of which every answer could tell something of the whole.
func tellingHouse(t *testing.T) *house {
	h := newHouse(t)
	h.o.Version = "v9.8.7"
	h.o.Config = func() Config { return Config{Generation: 987655, Hash: "987654", Error: "relay.hcl:3,1: no"} }
	h.o.Fleet = func(context.Context) (Fleet, error) {
		return Fleet{Relays: []Relay{{Number: 1, Host: "machine-1", Endpoints: map[string]string{"of-acme": "987654"}}}, Disagreements: map[string]string{"of-acme": "machine-1 differs"}}, nil
	}
	h.o.Test = func(e *policy.Endpoint, event *outbox.Event) (deliver.Result, error) {
		a := outbox.Attempt{N: 1, Started: time.Now(), Outcome: "retry", Code: policy.CodeEgress, Error: "connection to 10.0.0.7:443 denied", Relay: "machine-1", Generation: 987654}
		return deliver.Result{Endpoint: e.Name, EventID: event.ID, State: outbox.Failed, Attempt: a}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.o.Jobs.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	for until := time.Now().Add(20 * time.Second); ; { // a job names the Relay that works on it
		job, err := h.o.Jobs.Get(t.Context(), h.job["acme"])
		if err == nil && job.State.Over() && job.Relay != "" {
			return h
		}
		if time.Now().After(until) {
			t.Fatalf("the job is %+v, %v", job, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// No answer of any route tells those who are bound of Relays, machines, files, their generations and names in them; with all
// rights for the whole the same answers do.
func TestBoundSeeNothingOfTheWhole(t *testing.T) {
	told := map[string]bool{}
	for _, r := range newAPI(newHouse(t).o).table() {
		if r.id == "getDocument" {
			continue // it is the same for all, also without a token
		}
		t.Run(r.id, func(t *testing.T) {
			for name, a := range map[string]*Access{
				"of a tenant": acme(Rights()...), "of an endpoint": {Name: "one", May: Rights(), Endpoints: []string{"of-acme"}},
			} {
				h := tellingHouse(t) // the route may change what the other one sees
				h.job["acme"] = h.jobOf(t, a)
				w := h.as(a, r.method, h.pathOf(&r, "acme"), bodyOfRoute(r.id, "acme"))
				for _, text := range ofTheWhole() {
					if strings.Contains(w.Body.String(), text) {
						t.Errorf("%s, the answer has %s:\n%s", name, text, w.Body)
					}
				}
			}
		})
		h := tellingHouse(t)
		w := h.as(nil, r.method, h.pathOf(&r, "acme"), bodyOfRoute(r.id, "acme"))
		for _, text := range ofTheWhole() {
			told[text] = told[text] || strings.Contains(w.Body.String(), text)
		}
	}
	for _, text := range []string{"machine-1", "relay-1", "987654", "of-the-file", "relay.hcl", "v9.8.7", "10.0.0.", `"hash"`, `"agrees"`} {
		if !told[text] {
			t.Errorf("no answer for the whole has %s, so nothing is tested", text)
		}
	}
}

// jobOf makes a job of an access that an operator cancelled.
func (h *house) jobOf(t *testing.T, a *Access) string {
	t.Helper()
	var made BulkAnswer
	w := h.as(a, "POST", "/v1/redeliveries", `{"state":"failed","until":"0s","rate":0.01}`)
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || made.ID == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	_, _ = h.o.Jobs.Cancel(t.Context(), made.ID, "uid 4711") // it may have ended
	return made.ID
}

// Health and readiness are to those who are bound what they are to somebody without a token.
func TestHealthOfABoundToken(t *testing.T) {
	h := tellingHouse(t)
	for _, ready := range []error{nil, errors.New("/outbox is full")} {
		h.o.Ready = func() error { return ready }
		for _, path := range []string{"/healthz", "/readyz"} {
			open := httptest.NewRecorder()
			Probes(h.o).ServeHTTP(open, httptest.NewRequest("GET", path, nil))
			for _, right := range Rights() {
				w := h.as(acme(right), "GET", path, "")
				if w.Code != open.Code || w.Body.String() != open.Body.String() {
					t.Errorf("%s with %s: %d %s, without a token: %d %s", path, right, w.Code, w.Body, open.Code, open.Body)
				}
			}
		}
	}
}

// What a stream tells is stripped, too.
func TestTailOfABoundToken(t *testing.T) {
	w := httptest.NewRecorder()
	item := AttemptEnded{Outcome: "retry", Delivery: Delivery{ID: "dlv_1", Code: "body_error", Error: "relay.hcl:1,1: no", Last: &Last{N: 1, Relay: "machine-1"}}}
	for _, to := range []http.ResponseWriter{w, boundWriter{w}} {
		w.Body.Reset()
		tail := &tail{w: to, rc: http.NewResponseController(to)}
		if err := tail.write("attempt", item); err != nil {
			t.Fatal(err)
		}
		_, bound := to.(boundWriter)
		for _, text := range []string{"machine-1", "relay.hcl"} {
			if strings.Contains(w.Body.String(), text) == bound {
				t.Errorf("bound is %v: %s", bound, w.Body)
			}
		}
	}
}

// Errors of settings that somebody made at run time stay: they are their own.
func TestPlainErrors(t *testing.T) {
	for _, c := range [][3]string{
		{"body_error", "cannot build the body: endpoint.json:7,21-24: no such attribute", "cannot build the body: endpoint.json:7,21-24: no such attribute"},
		{"body_error", "cannot build the body: /etc/relay/relay.hcl:7,21-24: no such attribute", elseAsk},
		{"egress_denied", "connection to 10.1.2.3:443 denied: not a public address; egress.allow_private may open private ones", "connections to this address are not allowed"},
		{"no_socket", "1024 of 1024 connections are open", "no connection was free"},
		{"panic", "relay panicked in this attempt; its log has the stack", elseAsk},
		{"http_500", "the receiver answered 500", "the receiver answered 500"}, {"", "", ""}, {"egress_denied", "", ""},
	} {
		if got := plainError(c[0], c[1]); got != c[2] {
			t.Errorf("%s %q is told as %q", c[0], c[1], got)
		}
	}
}

// A test names whom receivers know, the title of the page, where there is one.
func TestTitleInTests(t *testing.T) {
	h := newHouse(t)
	var sent []byte
	h.o.Test = func(e *policy.Endpoint, event *outbox.Event) (deliver.Result, error) {
		sent = event.Data
		return deliver.Result{Endpoint: e.Name, State: outbox.Delivered, Attempt: outbox.Attempt{N: 1, Started: time.Now()}}, nil
	}
	for title, want := range map[string]string{"": "a test of Relay.", "acme-platform": "a test of acme-platform."} {
		h.o.Title = func() string { return title }
		if h.as(nil, "POST", "/v1/endpoints/of-acme/test", ""); !strings.Contains(string(sent), want) {
			t.Errorf("%q: %s", title, sent)
		}
	}
}
