package app

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"relay/config"
	"relay/internal/testkit"
	"relay/policy"
)

// secret is a key that only these tests use.
const secret = testkit.Secret

// githubEvents are real payloads: see testdata/README.md. Types are
// "github.<event>"; data is as GitHub's own pretty-printed bytes.
func githubEvents(t *testing.T) (types []string, data [][]byte) {
	t.Helper()
	f, err := os.Open("testdata/github-events.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []struct {
		Name     string            `json:"name"`
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.NewDecoder(z).Decode(&kinds); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		for _, e := range k.Examples {
			types = append(types, "github."+k.Name)
			data = append(data, e)
		}
	}
	if len(data) != 329 {
		t.Fatalf("found %d payloads, want 329", len(data))
	}
	return types, data
}

func compact(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// receiver is an endpoint that knows nothing of Relay: it verifies with the
// official library and keeps a hash of each event's data.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	data map[string][sha256.Size]byte // event id → hash
	bad  []error
	got  chan struct{} // one for each event
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{data: map[string][sha256.Size]byte{}, got: make(chan struct{}, 10_000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var e struct {
			ID   string          `json:"id"`
			Data json.RawMessage `json:"data"`
		}
		err := hook.Verify(body, req.Header)
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err == nil && e.ID != req.Header.Get("webhook-id") {
			err = fmt.Errorf("body names %q, header %q", e.ID, req.Header.Get("webhook-id"))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.bad = append(r.bad, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if _, again := r.data[e.ID]; !again {
			defer func() { r.got <- struct{}{} }()
		}
		r.data[e.ID] = sha256.Sum256(e.Data)
	}))
	t.Cleanup(r.Close)
	return r
}

// await waits for n events.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for i := range n {
		select {
		case <-r.got:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%d of %d events arrived; bad: %v", i, n, r.bad)
		}
	}
}

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

// start runs a Relay from the text of a file until the test ends.
func start(t *testing.T, text string) {
	t.Helper()
	a := open(t, text, 5*time.Second)
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

func post(t *testing.T, client *http.Client, path, contentType string, body []byte) []byte {
	t.Helper()
	resp, err := client.Post("http://relay"+path, contentType, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("POST %s: %v %s %s", path, err, resp.Status, answer)
	}
	return answer
}

// Real events that nobody here wrote go in through the Unix socket, singly and
// as NDJSON, and come out signed, with data unchanged to the byte.
func TestGitHubEvents(t *testing.T) {
	types, data := githubEvents(t)
	r := newReceiver(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "relay.sock")
	start(t, fmt.Sprintf(`
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
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
		endpoint "github" {
		  url     = %q
		  events  = ["github.*"]
		  secrets = [%q]
		}
	`, socket, filepath.Join(dir, "outbox"), r.URL, secret))
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(client.CloseIdleConnections)

	want := map[string][sha256.Size]byte{}
	for i := range data {
		var receipt struct {
			ID         string
			Deliveries int
		}
		if err := json.Unmarshal(post(t, client, "/v1/events/"+types[i], "application/json", data[i]), &receipt); err != nil || receipt.Deliveries != 1 {
			t.Fatalf("receipt %+v: %v", receipt, err)
		}
		want[receipt.ID] = sha256.Sum256(compact(t, data[i]))
	}

	// As NDJSON, with ids of the app's, in requests of at most 250 KiB.
	var lines bytes.Buffer
	flush := func() {
		if lines.Len() > 0 {
			post(t, client, "/v1/events", "application/x-ndjson", lines.Bytes())
			lines.Reset()
		}
	}
	for i := range data {
		id := fmt.Sprintf("nd-%d", i)
		d := compact(t, data[i])
		line := fmt.Sprintf(`{"id":%q,"type":%q,"data":%s}`+"\n", id, types[i], d)
		if lines.Len()+len(line) > 250<<10 {
			flush()
		}
		lines.WriteString(line)
		want[id] = sha256.Sum256(d)
	}
	flush()

	r.await(t, len(want))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.bad {
		t.Errorf("receiver: %v", err)
	}
	if len(r.data) != len(want) {
		t.Errorf("receiver has %d events, want %d", len(r.data), len(want))
	}
	for id, sum := range want {
		if r.data[id] != sum {
			t.Errorf("event %s: data changed on its way", id)
		}
	}
}
