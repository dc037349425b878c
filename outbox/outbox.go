// Package outbox is the contract between the way in (ingest) and the way out
// (relay/deliver): what is kept, who may work on it, and what an engine owes.
// It holds no engine. The engines are outbox/sqlite and, for tests,
// outboxtest.Mem; outboxtest.Run is the suite that every engine passes, and its
// subtests carry the numbers of the guarantees listed at [Store].
package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Event is what the app said. Engines keep Data byte for byte.
type Event struct {
	ID     string    // "evt_" + UUIDv7 unless the app gave one; at most 64 bytes
	Type   string    // [A-Za-z0-9_.-], 1 to 128 bytes
	Time   time.Time // when it happened, by the app's word or else the time of accept; UTC, kept to the microsecond
	Tenant string    // optional
	Key    string    // optional: what the event is about, for ordering and dedupe by subject
	Data   []byte    // JSON as it came in; callers and engines only read it
}

// Fingerprint identifies the content of a request, so that the same key with
// other content can be told from a repeat. The zero value means "not asked
// for": the engine then keeps no record to compare with.
type Fingerprint [32]byte

// Entry is one event of a Batch and the endpoints that get it.
type Entry struct {
	Event     Event
	Endpoints []string // one delivery each, no name twice; may be empty

	// Terms are nil or one for each of Endpoints.
	Terms []Term

	// Fingerprint is set when the app chose Event.ID, which makes the accept
	// repeatable by that id.
	Fingerprint Fingerprint
}

// Term is a condition on which a delivery is made, or made at all. The zero value makes it
// as any other.
type Term struct {
	// Code, when it is not "", makes the delivery failed from the start, without an attempt;
	// Error is for people, at most 512 bytes.
	Code, Error string

	// Mark, when it is not nil, must let the delivery be made: else there is none.
	Mark *Mark
}

// Mark is a level that the outbox remembers under a key, to tell what is new from what is
// not. The delivery is made when Level is above what is remembered, which is 0 when
// nothing is; then Level is remembered for the time For, from now on. All of it is part of
// the commit that accepts: marks of one batch see each other in its order.
//
// To have something once in a while, use Level 1: what comes again within For is
// left out, and does not begin it anew.
type Mark struct {
	Key   string // 1 to 128 bytes; of the endpoint and the subject, so that no two filters share one
	Level int64  // at least 0
	Lower bool   // remember Level also when it is below what is remembered
	For   time.Duration
}

// Batch is what one request brings; it is accepted whole or not at all.
type Batch struct {
	Entries []Entry // 1 to 1,000

	// Key is the request's idempotency key, "" for none. With a Key,
	// Fingerprint covers the whole request.
	Key         string
	Fingerprint Fingerprint
}

// Receipt answers for one Entry, in the order of the batch.
type Receipt struct {
	ID         string // of the event; the first one's id for a duplicate
	Deliveries int    // how many deliveries the event has; what a Mark left out is not one
	Duplicate  bool   // the event was known: nothing was written
}

// State of a delivery.
type State string

// The states. Held is pending work of an endpoint that takes none (paused,
// disabled or removed): it is a view of Pending, never stored, so holding a
// million deliveries costs nothing.
const (
	Pending   State = "pending"   // due now or later
	Held      State = "held"      // pending, at an endpoint that takes none
	Delivered State = "delivered" // final: the receiver has it
	Failed    State = "failed"    // final: refused, gone, or out of attempts; can be redelivered
	Discarded State = "discarded" // final: ended by an operator or by retention
)

// Final tells whether a delivery in this state is over.
func (s State) Final() bool { return s == Delivered || s == Failed || s == Discarded }

// Delivery is one event for one endpoint.
type Delivery struct {
	ID       string // "dlv_…", unique beyond the life of one outbox
	EventID  string
	Endpoint string
	State    State
	Attempts int       // recorded so far
	Due      time.Time // not before; meaningful while pending
	Created  time.Time
	Finished time.Time // zero while pending
	Code     string    // why it is where it is: the last attempt's code, "" when delivered
}

// Claim is a worker's lease on a delivery. Exactly one Settle or Release ends
// it; when Until passes first, another worker may claim the delivery.
type Claim struct {
	Delivery
	Event *Event    // shared between claims: read only
	Fence uint64    // changes with every claim of the same delivery
	Until time.Time // end of the lease
}

