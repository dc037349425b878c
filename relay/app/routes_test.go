package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"relay/ingest/problem"
	"relay/outbox/redisstream/redistest"
)

// secretMarks are in all secrets of the files of these tests, as they are written or as base64.
var secretMarks = []string{"canary-7f3a", "Y2FuYXJ5LTdmM2"}

const canarySecret = "whsec_Y2FuYXJ5LTdmM2EtY2FuYXJ5LTdmM2EtY2FuYXJ5" // "canary-7f3a-…" inside

// visited is a Relay of which every route is called. Its answers are compared with the document.
type visited struct {
	t        *testing.T
	dir      string
	client   *http.Client
	document *jsonschema.Compiler
	paths    map[string]map[string]operation
	called   map[string]bool // operations that answered with success
	answers  bytes.Buffer
}

// operation is a part of an OpenAPI document.
type operation struct {
	OperationID string `json:"operationId"`
	Responses   map[string]struct {
		Content map[string]json.RawMessage
		Codes   []string `json:"x-codes"`
	}
	RequestBody *struct{ Content map[string]json.RawMessage }
}

const documentURL = "mem:///openapi.json"

func visit(t *testing.T, dir string) *visited {
	t.Helper()
	v := &visited{t: t, dir: dir, called: map[string]bool{}}
	v.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		},
	}}
	_, text := v.send("GET", "/openapi.json", "")
	var document struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	v.paths = document.Paths
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, schema := range whole.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any) {
		if s := schema.(map[string]any); s["properties"] != nil && name != "BulkRequest" { // which stands beside a filter
			s["additionalProperties"] = false // here, an answer has nothing that the document does not name
		}
	}
	v.document = jsonschema.NewCompiler()
	v.document.DefaultDraft(jsonschema.Draft2020)
	v.document.AssertFormat()
	if err := v.document.AddResource(documentURL, whole); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *visited) send(method, path, body string) (*http.Response, []byte) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://relay"+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, text
}

