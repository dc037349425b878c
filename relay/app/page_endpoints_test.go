package app

import (
	"context"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// visitor is a browser without JavaScript, with a token.
type visitor struct {
	t      *testing.T
	client *http.Client
	token  string
}

// browse opens the page at the admin socket in dir. An empty token is the whole power.
func browse(t *testing.T, dir, token string) *visitor {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, token}
}

// shown is an answer of the page.
type shown struct {
	t    *testing.T
	code int
	to   string // where it redirects
	body string
}

func (v *visitor) do(method, path string, form url.Values) shown {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, "http://relay.test"+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "http://relay.test")
	}
	if v.token != "" {
		r.Header.Set("Authorization", "Bearer "+v.token)
	}
	answer, err := v.client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return shown{v.t, answer.StatusCode, answer.Header.Get("Location"), string(body)}
}

func (v *visitor) get(path string) shown { v.t.Helper(); return v.do("GET", path, nil) }

func (v *visitor) post(path string, form url.Values) shown {
	v.t.Helper()
	if form == nil {
		form = url.Values{}
	}
	return v.do("POST", path, form)
}

// is checks the status and which texts there are; one that begins with ! must be missing.
func (s shown) is(code int, texts ...string) shown {
	s.t.Helper()
	if s.code != code {
		s.t.Fatalf("answered %d, want %d: %s", s.code, code, s.body)
	}
	plain := html.UnescapeString(s.body)
	for _, text := range texts {
		text, missing := strings.CutPrefix(text, "!")
		if strings.Contains(plain, text) == missing {
			s.t.Errorf("has %q: %t, in %s", text, !missing, s.body)
		}
	}
	return s
}

// wentTo checks that a form was taken, and where it went on to.
func (s shown) wentTo(prefix string) string {
	s.t.Helper()
	if s.code != http.StatusSeeOther || !strings.HasPrefix(s.to, prefix) {
		s.t.Fatalf("answered %d to %q, want 303 to %s: %s", s.code, s.to, prefix, s.body)
	}
	return s.to
}

// field is the value of a field of the form.
func (s shown) field(name string) string {
	s.t.Helper()
	found := regexp.MustCompile(`name="` + name + `"[^>]*? value="([^"]*)"`).FindStringSubmatch(s.body)
	if found == nil {
		s.t.Fatalf("there is no field %s: %s", name, s.body)
	}
	return html.UnescapeString(found[1])
}

// fields are those of the form of an endpoint as it is shown, with changes.
func (s shown) fields(changes ...string) url.Values {
	form := url.Values{"enabled": {"on"}}
	for _, name := range []string{"base", "revision", "once", "url", "description", "events", "labels", "timeout"} {
		form.Set(name, s.field(name))
	}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
	}
	return form
}

const pageAccess = `
secrets_key = ["0123456789abcdef0123456789abcdef"]
ingest {
  unix %q {}
}
admin {
  http     = ""
  unix     = %q
  link_key = ["0123456789abcdef0123456789abcdef"]
  access "reader" {
    token = "token-of-a-reader-0123"
    may   = ["read"]
  }
  access "maker" {
    token = "token-of-a-maker-01234"
    may   = ["read", "endpoints"]
  }
}
outbox "sqlite" {
  path = %q
}
policy "default" {
  retry {
    schedule = ["1h"]
  }
  egress {
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}
event_type "order.created" {
  example = jsonencode({ amount = 1200 })
}
%s`

// pagePlace runs a Relay with the page at a socket, and a receiver that answers 200.
func pagePlace(t *testing.T, more string) (p *place, receiver string) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	p = newPlace(t)
	run(t, fmt.Sprintf(pageAccess, p.socket(), filepath.Join(p.dir, "admin.sock"), filepath.Join(p.dir, "outbox"), strings.ReplaceAll(more, "RECEIVER", s.URL)))
	return p, s.URL
}

