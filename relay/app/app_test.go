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
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"relay/config"
	"relay/ingest"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/sqlite"
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
	deadline := time.After(2 * time.Minute)
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
	p := newPlace(t)
	run(t, p.text(endpointBlock("github", r.URL, local, `events = ["github.*"]`)))
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket())
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

// What filters remember is in the outbox, over a restart too, and what they cannot decide is
// a failed delivery.
func TestFiltersRemember(t *testing.T) {
	const each = "  url  = \"https://example.com/\"\n  sign = [\"none\"]\n}\n"
	file, err := config.Parse("relay.hcl", []byte(
		"endpoint \"big\" {\n  when = event.data.p >= 100\n"+each+
			"endpoint \"quota\" {\n  crossing {\n    value = event.data.p\n    at    = range(80, 121, 10)\n    by    = event.key\n  }\n"+each+
			"endpoint \"once\" {\n  dedupe {\n    by     = event.key\n    window = \"1h\"\n  }\n"+each), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() (outbox.Engine, *ingest.Ingest) {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Durability: "relaxed", MaxSize: config.GiB, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		route := func(e *outbox.Event) ([]string, []outbox.Term) { return p.Route(e) }
		return s, ingest.New(ingest.Options{Outbox: s, Route: route, Log: zerolog.Nop()})
	}
	store, in := open()
	for i, c := range []struct {
		data string
		want []string // endpoint, state, code
	}{
		{`{"p":79}`, []string{"once pending "}},
		{`{"p":85}`, []string{"quota pending "}},
		{`{"p":89}`, nil},
		{`{"p":115}`, []string{"big pending ", "quota pending "}}, // 90, 100 and 110 are one
		{`{"p":119}`, []string{"big pending "}},
		{`{"p":10}`, nil}, // another month
		{`{"p":81}`, []string{"quota pending "}},
		{`{"q":1}`, []string{"big failed when_error", "quota failed when_error"}},
		{"restart", nil},
		{`{"p":82}`, nil},
		{`{"p":95}`, []string{"quota pending "}},
	} {
		if c.data == "restart" {
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			store, in = open()
			continue
		}
		id := fmt.Sprint("e", i)
		answer := in.Handle(t.Context(), &ingest.Request{
			Method: "POST", Path: "/v1/events", ContentType: "application/json",
			Body: fmt.Appendf(nil, `{"type":"a","key":"k","id":%q,"data":%s}`, id, c.data),
		})
		if want := fmt.Sprintf("{\"id\":%q,\"deliveries\":%d,\"durability\":\"relaxed\"}\n", id, len(c.want)); string(answer.Body) != want {
			t.Errorf("%s: %d %s, want %s", c.data, answer.Status, answer.Body, want)
		}
		record, err := store.Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range record.Deliveries {
			got = append(got, fmt.Sprintf("%s %s %s", d.Endpoint, d.State, d.Code))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.data, diff)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
