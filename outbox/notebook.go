package outbox

import "context"

// Notebook is the part of an engine that stores notes about endpoints.
type Notebook interface {
	// Notes returns all notes that were ever written, with empty ones, and the revision of the
	// last write, 0 if there was none. Errors: ErrUnavailable, ErrClosed, the context's.
	Notes(ctx context.Context) (notes []Note, revision uint64, err error)

	// AwaitNotes returns nil once a note was written after the revision; it may see writes of
	// other processes a second late. It waits out temporary outages. Errors: ErrClosed, the
	// context's.
	AwaitNotes(ctx context.Context, after uint64) error

	// SetNote writes a note by compare-and-set: n.Revision is the revision that the writer knows.
	// The commit is as durable as an Accept. It returns the stored note: the one written or, with
	// ErrConflict, another writer's. A full outbox takes notes, too. Other errors:
	// ErrUnavailable, ErrClosed, the context's, after which it is unknown whether the note was
	// written.
	SetNote(ctx context.Context, n Note) (Note, error)
}

// Note is an endpoint's state besides its deliveries, for example that it is paused or that its
// receiver is gone. All Relays of the outbox see it. The text has no meaning to the engine.
type Note struct {
	Endpoint string
	Revision uint64 // rises with each write, over all endpoints; 0 for a note that was never written
	Text     []byte // at most MaxNote bytes; empty for no state
}

// MaxNote is the largest text of a Note, in bytes.
const MaxNote = 4 << 10