// ClaimRequest asks for work of one endpoint.
type ClaimRequest struct {
	Endpoint string
	Max      int           // free worker slots, at least 1
	Lease    time.Duration // longer than an attempt can take; an engine that leases ahead may have used up to 1/64 of it

	// Fresh of the Max, at most, go to the newest of the deliveries that had no attempt
	// yet, however many older ones wait: what happens now need not wait for a backlog.
	// The rest goes to those that are due first.
	Fresh int

	// FleetMax bounds the claims of the endpoint that are held at one time by all
	// processes together; 0 is no bound. Claim waits while there are as many.
	FleetMax int
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

// Limit is a token bucket: N tokens come back evenly over Per, and no more than Burst
// are ever in it. Taking one for each send keeps sends over any window of time to at
// most N × window / Per + Burst.
type Limit struct {
	N     int
	Per   time.Duration
	Burst int
}

// Limiter is what an engine offers that several processes share, beside Store: one
// bucket for each endpoint, by the outbox's own clock.
type Limiter interface {
	// Take takes as many tokens as there are, at most n, from the endpoint's bucket, which is
	// full when it is new. When it takes less than n, wait is how long until there is one
	// more. Errors: ErrUnavailable, ErrClosed, the context's; it is then unknown whether
	// tokens were taken.
	Take(ctx context.Context, endpoint string, l Limit, n int) (taken int, wait time.Duration, err error)
}

// Attempt is the record of one POST.
type Attempt struct {
	N       int // from 1
	Started time.Time
	Took    time.Duration
	Timing  Timing
	Status  int    // HTTP status, 0 when no answer came
	Outcome string // delivered, retry, refused, gone
	Code    string // stable reason in snake_case, "" for delivered
	Error   string // for people; no secret, no payload
	Head    string // response header, bounded by the sender
	Body    []byte // response body, bounded by the sender
}

// Timing splits Attempt.Took; a part that did not happen (a reused connection
// needs no dial) is zero.
type Timing struct {
	DNS, Connect, TLS, FirstByte time.Duration
}

// Settlement ends a claim: the record, the new state and, for Pending, the
// next due time are written together.
type Settlement struct {
	Attempt Attempt
	State   State     // Pending, Delivered, Failed or Discarded
	Due     time.Time // for Pending: not before
}

// Record is an event with all that came of it.
type Record struct {
	Event      Event
	Accepted   time.Time
	Deliveries []DeliveryRecord
}

// DeliveryRecord is a delivery with its attempts, oldest first.
type DeliveryRecord struct {
	Delivery
	Attempts []Attempt
	Error    string // of the Term that failed it from the start; else its attempts tell
}

// Counts of one endpoint since the outbox was made. They obey
//
//	Accepted = Pending + Delivered + Failed + Discarded
//
// at every commit (promise P7); retention removes rows, not counts.
type Counts struct {
	Accepted, Pending, Delivered, Failed, Discarded int64

	Oldest time.Time // creation of the oldest pending delivery, zero when none
}

// Retention says how long finished deliveries are kept.
type Retention struct {
	Delivered time.Duration // also for discarded ones and for events that nobody wanted
	Failed    time.Duration
}

// IdempotencyWindow is how long ids and keys given by the app are remembered
// at least; an id is remembered as long as its event is kept.
const IdempotencyWindow = 24 * time.Hour

// Store is an outbox engine. All methods may be called at the same time.
//
// What an engine guarantees; the suite's subtests carry these numbers:
//
//	G1  Accepted means kept: after Accept returned nil the batch is safe at the
//	    level that Durability names, and survives Reopen.
//	G2  One commit: every event of a batch and every delivery of an event, or
//	    nothing of it.
//	G3  An endpoint's first claims come in the order of accept.
//	G4  Endpoints are independent: nobody's backlog keeps another's work back.
//	G5  A claim is exclusive until its lease ends, however many claim at once.
//	G6  When a lease ends the delivery can be claimed again, with another
//	    Fence; the old claim's Settle and Extend answer ErrLeaseLost and, like
//	    its Release, change nothing. Extend moves the end of a lease.
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
//	G14 Release hands a delivery back at once and consumes no attempt.
//	G15 Counts obey the equation of [Counts] at any time, over Reopen too.
//	G16 When a store with one owner is opened again, claims of the dead owner
//	    are claimable at once. (Shared engines: when the lease ends.)
//	G17 Claims with Fresh take the newest deliveries without an attempt, those without it
//	    pass none over; no delivery is lost or claimed twice by either.
//	G18 A note is written only on top of the revision that its writer knew; it
//	    survives Reopen, and whoever waits for notes hears of it.
//	G19 With FleetMax no more claims of an endpoint are held at one time, whoever asks.
//	G20 A delivery with a Term is failed from the start, or made only as its Mark lets it,
//	    in the commit of the accept; marks survive Reopen. A repeated accept changes no mark.
type Store interface {
	// Accept writes the batch in one commit and returns a receipt for each entry.
	// Errors: ErrFull, ErrConflict (as *ConflictError), ErrUnavailable, ErrClosed, or the
	// context's. After a context error it is unknown whether the batch was
	// written: the caller repeats it with the same key.
	Accept(ctx context.Context, b Batch) ([]Receipt, error)

	// Claim blocks until the endpoint has at least one due delivery, then leases
	// up to Max of them, oldest due first. Errors: ErrClosed, the context's, or a
	// final one after which the engine cannot go on; outages that may pass are
	// waited out inside.
	Claim(ctx context.Context, r ClaimRequest) ([]Claim, error)

	// Extend moves the end of the claim's lease to now + lease. Errors:
	// ErrLeaseLost, ErrClosed.
	Extend(ctx context.Context, c Claim, lease time.Duration) error

	// Settle ends a claim. It returns once the settlement is ordered to be part
	// of the next commit, in which it may ride with others: losing that commit in a
	// crash repeats an attempt, it loses no delivery. Errors: ErrLeaseLost, ErrClosed.
	Settle(ctx context.Context, c Claim, s Settlement) error

	// Release hands claims back as they were. Lost ones are passed over in silence.
	Release(ctx context.Context, claims ...Claim) error

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

	// Lookup returns the event with its deliveries and attempts, or ErrNotFound.
	Lookup(ctx context.Context, eventID string) (*Record, error)

	// Counts returns the counts of every endpoint that ever had a delivery.
	Counts(ctx context.Context) (map[string]Counts, error)

	// Reap removes finished deliveries that are older than r allows, events
	// without deliveries left and expired keys, a bounded number at a time. It
	// returns how many deliveries went, and whether there is more to do now.
	Reap(ctx context.Context, r Retention) (removed int, more bool, err error)

	// Health is nil when an Accept would succeed now, else the error it would meet.
	Health(ctx context.Context) error

	// Fill tells how much of the room that Accept may use is in use: 0 is empty, 1
	// is full. Whoever keeps the outbox can so let finished deliveries go in time.
	Fill(ctx context.Context) (float64, error)

	// Broken is closed when the engine has met an error after which it must not
	// go on (a failed commit or fsync); Health then says which. The process must end and
	// open the outbox anew.
	Broken() <-chan struct{}

	// Durability is the level that a receipt stands for: "memory", "relaxed", "fsync", "replicated".
	Durability() string

	// Close waits for commits under way, unblocks all callers and frees the outbox.
	Close() error
}

// Errors that engines answer with, wrapped or plain: compare with errors.Is.
var (
	// ErrFull: the outbox is at its size limit, or the disk is. Deliveries free space.
	ErrFull = errors.New("outbox is full")
	// ErrConflict: the id or idempotency key was used before, with other content.
	ErrConflict = errors.New("key was used before with other content")
	// ErrLeaseLost: the claim's lease ended and the delivery may be another worker's.
	ErrLeaseLost = errors.New("lease lost")
	// ErrUnavailable: the outbox cannot be reached or written now; try again later.
	ErrUnavailable = errors.New("outbox is unavailable")
	// ErrNotFound: no such event.
	ErrNotFound = errors.New("not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("outbox is closed")
	// ErrLocked: another process owns the outbox.
	ErrLocked = errors.New("outbox is locked by another process")
	// ErrCorrupt: what is stored cannot be trusted. Nothing was deleted.
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
