package page

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"relay/relay/admin"
)

// Every template can be read in every language.
func TestTemplatesCanBeRead(t *testing.T) {
	files, err := filepath.Glob("templates/*.html")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	s := &screens{now: time.Now, parse: parseMarkup, read: map[string]executor{}}
	for _, lang := range languages() {
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".html")
			if _, err := s.screen(words{all: &catalogue{}, lang: lang}, name); err != nil {
				t.Error(err)
			}
		}
	}
}

// fakeAPI answers each path with a JSON text, and any other with 404.
func fakeAPI(answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"code":"not_found","detail":"there is no such thing"}`
		}
		_, _ = w.Write([]byte(body))
	})
}

func visit(t *testing.T, p *Page, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

const hostileRow = `{"items":[{"id":"dlv_1","event":{"id":"evt_1","type":"a<b>&'\"","tenant":"<script>alert(1)</script>","time":"2026-01-01T00:00:00Z"},"endpoint":"\"><img src=x onerror=alert(1)>","state":"failed","attempts":3,"max_attempts":4,"created":"2026-01-01T00:00:00Z","last":{"n":3,"started":"2026-01-01T00:00:00Z","took_ms":1,"status":503}}],"next":"c+u/r=","total":{"at_least":1000}}`

// What strangers control is shown as text, as html/template shows it.
func TestDeliveriesShowText(t *testing.T) {
	p := compared(t, New(Options{Open: true, API: fakeAPI(map[string]string{"GET /v1/deliveries": hostileRow, "GET /v1/endpoints": `{"endpoints":[{"name":"<b>"}]}`})}))
	for _, lang := range languages() {
		r := httptest.NewRequest(http.MethodGet, "/deliveries?state=failed&type=%22%3E%3Cscript%3E&label.x=%3C", nil)
		r.Header.Set("Accept-Language", lang)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != http.StatusOK || strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") || !strings.Contains(body, "a&lt;b&gt;") {
			t.Errorf("%s: %d %s", lang, w.Code, body)
		}
	}
	if w := visit(t, p, "/deliveries/dlv_9"); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "there is no such thing") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Nothing is live for a filter that the API refuses.
func TestRefusedFilterIsNotLive(t *testing.T) {
	for status, live := range map[int]bool{http.StatusBadRequest: false, http.StatusOK: true} {
		p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/deliveries" {
				w.WriteHeader(status)
			}
			_, _ = w.Write([]byte(`{"code":"invalid_filter","detail":"no such state","items":[],"endpoints":[]}`))
		})}))
		if w := visit(t, p, "/deliveries?state=x"); w.Code != status || strings.Contains(w.Body.String(), "data-live=") != live {
			t.Errorf("%d, live: %v", w.Code, !live)
		}
	}
}

// The form keeps every condition of the address: what has no field of its own, or is a further value of one, has a box that
// takes it away.
func TestFilterKeepsEveryCondition(t *testing.T) {
	p := compared(t, New(Options{Open: true, API: fakeAPI(map[string]string{"GET /v1/deliveries": hostileRow, "GET /v1/endpoints": `{"endpoints":[]}`})}))
	for _, given := range []url.Values{
		{"state": {"failed", "discarded"}}, {"state": {"success"}}, {"state": {"<b>", "failed"}}, {"endpoint": {"crm", "a<b>", "billing"}, "type": {"order.*", "invoice.*"}}, {"tenant": {"acme", "globex"}, "since": {"2h"}},
		{"data.customer": {"c-17"}, "label.team": {"shop"}, "state": {"held", "pending"}, "key": {"k"}, "manual": {"true"}, "order": {"oldest"}}, {},
	} {
		text := visit(t, p, "/deliveries?"+given.Encode()).Body.String()
		_, form, _ := strings.Cut(text, `<form class="filters"`)
		form, _, _ = strings.Cut(form, "</form>")
		if got := sentBy(t, form); got.Encode() != given.Encode() {
			t.Errorf("the form sends %s, the address has %s: %s", got.Encode(), given.Encode(), form)
		}
	}
}

// sentBy is what a browser sends of a form that nobody touches, without empty fields. The order of values is that of the form.
func sentBy(t *testing.T, form string) url.Values {
	t.Helper()
	sent := url.Values{}
	name := ""
	for _, m := range regexp.MustCompile(`<(input|select|option)\b([^>]*)>`).FindAllStringSubmatch(form, -1) {
		attribute := func(of string) string {
			found := regexp.MustCompile(of + `="([^"]*)"`).FindStringSubmatch(m[2])
			if found == nil {
				return ""
			}
			return html.UnescapeString(found[1])
		}
		switch {
		case m[1] == "select":
			name = attribute(" name")
			continue
		case m[1] == "option" && !strings.Contains(m[2], " selected"), attribute("type") == "checkbox" && !strings.Contains(m[2], " checked"):
			continue
		case m[1] == "input":
			name = attribute(" name")
		}
		if value := attribute(" value"); value != "" {
			sent.Add(name, value)
		}
	}
	return sent
}

