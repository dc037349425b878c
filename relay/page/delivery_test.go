package page

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/relay/admin"
	"relay/relay/gate"
	"relay/relay/jobs"
)

// at is when screens of these tests are looked at.
var at = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// asked is a request that a fake API got.
type asked struct{ method, path, query, body string }

// api answers as admin's handler would, and remembers what it was asked for.
type api struct {
	answers map[string]string // by method and path; a text that begins with a number is a status
	mu      sync.Mutex
	asked   []asked
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.asked = append(a.asked, asked{r.Method, r.URL.Path, r.URL.RawQuery, string(body)})
	a.mu.Unlock()
	text, ok := a.answers[r.Method+" "+r.URL.Path]
	status := http.StatusOK
	if !ok {
		status, text = http.StatusNotFound, `{"code":"not_found","detail":"there is no such thing"}`
	}
	if _, err := fmt.Sscanf(text, "%d ", &status); err == nil {
		text = text[4:]
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// changes are the requests that were no reads.
func (a *api) changes() (all []asked) {
	for _, r := range a.asked {
		if r.method != http.MethodGet {
			all = append(all, r)
		}
	}
	return all
}

const readerToken = "token-of-a-reader"

// newPage is a page over a fake API, open to all; a request with readerToken only has the right to read.
func newPage(t *testing.T, answers map[string]string) (*Page, *api) {
	t.Helper()
	a := &api{answers: answers}
	tokens := &admin.Tokens{Others: map[string]*admin.Access{readerToken: {Name: "reader", May: []admin.Right{admin.Read}}}}
	return compared(t, New(Options{API: a, Open: true, Now: func() time.Time { return at }, Tokens: func() *admin.Tokens { return tokens }})), a
}

// mainOf is the part of a page that belongs to its screen.
func mainOf(body string) string {
	_, body, _ = strings.Cut(body, "<main")
	body, _, _ = strings.Cut(body, "</main>")
	return "<main" + marks.ReplaceAllString(body, `name="once" value="MARK"`) + "</main>\n"
}

// shows asks for a screen, and returns what belongs to it.
func shows(t *testing.T, p *Page, path string, header ...string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return mainOf(w.Body.String())
}

// sends posts a form.
func sends(p *Page, path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

// has reports texts that are not there, and those with "!" before them that are.
func has(t *testing.T, name, body string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		unwanted, isNot := strings.CutPrefix(text, "!")
		if isNot && strings.Contains(body, unwanted) {
			t.Errorf("%s shows %q", name, unwanted)
		}
		if !isNot && !strings.Contains(body, text) {
			t.Errorf("%s does not show %q", name, text)
		}
	}
}

const hostile = `<script>alert(1)</script>\"'&\u202e`

// failedDelivery had two attempts, and strangers wrote into every part of it.
const failedDelivery = `{"id":"dlv_1","event":{"id":"evt_1","type":"order.created","tenant":"` + hostile + `","key":"` + hostile + `","time":"2026-01-31T11:59:00Z"},
"endpoint":"crm","state":"failed","code":"http_422","error":"the receiver answered 422","attempts":2,"max_attempts":4,"created":"2026-01-31T11:59:00Z","finished":"2026-01-31T11:59:31Z",
"last":{"n":2,"started":"2026-01-31T11:59:30Z","took_ms":12.5,"status":422,"code":"http_422"},"redelivery_of":"dlv_0","redelivered_as":["dlv_2","dlv_3"],"manual":true,
"payload":{"order":17,"big":12345678901234567890.10,"html":"` + hostile + `"},
"request":{"method":"POST","url":"https://crm.example.com/hooks?***","headers":[{"name":"Content-Type","value":"application/json"},{"name":"webhook-signature","value":"***"},{"name":"X-Name","value":"it's"}],
"body":{"text":"{\"big\":12345678901234567890.10,\"it\":\"it's\"}","generation":3,"may_differ":true}},
"history":[{"n":1,"started":"2026-01-31T11:59:00Z","took_ms":3,"timings":{"dns":1,"connect":0.5,"tls":0,"first_byte":0,"total":3},"reused":false,"peer":"192.0.2.1:443","status":0,"outcome":"retry","code":"connection_reset","error":"` + hostile + `","request_headers":[{"name":"Content-Type","value":"` + hostile + `"}],"response":null,"next_attempt":"2026-01-31T11:59:30Z","relay":"relay-1","generation":2},
{"n":2,"started":"2026-01-31T11:59:30Z","took_ms":12.5,"timings":{"dns":0,"connect":0,"tls":0,"first_byte":11,"total":12.5},"reused":true,"peer":"192.0.2.1:443","status":422,"outcome":"refused","code":"http_422","error":"the receiver answered 422","request_headers":[],"response":{"headers":[{"name":"X-Evil","value":"` + hostile + `"}],"body":"` + hostile + `","truncated":true},"relay":"relay-1","generation":2}]}`

func deliveryAnswers(text string) map[string]string {
	return map[string]string{"GET /v1/deliveries/dlv_1": text, "GET /v1/endpoints": `{"endpoints":[{"name":"billing"},{"name":"crm"}],"total":2}`}
}

func TestDelivery(t *testing.T) {
	p, _ := newPage(t, deliveryAnswers(failedDelivery))
	body := shows(t, p, "/deliveries/dlv_1")
	has(t, "a failed delivery", body, "Refused at attempt 2.", "crm answered 422 after 13 ms.", "the receiver", "12345678901234567890.10", "!<script", "⟨U+202E⟩",
		`action="/deliveries/dlv_1/redeliver"`, `href="/deliveries/dlv_0"`, `href="/deliveries/dlv_3"`, "only the beginning was kept", "if it changed this endpoint", `<option value="billing"`, `!<option value="crm"`, "!/retry")
	has(t, "what is seen of it", regexp.MustCompile(` data-value="[^"]*"`).ReplaceAllString(body, ""), "!\u202e")
	isGolden(t, "delivery", body)
	for _, lang := range []string{"zh-TW", "zh-CN"} {
		has(t, lang, shows(t, p, "/deliveries/dlv_1", "Accept-Language", lang), "422", "!Attempt", "!delivery.")
	}
}

// The data stands once in sight, as the body that was sent, and so do the headers and the answer of the last attempt. Where the
// body cannot be made again the data is in sight itself.
func TestDeliveryDoesNotRepeatItself(t *testing.T) {
	p, _ := newPage(t, deliveryAnswers(failedDelivery))
	body := shows(t, p, "/deliveries/dlv_1")
	if n := strings.Count(body, "<td>X-Evil</td>"); n != 1 {
		t.Errorf("the header of the answer is shown %d times", n)
	}
	has(t, "with a body", body, `<details id="payload-box">`, `href="#exchange"`, `id="exchange"`)
	_, rest, _ := strings.Cut(failedDelivery, `"request":`)
	_, history, _ := strings.Cut(rest, `"history":`)
	first, _, _ := strings.Cut(failedDelivery, `"request":`)
	p, _ = newPage(t, deliveryAnswers(first+`"history":`+history))
	body = shows(t, p, "/deliveries/dlv_1")
	has(t, "without a request", body, `!payload-box`, `!href="#exchange"`, `<td>X-Evil</td>`, "12345678901234567890.10")
}

// What the state of a delivery is, is said in a sentence, with who can do something about it.
func TestVerdicts(t *testing.T) {
	pending := strings.NewReplacer(`"state":"failed"`, `"state":"pending"`, `"finished"`, `"next_attempt":"2026-01-31T12:05:00Z","x"`, `"outcome":"refused","code":"http_422"`, `"outcome":"retry","code":"http_422"`)
	for _, c := range []struct {
		name     string
		delivery string
		endpoint string
		want     []string
	}{
		{"tried again", pending.Replace(failedDelivery), `{"name":"crm","state":"active","deliveries":{}}`, []string{
			"Attempt 2 of 4 failed. It is tried again.", "in 5 min", `action="/deliveries/dlv_1/retry"`, `href="/deliveries/dlv_1/discard"`, "!/redeliver", `data-live="event=evt_1"`, `data-again="15"`, "!breaker"}},
		{"due", strings.NewReplacer("12:05:00", "12:00:00", `"next_attempt"`, `"waits":"slots","next_attempt"`).Replace(pending.Replace(failedDelivery)), `{"name":"crm","state":"active","deliveries":{}}`, []string{`data-again="2"`, "waits until one of the attempts to crm"}},
		{"behind a breaker", strings.Replace(pending.Replace(failedDelivery), `"next_attempt"`, `"waits":"breaker","next_attempt"`, 1), `{"name":"crm","state":"active","deliveries":{}}`, []string{"The breaker of crm is open"}},
		{"held", strings.Replace(pending.Replace(failedDelivery), `"pending"`, `"held"`, 1), `{"name":"crm","state":"paused","reason":"maintenance <b>","deliveries":{}}`, []string{
			"Held: crm is paused.", "maintenance &lt;b&gt;", `href="/endpoints/crm"`, "!/retry", `href="/deliveries/dlv_1/discard"`}},
		{"held, and nobody knows why", strings.Replace(pending.Replace(failedDelivery), `"pending"`, `"held"`, 1), `404 {"code":"endpoint_not_found"}`, []string{"Held: nothing is sent to this endpoint."}},
		{"failed before", `{"id":"dlv_1","event":{"id":"evt_1","type":"a","time":"2026-01-31T11:59:00Z"},"endpoint":"crm","state":"failed","code":"when_error","error":"no such attribute","attempts":0,"created":"2026-01-31T11:59:00Z","last":null,"payload":1,"request":null,"history":[]}`, "",
			[]string{"Failed before anything was sent.", "Relay&#39;s configuration", "no such attribute", "No attempt was made.", "!What was sent"}},
		{"last one failed", strings.Replace(failedDelivery, `"outcome":"refused"`, `"outcome":"retry"`, 1), "", []string{"Failed for good after 2 attempts.", "failed, the last one", "failed, tried again"}},
		{"gone", strings.Replace(failedDelivery, `"outcome":"refused"`, `"outcome":"gone"`, 1), "", []string{"The receiver wants no more events at this address."}},
		{"delivered", strings.NewReplacer(`"state":"failed","code":"http_422"`, `"state":"delivered"`, `"status":422`, `"status":200`, `"outcome":"refused"`, `"outcome":"delivered"`).Replace(failedDelivery), "", []string{
			"Delivered at attempt 2.", "crm answered 200", "!Where to look", `<button class="plain">Send again`}},
		{"discarded", strings.Replace(failedDelivery, `"state":"failed","code":"http_422"`, `"state":"discarded","code":"discarded_by_operator"`, 1), "", []string{"Discarded by an operator.", "an operator did it", "/redeliver"}},
		{"erased", strings.NewReplacer(`"state":"failed","code":"http_422"`, `"state":"discarded","code":"erased_by_operator"`, `"payload":{`, `"erased":"2026-01-31T11:00:00Z","payload":null,"x":{`, `"body":{"text"`, `"error":"so its body cannot be made again","body":null,"x":{"text"`).Replace(failedDelivery), "", []string{
			"Discarded, because the event&#39;s data was erased.", "so its body cannot be made again", "The event&#39;s data was erased for good.", "!/redeliver", "!Copy as curl"}},
		{"base64", strings.Replace(failedDelivery, `"body":"`+hostile+`","truncated":true`, `"body":"//4AAQ==","encoding":"base64"`, 1), "", []string{"ff fe 00 01", "not text: shown as bytes", "!said"}},
		{"of a batch", strings.Replace(failedDelivery, `"generation":3,"may_differ":true}`, `"generation":2,"batch":true}`, 1), "", []string{"this is the part of this event", "by the configuration that runs now", "!another configuration"}},
	} {
		answers := deliveryAnswers(c.delivery)
		answers["GET /v1/endpoints/crm"] = c.endpoint
		p, _ := newPage(t, answers)
		has(t, c.name, shows(t, p, "/deliveries/dlv_1"), c.want...)
	}
}

// Without the right to see payloads the page says so, and without the others it offers nothing.
func TestDeliveryWithoutRights(t *testing.T) {
	hidden := strings.NewReplacer(`"payload":{`, `"payload_left_out":true,"payload":null,"x":{`, `"body":{"text"`, `"body":null,"x":{"text"`, `"headers":[{"name":"X-Evil","value":"`+hostile+`"}],"body":"`+hostile+`"`, `"headers":[],"body":""`).Replace(failedDelivery)
	p, _ := newPage(t, deliveryAnswers(hidden))
	body := shows(t, p, "/deliveries/dlv_1", "Authorization", "Bearer "+readerToken)
	has(t, "without rights", body, "has not the right “payload”", "!<form", "!erased", "!12345678901234567890", "!Copy as curl", "Refused at attempt 2.")
	if n := strings.Count(body, "has not the right"); n < 3 {
		t.Errorf("payload, request and answer say why they are hidden %d times", n)
	}
}

func TestDeliveryActions(t *testing.T) {
	answers := deliveryAnswers(strings.Replace(failedDelivery, `"state":"failed"`, `"state":"pending"`, 1))
	answers["POST /v1/deliveries/dlv_1/redeliver"] = `202 {"id":"dlv_9","redelivery_of":"dlv_1","endpoint":"billing"}`
	answers["POST /v1/deliveries/dlv_1/discard"] = `{"id":"dlv_1","state":"discarded"}`
	answers["POST /v1/deliveries/dlv_1/retry"] = `409 {"code":"delivery_over","detail":"the delivery is <failed>"}`
	p, a := newPage(t, answers)

	form := url.Values{"once": {"a-mark"}, "to": {"billing"}}
	for range 2 { // the second one is a click too many
		if w := sends(p, "/deliveries/dlv_1/redeliver", form); wentTo(w) != "/deliveries/dlv_9 redeliver" {
			t.Errorf("redeliver: %d %s", w.Code, w.Header())
		}
	}
	if got := a.changes(); len(got) != 1 || got[0].body != `{"to":"billing"}` {
		t.Errorf("the API was asked for %+v", got)
	}
	has(t, "the question", shows(t, p, "/deliveries/dlv_1/discard"), "Discard this delivery?", "cannot be taken up again", `action="/deliveries/dlv_1/discard"`)
	if w := sends(p, "/deliveries/dlv_1/discard", nil); wentTo(w) != "/deliveries/dlv_1 discard" {
		t.Errorf("discard: %d %s", w.Code, w.Header())
	}
	w := sends(p, "/deliveries/dlv_1/retry", nil)
	has(t, "a refusal", w.Body.String(), "The delivery is over.", "It can be sent again.", "!failed&gt;", "delivery_over")
	if w.Code != http.StatusConflict {
		t.Errorf("a refusal has status %d", w.Code)
	}
	if w := sends(p, "/deliveries/dlv_1/explode", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("an unknown action: %d", w.Code)
	}
	answers["GET /v1/deliveries/dlv_1"] = failedDelivery
	has(t, "the question, too late", shows(t, p, "/deliveries/dlv_1/discard"), "It is over already", "!<form")
}

// Every code that the documentation lists, which a test of relay holds against the program, and every status of HTTP says what
// it means in each language; so do the causes for which an endpoint waits.
func TestEveryCodeIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- generated: codes -->")
	table, _, _ = strings.Cut(table, "<!-- end -->")
	codes := []string{jobs.CodeDiscarded, jobs.CodeErased}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		codes = append(codes, row[1])
	}
	if len(codes) < 20 {
		t.Fatalf("only %d codes: the test no longer sees them", len(codes))
	}
	texts := &catalogue{}
	for status := 100; status < 600; status++ {
		codes = append(codes, fmt.Sprintf("http_%d", status))
	}
	for _, lang := range languages() {
		for _, code := range codes {
			text := codeText(words{all: texts, lang: lang}, code)
			if text == code || strings.Contains(text, "%") || !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "。") {
				t.Errorf("%s: code %s is explained as %q", lang, code, text)
			}
			if !texts.has("side." + sideOf(code)) {
				t.Errorf("code %s has no side", code)
			}
		}
		for _, cause := range gate.Causes() {
			if key := "deliveries.waits." + string(cause); texts.text(lang, key) == key {
				t.Errorf("%s has no text in %s", key, lang)
			}
			if key := "wait." + string(cause); texts.text(lang, key) == key {
				t.Errorf("%s: nothing says what it means to wait for %s", lang, cause)
			}
		}
	}
	if got := codeText(words{all: texts, lang: "en"}, "code_of_the_future"); got != "code_of_the_future" {
		t.Errorf("an unknown code is %q", got)
	}
}

