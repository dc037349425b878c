package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"relay/relay/admin"
)

// noon is when the pages of golden files are made.
func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// Answers of the API, with an endpoint in trouble and one made at run time. HOSTILE stands for what a stranger chose.
const (
	listAnswer = `{"total":120,"runtime":{"enabled":true,"secrets":true,"policies":["default","HOSTILE"],"signatures":["standard","none"],"bodies":["chat"],"overrides":["timeout","rate_limit"]},"endpoints":[
		{"name":"billing","description":"HOSTILE","state":"active","waiting":"breaker","deliveries":{"accepted":10,"pending":3,"failed":2,"oldest_ms":61000},"in_flight":0},
		{"name":"shop","state":"disabled","code":"gone","made":{"revision":"7","settings":{},"secrets":1},"deliveries":{"held":1},"in_flight":0}]}`
	billingAnswer = `{"name":"billing","description":"HOSTILE","url":"https://example.com/HOSTILE","labels":{"HOSTILE":"HOSTILE"},"tenants":["HOSTILE"],"state":"active","enabled":true,"events":"HOSTILE",
		"concurrency":4,"hash":"abc123","deliveries":{"accepted":10,"pending":3,"failed":2,"oldest_ms":61000},"waiting":"breaker","breaker":"open","open_until":"2026-01-02T12:00:20Z",
		"rate_limit":{"per_second":50,"tokens":12.5},"in_flight":1,"relays":{"1":"abc123","2":"def456"},"agrees":false,
		"stats":{"since":"2025-12-26T12:00:00Z","total":9,"delivered":4,"failed":2,"discarded":0,"pending":3,"success_rate":0.6667,"mean_ms":12.5,"last":"2026-01-02T11:59:00Z"},
		"recent":[{"id":"dlv_1","event":{"id":"evt_1","type":"HOSTILE","tenant":"HOSTILE","time":"2026-01-02T11:59:00Z"},"endpoint":"billing","state":"pending","attempts":1,"max_attempts":4,"created":"2026-01-02T11:59:00Z","next_attempt":"2026-01-02T12:01:00Z","last":{"n":1,"started":"2026-01-02T11:59:00Z","took_ms":3,"status":503}}]}`
	shopAnswer = `{"name":"shop","state":"disabled","code":"gone","since":"2026-01-02T11:00:00Z","enabled":true,"hash":"fff","deliveries":{"held":1},"in_flight":0,
		"made":{"revision":"7","secrets":1,"created":"2026-01-01T12:00:00Z","updated":"2026-01-02T11:30:00Z","flaws":[{"pointer":"/HOSTILE","detail":"HOSTILE"}],
		"settings":{"url":"https://example.com/HOSTILE?***","description":"HOSTILE","events":["HOSTILE"],"headers":{"HOSTILE":"***"},"labels":{"a":"HOSTILE"},"when":"HOSTILE","timeout":{"total":"9s","connect":"3s"}}}}`
	statsAnswer = `{"since":"2026-01-01T12:00:00Z","until":"2026-01-02T13:00:00Z","step":"hour","percentile_error":0.02,"total":{},"backlogs":[{"start":"2026-01-02T10:00:00Z","most":0},{"start":"2026-01-02T11:00:00Z","most":40},{"start":"2026-01-02T12:00:00Z","most":12}],
		"rows":[{"start":"2026-01-02T10:00:00Z","endpoint":"billing","ended":6,"delivered":4,"failed":2,"attempts":8,"success_rate":0.6667,"took_ms":{"mean":10,"p50":8,"p95":20,"p99":21}}]}`
)

