package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/internal/testkit/wallclock"
)

// steppedRelay is a Relay whose wall clock a test sets, with one endpoint whose receiver answers 503
// until the test says otherwise.
type steppedRelay struct {
	*process
	clock    *wallclock.Clock
	admin    string // socket
	attempts chan time.Time
	ok       atomic.Bool // the receiver answers 200
}

func startStepped(t *testing.T, program string, e engine) *steppedRelay {
	t.Helper()
	r := &steppedRelay{process: &process{t: t, dir: testkit.Dir(t)}, attempts: make(chan time.Time, 100)}
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
	r.clock = wallclock.New(t)
	r.program, r.env = program, []string{r.clock.Env(), "STATE_DIRECTORY=" + r.dir}
	r.start()
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("log of relay:\n%s", r.log)
		}
	})
	r.await()
	client := r.client()
	testkit.Until(t, "202", func() bool { return post(client, "evt_1") })
	return r
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
	t.Parallel()
	program := wallclock.Build(t, t.TempDir(), "relay/relay")
	const delay, day = 3 * time.Second, 24 * time.Hour
	for _, e := range engines() {
		t.Run(e.name+" wrong for a moment", func(t *testing.T) {
			t.Parallel()
			r := startStepped(t, program, e)
			before := r.attempt()
			for n, by := range []time.Duration{day, 0, -day, 0, time.Minute} { // each is set while a retry waits
				r.clock.Set(by)
				at := r.attempt()
				if after := at.Sub(before); after < delay-200*time.Millisecond || after > delay+20*time.Second {
					t.Errorf("with the clock set by %v the retry came after %v, want %v", by, after, delay)
				}
				before = at
				if e.name == "sqlite" {
					testkit.Until(t, "the log to tell of the step", func() bool { return r.log.Count("clock_stepped") > n })
				}
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
			r.clock.Set(-10 * time.Second)
			r.ok.Store(true)
			resumed := time.Now()
			r.do("resume")
			if after := r.attempt().Sub(resumed); after > 20*time.Second {
				t.Errorf("the retry came %v after resume", after)
			}
		})
	}
}
