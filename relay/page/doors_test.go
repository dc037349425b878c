package page

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/relay/admin"
)

// door is a page with tokens that a test can change, and an API that counts what is done.
type door struct {
	*Page
	t      *testing.T
	tokens *admin.Tokens
	now    time.Time
	done   []string // requests of the API that change something
}

const (
	wholeToken = "the-whole-token-of-a-test"
	acmeToken  = "the-acme-token-of-a-test"
)

func newDoor(t *testing.T) *door {
	g := &door{t: t, now: time.Now()} // links hold by the process's clock
	g.tokens = &admin.Tokens{Whole: wholeToken, Others: map[string]*admin.Access{
		acmeToken: {Name: "acme", May: []admin.Right{admin.Read}, Tenants: []string{"acme"}},
	}, Links: admin.Links{Keys: []string{"0123456789abcdef0123456789abcdef"}}}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			g.done = append(g.done, r.Method+" "+r.URL.Path)
		}
		fmt.Fprint(w, `{"items":[],"endpoints":[],"id":"job_1","config":{},"status":"ready"}`)
	})
	g.Page = compared(t, New(Options{API: api, Tokens: func() *admin.Tokens { return g.tokens }, Now: func() time.Time { return g.now }}))
	return g
}

// ask makes a request with a cookie, "" for none, and a form for POST.
func (g *door) ask(method, target, cookie string, form url.Values) *http.Response {
	g.t.Helper()
	r := httptest.NewRequest(method, "http://relay.test:7171"+target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		r.Header.Set("Cookie", "relay_session_7171="+cookie)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w.Result()
}

// login logs in and returns the value of the cookie.
func (g *door) login(token string) string {
	g.t.Helper()
	answer := g.ask("POST", "/login", "", url.Values{"token": {token}, "next": {"/jobs"}})
	if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/jobs" {
		g.t.Fatalf("login: %d to %q", answer.StatusCode, answer.Header.Get("Location"))
	}
	for _, c := range answer.Cookies() {
		if c.Name == "relay_session_7171" {
			return c.Value
		}
	}
	g.t.Fatal("login sets no cookie")
	return ""
}

func (g *door) known(cookie string) bool {
	g.t.Helper()
	answer := g.ask("GET", "/jobs", cookie, nil)
	switch answer.StatusCode {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized: // of a link
		return false
	case http.StatusSeeOther:
		if to := answer.Header.Get("Location"); to != "/login?next=%2Fjobs" {
			g.t.Errorf("it leads to %q", to)
		}
		return false
	}
	g.t.Fatalf("status %d", answer.StatusCode)
	return false
}

// The cookie of a session cannot be read by scripts, is not sent by other sites, and does not hold the token.
func TestSessionCookie(t *testing.T) {
	g := newDoor(t)
	answer := g.ask("POST", "/login", "", url.Values{"token": {wholeToken}})
	found := false
	for _, c := range answer.Cookies() {
		if strings.Contains(c.Value, wholeToken) {
			t.Errorf("cookie %s has the token", c.Name)
		}
		if !c.HttpOnly {
			t.Errorf("cookie %s can be read by scripts", c.Name)
		}
		if c.Name == "relay_session_7171" {
			found = true
			if c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge != int(12*time.Hour/time.Second) || c.Secure {
				t.Errorf("cookie %+v", c)
			}
		}
	}
	if !found {
		t.Error("there is no cookie of a session")
	}
	if wrong := g.ask("POST", "/login", "", url.Values{"token": {"x" + wholeToken}}); wrong.StatusCode != http.StatusForbidden || len(wrong.Cookies()) > 0 {
		t.Errorf("a wrong token: %d, cookies %v", wrong.StatusCode, wrong.Cookies())
	}
}