// An endpoint is made, changed by two people, tested, paused and deleted on the page.
func TestPageMakesEndpoints(t *testing.T) {
	p, receiver := pagePlace(t, endpointBlock("fixed", "https://a.example.com/x"))
	v := browse(t, p.dir, "")
	v.get("/endpoints").is(200, "1 endpoint", "New endpoint", "fixed")
	v.get("/endpoints/new").is(200, "as the file says")

	// What is wrong stands beside its field, and what was typed stays; the secret value of a header, too, for who typed it.
	wrong := v.post("/endpoints", url.Values{"url": {"ftp://x"}, "timeout": {"fast"}, "rest": {`{"timeut":1}`}, "labels": {"a"}, "enabled": {"on"}})
	wrong.is(422, "a is no label", `value="ftp://x"`)
	wrong = v.post("/endpoints", url.Values{"url": {"ftp://x"}, "timeout": {"fast"}, "rest": {`{"timeut":1}`}, "enabled": {"on"}})
	wrong.is(422, "Did you mean", "This was not saved", `value="fast"`, `{"timeut":1}`, `aria-invalid="true"`)
	v.post("/endpoints", url.Values{"url": {receiver}, "rest": {"{"}}).is(422, "This is not a JSON object")
	v.post("/endpoints", url.Values{"url": {receiver}, "name": {"fixed"}, "enabled": {"on"}}).is(409, "the file has the endpoint")

	form := url.Values{
		"once": {"mark-1"}, "url": {receiver + "/hooks?key=canary"}, "name": {"shop"}, "description": {"Of the shop"}, "events": {"order.*, !order.lost"}, "labels": {"project=shop"},
		"timeout": {"9s"}, "limit": {"50"}, "headers": {"X-Key: canary"}, "rest": {`{"timeout":{"connect":"3s"}}`}, "enabled": {"on"},
	}
	to := v.post("/endpoints", form).wentTo("/endpoints/shop/secret")
	v.post("/endpoints", form).wentTo(to) // Back and again makes no other
	v.get(to).is(200, "whsec_", "The endpoint is made.", "The audit records each visit")
	edit := v.get("/endpoints/shop/edit").is(200, "!canary", receiver+"/hooks?***", `"connect": "3s"`, "X-Key", `value="project=shop"`)
	v.get("/endpoints/shop").is(200, "!canary", "order.*", "50 per second", "As a file has it", `data-copy="hcl-text"`)

	// Two people: the second one is told, and sees both changes.
	other := v.get("/endpoints/shop/edit")
	v.post("/endpoints/shop/edit", other.fields("description", "Theirs", "events", "order.paid", "once", "o1")).wentTo("/endpoints/shop")
	joined := v.post("/endpoints/shop/edit", edit.fields("description", "Mine", "timeout", "8s", "once", "o2", "rest", `{"timeout":{"connect":"3s"}}`, "limit", "50", "per", "1s"))
	joined.is(412, "Somebody else changed this endpoint", `"Theirs"`, "you change it, too", `value="Mine"`, `value="order.paid"`, `value="8s"`)
	v.get("/endpoints/shop").is(200, "Theirs", "!Mine")
	v.post("/endpoints/shop/edit", joined.fields("once", "o3", "rest", `{"timeout":{"connect":"3s"}}`, "limit", "50", "per", "1s", "drop", "X-Key")).wentTo("/endpoints/shop")
	v.get("/endpoints/shop").is(200, "Mine", "order.paid", "!X-Key")
	var made struct {
		Made struct{ Settings map[string]any }
	}
	ask(t, p.dir, "/v1/endpoints/shop", &made)
	if got := fmt.Sprint(made.Made.Settings); !strings.Contains(got, "timeout:map[connect:3s total:8s]") || !strings.Contains(got, "rate_limit:map[limit:50 per:1s]") || strings.Contains(got, "X-Key") {
		t.Errorf("settings: %s", got)
	}

	// A test goes on to its delivery, with what came back.
	v.get("/endpoints/shop/test?type=order.created").is(200, `"amount": 1200`)
	v.post("/endpoints/shop/test", url.Values{"type": {"order.created"}, "data": {"{"}}).is(400, "The data is not JSON", ">{<")
	v.post("/endpoints/shop/test", url.Values{"type": {"a b"}}).is(400, `value="a b"`)
	v.get(v.post("/endpoints/shop/test", url.Values{"type": {"order.created"}, "data": {`{"n":12345678901234567890}`}}).wentTo("/deliveries/dlv_")).is(200, "The test was delivered.")

	// Pause holds, and says who did it; what waits keeps the endpoint from being deleted without a word.
	v.get(v.post("/endpoints/shop/pause", nil).wentTo("/endpoints/shop")).is(200, "Paused. Deliveries are held", "by uid", "Resume")
	say(t, p.dir, `{"type":"order.paid","data":{}}`)
	question := v.get("/endpoints/shop/delete").is(200, "1 delivery has not ended")
	v.post("/endpoints/shop/delete", url.Values{"revision": {"1"}, "force": {"true"}}).is(412, "changed meanwhile")
	v.post("/endpoints/shop/delete", url.Values{"revision": {question.field("revision")}}).is(409, "force=true deletes it")
	v.post("/endpoints/shop/delete", url.Values{"revision": {question.field("revision")}, "force": {"true"}}).wentTo("/endpoints")
	v.get("/endpoints/shop").is(200, "No file that runs has this endpoint", "!Edit")
	v.get("/endpoints/shop/edit").is(409, "was not made here")

	// What the file has is read only here.
	v.get("/endpoints/fixed").is(200, "from the file", "!Edit", "Pause")
	for _, screen := range []string{"edit", "delete", "secret"} {
		v.get("/endpoints/fixed/"+screen).is(409, "what the file has is changed there")
	}
	v.post("/endpoints/fixed/edit", url.Values{"description": {"x"}}).is(409, "what the file has is changed there")
	v.get("/endpoints/nobody").is(404)
	v.post("/endpoints/fixed/remove", nil).is(405)
}

