package outbox

import "context"

// Notebook is what an engine keeps about endpoints beside their deliveries.
type Notebook interface {
	// Notes returns all notes that were ever written, those with an empty text too, and the
	// revision of the last write, 0 when there was none. Errors: ErrUnavailable, ErrClosed,
	// the context's.
	Notes(ctx context.Context) (notes []Note, revision uint64, err error)

	// AwaitNotes returns nil once a note was written after the revision; other processes' writes
	// may be heard of a second late. Outages that may pass are waited out. Errors: ErrClosed, the
	// context's.
	AwaitNotes(ctx context.Context, after uint64) error

	// SetNote writes a note on top of n.Revision, the one that the writer knew, in one commit
	// as safe as an Accept. It returns the note as it is now: the one written or, with
	// ErrConflict, the one that came first. A full outbox takes notes all the same. Other
	// errors: ErrUnavailable, ErrClosed, the context's, after which it is unknown whether
	// the note was written.
	SetNote(ctx context.Context, n Note) (Note, error)
}

// Note is what Relay remembers about an endpoint beside its deliveries: that it is
// paused, that its receiver is gone. All who share the outbox see it. What the text
// says is the writer's own.
type Note struct {
	Endpoint string
	Revision uint64 // rises with each write, over all endpoints; 0 for a note that was never written
	Text     []byte // at most MaxNote bytes; empty when there is nothing to remember
}

// MaxNote is the largest text of a Note, in bytes.
const MaxNote = 4 << 10
