package page

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"relay/relay/admin"
)

const event = `{"id":"evt_1","type":"order.created","tenant":"` + hostile + `","key":"k","time":"2026-01-31T11:00:00Z","data":{"n":12345678901234567890.10,"h":"` + hostile + `"},
"accepted":"2026-01-31T11:59:00Z","via":"unix","relay":"relay-1","trace":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 x=1","indexed":{"data.n":"` + hostile + `","data.a":"1"},
"deliveries":[{"id":"dlv_1","event":{"id":"evt_1","type":"order.created","time":"2026-01-31T11:00:00Z"},"endpoint":"crm","state":"pending","attempts":1,"created":"2026-01-31T11:59:00Z","last":null}]}`

func TestEvent(t *testing.T) {
	answers := map[string]string{"GET /v1/events/evt_1": event}
	p, _ := newPage(t, answers)
	body := shows(t, p, "/events/evt_1")
	has(t, "an event", body, "4bf92f3577b34da6a3ce929d0e0e4736", "a Unix socket", "12345678901234567890.10", "!<script", `href="/deliveries/dlv_1"`, `href="/events/evt_1/erase"`, `data-live="event=evt_1"`,
		"/deliveries?data.n=%3Cscript%3E", "!no endpoint wanted it")
	isGolden(t, "event", body)

	answers["GET /v1/events/evt_1"] = strings.Replace(event, `"deliveries":[`, `"unwanted":true,"deliveries":[],"x":[`, 1)
	has(t, "an unwanted event", shows(t, p, "/events/evt_1"), "no endpoint wanted it", `href="/explain?event=evt_1"`, "It has no deliveries.", "!data-live")
	answers["GET /v1/events/evt_1"] = strings.Replace(event, `"deliveries":[`, `"deliveries":[],"x":[`, 1)
	has(t, "an event of others", shows(t, p, "/events/evt_1"), "Your token sees none of its deliveries.", "!no endpoint wanted it")
	answers["GET /v1/events/evt_1"] = strings.Replace(event, `"data":{`, `"erased":"2026-01-31T11:59:30Z","data":null,"x":{`, 1)
	has(t, "an erased event", shows(t, p, "/events/evt_1"), "erased for good", "30 s ago", "!/erase", "!12345678901234567890")
	has(t, "the question, too late", shows(t, p, "/events/evt_1/erase"), "erased for good", "!<form")
	answers["GET /v1/events/evt_1"] = strings.NewReplacer(`"data":{`, `"payload_left_out":true,"data":null,"x":{`, `"indexed"`, `"y"`).Replace(event)
	has(t, "an event without rights", shows(t, p, "/events/evt_1", "Authorization", "Bearer "+readerToken), "has not the right", "!/erase", "!12345678901234567890")
}

// All of a payload is shown by a page of its own, as text.
func TestLargePayloads(t *testing.T) {
	large := `"` + strings.Repeat("<b>", 30<<10) + `"`
	answers := map[string]string{"GET /v1/events/evt_1": strings.Replace(event, `"data":{`, `"data":`+large+`,"x":{`, 1)}
	p, _ := newPage(t, answers)
	has(t, "a large event", shows(t, p, "/events/evt_1"), "only the beginning is shown", `href="/events/evt_1/data"`, "!data-value=\"&", "!Copy data")
	w := visit(t, p, "/events/evt_1/data")
	if w.Body.String() != large || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the whole of it: %d bytes, %v", w.Body.Len(), w.Header())
	}
	for of, status := range map[string]int{`"payload_left_out":true,"data":null`: 403, `"erased":"2026-01-31T11:59:30Z","data":null`: 404} {
		answers["GET /v1/events/evt_1"] = strings.Replace(event, `"data":{`, of+`,"x":{`, 1)
		if w := visit(t, p, "/events/evt_1/data"); w.Code != status || strings.Contains(w.Body.String(), "null") {
			t.Errorf("%s: %d %s", of, w.Code, w.Body)
		}
	}
}

// A question is not put to those who may not answer it.
func TestQuestionsNeedRights(t *testing.T) {
	answers := deliveryAnswers(failedDelivery)
	answers["GET /v1/events/evt_1"] = event
	p, a := newPage(t, answers)
	for path, right := range map[string]string{"/events/evt_1/erase": "operate", "/deliveries/dlv_1/discard": "operate", "/explain": "payload"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+readerToken)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "the right “"+right+"”") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if len(a.asked) > 0 {
		t.Errorf("the API was asked for %+v", a.asked)
	}
}