// A session ends by itself, by logging out, and when a reload takes its token away. No other value is one.
func TestSessionsThatHold(t *testing.T) {
	g := newDoor(t)
	cookie := g.login(wholeToken)
	if !g.known(cookie) {
		t.Fatal("the session does not hold")
	}
	head, tail, _ := strings.Cut(cookie, ".")
	forged := []string{"", ".", head, head + ".", "." + tail, cookie + "x", tail + "." + head, wholeToken, acmeToken, strings.Repeat("A", 5000), "AAAAAH____8." + tail, g.login(acmeToken)[:12] + "." + tail}
	for _, value := range forged {
		if g.known(value) {
			t.Errorf("%.40q is taken for a session", value)
		}
	}
	start := g.now
	for after, want := range map[time.Duration]bool{12*time.Hour - 2*time.Second: true, 12*time.Hour + time.Second: false, 1000 * time.Hour: false} {
		g.now = start.Add(after)
		if g.known(cookie) != want {
			t.Errorf("after %v it holds: %v", after, !want)
		}
	}
	g.now = start
	for _, c := range g.ask("POST", "/logout", cookie, nil).Cookies() {
		if c.MaxAge >= 0 {
			t.Errorf("logging out keeps cookie %+v", c)
		}
	}
	of := g.login(acmeToken)
	g.tokens = &admin.Tokens{Whole: "another-token-after-a-reload"}
	if g.known(cookie) || g.known(of) {
		t.Error("sessions hold whose tokens a reload removed")
	}
	g.tokens = &admin.Tokens{Whole: wholeToken} // another Relay with the same token, or the same one after a restart
	if !g.known(cookie) {
		t.Error("the session does not hold at another Relay with the same token")
	}
}

// Nothing is done without a session.
func TestWritesNeedASession(t *testing.T) {
	g := newDoor(t)
	for _, target := range []string{"/reload", "/jobs/job_1/cancel", "/deliveries/bulk", "/deliveries/dlv_1/redeliver", "/endpoints/a/pause", "/links"} {
		for _, cookie := range []string{"", "forged.value"} {
			if answer := g.ask("POST", target, cookie, url.Values{"once": {"m"}}); answer.StatusCode != http.StatusUnauthorized {
				t.Errorf("POST %s: %d", target, answer.StatusCode)
			}
		}
	}
	if len(g.done) > 0 {
		t.Errorf("it did %v", g.done)
	}
}

// Logging in leads to an address of the page alone.
func TestLoginLeadsNowhereElse(t *testing.T) {
	g := newDoor(t)
	for next, want := range map[string]string{
		"/deliveries?state=failed": "/deliveries?state=failed", "": "/", "//evil.test": "/", "https://evil.test/": "/", `/\evil.test`: "/", `\\evil.test`: "/",
		"evil.test": "/", "javascript:alert(1)": "/", "/\t/evil.test": "/", "/a\r\nSet-Cookie: x=1": "/", "///evil.test": "/", "http:/evil.test": "/",
	} {
		answer := g.ask("POST", "/login", "", url.Values{"token": {wholeToken}, "next": {next}})
		if got := answer.Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q, not %q", next, got, want)
		}
		if body := g.ask("GET", "/login?"+url.Values{"next": {next}}.Encode(), "", nil); body.StatusCode != http.StatusOK {
			t.Errorf("the form with next %q: %d", next, body.StatusCode)
		}
	}
	if got := g.ask("GET", "/login?next=//evil.test", g.login(wholeToken), nil).Header.Get("Location"); got != "/" {
		t.Errorf("somebody who is logged in is led to %q", got)
	}
}

// A form that is sent again, by a second click, by Back or by reloading, acts once.
func TestFormsActOnce(t *testing.T) {
	g := newDoor(t)
	cookie := g.login(wholeToken)
	first := g.ask("POST", "/jobs/job_1/cancel", cookie, url.Values{"once": {"mark-1"}})
	second := g.ask("POST", "/jobs/job_1/cancel", cookie, url.Values{"once": {"mark-1"}})
	if first.StatusCode != http.StatusSeeOther || second.Header.Get("Location") != first.Header.Get("Location") || len(g.done) != 1 {
		t.Errorf("%d, %q then %q, done %v", first.StatusCode, first.Header.Get("Location"), second.Header.Get("Location"), g.done)
	}
	g.ask("POST", "/jobs/job_2/cancel", cookie, url.Values{"once": {"mark-1"}})
	g.ask("POST", "/jobs/job_1/cancel", cookie, url.Values{"once": {"mark-2"}})
	if len(g.done) != 3 {
		t.Errorf("another form or another mark is another act: done %v", g.done)
	}
	other := g.ask("POST", "/jobs/job_1/cancel", g.login(acmeToken), url.Values{"once": {"mark-1"}})
	if other.StatusCode != http.StatusSeeOther || len(g.done) != 4 {
		t.Errorf("another's mark keeps a form from acting: %d, done %v", other.StatusCode, g.done)
	}
	if long := g.ask("POST", "/jobs/job_1/cancel", cookie, url.Values{"x": {strings.Repeat("a", maxForm)}}); long.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a form that is too long: %d", long.StatusCode)
	}
}

