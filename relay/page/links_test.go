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
	w := part(p, http.MethodPost, "/links", "zh-TW", url.Values{"tenant": {"acme"}, "for": {"nobody <b>"}, "may": {"read"}})
	if body := w.Body.String(); w.Code != http.StatusBadRequest || !strings.Contains(body, `name="for" value="nobody &lt;b&gt;"`) {
		t.Errorf("refused: %d %s", w.Code, body)
	}
}
