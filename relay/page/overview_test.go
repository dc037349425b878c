package page

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/relay/admin"
)

// screenTime is the time of all screens in goldens.
func screenTime() time.Time { return time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) }

// counting is an API with fixed answers, which counts its requests by path.
type counting struct {
	mu      sync.Mutex
	answers map[string]string // by path; "503" and others are statuses
	asked   map[string]int
}

func (a *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked == nil {
		a.asked = map[string]int{}
	}
	a.asked[r.URL.Path]++
	body, ok := a.answers[r.URL.Path]
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		body = `{"code":"not_found","detail":"there is no such thing"}`
	case body == "503":
		w.WriteHeader(http.StatusServiceUnavailable)
		body = `{"code":"outbox_unavailable","detail":"the outbox does not answer"}`
	}
	fmt.Fprint(w, body)
}

func (a *counting) total() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range a.asked {
		n += of
	}
	return n
}

const overviewDelivery = `{"id":"dlv_1","event":{"id":"evt_1","type":"order.created","tenant":"acme","time":"2026-11-30T11:00:00Z"},"endpoint":"crm","state":"failed","attempts":4,"max_attempts":4,"created":"2026-11-30T11:00:00Z","last":{"n":4,"started":"2026-11-30T11:30:00Z","took_ms":12,"status":503}}`

// troubled answers as a Relay where everything needs a person that can.
func troubled() map[string]string {
	endpoint := func(name, state, more string) string {
		return `{"name":"` + name + `","state":"` + state + `","enabled":true,"since":"2026-11-30T10:00:00Z","deliveries":{"pending":3,"failed":2,"oldest_ms":60000},"in_flight":0,` +
			`"stats":{"since":"2026-11-29T12:00:00Z","delivered":90,"failed":10,"success_rate":0.9,"mean_ms":5,"p95_ms":20,"steps":[{"start":"2026-11-30T11:00:00Z","delivered":90,"failed":10,"success_rate":0.9}]}` + more + `}`
	}
	failing := strings.Replace(endpoint("failing", "active", ""), `"delivered":90,"failed":10,"success_rate":0.9}]`, `"delivered":1,"failed":10,"success_rate":0.09}]`, 1)
	dead := endpoint("dead", "active", `,"failing":{"since":"2026-11-30T11:39:00Z","last":"2026-11-30T11:59:00Z","code":"http_500","attempts":19}`)
	behind := strings.Replace(endpoint("behind", "active", ""), `"oldest_ms":60000`, `"oldest_ms":7200000`, 1)
	return map[string]string{
		"/v1/endpoints": `{"endpoints":[` + strings.Join([]string{
			endpoint("broken", "invalid", `,"reason":"url: it must be https"`), endpoint("gone", "disabled", `,"code":"gone"`), endpoint("crm", "active", `,"breaker":"open","waiting":"breaker"`),
			endpoint("off", "disabled", `,"code":"operator"`), endpoint("resting", "paused", ""), failing, dead, behind, endpoint("fine", "active", ""),
		}, ",") + `],"total":1200,"summary":{"attention":9,"pending":21,"held":9,"oldest_ms":7200000}}`,
		"/v1/stats": `{"since":"2026-11-29T12:00:00Z","until":"2026-11-30T13:00:00Z","step":"hour","backlogs":[{"start":"2026-11-30T10:00:00Z","most":3},{"start":"2026-11-30T12:00:00Z","most":1200}],"total":{"ended":100,"delivered":90,"failed":10,"success_rate":0.9,"first_try_rate":0.8,"attempts":120,"took_ms":{"mean":5,"p50":4,"p95":20,"p99":30}},` +
			`"rows":[{"start":"2026-11-30T11:00:00Z","delivered":90,"failed":10,"took_ms":{"p50":4,"p95":20}}]}`,
		"/v1/deliveries": `{"items":[` + overviewDelivery + `],"next":null}`,
		"/v1/alerts":     `{"firing":[{"alert":"success","about":"crm","on":"success_rate","value":"10.0 %","limit":"95.0 %","since":"2026-11-30T11:50:00Z"},{"alert":"quiet","on":"silence","value":"1h30m0s","limit":"1h0m0s","since":"2026-11-30T10:30:00Z"}],"alerts":[]}`,
		"/readyz": `{"status":"ready","outbox":{"engine":"redis","durability":"memory","fill":0.91,"spool":{"used":true,"waiting":12,"oldest_age_ms":90000}},"config":{"generation":3,"error":"relay.hcl:3:1: <b>there is no block \"x\"</b>"},` +
			`"relays":[{"number":1,"version":"1"},{"number":2,"version":"2"}],"disagreements":{"crm":"url"}}`,
	}
}

