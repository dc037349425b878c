package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Editor is the part of an engine with which an operator changes what is stored.
//
//	G22 Each Change is made whole or not at all, and is as durable as an accept. A repeated Change is made once:
//	    Redeliver by its Once, the others because what they ask for is so already.
type Editor interface {
	// Edit makes changes, at most MaxChanges, and returns what became of each, in their order. An
	// error of one Change keeps no other one back. Errors: ErrUnavailable, ErrClosed, the
	// context's; it is then unknown which of the changes were made, and the caller repeats them.
	Edit(ctx context.Context, changes []Change) ([]Edited, error)

	// Record stores a new event with one delivery that has ended, for an attempt that was made outside the queue (a
	// test). Its delivery is Manual. It is in lists and no part of Counts and Statistics. A full outbox refuses it (ErrFull). Other errors: those of Accept.
	Record(ctx context.Context, e Event, endpoint string, s Settlement) (deliveryID string, err error)
}

// MaxChanges is how many changes an Edit makes at most.
const MaxChanges = 200

// Change asks for one change.
type Change struct {
	Action   Action
	Delivery string // id; of all actions but Erase
	Event    string // id; of Erase

	// Endpoint gets the new delivery of Redeliver; "" for the endpoint of the old one.
	Endpoint string

	// Once, of Redeliver, makes a repeated Change answer the delivery that the first one made;
	// at most 64 bytes, "" for a new delivery each time. It is remembered as long as the new
	// delivery is kept.
	Once string

	// Unless, of Redeliver, says which other deliveries of the event to the same endpoint make a new one needless. It answers
	// ErrRepeat, ErrOnItsWay or ErrDelivered then. What the same Once made is answered before.
	Unless Unless

	// Force, of Erase, erases although a delivery of the event is pending, claimed or not: that delivery becomes
	// Discarded, and a claim of it is lost. Without Force such an Erase answers a *StateError.
	Force bool

	// Code of a delivery that Discard or Erase ends, in snake_case.
	Code string
}

// Action is what a Change does.
type Action string

// The actions. Each refuses what it does not name with a *StateError.
const (
	// Redeliver makes a new, Manual, pending delivery of the event, with its whole schedule before
	// it, and with Origin; the old one must be final and stays as it is.
	Redeliver Action = "redeliver"

	// Retry makes a pending delivery due now. One that is due already, or claimed, is left as it is.
	Retry Action = "retry"

	// Discard ends a pending delivery as Discarded. One that is claimed is ErrClaimed; one that is Discarded is left as it is.
	Discard Action = "discard"

	// Erase removes for good the Data and Fields of an event and, from all attempts of its deliveries, Request, Head and
	// Body. Records and counts stay.
	Erase Action = "erase"
)

// Unless names deliveries that make a redelivery needless. A delivery that the same work has made always does: one whose
// Once begins with the same text up to its first dot. Those that are pending always do.
type Unless uint8

const (
	// UnlessNothing is needless.
	UnlessNothing Unless = iota
	// UnlessPending is for events that are sent again although they were delivered.
	UnlessPending
	// UnlessDelivered adds deliveries that are Delivered: at the endpoint of the old delivery those that were made after
	// it, at another endpoint all.
	UnlessDelivered
)

// Edited is what became of a Change.
type Edited struct {
	Delivery string // the new one of Redeliver, else that of the Change
	Repeated bool   // nothing was changed, because it was so already

	// Err is nil, ErrNotFound, *StateError, ErrClaimed, ErrErased, or of Redeliver ErrFull, ErrRepeat, ErrOnItsWay and
	// ErrDelivered.
	Err error
}

// StateError says that a delivery is in a state in which a Change cannot be made.
type StateError struct{ State State }

func (e *StateError) Error() string { return fmt.Sprintf("the delivery is %s", e.State) }

var (
	// ErrClaimed: an attempt is under way.
	ErrClaimed = errors.New("an attempt of the delivery is under way")
	// ErrErased: the data of the event was erased.
	ErrErased = errors.New("the data of the event was erased")
	// ErrRepeat: the same work sends the event to the endpoint already.
	ErrRepeat = errors.New("the event is sent to the endpoint already, for another delivery of it")
	// ErrOnItsWay: another delivery of the event to the endpoint is pending.
	ErrOnItsWay = errors.New("another delivery of the event to the endpoint is pending")
	// ErrDelivered: another delivery has brought the event to the endpoint.
	ErrDelivered = errors.New("another delivery has brought the event to the endpoint")
)