// The command that repeats a request means the same to a shell, whatever a stranger wrote into it.
func TestCurl(t *testing.T) {
	sent := &admin.SentRequest{
		Method: "POST", URL: "https://a.example.com/it's/$(id)?***",
		Headers: []admin.Header{{Name: "X-A", Value: "`id` 'x' \"y\" \\ $HOME"}, {Name: "X-Empty"}, {Name: "webhook-signature", Value: "v1,***"}, {Name: "Content-Length", Value: "3"}, {Name: "Host", Value: "b"}},
		Body:    &admin.RebuiltBody{Text: "@/etc/passwd\n'; rm -rf $(pwd) #\n\\"},
	}
	want := []string{"--globoff", "--request", "POST", "https://a.example.com/it's/$(id)", "--header", "X-A: `id` 'x' \"y\" \\ $HOME", "--header", "X-Empty;", "--data-raw", sent.Body.Text}
	out, err := exec.Command("sh", "-c", "curl() { printf '%s\\0' \"$@\"; }\n"+curl(sent)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("the shell makes %q of it, want %q", got, want)
	}
	sent.Body.Text = "a\x00b"
	if got := curl(sent); got != "" {
		t.Errorf("a body that no argument can hold: %s", got)
	}
}

func TestBeginning(t *testing.T) {
	for given, want := range map[string]string{" \nab ": "ab", "abcdef": "abcd…", "aaaé": "aaa…", "": ""} {
		if got := beginning(given, 4); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

// A reload that changed nothing of the endpoint leaves its requests as they were; for one that may have the screen says so without an alarm.
func TestBodyAfterReload(t *testing.T) {
	for change, differs := range map[string]bool{
		`"last_change":{"generation":3,"changed":["billing"],"at":"2026-01-31T11:59:40Z"}`: false,
		`"last_change":{"generation":3,"changed":["crm"],"at":"2026-01-31T11:59:40Z"}`:     true,
		`"last_change":{"generation":4,"changed":["billing"],"at":"2026-01-31T11:59:40Z"}`: true, // the one before is not known
		`"last_change":{"generation":3,"changed":["billing"],"at":"2026-01-31T11:00:00Z"}`: true, // of another process than the attempt
		`"generation":3`: true,
	} {
		answers := deliveryAnswers(failedDelivery)
		answers["GET /v1/config"] = "{" + change + "}"
		p, _ := newPage(t, answers)
		want := "by the configuration that runs now"
		if differs {
			want = "if it changed this endpoint"
		}
		has(t, change, shows(t, p, "/deliveries/dlv_1"), want, "!hint bad")
	}
}

// A bare word as a type finds nothing: the list offers the pattern that may.
func TestWiderType(t *testing.T) {
	p, _ := newPage(t, map[string]string{"GET /v1/endpoints": `{}`, "GET /v1/deliveries": `{"items":[]}`})
	has(t, "a word", shows(t, p, "/deliveries?type=order&state=failed"), `href="/deliveries?state=failed&amp;type=order.%2A"`)
	for _, typ := range []string{"order.created", "order.*", "*", ""} {
		has(t, typ, shows(t, p, "/deliveries?type="+typ), "!type="+typ+".%2A")
	}
}

// What a bulk action is meant for is said as the job will say it.
func TestBulkConditions(t *testing.T) {
	p, _ := newPage(t, map[string]string{"POST /v1/retries": `{"matched":3,"filter":{"state":["held"],"since":["2026-01-31T11:00:00.5Z"]}}`})
	has(t, "the question", shows(t, p, "/deliveries/bulk?action=retry&state=held&since=1h"), "<dt>State</dt>", "<dd>held</dd>", "<dt>Since</dt>", "2026-01-31 11:00:00 UTC")
}

// The title of a cell that is cut hides nothing of what a stranger wrote.
func TestTitleOfRow(t *testing.T) {
	p, _ := newPage(t, map[string]string{"GET /v1/endpoints": `{}`, "GET /v1/deliveries": `{"items":[{"id":"dlv_1","event":{"type":"order.created","tenant":"a\u202e\"b"},"endpoint":"crm","state":"pending"}]}`})
	has(t, "the row", shows(t, p, "/deliveries"), `title="crm a⟨U&#43;202E⟩`, `title="order.created"`)
}

// A bound session sees no generation, and still that the body may differ; no label is empty.
func TestDeliveryWithoutGenerations(t *testing.T) {
	text := strings.NewReplacer(`"generation":3,`, ``, `,"relay":"relay-1","generation":2`, ``).Replace(failedDelivery)
	p, _ := newPage(t, deliveryAnswers(text))
	has(t, "without generations", shows(t, p, "/deliveries/dlv_1"), "if it changed this endpoint", "!relay-1", "!Made by", "!<dd></dd>")
}

// What a delivery that is waited for will have is a part of its screen before: the module puts it there once it came.
func TestPartsThatCome(t *testing.T) {
	parts := func(text string) (all []string) {
		for _, part := range strings.Split(text, `data-part="`)[1:] {
			name, _, _ := strings.Cut(part, `"`)
			all = append(all, name)
		}
		return all
	}
	waits, _ := newPage(t, map[string]string{
		"GET /v1/deliveries/dlv_1": `{"id":"dlv_1","event":{"id":"evt_1","type":"t"},"endpoint":"crm","state":"pending","next_attempt":"2026-01-31T12:00:00Z","payload":1}`,
		"GET /v1/endpoints/crm":    `{"name":"crm","state":"active","deliveries":{}}`,
	})
	over, _ := newPage(t, deliveryAnswers(failedDelivery))
	before, after := parts(shows(t, waits, "/deliveries/dlv_1")), parts(shows(t, over, "/deliveries/dlv_1"))
	if !slices.Contains(after, "exchange") || !slices.Equal(before, after) {
		t.Errorf("it waits with the parts %v, and ends with %v", before, after)
	}
}

// Who opens a delivery that was sent again sees how that went, and is not urged to send it once more.
func TestSentAgainSince(t *testing.T) {
	for state, urged := range map[string]bool{"delivered": false, "pending": false, "failed": true, "discarded": true} {
		answers := deliveryAnswers(failedDelivery)
		answers["GET /v1/deliveries/dlv_3"] = `{"id":"dlv_3","state":"` + state + `"}`
		p, _ := newPage(t, answers)
		text := shows(t, p, "/deliveries/dlv_1")
		_, verdict, _ := strings.Cut(text, `id="verdict-title"`)
		verdict, _, _ = strings.Cut(verdict, "</section>")
		has(t, state, verdict, `<strong>Sent again as</strong> <a class="id" href="/deliveries/dlv_3">dlv_3</a>`, ">"+state+"</span>")
		if got := strings.Contains(verdict, `<button class="primary">Send again`); got != urged {
			t.Errorf("sent again and %s: its button is the first thing to do: %v, want %v, in %s", state, got, urged, verdict)
		}
	}
}

// A delivery that waits for its endpoint has the way there, and no button that would do nothing.
func TestWaitsLeadToTheEndpoint(t *testing.T) {
	pending := `{"id":"dlv_1","event":{"id":"evt_1","type":"t"},"endpoint":"crm","state":"pending"%s,"next_attempt":"2026-01-31T12:42:00Z","payload":1}`
	for waits, leads := range map[string]bool{``: false, `,"waits":"retry_after"`: true, `,"waits":"breaker"`: true, `,"waits":"limit"`: true} {
		p, _ := newPage(t, map[string]string{"GET /v1/deliveries/dlv_1": fmt.Sprintf(pending, waits), "GET /v1/endpoints/crm": `{"name":"crm","state":"active","deliveries":{}}`})
		text := shows(t, p, "/deliveries/dlv_1")
		if there, now := strings.Contains(text, `<a class="button primary" href="/endpoints/crm">`), strings.Contains(text, "Try now</button>"); there != leads || now == leads {
			t.Errorf("with %q it leads to the endpoint: %v, and can be tried now: %v: %s", waits, there, now, text)
		}
	}
}