// endpointsAPI answers with these texts, in which a text of a stranger is put.
func endpointsAPI(hostile string) http.Handler {
	inner, _ := json.Marshal(hostile) // a string can be written
	texts := map[string]string{
		"GET /v1/endpoints": listAnswer, "GET /v1/endpoints/billing": billingAnswer, "GET /v1/endpoints/shop": shopAnswer, "GET /v1/stats": statsAnswer,
		"GET /v1/endpoints/shop/hcl":    `{"hcl":"endpoint HOSTILE"}`,
		"GET /v1/endpoints/shop/secret": `{"secrets":[{"secret":"whsec_HOSTILE"},{"secret":"whsec_old","until":"2026-01-03T12:00:00Z"}]}`,
		"GET /v1/types":                 `{"types":[{"type":"order.created","example":{"text":"HOSTILE"}}]}`,
		"GET /v1/audit":                 `{"items":[]}`,
		"POST /v1/endpoints/billing/test": `{"event":{"id":"evt_1","type":"relay.test","time":"2026-01-02T12:00:00Z"},"endpoint":"billing","state":"failed","n":1,"took_ms":3,"status":500,"code":"http_500","error":"HOSTILE",
			"response":{"headers":[],"body":"HOSTILE"},"unrecorded":"HOSTILE"}`,
		"POST /v1/links": `{"token":"relay_link_x","tenant":"acme","for":"Ann HOSTILE","warning":"no endpoint is for it","may":["read"],"expires":"2026-01-03T12:00:00Z"}`,
	}
	for path, text := range texts {
		texts[path] = strings.ReplaceAll(text, "HOSTILE", string(inner[1:len(inner)-1]))
	}
	return fakeAPI(texts)
}

