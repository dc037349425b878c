package page_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"relay/internal/testkit"
	"relay/relay/admin"
)

// ofOperator are words for who runs Relay, in all languages.
var ofOperator = regexp.MustCompile(`(?i)\b(relay\.hcl|files?|hcl|tokens?|api|GET /v1\S*|egress|operators?|configurations?|verbs?|tenants?|relays?|retention|audit|run time|runtime|fleet|administrators?|secrets_key|link_key|force=true)\b|設定檔|配置文件|權杖|令牌|操作者|操作人員|操作人员|稽核|审计|租戶|租户|維運|运维|叢集|集群|管理員|管理员`)

// customer is a browser in which a link was opened.
func (r *running) customer(t *testing.T, lang string, rights ...string) *walker {
	t.Helper()
	var link admin.Link
	r.ask(t, "POST", "/v1/links", `{"tenant":"acme","may":["`+strings.Join(rights, `","`)+`"]}`, &link)
	jar, err := cookiejar.New(nil)
	testkit.Must(t, err)
	w := &walker{TB: t, r: r, visited: map[string]int{}, known: map[string]bool{}, forms: map[string][]string{}, ranks: map[string]int{}, done: map[string]bool{}}
	w.client = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	at, err := url.Parse(r.url)
	testkit.Must(t, err)
	jar.SetCookies(at, []*http.Cookie{{Name: "relay_lang", Value: lang}, {Name: "relay_session_" + at.Port(), Value: link.Token}})
	return w
}

