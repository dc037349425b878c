package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"relay/outbox"
)

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
	if len(n.Text) > outbox.MaxNote {
		return outbox.Note{}, fmt.Errorf("note of endpoint %s has %d bytes, at most %d are possible", n.Endpoint, len(n.Text), outbox.MaxNote)
	}
	n.Text = bytes.Clone(n.Text) // it is the caller's again when ctx ends
	var stored outbox.Note
	err := s.change(ctx, writing{run: func() (refusal, err error) {
		stored, refusal, err = s.writeNote(n)
		return refusal, err
	}})
	if err != nil && !errors.Is(err, outbox.ErrConflict) {
		return outbox.Note{}, err
	}
	return stored, err
}

// writeNote writes a note in the transaction under way, unless another one is there.
func (s *Store) writeNote(n outbox.Note) (stored outbox.Note, refusal, err error) {
	stored.Endpoint = n.Endpoint
	q := s.db.findNote.text(n.Endpoint)
	if q.step() {
		stored.Revision, stored.Text = uint64(q.stmt.ColumnInt64(0)), q.stmt.ColumnBlob(1, nil)
	}
	if err := q.done(); err != nil {
		return stored, nil, fmt.Errorf("select note: %w", err)
	}
	if stored.Revision != n.Revision {
		return stored, outbox.ErrConflict, nil
	}
	s.meta.revision++
	n.Revision = s.meta.revision
	if err := s.db.setNote.text(n.Endpoint).int(int64(n.Revision)).blob(n.Text).exec(); err != nil {
		return stored, nil, fmt.Errorf("write note: %w", err)
	}
	return n, nil, nil
}
