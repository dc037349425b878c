package page_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"relay/internal/testkit"
)

// What is wrong with a bound or another endpoint of many deliveries is said above the form, which keeps what was typed.
func TestBulkAsksAgain(t *testing.T) {
	t.Parallel()
	w := newWalker(t, newRunning(t))
	const filter = "action=redeliver&endpoint=never&state=failed&resent=false"
	base, err := url.Parse("/deliveries/bulk?" + filter)
	testkit.Must(t, err)
	ask := func(name, typed string) *http.Response {
		doc := w.visit(base.String())
		for _, f := range w.formsOf(base, doc) {
			if f.action == "/deliveries/bulk" {
				f.fields.Set("rate", "")
				f.fields.Set("to", "")
				f.fields.Set(name, typed)
				return w.post(f.action, f.fields)
			}
		}
		t.Fatal("no form asks")
		return nil
	}
	for _, c := range []struct {
		field, typed, says string
		status             int
	}{
		{"rate", "abc", "a number from 0.01 to 100000", http.StatusBadRequest},
		{"rate", `50/s "each"`, "a number from 0.01 to 100000", http.StatusBadRequest},
		{"rate", "0", "a number from 0.01 to 100000", http.StatusBadRequest},
		{"rate", `{"a":1}`, "a number from 0.01 to 100000", http.StatusBadRequest},
		{"rate", "true", "a number from 0.01 to 100000", http.StatusBadRequest},
		{"to", "nosuch", "There is no such endpoint.", http.StatusNotFound},
	} {
		resp := ask(c.field, c.typed)
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(problemIn(text), c.says) {
			t.Errorf("%s %q: %d %s", c.field, c.typed, resp.StatusCode, problemIn(text))
		}
		if kept := ` name="` + c.field + `" value="` + html.EscapeString(c.typed) + `" aria-invalid="true"`; !strings.Contains(string(text), kept) {
			t.Errorf("%s %q: no %s in %s", c.field, c.typed, kept, text)
		}
		for _, of := range []string{`name="endpoint" value="never"`, `name="state" value="failed"`, `name="resent" value="false"`, "<dt>Sent again since</dt><dd>no</dd>"} {
			if !strings.Contains(string(text), of) {
				t.Errorf("%s %q: no %s in %s", c.field, c.typed, of, text)
			}
		}
	}
	resp := ask("rate", " 1e3 ")
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/jobs/") {
		t.Errorf("a number begins no job: %d", resp.StatusCode)
	}
}