func overviewPage(t *testing.T, api http.Handler) *Page {
	return compared(t, New(Options{Open: true, API: api, Now: screenTime, Version: "v1"}))
}

// The overview says all that needs a person, with a way to mend it, in one answer of five questions.
func TestOverviewOfTrouble(t *testing.T) {
	api := &counting{answers: troubled()}
	w := visit(t, overviewPage(t, api), "/")
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	isGolden(t, "overview", w.Body.String())
	if n := api.total(); n != 5 {
		t.Errorf("it asked %d times: %v", n, api.asked)
	}
	for _, want := range []string{
		"91 % full", "12 requests wait", "The last reload was refused: relay.hcl:3:1: &lt;b&gt;", "disagree about 1 endpoint", "alert success fires: attempts that succeeded 10.0 % when it fired, limit 95.0 %", "alert quiet fires: no event accepted for 1 h 30 min when it fired, limit 1 h",
		"is not in force: url: it must be https", "410 Gone", "fails: no attempt delivered, the last one ended with http 500", "its breaker is open", "is disabled by an operator",
		`has more deliveries that failed than arrived</span> <span class="muted small">since <time datetime="2026-11-30T11:00:00Z"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, lang := range []string{"zh-TW", "zh-CN"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", lang)
		w := httptest.NewRecorder()
		overviewPage(t, api).ServeHTTP(w, r)
		if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "%!") || strings.Contains(w.Body.String(), "overview.") {
			t.Errorf("%s: %d", lang, w.Code)
		}
	}
}

// What does not fit is behind a link, with its number; of what needs a person, what is worst comes first.
func TestOverviewPutsTheWorstFirst(t *testing.T) {
	body := visit(t, overviewPage(t, &counting{answers: troubled()}), "/").Body.String()
	at := -1
	for _, text := range []string{"% full", "was refused", "410 Gone", "breaker is open", "is disabled by an operator", "more need a person"} {
		i := strings.Index(body, text)
		if i < 0 || i < at {
			t.Errorf("%q is at %d, after %d", text, i, at)
		}
		at = i
	}
}

func TestOverviewIsCalm(t *testing.T) {
	answers := map[string]string{
		"/v1/endpoints": `{"endpoints":[{"name":"fine","state":"active","enabled":true,"deliveries":{}},{"name":"old","state":"disabled","enabled":false,"deliveries":{}}],"total":2,"summary":{}}`,
		"/v1/stats":     `{"total":{},"rows":[]}`, "/v1/deliveries": `{"items":[]}`, "/v1/alerts": `{"firing":[],"alerts":[]}`, "/readyz": `{"status":"ready","outbox":{"fill":0.1}}`,
	}
	body := visit(t, overviewPage(t, &counting{answers: answers}), "/?span=30d").Body.String()
	isGolden(t, "overview-calm", body)
	if !strings.Contains(body, "Nothing needs you") {
		t.Error("it does not say so")
	}
	answers["/v1/alerts"] = "503"
	body = visit(t, overviewPage(t, &counting{answers: answers}), "/").Body.String()
	if strings.Contains(body, "Nothing needs you") || !strings.Contains(body, "could not be read") {
		t.Error("it is calm although a part could not be read")
	}
	answers["/v1/stats"] = "503"
	if w := visit(t, overviewPage(t, &counting{answers: answers}), "/"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("without statistics: %d", w.Code)
	}
}

// Dangers to accepted events at a server of the outbox make one need, and other warnings make none. Its figures change, and it
// stays the same one; one more danger makes it another one.
func TestOverviewShowsWarnings(t *testing.T) {
	answers := troubled()
	answers["/v1/endpoints"] = `{"endpoints":[],"total":0,"summary":{}}`
	screen := func(warnings string) (body, mark string) {
		answers["/readyz"] = `{"status":"ready","outbox":{"warnings":[{"what":"maxmemory is not set"}` + warnings + `]}}`
		body = visit(t, overviewPage(t, &counting{answers: answers}), "/").Body.String()
		_, mark, _ = strings.Cut(body, `data-need="bad  warnings`)
		mark, _, _ = strings.Cut(mark, `"`)
		return body, mark
	}
	const first, second = `,{"what":"maxmemory-policy is <b>","danger":true}`, `,{"what":"1 key is lost","danger":true}`
	if body, _ := screen(""); strings.Contains(body, "The outbox should be mended") {
		t.Errorf("a warning without danger is a need:\n%s", body)
	}
	body, one := screen(first)
	if !strings.Contains(body, "The outbox should be mended: maxmemory-policy is &lt;b&gt;") || strings.Contains(body, "Nothing needs you") {
		t.Errorf("the overview does not show a danger:\n%s", body)
	}
	body, two := screen(first + second)
	if !strings.Contains(body, "&lt;b&gt;; 1 key is lost") || strings.Count(body, "The outbox should be mended") != 1 || one == "" || one == two {
		t.Errorf("a second danger is not shown in the same need, or not as news (%q, %q):\n%s", one, two, body)
	}
	if _, later := screen(first + strings.Replace(second, "1", "23", 1)); later != two {
		t.Errorf("other figures make another need: %q, %q", two, later)
	}
}

