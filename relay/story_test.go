package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
)

// relay runs a verb to its end and returns what it printed.
func relay(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Cmd{Path: self, Args: append([]string{"relay"}, args...), Env: os.Environ()}
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}

// background starts a verb and returns what it prints while it runs.
func background(t *testing.T, args ...string) (*exec.Cmd, *testkit.Log) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := new(testkit.Log)
	cmd := &exec.Cmd{Path: self, Args: append([]string{"relay"}, args...), Env: os.Environ(), Stdout: out, Stderr: out}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	return cmd, out
}

// awaitLine waits until the output holds a match.
func awaitLine(t *testing.T, out *testkit.Log, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		if m := re.FindStringSubmatch(out.String()); m != nil {
			return m
		}
		if !wait(ctx, 5*time.Millisecond) {
			t.Fatalf("no line matches %s in:\n%s", pattern, out)
		}
	}
}

// A user's first hour: a file, a receiver that fails and then verifies, an event
// from the command line, a repeat of it, many events at once, health, a clean stop.
func TestStory(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	file := filepath.Join(dir, "relay.hcl")
	sinkPort, adminPort := testkit.Port(t), testkit.Port(t)
	text := fmt.Sprintf(`
		ingest {
		  unix "%[1]s/relay.sock" {}
		}
		admin {
		  http = "127.0.0.1:%[2]d"
		}
		outbox "sqlite" {
		  path = "%[1]s/outbox"
		}
		policy "default" {
		  retry {
		    schedule = ["100ms", "200ms"]
		  }
		  egress {
		    allow_private   = ["127.0.0.0/8"]
		    allow_plaintext = true
		  }
		}
		signature "acme" {
		  signed  = "$${timestamp}.$${body}"
		  headers = {
		    "X-Acme-Signature" = "sha256=$${signature}"
		    "X-Acme-Timestamp" = timestamp
		  }
		}
		endpoint "billing" {
		  url     = "http://127.0.0.1:%[3]d/hooks"
		  events  = ["invoice.*"]
		  sign    = ["acme"]
		  secrets = ["a-secret-of-our-own"]
		}
	`, dir, adminPort, sinkPort)
	text = strings.ReplaceAll(text, "$${", "${")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, sink := background(t, "sink", "--listen", fmt.Sprintf("127.0.0.1:%d", sinkPort), "--config", file, "--endpoint", "billing", "--answer", "503x2,200")
	awaitLine(t, sink, "signatures are checked")
	serve, log := background(t, "serve", "--config", file)
	awaitLine(t, log, `"message":"ready"`)

	out, code := relay(t, "send", "--config", file, "--key", "k1", "invoice.paid", `{"amount": 1200}`)
	var receipt struct {
		ID         string
		Deliveries int
		Durability string
	}
	if err := json.Unmarshal([]byte(out), &receipt); err != nil || code != 0 || receipt.Deliveries != 1 || receipt.Durability != "fsync" {
		t.Fatalf("send: code %d, %s", code, out)
	}
	awaitLine(t, sink, `200 +attempt 3 +invoice.paid +`+receipt.ID+` .*signature ok`)

	out, code = relay(t, "send", "--config", file, "--key", "k1", "invoice.paid", `{"amount": 1200}`)
	if code != 0 || !strings.Contains(out, receipt.ID) || !strings.Contains(out, `"duplicate":true`) {
		t.Errorf("repeat: code %d, %s", code, out)
	}
	out, code = relay(t, "send", "--config", file, "--key", "k1", "invoice.paid", `{"amount": 9}`)
	if code != exitFailed || !strings.Contains(out, "refused: 409 idempotency_conflict") {
		t.Errorf("other content: code %d, %s", code, out)
	}

	var lines bytes.Buffer
	for i := range 2500 {
		fmt.Fprintf(&lines, `{"id":"n%d","type":"invoice.sent","data":{"n":%d}}`+"\n", i, i)
	}
	ndjson := filepath.Join(dir, "events.ndjson")
	if err := os.WriteFile(ndjson, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code = relay(t, "send", "--config", file, "--ndjson", "@"+ndjson)
	if code != 0 || strings.Count(out, `"id"`) != 2500 || strings.Count(out, "\n") != 3 {
		t.Errorf("ndjson: code %d, %d receipts in %d answers", code, strings.Count(out, `"id"`), strings.Count(out, "\n"))
	}
	awaitLine(t, sink, `200 +attempt 1 +invoice.sent +n2499 .*signature ok`)

	if out, code = relay(t, "health", "--config", file); code != 0 || out != "ready\n" {
		t.Errorf("health: code %d, %s", code, out)
	}
	out, code = relay(t, "send", "--config", file, "nobody.wants", "{}")
	if code != 0 || !strings.Contains(out, "no endpoint wants events of this type") {
		t.Errorf("unwanted type: code %d, %s", code, out)
	}
	if err := serve.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, log, `"by":"SIGHUP","generation":1,.*"message":"reloaded: no endpoint differs"`)
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, log)
	}
	if m := awaitLine(t, log, `"pending":(\d+),"held":0,"unfinished":0.*"message":"stopped"`); m[1] != "0" {
		t.Errorf("%s deliveries are pending, want 0", m[1])
	}
	if strings.Contains(log.String()+sink.String(), "a-secret-of-our-own") {
		t.Error("the secret was printed")
	}
	// The log has a line for each attempt that matters: two retries, one late success.
	if n := strings.Count(log.String(), `"message":"attempt"`); n != 2 {
		t.Errorf("%d attempt lines in the log, want 2 (a repeat is held back):\n%s", n, log)
	}
}