// The secret is shown to those who may see it, and rotated with an overlap.
func TestPageRotatesSecrets(t *testing.T) {
	p, receiver := pagePlace(t, "")
	v := browse(t, p.dir, "")
	v.post("/endpoints", url.Values{"url": {receiver}, "name": {"shop"}, "enabled": {"on"}}).wentTo("/endpoints/shop/secret")
	secret := regexp.MustCompile(`whsec_[\w+/=&#;]{20,}`) // escaped; the sample of code has the prefix alone
	first := secret.FindString(v.get("/endpoints/shop/secret").body)
	v.post("/endpoints/shop/secret/rotate", url.Values{"secret": {"short"}}).is(422, "!"+first)
	both := v.get(v.post("/endpoints/shop/secret/rotate", url.Values{"overlap": {"1h"}, "once": {"m"}}).wentTo("/endpoints/shop/secret")).is(200, "signs along until")
	if all := secret.FindAllString(both.body, -1); len(all) != 2 || all[0] == first || all[1] != first {
		t.Errorf("secrets %v, first %s", all, first)
	}
	v.post("/endpoints/shop/secret/rotate", url.Values{"overlap": {"0"}}).wentTo("/endpoints/shop/secret")
	if all := secret.FindAllString(v.get("/endpoints/shop/secret").body, -1); len(all) != 1 {
		t.Errorf("secrets without overlap: %v", all)
	}
	var audit struct{ Items []struct{ Verb string } }
	ask(t, p.dir, "/v1/audit", &audit)
	if got := fmt.Sprint(audit.Items); strings.Count(got, "secret show") != 3 || strings.Count(got, "secret rotate") != 2 {
		t.Errorf("audit: %s", got)
	}

	// Others see neither the secret nor buttons for what they may not.
	reader, maker := browse(t, p.dir, "token-of-a-reader-0123"), browse(t, p.dir, "token-of-a-maker-01234")
	reader.get("/endpoints/shop").is(200, "!Pause</button>\n", "!Send test<", "!Edit", "!Delete", "!Secret", "!As a file has it")
	maker.get("/endpoints/shop").is(200, "Edit", "!Secret")
	reader.get("/v1/endpoints").is(200, `!"runtime"`)
	maker.get("/v1/endpoints").is(200, `"runtime":{"enabled":true,"policies":["default"]`)
	for _, address := range []string{"/endpoints/new", "/endpoints/shop/edit", "/endpoints/shop/delete", "/endpoints/shop/test", "/endpoints/shop/secret", "/links"} {
		reader.get(address).is(403, "!whsec_")
	}
	maker.get("/endpoints/shop/secret").is(403, "!whsec_")
	for _, address := range []string{"/endpoints", "/endpoints/shop/edit", "/endpoints/shop/delete", "/endpoints/shop/pause", "/endpoints/shop/test", "/endpoints/shop/secret/rotate", "/links"} {
		reader.post(address, url.Values{"url": {receiver}, "tenant": {"acme"}, "may": {"read"}}).is(403)
	}
	maker.post("/endpoints", url.Values{"url": {receiver}, "name": {"own"}, "enabled": {"on"}}).wentTo("/endpoints/own")
}