func TestErase(t *testing.T) {
	answers := map[string]string{"GET /v1/events/evt_1": event, "DELETE /v1/events/evt_1/data": `{"id":"evt_1","erased":"2026-01-31T12:00:00Z"}`}
	p, a := newPage(t, answers)
	has(t, "the question", shows(t, p, "/events/evt_1/erase"), "gone for good", `name="force"`, `action="/events/evt_1/erase"`)
	if w := sends(p, "/events/evt_1/erase", url.Values{"force": {"true"}}); wentTo(w) != "/events/evt_1 erase" {
		t.Errorf("erase: %d %v", w.Code, w.Header())
	}
	if got := a.changes(); len(got) != 1 || got[0].query != "force=true" {
		t.Errorf("the API was asked for %+v", got)
	}
	answers["DELETE /v1/events/evt_1/data"] = `409 {"code":"delivery_pending","field":"force","detail":"a delivery is pending"}`
	w := sends(p, "/events/evt_1/erase", nil)
	has(t, "a refusal", w.Body.String(), "tick the box that discards it", "!a delivery is pending")
	if got := a.changes(); w.Code != http.StatusConflict || got[1].query != "" {
		t.Errorf("a refusal: %d, asked for %+v", w.Code, got)
	}
}

const types = `{"types":[{"type":"order.created","description":"An order <b>","fields":[{"name":"lines[].old","type":"string","required":false,"description":""},{"name":"order","type":"integer","required":true,"description":"its number"}],
"example":{"order":12345678901234567890},"schema":{"type":"object","properties":{"order":{"type":"integer"},"lines":{"items":{"properties":{"old":{"deprecated":true}}}}}}},
{"type":"order.lost","description":"","fields":[{"name":"","type":"object","required":true,"description":""}],"schema":{"deprecated":true}},{"type":"plain","description":"","fields":[]}]}`

func TestTypesScreen(t *testing.T) {
	answers := map[string]string{"GET /v1/types": types}
	p, _ := newPage(t, answers)
	body := shows(t, p, "/types")
	has(t, "the catalogue", body, `id="order.created"`, "An order &lt;b&gt;", "12345678901234567890", `href="/explain?type=order.created"`, "Its data may be any JSON")
	if n := strings.Count(body, "deprecated</span>"); n != 2 {
		t.Errorf("%d parts are marked as deprecated, want the field lines[].old and the type order.lost", n)
	}
	isGolden(t, "types", body)
	has(t, "the catalogue without rights", shows(t, p, "/types", "Authorization", "Bearer "+readerToken), "!/explain", "order.created")
	answers["GET /v1/types"] = `{"types":[]}`
	has(t, "an empty catalogue", shows(t, p, "/types"), "No event type is declared", "event_type")
}

// A schema may be of any form and as deep as JSON is.
func TestDeprecated(t *testing.T) {
	for _, schema := range []string{``, `true`, `[]`, `{"properties":[]}`, `{"items":true,"properties":{"a":1}}`, strings.Repeat(`{"items":`, 9000) + `{"deprecated":true}` + strings.Repeat(`}`, 9000)} {
		if got := deprecated([]byte(schema)); len(got) != 0 {
			t.Errorf("%.40s: %v", schema, got)
		}
	}
}

