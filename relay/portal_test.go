package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// as asks the portal for a customer, and returns the status and the answer.
func (s sample) as(t *testing.T, customer, method, path, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+"/webhooks"+path, strings.NewReader(body))
	testkit.Must(t, err)
	if customer != "" {
		req.SetBasicAuth(customer, customer+"-password")
	}
	if customer == "mallory" { // a page of another site, in the browser of a customer
		req.SetBasicAuth("acme", "acme-password")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	resp, err := http.DefaultClient.Do(req)
	testkit.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.Must(t, err)
	answer := map[string]any{}
	_ = json.Unmarshal(text, &answer) // the app's own answers are texts
	return resp.StatusCode, answer
}

// startPortal runs examples/portal with a Relay on its relay.hcl.
func startPortal(t *testing.T, a authority) (sample, *process) {
	p := &process{t: t, dir: testkit.Dir(t), args: []string{"--config", script(t, "../examples/portal/relay.hcl")}}
	for _, v := range []string{"RELAY_ADMIN_TOKEN", "RELAY_LINK_KEY", "RELAY_SECRETS_KEY"} {
		t.Setenv(v, strings.Repeat("canary"+v[6:7], 8))
	}
	admin := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t))
	t.Setenv("RELAY_ADMIN_HTTP", admin)
	beside := fmt.Sprintf("ingest {\n unix %q {}\n}\noutbox \"sqlite\" {\n path = %q\n}\npolicy \"default\" {\n egress {\n allow_private = [\"127.0.0.0/8\"]\n }\n tls {\n ca = %q\n }\n}\n",
		p.socket(), p.outbox(), a.cert)
	testkit.Must(t, os.WriteFile(filepath.Join(p.dir, "relay.hcl"), []byte(beside), 0o600))
	p.start()
	t.Cleanup(p.kill)
	p.await()
	awaitLine(t, p.log, `"message":"ready"`)
	t.Setenv("RELAY_ADMIN", "http://"+admin)
	t.Setenv("CUSTOMERS", "acme:acme-password globex:globex-password")
	program := filepath.Join(t.TempDir(), "portal")
	script(t, "../examples/portal/portal.go")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/portal").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return startSample(t, program), p
}

// Customers of examples/portal make endpoints, get events of their own, signed with the secret that they
// read, and see nothing of each other.
func TestPortal(t *testing.T) {
	a := newAuthority(t)
	r := newHookReceiver(t, a, nil)
	s, p := startPortal(t, a)
	want := func(status int, customer, method, path, body string) map[string]any {
		t.Helper()
		got, answer := s.as(t, customer, method, path, body)
		if got != status {
			t.Fatalf("%s: %s %s answers %d, want %d: %v", customer, method, path, got, status, answer)
		}
		return answer
	}
	for _, customer := range []string{"acme", "globex"} {
		want(201, customer, "POST", "/v1/endpoints", fmt.Sprintf(`{"name":"%[1]s-orders","url":"%[2]s/%[1]s","events":["order.*"]}`, customer, r.url))
	}
	lines := `{"id":"a1","type":"order.paid","tenant":"acme","data":{}}` + "\n" + `{"id":"g1","type":"order.paid","tenant":"globex","data":{}}` + "\n"
	resp, err := p.client().Post("http://relay/v1/events", "application/x-ndjson", strings.NewReader(lines))
	testkit.Must(t, err)
	resp.Body.Close()
	testkit.Until(t, "both deliveries", func() bool { return len(r.at("/acme")) > 0 && len(r.at("/globex")) > 0 })
	if len(r.of("/acme a1")) != 1 || len(r.of("/globex g1")) != 1 || len(r.at("/acme")) != 1 || len(r.at("/globex")) != 1 {
		t.Errorf("acme got %d requests, globex %d", len(r.at("/acme")), len(r.at("/globex")))
	}

	secrets := want(200, "acme", "GET", "/v1/endpoints/acme-orders/secret", "")["secrets"].([]any)
	secret := secrets[0].(map[string]any)["secret"].(string)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	testkit.Must(t, err)
	h := r.of("/acme a1")[0]
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "a1.%s.%s", h.header.Get("webhook-timestamp"), h.body)
	if got := h.header.Get("webhook-signature"); got != "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
		t.Errorf("the signature %q is not by the secret that the customer reads", got)
	}

	if list := want(200, "acme", "GET", "/v1/deliveries", "")["items"].([]any); len(list) != 1 {
		t.Errorf("acme sees %d deliveries, want 1", len(list))
	}
	for _, refused := range []struct {
		status                       int
		customer, method, path, body string
	}{
		{404, "globex", "GET", "/v1/endpoints/acme-orders", ""},
		{404, "globex", "GET", "/v1/endpoints/acme-orders/secret", ""},
		{404, "globex", "DELETE", "/v1/endpoints/acme-orders", ""},
		{404, "globex", "GET", "/v1/events/a1", ""},
		{422, "globex", "POST", "/v1/endpoints", `{"url":"https://globex.example.com/","tenants":["acme"]}`},
		{422, "globex", "POST", "/v1/endpoints", `{"url":"http://globex.example.com/"}`},
		{403, "globex", "POST", "/v1/links", `{"tenant":"acme"}`},
		{403, "globex", "GET", "/metrics", ""},
		{401, "", "GET", "/v1/endpoints", ""},
		{401, "stranger", "GET", "/v1/endpoints", ""},
		{403, "mallory", "DELETE", "/v1/endpoints/acme-orders", ""},
	} {
		want(refused.status, refused.customer, refused.method, refused.path, refused.body)
	}
	for range 4 {
		want(201, "globex", "POST", "/v1/endpoints", `{"url":"https://globex.example.com/"}`)
	}
	want(409, "globex", "POST", "/v1/endpoints", `{"url":"https://globex.example.com/"}`)
	want(204, "acme", "DELETE", "/v1/endpoints/acme-orders", "")
}