// A tenant sees its own endpoints, and nothing of the whole.
func TestOverviewOfATenant(t *testing.T) {
	api := &counting{answers: troubled()}
	tokens := &admin.Tokens{Others: map[string]*admin.Access{acmeToken: {Name: "acme", May: []admin.Right{admin.Read}, Tenants: []string{"acme"}}}}
	p := compared(t, New(Options{API: api, Tokens: func() *admin.Tokens { return tokens }, Now: screenTime}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+acmeToken)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	body := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(body, "Your endpoints") {
		t.Fatalf("%d %s", w.Code, body)
	}
	if api.asked["/readyz"]+api.asked["/v1/alerts"] > 0 {
		t.Errorf("it asked for the whole: %v", api.asked)
	}
	for _, not := range []string{"/config", "/alerts", "/reload", "<button class=\"small\">", "full", "spool"} {
		if strings.Contains(body, not) {
			t.Errorf("it has %q", not)
		}
	}
}

// Viewers with the same access, language and address share an answer for two seconds, each with its own marks of forms;
// all others get their own.
func TestOverviewIsShared(t *testing.T) {
	api := &counting{answers: troubled()}
	now := screenTime()
	tokens := &admin.Tokens{Whole: wholeToken, Others: map[string]*admin.Access{}}
	for _, name := range []string{"one", "two"} {
		tokens.Others["token-of-"+name+"-for-a-test"] = &admin.Access{Name: name, May: []admin.Right{admin.Read}, Tenants: []string{name}}
	}
	p := New(Options{API: api, Tokens: func() *admin.Tokens { return tokens }, Now: func() time.Time { return now }})
	view := func(token, target, lang string) string {
		r := httptest.NewRequest("GET", target, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Accept-Language", lang)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%d %s", w.Code, w.Header())
		}
		return w.Body.String()
	}
	var all sync.WaitGroup
	bodies := make([]string, 50)
	for i := range bodies {
		all.Go(func() { bodies[i] = view(wholeToken, "/", "en") })
	}
	all.Wait()
	if n := api.total(); n != 5 {
		t.Errorf("50 viewers asked the API %d times", n)
	}
	marks := map[string]bool{}
	for _, body := range bodies {
		m := regexp.MustCompile(`name="once" value="([^"]+)"`).FindStringSubmatch(body)
		if m == nil || marks[m[1]] {
			t.Fatal("two viewers have the same mark, so that only one of them can act")
		}
		marks[m[1]] = true
	}
	for i, other := range [][3]string{{wholeToken, "/", "zh-TW"}, {wholeToken, "/?span=7d", "en"}} {
		view(other[0], other[1], other[2])
		if n := api.total(); n != 10+5*i {
			t.Errorf("%v: the API was asked %d times", other, n)
		}
	}
	for i, name := range []string{"one", "two"} { // who ask for less
		if body := view("token-of-"+name+"-for-a-test", "/", "en"); !strings.Contains(body, "<span>"+name+"</span>") {
			t.Errorf("%s gets the answer for another", name)
		}
		if n := api.total(); n != 18+3*i {
			t.Errorf("%s: the API was asked %d times", name, n)
		}
	}
	before := api.total()
	now = now.Add(sharedFor - time.Millisecond)
	if view(wholeToken, "/", "en"); api.total() != before {
		t.Error("the answer is not shared for two seconds")
	}
	now = now.Add(time.Millisecond)
	if view(wholeToken, "/", "en"); api.total() != before+5 {
		t.Error("the answer is shared for longer")
	}
}

