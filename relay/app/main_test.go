package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
)

// The one that is let be belongs to a library: it ends a closed connection within half a
// second.
func TestMain(m *testing.M) {
	testkit.Main(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// place is a folder with the file of a Relay, and what it logs.
type place struct {
	loading func() (done func()) // nil, or called when the file is read
	costs   atomic.Int64         // bytes of memory that reading the files takes
	t       *testing.T
	dir     string
	file    string
	log     testkit.Log
}

func newPlace(t *testing.T) *place {
	dir := testkit.Dir(t)
	return &place{t: t, dir: dir, file: filepath.Join(dir, "relay.hcl")}
}

func (p *place) socket() string { return filepath.Join(p.dir, "relay.sock") }

// text is the text of a file with these endpoints, and other blocks.
func (p *place) text(blocks ...string) string {
	return fmt.Sprintf(`
ingest {
  unix %q {}
}
admin {
  http = ""
  unix = %q
}
outbox "sqlite" {
  path = %q
}
%s`, p.socket(), filepath.Join(p.dir, "admin.sock"), filepath.Join(p.dir, "outbox"), strings.Join(blocks, "\n"))
}

func (p *place) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// load reads the file, as the verb does.
func (p *place) load() (*config.File, *policy.Policy, error) {
	if p.loading != nil {
		defer p.loading()()
	}
	syntax := make([]byte, p.costs.Load())
	defer runtime.KeepAlive(syntax)
	f, err := config.Load([]string{p.file}, os.LookupEnv)
	if err != nil {
		return f, nil, err
	}
	decoded, err := policy.Decode(f)
	return f, decoded, err
}

// start runs a Relay from the file until the test ends.
func (p *place) start(watched bool) *App {
	p.t.Helper()
	f, decoded, err := p.load()
	if err != nil {
		p.t.Fatal(err)
	}
	o := Options{Config: f.Config, Policy: decoded, Version: "test", Grace: time.Second, Log: zerolog.New(&p.log), Load: p.load, File: f, Watch: watched}
	a, err := Open(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	keepRunning(p.t, a)
	return a
}

func endpointBlock(name, url string, more ...string) string {
	return fmt.Sprintf("endpoint %q {\n  url     = %q\n  secrets = [%q]\n  %s\n}", name, url, secret, strings.Join(more, "\n  "))
}

const local = `egress {
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }`

// open opens a Relay from the text of a file.
func open(t *testing.T, text string, grace time.Duration) *App {
	t.Helper()
	file, err := config.Parse("relay.hcl", []byte(text), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), Options{
		Config: file.Config, Policy: p, Version: "test", Grace: grace,
		Log: zerolog.New(zerolog.NewTestWriter(t)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run runs a Relay from the text of a file until the test ends.
func run(t *testing.T, text string) *App {
	t.Helper()
	a := open(t, text, time.Second)
	keepRunning(t, a)
	return a
}

func keepRunning(t *testing.T, a *App) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// ask sends a GET to the admin socket in dir and decodes the answer.
func ask(t *testing.T, dir, path string, into any) int {
	t.Helper()
	resp := askRaw(t, dir, http.MethodGet, path)
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatalf("read answer of %s: %v", path, err)
	}
	return resp.StatusCode
}

// askRaw sends a request to the admin socket in dir; the caller closes the body.
func askRaw(t *testing.T, dir, method, path string) *http.Response {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		},
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://relay"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// askText sends a request to the admin socket in dir.
func askText(t *testing.T, dir, method, path string) (int, string) {
	t.Helper()
	resp := askRaw(t, dir, method, path)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
