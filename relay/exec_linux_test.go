package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
)

// sends is shell text with which an app hands over an event, as curl would; $1 is its key.
const sends = `cd "$PLACE"; send() { "$RELAY" send --to "unix:$RELAY_SOCKET" crash.test '{}' --key "$1" >/dev/null || exit 99; }
`

// newBeside is a Relay with an app, which is a shell script.
func newBeside(t *testing.T, receiver, script string, args ...string) *process {
	t.Helper()
	p := newProcess(t, receiver, "a")
	p.args = append(args, "--exec", "--", "sh", "-c", sends+script)
	self, err := os.Executable()
	testkit.Must(t, err)
	program := filepath.Join(p.dir, "relay") // the test's binary is Relay by this name
	testkit.Must(t, os.Symlink(self, program))
	p.env = []string{"RELAY=" + program, "PLACE=" + p.dir}
	return p
}

// wrote waits for a file that the app writes, and returns its text.
func (p *process) wrote(name string) string {
	p.t.Helper()
	var text []byte
	testkit.Until(p.t, "the app to write "+name, func() bool {
		text, _ = os.ReadFile(filepath.Join(p.dir, name))
		return len(text) > 0
	})
	return strings.TrimSpace(string(text))
}

// counting is a receiver that answers after a while and counts.
func counting(after time.Duration) (*httptest.Server, *atomic.Int64) {
	n := new(atomic.Int64)
	return httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(after)
		n.Add(1)
	})), n
}

// Fault F42, F40: a job starts when ingest takes events, knows how to reach it, and ends; what it
// has handed over is delivered before Relay ends with its code.
func TestExecJob(t *testing.T) {
	t.Parallel()
	receiver, arrived := counting(50 * time.Millisecond)
	defer receiver.Close()
	p := newBeside(t, receiver.URL, `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do send "job$i"; done; exit 7`)
	p.start()
	if code := p.ends(time.Minute); code != 7 {
		t.Errorf("exit code %d, want the job's 7", code)
	}
	if n := arrived.Load(); n != 20 {
		t.Errorf("%d of 20 events arrived before the end", n)
	}
}

// A sidecar whose app is gone, as Kubernetes stops it after a job: SIGTERM drains.
func TestTermDrains(t *testing.T) {
	t.Parallel()
	receiver, arrived := counting(100 * time.Millisecond)
	defer receiver.Close()
	p := newProcess(t, receiver.URL, "a")
	p.args = []string{"--drain", "1h"}
	p.start()
	p.await()
	const events = 3 * crashConcurrency
	for i := range events {
		if !post(p.client(), fmt.Sprintf("drained%d", i)) {
			t.Fatal("an event was not accepted")
		}
	}
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	if n := arrived.Load(); n != events {
		t.Errorf("%d of %d events arrived before the end", n, events)
	}
}

// A drain is bounded; a signal shortens it. What is left is kept.
func TestExecDrainIsBounded(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"time", "signal"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}))
			defer receiver.Close()
			drain := map[string]string{"time": "300ms", "signal": "1h"}[by]
			p := newBeside(t, receiver.URL, `send kept; exit 0`, "--drain", drain)
			p.start()
			if by == "signal" {
				testkit.Until(t, "the drain", func() bool { return strings.Contains(p.log.String(), `"message":"stopping"`) })
				testkit.Must(t, p.cmd.Process.Signal(syscall.SIGTERM))
			}
			if code := p.ends(time.Minute); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if by == "time" && !strings.Contains(p.log.String(), `"pending":1,"next":"they are made when a Relay opens this outbox again`) {
				t.Errorf("the log does not say what is left:\n%s", p.log)
			}
			if !strings.Contains(p.log.String(), `"pending":1,"held":0,"unfinished":0`) {
				t.Errorf("the event is not pending:\n%s", p.log)
			}
		})
	}
}

