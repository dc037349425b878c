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
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
)

const data = `{"n":12345678901234567890.10,"html":"<b>&</b>", "deviceId" : "cam-7"}`

// sequel is an outbox with a history: of event evt_1 billing has it (2nd attempt), search failed and was
// redelivered as a pending one, and the paused archive holds it. Nobody wanted evt_2.
type sequel struct {
	*outboxtest.Mem
	options Options
	ids     map[string]string // of deliveries, by endpoint; "again" is the redelivery
}

// decodePolicy reads a file.
func decodePolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte(text), func(name string) (string, bool) { return "canary-of-env", true })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newSequel(t *testing.T) *sequel {
	t.Helper()
	p := decodePolicy(t, `
		endpoint "billing" {
			url     = "https://billing.example.com/hooks?token=canary-of-url"
			sign    = ["none"]
			body    = { kind = event.type, from = env("FROM"), data = event.data }
			labels  = { project = "web" }
			headers = { X-Key = "canary-of-header" }
		}
		endpoint "search" {
			url   = "https://search.example.com/"
			sign  = ["none"]
			retry { schedule = ["1s"] }
			batch {}
		}
		endpoint "archive" {
			url  = "https://archive.example.com/"
			sign = ["none"]
		}`)
	s := &sequel{Mem: outboxtest.NewMem(outboxtest.MemOptions{}), ids: map[string]string{}}
	g := gatesOf(p)
	g.status[2].State = deliver.Paused
	s.options = Options{
		Outbox: s.Mem, Records: s.Mem, Policy: func() *policy.Policy { return p }, Deliverer: g,
		Config:  func() Config { return Config{Generation: 7, Hash: "0123456789ab"} },
		Indexed: func(path string) bool { return path == "data.deviceId" },
	}
	at := time.Date(2026, 1, 31, 11, 59, 59, 500_000_000, time.UTC)
	e := outbox.Event{ID: "evt_1", Type: "invoice.paid", Time: at, Tenant: "acme", Key: "order-1", Data: []byte(data), Via: "unix", Relay: "relay-1",
		Fields: []outbox.Field{{Path: "data.deviceId", Value: "cam-7"}}}
	s.accept(t, e, "billing", "search", "archive")
	s.accept(t, outbox.Event{ID: "evt_2", Type: "nothing", Time: at, Data: []byte(`1`)})
	s.settle(t, "billing", outbox.Attempt{N: 1, Started: at, Took: 1500 * time.Microsecond, Outcome: "retry", Code: "connection_refused", Error: "nobody listens"}, outbox.Pending)
	s.settle(t, "billing", outbox.Attempt{
		N: 2, Started: at.Add(time.Second), Took: 20 * time.Millisecond, Timing: outbox.Timing{DNS: time.Millisecond, FirstByte: 3 * time.Millisecond}, Status: 200, Outcome: "delivered",
		Reused: true, Peer: "192.0.2.1:443", Request: "POST https://billing.example.com/hooks?***\r\nContent-Type: application/json\r\nX-Key: ***\r\n",
		Head: "Content-Length: 2\r\nServer: x\r\n", Body: []byte("ok"), Relay: "relay-1", Generation: 6,
	}, outbox.Delivered)
	s.settle(t, "search", outbox.Attempt{
		N: 1, Started: at, Took: time.Second, Status: 503, Outcome: "refused", Code: "http_503", Error: "the receiver answered 503",
		Request: "POST https://search.example.com/\r\n", Body: bytes.Repeat([]byte{0xff}, 10),
	}, outbox.Failed)
	s.ids["archive"] = s.find(t, "archive")
	edited, err := s.Edit(context.Background(), []outbox.Change{{Action: outbox.Redeliver, Delivery: s.ids["search"]}})
	if err != nil || edited[0].Err != nil {
		t.Fatal(err, edited)
	}
	s.ids["again"] = edited[0].Delivery
	return s
}

func (s *sequel) accept(t *testing.T, e outbox.Event, endpoints ...string) {
	t.Helper()
	if _, err := s.Accept(context.Background(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: endpoints}}}); err != nil {
		t.Fatal(err)
	}
}

