package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
	"relay/outbox/sqlite"
)

// place is a Redis, and the folder of a spool before it.
type place struct {
	t      *testing.T
	server *redistest.Server
	dir    string
	log    testkit.Log
	shared redisstream.Options
	mirror []string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	server := redistest.StartKept(t)
	return &place{t: t, server: server, dir: t.TempDir(), shared: redisstream.Options{URL: server.URL(), Database: -1, Log: zerolog.Nop()}}
}

// open opens the outbox with its spool; the test closes it.
func (p *place) open() *Store {
	p.t.Helper()
	shared, err := redisstream.Open(p.t.Context(), p.shared)
	testkit.Must(p.t, err)
	s, err := Open(p.t.Context(), shared, Options{Dir: p.dir, Log: zerolog.New(&p.log), Mirror: p.mirror})
	testkit.Must(p.t, err)
	p.t.Cleanup(func() { _ = s.Close() })
	return s
}

func batch(id string, data string) outbox.Batch {
	return outbox.Batch{Entries: []outbox.Entry{entry(id, data)}}
}

// entry is an event whose id the app chose.
func entry(id, data string) outbox.Entry {
	e := outbox.Entry{
		Event:     outbox.Event{ID: id, Type: "a.b", Time: time.UnixMicro(1_700_000_000_000_000).UTC(), Data: []byte(data), Via: "unix", Relay: "one"},
		Endpoints: []string{"a", "b"},
	}
	copy(e.Fingerprint[:], "of "+data)
	return e
}

func (p *place) accept(s *Store, b outbox.Batch) []outbox.Receipt {
	p.t.Helper()
	receipts, err := s.Accept(p.t.Context(), b)
	testkit.Must(p.t, err)
	return receipts
}

// empty waits until the spool is empty.
func (p *place) empty(s *Store) outbox.SpoolStatus {
	p.t.Helper()
	var now outbox.SpoolStatus
	testkit.Until(p.t, "the spool to be empty", func() bool {
		var err error
		now, err = s.Spool(p.t.Context())
		return err == nil && !now.Used && now.Waiting == 0
	})
	return now
}

// pending is how many deliveries of the endpoint are in Redis.
func (p *place) pending(s *Store, endpoint string) int64 {
	p.t.Helper()
	counts, err := s.Store.Counts(p.t.Context())
	testkit.Must(p.t, err)
	return counts[endpoint].Pending
}

// While Redis is well the spool is not there: the suite that every engine passes.
func TestConformance(t *testing.T) {
	server := redistest.Start(t)
	var n atomic.Int64
	var mu sync.Mutex
	type options struct {
		shared redisstream.Options
		dir    string
	}
	known := map[outbox.Engine]options{}
	open := func(t *testing.T, o options) outbox.Engine {
		shared, err := redisstream.Open(t.Context(), o.shared)
		testkit.Must(t, err)
		s, err := Open(t.Context(), shared, Options{Dir: o.dir, Log: zerolog.Nop()})
		testkit.Must(t, err)
		mu.Lock()
		defer mu.Unlock()
		known[s] = o
		return s
	}
	fresh := func(t *testing.T, size int64) options {
		return options{redisstream.Options{URL: server.URL(), Database: -1, Namespace: fmt.Sprintf("suite%d", n.Add(1)), MaxSize: size}, t.TempDir()}
	}
	of := func(s outbox.Engine) options {
		mu.Lock()
		defer mu.Unlock()
		return known[s]
	}
	outboxtest.Run(t, outboxtest.Harness{
		Open:      func(t *testing.T) outbox.Engine { return open(t, fresh(t, 0)) },
		OpenSized: func(t *testing.T, size int64) outbox.Engine { return open(t, fresh(t, size)) },
		Reopen: func(t *testing.T, s outbox.Engine) outbox.Engine {
			testkit.Must(t, s.Close())
			return open(t, of(s))
		},
		Join: func(t *testing.T, s outbox.Engine) outbox.Engine {
			return open(t, options{of(s).shared, t.TempDir()}) // each Relay has a spool of its own
		},
	})
}