// part asks for a screen without its frame.
func part(p *Page, method, path, lang string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Relay-Part", "1")
	r.Header.Set("Accept-Language", lang)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// once asks for what a form goes on to, which is shown once.
func once(t *testing.T, p *Page, path, lang string, form url.Values) string {
	t.Helper()
	w := part(p, http.MethodPost, path, lang, form)
	if w.Code != http.StatusSeeOther {
		t.Fatalf("POST %s: %d %s", path, w.Code, w.Body)
	}
	return part(p, http.MethodGet, w.Header().Get("Location"), lang, nil).Body.String()
}

// endpointScreens are all screens of endpoints and links, by name.
func endpointScreens(t *testing.T, p *Page, lang string) map[string]string {
	t.Helper()
	screens := map[string]string{}
	for name, path := range map[string]string{
		"endpoints": "/endpoints?offset=50&q=x", "endpoint": "/endpoints/billing", "endpoint-made": "/endpoints/shop?range=30d", "endpoint-new": "/endpoints/new",
		"endpoint-edit": "/endpoints/shop/edit", "endpoint-delete": "/endpoints/shop/delete", "endpoint-fixed": "/endpoints/billing/edit", "endpoint-secret": "/endpoints/shop/secret",
		"endpoint-test": "/endpoints/billing/test?type=order.created", "links": "/links",
	} {
		screens[name] = part(p, http.MethodGet, path, lang, nil).Body.String()
	}
	screens["endpoint-tested"] = once(t, p, "/endpoints/billing/test", lang, nil)
	screens["links-made"] = once(t, p, "/links", lang, url.Values{"tenant": {"acme"}, "may": {"read"}})
	return screens
}

// The screens are as they were looked at.
func TestEndpointScreens(t *testing.T) {
	p := compared(t, New(Options{Open: true, Now: noon, API: endpointsAPI("something")}))
	for name, body := range endpointScreens(t, p, "en") {
		isGolden(t, name, body)
	}
}

// What a stranger chose is shown as text on all screens, and every key has its text in all languages.
func TestEndpointScreensShowText(t *testing.T) {
	const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}` + "\u202e"
	p := compared(t, New(Options{Open: true, Now: noon, API: endpointsAPI(hostile)}))
	key := regexp.MustCompile(`\b(endpoints?|form|test|secret|delete|fixed|links|did|state|deliveries)\.[a-z_]+\.?[a-z_.]*\b`)
	for _, lang := range languages() {
		for name, body := range endpointScreens(t, p, lang) {
			if strings.Contains(body, "<script") || strings.Contains(body, "<img") {
				t.Errorf("%s in %s has markup of a stranger: %s", name, lang, body)
			}
			if !strings.Contains(body, "alert(1)") && !strings.Contains(name, "links") && !strings.Contains(name, "delete") && name != "endpoint-fixed" {
				t.Errorf("%s in %s does not show it", name, lang)
			}
			text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, " ")
			for _, found := range key.FindAllString(text, -1) {
				if !slices.Contains([]string{"secret.", "links."}, found) && p.texts.has(found) || strings.HasPrefix(found, "form.") {
					t.Errorf("%s in %s shows the key %s", name, lang, found)
				}
			}
		}
	}
}

// What is said of a state, and what can be done about it.
func TestStateNotes(t *testing.T) {
	at := noon().Add(time.Minute)
	yes, no := true, false
	for _, c := range []struct {
		e    admin.Endpoint
		want string
	}{
		{admin.Endpoint{State: "active", Enabled: true}, ""},
		{admin.Endpoint{State: "active", Agrees: &yes}, ""},
		{admin.Endpoint{State: "active", Failing: &admin.Failing{Since: at, Code: "http_500"}}, "problem fails at: http_500"},
		{admin.Endpoint{State: "active", Agrees: &no}, "problem differs"},
		{admin.Endpoint{State: "active", Waiting: "breaker", OpenUntil: at}, "warning breaker at"},
		{admin.Endpoint{State: "active", Waiting: "retry_after", HeldUntil: at}, "warning retry_after at"},
		{admin.Endpoint{State: "active", Waiting: "limit"}, "warning limit"},
		{admin.Endpoint{State: "active", Waiting: "slots"}, "warning slots"},
		{admin.Endpoint{State: "active", Code: "consent", Waiting: "consent", Reason: "it answered 405"}, "problem consent: it answered 405"},
		{admin.Endpoint{State: "paused", Code: "operator", Since: at, Waiting: "paused"}, "warning paused at"},
		{admin.Endpoint{State: "disabled", Code: "gone", Enabled: true, Since: at}, "problem gone at"},
		{admin.Endpoint{State: "disabled", Code: "failing", Enabled: true, Since: at, Paused: true}, "problem failing at, warning paused.too"},
		{admin.Endpoint{State: "disabled", Code: "operator", Enabled: true, Since: at}, "problem operator at"},
		{admin.Endpoint{State: "disabled"}, "warning off.file"},
		{admin.Endpoint{State: "disabled", Made: &admin.Made{}}, "warning off.made"},
		{admin.Endpoint{State: "removed"}, "warning removed"},
		{admin.Endpoint{State: "elsewhere"}, "warning elsewhere"},
		{admin.Endpoint{State: "invalid", Reason: "no such policy"}, "problem invalid: no such policy"},
	} {
		texts := &catalogue{}
		var got []string
		for _, n := range stateNotes(&c.e) {
			line := n.Class + " " + strings.TrimPrefix(n.Key, "endpoint.note.")
			if !n.At.IsZero() {
				line += " at"
			}
			if n.Text != "" {
				line += ": " + n.Text
			}
			got = append(got, line)
			if !texts.has(n.Key) || !texts.has(n.Help) {
				t.Errorf("%s or its help has no text", n.Key)
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%+v: got %v, want %s", c.e, got, c.want)
		}
	}
}

// anySettings draws settings of an endpoint, as the form can show them.
func anySettings(t *rapid.T) settings {
	word := rapid.StringMatching(`[a-z]{1,5}`)
	s := settings{}
	for _, name := range []string{"url", "description", "policy", "when"} {
		if rapid.Bool().Draw(t, name) {
			s[name] = word.Draw(t, "text")
		}
	}
	for _, name := range []string{"events", "tenants", "sign"} {
		if rapid.Bool().Draw(t, name) {
			var all []any
			for _, w := range rapid.SliceOfN(word, 1, 3).Draw(t, "list") {
				all = append(all, w)
			}
			s[name] = all
		}
	}
	if rapid.Bool().Draw(t, "labels") {
		s["labels"] = map[string]any{word.Draw(t, "name"): word.Draw(t, "value")}
	}
	if rapid.Bool().Draw(t, "concurrency") {
		s["concurrency"] = json.Number(fmt.Sprint(rapid.IntRange(1, 9).Draw(t, "n")))
	}
	if rapid.Bool().Draw(t, "timeout") {
		s["timeout"] = map[string]any{rapid.SampledFrom([]string{"total", "connect"}).Draw(t, "part"): "3s"}
	}
	if rapid.Bool().Draw(t, "rate") {
		s["rate_limit"] = map[string]any{"limit": json.Number("5"), "per": "1m", "burst": json.Number("9")}
	}
	if rapid.Bool().Draw(t, "off") {
		s["enabled"] = false
	}
	return s
}

// What a form shows is what it says again, whatever the file lets it have a field for.
func TestFormKeepsSettings(t *testing.T) {
	c := &call{p: New(Options{}), lang: "en"}
	rapid.Check(t, func(t *rapid.T) {
		s := anySettings(t)
		f := &endpointForm{}
		f.Choices.Overrides = rapid.SliceOfDistinct(rapid.SampledFrom([]string{"timeout", "rate_limit", "concurrency"}), rapid.ID).Draw(t, "overrides")
		for _, name := range rapid.SliceOfDistinct(rapid.StringMatching(`[a-z]{1,2}`), rapid.ID).Draw(t, "types") {
			f.Types = append(f.Types, admin.EventType{Type: name})
		}
		f.Base = s.text()
		f.show(s)
		if diff := cmp.Diff(s, f.settings(c)); diff != "" || len(f.Problems) > 0 {
			t.Fatalf("settings (-was +is), %v:\n%s", f.Problems, diff)
		}
	})
}

// The changes from one to another, applied to the one, are the other; and two people's changes of different
// settings both stay.
func TestChangesAreMergePatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySettings(t), anySettings(t)
		patch := changes(a, b)
		if diff := cmp.Diff(b, merged(a, patch)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if same := changes(a, a.copied()); len(same) > 0 {
			t.Fatalf("no change is %v", same)
		}
		other := merged(a, settings{"other": "x"})
		if got := merged(other, patch); got["other"] != "x" || cmp.Diff(b, merged(got, settings{"other": nil})) != "" {
			t.Fatalf("together with another change: %v", got)
		}
	})
}

func TestFieldOf(t *testing.T) {
	for pointer, want := range map[string]string{
		"": "", "/": "", "/url": "url", "/events/0": "events", "/timeout": "timeout", "/timeout/total": "timeout", "/timeout/connect": "rest", "/rate_limit": "limit",
		"/rate_limit/limit": "limit", "/rate_limit/per": "per", "/rate_limit/burst": "rest", "/headers/X-A": "headers", "/retry/schedule/0": "rest", "/name": "name", "/x": "rest",
	} {
		if got := fieldOf(pointer); got != want {
			t.Errorf("%s: %q, want %q", pointer, got, want)
		}
	}
}

// A problem stands beside its field; who is bound to a tenant does not get advice that only an operator can follow.
func TestRefusedForm(t *testing.T) {
	for _, c := range []struct {
		flaw, field, whole, bound string
	}{
		{"Invalid name. A name is 1 to 64 letters, digits, _ and -.", "name", "Invalid name. A name is 1 to 64 letters, digits, _ and -.", "Invalid name. A name is 1 to 64 letters, digits, _ and -."},
		{`/url: Invalid url. It points at a private address; set egress { allow_private = ["10.0.0.1/32"] } if it is meant.`, "url",
			`Invalid url. It points at a private address; set egress { allow_private = ["10.0.0.1/32"] } if it is meant.`, "Invalid url. It points at a private address."},
		{`/retry: the file does not let endpoints override it; runtime { overrides = […, "retry"] } would`, "rest",
			`the file does not let endpoints override it; runtime { overrides = […, "retry"] } would`, "This is not accepted. Look at the example, or ask your provider."},
	} {
		for whole, want := range map[bool]string{true: c.whole, false: c.bound} {
			f, by := &endpointForm{}, &call{p: &Page{texts: &catalogue{}}, lang: "en"}
			r := &refusal{Code: "invalid_endpoint", Diagnostics: []string{c.flaw}}
			if !whole {
				by.access = &admin.Access{Tenants: []string{"acme"}}
				r.forCustomer()
			}
			f.refuse(r, by)
			if got := f.field(c.field).Problems; len(got) != 1 || got[0].Text != want {
				t.Errorf("%s, whole %v: %q", c.flaw, whole, got)
			}
		}
	}
}