// The form has a field for each path of the data by which deliveries can be found, which keeps what was asked for.
func TestFilterByData(t *testing.T) {
	p := compared(t, New(Options{Open: true, API: fakeAPI(map[string]string{
		"GET /v1/deliveries": `{"items":[]}`, "GET /v1/endpoints": `{"endpoints":[]}`, "GET /v1/types": `{"types":[],"index":["data.customer"]}`,
	})}))
	body := visit(t, p, "/deliveries?data.customer=%22cus+7").Body.String()
	if !strings.Contains(body, `name="data.customer" value="&#34;cus 7"`) || !strings.Contains(body, "<details open>") || strings.Contains(body, `class="kept"`) {
		t.Error(body)
	}
}

// Who may not see the data gets no fields that the API would refuse, and is not told that the search looks at it.
func TestNoFilterByDataThatIsHidden(t *testing.T) {
	p := New(Options{API: fakeAPI(map[string]string{
		"GET /v1/deliveries": `{"items":[]}`, "GET /v1/endpoints": `{"endpoints":[]}`, "GET /v1/types": `{"types":[],"index":["data.customer"]}`,
	}), Tokens: func() *admin.Tokens {
		return &admin.Tokens{Others: map[string]*admin.Access{"reads": {May: []admin.Right{admin.Read}}, "sees": {May: []admin.Right{admin.Read, admin.Payload}}}}
	}})
	for token, want := range map[string]bool{"reads": false, "sees": true} {
		for path, shown := range map[string]string{"/deliveries": `name="data.customer"`, "/search?q=nothing": "indexed data", "/search": "indexed data"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if got := strings.Contains(w.Body.String(), shown); w.Code != http.StatusOK || got != want {
				t.Errorf("%s at %s: %d, has %q: %v", token, path, w.Code, shown, got)
			}
		}
	}
}

// A delivery whose time has come says what it waits for.
func TestRowsSayWhatTheyWaitFor(t *testing.T) {
	const row = `{"items":[{"id":"dlv_1","event":{"id":"evt_1","type":"a","time":"2026-01-01T00:00:00Z"},"endpoint":"crm","state":"STATE","attempts":1,"created":"2026-01-01T00:00:00Z","next_attempt":"2026-01-01T00:00:05Z","waits":"CAUSE"}]}`
	for of, want := range map[string]string{
		"pending breaker": ">due</time> · <span class=\"muted small\">breaker open<", "pending limit": ">at the rate limit<", "held paused": "\"><span class=\"muted small\">endpoint paused<", "pending x<b>": ">x&lt;b&gt;<", "pending ": ">due</time></td>",
	} {
		state, cause, _ := strings.Cut(of, " ")
		text := strings.NewReplacer("STATE", state, "CAUSE", cause).Replace(row)
		p := compared(t, New(Options{Open: true, API: fakeAPI(map[string]string{"GET /v1/deliveries": text, "GET /v1/endpoints": `{"endpoints":[]}`})}))
		if w := visit(t, p, "/deliveries"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", of, w.Code, w.Body)
		}
	}
}

// A held delivery has no next attempt until its endpoint is resumed; one that is pending has.
func TestHeldRowsAreNotDue(t *testing.T) {
	const row = `{"items":[{"id":"dlv_1","event":{"id":"evt_1","type":"a","time":"2026-01-01T00:00:00Z"},"endpoint":"crm","state":"STATE","attempts":1,"created":"2026-01-01T00:00:00Z","next_attempt":"2026-01-01T00:00:05Z"}]}`
	for state, due := range map[string]bool{"held": false, "pending": true} {
		p := compared(t, New(Options{Open: true, API: fakeAPI(map[string]string{"GET /v1/deliveries": strings.Replace(row, "STATE", state, 1), "GET /v1/endpoints": `{"endpoints":[]}`})}))
		if w := visit(t, p, "/deliveries"); w.Code != http.StatusOK || strings.Contains(w.Body.String(), ">due</time>") != due {
			t.Errorf("%s: %d %s", state, w.Code, w.Body)
		}
	}
}
