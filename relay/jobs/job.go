package jobs

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"relay/outbox"
)

// State of a job.
type State string

// The states.
const (
	Waiting   State = "waiting" // no Relay works on it yet
	Running   State = "running"
	Done      State = "done"
	Cancelled State = "cancelled"
	Broken    State = "failed" // it cannot go on: Error says why
)

// Over tells whether a job in this state has ended.
func (s State) Over() bool { return s == Done || s == Cancelled || s == Broken }

// Job is work on all deliveries that a filter matches.
type Job struct {
	ID     string        `json:"id"` // "job_" and 32 hexadecimal digits, which rise with the time
	Action outbox.Action `json:"action"`
	State  State         `json:"state"`

	Filter url.Values `json:"filter"`          // as in query strings, with times for durations
	To     string     `json:"to,omitempty"`    // endpoint of redeliveries; "" for that of each delivery
	Rate   float64    `json:"rate,omitempty"`  // deliveries per second; 0 for no bound
	Force  bool       `json:"force,omitempty"` // of outbox.Erase

	Matched int64 `json:"matched"`         // deliveries that matched when it was made
	Exact   bool  `json:"exact,omitempty"` // else Matched is the least that it was

	Done    int64            `json:"done,omitempty"`    // deliveries, or events of an erasure, that it changed
	Skipped map[string]int64 `json:"skipped,omitempty"` // those that it did not change, by reason
	Error   string           `json:"error,omitempty"`   // why it waits or ended

	Who     string    `json:"who"`
	Created time.Time `json:"created"` // by the outbox's clock
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Relay   string    `json:"relay,omitempty"` // that works on it, or did so last

	CancelledBy string `json:"cancelled_by,omitempty"` // who asked for its end
}

// Why a delivery is skipped, beside its state: pending, delivered, failed or discarded.
const (
	SkipAbsent   = "not_found"        // retention or a discard of the outbox removed it
	SkipErased   = "erased"           // the event's data was erased
	SkipClaimed  = "under_way"        // an attempt is being made
	SkipEndpoint = "endpoint_removed" // the endpoint is in no file
	SkipAlready  = "already"          // what is asked for is so already
	SkipRepeat   = "repeat"           // the job sends the event to the endpoint already, for another delivery of it
	SkipOnItsWay = "on_its_way"       // another delivery of the event to the endpoint is pending
	SkipSince    = "delivered_since"  // a later delivery has brought the event to the endpoint
	SkipError    = "error"            // the outbox refused the change
)

// Seen is how many deliveries the job has dealt with.
func (j *Job) Seen() int64 {
	n := j.Done
	for _, skipped := range j.Skipped {
		n += skipped
	}
	return n
}

// document is a job as it is stored.
type document struct {
	Job

	// Batch is what the job deals with next: ids of deliveries, or of events for outbox.Erase. It is stored
	// before the first of them is changed, so that a Relay that takes the job over repeats exactly these.
	Batch  []string `json:"batch,omitempty"`
	Cursor string   `json:"cursor,omitempty"` // of the page after Batch
	Last   bool     `json:"last,omitempty"`   // there is no page after Batch

	Owner    string    `json:"owner,omitempty"` // who works on it: differs for each start of a Relay
	Until    time.Time `json:"until,omitzero"`  // end of the owner's lease, by the outbox's clock
	Restarts int       `json:"restarts,omitempty"`

	revision uint64
}

const kind = "job"

// newID returns an id; later ones are greater.
func newID() string {
	u := uuid.Must(uuid.NewV7()) // fails only without randomness, which ends a Go program anyway
	return "job_" + hex.EncodeToString(u[:])
}

// once names the redelivery of a delivery by a job: 63 bytes.
func once(job, delivery string) string {
	sum := sha256.Sum256([]byte(delivery))
	return job + "." + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// read reads a stored job.
func read(d outbox.Document) (*document, error) {
	j := &document{revision: d.Revision}
	if err := json.Unmarshal(d.Body, j); err != nil {
		return nil, fmt.Errorf("read job %s: %w", d.Name, err)
	}
	return j, nil
}

// stored is the job for the outbox.
func (j *document) stored() (outbox.Document, error) {
	body, err := json.Marshal(j)
	if err != nil {
		return outbox.Document{}, fmt.Errorf("write job %s: %w", j.ID, err)
	}
	return outbox.Document{Kind: kind, Name: j.ID, Revision: j.revision, Body: body}, nil
}

// skip counts a delivery that was not changed.
func (j *document) skip(reason string, n int64) {
	if n == 0 {
		return
	}
	if j.Skipped == nil {
		j.Skipped = map[string]int64{}
	}
	j.Skipped[reason] += n
}
