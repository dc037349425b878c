package page

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/relay/admin"
)

// onceDoor is a door with a link that logs in once.
func onceDoor(t *testing.T) (g *door, link string) {
	g = newDoor(t)
	g.OneTime = admin.NewOneTime(func() {})
	return g, "/enter/" + g.OneTime.Make(wholeToken)
}

// visit asks for an address as a browser does, with headers in pairs.
func (g *door) visit(method, target, cookies string, headers ...string) *http.Response {
	g.t.Helper()
	r := httptest.NewRequest(method, "http://relay.test:7171"+target, nil)
	if cookies != "" {
		r.Header.Set("Cookie", cookies)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w.Result()
}

// byPerson are the headers of a navigation that a person began.
func byPerson(more ...string) []string {
	return append([]string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-User", "?1"}, more...)
}

// in is the cookie of a session that an answer begins, "" for none.
func in(answer *http.Response) string {
	for _, c := range answer.Cookies() {
		if c.Name == "relay_session_7171" && c.MaxAge > 0 {
			return c.Value
		}
	}
	return ""
}

// A link logs in once: a person who opens it is in at once, and the next one is told that it was used.
func TestLinkOfOneUse(t *testing.T) {
	g, link := onceDoor(t)
	first := g.visit("GET", link, "", byPerson()...)
	cookie := in(first)
	if first.StatusCode != http.StatusOK || first.Header.Get("Refresh") != "0; url=/" || !g.known(cookie) {
		t.Fatalf("the first use: %d, Refresh %q, session %q", first.StatusCode, first.Header.Get("Refresh"), cookie)
	}
	if strings.Contains(link, wholeToken) || first.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the address is told: %s, %v", link, first.Header)
	}
	for _, method := range []string{"GET", "POST"} {
		again := g.visit(method, link, "", byPerson()...)
		if text := bodyOf(t, again); again.StatusCode != http.StatusGone || len(again.Cookies()) > 0 || !strings.Contains(text, "This link was used") || !strings.Contains(text, `href="/login"`) {
			t.Errorf("%s of a used link: %d, cookies %v: %s", method, again.StatusCode, again.Cookies(), text)
		}
		back := g.visit(method, link, "relay_session_7171="+cookie, byPerson()...)
		if text := bodyOf(t, back); back.StatusCode != http.StatusGone || len(back.Cookies()) > 0 || !strings.Contains(text, "This link was used") || !strings.Contains(text, "Go on as administrator") {
			t.Errorf("%s of a used link by who is logged in: %d, cookies %v: %s", method, back.StatusCode, back.Cookies(), text)
		}
	}
	if !g.known(cookie) {
		t.Error("opening the link again ended the session")
	}
}

// What is not a person does not use a link up, whatever it asks; the button does, without any header.
func TestPreviewsDoNotUseALinkUp(t *testing.T) {
	g, link := onceDoor(t)
	for name, headers := range map[string][]string{
		"program":   nil,
		"prefetch":  byPerson("Sec-Purpose", "prefetch"),
		"prerender": byPerson("Sec-Purpose", "prefetch;prerender"),
		"purpose":   byPerson("Purpose", "prefetch"),
		"script":    {"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"},
		"image":     byPerson("Sec-Fetch-Dest", "image"),
		"frame":     byPerson("Sec-Fetch-Dest", "iframe"),
		"script go": byPerson("Sec-Fetch-User", ""),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			answer := g.visit(method, link, "", headers...)
			if answer.StatusCode != http.StatusOK || len(answer.Cookies()) > 0 {
				t.Errorf("%s, %s: %d, cookies %v", name, method, answer.StatusCode, answer.Cookies())
			}
			if text := bodyOf(t, answer); method == "GET" && (!strings.Contains(text, "It works once") || !strings.Contains(text, `<form method="post" action="`+link+`">`)) {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
	if head := g.visit("HEAD", link, "", byPerson()...); len(head.Cookies()) > 0 {
		t.Error("HEAD logs in")
	}
	answer := g.visit("POST", link, "")
	if answer.StatusCode != http.StatusSeeOther || answer.Header.Get("Location") != "/" || !g.known(in(answer)) {
		t.Errorf("the button: %d to %q, cookies %v", answer.StatusCode, answer.Header.Get("Location"), answer.Cookies())
	}
}

// A link changes who somebody is only if he says so, and is not used up by the question.
func TestLinkOfOneUseAsksFirst(t *testing.T) {
	g, link := onceDoor(t)
	acme := "relay_session_7171=" + g.login(acmeToken)
	for name, answer := range map[string]*http.Response{
		"as another":            g.visit("GET", link, acme, byPerson()...),
		"from another site":     g.visit("GET", link, "relay_session_7171_hint=1", byPerson("Sec-Fetch-Site", "cross-site")...),
		"in another one's name": g.visit("GET", link, acme),
	} {
		if in(answer) != "" || answer.StatusCode != http.StatusOK || !strings.Contains(bodyOf(t, answer), "It works once") {
			t.Errorf("%s: %d, cookies %v", name, answer.StatusCode, answer.Cookies())
		}
	}
	text := bodyOf(t, g.visit("GET", link, acme, byPerson()...))
	if !strings.Contains(text, "You are logged in as acme") || !strings.Contains(text, "logs in as administrator") {
		t.Errorf("it asks: %s", text)
	}
	if in(g.visit("POST", link, acme)) == "" {
		t.Error("the button does not log in")
	}
}

// Codes that nobody made, and those of tokens that a reload took away, log nobody in. A guess is told to the log.
func TestLinksOfOneUseThatDoNotHold(t *testing.T) {
	g, link := onceDoor(t)
	refused := 0
	g.Refused = func(*http.Request) { refused++ }
	check := func(link string) {
		t.Helper()
		for _, method := range []string{"GET", "POST"} {
			if answer := g.visit(method, link, "", byPerson()...); answer.StatusCode != http.StatusForbidden || len(answer.Cookies()) > 0 {
				t.Errorf("%s: %d, cookies %v", method, answer.StatusCode, answer.Cookies())
			}
		}
	}
	check("/enter/relay_once_forged")
	if refused != 2 {
		t.Errorf("%d of 2 guesses were told", refused)
	}
	g.tokens = &admin.Tokens{Whole: "another-token-after-a-reload"}
	check(link)
	g.OneTime = nil
	check(link)
}

func bodyOf(t *testing.T, answer *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
