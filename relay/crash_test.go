package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox/outboxtest"
	"relay/outbox/sqlite"
)

// crashConcurrency is the attempts under way at each endpoint, which bound what a
// kill can repeat.
const crashConcurrency = 8

// process is a Relay that can be killed, on a folder that outlives it.
type process struct {
	t         *testing.T
	dir       string
	endpoints []string
	rules     string   // of policy "default", beside what configure writes
	program   string   // "" for this test's own binary, which is Relay when it is called so
	env       []string // beside this process's
	args      []string // of serve, beside the configuration
	cmd       *exec.Cmd
	log       *testkit.Log
	started   time.Time
}

// newProcess writes a configuration whose endpoints are paths of the receiver and
// whose outbox is sqlite.
func newProcess(t *testing.T, receiver string, endpoints ...string) *process {
	t.Helper()
	p := &process{t: t, dir: testkit.Dir(t), endpoints: endpoints}
	p.configure(fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", p.outbox()), "15s", receiver)
	return p
}

// configure writes the configuration: the outbox as it stands in the file, how
// long an attempt may take, where the endpoints are.
func (p *process) configure(outbox, total, receiver string) {
	t := p.t
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
		  unix = %q
		}
		%s
		policy "default" {
		  %s
		  concurrency = %d
		  timeout {
		    total = %q
		  }
		  retry {
		    schedule = ["100ms", "200ms", "500ms", "1s", "2s", "5s", "5s", "5s"]
		  }
		  egress {
		    allow_private   = ["127.0.0.0/8"]
		    allow_plaintext = true
		  }
		}
	`, p.socket(), p.admin(), outbox, p.rules, crashConcurrency, total)
	for _, name := range p.endpoints {
		fmt.Fprintf(&b, `
		endpoint %q {
		  url     = "%s/%s"
		  secrets = [%q]
		}`, name, receiver, name, testkit.Secret)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "relay.hcl"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() && p.log != nil {
			t.Logf("last log of relay:\n%s", p.log)
		}
	})
}

func (p *process) socket() string { return filepath.Join(p.dir, "relay.sock") }
func (p *process) admin() string  { return filepath.Join(p.dir, "admin.sock") }
func (p *process) outbox() string { return filepath.Join(p.dir, "outbox") }

// start runs Relay; a moment later its socket answers.
func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.log = new(testkit.Log)
	p.cmd = &exec.Cmd{
		Path: cmp.Or(p.program, self), Args: append([]string{"relay", "serve", "--config", filepath.Join(p.dir, "relay.hcl")}, p.args...),
		Env: append(os.Environ(), p.env...), Stdout: p.log, Stderr: p.log,
		WaitDelay: 5 * time.Second, // its app may outlive it, and has the same output
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// serve runs Relay on relay.hcl of the folder.
func (p *process) serve(self string) {
	p.log = new(testkit.Log)
	p.cmd = &exec.Cmd{Path: self, Args: []string{"relay", "serve", "--config", "relay.hcl"}, Dir: p.dir, Env: os.Environ(), Stdout: p.log, Stderr: p.log}
	testkit.Must(p.t, p.cmd.Start())
}

// await waits until the socket answers: from then on Relay handles signals.
func (p *process) await() {
	p.t.Helper()
	p.answers(p.socket())
}

// answers waits for a socket. That of the admin routes begins a little after that of events.
func (p *process) answers(socket string) {
	p.t.Helper()
	testkit.Until(p.t, "relay to start", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// kill ends Relay as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// stop ends Relay as an orchestrator does, and returns its exit code.
func (p *process) stop(s syscall.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait()
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code
}

// client returns an HTTP client of the socket, and a new connection for each
// request, since the process behind it comes and goes.
func (p *process) client() *http.Client { return p.clientOf(p.socket()) }

// clientOf is client for another socket of the process.
func (p *process) clientOf(socket string) *http.Client {
	return &http.Client{
		Timeout: time.Minute, // bounds failures only: a dead process refuses or resets
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
}

// post hands over one event and tells whether Relay answered 202.
func post(client *http.Client, id string) bool {
	body := fmt.Sprintf(`{"id":%q,"type":"crash.test","data":{"pad":%q}}`, id, strings.Repeat("x", 900))
	resp, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusAccepted
}

// rounds is how often a crash test kills: few in a push, many in a soak.
func rounds(t *testing.T, few int) int {
	if s := os.Getenv("RELAY_SOAK_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("RELAY_SOAK_ROUNDS: %v", err)
		}
		return n
	}
	return few
}

// Promises P1, P2 and P7 (durable, at least once, no silent loss) under kill -9 at
// random instants of a load, judged by a ledger kept outside the killed process. An
// app whose 202 is lost repeats the event with its id, which must not make a second one.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel() // it mostly waits
	ledger := outboxtest.NewLedger()
	var arrived sync.Map // when the first request came since the last start
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived.LoadOrStore("first", time.Now())
		if err := ledger.Received(r.Header.Get("webhook-id"), strings.Trim(r.URL.Path, "/")); err != nil {
			t.Error(err)
		}
	}))
	defer receiver.Close()
	p := newProcess(t, receiver.URL, "a", "b")

	ctx, stopProducers := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	for n := range 8 {
		producers.Go(func() {
			client := p.client()
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("p%d-%d", n, i)
				for !post(client, id) {
					if !wait(ctx, 5*time.Millisecond) {
						return
					}
				}
				if err := ledger.Accepted(id, "a", "b"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	kills := rounds(t, 20)
	var slowest time.Duration
	for n := range kills {
		arrived.Clear()
		p.start()
		alive := 100*time.Millisecond + rand.N(300*time.Millisecond)
		wait(ctx, alive)
		if n%4 > 0 { // the others may die before they are ready, on a busy machine
			testkit.Until(t, "a delivery", func() bool { _, any := arrived.Load("first"); return any })
			wait(ctx, rand.N(50*time.Millisecond))
		}
		p.kill()
		if first, ok := arrived.Load("first"); ok {
			slowest = max(slowest, first.(time.Time).Sub(p.started))
		}
	}
	p.start()
	stopProducers()
	producers.Wait()

	// Everything that was promised arrives, now that nobody kills any more. The
	// outbox says so itself once it has stopped: nothing is pending.
	deadline := time.Now().Add(time.Minute)
	for {
		p.await()
		wait(t.Context(), 500*time.Millisecond)
		if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
			t.Fatalf("exit code %d after an interrupt, want 0", code)
		}
		tally := p.check(ledger)
		if tally.Lost > 0 {
			t.Fatalf("lost deliveries: %s\n%s", tally, strings.Join(tally.Losses, "\n"))
		}
		if tally.Pending == 0 && tally.Failed == 0 && tally.Discarded == 0 {
			t.Logf("%d kills: %s; slowest start to first delivery %s", kills, tally, slowest)
			// Promise P3: what a kill repeats was under way at that moment.
			if most := kills * 2 * (crashConcurrency + settleBacklog); tally.Duplicates > most {
				t.Errorf("%d duplicates, at most %d can have been under way at %d kills", tally.Duplicates, most, kills)
			}
			if tally.Acknowledged < kills {
				t.Errorf("only %d deliveries acknowledged: no load", tally.Acknowledged)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not everything arrived: %s", tally)
		}
		p.start()
	}
}

// settleBacklog bounds the settlements that the engine holds for its next commit.
const settleBacklog = 1024

// check asks the outbox of the stopped process for what the ledger promises.
func (p *process) check(l *outboxtest.Ledger) outboxtest.Tally {
	p.t.Helper()
	store, err := sqlite.Open(p.t.Context(), sqlite.Options{Dir: p.outbox(), Log: zerolog.Nop()})
	if err != nil {
		p.t.Fatal(err)
	}
	defer store.Close()
	tally, err := l.Check(p.t.Context(), store.Lookup)
	if err != nil {
		p.t.Fatal(err)
	}
	return tally
}

// Fault F3: Relay dies between the receiver's 2xx and its record of it. The
// delivery comes once more, with the same id and the same bytes, and is attempt 1
// again, since the first was never recorded.
func TestKillBeforeSettle(t *testing.T) {
	t.Parallel() // it mostly waits
	type request struct{ id, attempt, body string }
	got := make(chan request, 10)
	var p *process
	var once sync.Once
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		once.Do(func() { _ = p.cmd.Process.Kill() })
		got <- request{r.Header.Get("webhook-id"), r.Header.Get("Relay-Attempt"), string(body)}
	}))
	defer receiver.Close()
	p = newProcess(t, receiver.URL, "a")
	p.start()
	p.await()
	post(p.client(), "f3") // whether the 202 comes before the kill is open
	first := <-got
	p.kill()
	p.start()
	second := <-got
	p.await()
	if first != second {
		t.Errorf("the repeat differs:\n%+v\n%+v", first, second)
	}
	if first.id != "f3" || first.attempt != "1" || !json.Valid([]byte(first.body)) {
		t.Errorf("got %+v", first)
	}
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	if len(got) > 0 {
		t.Errorf("%d more requests, want none", len(got))
	}
}

// Promise P13: SIGTERM while a receiver hangs ends within the grace, hands the
// attempt back, and the next start delivers it as attempt 1 of the schedule.
func TestTermWithHangingReceiver(t *testing.T) {
	attempts := make(chan string, 10)
	release := make(chan struct{})
	var hung atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		attempts <- r.Header.Get("Relay-Attempt")
		if hung.CompareAndSwap(false, true) {
			<-release
		}
	}))
	defer receiver.Close()
	defer close(release)
	p := newProcess(t, receiver.URL, "a")
	p.start()
	p.await()
	if !post(p.client(), "term") {
		t.Fatal("the event was not accepted")
	}
	if n := <-attempts; n != "1" {
		t.Fatalf("first attempt says %q", n)
	}
	// The first signal begins to drain, the second one is at once.
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(p.log.String(), "stopping") {
		wait(t.Context(), 5*time.Millisecond)
	}
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	p.start()
	if n := <-attempts; n != "1" {
		t.Errorf("attempt %q after the restart, want 1: a cancelled attempt is not one", n)
	}
	if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}
