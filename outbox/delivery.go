package outbox

import (
	"time"
)

// Event is an event from the app. Engines keep Data byte for byte.
type Event struct {
	ID     string    // "evt_" + UUIDv7 unless the app gave one; at most 64 bytes
	Type   string    // [A-Za-z0-9_.-], 1 to 128 bytes
	Time   time.Time // of the occurrence by the app, else of accept; UTC, to the microsecond
	Tenant string    // optional
	Key    string    // optional: what the event is about, for ordering and dedupe by subject
	Trace  string    // optional: traceparent, and after a space tracestate, of https://www.w3.org/TR/trace-context/
	Data   []byte    // JSON as received; callers and engines must not change it

	Via    string  // how it was accepted: "unix", "http", "front", "relay"; optional
	Relay  string  // which Relay accepted it; optional
	Fields []Field // indexed fields of Data, no path twice, at most MaxFields
}

// MaxFields is how many indexed fields an Event has at most.
const MaxFields = 8

// Fingerprint identifies the content of a request, so that the same key with other content can be
// told from a repeat. With the zero value the engine keeps no record to compare with.
type Fingerprint [32]byte

// Entry is one event of a Batch and the endpoints that get it.
type Entry struct {
	Event     Event
	Endpoints []string // one delivery each, no name twice; may be empty

	// Terms are nil or one for each of Endpoints.
	Terms []Term

	// Fingerprint is set if the app chose Event.ID, so that it can repeat the accept by that id.
	Fingerprint Fingerprint
}

// Batch is the events of one request; all or none are accepted.
type Batch struct {
	Entries []Entry // 1 to 1,000

	// Key is the request's idempotency key, "" for none. With a Key,
	// Fingerprint covers the whole request.
	Key         string
	Fingerprint Fingerprint
}

// Receipt is the answer for one Entry, in the order of the batch.
type Receipt struct {
	ID         string // of the event; the first one's id for a duplicate
	Deliveries int    // how many deliveries the event has, without those that a Mark dropped
	Duplicate  bool   // the event was accepted before; nothing was written
	Durability string // of this event, where it is not that of the Store; "" for that
}

// State of a delivery.
type State string

// The states. A delivery is held while it is Pending and its endpoint takes none (paused,
// disabled or removed). That is no state of its own: nothing is stored, so holding a
// million deliveries costs nothing.
const (
	Pending   State = "pending"   // due now or later
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
	Code     string    // reason of the state: the last attempt's code
	Origin   string    // id of the delivery that this one repeats, "" for none
	Manual   bool      // made by an operator: a test, or a redelivery
}

// Claim is a worker's lease on a delivery. Exactly one Settle or Release ends
// it; when Until passes first, another worker may claim the delivery.
//
// Where the outbox has no [Clock], Due and Created have a monotonic reading: setting this
// machine's clock changes no age.
type Claim struct {
	Delivery
	Event *Event    // shared between claims: read only
	Fence uint64    // changes with every claim of the same delivery
	Until time.Time // end of the lease, by the clock of this process
}

// ClaimRequest asks for work of one endpoint.
type ClaimRequest struct {
	Endpoint string
	Max      int // free worker slots, at least 1

	// Ready keeps Claim from blocking, so that an endpoint without work needs no goroutine. If
	// Claim then has nothing to return, the engine calls Ready once: as soon as a Claim may find
	// something, or answers an error. The caller claims again, or calls Withdraw. Ready must not
	// block, and must not call the engine, which may hold its locks.
	Ready func()

	// Lease is how long the claims are exclusive. An engine may return up to 1/4 less, because
	// its answer took time, so ask for at least 4/3 of the longest attempt. All claims of an
	// endpoint ask for the same; where they differ, the longest that is under way may count for
	// all of them.
	Lease time.Duration

	// Behind says that the endpoint cannot keep up. It opens the endpoint's express lane,
	// which stays open for LaneOpen after the last such claim: deliveries that are accepted
	// meanwhile go into the lane, first in first out, as long as it has room. The engine
	// bounds it (64 to 1,024); what does not fit joins the backlog.
	Behind bool

	// Fresh of the Max, at most, come from the express lane before older deliveries of the
	// backlog, so that what happens now need not wait for it. Places that the lane cannot
	// fill go to the backlog, and the other way round.
	Fresh int

	// FleetMax bounds the claims of the endpoint that are held at one time by all
	// processes together; 0 is unlimited. Claim waits while there are as many.
	FleetMax int
}

// Attempt is the record of one POST.
type Attempt struct {
	N       int // from 1
	Started time.Time
	Took    time.Duration
	Timing  Timing
	Status  int    // HTTP status, 0 when no answer came
	Outcome string // delivered, retry, refused, gone
	Code    string // stable reason in snake_case; when delivered "", or what was wrong with the answer's body
	Error   string // for people; no secret, no payload
	Reused  bool   // the connection had served before
	Peer    string // address and port of the receiver, "" if there was no connection
	Request string // method, URL and header lines as sent, values of secrets and signatures cut; bounded by the sender
	Head    string // response header, bounded by the sender
	Body    []byte // response body, bounded by the sender

	Relay      string    // which Relay made it; optional
	Generation int64     // of that Relay's configuration; 0 if not known
	Next       time.Time // when the next attempt is due; zero if the delivery is over
}

// Timing splits Attempt.Took; parts that did not occur, like the dial of a reused connection, are
// zero.
type Timing struct {
	DNS, Connect, TLS, FirstByte time.Duration
}

// Settlement ends a claim: the record, the new state and, for Pending, the next due time are
// written together. Where the outbox has no [Clock], a Due with a monotonic reading is relative
// to now, and one without is a time of the wall clock.
type Settlement struct {
	Attempt Attempt
	State   State     // Pending, Delivered, Failed or Discarded
	Due     time.Time // for Pending: not before
}

// Counts of one endpoint since the outbox was made. They obey
//
//	Accepted = Pending + Delivered + Failed + Discarded
//
// at every commit (promise P7); retention removes rows, not counts. What
// Editor.Record keeps is not in them.
type Counts struct {
	Accepted, Pending, Delivered, Failed, Discarded int64

	Oldest time.Time // creation of the oldest pending delivery, zero when none
}

// Retention says how long finished deliveries are kept.
type Retention struct {
	Delivered time.Duration // also for discarded ones and for events without deliveries
	Failed    time.Duration
}

// IdempotencyWindow is how long ids and keys given by the app are remembered
// at least; an id is remembered as long as its event is kept.
const IdempotencyWindow = 24 * time.Hour
