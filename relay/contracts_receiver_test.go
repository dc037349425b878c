package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
	"relay/policy"
	"relay/relay/app"
)

// onEngines runs a test with both outboxes that Relay has, given as blocks of the file.
func onEngines(t *testing.T, test func(t *testing.T, outbox string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", filepath.Join(t.TempDir(), "outbox")))
	})
	t.Run("redis", func(t *testing.T) {
		test(t, sharedOutbox(redistest.Start(t)))
	})
}

// authority is a certificate for 127.0.0.1 and its key, as PEM files.
type authority struct{ cert, key string }

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a := authority{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for name, block := range map[string]*pem.Block{a.cert: {Type: "CERTIFICATE", Bytes: cert}, a.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// hook is a request as it came.
type hook struct {
	lines  []string // of the header, byte for byte
	header http.Header
	body   []byte
	from   string // address of the connection
}

// hookReceiver is an https receiver that answers by a script and keeps what came.
type hookReceiver struct {
	url string

	mu      sync.Mutex
	hooks   map[string][]hook // by path and event id
	answers map[string][]int  // of the same: the status for each attempt, the last for all further ones; 0 breaks the connection
}

func newHookReceiver(t *testing.T, a authority, answers map[string][]int) *hookReceiver {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	r := &hookReceiver{url: "https://" + ln.Addr().String(), answers: answers, hooks: map[string][]hook{}}
	server := &http.Server{
		Handler:     r,
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, tapKey{}, c) },
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(tappedListener{ln}) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return r
}

// tapped keeps what is read from a connection since the last request. Requests of one connection
// come one after the other, so that is the request under way.
type tapped struct {
	net.Conn
	mu *sync.Mutex
	in *bytes.Buffer
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.Write(p[:n])
	return n, err
}

// take returns the header lines of the request under way, without the request line.
func (c tapped) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	head, _, _ := strings.Cut(c.in.String(), "\r\n\r\n")
	c.in.Reset()
	return strings.Split(head, "\r\n")[1:]
}

type tapKey struct{}

type tappedListener struct{ net.Listener }

func (l tappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tapped{c, new(sync.Mutex), new(bytes.Buffer)}, nil
}

func (r *hookReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	lines := req.Context().Value(tapKey{}).(tapped).take()
	key := req.URL.Path + " " + req.Header.Get("webhook-id")
	r.mu.Lock()
	hooks := append(r.hooks[key], hook{lines, req.Header, body, req.RemoteAddr})
	r.hooks[key] = hooks
	answers := r.answers[key]
	r.mu.Unlock()
	if len(answers) == 0 {
		return
	}
	switch status := answers[min(len(hooks), len(answers))-1]; status {
	case 0:
		panic(http.ErrAbortHandler)
	case http.StatusFound:
		http.Redirect(w, req, "/elsewhere", status)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(status)
	default:
		w.WriteHeader(status)
	}
}

// of returns what came for an event at a path, "/path event".
func (r *hookReceiver) of(key string) []hook {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hooks[key])
}

// at returns what came at a path, in no order.
func (r *hookReceiver) at(path string) (hooks []hook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, some := range r.hooks {
		if strings.HasPrefix(key, path+" ") {
			hooks = append(hooks, some...)
		}
	}
	return hooks
}

// check looks at all attempts of an event, "/path event": how many came, and of each the body and
// the header, byte for byte. lines are those that the contract adds, <delivery> in body is the delivery's id.
func (r *hookReceiver) check(t *testing.T, key string, attempts int, body string, lines func(h *hook) []string) {
	t.Helper()
	hooks := r.of(key)
	if len(hooks) != attempts {
		t.Errorf("%s: %d attempts, want %d", key, len(hooks), attempts)
	}
	_, event, _ := strings.Cut(key, " ")
	for i, h := range hooks {
		delivery := hooks[0].header.Get("Relay-Delivery")
		if want := strings.ReplaceAll(body, "<delivery>", delivery); string(h.body) != want {
			t.Errorf("%s, attempt %d: body is\n%s, want\n%s", key, i+1, h.body, want)
		}
		want := append(lines(&h),
			"Host: "+strings.TrimPrefix(r.url, "https://"),
			"Content-Type: application/json",
			"Content-Length: "+strconv.Itoa(len(h.body)),
			"webhook-id: "+event,
			"Relay-Attempt: "+strconv.Itoa(i+1),
			"Relay-Delivery: "+delivery)
		slices.Sort(want)
		slices.Sort(h.lines)
		if diff := cmp.Diff(want, h.lines); diff != "" {
			t.Errorf("%s, attempt %d: header (-want +got):\n%s", key, i+1, diff)
		}
	}
}

