package outboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"relay/outbox"
)

// put writes a document, which must succeed.
func (s *suite) put(store outbox.Engine, d outbox.Document) outbox.Document {
	s.Helper()
	stored, err := s.operable(store).PutDocument(s.ctx(), d)
	if err != nil {
		s.Fatalf("PutDocument %s %s on top of %d: %v", d.Kind, d.Name, d.Revision, err)
	}
	if stored.Revision <= d.Revision {
		s.Errorf("PutDocument on top of %d: revision %d is not above", d.Revision, stored.Revision)
	}
	d.Revision = stored.Revision
	s.want("document written", d, stored)
	return stored
}

// stale writes a document on top of a revision that is not the last one.
func (s *suite) stale(on uint64, now outbox.Document) {
	s.Helper()
	for _, body := range []string{"stale", ""} {
		if body == "" && on == 0 && now.Revision == 0 {
			continue // nothing is there, and nothing is to be there
		}
		got, err := s.operator().PutDocument(s.ctx(), outbox.Document{Kind: now.Kind, Name: now.Name, Revision: on, Body: []byte(body)})
		if !errors.Is(err, outbox.ErrConflict) {
			s.Fatalf("PutDocument %s on top of %d: %v, want ErrConflict", now.Name, on, err)
		}
		s.want("document that came first", now, got)
	}
}

// wantDocuments compares those of a kind that were written after a revision.
func (s *suite) wantDocuments(kind string, after, revision uint64, want ...outbox.Document) {
	s.Helper()
	got, last, err := s.operator().Documents(s.ctx(), kind, after)
	if err != nil {
		s.Fatalf("Documents: %v", err)
	}
	byName := func(a, b outbox.Document) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(got, byName)
	slices.SortFunc(want, byName)
	s.want(fmt.Sprintf("documents of kind %s after %d", kind, after), want, got)
	s.want("revision of kind "+kind, revision, last)
}

func (s *suite) wantDocument(want outbox.Document) {
	s.Helper()
	got, err := s.operator().Document(s.ctx(), want.Kind, want.Name)
	if err != nil {
		s.Fatalf("Document %s: %v", want.Name, err)
	}
	s.want("document", want, got)
}

func (s *suite) noDocument(kind, name string) {
	s.Helper()
	if d, err := s.operator().Document(s.ctx(), kind, name); !errors.Is(err, outbox.ErrNotFound) {
		s.Errorf("Document %s: %+v, %v, want ErrNotFound", name, d, err)
	}
}

func testDocuments(s *suite) {
	doc := func(kind, name, body string) outbox.Document {
		return outbox.Document{Kind: kind, Name: name, Body: []byte(body)}
	}
	other := s.another()
	s.wantDocuments("job", 0, 0)
	s.noDocument("job", "a")
	a := s.put(s.store, doc("job", "a", "1\x00\xff"))
	b := s.put(other, doc("job", "b", "{}"))
	if b.Revision <= a.Revision {
		s.Errorf("revision %d came after %d", b.Revision, a.Revision)
	}
	alien := s.put(s.store, doc("endpoint_", "a", "of another kind"))
	s.stale(0, a)
	s.stale(b.Revision, a)
	s.stale(7, doc("job", "absent", ""))
	s.wantDocuments("job", 0, b.Revision, a, b)
	s.wantDocuments("job", a.Revision, b.Revision, b)
	s.wantDocuments("job", b.Revision, b.Revision)
	s.wantDocuments("endpoint_", 0, alien.Revision, alien)
	s.wantDocuments("unknown", 0, 0)

	a.Body = []byte("2")
	first := a.Revision
	a = s.put(s.store, a)
	s.stale(first, a)
	s.reopen()
	s.wantDocument(a)
	s.wantDocument(alien)
	s.wantDocuments("job", b.Revision, a.Revision, a)

	// Removed, it is gone for who asks for all, and known as gone by who asks what is new.
	gone := b
	gone.Body = nil
	gone = s.put(s.store, gone)
	s.noDocument("job", "b")
	s.wantDocuments("job", 0, gone.Revision, a)
	s.wantDocuments("job", a.Revision, gone.Revision, gone)
	s.stale(b.Revision, doc("job", "b", ""))
	s.stale(gone.Revision, doc("job", "b", ""))
	nothing, err := s.operator().PutDocument(s.ctx(), doc("job", "b", ""))
	if err != nil {
		s.Errorf("PutDocument that removes what is not there: %v", err)
	}
	s.want("what is not there", doc("job", "b", ""), nothing)
	s.reopen()
	s.wantDocuments("job", a.Revision, gone.Revision, gone)
	s.noDocument("job", "b")
	b = s.put(s.store, doc("job", "b", "again"))
	if b.Revision <= gone.Revision {
		s.Errorf("revision %d came after %d", b.Revision, gone.Revision)
	}
	s.wantDocuments("job", a.Revision, b.Revision, b)
	s.wantDocuments("job", 0, b.Revision, a, b)
	s.want("counts", map[string]outbox.Counts{}, s.counts())
}

