package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"relay/internal/testkit"
	"relay/relay/doctor"
)

// TestDoctorShakesHands with receivers on loopback: TLS is looked at with the endpoint's own
// settings, and no request is sent.
func TestDoctorShakesHands(t *testing.T) {
	var requests atomic.Int64
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer receiver.Close()
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.Must(t, os.WriteFile("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600))
	endpoint := func(name, more string) string {
		return fmt.Sprintf("endpoint %q {\n url = %q\n secrets = [%q]\n egress {\n  allow_private = [\"127.0.0.0/8\"]\n }\n%s}\n", name, receiver.URL+"/canary", testkit.Secret, more)
	}
	head := "ingest {\n unix \"relay.sock\" {}\n}\nadmin {\n http = \"\"\n unix = \"admin.sock\"\n}\noutbox \"sqlite\" {\n path = \"box\"\n max_size = \"16MiB\"\n}\n"
	testkit.Must(t, os.WriteFile("relay.hcl", []byte(head+endpoint("known", "tls {\n ca = \"ca.pem\"\n}\n")), 0o600))
	out, code := relay(t, "doctor", "--json")
	report := readReport(t, out)
	last := report.Findings[len(report.Findings)-1]
	if code != exitOK || report.Breaks != 0 || !strings.HasPrefix(last.What, "1 endpoint answers, 1 with TLS; the first certificate to end is that of known, on 2084-01-29") {
		t.Errorf("code %d, %s", code, out)
	}

	testkit.Must(t, os.WriteFile("relay.hcl", []byte(head+endpoint("stranger", "")+endpoint("twin", "")), 0o600))
	out, code = relay(t, "doctor", "--json")
	report = readReport(t, out[:strings.LastIndex(out, "}")+1])
	first := report.Findings[0]
	if code != exitFailed || report.Breaks != 1 || first.Code != "tls_unknown_authority" || strings.Join(first.Endpoints, " ") != "stranger twin" || !strings.Contains(first.Next, "ca in the tls block") {
		t.Errorf("code %d, %s", code, out)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the receiver got %d requests", n)
	}
	for _, secret := range []string{testkit.Secret, "canary"} {
		if strings.Contains(out, secret) {
			t.Errorf("%q is shown: %s", secret, out)
		}
	}
}

func readReport(t *testing.T, text string) (r doctor.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return r
}

// TestDoctorWithoutToken hears whether a Relay is ready, and says what is needed to hear more.
func TestDoctorWithoutToken(t *testing.T) {
	p := newProcess(t, "http://127.0.0.1:1", "a")
	address := fmt.Sprintf("127.0.0.1:%d", testkit.Port(t))
	p.rewrite(`http = ""`, fmt.Sprintf("http = %q\n token = \"canary-token\"", address))
	p.start()
	p.await()
	t.Chdir(t.TempDir())
	testkit.Must(t, os.WriteFile("other.hcl", []byte("ingest {\n unix \"x.sock\" {}\n}\noutbox \"sqlite\" {\n path = \"x\"\n}\nadmin {\n http = \"\"\n}\n"), 0o600))
	out, code := relay(t, "doctor", "--config", "other.hcl", "--admin", address)
	if code != exitOK || !strings.Contains(out, "warn   relay: a Relay runs (ready: true), and says no more without a token that may read the whole\n       next: give its token with $RELAY_ADMIN_TOKEN") {
		t.Errorf("code %d, %s", code, out)
	}
	out, _ = relay(t, "doctor", "--config", filepath.Join(p.dir, "relay.hcl"))
	if !strings.Contains(out, "is what the files say") || strings.Contains(out, "canary") {
		t.Error(out)
	}
}

// Endpoints made at run time are looked at, as the running Relay lists them.
func TestDoctorLooksAtMadeEndpoints(t *testing.T) {
	var requests atomic.Int64
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer receiver.Close()
	p := newProcess(t, "http://127.0.0.1:1", "a")
	key := fmt.Sprintf("\nsecrets_key = [%q]", strings.Repeat("k", 32)) // for the query of the URL
	p.configure(fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", p.outbox())+key, "15s", "http://127.0.0.1:1")
	p.start()
	p.await()
	file := filepath.Join(p.dir, "relay.hcl")
	if out, code := relay(t, "endpoints", "add", "made", "--config", file, "--url", receiver.URL+"/canary?k=canary", "--set", `sign=["none"]`); code != exitOK {
		t.Fatal(out)
	}
	out, code := relay(t, "doctor", "--config", file, "--json")
	report := readReport(t, out[:strings.LastIndex(out, "}")+1])
	if first := report.Findings[0]; code != exitFailed || first.Code != "tls_unknown_authority" || strings.Join(first.Endpoints, " ") != "made" || strings.Contains(out, "canary") {
		t.Errorf("code %d, %s", code, out)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the receiver got %d requests", n)
	}
}