// recent returns a header that is Unix seconds of the present time.
func (h *hook) recent(t *testing.T, name string) string {
	t.Helper()
	value := h.header.Get(name)
	if seconds, err := strconv.ParseInt(value, 10, 64); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		t.Errorf("%s is %q, not the time of the attempt", name, value)
	}
	return value
}

// contract is a Relay that runs one of the examples.
type contract struct {
	t       *testing.T
	names   []string                // of its endpoints
	tenant  string                  // of the events that are said
	clients map[string]*http.Client // of its sockets, ingest and admin
}

// example reads a file of examples/contracts as it is, with the variables that it asks for, and a
// text of the test's beside it. Without a file it reads the text alone.
func example(t *testing.T, file, beside string, env map[string]string) (*config.File, *policy.Policy, error) {
	t.Helper()
	own := filepath.Join(t.TempDir(), "test.hcl")
	if err := os.WriteFile(own, []byte(beside), 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{own}
	if file != "" {
		paths = append(paths, "../examples/contracts/"+file)
	}
	f, err := config.Load(paths, func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
	if err != nil {
		return nil, nil, err
	}
	p, err := policy.Decode(f)
	return f, p, err
}

// shortDelay is what a delay between two attempts is cut to.
const shortDelay = 20 * time.Millisecond

// startContract runs an example until the test ends, on loopback. Delays are cut to shortDelay; the
// exact ones are tested in relay/deliver.
func startContract(t *testing.T, file, outbox string, a authority, env map[string]string) *contract {
	t.Helper()
	return startExample(t, file, fmt.Sprintf(`
		%s
		policy "default" {
		  egress {
		    allow_private = ["127.0.0.0/8"]
		  }
		  tls {
		    ca = %q
		  }
		}`, outbox, a.cert), env)
}

// startExample is startContract with a text that says where the outbox is, and whatever else.
func startExample(t *testing.T, file, beside string, env map[string]string) *contract {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay-contract-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	f, p, err := example(t, file, fmt.Sprintf(`
		ingest {
		  unix "%[1]s/ingest" {}
		}
		admin {
		  http = ""
		  unix = "%[1]s/admin"
		}
		%[2]s`, dir, beside), env)
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{t: t, tenant: "shop", clients: map[string]*http.Client{}}
	for _, e := range p.Endpoints {
		c.names = append(c.names, e.Name)
		e.Retry.Schedule = slices.Repeat([]time.Duration{shortDelay}, len(e.Retry.Schedule))
		if e.Batch != nil {
			e.Batch.MaxWait = shortDelay
		}
		e.Retry.MaxRetryAfter = min(e.Retry.MaxRetryAfter, shortDelay)
	}
	relay, err := app.Open(t.Context(), app.Options{Config: f.Config, Policy: p, Version: "test", Grace: 5 * time.Second, Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ingest", "admin"} {
		c.clients[name] = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, name))
		}}}
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		for client := range maps.Values(c.clients) {
			client.CloseIdleConnections()
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

// said is an event as the app says it.
type said struct{ id, kind, data string }

// saidAt is when all events happened, in another zone than UTC.
const saidAt, saidAtUTC = "2026-03-01T12:30:00.5+01:00", "2026-03-01T11:30:00.5Z"

// say hands events over, as lines whose data keeps its bytes.
func (c *contract) say(events ...said) {
	c.t.Helper()
	var lines bytes.Buffer
	for _, e := range events {
		fmt.Fprintf(&lines, `{"id":%q,"type":%q,"time":%q,"tenant":%q,"data":%s}`+"\n", e.id, e.kind, saidAt, c.tenant, e.data)
	}
	resp, err := c.clients["ingest"].Post("http://relay/v1/events", "application/x-ndjson", &lines)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusAccepted {
		c.t.Fatalf("%s %s %v", resp.Status, answer, err)
	}
}

// counts is what the Relay knows of an endpoint's deliveries.
type counts struct{ Pending, Held, Delivered, Failed int64 }

// settled waits until the endpoint's deliveries are as wanted.
func (c *contract) settled(endpoint string, want counts) {
	c.t.Helper()
	var got struct{ Deliveries counts }
	testkit.Until(c.t, fmt.Sprintf("%s to have %+v", endpoint, want), func() bool {
		resp, err := c.clients["admin"].Get("http://relay/v1/endpoints/" + endpoint)
		if err != nil {
			c.t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			c.t.Fatal(err)
		}
		if got.Deliveries.Pending == 0 && got.Deliveries != want && got.Deliveries.Delivered+got.Deliveries.Failed >= want.Delivered+want.Failed {
			c.t.Fatalf("%s has %+v, want %+v", endpoint, got.Deliveries, want)
		}
		return got.Deliveries == want
	})
}
