package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/problem"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
	"relay/relay/jobs"
)

// operator is a sequel with all that changes it.
type operator struct {
	*sequel
	t   *testing.T
	log testkit.Log
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{sequel: newSequel(t), t: t}
	o.use(o.Mem)
	return o
}

// use makes the routes work on an outbox.
func (o *operator) use(m outbox.Operable) {
	o.options.Outbox, o.options.Records, o.options.Edits = m, m, m
	o.options.Log = zerolog.New(&o.log)
	o.options.Test = func(e *policy.Endpoint, event *outbox.Event) (deliver.Result, error) {
		return deliver.Result{Endpoint: e.Name, EventID: event.ID, State: outbox.Failed, Attempt: outbox.Attempt{
			N: 1, Started: time.Now(), Took: 3 * time.Millisecond, Status: 503, Outcome: "retry", Code: "http_503", Error: "the receiver answered 503",
			Request: "POST https://billing.example.com/hooks?***\r\nX-Key: ***\r\n", Head: "Server: x\r\n", Body: []byte("no"), Relay: "relay-1",
		}}, nil
	}
	o.options.Jobs = jobs.New(jobs.Options{
		Outbox: m, Surroundings: Surroundings(o.options), Relay: func() string { return "relay-1" }, Alone: true, Log: zerolog.Nop(),
		Endpoints: func(context.Context) (map[string]bool, error) {
			return map[string]bool{"billing": true, "search": true, "archive": true}, nil
		},
	})
}

// do asks a route that changes something.
func (o *operator) do(method, path, body string) *httptest.ResponseRecorder {
	o.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer canary-of-token")
	Authorize(func() *Tokens { return &Tokens{Whole: "canary-of-token"} }, false, nil, New(o.options)).ServeHTTP(w, r)
	if strings.Contains(w.Body.String(), "canary") {
		o.t.Errorf("%s %s answers a secret:\n%s", method, path, w.Body)
	}
	return w
}

// done reads an answer into one, and fails unless it has the status.
func done[T any](o *operator, status int, method, path, body string) T {
	o.t.Helper()
	w := o.do(method, path, body)
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if w.Code != status {
		o.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if err := d.Decode(&v); err != nil {
		o.t.Fatalf("%s %s: %v", method, path, err)
	}
	return v
}

// refuses checks that a request is refused with a code for a field, says what to do, and changes nothing.
func (o *operator) refuses(status int, code problem.Code, field, method, path, body string) {
	o.t.Helper()
	before := o.everything()
	w := o.do(method, path, body)
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != problem.ContentType {
		o.t.Fatalf("%s %s %s: %d %s (%v)", method, path, body, w.Code, w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Code != code || p.Field != field || len(p.Detail) < 20 {
		o.t.Errorf("%s %s %.100s: %+v, want %d %s for %q", method, path, body, p, status, code, field)
	}
	if after := o.everything(); after != before {
		o.t.Errorf("%s %s %.100s was refused, and changed something", method, path, body)
	}
}

// everything is all that is stored, as text.
func (o *operator) everything() string {
	o.t.Helper()
	page, err := o.Deliveries(context.Background(), outbox.Query{Limit: outbox.MaxPage})
	if err != nil {
		o.t.Fatal(err)
	}
	docs, _, err := o.Documents(context.Background(), "job", 0)
	if err != nil {
		o.t.Fatal(err)
	}
	slices.SortFunc(docs, func(a, b outbox.Document) int { return strings.Compare(a.Name, b.Name) })
	lines, err := o.Lines(context.Background(), 0, outbox.MaxPage)
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := json.Marshal([]any{page, docs, lines})
	if err != nil {
		o.t.Fatal(err)
	}
	return string(text)
}

// audits returns the entries of the audit, newest first.
func (o *operator) audits() []AuditEntry {
	o.t.Helper()
	return done[AuditList](o, 200, "GET", "/v1/audit?limit=100", "").Items
}

func (o *operator) lastAudit(verb, what string) AuditEntry {
	o.t.Helper()
	e := o.audits()[0]
	if e.Verb != verb || e.What != what || e.Who != "admin token" || time.Since(e.Time) > time.Hour {
		o.t.Errorf("audit: %+v, want %s of %s", e, verb, what)
	}
	return e
}

func TestChangeOneDelivery(t *testing.T) {
	o := newOperator(t)
	id := o.ids["archive"]
	got := done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+id+"/retry", "")
	if got.ID != id || got.State != "held" || !got.Unchanged {
		t.Errorf("retry of what is due: %+v", got)
	}
	if n := len(o.audits()); n != 0 {
		t.Errorf("%d entries of the audit for what was so already", n)
	}
	got = done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+id+"/discard", "")
	if got.State != "discarded" || got.Code != "discarded_by_operator" || got.Unchanged || got.Finished.IsZero() {
		t.Errorf("discard: %+v", got)
	}
	e := o.lastAudit("discard", "delivery "+id)
	if string(e.Before) == "" || !strings.Contains(string(e.Before), `"state":"held"`) || !strings.Contains(string(e.After), `"state":"discarded"`) || *e.Count != (Total{N: 1}) {
		t.Errorf("audit: %+v", e)
	}
	if got = done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+id+"/discard", ""); !got.Unchanged {
		t.Errorf("discard again: %+v", got)
	}
	if got := done[Redelivery](o, 202, "POST", "/v1/deliveries/"+id+"/redeliver", ""); got.RedeliveryOf != id || got.Endpoint != "archive" || got.ID == id {
		t.Errorf("redeliver: %+v", got)
	}
	o.lastAudit("redeliver", "delivery "+id)
	again := done[Redelivery](o, 202, "POST", "/v1/deliveries/"+id+"/redeliver", ` {"to":"billing"} `)
	if d := o.record(again.ID); d.Endpoint != "billing" || d.RedeliveryOf != id || !d.Manual || d.State != "pending" || string(d.Payload) == "null" {
		t.Errorf("redeliver to another endpoint: %+v", d)
	}

	// One that waits for its retry is due at once.
	o.settle(t, "billing", outbox.Attempt{N: 1, Code: "timeout"}, outbox.Pending)
	if d := done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+again.ID+"/retry", ""); d.Attempts != 1 || d.NextAttempt.After(time.Now()) {
		t.Errorf("retry: %+v", d)
	}
	if !strings.Contains(o.log.String(), `"by":"admin token"`) || strings.Contains(o.log.String(), "canary") {
		t.Errorf("log:\n%s", o.log.String())
	}
}

