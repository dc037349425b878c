package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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
	if string(e.Before) == "" || !strings.Contains(string(e.Before), `"state":"held"`) || !strings.Contains(string(e.After), `"state":"discarded"`) || *e.Count != 1 {
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

// work runs the jobs until the test or the call of stop ends.
func (o *operator) work() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		o.options.Jobs.Run(ctx)
		close(ended)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		time.Sleep(time.Second)
		const filter = `"event":"evt_1"`
		dry := done[BulkAnswer](o, 200, "POST", "/v1/redeliveries", `{`+filter+`,"dry_run":true}`)
		if dry.ID != "" || dry.Matched.N != 1 || dry.Matched.AtLeast || !dry.DryRun || dry.Filter["state"][0] != "failed" || len(dry.Filter["until"]) != 1 {
			t.Errorf("dry run: %+v", dry)
		}
		if got := done[JobList](o, 200, "GET", "/v1/jobs", ""); len(got.Items) != 0 || got.Next != nil || got.Total.N != 0 {
			t.Errorf("jobs after a dry run: %+v", got)
		}
		made := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{`+filter+`,"state":["failed","delivered"],"rate":0.5,"since":"2h"}`)
		if made.Matched.N != 2 || made.ID == "" || made.DryRun {
			t.Errorf("redeliveries: %+v", made)
		}
		e := o.lastAudit("redeliver", "job "+made.ID)
		if *e.Count != 2 || !strings.Contains(string(e.After), `"rate":0.5`) || !strings.Contains(string(e.After), `"event":["evt_1"]`) {
			t.Errorf("audit: %+v", e)
		}
		job := done[Job](o, 200, "GET", "/v1/jobs/"+made.ID, "")
		if job.State != "waiting" || job.Action != "redeliver" || job.Matched.N != 2 || job.Who != "admin token" || job.Rate != 0.5 || job.Skipped == nil || job.Created.IsZero() {
			t.Errorf("job: %+v", job)
		}
		stop := o.work()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		job = done[Job](o, 200, "GET", "/v1/jobs/"+made.ID, "")
		if job.State != "done" || job.Done != 1 || job.Seen != 2 || job.Skipped["on_its_way"] != 1 || job.Ended.IsZero() || job.Relay != "relay-1" {
			t.Errorf("job: %+v", job)
		}
		if n := len(done[EventWhole](o, 200, "GET", "/v1/events/evt_1", "").Deliveries); n != 5 {
			t.Errorf("%d deliveries of the event, want 5", n)
		}
		o.refuses(409, problem.JobEnded, "id", "POST", "/v1/jobs/"+made.ID+"/cancel", "")

		// To another endpoint, pending ones, erasures, and a job that is cancelled. Nobody works on the first three while they are made.
		stop()
		to := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{`+filter+`,"to":"archive"}`)
		discard := done[BulkAnswer](o, 202, "POST", "/v1/discards", `{"endpoint":["archive","billing"]}`)
		retry := done[BulkAnswer](o, 202, "POST", "/v1/retries", `{"state":"held"}`)
		if discard.Matched.N != 2 || retry.Matched.N != 1 || len(discard.Filter["state"]) != 2 {
			t.Errorf("discards: %+v, retries: %+v", discard, retry)
		}
		stop = o.work()
		time.Sleep(time.Minute)
		erase := done[BulkAnswer](o, 202, "POST", "/v1/erasures", `{"until":"0s","force":true}`)
		time.Sleep(time.Minute)
		if job := done[Job](o, 200, "GET", "/v1/jobs/"+to.ID, ""); job.State != "done" || job.Done+job.Skipped["on_its_way"] != 1 { // the discards may come first
			t.Errorf("job: %+v", job)
		}
		if job := done[Job](o, 200, "GET", "/v1/jobs/"+erase.ID, ""); job.State != "done" || job.Done != 1 {
			t.Errorf("job: %+v", job)
		}
		stop()
		o.accept(t, outbox.Event{ID: "evt_3", Type: "t", Data: []byte(`1`)}, "archive")
		time.Sleep(time.Second)
		last := done[BulkAnswer](o, 202, "POST", "/v1/discards", `{"endpoint":"archive"}`)
		cancelled := done[Job](o, 200, "POST", "/v1/jobs/"+last.ID+"/cancel", "")
		if cancelled.State != "cancelled" || cancelled.CancelledBy != "admin token" {
			t.Errorf("cancelled: %+v", cancelled)
		}
		o.lastAudit("cancel", "job "+last.ID)
		o.refuses(409, problem.JobEnded, "id", "POST", "/v1/jobs/"+last.ID+"/cancel", "")

		// Pages.
		var ids []string
		path := "/v1/jobs?limit=2"
		for {
			list := done[JobList](o, 200, "GET", path, "")
			if list.Total.N != 6 {
				t.Errorf("total: %+v", list.Total)
			}
			for _, j := range list.Items {
				ids = append(ids, j.ID)
			}
			if list.Next == nil {
				break
			}
			path = "/v1/jobs?limit=2&cursor=" + *list.Next
		}
		if len(ids) != 6 || ids[0] != last.ID || ids[5] != made.ID {
			t.Errorf("jobs: %v", ids)
		}
		o.refuses(400, problem.InvalidCursor, "cursor", "GET", "/v1/jobs?cursor=7", "")
		o.refuses(404, problem.JobNotFound, "id", "GET", "/v1/jobs/job_absent", "")
		o.refuses(404, problem.JobNotFound, "id", "POST", "/v1/jobs/"+strings.Repeat("x", 300)+"/cancel", "")
		o.refuses(404, problem.OtherKind, "id", "GET", "/v1/jobs/evt_1", "")
		o.refuses(404, problem.OtherKind, "id", "POST", "/v1/jobs/dlv_1/cancel", "")
	})
}

