package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"relay/outbox"
)

// note is a note on its way into the database.
type note struct {
	ctx    context.Context
	wanted outbox.Note // on top of its revision

	// What came of it; valid once done is closed.
	now  outbox.Note
	err  error
	done chan struct{}
}

// answer gives the note its answer, unless it has one.
func (n *note) answer(err error) {
	select {
	case <-n.done:
	default:
		n.err = err
		if err != nil && !errors.Is(err, outbox.ErrConflict) {
			n.now = outbox.Note{}
		}
		close(n.done)
	}
}

// Notes implements outbox.Notebook.
func (s *Store) Notes(ctx context.Context) (notes []outbox.Note, revision uint64, err error) {
	var read []outbox.Note // still run's own after a context's error
	var upto uint64
	var failed error
	err = s.do(ctx, func() error {
		upto = s.meta.revision
		q := s.db.notes
		for q.step() {
			read = append(read, outbox.Note{Endpoint: q.stmt.ColumnText(0), Revision: uint64(q.stmt.ColumnInt64(1)), Text: q.stmt.ColumnBlob(2, nil)})
		}
		if err := q.done(); err != nil {
			failed = s.db.explain(fmt.Errorf("select notes: %w", err))
		}
		return nil
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, 0, err
	}
	return read, upto, nil
}

// AwaitNotes implements outbox.Notebook. The one owner hears of each write at once.
func (s *Store) AwaitNotes(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		refusal, heard, noted := s.refusal, s.heard, s.noted
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case refusal != nil:
			return refusal
		case heard > after:
			return nil
		}
		select {
		case <-noted:
		case <-ctx.Done():
		case <-s.stop:
		case <-s.broken:
		}
	}
}

// SetNote implements outbox.Notebook.
func (s *Store) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	if err := ctx.Err(); err != nil {
		return outbox.Note{}, err
	}
	if len(n.Text) > outbox.MaxNote {
		return outbox.Note{}, fmt.Errorf("note of endpoint %s has %d bytes, at most %d are possible", n.Endpoint, len(n.Text), outbox.MaxNote)
	}
	n.Text = bytes.Clone(n.Text) // it is the caller's again when ctx ends
	w := &note{ctx: ctx, wanted: n, done: make(chan struct{})}
	s.mu.Lock()
	if s.refusal != nil {
		defer s.mu.Unlock()
		return outbox.Note{}, s.refusal
	}
	s.writes = append(s.writes, w)
	s.mu.Unlock()
	s.nudge()

	select {
	case <-w.done:
		return w.now, w.err
	case <-ctx.Done():
		return outbox.Note{}, ctx.Err()
	}
}

// writeNote writes a note in the transaction under way. What refuses the note alone goes to
// n.err.
func (s *Store) writeNote(n *note) error {
	n.now, n.err = outbox.Note{Endpoint: n.wanted.Endpoint}, n.ctx.Err()
	if n.err != nil {
		return nil
	}
	q := s.db.findNote.text(n.wanted.Endpoint)
	if q.step() {
		n.now.Revision, n.now.Text = uint64(q.stmt.ColumnInt64(0)), q.stmt.ColumnBlob(1, nil)
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select note: %w", err)
	}
	if n.now.Revision != n.wanted.Revision {
		n.err = outbox.ErrConflict
		return nil
	}
	s.meta.revision++
	n.now = outbox.Note{Endpoint: n.wanted.Endpoint, Revision: s.meta.revision, Text: n.wanted.Text}
	if err := s.db.setNote.text(n.now.Endpoint).int(int64(n.now.Revision)).blob(n.now.Text).exec(); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	return nil
}