// Two clicks on a form act once, though the second one comes before the first has acted, and ends its request. What failed may be
// tried again.
func TestClicksActOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acted atomic.Int32
		var broken atomic.Bool
		p := New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				acted.Add(1)
				time.Sleep(time.Second)
				if broken.Load() || r.Context().Err() != nil {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
			}
			fmt.Fprint(w, `{"items":[],"endpoints":[],"id":"job_1","config":{},"status":"ready"}`)
		})})
		click := func(ctx context.Context, mark string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, "POST", "http://relay.test:7171/jobs/job_1/cancel", strings.NewReader("once="+mark))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			return w
		}
		for _, step := range []struct {
			mark   string
			broken bool
			status int
			acts   int32 // so far
		}{{"one", false, http.StatusSeeOther, 1}, {"one", false, http.StatusSeeOther, 1}, {"two", true, http.StatusServiceUnavailable, 2}, {"two", false, http.StatusSeeOther, 3}} {
			broken.Store(step.broken)
			ctx, leave := context.WithCancel(t.Context())
			first := make(chan *httptest.ResponseRecorder, 1)
			go func() { first <- click(ctx, step.mark) }()
			synctest.Wait()
			leave()
			second := click(t.Context(), step.mark)
			if w := <-first; w.Code != step.status || second.Code != step.status || second.Header().Get("Location") != w.Header().Get("Location") || acted.Load() != step.acts {
				t.Errorf("%+v: %d to %q, %d to %q, acted %d times", step, w.Code, w.Header().Get("Location"), second.Code, second.Header().Get("Location"), acted.Load())
			}
		}
	})
}

// Every answer has the headers that keep a browser from running, framing or keeping anything.
func TestHeadersOfEveryAnswer(t *testing.T) {
	g := newDoor(t)
	cookie := g.login(wholeToken)
	for _, x := range []struct{ method, target, cookie string }{
		{"GET", "/", cookie}, {"GET", "/", ""}, {"GET", "/login", ""}, {"POST", "/login", ""}, {"GET", "/nothing/here", cookie}, {"GET", "/nothing/here", ""},
		{"GET", "/jobs", cookie}, {"GET", "/search?q=x", cookie}, {"POST", "/reload", cookie}, {"POST", "/reload", ""}, {"DELETE", "/jobs", cookie}, {"GET", "/assets/page.css", ""},
		{"GET", "/assets/nothing", ""}, {"GET", "/enter/wrong", ""}, {"POST", "/logout", cookie}, {"GET", "/deliveries/bulk?action=x", cookie}, {"GET", "/?lang=zh-Hant", ""}, {"HEAD", "/", cookie},
	} {
		answer := g.ask(x.method, x.target, x.cookie, nil)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if name == "Referrer-Policy" && strings.HasPrefix(x.target, "/enter/") {
				want = "no-referrer" // the address logs in
			}
			if got := answer.Header.Get(name); got != want {
				t.Errorf("%s %s: %d with %s: %q", x.method, x.target, answer.StatusCode, name, got)
			}
		}
	}
	css := g.ask("GET", "/assets/page.css?v="+g.version("page.css"), "", nil)
	if got := css.Header.Get("Cache-Control"); got != "public, max-age=31536000, immutable" {
		t.Errorf("an asset of its version: Cache-Control %q", got)
	}
}

