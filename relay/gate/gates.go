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
	notesAgain   = time.Second // after an outbox that cannot be read now
	maxConflicts = 100         // a fleet writes a note now and then, not all the time
)

// Options of Gates.
type Options struct {
	Notes   outbox.Notebook // where conditions are kept
	Clock   outbox.Clock    // of the outbox, and so of all times in notes; nil: this process's own
	Relay   string          // names this process to the others, for probes
	Limiter outbox.Limiter  // of a shared outbox; nil: limits are this process's own
	Log     zerolog.Logger
	Raise   func(Transition) // tells of what happened, once in a fleet; must not block; optional
}

// Gates are the gates of all endpoints of this process, and what the outbox remembers of
// endpoints. Its methods may be called at the same time.
type Gates struct {
	o Options

	mu       sync.Mutex
	gates    map[string]*Gate
	notes    map[string]outbox.Note
	revision uint64 // of the newest note, as far as all were read
}

// New returns no gates. What the outbox remembers is not known before Read.
func New(o Options) *Gates {
	return &Gates{o: o, gates: map[string]*Gate{}, notes: map[string]outbox.Note{}}
}

// at is what the outbox's clock shows at the moment t of this process.
func (s *Gates) at(t time.Time) time.Time {
	if s.o.Clock == nil {
		return t
	}
	return s.o.Clock.At(t)
}

// stamp is the moment t as a note has it.
func (s *Gates) stamp(t time.Time) time.Time { return s.at(t).UTC().Round(0) }

// Gate returns the endpoint's gate. A new one has no rules: it lets nothing through
// before Use.
func (s *Gates) Gate(endpoint string) *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[endpoint]
	if g == nil {
		g = &Gate{all: s, name: endpoint, changed: make(chan struct{}, 1)}
		s.gates[endpoint] = g
		s.apply(g, s.notes[endpoint], false)
	}
	return g
}

// Forget ends the use of an endpoint's gate. What the outbox remembers stays.
func (s *Gates) Forget(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gates, endpoint)
}

// Noted names the endpoints about which something was ever remembered.
func (s *Gates) Noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.notes))
	for name := range s.notes {
		names = append(names, name)
	}
	return names
}

// Condition is what the outbox remembers of an endpoint, as far as this process has heard,
// and false when it has never remembered anything. A note that cannot be read is the zero value.
func (s *Gates) Condition(endpoint string) (Condition, bool) {
	s.mu.Lock()
	n, noted := s.notes[endpoint]
	s.mu.Unlock()
	c, _ := ParseCondition(n.Text)
	return c, noted
}

// Read reads what the outbox remembers, and waits for that as long as it takes. Errors:
// outbox.ErrClosed, the context's.
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

// Follow applies what other processes write, until ctx ends or the outbox is closed. It
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

// learnAll takes over all notes. Where the newest is older than one that is known, the
// outbox was emptied, and all that was known is forgotten.
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

// learn takes over a note that is newer than the one that is known. The caller holds mu.
func (s *Gates) learn(n outbox.Note, anew bool) {
	if n.Revision <= s.notes[n.Endpoint].Revision && !anew {
		return
	}
	s.notes[n.Endpoint] = n
	if g := s.gates[n.Endpoint]; g != nil {
		s.apply(g, n, anew)
	}
}

// apply lets the endpoint's gate know. A note that cannot be read is as good as none,
// because a newer Relay of the fleet wrote it and acts on it. The caller holds mu.
func (s *Gates) apply(g *Gate, n outbox.Note, anew bool) {
	c, err := ParseCondition(n.Text)
	if err != nil {
		s.o.Log.Warn().Str("endpoint", g.name).Err(err).Msg("what the outbox remembers of an endpoint is not understood")
	}
	g.apply(c, n.Revision, anew)
}

// refresh takes over what the outbox remembers of an endpoint at this moment.
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