// What is accepted while Redis is away moves when it is back, and is one event each, with all
// that it had.
func TestAwayAndBack(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	if r := p.accept(s, batch("before", "1")); r[0].Durability != "" {
		t.Errorf("while Redis is well the level is %q", r[0].Durability)
	}
	p.server.Kill()
	many := outbox.Batch{Key: "ingest:k", Entries: []outbox.Entry{entry("x", `"\u0000 ü"`), entry("y", "3")}}
	many.Fingerprint[0] = 1
	many.Entries[0].Fingerprint = outbox.Fingerprint{} // the id was made for it
	first := p.accept(s, many)
	if len(first) != 2 || first[0] != (outbox.Receipt{ID: "x", Deliveries: 2, Durability: Level}) {
		t.Errorf("receipts %+v", first)
	}
	again := many
	again.Entries = []outbox.Entry{entry("z", `"\u0000 ü"`), many.Entries[1]} // a repeat by its key has other generated ids
	again.Entries[0].Fingerprint = outbox.Fingerprint{}
	if r := p.accept(s, again); r[0].ID != "x" || !r[0].Duplicate {
		t.Errorf("a repeat of the request: %+v", r)
	}
	if r := p.accept(s, batch("single", "4")); r[0].Durability != Level {
		t.Errorf("the second batch was not spooled: %+v", r)
	}
	if r := p.accept(s, batch("single", "4")); !r[0].Duplicate || r[0].Deliveries != 2 {
		t.Errorf("a repeat: %+v", r)
	}
	if _, err := s.Accept(t.Context(), batch("single", "5")); !errors.Is(err, outbox.ErrConflict) {
		t.Errorf("the same id with other content: %v", err)
	}
	var conflict *outbox.ConflictError
	if _, err := s.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{entry("n", "1"), entry("y", "5")}}); !errors.As(err, &conflict) || conflict.Index != 1 {
		t.Errorf("a conflict in a batch: %v", err)
	}
	for _, id := range []string{"x", "y", "single"} {
		r, err := s.Lookup(t.Context(), id)
		if err != nil || len(r.Deliveries) != 2 || r.Deliveries[1].State != outbox.Pending || r.Event.ID != id {
			t.Errorf("%s in the spool: %+v, %v", id, r, err)
		}
	}
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("not healthy although the spool takes events: %v", err)
	}
	now, err := s.Spool(t.Context())
	testkit.Must(t, err)
	if !now.Used || now.Waiting != 2 || now.Oldest.IsZero() || !errors.Is(now.Why, outbox.ErrUnavailable) {
		t.Errorf("while it is away: %+v", now)
	}

	p.server.Start()
	now = p.empty(s)
	if now.Moved != 2 || now.Refused != 0 || now.Why != nil {
		t.Errorf("afterwards: %+v", now)
	}
	if n := p.pending(s, "a"); n != 4 { // before, x, y, single
		t.Errorf("%d deliveries in Redis, want 4\n%s", n, &p.log)
	}
	r, err := s.Store.Lookup(t.Context(), "x")
	testkit.Must(t, err)
	direct, err := s.Store.Lookup(t.Context(), "before")
	testkit.Must(t, err)
	want := direct.Event // with what the shared outbox keeps
	want.ID, want.Data = "x", many.Entries[0].Event.Data
	if diff := cmp.Diff(want, r.Event); diff != "" {
		t.Errorf("the event is another one after the move (-want +got):\n%s", diff)
	}
	if r := p.accept(s, batch("after", "1")); r[0].Durability != "" {
		t.Errorf("when the spool is empty the level is %q", r[0].Durability)
	}
	for _, b := range []outbox.Batch{again, batch("single", "4")} { // Redis knows them by now
		if r := p.accept(s, b); !r[0].Duplicate {
			t.Errorf("a repeat after the move: %+v", r)
		}
	}
}

