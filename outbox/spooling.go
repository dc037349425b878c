package outbox

import (
	"context"
	"time"
)

// Spooling is implemented by an engine that keeps accepting on this machine while the outbox is
// away.
type Spooling interface {
	// Spool returns the state of the spool. Errors: ErrClosed, the context's, and those of a spool
	// that cannot be read.
	Spool(ctx context.Context) (SpoolStatus, error)
}

// SpoolStatus is the state of a spool. It counts batches, each of which is one request.
type SpoolStatus struct {
	Used    bool      // events go through the spool, because the outbox is away or the spool is not empty
	Waiting int64     // in the spool
	Oldest  time.Time // accept of the oldest that waits, zero when none
	Moved   int64     // into the outbox, since the spool was made
	Refused int64     // by the outbox, for good
	Why     error     // why nothing moves; nil while it does
}
