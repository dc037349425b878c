package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"relay/outbox"
)

// keepRemoved is how long Documents answers with a document that was removed.
const keepRemoved = 2 * time.Hour

// Documents implements outbox.Documents.
func (s *Store) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	var all []outbox.Document // still run's own after a context's error
	var revision uint64
	places := map[string]int{} // in all, by name: one that is written meanwhile comes again
	upto := after
	err := s.read(ctx, func() (done bool, err error) {
		last, err := s.db.kindRevision.string(kind).number()
		if err != nil {
			return false, fmt.Errorf("select kind of documents: %w", err)
		}
		revision, done = uint64(last), true
		q := s.db.documents.string(kind).int(int64(upto))
		for q.step() {
			d := outbox.Document{Kind: kind, Name: q.stmt.ColumnText(0), Revision: uint64(q.stmt.ColumnInt64(1)), Body: q.stmt.ColumnBlob(2, nil)}
			upto = d.Revision
			if i, known := places[d.Name]; known {
				all[i] = d
			} else {
				places[d.Name] = len(all)
				all = append(all, d)
			}
			if done = !s.spent(); !done {
				break
			}
		}
		if err := q.done(); err != nil {
			return false, fmt.Errorf("select documents: %w", err)
		}
		return done, nil
	})
	if err != nil {
		return nil, 0, err
	}
	if after == 0 {
		all = withBody(all)
	}
	return all, revision, nil
}

func withBody(all []outbox.Document) (kept []outbox.Document) {
	for _, d := range all {
		if len(d.Body) > 0 {
			kept = append(kept, d)
		}
	}
	return kept
}

// Document implements outbox.Documents.
func (s *Store) Document(ctx context.Context, kind, name string) (d outbox.Document, err error) {
	var stored outbox.Document
	err = s.read(ctx, func() (done bool, err error) {
		stored, err = s.findDocument(kind, name)
		return true, err
	})
	if err != nil {
		return d, err
	}
	if len(stored.Body) == 0 {
		return d, fmt.Errorf("document %s %s: %w", kind, name, outbox.ErrNotFound)
	}
	return stored, nil
}

// findDocument reads a document; one that is not there, or was removed, has no revision.
func (s *Store) findDocument(kind, name string) (outbox.Document, error) {
	d := outbox.Document{Kind: kind, Name: name}
	q := s.db.findDocument.string(kind).string(name)
	if q.step() {
		if d.Body = q.stmt.ColumnBlob(1, nil); len(d.Body) > 0 {
			d.Revision = uint64(q.stmt.ColumnInt64(0))
		}
	}
	if err := q.done(); err != nil {
		return d, fmt.Errorf("select document: %w", err)
	}
	return d, nil
}

// PutDocument implements outbox.Documents.
func (s *Store) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if err := d.Check(); err != nil {
		return outbox.Document{}, err
	}
	d.Body = bytes.Clone(d.Body) // it is the caller's again when ctx ends
	var stored outbox.Document
	err := s.change(ctx, writing{
		run: func() (refusal, err error) {
			stored, refusal, err = s.writeDocument(d)
			return refusal, err
		},
		then: func() { s.tell(d.Kind, stored.Revision) },
	})
	if err != nil && !errors.Is(err, outbox.ErrConflict) {
		return outbox.Document{}, err
	}
	return stored, err
}

// writeDocument writes a document in the transaction under way, unless another one is there.
func (s *Store) writeDocument(d outbox.Document) (stored outbox.Document, refusal, err error) {
	if stored, err = s.findDocument(d.Kind, d.Name); err != nil {
		return stored, nil, err
	}
	if stored.Revision != d.Revision {
		return stored, outbox.ErrConflict, nil
	}
	if d.Revision == 0 && len(d.Body) == 0 {
		return stored, nil, nil
	}
	last, err := s.db.kindRevision.string(d.Kind).number()
	if err != nil {
		return stored, nil, fmt.Errorf("select kind of documents: %w", err)
	}
	d.Revision = uint64(last) + 1
	if err := s.db.setKind.string(d.Kind).int(last + 1).exec(); err != nil {
		return stored, nil, fmt.Errorf("write kind of documents: %w", err)
	}
	if err := s.db.setDocument.string(d.Kind).string(d.Name).int(last + 1).int(s.now).blob(d.Body).exec(); err != nil {
		return stored, nil, fmt.Errorf("write document: %w", err)
	}
	return d, nil, nil
}

