package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/jobs"
	"relay/relay/query"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// box is an outbox with faults.
type box struct {
	outbox.Operable
	other atomic.Pointer[outboxtest.Mem] // has the documents, once it is set

	mu     sync.Mutex
	before func(call string) error // of Edit, PutDocument and Deliveries; with an error they do nothing
	after  func(call string)
	read   func(call string)                                                                // before Documents and Document
	put    func(ctx context.Context, d outbox.Document, do putter) (outbox.Document, error) // instead of PutDocument
	away   func(call string) bool                                                           // Documents or Document fails
	lost   func() bool                                                                      // Edit makes its changes, and fails
	edits  []edit
}

// putter is PutDocument.
type putter func(context.Context, outbox.Document) (outbox.Document, error)

// edit is a call of Edit.
type edit struct {
	at      time.Time
	changes int
}

func (b *box) call(name string) error {
	b.mu.Lock()
	before := b.before
	b.mu.Unlock()
	if before != nil {
		return before(name)
	}
	return nil
}

func (b *box) done(name string) {
	b.mu.Lock()
	after := b.after
	b.mu.Unlock()
	if after != nil {
		after(name)
	}
}

func (b *box) reads(name string) error {
	b.mu.Lock()
	read, away := b.read, b.away
	b.mu.Unlock()
	if read != nil {
		read(name)
	}
	if away != nil && away(name) {
		return outbox.ErrUnavailable
	}
	return nil
}

// edited returns the calls of Edit so far.
func (b *box) edited() []edit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.edits)
}

func (b *box) set(before func(string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = before
}

func (b *box) Edit(ctx context.Context, changes []outbox.Change) ([]outbox.Edited, error) {
	if err := b.call("Edit"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.edits = append(b.edits, edit{time.Now(), len(changes)})
	b.mu.Unlock()
	all, err := b.Operable.Edit(ctx, changes)
	b.done("Edit")
	if b.lost != nil && b.lost() {
		return nil, outbox.ErrUnavailable
	}
	if ctx.Err() != nil {
		return nil, ctx.Err() // the answer of an engine may come too late
	}
	return all, err
}

func (b *box) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if err := b.call("PutDocument"); err != nil {
		return outbox.Document{}, err
	}
	b.mu.Lock()
	put := b.put
	b.mu.Unlock()
	if put != nil {
		return put(ctx, d, b.documents().PutDocument)
	}
	d, err := b.documents().PutDocument(ctx, d)
	b.done("PutDocument")
	return d, err
}

func (b *box) documents() outbox.Documents {
	if m := b.other.Load(); m != nil {
		return m
	}
	return b.Operable
}

func (b *box) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	if err := b.reads("Documents"); err != nil {
		return nil, 0, err
	}
	return b.documents().Documents(ctx, kind, after)
}

func (b *box) Document(ctx context.Context, kind, name string) (outbox.Document, error) {
	if err := b.reads("Document"); err != nil {
		return outbox.Document{}, err
	}
	return b.documents().Document(ctx, kind, name)
}

func (b *box) AwaitDocuments(ctx context.Context, kind string, after uint64) error {
	return b.documents().AwaitDocuments(ctx, kind, after)
}

func (b *box) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	if err := b.call("Deliveries"); err != nil {
		return outbox.Page{}, err
	}
	return b.Operable.Deliveries(ctx, q)
}

// world is jobs on an outbox.
type world struct {
	*testing.T
	box     *box
	jobs    *jobs.Jobs
	log     *testkit.Log
	stop    context.CancelFunc
	options jobs.Options
}

func newWorld(t *testing.T, store outbox.Operable, change ...func(*jobs.Options)) *world {
	w := &world{T: t, box: &box{Operable: store}, log: new(testkit.Log)}
	w.options = jobs.Options{
		Outbox: w.box, Relay: named("relay-1"), Alone: true, Log: zerolog.New(w.log),
		Endpoints:    known,
		Surroundings: query.Surroundings{Held: func(context.Context) ([]string, error) { return nil, nil }},
	}
	for _, c := range change {
		c(&w.options)
	}
	w.jobs = jobs.New(w.options)
	return w
}

