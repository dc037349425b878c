package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	official "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"relay/policy/sign"
	"relay/relay/explain"
)

const (
	explainSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	explainOwn    = "canary-of-a-raw-secret"
)

// explainFile has a canary wherever a file can hold a secret.
const explainFile = `
	ingest {
	  http "127.0.0.1:0" {
	    token = "canary-of-a-token"
	  }
	}
	signature "acme" {
	  signed  = "$${timestamp}.$${url}.$${delivery}.$${body}"
	  headers = {
	    "X-Acme-Signature" = "t=$${timestamp},v=$${signature}"
	    "X-Acme-Url"       = "at $${url}"
	    "X-Acme-Path"      = "$${host} $${path}"
	    "X-Acme-Delivery"  = delivery
	  }
	}
	endpoint "standard" {
	  url     = "https://billing.example.com/hooks?token=canary-of-a-url"
	  secrets = ["` + explainSecret + `"]
	  headers = {
	    "Authorization" = "Bearer canary-of-a-header"
	    "User-Agent"    = "canary-of-an-agent"
	  }
	}
	endpoint "acme" {
	  url     = "https://acme.example.com/hooks?token=canary-of-a-url"
	  sign    = ["acme"]
	  secrets = ["` + explainOwn + `"]
	  http2   = true
	}
`

// explainAs runs relay explain on the canary file and returns what it printed.
func explainAs(t *testing.T, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.hcl")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(explainFile, "$${", "${")), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	in := strings.NewReader(`{"type": "invoice.paid", "data": {"amount": 1200, "text": "<ü>"}}`)
	args = append([]string{"explain", "-", "--config", file}, args...)
	if code := run(args, streams{in, &out, &errs}); code != exitOK || errs.Len() > 0 {
		t.Fatalf("relay %s: code %d, %s", strings.Join(args, " "), code, &errs)
	}
	return out.String()
}

// No form of the output has a secret in it.
func TestExplainShowsNoSecret(t *testing.T) {
	for _, args := range [][]string{nil, {"--json"}, {"--sign"}, {"--sign", "--json"}} {
		out := explainAs(t, args...)
		for _, secret := range []string{"canary", strings.TrimPrefix(explainSecret, "whsec_")} {
			if strings.Contains(out, secret) {
				t.Errorf("relay explain %s shows %s:\n%s", strings.Join(args, " "), secret, out)
			}
		}
		if signed := len(args) > 0 && args[0] == "--sign"; strings.Contains(out, "v1,…") == signed {
			t.Errorf("relay explain %s: signatures hidden is %t:\n%s", strings.Join(args, " "), !signed, out)
		}
	}
}

// What --sign shows is what a receiver accepts.
func TestExplainSigned(t *testing.T) {
	var x explain.Explanation
	if err := json.Unmarshal([]byte(explainAs(t, "--sign", "--json")), &x); err != nil {
		t.Fatal(err)
	}
	headers := map[string]http.Header{}
	bodies := map[string][]byte{}
	for _, e := range x.Endpoints {
		h := http.Header{}
		for _, line := range e.Sends.Header {
			h.Add(line.Name, line.Value)
		}
		headers[e.Name], bodies[e.Name] = h, []byte(e.Sends.Body)
	}

	judge, err := official.NewWebhook(explainSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := judge.Verify(bodies["standard"], headers["standard"]); err != nil {
		t.Errorf("the official library: %v", err)
	}
	standard, err := sign.NewVerifier(sign.Standard(), []string{explainSecret})
	if err != nil {
		t.Fatal(err)
	}
	m := &sign.Message{Body: bodies["standard"], Method: "POST", Time: time.Now()}
	if err := standard.Verify(headers["standard"].Values, m, time.Minute); err != nil {
		t.Errorf("our verifier: %v", err)
	}

	// The scheme of the file signs the whole URL, of which the query is not shown.
	variable := func(name string) sign.Part { return sign.Part{Variable: name} }
	text := func(s string) sign.Part { return sign.Part{Literal: s} }
	acme, err := sign.New(sign.Spec{
		Name:   "acme",
		Signed: sign.Template{variable("timestamp"), text("."), variable("url"), text("."), variable("delivery"), text("."), variable("body")},
		Headers: []sign.HeaderSpec{
			{Name: "X-Acme-Signature", Value: sign.Template{text("t="), variable("timestamp"), text(",v="), variable("signature")}},
			{Name: "X-Acme-Delivery", Value: sign.Template{variable("delivery")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := sign.NewVerifier(acme, []string{explainOwn})
	if err != nil {
		t.Fatal(err)
	}
	m = &sign.Message{Body: bodies["acme"], Method: "POST", URL: "https://acme.example.com/hooks?token=canary-of-a-url", Time: time.Now()}
	if err := own.Verify(headers["acme"].Values, m, time.Minute); err != nil {
		t.Errorf("a scheme of one's own: %v", err)
	}
	if got := headers["acme"].Get("X-Acme-Url"); got != "at https://acme.example.com/hooks?***" {
		t.Errorf("X-Acme-Url is %q", got)
	}
	if got := headers["acme"].Get("X-Acme-Path"); got != "acme.example.com /hooks?***" {
		t.Errorf("X-Acme-Path is %q", got)
	}
}

// An endpoint with batches is explained by a batch of one.
func TestExplainBatch(t *testing.T) {
	for block, want := range map[string]string{
		"batch {}": "batch        up to 100 events or 256KiB in one request (array), waits 1s for more; when it is refused each goes alone",
		"batch {\n format = \"ndjson\"\n on_refused = \"retry\"\n}": "(ndjson), waits 1s for more; when it is refused it is retried",
	} {
		file := filepath.Join(t.TempDir(), "relay.hcl")
		if err := os.WriteFile(file, []byte("endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n"+block+"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		in := strings.NewReader(`{"type": "a.b", "data": 1}`)
		if code := run([]string{"explain", "-", "--config", file}, streams{in, &out, &errs}); code != exitOK {
			t.Fatal(errs.String())
		}
		if got := out.String(); !strings.Contains(got, want) || !strings.Contains(got, "webhook-id: bat_") {
			t.Errorf("%s:\n%s", block, got)
		}
	}
}