func (o *operator) record(id string) DeliveryWhole {
	o.t.Helper()
	return done[DeliveryWhole](o, 200, "GET", "/v1/deliveries/"+id, "")
}

func TestChangeOneRefused(t *testing.T) {
	o := newOperator(t)
	failed, delivered, pending := o.ids["search"], o.ids["billing"], o.ids["again"]
	for _, verb := range []string{"retry", "discard", "redeliver"} {
		path := func(id string) string { return "/v1/deliveries/" + id + "/" + verb }
		o.refuses(404, problem.DeliveryNotFound, "id", "POST", path("dlv_absent"), "")
		o.refuses(404, problem.DeliveryNotFound, "id", "POST", path(strings.Repeat("x", 500)), "")
		for _, id := range []string{"evt_1", "evt_absent", "job_0123", "bat_0123"} {
			o.refuses(404, problem.OtherKind, "id", "POST", path(id), "")
		}
	}
	o.refuses(409, problem.DeliveryOver, "id", "POST", "/v1/deliveries/"+delivered+"/retry", "")
	o.refuses(409, problem.DeliveryOver, "id", "POST", "/v1/deliveries/"+failed+"/discard", "")
	o.refuses(409, problem.DeliveryPending, "id", "POST", "/v1/deliveries/"+pending+"/redeliver", "")
	o.refuses(404, problem.EndpointNotFound, "to", "POST", "/v1/deliveries/"+failed+"/redeliver", `{"to":"nowhere"}`)
	for body, want := range map[string]struct {
		code  problem.Code
		field string
	}{
		`{`:                         {problem.InvalidJSON, ""},
		`[]`:                        {problem.InvalidJSON, ""},
		`{"to":"billing"}{}`:        {problem.InvalidJSON, ""},
		`{"to":"billing","to":"b"}`: {problem.InvalidJSON, ""},
		"{\"to\":\"\xff\"}":         {problem.InvalidJSON, ""},
		`{"endpoint":"billing"}`:    {problem.UnknownParameter, "endpoint"},
		`{"to":7}`:                  {problem.InvalidParameter, "to"},
		`{"to":""}`:                 {problem.InvalidParameter, "to"},
		`{"to":"` + strings.Repeat("x", 257) + `"}`: {problem.InvalidParameter, "to"},
	} {
		o.refuses(400, want.code, want.field, "POST", "/v1/deliveries/"+failed+"/redeliver", body)
	}
	o.refuses(413, problem.BodyTooLarge, "", "POST", "/v1/deliveries/"+failed+"/redeliver", strings.Repeat(" ", 64<<10+1))

	// An attempt is under way.
	claims, err := o.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "archive", Max: 1, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	o.refuses(409, problem.AttemptUnderWay, "id", "POST", "/v1/deliveries/"+claims[0].ID+"/discard", "")

	// The endpoint is gone.
	o.accept(t, outbox.Event{ID: "evt_gone", Type: "t", Data: []byte(`1`)}, "gone")
	o.settle(t, "gone", outbox.Attempt{N: 1}, outbox.Failed)
	o.refuses(409, problem.EndpointRemoved, "to", "POST", "/v1/deliveries/"+o.ids["gone"]+"/redeliver", "")
	done[Redelivery](o, 202, "POST", "/v1/deliveries/"+o.ids["gone"]+"/redeliver", `{"to":"search"}`)
}