// run works on jobs until the test or a call of stop ends.
func (w *world) run() {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		w.jobs.Run(ctx)
		close(ended)
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
}

// start starts a job with a filter.
func (w *world) start(job jobs.Job, filter string) jobs.Job {
	w.Helper()
	values, err := url.ParseQuery(filter)
	testkit.Must(w, err)
	q, err := query.Parser{Now: time.Now()}.Values(values, query.Bulk)
	testkit.Must(w, err)
	job.Filter, err = w.jobs.Prepare(q)
	testkit.Must(w, err)
	job.Who = "support"
	job, err = w.jobs.Start(w.Context(), job)
	testkit.Must(w, err)
	return job
}

// over waits until the job has ended.
func (w *world) over(id string) jobs.Job {
	w.Helper()
	for range 100_000 {
		job, err := w.jobs.Get(w.Context(), id)
		testkit.Must(w, err)
		if job.State.Over() {
			return job
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatalf("job %s did not end", id)
	return jobs.Job{}
}

// accept accepts n events for an endpoint, and settles their deliveries as state; "" leaves them pending.
func accept(t *testing.T, store outbox.Operable, prefix string, n int, endpoint string, state outbox.State) {
	t.Helper()
	for i := range n {
		id := fmt.Sprintf("evt_%s%04d", prefix, i)
		_, err := store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
			Event: outbox.Event{ID: id, Type: "order.paid", Data: []byte(`{"n":1}`)}, Endpoints: []string{endpoint}}}})
		testkit.Must(t, err)
		if state == "" {
			continue
		}
		claims, err := store.Claim(t.Context(), outbox.ClaimRequest{Endpoint: endpoint, Max: 1, Lease: time.Hour})
		testkit.Must(t, err)
		s := outbox.Settlement{State: state, Attempt: outbox.Attempt{N: 1, Started: time.Now(), Status: 503, Code: "http_503"}}
		if state == outbox.Pending {
			s.Due = time.Now().Add(1000 * time.Hour)
		}
		testkit.Must(t, store.Settle(t.Context(), claims[0], s))
	}
	time.Sleep(time.Millisecond) // what is accepted now is in the past of a job
}

// repeats counts the redeliveries of each delivery.
func repeats(t *testing.T, store outbox.Operable) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, i := range all(t, store, outbox.Filter{Manual: new(true)}) {
		n[i.Origin]++
	}
	return n
}

func all(t *testing.T, store outbox.Operable, f outbox.Filter) []outbox.Item {
	t.Helper()
	var items []outbox.Item
	q := outbox.Query{Filter: f, Limit: outbox.MaxPage, Oldest: true}
	for {
		p, err := store.Deliveries(t.Context(), q)
		testkit.Must(t, err)
		items = append(items, p.Items...)
		if p.Next == "" {
			return items
		}
		q.Cursor = p.Next
	}
}

func open(t *testing.T, o outboxtest.MemOptions) *outboxtest.Mem {
	m := outboxtest.NewMem(o)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// lines of the audit that name a text.
func audited(t *testing.T, store outbox.Operable, text string) (n int) {
	t.Helper()
	lines, err := store.Lines(t.Context(), 0, 100)
	testkit.Must(t, err)
	for _, l := range lines {
		if bytes.Contains(l.Body, []byte(text)) {
			n++
		}
	}
	return n
}

func skipped(j jobs.Job) string {
	var parts []string
	for _, reason := range []string{jobs.SkipAbsent, jobs.SkipErased, jobs.SkipClaimed, jobs.SkipEndpoint, jobs.SkipAlready, jobs.SkipRepeat, jobs.SkipOnItsWay, jobs.SkipSince, jobs.SkipError, "pending", "delivered", "failed", "discarded"} {
		if n := j.Skipped[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(parts, ", ")
}

// named is the name of a Relay.
func named(name string) func() string { return func() string { return name } }

// known are the endpoints of the file.
func known(context.Context) (map[string]bool, error) {
	return map[string]bool{"a": true, "b": true}, nil
}