// A conflict that shows only at the move is told and set aside, and holds up nothing.
func TestConflictAtTheMove(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	p.accept(s, batch("id", "1"))
	p.server.Kill()
	p.accept(s, batch("id", "1")) // the same: known there
	p.accept(s, batch("other", "1"))
	s2 := batch("late", "1")
	p.accept(s, s2)
	testkit.Must(t, s.Close())
	p.server.Start()
	direct, err := redisstream.Open(t.Context(), p.shared) // another Relay of the fleet
	testkit.Must(t, err)
	defer direct.Close()
	if _, err := direct.Accept(t.Context(), batch("late", "2")); err != nil {
		t.Fatal(err)
	}
	s = p.open()
	now := p.empty(s)
	if now.Moved != 2 || now.Refused != 1 {
		t.Errorf("%+v, want 2 moved and 1 refused", now)
	}
	if n := p.pending(s, "a"); n != 3 {
		t.Errorf("%d deliveries in Redis, want 3", n)
	}
	if !strings.Contains(p.log.String(), `"code":"idempotency_conflict","event_id":"late"`) {
		t.Errorf("the log does not tell:\n%s", &p.log)
	}
}

// A lost answer of Redis, and a crash between the move and its record, make no second event.
func TestNothingIsTwice(t *testing.T) {
	t.Run("lost answer", func(t *testing.T) {
		p := newPlace(t)
		proxy := redistest.StartFaultProxy(t, "unix", p.server.Socket())
		p.shared.URL, p.shared.Patience = proxy.URL(), time.Second
		s := p.open()
		generated := batch("made", "1")
		generated.Entries[0].Fingerprint = outbox.Fingerprint{}
		proxy.Hang() // what was sent arrives, and nothing comes back
		if r := p.accept(s, generated); r[0].Durability != Level {
			t.Fatalf("not spooled: %+v", r)
		}
		p.accept(s, batch("chosen", "1"))
		proxy.Resume()
		if now := p.empty(s); now.Refused != 0 {
			t.Errorf("%+v", now)
		}
		if n := p.pending(s, "a"); n != 2 {
			t.Errorf("%d deliveries, want 2", n)
		}
	})
	t.Run("crash", func(t *testing.T) {
		p := newPlace(t)
		s := p.open()
		p.server.Kill()
		for i := range 20 {
			b := batch(fmt.Sprintf("e%d", i), "1")
			if i%2 == 0 {
				b.Entries[0].Fingerprint = outbox.Fingerprint{}
			}
			p.accept(s, b)
		}
		testkit.Must(t, s.Close())
		copied := t.TempDir()
		testkit.Must(t, os.CopyFS(copied, os.DirFS(p.dir)))
		p.server.Start()
		s = p.open()
		p.empty(s)
		testkit.Must(t, s.Close())
		p.dir = copied // as if none of the moves had been recorded
		s = p.open()
		if now := p.empty(s); now.Moved != 20 || now.Refused != 0 {
			t.Errorf("moved again: %+v\n%s", now, &p.log)
		}
		if n := p.pending(s, "a"); n != 20 {
			t.Errorf("%d deliveries, want 20", n)
		}
	})
}

// Marks judge an event when it moves, in the order of accept.
func TestMarksAtTheMove(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	mark := func(id string, level int64) outbox.Batch {
		b := batch(id, "1")
		b.Entries[0].Endpoints = []string{"a"}
		b.Entries[0].Terms = []outbox.Term{{Mark: &outbox.Mark{Key: "k", Level: level, For: time.Hour}}}
		return b
	}
	p.accept(s, mark("first", 1))
	p.server.Kill()
	const events = 200
	for i := range events {
		p.accept(s, mark(fmt.Sprintf("rises%d", i), int64(2+i)))
		p.accept(s, mark(fmt.Sprintf("repeats%d", i), int64(2+i)))
	}
	failed := batch("failed", "1")
	failed.Entries[0].Terms = []outbox.Term{{Code: "when_error", Error: "no"}, {}}
	p.accept(s, failed)
	p.server.Start()
	p.empty(s)
	counts, err := s.Counts(t.Context())
	testkit.Must(t, err)
	if a := counts["a"]; a.Pending != 1+events || a.Failed != 1 {
		t.Errorf("%d pending and %d failed, want %d and 1", a.Pending, a.Failed, 1+events)
	}
}