func (s *sequel) settle(t *testing.T, endpoint string, a outbox.Attempt, state outbox.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 1, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s.ids[endpoint] = claims[0].ID
	if err := s.Settle(ctx, claims[0], outbox.Settlement{Attempt: a, State: state, Due: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// find returns the id of an endpoint's newest delivery.
func (s *sequel) find(t *testing.T, endpoint string) string {
	t.Helper()
	page, err := s.Deliveries(context.Background(), outbox.Query{Filter: outbox.Filter{Endpoints: []string{endpoint}}, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return page.Items[0].ID
}

// ask reads an answer into one, and fails unless it is 200.
func ask[T any](t *testing.T, s *sequel, path string) T {
	t.Helper()
	w := get(s.options, "GET", path)
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || w.Code != 200 {
		t.Fatalf("GET %s: %d %v", path, w.Code, err)
	}
	return v
}

func TestListDeliveries(t *testing.T) {
	s := newSequel(t)
	names := map[string]string{}
	for name, id := range s.ids {
		names[id] = name
	}
	for query, want := range map[string]string{
		"":                                      "again archive billing search",
		"?state=delivered":                      "billing",
		"?state=success":                        "billing",
		"?state=failed":                         "search",
		"?state=held":                           "archive",
		"?state=pending":                        "again",
		"?state=pending&state=held":             "again archive",
		"?endpoint=search":                      "again search",
		"?label.project=web":                    "billing",
		"?type=invoice.*":                       "again archive billing search",
		"?type=invoice":                         "",
		"?status=5xx":                           "search",
		"?attempts=%3E%3D2":                     "billing",
		"?manual=true":                          "again",
		"?data.deviceId=cam-7":                  "again archive billing search",
		"?data.deviceId=cam-8":                  "",
		"?event=evt_1&state=failed":             "search",
		"?event=evt_2":                          "",
		"?since=1h&tenant=acme":                 "again archive billing search",
		"?until=1h":                             "",
		"?attempted_until=1970-01-02T00:00:00Z": "",
	} {
		list := ask[DeliveryList](t, s, "/v1/deliveries"+query)
		var got []string
		for _, d := range list.Items {
			got = append(got, names[d.ID])
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want || list.Next != nil || *list.Total != (Total{N: int64(len(got))}) {
			t.Errorf("%s: %v, total %v; want %s", query, got, list.Total, want)
		}
	}
}

func TestPagesOfDeliveries(t *testing.T) {
	s := newSequel(t)
	var got, want []string
	for _, d := range ask[DeliveryList](t, s, "/v1/deliveries?order=oldest").Items {
		want = append(want, d.ID)
	}
	path := "/v1/deliveries?order=oldest&limit=1&since=1h"
	for next := path; ; {
		list := ask[DeliveryList](t, s, next)
		for _, d := range list.Items {
			got = append(got, d.ID)
		}
		if *list.Total != (Total{N: 4}) {
			t.Errorf("total is %v", list.Total)
		}
		if list.Next == nil {
			break
		}
		next = path + "&cursor=" + url.QueryEscape(*list.Next)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	list := ask[DeliveryList](t, s, "/v1/deliveries?order=oldest&limit=2&offset=1&total=false")
	if len(list.Items) != 2 || list.Items[0].ID != want[1] || list.Total != nil {
		t.Errorf("%+v", list)
	}
}

func TestShowDelivery(t *testing.T) {
	s := newSequel(t)
	at := time.Date(2026, 1, 31, 11, 59, 59, 500_000_000, time.UTC)
	w := get(s.options, "GET", "/v1/deliveries/"+s.ids["billing"])
	if want := `"payload":{"n":12345678901234567890.10,"html":"<b>&</b>","deviceId":"cam-7"}`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("payload is not as it came: %s", w.Body)
	}
	got := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids["billing"])
	want := DeliveryWhole{
		Delivery: Delivery{
			ID: s.ids["billing"], Event: EventRef{"evt_1", "invoice.paid", "acme", "order-1", at}, Endpoint: "billing", State: "delivered",
			Attempts: 2, MaxAttempts: 10, Last: &Last{N: 2, Started: at.Add(time.Second), TookMS: 20, Status: 200, Relay: "relay-1"},
		},
		Request: &SentRequest{
			Method: "POST", URL: "https://billing.example.com/hooks?***",
			Headers: []Header{{"Content-Type", "application/json"}, {"X-Key", "***"}},
			Body:    &RebuiltBody{Text: `{"kind":"invoice.paid","from":"***","data":{"n":12345678901234567890.10,"html":"<b>&</b>","deviceId":"cam-7"}}`, Generation: 7, MayDiffer: true},
		},
		History: []Attempt{
			{N: 1, Started: at, TookMS: 1.5, Timings: Timings{Total: 1.5}, Outcome: "retry", Code: "connection_refused", Error: "nobody listens", RequestHeaders: []Header{}},
			{N: 2, Started: at.Add(time.Second), TookMS: 20, Timings: Timings{DNS: 1, FirstByte: 3, Total: 20}, Status: 200, Outcome: "delivered", Reused: true, Peer: "192.0.2.1:443",
				RequestHeaders: []Header{{"Content-Type", "application/json"}, {"X-Key", "***"}},
				Response:       &Response{Headers: []Header{{"Content-Length", "2"}, {"Server", "x"}}, Body: "ok"}, Relay: "relay-1", Generation: 6},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Delivery{}, "Created", "Finished"), cmpopts.IgnoreFields(DeliveryWhole{}, "Payload")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Created.IsZero() || got.Finished.Before(got.Created) {
		t.Errorf("created %v, finished %v", got.Created, got.Finished)
	}

	failed := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids["search"])
	if !failed.Request.Body.Batch || failed.History[0].Response.Encoding != "base64" || failed.Error != "the receiver answered 503" || !slices.Equal(failed.RedeliveredAs, []string{s.ids["again"]}) {
		t.Errorf("%+v", failed)
	}
	again := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids["again"])
	if again.RedeliveryOf != s.ids["search"] || !again.Manual || again.State != "pending" || again.Last != nil || again.Request != nil || again.MaxAttempts != 2 {
		t.Errorf("%+v", again)
	}
	if held := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids["archive"]); held.State != "held" || held.NextAttempt.IsZero() {
		t.Errorf("%+v", held)
	}
}

func TestShowEvent(t *testing.T) {
	s := newSequel(t)
	got := ask[EventWhole](t, s, "/v1/events/evt_1")
	if got.ID != "evt_1" || got.Via != "unix" || got.Relay != "relay-1" || got.Accepted.IsZero() || got.Unwanted || got.Indexed["data.deviceId"] != "cam-7" || len(got.Deliveries) != 4 {
		t.Errorf("%+v", got)
	}
	for _, d := range got.Deliveries {
		if d.ID == s.ids["search"] && !slices.Equal(d.RedeliveredAs, []string{s.ids["again"]}) {
			t.Errorf("%+v", d)
		}
		if d.Event.ID != "evt_1" {
			t.Errorf("%+v", d)
		}
	}
	if got := ask[EventWhole](t, s, "/v1/events/evt_2"); !got.Unwanted || got.Deliveries == nil || string(got.Data) != "1" {
		t.Errorf("%+v", got)
	}
}

// Erased data is gone from all answers, and they say when.
func TestErasedData(t *testing.T) {
	s := newSequel(t)
	edited, err := s.Edit(context.Background(), []outbox.Change{{Action: outbox.Erase, Event: "evt_1", Force: true, Code: "erased"}})
	if err != nil || edited[0].Err != nil {
		t.Fatal(err, edited)
	}
	d := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids["billing"])
	if string(d.Payload) != "null" || d.Erased.IsZero() || d.Request != nil && d.Request.Body != nil {
		t.Errorf("%+v", d)
	}
	if e := ask[EventWhole](t, s, "/v1/events/evt_1"); string(e.Data) != "null" || e.Erased.IsZero() || e.Indexed != nil {
		t.Errorf("%+v", e)
	}
	for _, path := range []string{"/v1/deliveries", "/v1/deliveries/" + s.ids["billing"], "/v1/events/evt_1"} {
		if body := get(s.options, "GET", path).Body.String(); strings.Contains(body, "cam-7") {
			t.Errorf("%s has erased data: %s", path, body)
		}
	}
}

// An id that is none, or of another kind, is refused with a code and where to look instead.
func TestBadIDs(t *testing.T) {
	s := newSequel(t)
	long := strings.Repeat("x", 500)
	for _, c := range []struct{ path, code, says string }{
		{"/v1/deliveries/evt_1", "other_kind", "GET /v1/events/{id}"},
		{"/v1/deliveries/evt_unknown", "other_kind", "GET /v1/events/{id}"},
		{"/v1/deliveries/bat_1", "other_kind", "GET /v1/deliveries, by endpoint"},
		{"/v1/deliveries/job_1", "other_kind", "GET /v1/jobs/{id}"},
		{"/v1/deliveries/dlv_unknown", "delivery_not_found", "GET /v1/deliveries lists"},
		{"/v1/deliveries/" + long, "delivery_not_found", "xxx…"},
		{"/v1/events/" + s.ids["billing"], "other_kind", "GET /v1/deliveries/{id}"},
		{"/v1/events/bat_1", "other_kind", "GET /v1/deliveries, by endpoint"},
		{"/v1/events/job_1", "other_kind", "GET /v1/jobs/{id}"},
		{"/v1/events/evt_unknown", "event_not_found", "retention"},
	} {
		p := refusedAt(t, s.options, c.path, 404)
		if string(p.Code) != c.code || !strings.Contains(p.Detail, c.says) || p.Field != "id" || len(p.Detail) > 300 {
			t.Errorf("%s: %+v", c.path, p)
		}
	}
}

func refusedAt(t *testing.T, o Options, path string, status int) problem.Problem {
	t.Helper()
	w := get(o, "GET", path)
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || w.Header().Get("Content-Type") != problem.ContentType {
		t.Fatalf("GET %s: %d %s (%v)", path, w.Code, w.Body, err)
	}
	return p
}

// Every bad value of a filter is refused (package query tests them); a cursor must be of this outbox and filter.
func TestBadQueries(t *testing.T) {
	s := newSequel(t)
	next := *ask[DeliveryList](t, s, "/v1/deliveries?limit=1").Next
	first, rest, _ := strings.Cut(next, ".")
	digest, _, _ := strings.Cut(rest, ".")
	for _, c := range []struct{ query, code, field string }{
		{"state=faild", "invalid_parameter", "state"},
		{"statte=failed", "unknown_parameter", "statte"},
		{"data.colour=red", "not_indexed", "data.colour"},
		{"offset=10001", "invalid_parameter", "offset"},
		{"limit=101", "invalid_parameter", "limit"},
		{"cursor=xyz", "invalid_cursor", "cursor"},
		{"cursor=" + next + "&state=failed", "invalid_cursor", "cursor"},
		{"cursor=" + first + "." + digest + ".foreign", "invalid_cursor", "cursor"},
		{"a=%zz", "invalid_parameter", ""},
		{"a;b", "invalid_parameter", ""},
	} {
		if p := refusedAt(t, s.options, "/v1/deliveries?"+c.query, 400); string(p.Code) != c.code || p.Field != c.field || p.Detail == "" {
			t.Errorf("%s: %+v", c.query, p)
		}
	}
	other := newSequel(t)
	if p := refusedAt(t, other.options, "/v1/deliveries?limit=1&cursor="+next, 400); p.Code != problem.InvalidCursor || p.Field != "cursor" {
		t.Errorf("a cursor of another outbox: %+v", p)
	}
}

// slow answers with one delivery at a time, and cannot count.
type slow struct{ *outboxtest.Mem }

func (s slow) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	q.Limit = 1
	return s.Mem.Deliveries(ctx, q)
}

func (s slow) Count(ctx context.Context, f outbox.Filter) (int64, bool, error) {
	<-ctx.Done()
	return 2, false, nil
}

// An engine that answers with short pages is asked on, and one that cannot count in time says how many there are at least.
func TestShortPages(t *testing.T) {
	s := newSequel(t)
	s.options.Records = slow{s.Mem}
	list := ask[DeliveryList](t, s, "/v1/deliveries?limit=3&offset=1")
	if len(list.Items) != 3 || *list.Total != (Total{2, true}) {
		t.Errorf("%d items, total %v", len(list.Items), list.Total)
	}
	list = ask[DeliveryList](t, s, "/v1/deliveries?limit=3")
	if len(list.Items) != 3 || list.Next == nil {
		t.Errorf("%d items, next %v", len(list.Items), list.Next)
	}
}

// gone is an outbox that does not answer.
type gone struct{ *outboxtest.Mem }

func (gone) Deliveries(context.Context, outbox.Query) (outbox.Page, error) {
	return outbox.Page{}, fmt.Errorf("ask: %w", outbox.ErrUnavailable)
}

func (gone) LookupDelivery(context.Context, string) (*outbox.Record, error) {
	return nil, outbox.ErrUnavailable
}

func (gone) Lookup(context.Context, string) (*outbox.Record, error) {
	return nil, errors.New("a defect")
}

func TestRecordsUnavailable(t *testing.T) {
	s := newSequel(t)
	s.options.Records = gone{s.Mem}
	for path, status := range map[string]int{"/v1/deliveries": 503, "/v1/deliveries/dlv_1": 503, "/v1/events/evt_1": 500} {
		refusedAt(t, s.options, path, status)
	}
}

func TestTotal(t *testing.T) {
	for _, c := range []struct {
		total Total
		text  string
	}{{Total{}, "0"}, {Total{7, false}, "7"}, {Total{7, true}, `{"at_least":7}`}} {
		text, err := json.Marshal(c.total)
		var back Total
		if err2 := json.Unmarshal([]byte(c.text), &back); err != nil || err2 != nil || string(text) != c.text || back != c.total {
			t.Errorf("%+v: %s, back %+v", c.total, text, back)
		}
	}
	for _, bad := range []string{`"7"`, `{}`, `{"at_least":"x"}`, `null1`} {
		if json.Unmarshal([]byte(bad), new(Total)) == nil {
			t.Errorf("%s is a total", bad)
		}
	}
}

// Bodies that were cut say so; one that ends in the middle of a character stays text.
func TestResponse(t *testing.T) {
	whole := strings.Repeat("x", deliver.MaxKeptBody)
	for name, c := range map[string]struct {
		a         outbox.Attempt
		body      string
		truncated bool
	}{
		"short":             {outbox.Attempt{Body: []byte("é")}, "é", false},
		"as long as kept":   {outbox.Attempt{Body: []byte(whole), Head: fmt.Sprintf("content-length: %d\r\n", len(whole))}, whole, false},
		"longer":            {outbox.Attempt{Body: []byte(whole), Head: "Content-Length: 99999\r\n"}, whole, true},
		"of unknown length": {outbox.Attempt{Body: []byte(whole)}, whole, true},
		"broken off":        {outbox.Attempt{Body: []byte("x"), Code: "body_cut"}, "x", true},
		"cut in é":          {outbox.Attempt{Body: []byte(whole[1:] + "\xc3")}, whole[1:], true},
		"binary":            {outbox.Attempt{Body: []byte("\xff")}, "/w==", false},
	} {
		r := response(&c.a)
		if r.Body != c.body || r.Truncated != c.truncated || (r.Encoding == "base64") != (name == "binary") {
			t.Errorf("%s: %q %+v", name, r.Body[:min(len(r.Body), 20)], r)
		}
	}
}

func TestNoRecordsNoRoutes(t *testing.T) {
	w := httptest.NewRecorder()
	o := Options{Outbox: box{}, Policy: running(), Deliverer: gatesOf(running()())}
	New(o).ServeHTTP(w, httptest.NewRequest("GET", "/v1/deliveries", nil))
	if w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