const explanation = `{"event":{"id":"evt_x","id_given":false,"type":"order.created","time":"2026-01-31T12:00:00Z","tenant":"acme"},"endpoints":[
{"name":"billing","gets":true,"held":false,"pattern":"order.*","why":"pattern order.*","request":{"url":"https://b.example.com/","line":"POST / HTTP/1.1","header":[{"name":"webhook-signature","value":"***"}],"body":"{\"n\":12345678901234567890.10}","signed_by":[{"scheme":"standard","secrets":1}],"http2":true},
"plan":{"attempts":[{"n":1,"after_ms":0,"least_ms":0,"most_ms":0},{"n":2,"after_ms":2000,"least_ms":1800,"most_ms":2200}],"retry_on":["network","5xx"],"retry_classes":[{"after":"429","delays_ms":[60000,300000]},{"after":"500","delays_ms":[]}],"max_age_ms":86400000,"max_retry_after_ms":3600000,"connect_timeout_ms":5000,"total_timeout_ms":15000,"concurrency":16,"rate_limit":{"limit":5,"per_ms":1000,"burst":10},
"breaker":{"failure_ratio":0.5,"window_ms":60000,"open_ms":30000},"batch":{"max_events":10,"max_wait_ms":100},"disable":{"on_gone":true,"after_failing_ms":432000000},"tls":{"min_version":"1.2"},"egress":{"verdict":"denied","why":"it is private","allow_private":[],"ports":[]},"hidden":["concurrency"]}},
{"name":"crm","gets":false,"held":false,"why":"excluded by !order.* ` + hostile + `"},
{"name":"off","gets":true,"held":true,"why":"it gets all events"},
{"name":"deduped","gets":true,"held":false,"why":"it gets all events","outbox_decides":true},
{"name":"broken","gets":true,"held":false,"why":"it gets all events","when_error":"when: no member x","code":"when_error"},
{"name":"bodyless","gets":true,"held":false,"why":"it gets all events","request":{"header":[],"signed_by":[],"body_error":"body: no member y","code":"body_error"}}]}`

func explainAnswers() map[string]string {
	return map[string]string{"GET /v1/types": types, "GET /v1/events/evt_1": event, "GET /v1/endpoints": `{"endpoints":[{"name":"billing"}],"total":1}`, "POST /v1/explain": explanation}
}

func TestExplainScreen(t *testing.T) {
	p, a := newPage(t, explainAnswers())
	has(t, "the form", shows(t, p, "/explain"), "&#34;type&#34;: &#34;order.created&#34;", "&#34;order&#34;: 12345678901234567890", "!result-title")
	has(t, "the form for a type", shows(t, p, "/explain?type=plain"), "&#34;type&#34;: &#34;plain&#34;", "&#34;data&#34;: {}")
	has(t, "the form for an event", shows(t, p, "/explain?event=evt_1"), "&#34;n&#34;: 12345678901234567890.10", "&#34;id&#34;: &#34;evt_1&#34;", "&lt;script&gt;alert(1)&lt;/script&gt;", "!\\u003c")

	w := sends(p, "/explain", url.Values{"event": {"{\"type\":\"order.created\",\r\n\"data\":12345678901234567890.10}"}, "endpoint": {"billing"}})
	body := mainOf(w.Body.String())
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, body)
	}
	if got := a.changes(); len(got) != 1 || got[0].query != "endpoint=billing" || got[0].body != "{\"type\":\"order.created\",\n\"data\":12345678901234567890.10}" {
		t.Errorf("the API was asked for %+v", got)
	}
	has(t, "an explanation", body, "5 endpoints get it", "its id is made when it is accepted", "gets it, and is held", "gets it if the outbox says so", "does not get it", "when: no member x", "body: no member y",
		"excluded by !order.*", "!<script", "5 in 1 s, bursts of 10", "denied: it is private", "opens when 50 % fail within 1 min", "!At the same time", "After 429", "1 min, 5 min", "no further attempt", "none later than 1 d", "at an answer 410, after 5 d", "1.2 or newer", "1.8 s – 2.2 s", "12345678901234567890.10", "Signed: standard", "HTTP/2")
	isGolden(t, "explain", body)
	if strings.Count(body, "would fail at once") != 2 {
		t.Error("an endpoint whose filter or body cannot be evaluated is not said to fail")
	}
}

// Of all endpoints those that get the event come first, and those that do not are one list at the end. Why is said in the
// language of the viewer; what filters say is quoted.
func TestExplainShowsWhoGetsItFirst(t *testing.T) {
	answers := explainAnswers()
	answers["POST /v1/explain"] = `{"event":{"id":"evt_1","type":"order.created"},"endpoints":[
{"name":"none","gets":false,"why":"no pattern fits: a.*, b.*"},{"name":"broken","gets":true,"why":"it gets all events","when_error":"no member x","code":"when_error"},
{"name":"others","gets":false,"pattern":"order.*","why":"pattern order.*; its tenant is none of \"globex\""},{"name":"maybe","gets":true,"why":"it gets all events","outbox_decides":true},
{"name":"out","gets":false,"pattern":"!order.*","why":"excluded by !order.*"},{"name":"rests","gets":true,"held":true,"why":"it gets all events"},{"name":"gets","gets":true,"pattern":"order.*","why":"pattern order.*"}]}`
	p, _ := newPage(t, answers)
	body := mainOf(sends(p, "/explain", url.Values{"event": {"{}"}}).Body.String())
	at := 0
	for _, name := range []string{"gets", "rests", "maybe", "broken", "none", "others", "out"} {
		i := strings.Index(body, `href="/endpoints/`+name+`"`)
		if i < at {
			t.Errorf("%s is missing, or comes too early", name)
		}
		at = i
	}
	has(t, "English", body, "3 endpoints do not get it", "Its pattern order.* fits.", "Its pattern !order.* excludes this type.", "None of its patterns fits: a.*, b.*", "!<blockquote")
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/explain", strings.NewReader(url.Values{"event": {"{}"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept-Language", "zh-TW")
	p.ServeHTTP(w, r)
	has(t, "Chinese", w.Body.String(), "符合其模式 order.*", `<blockquote class="said" lang="en">its tenant is none of`, "!no pattern fits")
}

