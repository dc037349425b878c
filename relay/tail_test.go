package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

const anAttempt = `{"outcome":"retry","id":"dlv_%d","event":{"id":"evt_1","type":"invoice.paid","time":"2026-01-31T12:00:00Z"},"endpoint":"billing","state":"pending","code":"http_503","attempts":1,"max_attempts":10,"created":"2026-01-31T12:00:00Z","last":{"n":1,"started":"2026-01-31T12:00:00Z","took_ms":3.5,"status":503}}`

// A Relay that stops ends no tail: it asks again, and says what was missed and what was lost.
func TestTailGoesOn(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if got := r.URL.Query().Get("endpoint"); got != "billing" {
			t.Errorf("asked for %q", got)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, ": relay\n\nevent: attempt\ndata: "+anAttempt+"\n\n", n)
		if n == 1 {
			fmt.Fprint(w, "event: lost\ndata: {\"lost\":12}\n\nevent: end\ndata: {}\n\n")
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	cmd, out := background(t, "tail", "--admin", s.URL, "--endpoint", "billing")
	awaitLine(t, out, "TIME\tOUTCOME\t[^\n]*\n2026-01-31T12:00:00Z\tretry\tpending\tbilling\tinvoice.paid\t1/10\t503\t3.5ms\tdlv_1\thttp_503\n")
	awaitLine(t, out, `relay: 12 attempts are left out here`)
	awaitLine(t, out, `relay: the connection has ended at \S+ \(it stops\); asking again. Attempts from now until then: relay deliveries --attempted-since 20`)
	awaitLine(t, out, "\tdlv_2\thttp_503\n")
	if n := strings.Count(out.String(), "OUTCOME"); n != 1 {
		t.Errorf("%d headers", n)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("an interrupt ends it with %v", err)
	}
}

func TestTailRefused(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	out, code := relay(t, "tail", "--admin", s.URL)
	if code != exitFailed || !strings.Contains(out, "is not Relay's admin listener") {
		t.Errorf("code %d, %s", code, out)
	}
	s.Close()
	if out, code = relay(t, "tail", "--admin", s.URL); code != exitFailed || !strings.Contains(out, "no Relay answers on") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestEventsOfAStream(t *testing.T) {
	var got []string
	err := readEvents(strings.NewReader(": c\n\nevent: a\ndata: 1\ndata:2\r\n\nid: 7\nevent: b\n\ndata: cut"), func(name, data string) error {
		got = append(got, name+"="+data)
		return nil
	})
	if want := "= a=1\n2 b="; strings.Join(got, " ") != want || err == nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A job goes on when the verb that follows it is interrupted.
func TestInterruptLeavesTheJobRunning(t *testing.T) {
	var methods atomic.Value
	methods.Store("")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods.Store(methods.Load().(string) + r.Method + " " + r.URL.Path + ";")
		if r.Method == http.MethodPost {
			fmt.Fprint(w, `{"id":"job_1","matched":10,"filter":{}}`)
			return
		}
		fmt.Fprint(w, `{"id":"job_1","action":"redeliver","state":"running","matched":10,"seen":3,"done":3,"skipped":{},"filter":{}}`)
	}))
	defer s.Close()
	cmd, out := background(t, "redeliver", "--admin", s.URL, "--endpoint", "billing", "--yes")
	awaitLogged(t, &methods, "GET /v1/jobs/job_1;")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != exitFailed {
		t.Errorf("ended with %v", err)
	}
	if want := "relay: the job goes on: relay jobs job_1 shows it, relay jobs cancel job_1 ends it\n"; out.String() != want {
		t.Errorf("said %q", out)
	}
	if strings.Contains(methods.Load().(string), "cancel") {
		t.Error("the job was cancelled")
	}
}

func TestProgressOfAJob(t *testing.T) {
	var out bytes.Buffer
	p := progress{to: &out, terminal: true}
	job := jobWith(t, `{"id":"job_1","matched":200,"seen":50}`)
	p.show(job)
	if got := out.String(); !strings.HasPrefix(got, "\r\x1b[K[#######.......................] 50 of 200, 25 %, ") {
		t.Errorf("%q", got)
	}
	out.Reset()
	p.terminal = false
	p.show(job)
	p.end()
	if out.Len() > 0 {
		t.Errorf("a program got %q", out.String())
	}
}

// With --watch a verb asks again until an interrupt, also while Relay is away.
func TestWatchAsksAgain(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n := asked.Add(1); n {
		case 2:
			http.Error(w, `{"code":"outbox_unavailable","detail":"Redis is away","status":503}`, http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, `{"items":[{"id":"job_%d","action":"retry","state":"done","matched":1,"skipped":{}}],"next":null}`, n)
		}
	}))
	defer s.Close()
	cmd, out := background(t, "jobs", "--admin", s.URL, "--watch")
	awaitLine(t, out, `(?s)^JOB\t.*job_1\tretry\tdone\t.*\n\nrelay: .*Redis is away\n\nJOB\t.*\njob_3\t`)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("an interrupt ends it with %v", err)
	}
}