// A Redis that is full keeps what is in the spool there, and the spool that is full refuses.
func TestFull(t *testing.T) {
	p := newPlace(t)
	p.shared.MaxSize = 64 << 10
	s := p.open()
	p.server.Kill()
	data := `"` + strings.Repeat("x", 10<<10) + `"`
	for i := range 10 {
		p.accept(s, batch(fmt.Sprintf("e%d", i), data))
	}
	p.server.Start()
	testkit.Until(t, "Redis to be full", func() bool {
		now, err := s.Spool(t.Context())
		return err == nil && errors.Is(now.Why, outbox.ErrFull)
	})
	moved := p.pending(s, "a")
	if moved == 0 || moved == 10 {
		t.Fatalf("%d moved into a Redis that has room for some", moved)
	}
	if r := p.accept(s, batch("behind", "1")); r[0].Durability != Level {
		t.Errorf("an event overtook the spool: %+v", r)
	}
	for done := int64(0); done < 22; {
		for _, name := range []string{"a", "b"} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: name, Max: 4, Lease: time.Minute})
			cancel()
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				testkit.Must(t, s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{N: 1}}))
				done++
			}
		}
		_, _, err := s.Reap(t.Context(), outbox.Retention{})
		testkit.Must(t, err)
	}
	if now := p.empty(s); now.Moved != 11 || now.Refused != 0 {
		t.Errorf("%+v, want 11 moved", now)
	}
}

// Under a load that does not let up the spool still becomes empty, and events go to Redis again.
func TestEmptiesUnderLoad(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	p.server.Kill()
	for i := range 500 {
		p.accept(s, batch(fmt.Sprintf("spooled%d", i), "1"))
	}
	ctx, stop := context.WithCancel(t.Context())
	var accepted, direct atomic.Int64
	var producers sync.WaitGroup
	for n := range 16 {
		producers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r, err := s.Accept(context.Background(), batch(fmt.Sprintf("p%d-%d", n, i), "1"))
				if err != nil {
					t.Error(err)
					return
				}
				accepted.Add(1)
				if r[0].Durability == "" {
					direct.Add(1)
				}
			}
		})
	}
	p.server.Start()
	testkit.Until(t, "events to go to Redis", func() bool { return direct.Load() > 100 })
	stop()
	producers.Wait()
	p.empty(s)
	if n := p.pending(s, "a"); n != 500+accepted.Load() {
		t.Errorf("%d deliveries in Redis, want %d", n, 500+accepted.Load())
	}
}

// The documents of a kind are known at a start without Redis, as they were, and afterwards as they are.
func TestMirror(t *testing.T) {
	p := newPlace(t)
	p.mirror = []string{"endpoint"}
	ctx := t.Context()
	p.server.Kill()
	s := p.open()
	if _, _, err := s.Documents(ctx, "endpoint", 0); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("documents that were never seen: %v", err)
	}
	testkit.Must(t, s.Close())
	p.server.Start()
	p.server.WaitReady()
	s = p.open()
	put := func(kind, name, body string) {
		t.Helper()
		old, err := s.Document(ctx, kind, name)
		if err != nil && !errors.Is(err, outbox.ErrNotFound) {
			t.Fatal(err)
		}
		_, err = s.PutDocument(ctx, outbox.Document{Kind: kind, Name: name, Revision: old.Revision, Body: []byte(body)})
		testkit.Must(t, err)
	}
	// read returns the documents as name=body, in order.
	read := func(after uint64) (string, uint64) {
		t.Helper()
		all, revision, err := s.Documents(ctx, "endpoint", after)
		testkit.Must(t, err)
		var texts []string
		for _, d := range all {
			texts = append(texts, d.Name+"="+string(d.Body))
		}
		slices.Sort(texts)
		return strings.Join(texts, " "), revision
	}
	for i := range 100 {
		put("endpoint", fmt.Sprintf("many%d", i), "x")
		put("endpoint", fmt.Sprintf("many%d", i), "")
	}
	put("endpoint", "a", "1")
	put("endpoint", "b", "2")
	put("other", "c", "3")
	_, seen := read(0)
	put("endpoint", "b", "22")
	put("endpoint", "d", "4")
	want, _ := read(seen)
	if want != "b=22 d=4" {
		t.Fatalf("written since: %s", want)
	}
	want, seen = read(0)
	testkit.Must(t, s.Close())

	p.server.Kill()
	s = p.open()
	if got, revision := read(0); got != want || revision != seen {
		t.Errorf("the copy at revision %d: %s, want %d: %s", revision, got, seen, want)
	}
	if _, _, err := s.Documents(ctx, "other", 0); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("of another kind: %v", err)
	}
	p.server.Start()
	p.server.WaitReady()
	direct, err := redisstream.Open(ctx, p.shared)
	testkit.Must(t, err)
	defer direct.Close()
	old, err := direct.Document(ctx, "endpoint", "a")
	testkit.Must(t, err)
	_, err = direct.PutDocument(ctx, outbox.Document{Kind: "endpoint", Name: "a", Revision: old.Revision})
	testkit.Must(t, err)
	testkit.Until(t, "Redis", func() bool { _, _, err := s.Documents(ctx, "other", 0); return err == nil })
	if got, _ := read(seen); got != "a= b=22 d=4" { // whole, with what is gone
		t.Errorf("after a copy: %s", got)
	}
	testkit.Must(t, s.Close())
	p.server.Kill()
	s = p.open()
	if got, _ := read(0); got != "b=22 d=4" {
		t.Errorf("the copy does not follow: %s", got)
	}
}