// What is wrong with an event is shown with its line, and the text stays in the form.
func TestExplainProblems(t *testing.T) {
	const text = "{\n  \"type\": \"order.created\",\n  \"data\": {\"order\": \"é\", \"lines\": [1, {\"sku\": 5}]}\n}"
	for _, c := range []struct {
		name, refusal string
		status        int
		want          []string
	}{
		{"schema", `422 {"code":"schema_mismatch","detail":"is of type string","field":"data","pointer":"/order"}`, 422, []string{"data/order", "Line 3, column 12:"}},
		{"schema, deep", `422 {"code":"schema_mismatch","detail":"x","field":"data","pointer":"/lines/1/sku"}`, 422, []string{"Line 3, column 40:"}},
		{"schema, element", `422 {"code":"schema_mismatch","detail":"x","field":"data","pointer":"/lines/1"}`, 422, []string{"Line 3, column 39:"}},
		{"schema, all of the data", `422 {"code":"schema_mismatch","detail":"x","field":"data"}`, 422, []string{"Line 3, column 3:"}},
		{"byte", `400 {"code":"invalid_json","detail":"the text is not JSON","offset":2}`, 400, []string{"Line 2, column 1:", "the text is not JSON"}},
		{"field that is not there", `400 {"code":"missing_field","detail":"an event has a <type>","field":"tenant"}`, 400, []string{"an event has a &lt;type&gt;", "!Line"}},
		{"byte beyond the text", `400 {"code":"invalid_json","detail":"x","offset":9999}`, 400, []string{"!Line"}},
		{"no right", `403 {"code":"forbidden","detail":"the token may not"}`, 403, []string{"the token may not", "!textarea"}},
		{"outbox away", `503 {"code":"outbox_unavailable","detail":"later"}`, 503, []string{"later", "!textarea"}},
	} {
		answers := explainAnswers()
		answers["POST /v1/explain"] = c.refusal
		p, _ := newPage(t, answers)
		w := sends(p, "/explain", url.Values{"event": {text}})
		if w.Code != c.status {
			t.Errorf("%s: status %d", c.name, w.Code)
		}
		has(t, c.name, w.Body.String(), c.want...)
		if c.status < 500 && c.status != 403 {
			has(t, c.name, w.Body.String(), "&#34;order&#34;: &#34;é&#34;", `aria-invalid="true"`)
		}
	}
}

// Settings that the file hides are not shown.
func TestHiddenSettings(t *testing.T) {
	answers := explainAnswers()
	answers["POST /v1/explain"] = strings.Replace(explanation, `"hidden":["concurrency"]`, `"hidden":["retry","timeout","tls","egress"]`, 1)
	p, _ := newPage(t, answers)
	w := sends(p, "/explain", url.Values{"event": {"{}"}})
	has(t, "hidden settings", w.Body.String(), "At the same time", "!After 429", "!none later than", "!Retry-After", "!1.2 or newer", "!denied: it is private", "!1.8 s")
}

func TestEventText(t *testing.T) {
	want := "{\n  \"type\": \"a\",\n  \"tenant\": \"<t>\",\n  \"data\": {\n    \"n\": 1.10\n  }\n}"
	if got := eventText(admin.EventRef{Type: "a", Tenant: "<t>"}, []byte(`{"n":1.10}`)); got != want {
		t.Errorf("%s", got)
	}
	if got := traceID("nonsense"); got != "" {
		t.Errorf("a trace without an id: %q", got)
	}
}