// A link is shown once; who comes by it sees what is theirs, in words that say so.
func TestPageLinks(t *testing.T) {
	p, receiver := pagePlace(t, endpointBlock("of-acme", "RECEIVER", `tenants = ["acme"]`)+"\n"+endpointBlock("of-globex", "RECEIVER", `tenants = ["globex"]`))
	v := browse(t, p.dir, "")
	v.post("/links", url.Values{"tenant": {"acme"}}).is(400, "at least read", `value="acme"`)
	v.post("/links", url.Values{"tenant": {" "}, "may": {"read", "test"}, "ttl": {"7d"}}).is(400, "tenant is", `value="test" checked`, `value="7d" selected`)
	v.post("/links", url.Values{"tenant": {"acme"}, "may": {"operate"}, "ttl": {"1h"}}).is(400, "no right of a link")
	form := url.Values{"once": {"m"}, "tenant": {"acme"}, "may": {"read", "test", "endpoints", "secrets"}, "ttl": {"1h"}}
	to := v.post("/links", form).wentTo("/links?made=")
	found := regexp.MustCompile(`http://relay\.test/enter/(relay_link_[^<]+)`).FindStringSubmatch(v.get(to).is(200, "read, test, endpoints, secrets").body)
	if found == nil {
		t.Fatal("there is no link")
	}
	v.get(to).is(200, "That link was shown before", "!relay_link_")
	v.post("/links", form).wentTo(to)

	c := browse(t, p.dir, found[1])
	c.get("/endpoints").is(200, "Your endpoints", "1 endpoint", "of-acme", "!of-globex")
	c.get("/endpoints?q=globex").is(200, "No endpoint matches")
	c.get("/endpoints/of-acme").is(200, "Your events are delivered", "managed by your provider", "!Hash", "!Pause</button></form>", "Send test")
	c.get("/v1/endpoints/of-acme").is(200, `"tenants":["acme"]`)
	c.get("/endpoints/of-globex").is(404)
	c.get("/endpoints/of-globex/test").is(404)
	c.get("/endpoints/of-acme/edit").is(409, "managed by your provider")
	c.get("/endpoints/new").is(200, "!Whose events alone")
	to = c.post("/endpoints", url.Values{"url": {receiver}, "name": {"own"}, "enabled": {"on"}}).wentTo("/endpoints/own/secret")
	c.get(to).is(200, "whsec_")
	v.get("/endpoints/own").is(200, "acme")
	edit := c.get("/endpoints/own/edit").is(200)
	c.post("/endpoints/own/edit", edit.fields("tenants", edit.field("tenants"), "description", "My own")).wentTo("/endpoints/own")
	v.get("/endpoints?tenant=acme&made=true").is(200, "own", "My own", "!of-acme")
	c.get("/links").is(404)
	c.post("/endpoints/of-acme/pause", nil).is(403)
	v.post("/endpoints/of-acme/pause", nil).wentTo("/endpoints/of-acme")
	c.get("/endpoints/of-acme").is(200, "Your provider paused it")
}

// Where the file allows no endpoints at run time, has no key for links or secrets, the page says what to do.
func TestPageSaysWhatIsMissing(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text("runtime {\n  enabled = false\n}"))
	p.start(false)
	v := browse(t, p.dir, "")
	v.get("/endpoints").is(200, "No endpoints yet", "runtime { enabled = false }", `endpoint "billing"`, "!New endpoint")
	v.get("/endpoints/new").is(200, "The file allows no endpoints here")
	v.post("/endpoints", url.Values{"url": {"https://a.example.com"}, "sign": {"none"}}).is(409, "runtime { enabled = false }")
	v.post("/links", url.Values{"tenant": {"acme"}, "may": {"read"}}).is(409, "link_key = [env(")

	p = newPlace(t)
	p.write(p.file, p.text(""))
	p.start(false)
	v = browse(t, p.dir, "")
	v.get("/endpoints/new").is(200, "cannot store secrets yet", `secrets_key = [env("RELAY_SECRETS_KEY")]`, `runtime { secrets = "plain" }`)
	v.post("/endpoints", url.Values{"url": {"https://a.example.com"}}).is(409, "secrets_key")
	v.post("/endpoints", url.Values{"url": {"https://a.example.com"}, "sign": {"none"}, "name": {"bare"}, "enabled": {"on"}}).wentTo("/endpoints/bare")

	p = newPlace(t)
	p.write(p.file, p.text("runtime {\n  secrets = \"plain\"\n}"))
	p.start(false)
	v = browse(t, p.dir, "")
	v.get("/endpoints/new").is(200, "!cannot store secrets yet")
	v.post("/endpoints", url.Values{"url": {"https://a.example.com"}, "name": {"signed"}, "enabled": {"on"}}).wentTo("/endpoints/signed")
}

// Many endpoints come in pages, and can be searched.
func TestPageOfManyEndpoints(t *testing.T) {
	var blocks []string
	for i := range 120 {
		blocks = append(blocks, endpointBlock(fmt.Sprintf("e%03d", i), "RECEIVER", `labels = { part = "`+fmt.Sprint(i%2)+`" }`))
	}
	p, _ := pagePlace(t, strings.Join(blocks, "\n"))
	say(t, p.dir, `{"type":"order.created","data":{}}`)
	v := browse(t, p.dir, "")
	testkit.Until(t, "rates of all endpoints that are shown", func() bool { return strings.Count(v.get("/endpoints?sort=name").body, "100 %") >= 50 })
	v.get("/endpoints").is(200, "1 to 50 of 120", "e000", "e049", "!e050", "offset=50", "!Previous page")
	v.get("/endpoints?offset=100").is(200, "101 to 120 of 120", "e119", "Previous page", "!Next page")
	v.get("/endpoints?label=part%3D1&q=E11").is(200, "5 endpoints", "e111", "!e112")
	v.get("/endpoints?sort=nothing").is(400, "the order of the file by default")
	v.get("/endpoints?state=paused").is(200, "No endpoint matches")
}