// Documents is the part of an engine that keeps small documents of Relay itself: jobs, endpoints made at
// run time, states of alerts, certificates. All Relays of the outbox see them.
//
//	G23 A document is written only on top of the revision that its writer knew; it survives Reopen,
//	    and all who wait hear of it. A full outbox takes documents, too.
type Documents interface {
	// Documents returns the documents of a kind that were written after a revision, 0 for all of them, with
	// the revision of the kind's last write. One that was removed is among them, without a body, for an hour at
	// least; with after 0 it is left out. Errors: ErrUnavailable, ErrClosed, the context's.
	Documents(ctx context.Context, kind string, after uint64) (all []Document, revision uint64, err error)

	// Document returns one document. Errors: ErrNotFound, ErrUnavailable, ErrClosed, the context's.
	Document(ctx context.Context, kind, name string) (Document, error)

	// AwaitDocuments returns nil once a document of the kind was written after the revision; it may
	// see writes of other processes up to a second late. It waits out temporary outages. Errors:
	// ErrClosed, the context's.
	AwaitDocuments(ctx context.Context, kind string, after uint64) error

	// PutDocument writes a document by compare-and-set: d.Revision is the one that the writer
	// knows, 0 for a document that is not there or was removed. An empty body removes it; where there is none nothing is
	// written. The commit is as durable as an Accept. It
	// returns the stored document: the one written or, with ErrConflict, another writer's (with Revision 0
	// if there is none). Other errors: ErrUnavailable, ErrClosed, the context's, after which it is unknown whether the
	// document was written.
	PutDocument(ctx context.Context, d Document) (Document, error)
}

// Document is a named text. The text has no meaning to the engine.
type Document struct {
	Kind     string // [a-z_], 1 to 32 bytes
	Name     string // 1 to 256 bytes
	Revision uint64 // rises with each write, over all documents of its kind at least
	Body     []byte // at most MaxDocument bytes; empty if removed
}

// Check returns an error if the document's kind, name or body is out of its bounds.
func (d *Document) Check() error {
	switch {
	case d.Kind == "" || len(d.Kind) > 32 || strings.Trim(d.Kind, "abcdefghijklmnopqrstuvwxyz_") != "":
		return fmt.Errorf("kind of a document is %q: it has 1 to 32 of a-z and _", d.Kind)
	case d.Name == "" || len(d.Name) > 256:
		return fmt.Errorf("name of a document has %d bytes: it has 1 to 256", len(d.Name))
	case len(d.Body) > MaxDocument:
		return fmt.Errorf("document %s %s has %d bytes: at most %d are possible", d.Kind, d.Name, len(d.Body), MaxDocument)
	}
	return nil
}

// MaxDocument is the largest body of a Document, in bytes.
const MaxDocument = 256 << 10

// Journal is the part of an engine that keeps what operators did, oldest lines removed first.
//
//	G24 Lines come back in the order of their numbers, survive Reopen, and are never changed.
type Journal interface {
	// Append writes a line, which gets the next number, and the outbox's time. The commit is as
	// durable as an Accept; a full outbox takes lines, too. At least MaxLines lines are kept.
	// Errors: ErrUnavailable, ErrClosed, the context's.
	Append(ctx context.Context, body []byte) (Line, error)

	// Lines returns at most limit lines (1 to MaxPage) with numbers below before, 0 for the newest, newest
	// first. Errors: ErrUnavailable, ErrClosed, the context's.
	Lines(ctx context.Context, before uint64, limit int) ([]Line, error)
}

// MaxLines is how many lines a Journal keeps at least.
const MaxLines = 100_000

// MaxLine is the largest Line.Body, in bytes.
const MaxLine = 16 << 10

// Line of the Journal.
type Line struct {
	N    uint64 // from 1, without gaps
	At   time.Time
	Body []byte // at most MaxLine bytes
}
