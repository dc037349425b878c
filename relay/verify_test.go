package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/policy/sign"
)

// Secrets of the receivers in examples/verify: Relay signs with the first two, the receivers know
// the last two.
var (
	newSecret   = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
	sharedKey   = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0, 0xff, '\n', '%'}, 16)) // bytes that a shell can lose
	otherSecret = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("o"), 32))
)

// sample is a receiver of examples/verify at work.
type sample struct {
	url string
	out *testkit.Log
}

// script names a program for another interpreter. Looking at it makes go test run again when it changes.
func script(t *testing.T, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// startSample runs a receiver that listens by itself until the test ends.
func startSample(t *testing.T, name string, args ...string) sample {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s; make setup installs it: %v", name, err)
	}
	s := sample{out: new(testkit.Log)}
	cmd := exec.Command(path, append(args, "127.0.0.1:0")...)
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+otherSecret+" "+sharedKey)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.url = "http://" + awaitLine(t, s.out, `listening on (\S+)`)[1]
	return s
}

// startBash runs the receiver in Bash for each connection, as inetd and socat do.
func startBash(t *testing.T) sample {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("this test needs bash; make setup installs it:", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := sample{url: "http://" + ln.Addr().String(), out: new(testkit.Log)}
	path, handled := script(t, "../examples/verify/receiver.sh"), t.TempDir()
	var serving sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		socket, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Error(err)
			return
		}
		defer socket.Close()
		cmd := exec.Command(bash, path)
		cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+otherSecret+" "+sharedKey, "WEBHOOK_HANDLED="+handled)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = socket, socket, s.out
		if err := cmd.Run(); err != nil {
			t.Errorf("receiver.sh: %v", err)
		}
	}
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
	return s
}

// post sends a request and returns the status.
func (s sample) post(t *testing.T, header http.Header, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.out)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Each receiver of examples/verify takes what a live Relay sends it, and nothing that was changed.
func TestVerifySamples(t *testing.T) {
	t.Parallel() // it mostly waits
	program := filepath.Join(t.TempDir(), "receiver")
	script(t, "../examples/verify/receiver.go")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/verify").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	samples := map[string]sample{
		"go":     startSample(t, program),
		"node":   startSample(t, "node", script(t, "../examples/verify/receiver.mjs")),
		"python": startSample(t, "python3", script(t, "../examples/verify/receiver.py")),
		"bash":   startBash(t),
	}

	// Relay sends to each through a tap that keeps the request.
	type request struct {
		header http.Header
		body   []byte
	}
	var mu sync.Mutex
	came := map[string]request{}
	tap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		name := strings.Trim(r.URL.Path, "/")
		mu.Lock()
		came[name] = request{r.Header.Clone(), body}
		mu.Unlock()
		language, _, _ := strings.Cut(name, "-")
		w.WriteHeader(samples[language].post(t, r.Header, body))
	}))
	defer tap.Close()
	text := fmt.Sprintf(`
		outbox "sqlite" {
		  path = %q
		}
		policy "default" {
		  egress {
		    allow_private   = ["127.0.0.0/8"]
		    allow_plaintext = true
		  }
		}`, filepath.Join(t.TempDir(), "outbox"))
	for language := range samples {
		text += fmt.Sprintf(`
		endpoint "%[1]s" {
		  url     = "%[2]s/%[1]s"
		  secrets = [%[3]q, %[4]q]
		}
		endpoint "%[1]s-wrong" {
		  url     = "%[2]s/%[1]s-wrong"
		  secrets = [%[3]q]
		}`, language, tap.URL, newSecret, sharedKey)
	}
	relay := startExample(t, "", text, nil)
	relay.say(said{"evt-1_x", "invoice.paid", `{"amount": 1.0, "note": "é 😀  %s \\ \u2028"}`})

	signer, err := sign.NewSigner(sign.Standard(), []string{sharedKey})
	if err != nil {
		t.Fatal(err)
	}
	for language, s := range samples {
		t.Run(language, func(t *testing.T) {
			relay.t = t
			relay.settled(language, counts{Delivered: 1})
			relay.settled(language+"-wrong", counts{Failed: 1})
			mu.Lock()
			good := came[language]
			mu.Unlock()

			// signed is the request as it would have been signed at another time.
			signed := func(age time.Duration) http.Header {
				h := good.header.Clone()
				for _, l := range signer.Sign(nil, &sign.Message{EventID: "evt-1_x", Time: time.Now().Add(-age), Body: good.body}) {
					h.Set(l.Name, l.Value)
				}
				return h
			}
			with := func(name, value string) http.Header {
				h := good.header.Clone()
				h.Set(name, value)
				return h
			}
			changed := bytes.Clone(good.body)
			changed[len(changed)-3] ^= 1
			signature := good.header.Get("webhook-signature")
			for _, c := range []struct {
				what   string
				header http.Header
				body   []byte
				status int
			}{
				{"again", good.header, good.body, 204},
				{"3 minutes old", signed(3 * time.Minute), good.body, 204},
				{"3 minutes ahead", signed(-3 * time.Minute), good.body, 204},
				{"7 minutes old", signed(7 * time.Minute), good.body, 401},
				{"7 minutes ahead", signed(-7 * time.Minute), good.body, 401},
				{"a byte changed", good.header, changed, 401},
				{"a byte more", good.header, append(bytes.Clone(good.body), '\n'), 401},
				{"no body", good.header, nil, 401},
				{"another id", with("webhook-id", "evt-1_y"), good.body, 401},
				{"another time", with("webhook-timestamp", fmt.Sprint(time.Now().Unix()-60)), good.body, 401},
				{"time is no number", with("webhook-timestamp", "now"), good.body, 401},
				{"no id", with("webhook-id", ""), good.body, 401},
				{"id is a path", with("webhook-id", "../x"), good.body, 401},
				{"no signature", with("webhook-signature", ""), good.body, 401},
				{"half a signature", with("webhook-signature", signature[:20]), good.body, 401},
				{"another version", with("webhook-signature", strings.ReplaceAll(signature, "v1,", "v2,")), good.body, 401},
				{"a star", with("webhook-signature", "*"), good.body, 401},
				{"not ASCII", with("webhook-signature", "v1,é"), good.body, 401},
			} {
				if status := s.post(t, maps.Clone(c.header), c.body); status != c.status {
					t.Errorf("%s: answered %d, want %d\n%s", c.what, status, c.status, s.out)
				}
			}
			if n := strings.Count(s.out.String(), "handled evt-1_x "+string(good.body)); n != 1 {
				t.Errorf("handled %d times, want once:\n%s", n, s.out)
			}
			if n := strings.Count(s.out.String(), "handled"); n != 1 {
				t.Errorf("%d events were handled, want 1:\n%s", n, s.out)
			}
		})
	}
}