// A screen that cannot be shown while the outbox is away can be asked for again, as it was.
func TestTryAgain(t *testing.T) {
	api := &counting{answers: map[string]string{"/v1/endpoints": "503", "/v1/deliveries": "503"}}
	if w := visit(t, overviewPage(t, api), "/deliveries?state=failed&cursor=x"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `href="/deliveries?state=failed&amp;cursor=x">Try again<`) {
		t.Errorf("the screen cannot be asked for again: %d %s", w.Code, w.Body)
	}
}

// What is wrong with a screen is shared by all who wait for it, so nobody changes it.
func TestRefusalsOfOthersStay(t *testing.T) {
	p := overviewPage(t, &counting{})
	shared := &refusal{Status: http.StatusServiceUnavailable, Code: "outbox_unavailable"}
	w := httptest.NewRecorder()
	p.newCall(w, httptest.NewRequest(http.MethodGet, "/?range=7d", nil)).fail(shared)
	if shared.Again != "" || !strings.Contains(w.Body.String(), `href="/?range=7d">Try again<`) {
		t.Errorf("it has the address %q of one of them, and %s", shared.Again, w.Body)
	}
}

// An answer that failed is not kept, and one that panics fails alone.
func TestSharedFailuresAreNotKept(t *testing.T) {
	api := &counting{answers: map[string]string{"/v1/endpoints": "503"}}
	p := New(Options{Open: true, API: api, Now: screenTime})
	if w := visit(t, p, "/"); w.Code != http.StatusServiceUnavailable && w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
	api.mu.Lock()
	api.answers = troubled()
	api.mu.Unlock()
	if w := visit(t, p, "/"); w.Code != http.StatusOK {
		t.Errorf("after the failure: %d", w.Code)
	}
	for i := range 2 * maxShared {
		visit(t, p, fmt.Sprintf("/?x=%d", i))
	}
	if n := len(p.sharing.answers); n > maxShared {
		t.Errorf("%d answers are kept", n)
	}
}

// An endpoint's values stand at their steps, and steps without one are gaps.
func TestStepsOfAnEndpoint(t *testing.T) {
	since := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	rate := 0.5
	s := &admin.EndpointStats{Since: since, Steps: []admin.StatRow{
		{Start: since.Add(time.Hour), TookMS: &admin.Took{P95: 40}}, {Start: since.Add(3 * time.Hour), SuccessRate: &rate, TookMS: &admin.Took{P95: 80}},
	}}
	for name, want := range map[string]string{"p95": "[NaN 40 NaN 80]", "success": "[NaN NaN NaN 0.5]"} {
		of := map[string]func(*admin.StatRow) *float64{"p95": p95Of, "success": successOf}[name]
		if got := fmt.Sprint(stepsOfEndpoint(s, span{back: 3 * time.Hour, step: "hour"}, of)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
