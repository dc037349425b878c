package admin

import (
	"bytes"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A session holds as long as its token is there and its time is not over, and nothing else holds.
func TestSession(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	until := now.Add(12 * time.Hour)
	key := strings.Repeat("k", 32)
	tokens := &Tokens{Whole: "whole-token", Others: map[string]*Access{
		"support-token-0123": {Name: "support", May: []Right{Read}},
		"ops-token-01234567": {Name: "ops", May: []Right{Operate}},
	}, Links: Links{Keys: []string{key}}}
	foreign := &Tokens{Whole: "another-token", Links: Links{Keys: []string{strings.Repeat("f", 32)}}}
	link := func(l Links, end time.Time) string {
		return l.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: end.Unix()})
	}
	made := func(from *Tokens, token string) string {
		t.Helper()
		value, ok := from.Session(token, until)
		if !ok {
			t.Fatalf("no session for %q", token)
		}
		return value
	}
	whole, support := made(tokens, "whole-token"), made(tokens, "support-token-0123")
	acme := link(tokens.Links, now.Add(time.Hour))
	if got := made(tokens, acme); got != acme {
		t.Errorf("the session of a link is %q", got)
	}
	for _, token := range []string{"", "wrong", whole, link(foreign.Links, until), link(tokens.Links, now.Add(-time.Hour))} {
		if value, ok := tokens.Session(token, until); ok {
			t.Errorf("a session %q for %q", value, token)
		}
	}

	later := func(session string) string { // with a later end and the sum of the earlier one
		end := bytes.Repeat([]byte{1}, sessionHead)
		_, sum, _ := strings.Cut(session, ".")
		return base64.RawURLEncoding.EncodeToString(end) + "." + sum
	}
	noToken := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, sessionHead))
	noToken += "." + base64.RawURLEncoding.EncodeToString(sessionSum("", bytes.Repeat([]byte{1}, sessionHead)))
	removed := &Tokens{Whole: "new-whole-token", Others: maps.Clone(tokens.Others), Links: Links{Keys: []string{strings.Repeat("n", 32)}}}
	delete(removed.Others, "support-token-0123")
	for _, c := range []struct {
		name   string
		tokens *Tokens
		value  string
		now    time.Time
		want   string // name of the access, "-" for none, "" for the whole power
	}{
		{"whole power", tokens, whole, now, ""},
		{"some rights", tokens, support, now, "support"},
		{"other rights", tokens, made(tokens, "ops-token-01234567"), now, "ops"},
		{"link", tokens, acme, now, "link of acme"},
		{"until its end", tokens, support, until.Add(-time.Nanosecond), "support"},
		{"late", tokens, support, until, "-"},
		{"late of the whole power", tokens, whole, until, "-"},
		{"late link", tokens, acme, now.Add(time.Hour), "-"},
		{"end forged", tokens, later(support), now, "-"},
		{"end of the whole power forged", tokens, later(whole), now, "-"},
		{"of another Relay", tokens, made(foreign, "another-token"), now, "-"},
		{"link of another Relay", tokens, link(foreign.Links, until), now, "-"},
		{"truncated", tokens, whole[:len(whole)-1], now, "-"},
		{"without sum", tokens, whole[:strings.Index(whole, ".")+1], now, "-"},
		{"without dot", tokens, whole[:strings.Index(whole, ".")], now, "-"},
		{"longer", tokens, whole + "A", now, "-"},
		{"padded", tokens, whole + "=", now, "-"},
		{"empty", tokens, "", now, "-"},
		{"nothing but dots", tokens, "...", now, "-"},
		{"the token itself", tokens, "whole-token", now, "-"},
		{"no token is no key", &Tokens{}, noToken, now, "-"},
		{"token removed", removed, support, now, "-"},
		{"whole token replaced", removed, whole, now, "-"},
		{"link key replaced", removed, acme, now, "-"},
		{"token that stays", removed, made(tokens, "ops-token-01234567"), now, "ops"},
		{"before 1970", tokens, whole, time.Unix(-5, 0), "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			access, ok := c.tokens.AccessOfSession(c.value, c.now)
			got := "-"
			switch {
			case ok && access == nil:
				got = ""
			case ok:
				got = access.Name
			case access != nil:
				t.Errorf("access %+v without ok", access)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for _, value := range []string{whole, support} {
		if strings.Contains(value, "token") || len(value) > 100 || strings.ContainsAny(value, " ;,\"\\") {
			t.Errorf("%q does not fit a cookie", value)
		}
	}
	if w, s := whole[strings.Index(whole, "."):], support[strings.Index(support, "."):]; w == s {
		t.Error("two tokens have the same sum")
	}
}

// A request whose session stands for the whole power is one of the admin token in the audit; one that showed
// nothing is local.
func TestWhoOfSession(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	for _, c := range []struct {
		r    *http.Request
		want string
	}{
		{r, "local"},
		{r.WithContext(WithAccess(r.Context(), nil)), "admin token"},
		{r.WithContext(WithAccess(r.Context(), &Access{Name: "support"})), "token support"},
	} {
		if got := Who(c.r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	r.Header.Set("Authorization", "Bearer of-somebody-else") // was not verified
	if got := Who(r); got != "local" {
		t.Errorf("with a header that nobody verified: %q", got)
	}
}
