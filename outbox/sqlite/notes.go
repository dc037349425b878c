package sqlite

import (
	"context"

	"relay/outbox"
)

// Notes implements outbox.Store.
func (s *Store) Notes(ctx context.Context) ([]outbox.Note, uint64, error) {
	return nil, 0, ctx.Err()
}

// AwaitNotes implements outbox.Store.
func (s *Store) AwaitNotes(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

// SetNote implements outbox.Store.
func (s *Store) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	return n, outbox.ErrUnavailable
}
