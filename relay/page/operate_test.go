package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/relay/admin"
)

const (
	hostileText = `<script>alert(1)</script>`
	jobAnswer   = `{"id":"job_1","action":"redeliver","state":"running","filter":{"state":["failed"],"endpoint":["crm","<b>"],"since":["2026-11-30T10:00:00Z"],"label.x":["y"]},"rate":2.5,"matched":{"at_least":1000},"seen":640,"done":600,"skipped":{"erased":10,"delivered":30},"who":"token <script>alert(1)</script>","created":"2026-11-30T11:00:00Z","started":"2026-11-30T11:00:01Z"}`
	endedJob    = `{"id":"job_0","action":"erase","state":"cancelled","filter":{"tenant":["acme"]},"force":true,"matched":20,"seen":5,"done":5,"skipped":{},"who":"admin token","cancelled_by":"uid 1000","relay":"relay-1","created":"2026-11-30T10:00:00Z","started":"2026-11-30T10:00:01Z","ended":"2026-11-30T10:00:05Z"}`
	configError = "relay.hcl:3:1: <b>there is no block \\\"x\\\"</b>"
)

func operateAnswers() map[string]string {
	answers := troubled()
	answers["/v1/alerts"] = `{"firing":[{"alert":"success","about":"crm","on":"success_rate","value":"10.0 %","limit":"95.0 %","since":"2026-11-30T11:50:00Z"},{"alert":"full","on":"outbox_fill","value":"91.0 %","limit":"90.0 %","since":"2026-11-30T11:00:00Z"},{"alert":"cert","about":"<b>.example","on":"certificate_expiry","value":"1h0m0s","limit":"336h0m0s","since":"2026-11-30T11:00:00Z"}],` +
		`"alerts":[{"name":"success","on":"success_rate","limit":"below 95.0 %","window_ms":900000,"min":20,"for_ms":300000,"cooldown_ms":3600000,"firing":1},{"name":"old","on":"backlog_age","limit":"above 10m0s","endpoints":["crm","ops"],"for_ms":0,"cooldown_ms":0,"firing":0},{"name":"open","on":"breaker_open","for_ms":0,"cooldown_ms":0,"firing":0},{"name":"cert","on":"certificate_expiry","limit":"below 336h0m0s","for_ms":0,"cooldown_ms":0,"firing":1}]}`
	answers["/v1/jobs"] = `{"items":[` + jobAnswer + "," + endedJob + `],"next":"job_0"}`
	answers["/v1/jobs/job_1"], answers["/v1/jobs/job_0"] = jobAnswer, endedJob
	answers["/v1/jobs/job_1/cancel"] = jobAnswer
	answers["/v1/config"] = `{"generation":3,"hash":"abc123","loaded_at":"2026-11-30T09:00:00Z","error":"x","problems":["` + configError + `"],"files":["/etc/relay/relay.hcl"],"endpoints":4,"event_types":2,` +
		`"last_change":{"generation":3,"hash":"abc123","changed":["crm"],"added":["new"],"removed":["old"],"event_types":["order.created"],"lines":["endpoint crm gets more events","  events: <b>"],"by":"watch","at":"2026-11-30T09:00:00Z"}}`
	answers["/readyz"] = strings.Replace(answers["/readyz"], `"spool"`, `"clock_ahead_ms":-1500,"warnings":[{"what":"maxmemory-policy is <b>","next":"set noeviction"},{"what":"the clock is off"}],"spool"`, 1)
	answers["/v1/audit"] = `{"items":[{"n":9,"time":"2026-11-30T11:00:00Z","who":"admin token","verb":"pause","what":"endpoint crm","before":{"state":"active"},"after":{"state":"paused"}},` +
		`{"n":8,"time":"2026-11-30T10:00:00Z","who":"token support","verb":"redeliver","what":"job job_1","count":{"at_least":1000},"after":{"filter":{"state":["failed","discarded"]},"big":12345678901234567890,"to":"<b>"}},` +
		`{"n":8,"time":"2026-11-30T09:30:00Z","who":"uid 1000","verb":"redeliver","what":"delivery dlv_1","count":1,"before":{"endpoint":"crm","state":"failed","attempts":4},"after":{"endpoint":"crm","id":"dlv_2"}},` +
		`{"n":7,"time":"2026-11-30T09:00:00Z","who":"uid 1000","verb":"endpoints set","what":"shop-1","before":{"url":"https://a.example","headers":{"X":"***"}},"after":{"url":"https://b.example","headers":{"X":"***"}}},` +
		`{"n":6,"time":"2026-11-30T08:00:00Z","who":"local","verb":"reload","what":"configuration"},{"n":5,"time":"2026-11-29T08:00:00Z","who":"local","verb":"erase","what":"event evt_1","count":1},{"n":4,"time":"2026-11-29T07:00:00Z","who":"local","verb":"link","what":"tenant acme"},{"n":3,"time":"2026-11-29T06:00:00Z","who":"local","verb":"<script>alert(1)</script>","what":"../../x <script>alert(1)</script>"}],"next":"3"}`
	return answers
}