func TestJobsRefused(t *testing.T) {
	o := newOperator(t)
	time.Sleep(2 * time.Millisecond)
	paths := []string{"/v1/redeliveries", "/v1/retries", "/v1/discards", "/v1/erasures"}
	for _, path := range paths {
		for body, want := range map[string]struct {
			status int
			code   problem.Code
			field  string
		}{
			``:                                       {400, problem.EmptyBody, ""},
			`{`:                                      {400, problem.InvalidJSON, ""},
			`[]`:                                     {400, problem.InvalidJSON, ""},
			`{}`:                                     {400, problem.EmptyFilter, ""},
			`{"dry_run":true}`:                       {400, problem.EmptyFilter, ""},
			`{"endpoint":"nowhere"}`:                 {400, problem.InvalidParameter, "endpoint"},
			`{"tenant":"nobody"}`:                    {422, problem.NothingMatched, ""},
			`{"tenant":"nobody","dry_run":true}`:     {422, problem.NothingMatched, ""},
			`{"endpoint":""}`:                        {400, problem.InvalidParameter, "endpoint"},
			`{"endpoints":"billing"}`:                {400, problem.UnknownParameter, "endpoints"},
			`{"limit":10}`:                           {400, problem.UnknownParameter, "limit"},
			`{"cursor":"x"}`:                         {400, problem.UnknownParameter, "cursor"},
			`{"offset":10}`:                          {400, problem.UnknownParameter, "offset"},
			`{"order":"oldest"}`:                     {400, problem.UnknownParameter, "order"},
			`{"state":"broken"}`:                     {400, problem.InvalidParameter, "state"},
			`{"status":"abc"}`:                       {400, problem.InvalidParameter, "status"},
			`{"event":"dlv_1"}`:                      {400, problem.InvalidParameter, "event"},
			`{"since":"yesterday"}`:                  {400, problem.InvalidParameter, "since"},
			`{"data.other":"1"}`:                     {400, problem.NotIndexed, "data.other"},
			`{"endpoint":"billing","rate":0}`:        {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","rate":1e9}`:      {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","rate":"10"}`:     {400, problem.InvalidParameter, "rate"},
			`{"endpoint":"billing","dry_run":"yes"}`: {400, problem.InvalidParameter, "dry_run"},
			`{"endpoint":"billing","dry_run":1}`:     {400, problem.InvalidParameter, "dry_run"},
		} {
			o.refuses(want.status, want.code, want.field, "POST", path, body)
		}
		o.refuses(413, problem.BodyTooLarge, "", "POST", path, `{"endpoint":"`+strings.Repeat("x", 64<<10)+`"}`)
	}
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/redeliveries", `{"state":"pending"}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/redeliveries", `{"state":["pending","held"]}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/retries", `{"state":"failed"}`)
	o.refuses(400, problem.InvalidParameter, "state", "POST", "/v1/discards", `{"state":"success"}`)
	o.refuses(404, problem.EndpointNotFound, "to", "POST", "/v1/redeliveries", `{"endpoint":"billing","to":"nowhere"}`)
	o.refuses(400, problem.InvalidParameter, "to", "POST", "/v1/redeliveries", `{"endpoint":"billing","to":["search"]}`)
	o.refuses(400, problem.UnknownParameter, "to", "POST", "/v1/retries", `{"endpoint":"billing","to":"search"}`)
	o.refuses(400, problem.UnknownParameter, "force", "POST", "/v1/discards", `{"endpoint":"billing","force":true}`)
	o.refuses(400, problem.InvalidParameter, "force", "POST", "/v1/erasures", `{"endpoint":"billing","force":"yes"}`)

	for n := range jobs.MaxOpen {
		_, err := o.PutDocument(t.Context(), outbox.Document{Kind: "job", Name: fmt.Sprintf("job_%d", n), Body: fmt.Appendf(nil, `{"id":"job_%d","state":"waiting"}`, n)})
		if err != nil {
			t.Fatal(err)
		}
	}
	o.refuses(409, problem.TooManyJobs, "", "POST", "/v1/redeliveries", `{"endpoint":"search"}`)
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

// The audit can be asked for by who, verb, what and time; pages go on where the one before ended.
func TestAuditFilter(t *testing.T) {
	o := newOperator(t)
	for _, verb := range []string{"pause", "resume", "disable", "enable", "pause"} {
		done[Endpoint](o, 200, "POST", "/v1/endpoints/billing/"+verb, "")
	}
	who := o.audits()[0].Who
	numbers := func(query string) string {
		t.Helper()
		var all []uint64
		for path := "/v1/audit?" + query; ; {
			list := done[AuditList](o, 200, "GET", path, "")
			for _, e := range list.Items {
				all = append(all, e.N)
			}
			if list.Next == nil {
				return fmt.Sprint(all)
			}
			path = "/v1/audit?" + query + "&cursor=" + *list.Next
		}
	}
	for query, want := range map[string]string{
		"verb=pause": "[5 1]", "verb=pause&limit=1": "[5 1]", "verb=pause&verb=enable": "[5 4 1]", "verb=paus": "[]",
		"what=BILL&limit=3": "[5 4 3 2 1]", "what=endpoint+billing": "[5 4 3 2 1]", "what=shop": "[]",
		"who=" + url.QueryEscape(strings.ToUpper(who)): "[5 4 3 2 1]", "who=nobody": "[]",
		"since=1h": "[5 4 3 2 1]", "until=1h": "[]", "since=2100-01-01T00:00:00Z": "[]", "until=0s&verb=resume": "[2]",
	} {
		if got := numbers(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestAudit(t *testing.T) {
	o := newOperator(t)
	for _, verb := range []string{"pause", "resume", "disable", "enable"} {
		done[Endpoint](o, 200, "POST", "/v1/endpoints/billing/"+verb, "")
		e := o.lastAudit(verb, "endpoint billing")
		if !strings.Contains(string(e.Before), "state") || !strings.Contains(string(e.After), "state") {
			t.Errorf("audit of %s: %+v", verb, e)
		}
	}
	before := len(o.audits())
	o.options.Reload = func(context.Context) (Reloaded, error) {
		return Reloaded{Generation: 8, Changed: []string{"billing"}, Lines: slices.Repeat([]string{strings.Repeat("x", 100)}, 1000)}, nil
	}
	done[Reloaded](o, 200, "POST", "/v1/reload", "")
	if e := o.lastAudit("reload", "configuration"); !strings.Contains(string(e.Before), `"generation":7`) || !strings.Contains(string(e.After), `"changed":["billing"]`) || !strings.Contains(string(e.After), "and 970 lines more") {
		t.Errorf("audit of a reload: %+v", e)
	}
	o.options.Reload = func(context.Context) (Reloaded, error) { return Reloaded{Generation: 8}, nil }
	done[Reloaded](o, 200, "POST", "/v1/reload", "") // nothing was changed
	if n := len(o.audits()); n != before+1 {
		t.Errorf("%d entries, want %d", n, before+1)
	}

	var seen []uint64
	path := "/v1/audit?limit=2"
	for {
		list := done[AuditList](o, 200, "GET", path, "")
		for _, e := range list.Items {
			seen = append(seen, e.N)
		}
		if list.Next == nil {
			break
		}
		path = "/v1/audit?limit=2&cursor=" + *list.Next
	}
	if fmt.Sprint(seen) != "[5 4 3 2 1]" {
		t.Errorf("entries: %v", seen)
	}
	for query, want := range map[string]struct {
		code  problem.Code
		field string
	}{
		"limit=0": {problem.InvalidParameter, "limit"}, "limit=101": {problem.InvalidParameter, "limit"}, "limit=x": {problem.InvalidParameter, "limit"},
		"limit=1&limit=2": {problem.InvalidParameter, "limit"}, "cursor=x": {problem.InvalidCursor, "cursor"}, "cursor=0": {problem.InvalidCursor, "cursor"},
		"cursor=-1": {problem.InvalidCursor, "cursor"}, "whom=x": {problem.UnknownParameter, "whom"}, "who=": {problem.InvalidParameter, "who"}, "what=a&what=b": {problem.InvalidParameter, "what"}, "since=yesterday": {problem.InvalidParameter, "since"}, "until=x": {problem.InvalidParameter, "until"},
	} {
		o.refuses(400, want.code, want.field, "GET", "/v1/audit?"+query, "")
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
