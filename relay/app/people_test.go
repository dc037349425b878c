package app

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/relay/admin"
	"relay/relay/page"
)

// Tokens that are refused leave one line in 10 seconds, without the token, at the API, at the form and at links.
func TestRefusedTokensAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		refused := newRefusals(zerolog.New(&log))
		tokens := func() *admin.Tokens { return &admin.Tokens{Whole: "the-token-of-the-operator"} }
		nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		api, people := admin.Authorize(tokens, false, refused.tell, nothing), page.New(page.Options{API: nothing, Tokens: tokens, Refused: refused.tell})
		ask := func(h http.Handler, method, path, token string) {
			r := httptest.NewRequest(method, path, strings.NewReader(url.Values{"token": {token}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if path == "/v1/jobs" && token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		for i, x := range []struct {
			h            http.Handler
			method, path string
			token        string
			logged       bool
		}{
			{api, "GET", "/v1/jobs", "", false}, // shows no token
			{api, "GET", "/v1/jobs", "the-token-of-the-operator", false},
			{people, "POST", "/login", "the-token-of-the-operator", false},
			{people, "GET", "/login", "", false},
			{api, "GET", "/v1/jobs", "canary-a", true},
			{people, "POST", "/login", "canary-b", true},
			{people, "GET", "/enter/canary-c", "", true},
			{people, "POST", "/enter/canary-d", "", true},
		} {
			log.Reset()
			for range 3 {
				ask(x.h, x.method, x.path, x.token)
			}
			if got := strings.Count(log.String(), "token refused"); got != 1 && x.logged || got != 0 && !x.logged || strings.Contains(log.String(), "canary") {
				t.Errorf("%d: %s %s: %s", i, x.method, x.path, &log)
			}
			time.Sleep(warnRefused)
		}
		ask(people, "POST", "/login", "canary")
		if !strings.Contains(log.String(), `"client":"192.0.2.1","code":"unauthorized","repeats":2`) {
			t.Errorf("%s", &log)
		}
	})
}
