package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
)

// blocked is how long a test waits for what a log that nobody reads must not hold up.
const blocked = 20 * time.Second

// deaf starts a Relay at level debug whose standard error is w. Its receiver answers 503
// unless ok says so: each attempt is a line.
func deaf(t *testing.T, w *os.File, ok *atomic.Bool) *process {
	t.Helper()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !ok.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(receiver.Close)
	p := &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}, rules: "breaker {\n enabled = false\n }"}
	p.configure(fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", p.outbox()), "15s", receiver.URL)
	file := filepath.Join(p.dir, "relay.hcl")
	text, err := os.ReadFile(file)
	testkit.Must(t, err)
	text = append(text, `
		log {
		  level = "debug"
		}
	`...)
	testkit.Must(t, os.WriteFile(file, text, 0o600))
	self, err := os.Executable()
	testkit.Must(t, err)
	p.cmd = &exec.Cmd{Path: self, Args: []string{"relay", "serve", "--config", file, "--grace", "1s"}, Env: os.Environ(), Stderr: w}
	testkit.Must(t, p.cmd.Start())
	p.await()
	return p
}

// ask sends a request to the admin's socket and returns the answer.
func (p *process) ask(method, path string) (int, string) {
	p.t.Helper()
	p.answers(p.admin())
	client := &http.Client{Timeout: blocked, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.admin())
		},
	}}
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://relay"+path, nil)
	testkit.Must(p.t, err)
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testkit.Must(p.t, err)
	return resp.StatusCode, string(body)
}

// metric is the value of one without labels.
func (p *process) metric(name string) (value float64) {
	p.t.Helper()
	_, text := p.ask(http.MethodGet, "/metrics")
	_, rest, ok := strings.Cut(text, "\n"+name+" ")
	if !ok {
		p.t.Fatalf("no metric %s", name)
	}
	if _, err := fmt.Sscan(rest, &value); err != nil {
		p.t.Fatal(err)
	}
	return value
}

