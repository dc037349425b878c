package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/internal/testkit/pebble"
	"relay/internal/testkit/wallclock"
)

// behindFront is an app that says by headers what happened.
func behindFront(t *testing.T) *httptest.Server {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") == "websocket":
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("\x81\x05hello\x88\x00")) // a text, and the end (RFC 6455)
			_ = c.Close()
		case r.Method == http.MethodPost:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Relay-Event", "order.created")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id":7}`)
		default:
			fmt.Fprintf(w, "%s from %s", r.Proto, r.Header.Get("X-Forwarded-For"))
		}
	}))
	t.Cleanup(web.Close)
	return web
}

// frontAt is where the front of a running Relay listens.
func (p *process) frontAt(kind string) string {
	p.t.Helper()
	at := regexp.MustCompile(`"front":\[[^\]]*"` + kind + `:([0-9.]+:[0-9]+)"`)
	var found string
	testkit.Until(p.t, "the front", func() bool {
		if m := at.FindStringSubmatch(p.log.String()); m != nil {
			found = m[1]
		}
		return found != ""
	})
	return found
}

func curl(t *testing.T, args ...string) string {
	t.Helper()
	var out, failed strings.Builder
	cmd := exec.Command("curl", append([]string{"--silent", "--show-error", "--max-time", "60"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil && !strings.Contains(strings.Join(args, " "), "websocket") {
		t.Fatalf("curl %s: %v\n%s", args, err, failed.String())
	}
	return out.String()
}

// A real client speaks HTTP/2 and WebSocket through the front, an answer of the app becomes a
// webhook, and a reload brings another host (the story of docs/front.md).
func TestFrontStory(t *testing.T) {
	t.Parallel() // it mostly waits
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is not installed")
	}
	got := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	t.Cleanup(receiver.Close)
	web := behindFront(t)
	p := &process{t: t, dir: testkit.Dir(t)}
	cert, key := testkit.Certificate(t, "shop.example.com", "other.example.com")
	for name, data := range map[string][]byte{"c.pem": cert, "k.pem": key} {
		testkit.Must(t, os.WriteFile(filepath.Join(p.dir, name), data, 0o600))
	}
	front := func(host string) string {
		return fmt.Sprintf("front %q {\n upstream = %q\n https = [\"127.0.0.1:0\"]\n http = [\"127.0.0.1:0\"]\n tls {\n cert = \"c.pem\"\n key = \"k.pem\"\n }\n}\n", host, web.URL)
	}
	file := fmt.Sprintf("ingest {\n unix %q {}\n}\nadmin {\n http = \"\"\n unix = %q\n}\noutbox \"sqlite\" {\n path = %q\n}\n"+
		"policy \"default\" {\n egress {\n allow_private = [\"127.0.0.0/8\"]\n allow_plaintext = true\n }\n}\n"+
		"endpoint \"billing\" {\n url = %q\n events = [\"order.*\"]\n secrets = [%q]\n}\n", p.socket(), p.admin(), p.outbox(), receiver.URL, testkit.Secret)
	config := filepath.Join(p.dir, "relay.hcl")
	testkit.Must(t, os.WriteFile(config, []byte(file+front("shop.example.com")), 0o600))
	self, err := os.Executable()
	testkit.Must(t, err)
	p.serve(self)
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
	})
	https, plain := p.frontAt("https"), p.frontAt("http")
	_, port, _ := strings.Cut(https, ":")
	at := func(host string) []string {
		return []string{"--cacert", filepath.Join(p.dir, "c.pem"), "--resolve", host + ":" + port + ":127.0.0.1"}
	}
	url := "https://shop.example.com:" + port
	if said := curl(t, append(at("shop.example.com"), "--http2", "--write-out", " %{http_version}", url+"/")...); said != "HTTP/1.1 from 127.0.0.1 2" {
		t.Errorf("HTTP/2: %q", said)
	}
	said := curl(t, append(at("shop.example.com"), "--http1.1", "--include", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket",
		"-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", url+"/ws")...)
	if !strings.HasPrefix(said, "HTTP/1.1 101 ") || !strings.Contains(said, "\x81\x05hello") {
		t.Errorf("WebSocket: %q", said)
	}
	if said := curl(t, "--head", "-H", "Host: shop.example.com", "http://"+plain+"/x"); !strings.Contains(said, "308 ") || !strings.Contains(said, url+"/x") {
		t.Errorf("redirect: %q", said)
	}
	if said := curl(t, append(at("shop.example.com"), "--include", "--data", "x=1", url+"/orders")...); !strings.Contains(said, "201") || !strings.Contains(said, `{"id":7}`) || strings.Contains(strings.ToLower(said), "relay-event") {
		t.Errorf("an order: %q", said)
	}
	var event struct {
		Type string
		Data json.RawMessage
	}
	testkit.Must(t, json.Unmarshal([]byte(<-got), &event))
	if event.Type != "order.created" || string(event.Data) != `{"id":7}` {
		t.Errorf("the receiver got %+v", event)
	}
	testkit.Must(t, os.WriteFile(config, []byte(file+front("shop.example.com")+front("other.example.com")), 0o600))
	testkit.Must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	testkit.Until(t, "the reload", func() bool { return p.log.Count("reloaded") > 0 })
	if said := curl(t, append(at("other.example.com"), "https://other.example.com:"+port+"/")...); !strings.Contains(said, "from 127.0.0.1") {
		t.Errorf("the other host: %q", said)
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	if p.log.Count(`"level":"error"`) > 0 {
		t.Errorf("the log says\n%s", p.log)
	}
}

// With a clock that is years ahead the CA's own certificate is no longer valid. Everything else
// works, and once the clock is right the certificate comes (fault F50).
func TestClockIsWrongForTheCA(t *testing.T) {
	t.Parallel() // it mostly waits
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	web := behindFront(t)
	p := &process{t: t, dir: testkit.Dir(t), log: new(testkit.Log)}
	testkit.Must(t, os.WriteFile(filepath.Join(p.dir, "ca.pem"), ca.Roots, 0o600))
	file := fmt.Sprintf("ingest {\n unix %q {}\n}\nadmin {\n http = \"\"\n unix = %q\n}\noutbox \"sqlite\" {\n path = %q\n}\n"+
		"front \"shop.example.com\" {\n upstream = %q\n https = [\"127.0.0.1:0\"]\n http = [\"127.0.0.1:0\"]\n}\n"+
		"acme {\n ca = %q\n ca_roots = \"ca.pem\"\n}\n", p.socket(), p.admin(), p.outbox(), web.URL, ca.Directory)
	testkit.Must(t, os.WriteFile(filepath.Join(p.dir, "relay.hcl"), []byte(file), 0o600))
	clock := wallclock.New(t)
	clock.Set(10 * 365 * 24 * time.Hour)
	p.cmd = exec.Command(wallclock.Build(t, t.TempDir(), "relay/relay"), "serve", "--config", "relay.hcl")
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.dir, append(os.Environ(), clock.Env()), p.log, p.log
	testkit.Must(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("Relay says:\n%s", p.log)
		}
	})
	_, port, _ := strings.Cut(p.frontAt("https"), ":")
	ca.HTTP.To(p.frontAt("http"))
	ca.TLS.To(p.frontAt("https"))
	testkit.Until(t, "a word about it", func() bool { return p.log.Count("certificate has expired or is not yet valid") > 0 })
	res, err := p.client().Post("http://localhost/v1/events", "application/json", strings.NewReader(`{"type":"a.b","data":1}`))
	testkit.Must(t, err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("an event: %d", res.StatusCode)
	}
	clock.Set(0)
	served := false
	for range 4 { // the CA is asked again after a minute
		testkit.Until(t, "a moment", func() bool {
			out, _ := exec.Command("curl", "--silent", "--insecure", "--resolve", "shop.example.com:"+port+":127.0.0.1", "https://shop.example.com:"+port+"/").Output()
			served = strings.Contains(string(out), "from 127.0.0.1")
			return served || testkit.Wait(t.Context(), 20*time.Second)
		})
		if served {
			break
		}
	}
	if !served {
		t.Errorf("no certificate after the clock was set right:\n%s", p.log)
	}
}
