package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relay/internal/testkit"
)

// clockFile names the environment variable that tells a Relay of steppedBinary which file has the
// seconds by which its wall clock is set.
const clockFile = "RELAY_TEST_CLOCK"

// steppedBinary builds the program with a package time whose Now reads another wall clock than
// the machine's. The monotonic clock, and all timers, stay as they are.
func steppedBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(runtime.GOROOT(), "src", "time")
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		source = filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	}
	b, err := os.ReadFile(filepath.Join(source, "time.go"))
	testkit.Must(t, err)
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(b), now) != 1 {
		t.Fatalf("func Now of %s is not as this test knows it", source)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		testkit.Must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(source, "time.go"): write("time.go", strings.Replace(string(b), now, now+"\tsec += setBy()\n", 1)),
		filepath.Join(source, "set.go"): write("set.go", `package time

import "syscall"

// set is a file that holds by how many seconds the wall clock is set, as a number of four
// bytes. Now runs where nothing may be called that takes long, so the file is in memory.
var set = func() []byte {
	path, _ := syscall.Getenv("`+clockFile+`")
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return make([]byte, 4)
	}
	b, err := syscall.Mmap(fd, 0, 4, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return b
}()

func setBy() int64 {
	if set == nil {
		return 0 // nothing is initialized yet
	}
	return int64(int32(uint32(set[0]) | uint32(set[1])<<8 | uint32(set[2])<<16 | uint32(set[3])<<24))
}
`),
	}})
	testkit.Must(t, err)
	program := filepath.Join(dir, "relay")
	build := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with another clock: %v\n%s", err, out)
	}
	return program
}

// steppedRelay is a Relay whose wall clock a test sets, with one endpoint whose receiver answers 503
// until the test says otherwise.
type steppedRelay struct {
	*process
	admin    string // socket
	attempts chan time.Time
	ok       atomic.Bool // the receiver answers 200
}

func startStepped(t *testing.T, program string, e engine) *steppedRelay {
	t.Helper()
	r := &steppedRelay{process: &process{t: t, dir: t.TempDir()}, attempts: make(chan time.Time, 100)}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !r.ok.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		r.attempts <- time.Now()
	}))
	t.Cleanup(web.Close)
	r.admin = filepath.Join(r.dir, "admin.sock")
	file := fmt.Sprintf(`
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
		  unix = %q
		}
		%s
		policy "default" {
		  retry {
		    schedule = ["3s", "3s", "3s", "3s", "3s", "3s"]
		    jitter   = 0
		    max_age  = "1h"
		  }
		  egress {
		    allow_private   = ["127.0.0.0/8"]
		    allow_plaintext = true
		  }
		}
		endpoint "a" {
		  url     = "%s/a"
		  secrets = [%q]
		}`, r.socket(), r.admin, e.open(t, r.dir), web.URL, testkit.Secret)
	testkit.Must(t, os.WriteFile(filepath.Join(r.dir, "relay.hcl"), []byte(file), 0o600))
	r.set(0)
	r.log = new(testkit.Log)
	r.cmd = &exec.Cmd{
		Path: program, Args: []string{"relay", "serve", "--config", filepath.Join(r.dir, "relay.hcl")},
		Env: append(os.Environ(), clockFile+"="+r.clock(), "STATE_DIRECTORY="+r.dir), Stdout: r.log, Stderr: r.log,
	}
	testkit.Must(t, r.cmd.Start())
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("log of relay:\n%s", r.log)
		}
	})
	socket := func() bool {
		conn, err := net.Dial("unix", r.socket())
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	testkit.Until(t, "the socket", socket)
	client := r.client()
	testkit.Until(t, "202", func() bool { return post(client, "evt_1") })
	return r
}

func (r *steppedRelay) clock() string { return filepath.Join(r.dir, "clock") }

// set sets the wall clock, by so much from what the machine says.
func (r *steppedRelay) set(by time.Duration) {
	r.t.Helper()
	f, err := os.OpenFile(r.clock(), os.O_CREATE|os.O_WRONLY, 0o600)
	testkit.Must(r.t, err)
	defer f.Close()
	_, err = f.WriteAt(binary.LittleEndian.AppendUint32(nil, uint32(int32(by/time.Second))), 0)
	testkit.Must(r.t, err)
}

// attempt waits for the next attempt, long enough for a sweep.
func (r *steppedRelay) attempt() time.Time {
	r.t.Helper()
	select {
	case at := <-r.attempts:
		return at
	case <-time.After(100 * time.Second):
		r.t.Fatal("no attempt was made in 100 s")
		return time.Time{}
	}
}

// do calls an action of the admin API.
func (r *steppedRelay) do(action string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", r.admin)
		}}}
	resp, err := client.Post("http://relay/v1/endpoints/a/"+action, "application/json", strings.NewReader("{}"))
	testkit.Must(r.t, err)
	resp.Body.Close()
	if resp.StatusCode >= 300 {
		r.t.Fatalf("%s: %s", action, resp.Status)
	}
}

// TestSteppedClock sets the wall clock of a real process. Retries keep their distances, and none
// is forgotten.
func TestSteppedClock(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program anew, with another package time")
	}
	t.Parallel()
	program := steppedBinary(t)
	const delay, day = 3 * time.Second, 24 * time.Hour
	for _, e := range engines() {
		t.Run(e.name+" wrong for a moment", func(t *testing.T) {
			t.Parallel()
			r := startStepped(t, program, e)
			before := r.attempt()
			for _, by := range []time.Duration{day, 0, -day, 0, time.Minute} { // each is set while a retry waits
				r.set(by)
				at := r.attempt()
				if after := at.Sub(before); after < delay-200*time.Millisecond || after > delay+20*time.Second {
					t.Errorf("with the clock set by %v the retry came after %v, want %v", by, after, delay)
				}
				before = at
			}
			if steps := r.log.Count("clock_stepped"); e.name == "sqlite" && steps != 5 {
				t.Errorf("the log tells of %d steps, want 5", steps)
			}
		})
		t.Run(e.name+" due while paused", func(t *testing.T) {
			t.Parallel()
			r := startStepped(t, program, e)
			r.attempt()
			r.do("pause")
			testkit.Wait(t.Context(), delay+time.Second) // it becomes due, and nobody claims
			r.set(-10 * time.Second)
			r.ok.Store(true)
			resumed := time.Now()
			r.do("resume")
			if after := r.attempt().Sub(resumed); after > 20*time.Second {
				t.Errorf("the retry came %v after resume", after)
			}
		})
	}
}
