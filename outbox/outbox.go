// Package outbox is the contract between the way in (ingest) and the way out (relay/deliver):
// what is stored, who may work on it, and what an engine guarantees. It contains no engine. The
// engines are outbox/sqlite (embedded), outbox/redisstream (shared by many Relays) and, for
// tests, outboxtest.Mem. outboxtest.Run is the suite that every engine passes. Its subtests carry
// the numbers of the guarantees listed at [Store].
package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// OrderSlack is by how much an engine may confuse the order of deliveries.
	OrderSlack = time.Second

	// LaneOpen is how long an express lane stays open after the last claim with Behind.
	LaneOpen = 10 * time.Second
)

// Engine is the interface of every engine. One that processes share is a [Limiter], a [Clock] and
// a [Fleet], too.
type Engine interface {
	Store
	Notebook
	Reader
}

// Operable is an Engine with all that an operator asks of it.
type Operable interface {
	Engine
	History
	Editor
	Documents
	Journal
	Statistics
}

// Store is the part of an engine that moves events: accept, claim, settle. All methods
// may be called at the same time.
//
// What an engine guarantees; the suite's subtests carry these numbers:
//
//	G1  Accepted means kept: after Accept returned nil the batch is safe at the
//	    level that Durability names, and survives Reopen.
//	G2  One commit: every event of a batch and every delivery of an event, or
//	    nothing of it.
//	G3  Order is about, not exact: oldest first. A delivery that waits for a claim is
//	    passed over only for deliveries that were due before it joined the queue (by
//	    its accept, due time, release or end of lease) or within [OrderSlack] after.
//	G4  Endpoints are independent: nobody's backlog keeps another's work back.
//	G5  A claim is exclusive until its lease ends, however many claim at once.
//	G6  When a lease ends the delivery can be claimed again, with another
//	    Fence; the old claim's Settle answers ErrLeaseLost and, like its Release,
//	    changes nothing.
//	G7  Settle writes attempt, state and due time together; a final state is final.
//	G8  A delivery that was settled as Pending is not claimed before its due
//	    time, and is claimed after it; its attempt count survives Reopen.
//	G9  The same id or key with the same content is one event, answered with the
//	    first receipt and Duplicate; with other content it is ErrConflict and
//	    nothing of the batch is written.
//	G10 Full is ErrFull for Accept, never a silent drop; Claim and Settle go on,
//	    and what Reap frees can be used again.
//	G11 Reap removes what is final and older than its retention, and never what
//	    is pending; counts stay.
//	G12 A cancelled context unblocks Claim; Close unblocks all calls, and calls
//	    after it answer ErrClosed.
//	G13 Data comes back byte for byte, whatever its bytes and size.
//	G14 Release hands a delivery back at once and consumes no attempt. It may lose its
//	    place in the order.
//	G15 Counts obey the equation of [Counts] at any time, over Reopen too.
//	G16 When a store with one owner is opened again, claims of the dead owner
//	    are claimable at once. (Shared engines: when the lease ends.)
//	G17 While an endpoint is behind, new deliveries go into its express lane, as far as that
//	    has room. Claims with Fresh take at most that many from it, oldest first, past the
//	    backlog; no delivery is lost or claimed twice.
//	G18 A note is written only on top of the revision that its writer knew; it
//	    survives Reopen, and all who wait for notes hear of it.
//	G19 With FleetMax no more claims of an endpoint are held at one time, by all processes together.
//	G20 A delivery with a Term is failed from the start, or made only as its Mark lets it,
//	    in the commit of the accept; marks survive Reopen. A repeated accept changes no mark.
//	G26 A Claim with Ready does not wait. Ready is called whenever there is something to claim
//	    after it found nothing, and by Close; once, and not after Withdraw.
type Store interface {
	// Accept writes the batch in one commit and returns a receipt for each entry.
	// Errors: ErrFull, ErrConflict (as *ConflictError), ErrUnavailable, ErrClosed, or the
	// context's. After a context error it is unknown whether the batch was
	// written: the caller repeats it with the same key.
	Accept(ctx context.Context, b Batch) ([]Receipt, error)

	// Claim blocks until the endpoint has at least one due delivery, then leases up to Max of
	// them, oldest due first. With Ready it does not block, and may return none. A process has
	// one Claim of an endpoint under way at a time: a second one that blocks may wait until the
	// first has returned, and each takes the place of an earlier one whose Ready was not called.
	// Errors: ErrClosed, the context's, or a final one after which the engine cannot go on; it
	// waits out temporary outages.
	Claim(ctx context.Context, r ClaimRequest) ([]Claim, error)

	// Withdraw ends the wait of a Claim with Ready, which is not called after it.
	Withdraw(endpoint string)

	// Settle ends a claim. It returns once the settlement is ordered to be part
	// of the next commit, in which it may ride with others: losing that commit in a
	// crash repeats an attempt, it loses no delivery. Errors: ErrLeaseLost, ErrClosed.
	Settle(ctx context.Context, c Claim, s Settlement) error

	// Release ends claims without an attempt. Claims whose lease has ended are ignored.
	Release(ctx context.Context, claims ...Claim) error

	// Counts returns the counts of every endpoint that ever had a delivery.
	Counts(ctx context.Context) (map[string]Counts, error)

	// Reap removes finished deliveries that are older than r allows, events without deliveries
	// left and expired keys, a bounded number at a time. It returns how many deliveries it
	// removed, and whether more can be removed now.
	Reap(ctx context.Context, r Retention) (removed int, more bool, err error)

	// Health is nil if an Accept would succeed now, else its error.
	Health(ctx context.Context) error

	// Fill is the used share of the room for Accept: 0 is empty, 1 is full. The caller can use it
	// to reap early, before Accept answers ErrFull.
	Fill(ctx context.Context) (float64, error)

	// Broken is closed after an error that the engine must not survive (a failed commit or
	// fsync); Health then returns it. The process must end, and the next one opens the outbox
	// again.
	Broken() <-chan struct{}

	// Durability is the level of a receipt: "memory", "relaxed", "fsync", "replicated".
	Durability() string

	// Close waits for commits under way, unblocks all callers and frees the outbox.
	Close() error
}

// Errors of engines, which may be wrapped: compare with errors.Is.
var (
	// ErrFull: the outbox is at its size limit, or the disk is. Deliveries free space.
	ErrFull = errors.New("outbox is full")
	// ErrConflict: the id or idempotency key was used before, with other content.
	ErrConflict = errors.New("key was used before with other content")
	// ErrLeaseLost: the claim's lease ended and another worker may have claimed the delivery.
	ErrLeaseLost = errors.New("lease lost")
	// ErrUnavailable: the outbox cannot be reached or written now; try again later.
	ErrUnavailable = errors.New("outbox is unavailable")
	// ErrNotFound: no such event.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("outbox is closed")
	// ErrLocked: another process owns the outbox.
	ErrLocked = errors.New("outbox is locked by another process")
	// ErrCorrupt: the stored data is damaged. Nothing was deleted.
	ErrCorrupt = errors.New("outbox is corrupt")
)

// ConflictError says which entry of a batch met ErrConflict.
type ConflictError struct {
	Index int // of the entry, -1 for the batch's own key
	ID    string
}

func (e *ConflictError) Error() string {
	if e.Index < 0 {
		return "idempotency " + ErrConflict.Error()
	}
	return fmt.Sprintf("event %q: %v", e.ID, ErrConflict)
}

func (e *ConflictError) Unwrap() error { return ErrConflict }
