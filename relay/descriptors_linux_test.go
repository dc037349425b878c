package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relay/internal/testkit"
)

// limited is a Relay that was started by a shell which set limits of open files first.
type limited struct {
	dir   string
	log   *testkit.Log
	ready struct {
		Ingest, Admin []string // "tcp:127.0.0.1:1234"
	}
	pid int
}

func startLimited(t *testing.T, ulimit, receiver string) *limited {
	t.Helper()
	l := &limited{dir: testkit.Dir(t), log: new(testkit.Log)}
	file := filepath.Join(l.dir, "relay.hcl")
	testkit.Must(t, os.WriteFile(file, fmt.Appendf(nil, `
		ingest {
		  unix %q {}
		  http "127.0.0.1:0" {
		    token = "0123456789abcdef"
		  }
		}
		admin {
		  http = "127.0.0.1:0"
		}
		outbox "sqlite" {
		  path = %q
		}
		policy "default" {
		  egress {
		    allow_private   = ["127.0.0.0/8"]
		    allow_plaintext = true
		  }
		}
		endpoint "a" {
		  url  = "%[3]s/a"
		  sign = ["none"]
		}
		endpoint "b" {
		  url  = "%[3]s/b"
		  sign = ["none"]
		}
		endpoint "c" {
		  url  = "%[3]s/c"
		  sign = ["none"]
		}
	`, l.socket(), filepath.Join(l.dir, "outbox"), receiver), 0o600))
	relay, err := exec.LookPath("relay") // this test binary
	testkit.Must(t, err)
	cmd := exec.Command("/bin/sh", "-c", ulimit+`; exec "$0" "$@"`, relay, "serve", "--config", file)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	testkit.Must(t, cmd.Start())
	l.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of relay:\n%.10000s", l.log)
		}
	})
	testkit.Until(t, "ready", func() bool {
		for line := range strings.Lines(l.log.String()) {
			if strings.Contains(line, `"message":"ready"`) {
				return json.Unmarshal([]byte(line), &l.ready) == nil
			}
		}
		return false
	})
	return l
}

func (l *limited) socket() string { return filepath.Join(l.dir, "relay.sock") }

// tcp is the address of a listener.
func (l *limited) tcp(t *testing.T, all []string) string {
	t.Helper()
	for _, addr := range all {
		if tcp, ok := strings.CutPrefix(addr, "tcp:"); ok {
			return tcp
		}
	}
	t.Fatalf("no TCP listener among %q", all)
	return ""
}

// Fault F45: strangers that fill a listener, and receivers that fill their slots, take no
// descriptor from the app's socket, the operator or the outbox.
func TestFewDescriptors(t *testing.T) {
	t.Parallel() // it mostly waits
	const events, strangers = 200, 100
	var delivered atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		testkit.Wait(t.Context(), 20*time.Millisecond) // so that slots fill
		delivered.Add(1)
	}))
	t.Cleanup(receiver.Close)
	l := startLimited(t, "ulimit -n 64", receiver.URL)
	ingest, admin := l.tcp(t, l.ready.Ingest), l.tcp(t, l.ready.Admin)

	// Half of the strangers say nothing, half ask without a token and keep what they have.
	ended := make(chan struct{})
	var flood sync.WaitGroup
	for n := range strangers {
		flood.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				conn, err := net.DialTimeout("tcp", ingest, time.Second)
				if err != nil {
					continue // nobody accepts so many
				}
				if n%2 == 0 {
					_, _ = fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
				}
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				for err = nil; err == nil; {
					_, err = conn.Read(make([]byte, 512))
				}
				conn.Close()
			}
		})
	}
	stop := sync.OnceFunc(func() { close(ended); flood.Wait() })
	t.Cleanup(stop)

	app := (&process{t: t, dir: l.dir}).client()
	operator := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	start := time.Now()
	for i := range events {
		if !post(app, fmt.Sprint("evt_", i)) {
			t.Fatalf("event %d was not accepted beside the strangers", i)
		}
		if i%20 == 0 {
			res, err := operator.Get("http://" + admin + "/readyz")
			if err != nil {
				t.Fatalf("the operator has no answer beside the strangers: %v", err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Errorf("/readyz is %d", res.StatusCode)
			}
		}
	}
	// Somebody with the token gets through the strangers.
	known, err := http.NewRequest("POST", "http://"+ingest+"/v1/events", strings.NewReader(`{"type":"crash.test","data":1}`))
	testkit.Must(t, err)
	testkit.Until(t, "an event over TCP", func() bool {
		again := known.Clone(t.Context())
		again.Header.Set("Authorization", "Bearer 0123456789abcdef")
		again.Header.Set("Content-Type", "application/json")
		again.Body, _ = known.GetBody()
		res, err := operator.Do(again)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusAccepted
	})
	t.Logf("%d events and 10 probes took %s beside %d strangers", events, time.Since(start), strangers)
	testkit.Until(t, "all deliveries", func() bool { return delivered.Load() >= 3*(events+1) })
	stop()
	for _, text := range []string{"too many open files", "no_socket"} {
		if n := l.log.Count(text); n > 0 {
			t.Errorf("%d lines of the log say %q", n, text)
		}
	}
	if l.log.Count("the limit of open files is 64") != 1 {
		t.Error("the log says nothing of the low limit")
	}
}

// The soft limit, which is low on many systems, is raised to the hard one (Go leaves out the
// last of them).
func TestSoftLimitIsRaised(t *testing.T) {
	l := startLimited(t, "ulimit -Sn 64; ulimit -Hn 512", "http://127.0.0.1:1")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", l.pid))
	testkit.Must(t, err)
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") && f[3] != "511" && f[3] != "512" {
			t.Errorf("the limits are %q", line)
		}
	}
}
