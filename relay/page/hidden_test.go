package page

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// turn makes what comes after it read from right to left.
const turn = "\u202e"

// chosen are members of answers whose value a stranger may choose, or a part of it.
func chosen() []string {
	return []string{
		"type", "tenant", "key", "endpoint", "name", "description", "url", "who", "what", "cancelled_by", "by", "detail", "error", "about", "alert", "host", "version", "via",
		"relay", "why", "reason", "to", "pointer", "before", "after", "labels", "tenants", "filter", "indexed", "hcl", "events", "changed", "added", "removed", "event_types",
		"lines", "problems", "headers", "body", "unrecorded", "endpoints", "disagreements", "peer", "request_headers", "data", "payload",
	}
}

// turned puts the character into every text of an answer that a stranger may have chosen.
func turned(t *testing.T, text string) string {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	out, err := json.Marshal(turnIn(value, false))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func turnIn(value any, theirs bool) any {
	switch v := value.(type) {
	case string:
		if theirs {
			return v + turn
		}
	case []any:
		for i := range v {
			v[i] = turnIn(v[i], theirs)
		}
	case map[string]any:
		out := map[string]any{}
		for name, x := range v {
			_, fixed := x.(string)
			fixed = fixed && slices.Contains([]string{"state", "on", "since", "until", "open_until", "action", "encoding"}, name)
			out[name] = turnIn(x, !fixed && (theirs || slices.Contains(chosen(), name)))
		}
		return out
	}
	return value
}

// attributes and fields hold values as they are; what is said around them is text.
var notShown = regexp.MustCompile(`(?s)<textarea.*?</textarea>|<[^>]*>`)

// raws are the places where a text that is shown has the character as it is.
func raws(body string) (places []string) {
	body = notShown.ReplaceAllString(body, " ")
	for at := strings.Index(body, turn); at >= 0; at = strings.Index(body, turn) {
		places = append(places, strings.Join(strings.Fields(strings.ToValidUTF8(body[max(0, at-60):at], "")), " "))
		body = body[at+len(turn):]
	}
	return places
}

// A character that turns the text after it around is shown by its number on every screen.
func TestHiddenCharactersAreShown(t *testing.T) {
	answers := map[string]string{"GET /v1/deliveries": hostileRow, "GET /v1/events/evt_1": event}
	for path, text := range operateAnswers() {
		answers["GET "+path] = text
	}
	maps.Copy(answers, deliveryAnswers(failedDelivery))
	answers["GET /v1/endpoints"], answers["GET /v1/endpoints/billing"], answers["GET /v1/endpoints/shop"], answers["GET /v1/stats"] = listAnswer, billingAnswer, shopAnswer, statsAnswer
	answers["GET /v1/endpoints/shop/hcl"] = `{"hcl":"endpoint"}`
	answers["GET /v1/types"] = `{"types":[{"type":"order.created","description":"An order","example":{"text":"a"},"schema":{"type":"object","properties":{"a":{"type":"string","description":"b"}}}}]}`
	answers["POST /v1/links"] = `{"token":"relay_link_x","tenant":"acme","may":["read"],"expires":"2026-01-03T12:00:00Z"}`
	answers["POST /v1/redeliveries"] = `{"id":"job_1","matched":3,"filter":{"tenant":["acme"],"type":["a"]}}`
	for path, text := range answers {
		answers[path] = turned(t, text)
	}
	p := compared(t, New(Options{Open: true, Now: noon, API: fakeAPI(answers)}))
	seen := 0
	for _, path := range []string{
		"/", "/deliveries?tenant=a" + turn, "/deliveries/dlv_1", "/deliveries/dlv_1/discard", "/deliveries/bulk?action=redeliver&tenant=acme", "/events/evt_1", "/events/evt_1/erase",
		"/endpoints", "/endpoints/billing", "/endpoints/shop", "/endpoints/shop/edit", "/endpoints/shop/delete", "/endpoints/billing/edit", "/endpoints/billing/test", "/endpoints/new", "/types", "/explain",
		"/alerts", "/jobs", "/jobs/job_1", "/config", "/audit", "/links", "/search?q=" + url.QueryEscape("bill"), "/endpoints/x" + turn,
	} {
		w := visit(t, p, strings.ReplaceAll(path, turn, url.QueryEscape(turn)))
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		for _, place := range raws(w.Body.String()) {
			t.Errorf("%s shows the character as it is, after %q", path, place)
		}
		seen += strings.Count(w.Body.String(), "⟨U+202E⟩")
	}
	if body := once(t, p, "/links", "en", url.Values{"tenant": {"acme"}, "may": {"read"}}); len(raws(body)) > 0 || !strings.Contains(body, "⟨U+202E⟩") {
		t.Errorf("a link that was made: %q", raws(body))
	}
	if seen < 150 {
		t.Errorf("the character is shown by its number %d times: the answers no longer have it", seen)
	}
}