// The screens for operators, as they are shown with all that they can have; strangers' text is text.
func TestScreensForOperators(t *testing.T) {
	p := overviewPage(t, &counting{answers: operateAnswers()})
	for name, target := range map[string]string{"alerts": "/alerts", "jobs": "/jobs", "job": "/jobs/job_1", "job-ended": "/jobs/job_0", "config": "/config", "audit": "/audit"} {
		w := visit(t, p, target)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
			continue
		}
		isGolden(t, name, w.Body.String())
		if strings.Contains(w.Body.String(), hostileText) || strings.Contains(w.Body.String(), "<b>") {
			t.Errorf("%s shows text as markup", target)
		}
		for _, lang := range []string{"zh-TW", "zh-CN"} {
			r := httptest.NewRequest("GET", target, nil)
			r.Header.Set("Accept-Language", lang)
			w := httptest.NewRecorder()
			if p.ServeHTTP(w, r); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "%!") {
				t.Errorf("%s in %s: %d", target, lang, w.Code)
			}
		}
	}
}

// Without anything there is a word on what to do.
func TestEmptyScreens(t *testing.T) {
	p := overviewPage(t, &counting{answers: map[string]string{"/v1/alerts": `{"firing":[],"alerts":[]}`, "/v1/jobs": `{"items":[]}`, "/v1/audit": `{"items":[]}`}})
	for target, want := range map[string]string{"/alerts": "alert &#34;failing&#34;", "/jobs": "No jobs", "/audit": "No operator has changed anything"} {
		body := visit(t, p, target).Body.String()
		if !strings.Contains(strings.ReplaceAll(body, `"failing"`, "&#34;failing&#34;"), want) {
			t.Errorf("%s does not say %q: %s", target, want, body)
		}
	}
	for _, target := range []string{"/alerts", "/jobs", "/jobs/job_9", "/config", "/audit"} {
		if w := visit(t, overviewPage(t, &counting{}), target); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "there is no such thing") {
			t.Errorf("%s, refused by the API: %d", target, w.Code)
		}
	}
}