func testDocumentBounds(s *suite) {
	most := s.put(s.store, outbox.Document{Kind: strings.Repeat("k", 32), Name: strings.Repeat("é", 128), Body: bytes.Repeat([]byte("\x00x"), outbox.MaxDocument/2)})
	s.wantDocument(most)
	s.reopen()
	s.wantDocument(most)
	for _, d := range []outbox.Document{
		{Name: "a"}, {Kind: "Job", Name: "a"}, {Kind: "j b", Name: "a"}, {Kind: strings.Repeat("k", 33), Name: "a"},
		{Kind: "job"}, {Kind: "job", Name: strings.Repeat("x", 257)}, {Kind: "job", Name: "a", Body: make([]byte, outbox.MaxDocument+1)},
	} {
		if d.Body == nil {
			d.Body = []byte("{}")
		}
		if _, err := s.operator().PutDocument(s.ctx(), d); err == nil || errors.Is(err, outbox.ErrConflict) {
			s.Errorf("PutDocument %q %.10q of %d bytes: %v, want it refused", d.Kind, d.Name, len(d.Body), err)
		}
	}
	s.wantDocuments("job", 0, 0)
	names := []string{"a/b", "a:b", "{a}", "*", "..", "\x00", "A", "a"}
	var all []outbox.Document
	for _, name := range names {
		all = append(all, s.put(s.store, outbox.Document{Kind: "job", Name: name, Body: []byte(name)}))
	}
	s.wantDocuments("job", 0, all[len(all)-1].Revision, all...)
}

// testRacingDocuments: of those who write on top of the same revision one wins, and the
// others learn what he wrote.
func testRacingDocuments(s *suite) {
	stores := []outbox.Operable{s.operator(), s.operable(s.another())}
	last := outbox.Document{Kind: "job", Name: "a"}
	for round := range 10 {
		var mu sync.Mutex
		var won, seen []outbox.Document
		var writers sync.WaitGroup
		for i := range 8 {
			writers.Go(func() {
				d := outbox.Document{Kind: "job", Name: "a", Revision: last.Revision, Body: fmt.Appendf(nil, "%d by %d", round, i)}
				got, err := stores[i%2].PutDocument(s.ctx(), d)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, got)
				case !errors.Is(err, outbox.ErrConflict):
					s.Errorf("PutDocument: %v", err)
				}
				seen = append(seen, got)
			})
		}
		writers.Wait()
		if len(won) != 1 {
			s.Fatalf("%d writers won, want one", len(won))
		}
		for _, d := range seen {
			s.want("document as it is now", won[0], d)
		}
		last = won[0]
	}
	s.wantDocuments("job", 0, last.Revision, last)
}

func testAwaitDocuments(s *suite) {
	other := s.another()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	await := func(ctx context.Context, after uint64) chan error {
		answer := make(chan error, 1)
		go func() { answer <- s.operator().AwaitDocuments(ctx, "job", after) }()
		return answer
	}
	expect := func(what string, answer chan error, want error) {
		s.Helper()
		wait, cancel := s.within(s.patience)
		defer cancel()
		select {
		case err := <-answer:
			if !errors.Is(err, want) {
				s.Errorf("AwaitDocuments %s: %v, want %v", what, err, want)
			}
		case <-wait.Done():
			s.Fatalf("AwaitDocuments %s: no answer", what)
		}
	}
	waits := func(what string, answer chan error) {
		s.Helper()
		s.idle()
		select {
		case err := <-answer:
			s.Fatalf("AwaitDocuments %s: %v", what, err)
		default:
		}
	}

	first := await(ctx, 0)
	waits("without a document", first)
	s.put(s.store, outbox.Document{Kind: "endpoint", Name: "a", Body: []byte("1")})
	waits("with one of another kind", first)
	a := s.put(other, outbox.Document{Kind: "job", Name: "a", Body: []byte("1")})
	expect("of another's first document", first, nil)
	expect("of what was written before", await(ctx, 0), nil)

	second := await(ctx, a.Revision)
	s.idle()
	a.Body = nil
	gone := s.put(s.store, a)
	expect("of a removal", second, nil)
	third := await(ctx, gone.Revision)
	s.stale(7, outbox.Document{Kind: "job", Name: "a"})
	waits("with nothing written", third)
	cancel()
	expect("that is cancelled", third, context.Canceled)

	fourth := await(s.ctx(), gone.Revision)
	s.idle()
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	expect("while the store is closed", fourth, outbox.ErrClosed)
}