// flood posts events until a count of lost lines is over a bound.
func (p *process) flood(over float64) {
	p.t.Helper()
	client := p.client()
	events := strings.Repeat(`{"type":"flood","data":{}}`+"\n", 500)
	for deadline := time.Now().Add(5 * time.Minute); p.metric("relay_log_dropped_total") <= over; { // a megabyte of lines waits for its reader
		if time.Now().After(deadline) {
			p.t.Fatal("no lines are lost")
		}
		resp, err := client.Post("http://relay/v1/events", "application/x-ndjson", strings.NewReader(events))
		if err != nil {
			p.t.Fatalf("events were not accepted, the log holds them up: %v", err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
			p.t.Fatalf("events were answered %s: %s", resp.Status, body)
		}
	}
}

// ends waits for the end of the process and returns its exit code.
func (p *process) ends(within time.Duration) int {
	p.t.Helper()
	stuck := time.AfterFunc(within, func() { p.t.Errorf("still running after %v", within); _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	stuck.Stop()
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code
}

// Nothing waits for a log that nobody reads: events, attempts, the operator, a stop.
func TestUnreadLog(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, how := range []string{"pipe", "non-blocking pipe", "socket"} {
		t.Run(how, func(t *testing.T) {
			r, w := pipe(t, how)
			var ok atomic.Bool
			p := deaf(t, w, &ok)
			p.flood(0)
			for _, path := range []string{"/v1/endpoints/a/pause", "/v1/endpoints/a/resume", "/v1/reload"} {
				if code, body := p.ask(http.MethodPost, path); code != http.StatusOK {
					t.Errorf("%s: %d %s", path, code, body)
				}
			}
			ok.Store(true)
			testkit.Until(t, "deliveries", func() bool {
				_, text := p.ask(http.MethodGet, "/metrics")
				return !strings.Contains(text, `relay_deliver_attempts_total{endpoint="a",outcome="delivered"} 0`)
			})
			if how == "pipe" { // and it flows again
				lines := bufio.NewScanner(r)
				for lines.Scan() && !strings.Contains(lines.Text(), "lines of this log were lost") {
				}
				if lines.Err() != nil {
					t.Error(lines.Err())
				}
				p.flood(p.metric("relay_log_dropped_total"))
			}
			testkit.Must(t, p.cmd.Process.Signal(syscall.SIGTERM))
			if code := p.ends(blocked); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// pipe makes a standard error of which the test holds the other end.
func pipe(t *testing.T, how string) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	var err error
	if how == "socket" {
		fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	} else {
		err = syscall.Pipe(fds[:])
	}
	testkit.Must(t, err)
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	if how == "non-blocking pipe" {
		testkit.Must(t, syscall.SetNonblock(fds[1], true))
	}
	r, w = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// The second signal ends a stop that still waits for attempts, whatever becomes of the log.
func TestSecondSignalWithUnreadLog(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		_, w := pipe(t, "pipe")
		var ok atomic.Bool
		p := deaf(t, w, &ok)
		p.flood(0)
		testkit.Must(t, p.cmd.Process.Signal(s))
		testkit.Must(t, p.cmd.Process.Signal(s))
		p.ends(blocked)
	}
}

// A reader that goes away takes no Relay with it, and one that comes back reads on: a FIFO
// is what a logger that is started again looks like.
func TestLogReaderComesAndGoes(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "log")
	testkit.Must(t, syscall.Mkfifo(fifo, 0o600))
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	testkit.Must(t, err)
	writer, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	testkit.Must(t, err)
	var ok atomic.Bool
	p := deaf(t, writer, &ok)
	testkit.Must(t, writer.Close())

	first, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil || !strings.HasPrefix(first, "{") {
		t.Fatalf("read %q: %v", first, err)
	}
	testkit.Must(t, reader.Close())
	p.flood(0) // each would bring SIGPIPE

	reader, err = os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	testkit.Must(t, err)
	defer reader.Close()
	testkit.Must(t, reader.SetReadDeadline(time.Now().Add(blocked)))
	for lines := bufio.NewReader(reader); ; {
		post(p.client(), "again")
		text, err := lines.ReadString('\n')
		if err == io.EOF {
			continue // nobody has it open between two writes
		}
		if err != nil {
			t.Fatal("no line about the lost ones: ", err)
		}
		if strings.Contains(text, "lines of this log were lost") {
			break
		}
	}
	testkit.Must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if code := p.ends(blocked); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// relay serve 2>&1 | head -1, with both streams one pipe.
func TestLogIntoHead(t *testing.T) {
	t.Parallel()
	r, w := pipe(t, "pipe")
	var ok atomic.Bool
	p := deaf(t, w, &ok)
	testkit.Must(t, r.Close())
	for n := range 20 {
		if !post(p.client(), fmt.Sprint("event-", n)) {
			t.Fatal("an event was not accepted")
		}
	}
	testkit.Until(t, "lost lines", func() bool { return p.metric("relay_log_dropped_total") > 0 })
	testkit.Must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if code := p.ends(blocked); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// Verbs that print end quietly when nobody wants to read on, as Unix tools do.
func TestVerbsEndWithTheirReader(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	testkit.Must(t, err)
	for _, args := range [][]string{{"--help"}, {"check", "--json"}, {"demo"}} {
		r, w := pipe(t, "pipe")
		testkit.Must(t, r.Close())
		var stderr strings.Builder
		dir := t.TempDir()
		testkit.Must(t, os.WriteFile(filepath.Join(dir, "relay.hcl"), []byte("log {}\n"), 0o600))
		cmd := &exec.Cmd{Path: self, Args: append([]string{"relay"}, args...), Dir: dir, Env: os.Environ(), Stdout: w, Stderr: &stderr}
		testkit.Must(t, cmd.Start())
		stuck := time.AfterFunc(blocked, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		stuck.Stop()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != syscall.SIGPIPE {
			t.Errorf("%v ended with %v, want SIGPIPE: %s", args, cmd.ProcessState, &stderr)
		}
	}
}