// forOperators finds words for who runs Relay in what a person reads of a screen. What was sent is data.
func forOperators(n *html.Node) (found []string) {
	check := func(text string) {
		text = strings.NewReplacer("relay.test", "", "relay_lang", "").Replace(text)
		for _, word := range ofOperator.FindAllString(text, -1) {
			found = append(found, word+" in "+strings.TrimSpace(text))
		}
	}
	if class, _ := attribute(n, "class"); n.Type == html.ElementNode && (slices.Contains([]string{"script", "style", "pre"}, n.Data) || class == "headers") {
		return nil
	}
	if n.Type == html.TextNode {
		check(n.Data)
	}
	for _, name := range []string{"title", "aria-label", "placeholder", "alt"} {
		if text, has := attribute(n, name); has {
			check(text)
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		found = append(found, forOperators(c)...)
	}
	return found
}

// TestNothingForOperatorsInThePortal visits every screen that a link leads to, and what is refused to it, in all languages: nothing
// there is in words for who runs Relay.
func TestNothingForOperatorsInThePortal(t *testing.T) {
	r := newRunning(t)
	r.url = r.api.String() // the page of Relay itself, which sees whose request it is
	all := []string{"read", "payload", "secrets", "test", "redeliver", "endpoints"}
	var made admin.Endpoint
	r.ask(t, "GET", "/v1/endpoints/made", "", &made)
	for _, lang := range []string{"en", "zh-Hant", "zh-Hans"} {
		for _, rights := range [][]string{all, {"read"}} {
			w := r.customer(t, lang, rights...)
			w.see("/")
			for len(w.queue) > 0 {
				next := w.queue[0]
				w.queue = w.queue[1:]
				if doc := w.visit(next); doc != nil {
					for _, found := range forOperators(doc) {
						t.Errorf("%s with %v in %s: %s", next, rights, lang, found)
					}
				}
			}
			if n := len(w.known); n < 15 {
				t.Errorf("only %d addresses were seen", n)
			}
			w.refusals(lang, made.Name)
		}
	}
}

// refusals asks for what is refused to a customer, or is wrong.
func (w *walker) refusals(lang, endpoint string) {
	w.Helper()
	form := func(pairs ...string) url.Values {
		f := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			f.Set(pairs[i], pairs[i+1])
		}
		return f
	}
	own := "/endpoints/" + endpoint
	for address, f := range map[string]url.Values{
		"/deliveries?endpoint=nosuch": nil, "/deliveries?data.x=1": nil, "/deliveries?limit=0": nil, "/deliveries?status=x": nil, "/deliveries?since=x": nil, "/deliveries?tenant=other": nil, "/deliveries?nosuch=1": nil,
		"/endpoints?state=x": nil, "/endpoints?offset=x": nil, "/endpoints/nosuch": nil, "/endpoints/good": nil, "/endpoints/good/edit": nil, "/deliveries/dlv_1": nil, "/events/evt_none": nil, "/jobs/job_1": nil, "/jobs?cursor=x": nil,
		"/alerts": nil, "/config": nil, "/audit": nil, "/links": nil, "/explain": nil, "/nothing": nil, "/events/evt_1/erase": nil, "/deliveries/bulk?action=discard&state=pending": nil, "/deliveries/bulk?action=erase&state=failed": nil,
		"/deliveries/bulk?action=redeliver": nil, "/deliveries/bulk?action=retry&endpoint=nosuch": nil, "/search?q=acme": nil, "/search?q=nothing-of-this-name": nil, "/search?q=%00": nil,
		"/endpoints?1":                  form("url", "ftp://example.com", "enabled", "on"),
		"/endpoints?2":                  form("url", "https://10.1.2.3/", "enabled", "on"),
		"/endpoints?3":                  form("url", "https://example.com/", "name", "good", "enabled", "on"),
		"/endpoints?4":                  form("url", "https://example.com/", "name", endpoint, "enabled", "on"),
		"/endpoints?5":                  form("url", "https://example.com/", "rest", `{"retry":{"schedule":["x"]},"nosuch":1}`, "enabled", "on"),
		"/endpoints?6":                  form("url", "https://example.com/", "sign", "nosuch", "concurrency", "x", "limit", "x", "events", "!!", "labels", "x", "policy", "nosuch"),
		"/endpoints?7":                  form("url", "https://example.com/", "tenants", "other", "enabled", "on"),
		own + "/secret/rotate":          form("secret", "short", "overlap", "1h"),
		own + "/pause":                  form("once", ""),
		own + "/test":                   form("type", "no type!", "data", "1"),
		own + "/delete":                 form("revision", "0"),
		"/endpoints/good/edit?1":        form("url", "https://example.com/"),
		"/deliveries/dlv_1/discard":     form("once", ""),
		"/deliveries/bulk":              form("action", "discard", "state", "pending"),
		"/deliveries/bulk?again":        form("action", "redeliver", "endpoint", endpoint, "to", "good"),
		"/reload":                       form("once", ""),
		"/links?1":                      form("tenant", "acme", "may", "read"),
		"/jobs/job_1/cancel":            form("once", ""),
		"/endpoints/good/secret/rotate": form("overlap", "1h"),
	} {
		method := http.MethodGet
		if f != nil {
			method = http.MethodPost
		}
		req, err := http.NewRequest(method, w.r.url+address, strings.NewReader(f.Encode()))
		testkit.Must(w, err)
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := w.client.Do(req)
		testkit.Must(w, err)
		text, err := io.ReadAll(resp.Body)
		testkit.Must(w, err)
		resp.Body.Close()
		doc, err := html.Parse(strings.NewReader(string(text)))
		testkit.Must(w, err)
		for _, found := range forOperators(doc) {
			w.Errorf("%s (form: %v) in %s answers %d: %s", address, f, lang, resp.StatusCode, found)
		}
		want := map[string]int{http.MethodGet: http.StatusNotFound, http.MethodPost: http.StatusMethodNotAllowed}[method] // as of what is not there
		if theirs := []string{"/alerts", "/config", "/audit", "/links", "/links?1", "/explain", "/reload", "/nothing"}; slices.Contains(theirs, address) && resp.StatusCode != want {
			w.Errorf("%s answers %d to a customer: it says that the screen is there", address, resp.StatusCode)
		}
	}
}
