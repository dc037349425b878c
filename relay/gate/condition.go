package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"relay/policy"
)

// Condition is what the outbox remembers about an endpoint, for all Relays and over restarts. The
// zero value is that of an endpoint in good order. All times are of the outbox's clock, so that
// they mean the same for Relays whose own clocks differ.
//
// A Relay drops the fields that it does not know when it writes a Condition. So a field of a
// later version must be one that may be lost while older Relays are in the fleet, or it belongs
// in a note of its own.
type Condition struct {
	Paused   *Halt    `json:"paused,omitempty"`
	Disabled *Halt    `json:"disabled,omitempty"`
	Breaker  *Opening `json:"breaker,omitempty"` // nil while it is closed
	Hold     *Hold    `json:"hold,omitempty"`    // the receiver's
	Failing  *Trouble `json:"failing,omitempty"` // kept once it lasts
}

// Hold is a time in which the receiver wants no attempt.
type Hold struct {
	Since time.Time `json:"since"` // when it asked
	Until time.Time `json:"until"`
}

func (h *Hold) equal(other *Hold) bool {
	if h == nil || other == nil {
		return h == other
	}
	return h.Since.Equal(other.Since) && h.Until.Equal(other.Until)
}

// Trouble is a time in which no attempt succeeded.
type Trouble struct {
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`     // of the last failed attempt; the stored one may be older by up to worthKeepingAnew
	Receiver string    `json:"receiver"` // as in Halt

	Attempts int    `json:"attempts,omitempty"` // at least so many
	Code     string `json:"code,omitempty"`     // of the last one, as in the records of attempts
}

// Halt is why an endpoint takes no deliveries.
type Halt struct {
	At     time.Time `json:"at"`
	Code   string    `json:"code"`   // one of those below
	Reason string    `json:"reason"` // for people

	// Receiver stands for the URL that the decision is about, if Relay itself decided. When the
	// file has another URL, the decision is over.
	Receiver string `json:"receiver,omitempty"`
}

// Codes of a Halt.
const (
	ByOperator = "operator"
	Gone       = "gone"    // the receiver answered 410
	Failing    = "failing" // no attempt succeeded for too long
)

// Opening is a breaker that is open or half open.
type Opening struct {
	Times int       `json:"times"` // how often it opened without having closed, from 1
	Until time.Time `json:"until"` // after it attempts are probes

	Good        int       `json:"good,omitempty"` // probes that succeeded
	Prober      string    `json:"prober,omitempty"`
	ProberUntil time.Time `json:"prober_until,omitzero"`
}

// ParseCondition reads the result of Text. An empty text is the zero Condition. Errors: the text
// cannot be read.
func ParseCondition(text []byte) (c Condition, err error) {
	if len(text) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return Condition{}, fmt.Errorf("read the note of an endpoint: %w", err)
	}
	return c, nil
}

// Text is the condition as a note keeps it, empty for the zero value.
func (c *Condition) Text() []byte {
	if *c == (Condition{}) {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // a struct of texts, numbers and times
	}
	return text
}

// isDisabled tells whether the endpoint, with its present URL, is disabled by a decision.
func (c *Condition) isDisabled(e *policy.Endpoint) bool {
	d := c.Disabled
	return d != nil && (d.Receiver == "" || d.Receiver == receiver(e))
}

// receiver stands for an endpoint's URL, without user and query, which may be credentials.
func receiver(e *policy.Endpoint) string {
	url := *e.URL
	url.User, url.RawQuery = nil, ""
	sum := sha256.Sum256([]byte(url.String()))
	return hex.EncodeToString(sum[:6])
}