// call sends a request and compares request and answer with the document. It fails unless the status is as given.
func (v *visited) call(status int, method, path, body string) map[string]any {
	v.t.Helper()
	resp, text := v.send(method, path, body)
	if resp.StatusCode != status {
		v.t.Errorf("%s %s: %d %.500s, want %d", method, path, resp.StatusCode, text, status)
		return nil
	}
	template, op := v.operation(method, path)
	where := "#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(template) + "/" + strings.ToLower(method)
	key := strconv.Itoa(status)
	response, ok := op.Responses[key]
	if !ok {
		key, response = "default", op.Responses["default"]
	}
	v.answers.Write(text)
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch {
	case response.Content == nil && len(text) == 0:
	case response.Content[media] == nil:
		v.t.Errorf("%s %s: answered %d as %q, which the document does not have", method, path, status, media)
	case strings.HasSuffix(media, "json"):
		v.check(method+" "+path+" answered", where+"/responses/"+key+"/content/"+strings.ReplaceAll(media, "/", "~1")+"/schema", text)
	}
	if media == problem.ContentType {
		var p problem.Problem
		if err := json.Unmarshal(text, &p); err != nil || !slices.Contains(response.Codes, string(p.Code)) {
			v.t.Errorf("%s %s: the document does not name the code %s (%v)", method, path, p.Code, err)
		}
	} else {
		v.called[op.OperationID] = true
	}
	if status < 300 && body != "" && op.RequestBody != nil {
		v.check(method+" "+path+" was asked", where+"/requestBody/content/application~1json/schema", []byte(body))
	}
	var out map[string]any
	if strings.HasSuffix(media, "json") {
		if err := json.Unmarshal(text, &out); err != nil {
			v.t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return out
}

// operation finds the entry of a request.
func (v *visited) operation(method, path string) (template string, op operation) {
	v.t.Helper()
	path, _, _ = strings.Cut(path, "?")
	for _, template := range slices.Sorted(maps.Keys(v.paths)) { // longer ones, with fewer parameters, come later
		pattern := regexp.MustCompile("^" + regexp.MustCompile(`{\w+}`).ReplaceAllString(template, `[^/]+`) + "$")
		if op, ok := v.paths[template][strings.ToLower(method)]; ok && pattern.MatchString(path) {
			return template, op
		}
	}
	v.t.Fatalf("%s %s is not in the document", method, path)
	return "", operation{}
}

// check compares a JSON text with a schema of the document.
func (v *visited) check(what, pointer string, text []byte) {
	v.t.Helper()
	schema, err := v.document.Compile(documentURL + (&url.URL{Fragment: pointer[1:]}).String())
	if err != nil {
		v.t.Fatalf("%s: schema: %v", what, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		v.t.Errorf("%s: %v in %.500s", what, err, text)
		return
	}
	if err := schema.Validate(value); err != nil {
		v.t.Errorf("%s what does not fit the document: %v\n%.2000s", what, err, text)
	}
}

// until asks until the answer is as wanted.
func (v *visited) until(path string, ok func(map[string]any) bool) map[string]any {
	v.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if out := v.call(200, "GET", path, ""); ok(out) {
			return out
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("GET %s: not as wanted after a minute", path)
		}
	}
}

// items are those of a list.
func items(list map[string]any) []map[string]any {
	var all []map[string]any
	for _, i := range list["items"].([]any) {
		all = append(all, i.(map[string]any))
	}
	return all
}

// Every route answers what the OpenAPI document says, and none of them shows a secret. A route that is not called here fails the test.
func TestEveryRouteFitsTheDocument(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { everyRoute(t, "") })
	t.Run("redis", func(t *testing.T) { everyRoute(t, redistest.Start(t).URL()) })
}

// everyRoute uses sqlite, or the Redis at a URL.
func everyRoute(t *testing.T, redis string) {
	t.Setenv("CANARY", "canary-7f3a-env")
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasPrefix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "pong")
	}))
	defer receiver.Close()
	p := newPlace(t)
	const once = "retry { schedule = [\"1h\"] }\n  description = \"canary is ${env(\"CANARY\")}\"\n labels = { project = \"web\", key = env(\"CANARY\") }\n headers = { X-Key = \"canary-7f3a-header\" }"
	endpoint := func(name, path, more string) string {
		return fmt.Sprintf("endpoint %q {\n  url = %q\n  secrets = [%q]\n  %s\n  %s\n  %s\n}\n", name, receiver.URL+path+"?key=canary-7f3a-url", canarySecret, local, once, more)
	}
	file := strings.Replace(p.text(
		`secrets_key = ["canary-7f3a-secrets-key-canary-7f3a-secrets-key"]`,
		`event_type "order.paid" { index = ["data.deviceId"] }`,
		"event_type \"order.sent\" {\n  schema = jsonencode({ type = \"object\", properties = { n = { type = \"integer\" } } })\n  example = \"{}\"\n}",
		"policy \"default\" {\n  "+local+"\n}",
		endpoint("good", "/good", `body = { data = event.data, from = env("CANARY") }`),
		endpoint("bad", "/bad", "batch {}"),
		endpoint("off", "/off", "enabled = false"),
		"alert \"ready\" {\n  on = \"disabled\"\n}",
	), "http = \"\"", "http = \"\"\n  token = \"canary-7f3a-token\"\n  link_key = [\"canary-7f3a-link-key-canary-7f3a-link-key\"]\n  access \"support\" {\n    token = \"canary-7f3a-support\"\n    may = [\"read\"]\n  }", 1)
	if redis != "" {
		file = regexp.MustCompile(`(?s)outbox "sqlite" {.*?\n}`).ReplaceAllString(file, fmt.Sprintf("outbox \"redis\" {\n  url = %q\n}", redis))
	}
	p.write(p.file, file)
	p.start(true)
	v := visit(t, p.dir)
	if engine := v.call(200, "GET", "/readyz", "")["outbox"].(map[string]any)["engine"]; engine != map[bool]string{false: "sqlite", true: "redis"}[redis != ""] {
		t.Fatalf("the outbox is %v", engine)
	}
	tail := v.openTail()

	say(t, p.dir, `{"id":"evt_one","type":"order.paid","tenant":"acme","key":"k","data":{"deviceId":"cam-7","n":12345678901234567890.10}}`)
	say(t, p.dir, `{"id":"evt_two","type":"order.paid","data":{"deviceId":"cam-8"}}`)
	ended := func(n int) func(map[string]any) bool {
		return func(list map[string]any) bool { return len(items(list)) == n }
	}
	good := items(v.until("/v1/deliveries?endpoint=good&state=delivered&data.deviceId=cam-7", ended(1)))[0]["id"].(string)
	bad := items(v.until("/v1/deliveries?state=failed&label.project=web", ended(2)))[0]["id"].(string)
	held := items(v.until("/v1/deliveries?state=held", ended(2)))

	v.reads(good, bad)
	v.endpoints(receiver.URL)
	v.edits(bad, held)
	v.call(200, "GET", "/v1/alerts", "")
	v.call(200, "GET", "/v1/access", "")
	if types, _ := v.call(200, "GET", "/v1/types", "")["types"].([]any); len(types) != 2 {
		t.Errorf("types are %v", types)
	}
	link := v.call(201, "POST", "/v1/links", `{"tenant":"acme","may":["read"],"ttl":"1h"}`)
	v.call(200, "DELETE", "/v1/links/"+link["id"].(string), "")
	v.call(200, "DELETE", "/v1/links?tenant=acme&for=Ann", "")
	v.refusals(good)
	tail.end(v)
	p.write(p.file, "endpoint {")
	v.call(422, "POST", "/v1/reload", "")
	v.call(200, "GET", "/v1/config", "")
	p.write(p.file, file)
	v.call(200, "POST", "/v1/reload", "")

	for path, methods := range v.paths {
		for method, op := range methods {
			if !v.called[op.OperationID] {
				t.Errorf("%s %s (%s) is not called: call it here, so that the document stays true", method, path, op.OperationID)
			}
		}
	}
	for _, mark := range secretMarks {
		if i := strings.Index(v.answers.String(), mark); i >= 0 {
			t.Errorf("an answer shows %s: …%s…", mark, v.answers.String()[max(0, i-300):i+40])
		}
		if log := p.log.String(); strings.Contains(log, mark) {
			t.Errorf("the log shows %s", mark)
		}
	}
}

