package outboxtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"relay/outbox"
)

// documents of one kind.
type documents struct {
	byName   map[string]outbox.Document // removed ones, too
	revision uint64                     // of the last write
	written  chan struct{}              // closed, and replaced, with each write
}

func (k *contents) kind(name string) *documents {
	kind := k.documents[name]
	if kind == nil {
		kind = &documents{byName: map[string]outbox.Document{}, written: make(chan struct{})}
		k.documents[name] = kind
	}
	return kind
}

// Documents implements outbox.Documents. Removed ones are never forgotten.
func (m *Mem) Documents(ctx context.Context, kind string, after uint64) (all []outbox.Document, revision uint64, err error) {
	done, err := m.lock(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	of := m.kept.kind(kind)
	for _, d := range of.byName {
		if d.Revision > after && (len(d.Body) > 0 || after > 0) {
			all = append(all, d)
		}
	}
	return all, of.revision, nil
}

// Document implements outbox.Documents.
func (m *Mem) Document(ctx context.Context, kind, name string) (outbox.Document, error) {
	done, err := m.lock(ctx)
	if err != nil {
		return outbox.Document{}, err
	}
	defer done()
	d := m.kept.kind(kind).byName[name]
	if len(d.Body) == 0 {
		return outbox.Document{}, outbox.ErrNotFound
	}
	return d, nil
}

// AwaitDocuments implements outbox.Documents.
func (m *Mem) AwaitDocuments(ctx context.Context, kind string, after uint64) error {
	for {
		done, err := m.lock(ctx)
		if err != nil {
			return err
		}
		of := m.kept.kind(kind)
		revision, wake := of.revision, of.written
		done()
		if revision > after {
			return nil
		}
		select {
		case <-wake:
		case <-m.closed:
		case <-ctx.Done():
		}
	}
}

// PutDocument implements outbox.Documents.
func (m *Mem) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if err := d.Check(); err != nil {
		return outbox.Document{}, err
	}
	done, err := m.lock(ctx)
	if err != nil {
		return outbox.Document{}, err
	}
	defer done()
	of := m.kept.kind(d.Kind)
	stored := of.byName[d.Name]
	if len(stored.Body) == 0 {
		stored = outbox.Document{Kind: d.Kind, Name: d.Name}
	}
	if stored.Revision != d.Revision {
		return stored, outbox.ErrConflict
	}
	if d.Revision == 0 && len(d.Body) == 0 {
		return stored, nil
	}
	of.revision++
	d.Revision, d.Body = of.revision, bytes.Clone(d.Body)
	of.byName[d.Name] = d
	close(of.written)
	of.written = make(chan struct{})
	return d, nil
}

// Append implements outbox.Journal. All lines are kept.
func (m *Mem) Append(ctx context.Context, body []byte) (outbox.Line, error) {
	if len(body) > outbox.MaxLine {
		return outbox.Line{}, fmt.Errorf("line of the journal has %d bytes: at most %d are possible", len(body), outbox.MaxLine)
	}
	done, err := m.lock(ctx)
	if err != nil {
		return outbox.Line{}, err
	}
	defer done()
	k := m.kept
	line := outbox.Line{N: uint64(len(k.lines)) + 1, At: k.now(), Body: bytes.Clone(body)}
	k.lines = append(k.lines, line)
	return k.line(line), nil
}

// Lines implements outbox.Journal.
func (m *Mem) Lines(ctx context.Context, before uint64, limit int) ([]outbox.Line, error) {
	if limit < 1 || limit > outbox.MaxPage {
		return nil, fmt.Errorf("limit of a page is %d: it can be from 1 to %d", limit, outbox.MaxPage)
	}
	done, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	k := m.kept
	end := uint64(len(k.lines))
	if before > 0 {
		end = min(end, before-1)
	}
	page := slices.Clone(k.lines[end-min(end, uint64(limit)) : end])
	slices.Reverse(page)
	for i := range page {
		page[i] = k.line(page[i])
	}
	return page, nil
}

// line is a line for people.
func (k *contents) line(l outbox.Line) outbox.Line {
	l.At = k.wall(l.At.Truncate(time.Microsecond))
	return l
}