// AwaitDocuments implements outbox.Documents. The one owner hears of each write at once.
func (s *Store) AwaitDocuments(ctx context.Context, kind string, after uint64) error {
	for {
		s.mu.Lock()
		refusal, heard := s.refusal, s.told[kind]
		if heard == nil {
			heard = &news{written: make(chan struct{})}
			s.told[kind] = heard
		}
		revision, known, written := heard.revision, heard.known, heard.written
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case refusal != nil:
			return refusal
		case revision > after:
			return nil
		case !known: // none was written since the outbox was opened
			if err := s.hear(ctx, kind); err != nil {
				return err
			}
			continue
		}
		select {
		case <-written:
		case <-ctx.Done():
		case <-s.stop:
		case <-s.broken:
		}
	}
}

// hear reads how far the documents of a kind are.
func (s *Store) hear(ctx context.Context, kind string) error {
	return s.read(ctx, func() (done bool, err error) {
		last, err := s.db.kindRevision.string(kind).number()
		if err != nil {
			return false, fmt.Errorf("select kind of documents: %w", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tell(kind, uint64(last))
		return true, nil
	})
}

// news are of the documents of a kind.
type news struct {
	revision uint64
	known    bool
	written  chan struct{} // closed, and replaced, when one is written
}

// tell tells those who wait for documents of a kind, below mu.
func (s *Store) tell(kind string, revision uint64) {
	n := s.told[kind]
	if n == nil {
		n = &news{written: make(chan struct{})}
		s.told[kind] = n
	}
	n.known = true
	if revision > n.revision {
		n.revision = revision
		close(n.written)
		n.written = make(chan struct{})
	}
}

// Append implements outbox.Journal.
func (s *Store) Append(ctx context.Context, body []byte) (outbox.Line, error) {
	if len(body) > outbox.MaxLine {
		return outbox.Line{}, fmt.Errorf("line of the journal has %d bytes: at most %d are possible", len(body), outbox.MaxLine)
	}
	body = bytes.Clone(body)
	var line outbox.Line
	err := s.change(ctx, writing{run: func() (refusal, err error) {
		s.meta.line++
		line = outbox.Line{N: s.meta.line, At: s.clock.Wall(s.now), Body: body}
		if err := s.db.addLine.int(int64(line.N)).int(s.now).blob(body).exec(); err != nil {
			return nil, fmt.Errorf("insert line: %w", err)
		}
		if line.N > outbox.MaxLines && line.N%dropLines == 0 {
			if err := s.db.dropLines.int(int64(line.N) - outbox.MaxLines).exec(); err != nil {
				return nil, fmt.Errorf("delete lines: %w", err)
			}
		}
		return nil, nil
	}})
	if err != nil {
		return outbox.Line{}, err
	}
	return line, nil
}

// dropLines is how many lines of the journal are removed at a time.
const dropLines = 256

// Lines implements outbox.Journal.
func (s *Store) Lines(ctx context.Context, before uint64, limit int) ([]outbox.Line, error) {
	if limit < 1 || limit > outbox.MaxPage {
		return nil, fmt.Errorf("limit of a page is %d: it can be from 1 to %d", limit, outbox.MaxPage)
	}
	end := int64(math.MaxInt64)
	if before > 0 && before < math.MaxInt64 {
		end = int64(before)
	}
	var page []outbox.Line
	err := s.read(ctx, func() (done bool, err error) {
		q := s.db.lines.int(end).int(int64(limit))
		for q.step() {
			page = append(page, outbox.Line{N: uint64(q.stmt.ColumnInt64(0)), At: s.clock.Wall(q.stmt.ColumnInt64(1)), Body: q.stmt.ColumnBlob(2, nil)})
		}
		if err := q.done(); err != nil {
			return false, fmt.Errorf("select lines: %w", err)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}