// reads calls the routes that change nothing.
func (v *visited) reads(good, bad string) {
	for _, path := range []string{
		"/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/config", "/v1/endpoints", "/v1/endpoints/good", "/v1/endpoints/off",
		"/v1/deliveries", "/v1/deliveries?limit=1&order=oldest", "/v1/deliveries?total=false&state=held&offset=1", "/v1/deliveries/" + good, "/v1/deliveries/" + bad,
		"/v1/events/evt_one", "/v1/stats", "/v1/stats?by=endpoint", "/v1/stats?by=type&step=hour", "/v1/stats?step=day", "/v1/stats?by=tenant&step=month&tenant=acme",
	} {
		v.call(200, "GET", path, "")
	}
	whole := v.call(200, "GET", "/v1/deliveries/"+good, "")
	if body := whole["request"].(map[string]any)["body"].(map[string]any)["text"]; body != `{"data":{"deviceId":"cam-7","n":12345678901234567890.10},"from":"***"}` {
		v.t.Errorf("the body that was sent is %v", body)
	}
	if _, text := v.send("GET", "/v1/deliveries/"+good, ""); !strings.Contains(string(text), `"payload":{"deviceId":"cam-7","n":12345678901234567890.10}`) {
		v.t.Errorf("the payload is not as it came: %s", text)
	}
	explained := v.call(200, "POST", "/v1/explain?endpoint=good", `{"type":"order.paid","data":{"x":1}}`)
	if all := explained["endpoints"].([]any); len(all) != 1 || all[0].(map[string]any)["gets"] != true {
		v.t.Errorf("explained %v", explained)
	}
}

// endpoints calls the routes of endpoints.
func (v *visited) endpoints(receiver string) {
	for _, verb := range []string{"pause", "resume", "disable", "enable"} {
		v.call(200, "POST", "/v1/endpoints/good/"+verb, "")
	}
	v.call(200, "POST", "/v1/endpoints/good/test", `{"data":{"hello":"world"}}`)
	v.call(200, "POST", "/v1/endpoints/bad/test", "")
	v.call(201, "POST", "/v1/endpoints", fmt.Sprintf(`{"name":"made","url":%q,"events":["order.sent"],"secret":%q,"headers":{"X-Key":"canary-7f3a-header"}}`, receiver+"/made", canarySecret))
	v.call(200, "PATCH", "/v1/endpoints/made", `{"description":"made at run time"}`)
	v.call(200, "PUT", "/v1/endpoints/made", fmt.Sprintf(`{"url":%q,"headers":{"X-Key":"canary-7f3a-header"}}`, receiver+"/made?key=canary-7f3a-url"))
	v.call(200, "GET", "/v1/endpoints/made", "")
	v.call(200, "GET", "/v1/endpoints/made/hcl", "")
	shown := v.answers.Len() // the next two answer a secret, which is what they are for
	v.call(200, "GET", "/v1/endpoints/made/secret", "")
	v.call(200, "POST", "/v1/endpoints/made/secret/rotate", `{"overlap":"1h"}`)
	v.answers.Truncate(shown)
	v.call(204, "DELETE", "/v1/endpoints/made", "")
}