func testDocumentsWhileFull(s *suite) {
	s.openSized()
	s.fill("evt_", 64<<10)
	s.fill("evt_small", 0)
	d := s.put(s.store, outbox.Document{Kind: "job", Name: "a", Body: bytes.Repeat([]byte("x"), 4<<10)})
	s.wantDocument(d)
}

// lines asks for the journal, page by page.
func (s *suite) lines(limit int) []outbox.Line {
	s.Helper()
	var all []outbox.Line
	before := uint64(0)
	for range 1000 {
		page, err := s.operator().Lines(s.ctx(), before, limit)
		if err != nil || len(page) > limit {
			s.Fatalf("Lines before %d: %d of %d, %v", before, len(page), limit, err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		if before = page[len(page)-1].N; before <= 1 {
			return all
		}
	}
	s.Fatalf("Lines: no end after a thousand pages")
	return nil
}

func testJournal(s *suite) {
	s.want("no lines", 0, len(s.lines(10)))
	var want []outbox.Line // newest first
	write := func(body string) {
		s.Helper()
		before := time.Now().Truncate(time.Microsecond)
		l, err := s.operator().Append(s.ctx(), []byte(body))
		if err != nil {
			s.Fatalf("Append: %v", err)
		}
		if l.At.Before(before.Add(-outbox.OrderSlack)) || l.At.After(time.Now().Add(outbox.OrderSlack)) {
			s.Errorf("line of %v, written at %v", l.At, before)
		}
		s.want("line", outbox.Line{N: uint64(len(want)) + 1, At: l.At, Body: []byte(body)}, l)
		want = append([]outbox.Line{l}, want...)
	}
	for i := range 25 {
		write(fmt.Sprintf(`{"what":%d}`, i))
		s.elapse(time.Millisecond)
	}
	s.want("lines", want, s.lines(100))
	s.reopen()
	s.want("lines over reopen, page by page", want, s.lines(7))
	write(strings.Repeat("\x00é", outbox.MaxLine/3) + "x")
	s.want("lines, one by one", want, s.lines(1))
	page, err := s.operator().Lines(s.ctx(), 1000, 100)
	if err != nil {
		s.Fatalf("Lines: %v", err)
	}
	s.want("lines before a number that is none yet", want, page)
	if _, err := s.operator().Append(s.ctx(), make([]byte, outbox.MaxLine+1)); err == nil {
		s.Error("Append of a line that is too long: no error")
	}
	for _, limit := range []int{-1, 0, outbox.MaxPage + 1} {
		if _, err := s.operator().Lines(s.ctx(), 0, limit); err == nil {
			s.Errorf("Lines with limit %d: no error", limit)
		}
	}
	s.reap(outbox.Retention{})
	s.want("lines after all", want, s.lines(100))
}

func testRacingLines(s *suite) {
	stores := []outbox.Operable{s.operator(), s.operable(s.another())}
	var writers sync.WaitGroup
	var mu sync.Mutex
	written := map[uint64]string{}
	for w := range 4 {
		writers.Go(func() {
			for n := range 10 {
				body := fmt.Sprintf("%d by %d", n, w)
				l, err := stores[w%2].Append(s.ctx(), []byte(body))
				if err != nil {
					s.Errorf("Append: %v", err)
					return
				}
				mu.Lock()
				written[l.N] = body
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	all := s.lines(100)
	s.want("lines", 40, len(all))
	for i, l := range all {
		s.want("number", uint64(40-i), l.N)
		s.want("line", written[l.N], string(l.Body))
	}
}

func testLinesWhileFull(s *suite) {
	s.openSized()
	s.fill("evt_", 64<<10)
	s.fill("evt_small", 0)
	if _, err := s.operator().Append(s.ctx(), bytes.Repeat([]byte("x"), outbox.MaxLine)); err != nil {
		s.Errorf("Append to a full outbox: %v", err)
	}
	s.want("lines", 1, len(s.lines(10)))
}

func testOperableClosed(s *suite) {
	o := s.operator()
	if err := o.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	calls := operatorCalls(o)
	calls["Count"] = func(ctx context.Context) error { _, _, err := o.Count(ctx, outbox.Filter{}); return err }
	for name, call := range calls {
		if err := call(s.ctx()); !errors.Is(err, outbox.ErrClosed) {
			s.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
}

func testOperableCancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	for name, call := range operatorCalls(s.operator()) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			s.Errorf("%s with an ended context: %v, want context.Canceled", name, err)
		}
	}
}