func TestEraseOneEvent(t *testing.T) {
	o := newOperator(t)
	o.refuses(409, problem.DeliveryPending, "force", "DELETE", "/v1/events/evt_1/data", "")
	o.refuses(409, problem.DeliveryPending, "force", "DELETE", "/v1/events/evt_1/data?force=false", "")
	o.refuses(400, problem.InvalidParameter, "force", "DELETE", "/v1/events/evt_1/data?force=1", "")
	o.refuses(400, problem.UnknownParameter, "dry_run", "DELETE", "/v1/events/evt_1/data?dry_run=true", "")
	o.refuses(404, problem.EventNotFound, "id", "DELETE", "/v1/events/evt_absent/data", "")
	for _, id := range []string{o.ids["search"], "bat_1", "job_1"} {
		o.refuses(404, problem.OtherKind, "id", "DELETE", "/v1/events/"+id+"/data", "")
	}
	e := done[Erasure](o, 200, "DELETE", "/v1/events/evt_1/data?force=true", "")
	if e.ID != "evt_1" || e.Erased.IsZero() || e.Unchanged {
		t.Errorf("erase: %+v", e)
	}
	if d := o.record(o.ids["archive"]); d.State != "discarded" || d.Code != "erased_by_operator" || string(d.Payload) != "null" {
		t.Errorf("delivery of an erased event: %+v", d)
	}
	o.lastAudit("erase", "event evt_1")
	if again := done[Erasure](o, 200, "DELETE", "/v1/events/evt_1/data", ""); !again.Unchanged || !again.Erased.Equal(e.Erased) {
		t.Errorf("erase again: %+v", again)
	}
	o.refuses(409, problem.EventErased, "id", "POST", "/v1/deliveries/"+o.ids["search"]+"/redeliver", "")
	done[Erasure](o, 200, "DELETE", "/v1/events/evt_2/data", "") // that nobody wanted
	if n := len(o.audits()); n != 2 {
		t.Errorf("%d entries of the audit, want 2", n)
	}
}

func TestFullOutboxRefusesRedeliveries(t *testing.T) {
	o := newOperator(t)
	o.Mem = outboxtest.NewMem(outboxtest.MemOptions{MaxBytes: 1100})
	o.use(o.Mem)
	o.accept(t, outbox.Event{ID: "evt_1", Type: "t", Data: []byte(`1`)}, "billing")
	o.settle(t, "billing", outbox.Attempt{N: 1}, outbox.Failed)
	o.refuses(507, problem.OutboxFull, "", "POST", "/v1/deliveries/"+o.ids["billing"]+"/redeliver", "")
}

