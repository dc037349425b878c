package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// Limits of the notes.
const (
	notesAgain   = time.Second // until an outbox that cannot be read is read again
	maxConflicts = 100         // a fleet writes few notes
)

// Options of Gates.
type Options struct {
	Notes   outbox.Notebook // where conditions are kept
	Clock   outbox.Clock    // of the outbox, and so of all times in notes; nil: this process's clock
	Relay   string          // names this process to the others, for probes
	Limiter outbox.Limiter  // of a shared outbox; nil: limits are this process's own
	Log     zerolog.Logger
	Raise   func(Transition) // called for each Transition, once in a fleet; must not block, and must not call a gate; optional
}

// Gates are the gates of all endpoints of this process, with the outbox's notes about endpoints.
// Its methods may be called at the same time.
type Gates struct {
	o Options

	mu       sync.Mutex
	gates    map[string]*Gate
	notes    map[string]outbox.Note
	revision uint64 // of the newest note, once all were read
}

// New returns an empty Gates. The outbox's notes are not known before Read.
func New(o Options) *Gates {
	return &Gates{o: o, gates: map[string]*Gate{}, notes: map[string]outbox.Note{}}
}

// at converts a time of this process to the outbox's clock.
func (s *Gates) at(t time.Time) time.Time {
	if s.o.Clock == nil {
		return t
	}
	return s.o.Clock.At(t)
}

// stamp is t by the outbox's clock, with the precision of a note.
func (s *Gates) stamp(t time.Time) time.Time { return s.at(t).UTC().Round(0) }

// Gate returns the endpoint's gate. A new one has no rules: it allows no attempt before Use.
func (s *Gates) Gate(endpoint string) *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[endpoint]
	if g == nil {
		g = &Gate{all: s, name: endpoint}
		s.gates[endpoint] = g
		s.apply(g, s.notes[endpoint], false)
	}
	return g
}

// Forget drops an endpoint's gate. The outbox keeps its note.
func (s *Gates) Forget(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gates, endpoint)
}

// Noted names the endpoints that ever had a note.
func (s *Gates) Noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.notes))
	for name := range s.notes {
		names = append(names, name)
	}
	return names
}

// Condition returns the endpoint's Condition in the outbox, as far as this process knows it, and
// false if there never was one. A note that cannot be read is the zero value.
func (s *Gates) Condition(endpoint string) (Condition, bool) {
	s.mu.Lock()
	n, noted := s.notes[endpoint]
	s.mu.Unlock()
	c, _ := ParseCondition(n.Text)
	return c, noted
}

// Read reads all notes, and retries until it succeeds. Errors: outbox.ErrClosed, the context's.
func (s *Gates) Read(ctx context.Context) error {
	for {
		notes, revision, err := s.o.Notes.Notes(ctx)
		switch {
		case err == nil:
			s.learnAll(notes, revision)
			return nil
		case ctx.Err() != nil || errors.Is(err, outbox.ErrClosed):
			return err
		}
		select {
		case <-time.After(notesAgain):
		case <-ctx.Done():
		}
	}
}

// Follow applies the notes that other processes write, until ctx ends or the outbox is closed. It
// returns nil then, else the error of an outbox that cannot go on.
func (s *Gates) Follow(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.o.Notes.AwaitNotes(ctx, s.newest()); err != nil {
			if errors.Is(err, outbox.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("wait for notes: %w", err)
		}
		if s.Read(ctx) != nil {
			return nil
		}
	}
	return nil
}

// newest is the revision of the newest note that is known.
func (s *Gates) newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

// learnAll applies all notes. If the newest one is older than a known one, the outbox was
// emptied, and all known notes are dropped.
func (s *Gates) learnAll(notes []outbox.Note, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	anew := revision < s.revision
	if anew {
		for name, g := range s.gates {
			if !slices.ContainsFunc(notes, func(n outbox.Note) bool { return n.Endpoint == name }) {
				s.apply(g, outbox.Note{}, true)
			}
		}
		clear(s.notes)
	}
	for _, n := range notes {
		s.learn(n, anew)
	}
	s.revision = revision
}

// learn applies a note if it is newer than the known one. The caller holds mu.
func (s *Gates) learn(n outbox.Note, anew bool) {
	if n.Revision <= s.notes[n.Endpoint].Revision && !anew {
		return
	}
	s.notes[n.Endpoint] = n
	if g := s.gates[n.Endpoint]; g != nil {
		s.apply(g, n, anew)
	}
}

// apply hands a note to the endpoint's gate. A note that cannot be read counts as none, because a
// newer Relay of the fleet wrote it and applies it. The caller holds mu.
func (s *Gates) apply(g *Gate, n outbox.Note, anew bool) {
	c, err := ParseCondition(n.Text)
	if err != nil {
		s.o.Log.Warn().Str("endpoint", g.name).Err(err).Msg("what the outbox remembers of an endpoint is not understood")
	}
	g.apply(c, n.Revision, anew)
}

// refresh reads the endpoint's note from the outbox now.
func (s *Gates) refresh(ctx context.Context, endpoint string) error {
	notes, _, err := s.o.Notes.Notes(ctx)
	if err != nil {
		return fmt.Errorf("read the note of endpoint %s: %w", endpoint, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range notes {
		if n.Endpoint == endpoint {
			s.learn(n, false)
		}
	}
	return nil
}

// update changes the endpoint's condition in the outbox by compare-and-set. change gets the latest
// condition, which the endpoint's gate has applied, and may be called more than once; false
// means that there is nothing to write. written reports whether a write happened.
func (s *Gates) update(ctx context.Context, endpoint string, change func(*Condition) bool) (written bool, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			s.o.Log.Warn().Str("endpoint", endpoint).Err(err).Msg("the outbox does not know of a change of an endpoint: this Relay acts on it alone")
		}
	}()
	s.mu.Lock()
	n := s.notes[endpoint]
	s.mu.Unlock()
	for range maxConflicts {
		c, err := ParseCondition(n.Text)
		if err != nil {
			return false, err
		}
		if !change(&c) {
			return false, nil
		}
		n, err = s.o.Notes.SetNote(ctx, outbox.Note{Endpoint: endpoint, Revision: n.Revision, Text: c.Text()})
		if err != nil && !errors.Is(err, outbox.ErrConflict) {
			return false, fmt.Errorf("write the note of endpoint %s: %w", endpoint, err)
		}
		s.mu.Lock()
		s.learn(n, false)
		s.mu.Unlock()
		if err == nil {
			return true, nil
		}
	}
	return false, fmt.Errorf("write the note of endpoint %s: others change it all the time", endpoint)
}
