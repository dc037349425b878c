package outboxtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"relay/outbox"
)

// setNote writes a note, which must succeed.
func (s *suite) setNote(store outbox.Engine, endpoint string, on uint64, text string) outbox.Note {
	s.Helper()
	n, err := store.SetNote(s.ctx(), outbox.Note{Endpoint: endpoint, Revision: on, Text: []byte(text)})
	if err != nil {
		s.Fatalf("SetNote of %s on top of %d: %v", endpoint, on, err)
	}
	if n.Revision <= on {
		s.Errorf("SetNote of %s on top of %d: revision %d is not above", endpoint, on, n.Revision)
	}
	s.want("note written", outbox.Note{Endpoint: endpoint, Revision: n.Revision, Text: []byte(text)}, n)
	return n
}

// staleNote writes a note on top of a revision that is not the last one.
func (s *suite) staleNote(on uint64, now outbox.Note) {
	s.Helper()
	n, err := s.store.SetNote(s.ctx(), outbox.Note{Endpoint: now.Endpoint, Revision: on, Text: []byte("stale")})
	if !errors.Is(err, outbox.ErrConflict) {
		s.Fatalf("SetNote of %s on top of %d: %v, want ErrConflict", now.Endpoint, on, err)
	}
	s.want("note that came first", now, n)
}

// wantNotes compares all notes; revision is the last one's.
func (s *suite) wantNotes(store outbox.Engine, revision uint64, want ...outbox.Note) {
	s.Helper()
	got, last, err := store.Notes(s.ctx())
	if err != nil {
		s.Fatalf("Notes: %v", err)
	}
	slices.SortFunc(got, func(a, b outbox.Note) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	s.want("notes", want, got)
	s.want("revision of the notes", revision, last)
}

func testNotes(s *suite) {
	other := s.another()
	s.wantNotes(s.store, 0)
	a := s.setNote(s.store, "a", 0, "paused")
	b := s.setNote(other, "b", 0, "gone\x00\xff")
	if b.Revision <= a.Revision {
		s.Errorf("revision %d came after %d", b.Revision, a.Revision)
	}
	s.staleNote(0, a)
	s.staleNote(b.Revision, a)
	s.staleNote(7, outbox.Note{Endpoint: "c"})
	s.wantNotes(other, b.Revision, a, b)

	next := s.setNote(s.store, "a", a.Revision, "") // nothing to remember, but a note all the same
	s.staleNote(a.Revision, next)
	s.wantNotes(s.store, next.Revision, next, b)
	s.want("counts", map[string]outbox.Counts{}, s.counts())

	s.reopen()
	s.wantNotes(s.store, next.Revision, next, b)
	s.staleNote(a.Revision, next)
	last := s.setNote(s.store, "c", 0, strings.Repeat("x", outbox.MaxNote))
	if last.Revision <= next.Revision {
		s.Errorf("revision %d came after %d over reopen", last.Revision, next.Revision)
	}
	_, err := s.store.SetNote(s.ctx(), outbox.Note{Endpoint: "a", Revision: next.Revision, Text: make([]byte, outbox.MaxNote+1)})
	if err == nil || errors.Is(err, outbox.ErrConflict) {
		s.Errorf("SetNote of %d bytes: %v, want it refused", outbox.MaxNote+1, err)
	}
	s.reopen()
	s.wantNotes(s.store, last.Revision, next, b, last)
}

// testRacingNotes: of those who write on top of the same revision one wins, and the
// others learn what he wrote.
func testRacingNotes(s *suite) {
	stores := []outbox.Engine{s.store, s.another()}
	var last outbox.Note
	for range 10 {
		var mu sync.Mutex
		var won, seen []outbox.Note
		var writers sync.WaitGroup
		for i := range 8 {
			writers.Go(func() {
				text := bytes.Repeat([]byte{byte('0' + i)}, 1+i)
				n, err := stores[i%2].SetNote(s.ctx(), outbox.Note{Endpoint: "a", Revision: last.Revision, Text: text})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, n)
				case !errors.Is(err, outbox.ErrConflict):
					s.Errorf("SetNote: %v", err)
				}
				seen = append(seen, n)
			})
		}
		writers.Wait()
		if len(won) != 1 {
			s.Fatalf("%d writers won, want one", len(won))
		}
		for _, n := range seen {
			s.want("note as it is now", won[0], n)
		}
		last = won[0]
	}
	s.wantNotes(s.store, last.Revision, last)
}

func testAwaitNotes(s *suite) {
	other := s.another()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	await := func(ctx context.Context, after uint64) chan error {
		answer := make(chan error, 1)
		go func() { answer <- s.store.AwaitNotes(ctx, after) }()
		return answer
	}
	expect := func(what string, answer chan error, want error) {
		s.Helper()
		wait, cancel := s.within(s.patience)
		defer cancel()
		select {
		case err := <-answer:
			if !errors.Is(err, want) {
				s.Errorf("AwaitNotes %s: %v, want %v", what, err, want)
			}
		case <-wait.Done():
			s.Fatalf("AwaitNotes %s: no answer", what)
		}
	}

	first := await(ctx, 0)
	s.idle()
	select {
	case err := <-first:
		s.Fatalf("AwaitNotes without a note: %v", err)
	default:
	}
	a := s.setNote(other, "a", 0, "1")
	expect("of another's first note", first, nil)
	expect("of what was written before", await(ctx, 0), nil)

	second := await(ctx, a.Revision)
	s.idle()
	b := s.setNote(s.store, "b", 0, "")
	expect("of an own note", second, nil)
	third := await(ctx, b.Revision)
	s.idle()
	s.staleNote(b.Revision, a) // nothing is written
	s.idle()
	cancel()
	expect("that is cancelled", third, context.Canceled)

	fourth := await(s.ctx(), b.Revision)
	s.idle()
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	expect("while the store is closed", fourth, outbox.ErrClosed)
}

// testNotesWhileFull: what an operator does about a full outbox can be noted in it.
func testNotesWhileFull(s *suite) {
	s.openSized()
	s.fill("evt_", 64<<10)
	s.fill("evt_small", 0)
	a := s.setNote(s.store, "a", 0, strings.Repeat("x", outbox.MaxNote))
	last := s.setNote(s.store, "b", 0, "paused")
	s.wantNotes(s.store, last.Revision, a, last)
}