// A button is shown to whom has the right alone.
func TestButtonsNeedTheirRight(t *testing.T) {
	api := &counting{answers: operateAnswers()}
	tokens := &admin.Tokens{Others: map[string]*admin.Access{}}
	for token, may := range map[string][]admin.Right{"token-that-reads-for-a-test": {admin.Read}, "token-that-redelivers-for-a-test": {admin.Read, admin.Redeliver}, "token-that-operates-for-a-test": {admin.Read, admin.Operate}} {
		tokens.Others[token] = &admin.Access{Name: "x", May: may}
	}
	p := New(Options{API: api, Tokens: func() *admin.Tokens { return tokens }, Now: screenTime})
	for _, x := range []struct {
		target, button, token string
	}{{"/jobs/job_1", `action="/jobs/job_1/cancel"`, "token-that-redelivers-for-a-test"}, {"/config", `action="/reload"`, "token-that-operates-for-a-test"}, {"/", `action="/endpoints/gone/enable"`, "token-that-operates-for-a-test"}} {
		for token := range tokens.Others {
			r := httptest.NewRequest("GET", x.target, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if has := strings.Contains(w.Body.String(), x.button); w.Code != http.StatusOK || has != (token == x.token) {
				t.Errorf("%s by a %s: %d, has %s: %v", x.target, token, w.Code, x.button, has)
			}
		}
	}
	if w := visit(t, overviewPage(t, api), "/jobs/job_0"); strings.Contains(w.Body.String(), "/cancel") {
		t.Error("a job that has ended can be cancelled")
	}
}

// A reload says what became of it: on the screen of the configuration, with all problems where it is refused.
func TestReload(t *testing.T) {
	reload := func(status int, answer string) *httptest.ResponseRecorder {
		rest := &counting{answers: operateAnswers()}
		p := overviewPage(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/reload" {
				rest.ServeHTTP(w, r)
				return
			}
			if r.Method != http.MethodPost {
				t.Errorf("it asks by %s", r.Method)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(answer))
		}))
		r := httptest.NewRequest("POST", "/reload", strings.NewReader(url.Values{"once": {"m"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w
	}
	if w := reload(200, `{"generation":4,"lines":["x"]}`); wentTo(w) != "/config reload" {
		t.Errorf("%d %s", w.Code, w.Header())
	}
	if w := reload(200, `{"generation":4}`); wentTo(w) != "/config reload.same" {
		t.Errorf("%d %s", w.Code, w.Header())
	}
	w := reload(422, `{"code":"invalid_config","detail":"two problems","diagnostics":["relay.hcl:1:1: the first","relay.hcl:2:1: the second"]}`)
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "relay.hcl:1:1: the first") || !strings.Contains(w.Body.String(), "relay.hcl:2:1: the second") || !strings.Contains(w.Body.String(), `data-screen="config"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := reload(503, `{"code":"outbox_unavailable"}`); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `data-screen="error"`) {
		t.Errorf("%d", w.Code)
	}
}

// Differences of the audit are values by path: numbers as they came, nothing that stayed the same.
func TestChangesOf(t *testing.T) {
	text := func(s string) *string { return &s }
	deep := strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50)
	for _, x := range []struct {
		before, after string
		want          []changedValue
	}{
		{``, ``, nil},
		{`null`, `null`, nil},
		{`{"a":1,"b":{"c":true}}`, `{"a":1,"b":{"c":false},"d":[1,"x"]}`, []changedValue{{"b.c", text("true"), text("false")}, {"d", nil, text("1, x")}}},
		{`{"n":12345678901234567890}`, `{"n":12345678901234567891}`, []changedValue{{"n", text("12345678901234567890"), text("12345678901234567891")}}},
		{`"old"`, `"new"`, []changedValue{{"", text("old"), text("new")}}},
		{`{"a":`, `{"a":2}`, []changedValue{{"a", nil, text("2")}}},
		{``, deep, []changedValue{{"a.a.a.a", nil, text(strings.Repeat(`{"a":`, 46) + "1" + strings.Repeat("}", 46))}}},
	} {
		if diff := cmp.Diff(x.want, changesOf(json.RawMessage(x.before), json.RawMessage(x.after))); diff != "" {
			t.Errorf("%s to %s (-want +got):\n%s", x.before, x.after, diff)
		}
	}
}

// The search leads to the only hit, lists several, and answers anything else calmly.
func TestSearch(t *testing.T) {
	rest := &counting{answers: map[string]string{
		"/v1/events/evt_1": `{"id":"evt_1","type":"order.created"}`, "/v1/events/order-17": `{"id":"order-17","type":"order.created"}`,
		"/v1/deliveries/dlv_1": overviewDelivery, "/v1/jobs/job_1": jobAnswer, "/v1/types": `{"types":[{"type":"invoice.paid","description":"<b>paid</b>"},{"type":"invoice.sent"}],"index":["data.customer","data.n"]}`,
		"/v1/alerts": `{"firing":[],"alerts":[{"name":"Late"}]}`,
	}}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch r.URL.Path {
		case "/v1/endpoints":
			switch q.Get("q") {
			case "bill":
				_, _ = w.Write([]byte(`{"endpoints":[{"name":"billing","state":"active"},{"name":"billing-eu","state":"paused","description":"<b>"}]}`))
			case "billing-eu", "acme":
				_, _ = w.Write([]byte(`{"endpoints":[{"name":"billing-eu","state":"paused"}]}`))
			default:
				_, _ = w.Write([]byte(`{"endpoints":[]}`))
			}
		case "/v1/deliveries":
			if q.Get("limit") != "1" || q.Get("total") != "false" {
				t.Errorf("it counts: %s", r.URL)
			}
			if q.Get("tenant") == "acme" || q.Get("tenant") == "zeta" || q.Get("key") == "k 1" || q.Get("data.customer") == "cus_7" || q.Get("type") == "order.*" {
				_, _ = w.Write([]byte(`{"items":[` + overviewDelivery + `]}`))
				return
			}
			_, _ = w.Write([]byte(`{"items":[]}`))
		default:
			rest.ServeHTTP(w, r)
		}
	})
	p := overviewPage(t, api)
	search := func(text string) *httptest.ResponseRecorder {
		return visit(t, p, "/search?"+url.Values{"q": {text}}.Encode())
	}
	for text, want := range map[string]string{
		"evt_1": "/events/evt_1", " evt_1\n": "/events/evt_1", "order-17": "/events/order-17", "dlv_1": "/deliveries/dlv_1", "job_1": "/jobs/job_1",
		"billing-eu": "/endpoints/billing-eu", "invoice.paid": "/deliveries?type=invoice.paid", "order.*": "/deliveries?type=order.%2A", "zeta": "/deliveries?tenant=zeta", "k 1": "/deliveries?key=k+1", "cus_7": "/deliveries?data.customer=cus_7", "late": "/alerts",
	} {
		if w := search(text); w.Code != http.StatusSeeOther || w.Header().Get("Location") != want {
			t.Errorf("%q leads to %d %q, not %q", text, w.Code, w.Header().Get("Location"), want)
		}
	}
	for text, want := range map[string][]string{
		"bill": {"/endpoints/billing", "/endpoints/billing-eu"}, "acme": {"/endpoints/billing-eu", "/deliveries?tenant=acme"}, "INVOICE": {"/deliveries?type=invoice.paid", "/deliveries?type=invoice.sent"},
	} {
		w := search(text)
		for _, to := range want {
			if !strings.Contains(w.Body.String(), `<a href="`+to+`">`) {
				t.Errorf("%q does not list %s", text, to)
			}
		}
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<b>") {
			t.Errorf("%q: %d", text, w.Code)
		}
	}
	isGolden(t, "search", search("bill").Body.String())
	for _, text := range []string{"", "   ", "nothing at all", "' OR 1=1; DROP TABLE events; --", hostileText, strings.Repeat("x", 10_000), strings.Repeat("界", 5000), "\x00", "a\x00b", "\xff\xfe", "..", "../../v1/config", "/", "%2e%2e", "evt_", "dlv_nothing", "bat_1", "*", "a?b#c"} {
		w := search(text)
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), hostileText) || !strings.Contains(w.Body.String(), `data-screen="search"`) {
			t.Errorf("%.40q: %d %s", text, w.Code, w.Header())
		}
		if len(w.Body.String()) > 200_000 {
			t.Errorf("%.40q makes an answer of %d bytes", text, len(w.Body.String()))
		}
	}
}

// What cannot be read in time is left out, and said.
func TestSearchThatIsSlow(t *testing.T) {
	p := overviewPage(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("key") {
			<-r.Context().Done()
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if strings.HasPrefix(r.URL.Path, "/v1/events/") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(`{"items":[],"endpoints":[]}`))
	}))
	if body := visit(t, p, "/search?q=nothing").Body.String(); !strings.Contains(body, "took too long") {
		t.Error("it does not say so")
	}
}

// The filter of the audit is that of the API; it is kept by pages, and a refusal leaves the form as it was.
func TestAuditFilter(t *testing.T) {
	var asked string
	answer := `{"items":[],"next":"17"}`
	status := http.StatusOK
	p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RawQuery
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	})}))
	const given = "since=2h&verb=pause&verb=resume&what=a%3Cb%3E&who=support"
	text := visit(t, p, "/audit?until=&"+given).Body.String()
	if asked != "limit=50&"+given {
		t.Errorf("the API is asked for %s", asked)
	}
	has(t, "the screen", text, `value="a&lt;b&gt;"`, `name="verb" value="resume" checked`, "There are earlier ones", `href="/audit?cursor=17&amp;since=2h&amp;verb=pause&amp;verb=resume&amp;what=a%3Cb%3E&amp;who=support"`, "Show all")
	answer = `{"items":[]}`
	has(t, "no hit", visit(t, p, "/audit?who=x").Body.String(), "No change matches", "!No operator has changed")
	answer, status = `{"code":"invalid_parameter","detail":"since is <x>"}`, http.StatusBadRequest
	w := visit(t, p, "/audit?since=x&who=support")
	has(t, "a refusal", w.Body.String(), "A parameter is not valid", "since is &lt;x&gt;", `value="support"`)
	if w.Code != http.StatusBadRequest {
		t.Errorf("a refusal has status %d", w.Code)
	}
}

// A job that ended before its time says how many are left, and leads to the same for those. Who may not do it gets no button.
func TestRestOfAJob(t *testing.T) {
	const sent = `{"id":"job_2","action":"redeliver","state":"cancelled","filter":{"endpoint":["crm"],"state":["failed"],"until":["2026-11-30T10:00:00Z"]},"rate":0.5,"matched":2070,"seen":280,"done":280,"skipped":{},"who":"x","created":"2026-11-30T10:00:00Z","ended":"2026-11-30T10:00:05Z"}`
	rest := func(job string) string {
		body := visit(t, overviewPage(t, &counting{answers: map[string]string{"/v1/jobs/job_2": job}}), "/jobs/job_2").Body.String()
		_, after, _ := strings.Cut(body, `href="/deliveries/bulk?`)
		to, _, _ := strings.Cut(after, `"`)
		return to
	}
	toSpare := strings.Replace(sent, `"rate":0.5`, `"to":"spare"`, 1)
	for job, want := range map[string]string{
		sent:     "action=redeliver&amp;endpoint=crm&amp;rate=0.5&amp;resent=false&amp;state=failed&amp;until=2026-11-30T10%3A00%3A00Z",
		toSpare:  "action=redeliver&amp;endpoint=crm&amp;state=failed&amp;to=spare&amp;until=2026-11-30T10%3A00%3A00Z",
		endedJob: "action=erase&amp;tenant=acme",
		strings.Replace(sent, `"seen":280`, `"seen":2070`, 1):                  "",
		strings.Replace(sent, `"state":"cancelled"`, `"state":"done"`, 1):      "",
		strings.Replace(sent, `,"ended":"2026-11-30T10:00:05Z"`, ``, 1):        "",
		strings.Replace(sent, `"matched":2070`, `"matched":{"at_least":1}`, 1): "action=redeliver&amp;endpoint=crm&amp;rate=0.5&amp;resent=false&amp;state=failed&amp;until=2026-11-30T10%3A00%3A00Z",
	} {
		if got := rest(job); got != want {
			t.Errorf("%s leads to %q, want %q", job, got, want)
		}
	}
	api := &counting{answers: map[string]string{"/v1/jobs/job_2": sent, "/v1/redeliveries": `{"matched":1790,"filter":{"endpoint":["crm"]}}`}}
	if body := visit(t, overviewPage(t, api), "/jobs/job_2").Body.String(); !strings.Contains(body, "<span>1,790 were left.</span>") {
		t.Errorf("it does not say how many are left: %s", body)
	}
	uncounted := strings.Replace(sent, `"matched":2070`, `"matched":{"at_least":1000}`, 1)
	if body := visit(t, overviewPage(t, &counting{answers: map[string]string{"/v1/jobs/job_2": uncounted}}), "/jobs/job_2").Body.String(); strings.Contains(body, "were left") || !strings.Contains(body, "Go on with the rest") {
		t.Errorf("it says how many are left, which nobody counted: %s", body)
	}
	asks := visit(t, overviewPage(t, api), "/deliveries/bulk?action=redeliver&endpoint=crm&rate=0.5&to=spare").Body.String()
	if !strings.Contains(asks, `name="rate" value="0.5"`) || !strings.Contains(asks, `name="to" value="spare"`) || strings.Contains(asks, `type="hidden" name="rate"`) {
		t.Errorf("the form has not what the job had: %s", asks)
	}
	reads := &admin.Tokens{Others: map[string]*admin.Access{"token-that-reads-for-a-test": {Name: "x", May: []admin.Right{admin.Read}}}}
	r := httptest.NewRequest("GET", "/jobs/job_2", nil)
	r.Header.Set("Authorization", "Bearer token-that-reads-for-a-test")
	w := httptest.NewRecorder()
	New(Options{API: api, Tokens: func() *admin.Tokens { return reads }, Now: screenTime}).ServeHTTP(w, r)
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "/deliveries/bulk") {
		t.Errorf("who may only read: %d %s", w.Code, w.Body)
	}
}