// edits calls the routes that change deliveries and events.
func (v *visited) edits(bad string, held []map[string]any) {
	again := v.call(202, "POST", "/v1/deliveries/"+bad+"/redeliver", `{"to":"off"}`)
	v.call(200, "GET", "/v1/deliveries/"+again["id"].(string), "")
	first := held[slices.IndexFunc(held, func(d map[string]any) bool { return d["event"].(map[string]any)["id"] == "evt_one" })]["id"].(string)
	v.call(200, "POST", "/v1/deliveries/"+first+"/retry", "")
	v.call(200, "POST", "/v1/deliveries/"+first+"/discard", "")
	v.call(200, "POST", "/v1/retries", `{"endpoint":"off","dry_run":true}`)
	v.call(202, "POST", "/v1/retries", `{"endpoint":"off"}`)
	v.call(202, "POST", "/v1/redeliveries", `{"endpoint":["bad"],"state":"failed","rate":1000,"since":"1h"}`)
	v.call(202, "POST", "/v1/discards", `{"event":"evt_two","state":["pending","held"]}`)
	v.call(202, "POST", "/v1/erasures", `{"event":"evt_two","force":true}`)
	job := items(v.call(200, "GET", "/v1/jobs", ""))[0]["id"].(string)
	v.call(200, "GET", "/v1/jobs/"+job, "")
	v.cancel()
	v.call(200, "DELETE", "/v1/events/evt_one/data?force=true", "")
	v.call(200, "GET", "/v1/events/evt_one", "")
	v.call(200, "GET", "/v1/audit", "")
}

// cancel cancels a job that cannot have ended: its second delivery waits for 100 seconds.
func (v *visited) cancel() {
	for _, id := range []string{"evt_three", "evt_four"} {
		say(v.t, v.dir, fmt.Sprintf(`{"id":%q,"type":"order.paid","tenant":"late","data":{}}`, id))
	}
	v.until("/v1/deliveries?endpoint=bad&state=failed&tenant=late", func(list map[string]any) bool { return len(items(list)) == 2 })
	job := v.call(202, "POST", "/v1/redeliveries", `{"endpoint":"bad","state":"failed","tenant":"late","rate":0.01}`)
	v.call(200, "POST", "/v1/jobs/"+job["id"].(string)+"/cancel", "")
}

// refusals calls routes with what they refuse.
func (v *visited) refusals(good string) {
	for path, status := range map[string]int{
		"/v1/deliveries?state=x": 400, "/v1/deliveries?data.colour=red": 400, "/v1/deliveries?cursor=1.2.3": 400, "/v1/deliveries?sate=x": 400,
		"/v1/deliveries/evt_one": 404, "/v1/deliveries/dlv_none": 404, "/v1/events/" + good: 404, "/v1/events/evt_none": 404, "/v1/endpoints/nobody": 404,
		"/v1/stats?since=x": 400, "/v1/tail?since=1h": 400, "/v1/jobs/job_none": 404, "/v1/endpoints/good/secret": 409,
	} {
		v.call(status, "GET", path, "")
	}
	v.call(404, "POST", "/v1/explain?endpoint=nobody", `{"type":"a","data":1}`)
	v.call(400, "POST", "/v1/explain", `{"type":"a..b","data":1}`)
	if p := v.call(422, "POST", "/v1/explain", `{"type":"order.sent","data":{"n":"x"}}`); p["field"] != "data" || p["pointer"] != "/n" {
		v.t.Errorf("a mismatch with the schema points to %v %v", p["field"], p["pointer"])
	}
	v.call(400, "POST", "/v1/redeliveries", `{"endpont":"bad"}`)
}

// tailed is an open stream of attempts.
type tailed struct {
	resp  *http.Response
	lines *bufio.Reader
}

func (v *visited) openTail() *tailed {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), "GET", "http://relay/v1/tail", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	s := &tailed{resp, bufio.NewReader(resp.Body)}
	if line, err := s.lines.ReadString('\n'); err != nil || line != ": relay\n" {
		v.t.Fatalf("tail begins with %q (%v)", line, err)
	}
	return s
}

// end reads the four attempts of the first two events, and two tests.
func (s *tailed) end(v *visited) {
	v.t.Helper()
	defer s.resp.Body.Close()
	for n, tests := 0, 0; n < 4 || tests < 2; {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			v.t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if n++; strings.Contains(data, `"type":"relay.test"`) && strings.Contains(data, `"manual":true`) {
				tests++
			}
			v.answers.WriteString(data)
			v.check("tail sent", "#/components/schemas/AttemptEnded", []byte(data))
		}
	}
	v.called["tail"] = true
}
