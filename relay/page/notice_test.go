package page

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// wentTo is where a form went on to, and what is told there, "" if it was not taken.
func wentTo(w *httptest.ResponseRecorder) string {
	if w.Code != http.StatusSeeOther {
		return ""
	}
	to := w.Header().Get("Location")
	for _, c := range w.Result().Cookies() {
		if what, path, ok := strings.Cut(c.Value, ":"); ok && strings.HasSuffix(c.Name, "_did") && c.Path == path {
			to += " " + what
		}
	}
	return to
}

// looks visits a page as a browser that keeps cookies.
type looks struct {
	t   *testing.T
	p   *Page
	jar http.CookieJar
}

func newLooks(t *testing.T, p *Page) looks {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return looks{t, p, jar}
}

func (l looks) at(method, target string, headers ...string) *httptest.ResponseRecorder {
	l.t.Helper()
	r := httptest.NewRequest(method, "http://relay.test"+target, nil)
	for _, c := range l.jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	l.p.ServeHTTP(w, r)
	l.jar.SetCookies(r.URL, w.Result().Cookies())
	return w
}

// The notice of a form is told once, where the form leads: as a problem if it failed. An address alone cannot say
// it.
func TestNotices(t *testing.T) {
	answers := deliveryAnswers(strings.Replace(failedDelivery, `"state":"failed"`, `"state":"pending"`, 1))
	answers["POST /v1/deliveries/dlv_1/discard"] = `{"id":"dlv_1","state":"discarded"}`
	p, _ := newPage(t, answers)
	l := newLooks(t, p)
	const said = `<p class="notice" role="status">Discarded. No further attempt is made.`
	for _, address := range []string{"/deliveries/dlv_1?did=discard", "/deliveries/dlv_1?relay_session_did=discard:/deliveries/dlv_1"} {
		if text := l.at("GET", address).Body.String(); strings.Contains(text, `class="notice"`) || !strings.Contains(text, "dlv_1") {
			t.Errorf("%s makes the page say that something was done: %s", address, text)
		}
	}
	to := l.at("POST", "/deliveries/dlv_1/discard").Header().Get("Location")
	if to != "/deliveries/dlv_1" {
		t.Fatalf("it goes on to %q", to)
	}
	for _, other := range []*httptest.ResponseRecorder{
		l.at("GET", "/deliveries"), l.at("GET", "/"), l.at("GET", to+"/discard"), l.at("HEAD", to), l.at("GET", to, "Relay-Part", "1"),
	} {
		if strings.Contains(other.Body.String(), said) {
			t.Error("it is told elsewhere, or in a part that is read again")
		}
	}
	if text := l.at("GET", to).Body.String(); !strings.Contains(text, said) {
		t.Errorf("it is not told: %s", text)
	}
	if text := l.at("GET", to).Body.String(); strings.Contains(text, said) {
		t.Error("a reload tells it again")
	}
}

// The cookie of a notice goes to its path alone and not for long. A test that failed is told as a problem; a key that is none is
// not told.
func TestNoticeCookie(t *testing.T) {
	p := compared(t, New(Options{Open: true, Now: func() time.Time { return at }, API: fakeAPI(deliveryAnswers(failedDelivery))}))
	r := httptest.NewRequest(http.MethodPost, "http://relay.test:7171/x", nil)
	w := httptest.NewRecorder()
	p.newCall(w, r).goOn(step{escaped("/endpoints/%s", "a;b c/d") + "?x=1", "pause"})
	c := w.Result().Cookies()[0]
	if c.Name != "relay_session_7171_did" || c.Path != "/endpoints/a%3Bb%20c%2Fd" || c.MaxAge != 60 || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie %+v", c)
	}
	for value, want := range map[string]string{
		"test.failed:/deliveries/dlv_1":    `<p class="problem" role="alert">The test failed.`,
		"test.delivered:/deliveries/dlv_1": `<p class="notice" role="status">The test was delivered.`,
		"<b>x</b>:/deliveries/dlv_1":       "", "test.delivered:/deliveries/dlv_2": "", "test.delivered": "", ":": "",
	} {
		r := httptest.NewRequest(http.MethodGet, "/deliveries/dlv_1", nil)
		r.Header.Set("Cookie", "relay_session_did="+value)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		text := w.Body.String()
		if want == "" && (strings.Contains(text, `class="notice"`) || strings.Contains(text, `role="alert"`)) || !strings.Contains(text, want) {
			t.Errorf("%q: %s", value, text)
		}
	}
}