func TestEndpointTest(t *testing.T) {
	o := newOperator(t)
	got := done[TestResult](o, 200, "POST", "/v1/endpoints/billing/test", "")
	if got.State != "failed" || got.Status != 503 || got.Code != "http_503" || got.TookMS != 3 || got.Response == nil || got.Response.Body != "no" || got.Event.Type != "relay.test" || got.Endpoint != "billing" || !got.Manual {
		t.Errorf("test: %+v", got)
	}
	d := o.record(got.ID)
	if d.Event.ID != got.Event.ID || d.State != "failed" || !d.Manual || len(d.History) != 1 || !bytes.Contains(d.Payload, []byte(`"endpoint":"billing"`)) {
		t.Errorf("delivery of the test: %+v", d)
	}
	if e := o.lastAudit("test", "endpoint billing"); !strings.Contains(string(e.After), `"status":503`) {
		t.Errorf("audit: %+v", e)
	}
	got = done[TestResult](o, 200, "POST", "/v1/endpoints/archive/test", `{"type":"order.paid","data":{"n":12345678901234567890.10}}`)
	if d := o.record(got.ID); d.Event.Type != "order.paid" || string(d.Payload) != `{"n":12345678901234567890.10}` {
		t.Errorf("test of its own event: %+v", d)
	}
	o.refuses(404, problem.EndpointNotFound, "", "POST", "/v1/endpoints/nowhere/test", "")
	for body, want := range map[string]struct {
		code  problem.Code
		field string
	}{
		`{`:                      {problem.InvalidJSON, ""},
		`{"data":{"a":1,"a":2}}`: {problem.InvalidJSON, ""},
		`{"data":}`:              {problem.InvalidJSON, ""},
		`{"payload":1}`:          {problem.UnknownParameter, "payload"},
		`{"type":7}`:             {problem.InvalidParameter, "type"},
		`{"type":"a b"}`:         {problem.InvalidType, "type"},
		`{"data":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`: {problem.TooDeep, "data"},
	} {
		o.refuses(400, want.code, want.field, "POST", "/v1/endpoints/billing/test", body)
	}
	o.refuses(413, problem.BodyTooLarge, "", "POST", "/v1/endpoints/billing/test", `{"data":"`+strings.Repeat("x", 300<<10)+`"}`)

	// A Relay that stops says so, and a test that cannot be stored is answered all the same.
	o.options.Test = func(*policy.Endpoint, *outbox.Event) (deliver.Result, error) {
		return deliver.Result{}, deliver.ErrStopping
	}
	o.refuses(503, problem.OutboxUnavailable, "", "POST", "/v1/endpoints/billing/test", "")
	o = newOperator(t)
	o.options.Edits = noRoom{o.Mem}
	got = done[TestResult](o, 200, "POST", "/v1/endpoints/billing/test", "")
	if got.ID != "" || got.Unrecorded == "" || got.Status != 503 {
		t.Errorf("test in a full outbox: %+v", got)
	}
}

// noRoom is an outbox that takes nothing new, and no entry of the audit.
type noRoom struct{ *outboxtest.Mem }

func (noRoom) Record(context.Context, outbox.Event, string, outbox.Settlement) (string, error) {
	return "", outbox.ErrFull
}

func (noRoom) Append(context.Context, []byte) (outbox.Line, error) {
	return outbox.Line{}, errors.New("no room")
}

func TestTestsAreBounded(t *testing.T) {
	o := newOperator(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	o.options.Test = func(e *policy.Endpoint, event *outbox.Event) (deliver.Result, error) {
		entered <- struct{}{}
		<-leave
		return deliver.Result{Endpoint: e.Name, State: outbox.Delivered, Attempt: outbox.Attempt{N: 1, Status: 200}}, nil
	}
	handler := New(o.options)
	ask := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/endpoints/billing/test", nil))
		return w.Code
	}
	codes := make(chan int, maxTests)
	for range maxTests {
		go func() { codes <- ask() }()
		<-entered
	}
	if code := ask(); code != 503 {
		t.Errorf("one test more: %d, want 503", code)
	}
	close(leave)
	for range maxTests {
		if code := <-codes; code != 200 {
			t.Errorf("test: %d", code)
		}
	}
	go func() { <-entered }()
	if code := ask(); code != 200 {
		t.Errorf("a test after the others: %d", code)
	}
}

// An outbox that is away is told as such, and nothing else is said.
func TestChangesUnavailable(t *testing.T) {
	o := newOperator(t)
	if err := o.Mem.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ask := range [][3]string{
		{"POST", "/v1/deliveries/" + o.ids["search"] + "/retry", ""}, {"POST", "/v1/deliveries/" + o.ids["search"] + "/redeliver", ""},
		{"DELETE", "/v1/events/evt_1/data", ""}, {"POST", "/v1/redeliveries", `{"endpoint":"search"}`}, {"GET", "/v1/jobs", ""},
		{"GET", "/v1/jobs/job_1", ""}, {"POST", "/v1/jobs/job_1/cancel", ""}, {"GET", "/v1/audit", ""},
	} {
		w := o.do(ask[0], ask[1], ask[2])
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 503 || p.Code != problem.OutboxUnavailable {
			t.Errorf("%s %s: %d %s", ask[0], ask[1], w.Code, w.Body)
		}
	}
	o.options.Edits = nil
	if w := o.do("GET", "/v1/jobs", ""); w.Code != 404 {
		t.Errorf("jobs of an outbox without them: %d", w.Code)
	}
}
