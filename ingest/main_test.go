package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

func TestMain(m *testing.M) {
	// net/http rests half a second before it closes a connection for good.
	testkit.Main(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// recorder is an outbox that remembers what it was given.
type recorder struct {
	Appender
	mu      sync.Mutex
	batches []outbox.Batch
}

func (r *recorder) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	r.mu.Lock()
	r.batches = append(r.batches, b)
	r.mu.Unlock()
	return r.Appender.Accept(ctx, b)
}

// entries are all entries that the outbox was given.
func (r *recorder) entries() []outbox.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []outbox.Entry
	for _, b := range r.batches {
		all = append(all, b.Entries...)
	}
	return all
}

// route is the routing of all tests: types that begin with "nobody" are wanted
// by none, others by two endpoints.
func route(e *outbox.Event) ([]string, []outbox.Term) {
	if strings.HasPrefix(e.Type, "nobody") {
		return nil, nil
	}
	return []string{"billing", "audit"}, nil
}

// to is a routing of all events to the same endpoints.
func to(names ...string) func(*outbox.Event) ([]string, []outbox.Term) {
	return func(*outbox.Event) ([]string, []outbox.Term) { return names, nil }
}

// newIngest returns an Ingest on a memory outbox that can be made to fail.
func newIngest(t testing.TB, o Options) (*Ingest, *recorder, *outboxtest.Faulty) {
	t.Helper()
	faulty := outboxtest.NewFaulty(outboxtest.NewMem(outboxtest.MemOptions{}))
	t.Cleanup(func() {
		if err := faulty.Close(); err != nil {
			t.Error(err)
		}
	})
	rec := &recorder{Appender: faulty}
	o.Outbox, o.Route = rec, route
	return New(o), rec, faulty
}

// post is a plain request.
func post(path, contentType, body string) *Request {
	return &Request{Method: "POST", Path: path, ContentType: contentType, Body: []byte(body)}
}

func postJSON(path, body string) *Request { return post(path, "application/json", body) }

// answer is any body that ingest sends.
type answer struct {
	ID         string
	Deliveries int
	Duplicate  bool
	Durability string
	Events     []answer

	Type, Title, Code, Detail, Field, Pointer, Keyword string
	Status, Line                                       int
	Index, Offset                                      *int
}

func decodeAnswer(t testing.TB, body []byte) answer {
	t.Helper()
	var a answer
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("answer %q: %v", body, err)
	}
	return a
}

// wantProblem checks a refusal against its own body and against the table of
// codes.
func wantProblem(t testing.TB, res Response, status int, c string) answer {
	t.Helper()
	a := decodeAnswer(t, res.Body)
	if res.Status != status || a.Status != status || a.Code != c {
		t.Errorf("got %d %s, want %d %s", res.Status, res.Body, status, c)
	}
	if res.ContentType != "application/problem+json" || a.Title == "" || a.Detail == "" || !strings.HasSuffix(a.Type, c) {
		t.Errorf("incomplete problem: %s %s", res.ContentType, res.Body)
	}
	if (res.Status == http.StatusServiceUnavailable || res.Status == http.StatusInsufficientStorage) != (res.RetryAfter > 0) {
		t.Errorf("status %d with Retry-After %d", res.Status, res.RetryAfter)
	}
	if (res.Status == http.StatusMethodNotAllowed) != (res.Allow != "") {
		t.Errorf("status %d with Allow %q", res.Status, res.Allow)
	}
	return a
}

func wantAccepted(t testing.TB, res Response) answer {
	t.Helper()
	if res.Status != http.StatusAccepted || res.ContentType != "application/json" {
		t.Fatalf("got %d %s %s, want 202", res.Status, res.ContentType, res.Body)
	}
	return decodeAnswer(t, res.Body)
}

// nested is an array that nests depth deep.
func nested(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

// lines are n events, one a line.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"type":"invoice.paid","data":{"n":%d}}`+"\n", i)
	}
	return b.String()
}
