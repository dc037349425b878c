package outboxtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"relay/outbox"
)

// Notes implements outbox.Notebook.
func (m *Mem) Notes(ctx context.Context) ([]outbox.Note, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, 0, outbox.ErrClosed
	}
	return slices.Collect(maps.Values(m.kept.notes)), m.kept.revision, nil
}

// AwaitNotes implements outbox.Notebook.
func (m *Mem) AwaitNotes(ctx context.Context, after uint64) error {
	for {
		m.mu.Lock()
		written, wake, closed := m.kept.revision > after, m.kept.noted, m.isClosed()
		m.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case closed:
			return outbox.ErrClosed
		case written:
			return nil
		}
		select {
		case <-wake:
		case <-m.closed:
		case <-ctx.Done():
		}
	}
}

// SetNote implements outbox.Notebook.
func (m *Mem) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	if err := ctx.Err(); err != nil {
		return outbox.Note{}, err
	}
	if len(n.Text) > outbox.MaxNote {
		return outbox.Note{}, fmt.Errorf("note of endpoint %s has %d bytes, at most %d are possible", n.Endpoint, len(n.Text), outbox.MaxNote)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return outbox.Note{}, outbox.ErrClosed
	}
	k := m.kept
	first := k.notes[n.Endpoint]
	first.Endpoint = n.Endpoint
	if first.Revision != n.Revision {
		return first, outbox.ErrConflict
	}
	k.revision++
	n.Revision, n.Text = k.revision, bytes.Clone(n.Text)
	k.notes[n.Endpoint] = n
	close(k.noted)
	k.noted = make(chan struct{})
	return n, nil
}
