package problem

import (
	"encoding/json"
	"net/http/httptest"
	"strconv"
	"testing"
)

func TestEveryCodeIsListed(t *testing.T) {
	for _, c := range Codes() {
		about := c.About()
		if about.Status < 400 || about.Title == "" {
			t.Errorf("%s: status %d, title %q", c, about.Status, about.Title)
		}
		if (about.Status == 503 || about.Status == 507) != (about.RetryAfter > 0) {
			t.Errorf("%s: status %d with Retry-After %d", c, about.Status, about.RetryAfter)
		}
	}
}

// TestWrite: every code is answered as the table says.
func TestWrite(t *testing.T) {
	for _, c := range Codes() {
		w := httptest.NewRecorder()
		New(c, "because").Write(w)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("%s: %v in %s", c, err, w.Body)
		}
		about := c.About()
		if w.Code != about.Status || p.Status != about.Status || p.Title != about.Title || p.Code != c || p.Detail != "because" || p.Type != "urn:relay:problem:"+string(c) {
			t.Errorf("%s: %d %+v", c, w.Code, p)
		}
		h := w.Header()
		after, closes := "", ""
		if about.RetryAfter > 0 {
			after = strconv.Itoa(about.RetryAfter)
		}
		if about.Close {
			closes = "close"
		}
		if h.Get("Content-Type") != "application/problem+json" || h.Get("Retry-After") != after || h.Get("Connection") != closes ||
			(h.Get("WWW-Authenticate") != "") != (c == Unauthorized) || h.Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
			t.Errorf("%s: headers %v", c, h)
		}
	}
}
