package page

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// The browser says whether it speaks TLS, with a proxy in front, too; addresses of links and cookies follow. What a proxy or
// another site says does not count.
func TestOrigin(t *testing.T) {
	for _, c := range []struct {
		name    string
		host    string
		tls     bool
		headers []string
		want    string
	}{
		{"plain", "relay.test:8", false, nil, "http"},
		{"TLS with Relay", "relay.test:8", true, nil, "https"},
		{"a form, by a proxy with TLS", "relay.test", false, []string{"Origin", "https://relay.test", "Sec-Fetch-Site", "same-origin"}, "https"},
		{"a form, plain", "relay.test:8", false, []string{"Origin", "http://relay.test:8"}, "http"},
		{"a form, plain, of a browser that says too much", "relay.test:8", false, []string{"Origin", "http://relay.test:8", "Sec-Fetch-Site", "same-origin"}, "http"},
		{"a link, by a proxy with TLS", "relay.test", false, []string{"Sec-Fetch-Site", "none"}, "https"},
		{"a link of another site, by a proxy with TLS", "relay.test", false, []string{"Origin", "http://elsewhere.test", "Sec-Fetch-Site", "cross-site"}, "https"},
		{"a link to this machine", "localhost:8", false, []string{"Sec-Fetch-Site", "none"}, "http"},
		{"a link to a name of this machine", "a.Localhost.", false, []string{"Sec-Fetch-Site", "none"}, "http"},
		{"a link to an address of this machine", "127.0.0.1:8", false, []string{"Sec-Fetch-Site", "none"}, "http"},
		{"a link to another address of this machine", "[::1]:8", false, []string{"Sec-Fetch-Site", "none"}, "http"},
		{"a proxy says so", "relay.test", false, []string{"X-Forwarded-Proto", "https", "Forwarded", "proto=https"}, "http"},
		{"another site says so", "relay.test:8", false, []string{"Origin", "https://elsewhere.test"}, "http"},
		{"another scheme", "relay.test:8", false, []string{"Origin", "javascript://relay.test:8"}, "http"},
		{"nothing", "relay.test:8", false, []string{"Origin", "null"}, "http"},
	} {
		g := newDoor(t)
		r := httptest.NewRequest(http.MethodPost, "http://"+c.host+"/login", strings.NewReader(url.Values{"token": {wholeToken}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(c.headers); i += 2 {
			r.Header.Set(c.headers[i], c.headers[i+1])
		}
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := (&call{r: r}).origin(); got != c.want+"://"+c.host {
			t.Errorf("%s: %s", c.name, got)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if len(w.Result().Cookies()) != 2 {
			t.Fatalf("%s: cookies %v", c.name, w.Result().Cookies())
		}
		for _, cookie := range w.Result().Cookies() {
			if cookie.Secure != (c.want == "https") {
				t.Errorf("%s: cookie %+v", c.name, cookie)
			}
		}
	}
}