// HEAD is GET without a body; other methods are refused; unknown paths are a screen.
func TestMethodsAndUnknownPaths(t *testing.T) {
	g := newDoor(t)
	cookie := g.login(wholeToken)
	for _, target := range []string{"/", "/jobs", "/login", "/config"} {
		get, head := g.ask("GET", target, cookie, nil), g.ask("HEAD", target, cookie, nil)
		if head.StatusCode != get.StatusCode || head.ContentLength > 0 || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d %q, GET %d", target, head.StatusCode, head.Header.Get("Content-Type"), get.StatusCode)
		}
		var b [1]byte
		if n, _ := head.Body.Read(b[:]); n > 0 {
			t.Errorf("HEAD %s has a body", target)
		}
	}
	for _, x := range []struct {
		method, target string
		want           int
	}{
		{"POST", "/jobs", 405}, {"PUT", "/jobs", 405}, {"DELETE", "/config", 405}, {"PATCH", "/", 405}, {"POST", "/nothing", 405}, {"GET", "/reload", 404}, {"GET", "/nothing", 404},
		{"GET", "/assets/../page.go", 404}, {"GET", "/jobs/", 404}, {"GET", "/enter/x", 403},
	} {
		if answer := g.ask(x.method, x.target, cookie, nil); answer.StatusCode != x.want && answer.StatusCode != http.StatusMovedPermanently && answer.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s %s: %d, want %d", x.method, x.target, answer.StatusCode, x.want)
		}
	}
	for _, x := range []struct {
		target, accept string
		want           bool
	}{
		{"/", "", true}, {"/deliveries", "application/json", true}, {"/nothing", "text/html,*/*", true}, {"/nothing", "*/*", false}, {"/nothing", "", false},
		{"/v1/deliveries", "text/html", false}, {"/v1/nothing", "text/html", false}, {"/healthz", "text/html", false}, {"/readyz", "text/html", false}, {"/metrics", "text/html", false}, {"/openapi.json", "text/html", false},
	} {
		r := httptest.NewRequest("GET", x.target, nil)
		if x.accept != "" {
			r.Header.Set("Accept", x.accept)
		}
		if got := g.Serves(r); got != x.want {
			t.Errorf("%s with Accept %q is the page's: %v", x.target, x.accept, got)
		}
	}
}

// The language is that of the cookie, which the switch sets, and else of the browser.
func TestLanguageSwitch(t *testing.T) {
	g := newDoor(t)
	answer := g.ask("GET", "/login?lang=zh-Hant&next=%2Fjobs", "", nil)
	if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/login?next=%2Fjobs" || len(answer.Cookies()) != 1 || answer.Cookies()[0].Value != "zh-Hant" {
		t.Errorf("%d %q %v", answer.StatusCode, answer.Header.Get("Location"), answer.Cookies())
	}
	if answer := g.ask("GET", "/login?lang=<script>", "", nil); len(answer.Cookies()) != 0 {
		t.Errorf("an unknown language sets %v", answer.Cookies())
	}
	r := httptest.NewRequest("GET", "/login", nil)
	r.Header.Set("Accept-Language", "en")
	r.Header.Set("Cookie", "relay_lang=zh-Hans")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Header().Get("Content-Language") != "zh-Hans" || !strings.Contains(w.Body.String(), `<html lang="zh-Hans">`) {
		t.Errorf("Content-Language %q", w.Header().Get("Content-Language"))
	}
}

// A screen that is not there for a customer is still there for everybody else afterwards.
func TestNobodyClosesScreensOfOthers(t *testing.T) {
	t.Parallel()
	g := newDoor(t)
	whole, acme := g.login(wholeToken), g.login(acmeToken)
	screens := 0
	for _, r := range g.routes() {
		path, get := strings.CutPrefix(r.pattern, "GET ")
		if !r.whole || !get {
			continue
		}
		screens++
		before := g.ask("GET", path, whole, nil).StatusCode
		if got := g.ask("GET", path, acme, nil).StatusCode; got != http.StatusNotFound {
			t.Errorf("%s: %d to a customer", path, got)
		}
		if got := g.ask("GET", path, whole, nil).StatusCode; before == http.StatusNotFound || got != before {
			t.Errorf("%s: %d, and %d after a customer asked for it", path, before, got)
		}
	}
	if screens < 4 {
		t.Errorf("%d screens are about the whole", screens)
	}
}