// Signals are the app's: Relay goes on until the app has ended, so that its last events are
// taken, and a signal that kills the app is told as a shell does.
func TestExecPassesSignals(t *testing.T) {
	t.Parallel()
	receiver, arrived := counting(0)
	defer receiver.Close()
	p := newBeside(t, receiver.URL, `
		for s in HUP USR1 USR2 WINCH CONT; do trap "echo $s >> signals" $s; done
		trap 'send last; exit 3' TERM
		echo $$ > ready
		while :; do sleep 0.05; done`)
	p.start()
	p.wrote("ready")
	for i, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT} {
		testkit.Must(t, p.cmd.Process.Signal(s))
		testkit.Until(t, s.String(), func() bool { return len(strings.Fields(p.wrote("signals"))) == i+1 })
	}
	if got := strings.Join(strings.Fields(p.wrote("signals")), " "); got != "HUP USR1 USR2 WINCH CONT" {
		t.Errorf("the app got %s", got)
	}
	testkit.Until(t, "the reload by SIGHUP", func() bool { return strings.Contains(p.log.String(), `"by":"SIGHUP"`) })
	if code := p.stop(syscall.SIGTERM); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}

	p.args[len(p.args)-1] = sends + `echo $$ > killed; while :; do sleep 0.05; done`
	p.start()
	p.wrote("killed")
	testkit.Until(t, "the last event of the app before", func() bool { return arrived.Load() == 1 })
	if code := p.stop(syscall.SIGQUIT); code != 128+int(syscall.SIGQUIT) {
		t.Errorf("exit code %d, want 131", code)
	}
}

// What the app leaves behind is reaped, and the app runs as it would without Relay: signals
// have their default, the sockets of systemd are not its own.
func TestExecEnvironment(t *testing.T) {
	t.Parallel()
	receiver, _ := counting(0)
	defer receiver.Close()
	p := newBeside(t, receiver.URL, `
		env > env; ulimit -Hc > core; grep SigIgn /proc/self/status > ignored
		sh -c 'sh -c "echo \$\$ > orphan.part; mv orphan.part orphan; while ! test -e go; do sleep 0.05; done" &'
		echo ready > ready
		while :; do sleep 0.05; done`)
	p.rewrite(`unix "`, "http \"0.0.0.0:0\" {\n token = \"open-sesame\"\n }\n unix \"")
	p.env = append(p.env, "NOTIFY_SOCKET=/nowhere", "RELAY_TOKEN=shut-sesame")
	p.start()
	p.wrote("ready")
	env := "\n" + p.wrote("env") + "\n"
	for _, line := range []string{"\nRELAY_SOCKET=" + p.socket() + "\n", "\nRELAY_TOKEN=open-sesame\n", "\nRELAY_URL=http://127.0.0.1:"} {
		if strings.Count(env, line) != 1 {
			t.Errorf("%q is not in the environment:%s", line, env)
		}
	}
	for _, name := range []string{"NOTIFY_SOCKET", "shut-sesame"} {
		if strings.Contains(env, name) {
			t.Errorf("%s reaches the app", name)
		}
	}
	var limit syscall.Rlimit
	testkit.Must(t, syscall.Getrlimit(syscall.RLIMIT_CORE, &limit))
	want := "unlimited"
	if limit.Max != ^uint64(0) {
		want = strconv.FormatUint(limit.Max/512, 10)
	}
	if got := p.wrote("core"); got != want {
		t.Errorf("the app's limit of core dumps is %s, want %s", got, want)
	}
	got := strings.Fields(p.wrote("ignored"))[1]
	ignored, err := strconv.ParseUint(got, 16, 64)
	testkit.Must(t, err)
	if ignored&0x7fffffff != 0 { // signals from 32 on are those of the C library and the race detector
		t.Errorf("the app ignores signals: %s", got)
	}

	orphan := "/proc/" + p.wrote("orphan")
	status, err := os.ReadFile(orphan + "/status")
	testkit.Must(t, err)
	if parent := fmt.Sprintf("\nPPid:\t%d\n", p.cmd.Process.Pid); !strings.Contains(string(status), parent) {
		t.Errorf("the orphan is not Relay's:\n%s", status)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(p.dir, "go"), nil, 0o600))
	testkit.Until(t, "the orphan to be reaped", func() bool {
		_, err := os.Stat(orphan)
		return os.IsNotExist(err)
	})
	if code := p.stop(syscall.SIGTERM); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want 143", code)
	}
}

// An app that cannot start ends Relay; a Relay that fails ends its app.
func TestExecFails(t *testing.T) {
	t.Parallel()
	receiver, _ := counting(0)
	defer receiver.Close()
	p := newBeside(t, receiver.URL, "")
	p.args = []string{"--exec", "--", "no-such-app"}
	p.start()
	if code := p.ends(time.Minute); code != exitFailed || !strings.Contains(p.log.String(), `relay: find the app: exec: "no-such-app"`) {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	script := filepath.Join(p.dir, "broken")
	testkit.Must(t, os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o700))
	p.args = []string{"--exec", "--", script}
	p.start()
	if code := p.ends(time.Minute); code != exitFailed || !strings.Contains(p.log.String(), "relay: start the app: ") {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
	p.args = []string{"--exec"}
	p.start()
	if code := p.ends(time.Minute); code != exitUsage || !strings.Contains(p.log.String(), "relay: --exec needs an app") {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}
