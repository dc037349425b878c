package page

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"relay/ingest/problem"
)

// The form says for whom a link is, as the API and the verb do, and keeps that if it is refused.
func TestLinkSaysForWhom(t *testing.T) {
	var asked string
	p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = string(body)
		if strings.Contains(asked, "nobody") {
			problem.New(problem.InvalidParameter, "for is who gets the link: 1 to 100 printable characters").Write(w)
			return
		}
		_, _ = w.Write([]byte(`{"token":"relay_link_x","tenant":"acme","for":"Ann, ticket 17","may":["read"],"expires":"2026-01-03T12:00:00Z","warning":"x"}`))
	})}))
	for _, c := range []struct{ typed, want string }{
		{" Ann, ticket 17 ", `"for":"Ann, ticket 17"`},
		{"", ""},
	} {
		body := once(t, p, "/links", "en", url.Values{"tenant": {"acme"}, "for": {c.typed}, "may": {"read"}, "ttl": {"1h"}})
		if has := strings.Contains(asked, `"for"`); has != (c.want != "") || !strings.Contains(asked, c.want) {
			t.Errorf("for %q the API was asked %s", c.typed, asked)
		}
		if !strings.Contains(body, "<dd>Ann, ticket 17</dd>") || !strings.Contains(body, "No endpoint is for acme alone yet") {
			t.Errorf("the link is shown without for whom it is, or without the warning: %s", body)
		}
	}
	for field, form := range map[string]url.Values{
		"“For whom” is at most 100": {"tenant": {"acme"}, "for": {strings.Repeat("x", 5000)}, "may": {"read"}}, "A tenant is at most 255": {"tenant": {strings.Repeat("x", 5000)}, "may": {"read"}},
	} {
		if w := part(p, http.MethodPost, "/links", "en", form); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), field) || strings.Contains(asked, "xxx") {
			t.Errorf("%s: %d %s", field, w.Code, w.Body)
		}
	}
	w := part(p, http.MethodPost, "/links", "zh-TW", url.Values{"tenant": {"acme"}, "for": {"nobody <b>"}, "may": {"read"}})
	if body := w.Body.String(); w.Code != http.StatusBadRequest || !strings.Contains(body, `name="for" value="nobody &lt;b&gt;"`) {
		t.Errorf("refused: %d %s", w.Code, body)
	}
}

// A link is taken back where it was made and at its line in the audit, those of a tenant by a form, which keeps what was typed
// if it is refused. A link that is over has no button.
func TestLinksAreTakenBack(t *testing.T) {
	var asked []string
	p := compared(t, New(Options{Open: true, Now: noon, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		switch {
		case r.URL.Query().Get("tenant") == "wrong":
			problem.New(problem.InvalidParameter, "tenant is the tenant whose links are taken back, and is needed").Write(w)
		case r.URL.Path == "/v1/audit":
			_, _ = w.Write([]byte(`{"items":[{"n":5,"verb":"link revoke","what":"link AAAAAAAAAAAAAAA4"},{"n":4,"verb":"link","what":"tenant acme","after":{"id":"AAAAAAAAAAAAAAA4","expires":"2099-01-01T00:00:00Z"}},{"n":8,"verb":"link revoke","what":"tenant globex","after":{}},{"n":7,"verb":"link revoke","what":"tenant acme","after":{"for":"Ann"}},{"n":6,"verb":"link","what":"tenant globex","after":{"id":"AAAAAAAAAAAAAAA5","for":"Ann","expires":"2099-01-01T00:00:00Z"}},{"n":5,"verb":"link","what":"tenant acme","after":{"id":"AAAAAAAAAAAAAAA6","for":"Ann","expires":"2099-01-01T00:00:00Z"}},{"n":2,"verb":"link","what":"tenant acme","after":{"id":"AAAAAAAAAAAAAAA2","for":"Bob","expires":"2099-01-01T00:00:00Z"}},{"n":1,"verb":"link","what":"tenant acme","after":{"id":"AAAAAAAAAAAAAAA3","expires":"2020-01-01T00:00:00Z"}}]}`))
		default:
			_, _ = w.Write([]byte(`{"id":"AAAAAAAAAAAAAAA2","token":"relay_link_x","tenant":"acme","may":["read"],"expires":"2026-01-03T12:00:00Z"}`))
		}
	})}))
	const button = `name="id" value="AAAAAAAAAAAAAAA2"`
	has(t, "where it was made", once(t, p, "/links", "en", url.Values{"tenant": {"acme"}, "may": {"read"}, "ttl": {"1h"}}), `action="/links/revoke"`, button, "Take back")
	has(t, "the audit", part(p, http.MethodGet, "/audit", "en", nil).Body.String(), `action="/links/revoke"`, button, `!value="AAAAAAAAAAAAAAA3"`, `!value="AAAAAAAAAAAAAAA4"`, `!value="AAAAAAAAAAAAAAA5"`, `!value="AAAAAAAAAAAAAAA6"`)
	for _, c := range []struct {
		form     url.Values
		want, to string
	}{
		{url.Values{"id": {"AAAAAAAAAAAAAAA2"}}, "DELETE /v1/links/AAAAAAAAAAAAAAA2", "/audit?verb=link"},
		{url.Values{"tenant": {" acme "}, "for": {"Ann, ticket 17"}}, "DELETE /v1/links?for=Ann%2C+ticket+17&tenant=acme", "/audit?verb=link&what=tenant+acme"},
		{url.Values{"tenant": {"acme"}, "for": {""}}, "DELETE /v1/links?tenant=acme", "/audit?verb=link&what=tenant+acme"},
	} {
		asked = nil
		w := part(p, http.MethodPost, "/links/revoke", "en", c.form)
		if len(asked) != 1 || asked[0] != c.want || w.Code != http.StatusSeeOther || w.Header().Get("Location") != c.to {
			t.Errorf("%v: %d to %q, asked %v", c.form, w.Code, w.Header().Get("Location"), asked)
		}
	}
	w := part(p, http.MethodPost, "/links/revoke", "zh-TW", url.Values{"tenant": {"wrong"}, "for": {"<b>"}})
	if w.Code != http.StatusBadRequest {
		t.Errorf("refused: %d", w.Code)
	}
	has(t, "a refusal", w.Body.String(), `value="wrong"`, `value="&lt;b&gt;"`, "參數無效")
}
