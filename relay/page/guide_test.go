package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/relay/admin"
)

// A customer's pages link to the platform's own page about its webhooks, where the file names one.
func TestGuide(t *testing.T) {
	const docs = "https://example.com/webhooks?a=1&b=2"
	look := Look{}
	p := compared(t, New(Options{API: endpointsAPI("x"), Look: func() Look { return look }, Now: noon, Tokens: func() *admin.Tokens {
		return &admin.Tokens{Whole: "whole", Others: map[string]*admin.Access{"bound": {May: admin.Rights(), Tenants: []string{"acme"}}}}
	}}))
	for _, given := range []string{docs, ""} {
		look.DocsURL = given
		for token, wanted := range map[string]bool{"bound": given != "", "whole": false} {
			if has := strings.Contains(byToken(p, token, "/types").Body.String(), `href="/guide"`); has != wanted {
				t.Errorf("%q: the menu for %s has a link: %v", given, token, has)
			}
			if has := strings.Contains(byToken(p, token, "/endpoints/shop/secret").Body.String(), `href="/guide"`); has != (given != "") {
				t.Errorf("%q: the screen of the secret for %s has a link: %v", given, token, has)
			}
			w := byToken(p, token, "/guide")
			if given != "" && (w.Code != http.StatusFound || w.Header().Get("Location") != given) || given == "" && w.Code != http.StatusNotFound {
				t.Errorf("%q: %s is sent to %d %q", given, token, w.Code, w.Header().Get("Location"))
			}
		}
	}
}

// byToken is the answer to who has a token.
func byToken(p *Page, token, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}