// Changes that were read are copied, also when their reader is gone by then, or the spool did not take them the first time.
func TestMirrorMissesNothing(t *testing.T) {
	p := newPlace(t)
	p.mirror = []string{"endpoint"}
	s := p.open()
	put := func(name string) {
		t.Helper()
		_, err := s.PutDocument(t.Context(), outbox.Document{Kind: "endpoint", Name: name, Body: []byte(name)})
		testkit.Must(t, err)
	}
	put("a")
	_, seen, err := s.Documents(t.Context(), "endpoint", 0)
	testkit.Must(t, err)
	put("b")
	ctx, cancel := context.WithCancel(t.Context())
	s.asked = cancel
	all, seen, err := s.Documents(ctx, "endpoint", seen)
	s.asked = nil
	if err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	put("c")
	local := s.local
	s.local = closedLocal(t)
	_, seen, err = s.Documents(t.Context(), "endpoint", seen)
	s.local = local
	testkit.Must(t, err)
	put("d")
	if all, _, err = s.Documents(t.Context(), "endpoint", seen); err != nil || len(all) != 1 {
		t.Errorf("since then: %v, %v", all, err)
	}
	testkit.Must(t, s.Close())
	p.server.Kill()
	s = p.open()
	all, _, err = s.Documents(t.Context(), "endpoint", 0)
	if err != nil || len(all) != 4 {
		t.Errorf("copies: %v, %v", all, err)
	}
}

// closedLocal is an embedded outbox that answers nothing.
func closedLocal(t *testing.T) *sqlite.Store {
	closed, err := sqlite.Open(t.Context(), sqlite.Options{Dir: t.TempDir(), Log: zerolog.Nop()})
	testkit.Must(t, err)
	testkit.Must(t, closed.Close())
	return closed
}

// An event is found, also when it moves between the looks at the two places, and none is said to be unknown while one place
// does not answer.
func TestLookupAmidMove(t *testing.T) {
	p := newPlace(t)
	s := p.open()
	local := s.local
	s.local = closedLocal(t)
	if r, err := s.Lookup(t.Context(), "none"); !errors.Is(err, outbox.ErrClosed) {
		t.Errorf("the spool does not answer: %v, %v", r, err)
	}
	s.local = local
	p.server.Kill()
	s.asked = nil
	p.accept(s, batch("id", "1"))
	s.asked = func() {
		p.server.Start()
		p.empty(s)
		testkit.Until(t, "Redis", func() bool { _, err := s.Store.Lookup(t.Context(), "none"); return errors.Is(err, outbox.ErrNotFound) })
	}
	if r, err := s.Lookup(t.Context(), "id"); err != nil || len(r.Deliveries) != 2 || r.Deliveries[0].ID == "" {
		t.Errorf("an event that moves: %+v, %v", r, err)
	}
}

// A spool belongs to one Relay.
func TestLocked(t *testing.T) {
	p := newPlace(t)
	p.open()
	shared, err := redisstream.Open(t.Context(), p.shared)
	testkit.Must(t, err)
	defer shared.Close()
	if _, err := Open(t.Context(), shared, Options{Dir: p.dir, Log: zerolog.Nop()}); !errors.Is(err, outbox.ErrLocked) {
		t.Errorf("the second Relay: %v", err)
	}
}
