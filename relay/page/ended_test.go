package page

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/admin"
)

// link makes a link of acme by the API itself.
func (g *door) link(ttl string) string {
	g.t.Helper()
	api := admin.New(admin.Options{Links: func() admin.Links { return g.tokens.Links }, Policy: func() *policy.Policy { return &policy.Policy{} }})
	var made admin.Link
	c := &call{p: &Page{Options: Options{API: api}}, r: &http.Request{Host: "relay.test"}}
	if err := c.send(http.MethodPost, "/v1/links", admin.LinkRequest{Tenant: "acme", TTL: ttl}, &made); err != nil {
		g.t.Fatal(err)
	}
	return made.Token
}

func textOfAnswer(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Who came by a link that was taken back alone is told so, and is not asked to open it again.
func TestLinkWasTakenBack(t *testing.T) {
	g := newDoor(t)
	box := outboxtest.NewMem(outboxtest.MemOptions{})
	revoked := admin.NewRevoked(box, zerolog.Nop())
	g.tokens.Links.Revoked = revoked
	link := g.link("1h")
	for _, c := range []struct {
		when, want string
		do         func()
	}{
		{"before the first read", "Links cannot be checked right now.", func() {}},
		{"then", "", func() { testkit.Must(t, revoked.Load(t.Context())) }},
		{"taken back", "Your link was taken back.", func() {
			api := admin.New(admin.Options{Outbox: box, Links: func() admin.Links { return g.tokens.Links }, Policy: func() *policy.Policy { return &policy.Policy{} }})
			w := httptest.NewRecorder()
			api.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/v1/links/"+admin.IDOfLink(link), nil))
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}},
	} {
		c.do()
		text := textOfAnswer(t, g.ask(http.MethodPost, "/deliveries/dlv_1/retry", link, url.Values{}))
		if strings.Contains(text, "Your access has ended") != (c.want != "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", c.when, text)
		}
		if c.want == "Your link was taken back." && (strings.Contains(text, "Open the link") || !strings.Contains(text, "If you still need access")) {
			t.Errorf("%s: %s", c.when, text)
		}
	}
}

// Who came by a link that ended is told why, at every address and after every form, and is not asked for a token.
func TestAccessByALinkHasEnded(t *testing.T) {
	g := newDoor(t)
	g.Look = func() Look { return Look{Title: "acme-platform"} }
	link := g.link("1h")
	if !g.known(link) {
		t.Fatal("the link is no session")
	}
	keys := g.tokens
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"t":"globex","m":["read"],"e":1}`))
	for _, c := range []struct {
		what, token, title, why string
		after                   time.Duration
		tokens                  *admin.Tokens
	}{
		{"late", link, "Your access has ended", "The time of your link is over.", time.Hour, keys},
		{"taken back", link, "Your access has ended", "Your link was taken back.", 0, &admin.Tokens{Whole: wholeToken, Links: admin.Links{Keys: []string{"another-key-of-32-characters-0000"}}}},
		{"of no key", link, "Your access has ended", "Your link was taken back.", 0, &admin.Tokens{Whole: wholeToken}},
		{"altered", "relay_link_" + forged + link[strings.IndexByte(link, '.'):], "Your access has ended", "changed on its way", 0, keys},
		{"cut", link[:len(link)-5], "This link is not whole", "A part is missing", 0, keys},
		{"cut in the middle", link[:20], "This link is not whole", "A part is missing", 0, keys},
	} {
		g.now, g.tokens = time.Now().Add(c.after), c.tokens
		for _, x := range []struct {
			method, target string
			form           url.Values
			want           int
		}{
			{"GET", "/", nil, 401}, {"GET", "/deliveries?state=failed", nil, 401}, {"GET", "/live", nil, 401}, {"GET", "/nothing", nil, 401},
			{"POST", "/endpoints", url.Values{"url": {"https://example.com"}}, 401}, {"GET", "/enter/" + c.token, nil, 403}, {"POST", "/enter/" + c.token, nil, 403},
		} {
			if x.target == "/enter/"+c.token && c.what == "late" {
				continue // links hold by the process's clock there
			}
			answer := g.ask(x.method, x.target, c.token, x.form)
			text := textOfAnswer(t, answer)
			if answer.StatusCode != x.want || !strings.Contains(text, "<h1>"+c.title+"</h1>") || !strings.Contains(text, c.why) || !strings.Contains(text, "from acme-platform again") ||
				!strings.Contains(text, `<a href="/login`) || strings.Contains(text, `name="token"`) {
				t.Errorf("%s: %s %s: %d %s", c.what, x.method, x.target, answer.StatusCode, text)
			}
			if sent := x.form != nil; sent != strings.Contains(text, "Nothing was done") {
				t.Errorf("%s: %s %s: a form was sent: %v: %s", c.what, x.method, x.target, sent, text)
			}
		}
	}
	if len(g.done) > 0 {
		t.Errorf("it did %v", g.done)
	}
}

// A form of nobody says that nothing was done, how to log in, and how to send it again.
func TestFormOfNobody(t *testing.T) {
	g := newDoor(t)
	answer := g.ask("POST", "/endpoints", "", url.Values{"url": {"https://example.com"}})
	if text := textOfAnswer(t, answer); answer.StatusCode != http.StatusUnauthorized || !strings.Contains(text, "Nothing was done") || !strings.Contains(text, `href="/login" target="_blank"`) || !strings.Contains(text, "then reload this one") {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
}

// The cookie of a link stays as long as the link holds, and long enough after it to say that it ended.
func TestCookieOfALink(t *testing.T) {
	g := newDoor(t)
	for ttl, want := range map[string]time.Duration{"1h": time.Hour, "30d": 30 * 24 * time.Hour} {
		answer := g.ask("GET", "/enter/"+g.link(ttl), "", nil)
		found := false
		for _, c := range answer.Cookies() {
			if c.Name == "relay_session_7171" {
				found = true
				if age := time.Duration(c.MaxAge) * time.Second; age < want || age < want+endedFor-time.Minute || age > want+endedFor {
					t.Errorf("the cookie of a link for %s stays %v", ttl, age)
				}
			}
		}
		if !found {
			t.Errorf("no cookie: %d", answer.StatusCode)
		}
	}
}
