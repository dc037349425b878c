package policy

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy/expr"
)

// Filter says which events of its types an endpoint gets. The filters are applied in the order of
// the fields, up to the first that rejects the event. nil lets all events through.
//
// If an expression cannot be evaluated for an event, the event is not silently left out: its
// delivery is written as failed, with the code CodeWhen or CodeTooExpensive.
type Filter struct {
	Tenants  []string  // any of these, sorted; empty for all
	When     *formula  // nil for no condition
	Sample   float64   // this share of the events, selected by id, above 0 and below 1; 0 for all
	Dedupe   *Dedupe   // nil for none
	Crossing *Crossing // nil for none; never with a Dedupe
	drawn    drawn     // of the endpoint
}

// Names of the filters, as the file has them.
const (
	byTenants  = "tenants"
	byWhen     = "when"
	bySample   = "sample"
	byDedupe   = "dedupe"
	byCrossing = "crossing"
)

// CodeWhen is the code of a delivery that failed at accept because a filter's expression cannot
// be evaluated for its event.
const CodeWhen = "when_error"

// The codes for expressions over their budget: of a delivery, because of its filter, or of an
// attempt, because of its body.
const (
	CodeTooExpensive = "too_expensive" // never tried again
	CodeBusy         = "busy"          // too many expensive expressions at a time; retried
)

// CostCode is the code for err, and usual if err is not about cost.
func CostCode(err error, usual string) string {
	switch {
	case expr.IsBusy(err):
		return CodeBusy
	case expr.IsTooExpensive(err):
		return CodeTooExpensive
	}
	return usual
}

// maxTermError bounds outbox.Term.Error, in bytes.
const maxTermError = 512

// Dedupe leaves out an event if there was one with the same subject within Window.
type Dedupe struct {
	By     *formula
	Window time.Duration

	prefix string // of the text that is hashed into a key
}

// Crossing lets an event through when its value reaches a threshold for the first time for its
// subject. An event that crosses several thresholds is one delivery.
type Crossing struct {
	Value      *formula
	At         []float64 // ascending, 1 to 100
	By         *formula
	ResetBelow float64       // a value below it resets all thresholds; at most At[0]
	Remember   time.Duration // how long a crossing is remembered

	prefix string // of the text that is hashed into a key
}

// Decision is the result of an endpoint's filters for an event.
type Decision struct {
	Gets bool   // otherwise the event is left out; a Term qualifies the delivery
	By   string // the filter that decided, by its name in the file; "" if none rejected it
	Term outbox.Term

	subject []byte  // as JSON, for people; nil for none
	value   float64 // that is compared with thresholds
}

// Decide applies the filters of the endpoint of that name. The result for an event is always the
// same. It holds the event's data only as a hash.
func (f *Filter) Decide(endpoint string, v *View) Decision {
	if f == nil {
		return Decision{Gets: true}
	}
	if len(f.Tenants) > 0 {
		if _, found := slices.BinarySearch(f.Tenants, v.Tenant); !found {
			return Decision{By: byTenants}
		}
	}
	if f.When != nil {
		is, err := f.When.Bool(v)
		switch {
		case err != nil:
			return failed(byWhen, f.When, err)
		case !is:
			return Decision{By: byWhen}
		}
	}
	switch {
	case f.Sample > 0 && position(endpoint, v.ID) >= f.Sample:
		return Decision{By: bySample}
	case f.Dedupe != nil:
		return f.Dedupe.decide(v)
	case f.Crossing != nil:
		return f.Crossing.decide(v)
	}
	return Decision{Gets: true}
}

func (d *Dedupe) decide(v *View) Decision {
	subject, err := d.By.Subject(v)
	if err != nil {
		return failed(byDedupe, d.By, err)
	}
	return Decision{
		Gets: true, By: byDedupe, subject: d.By.shown(subject),
		Term: outbox.Term{Mark: &outbox.Mark{Key: markKey(d.prefix, subject), Level: 1, For: d.Window}},
	}
}

func (c *Crossing) decide(v *View) Decision {
	number, err := c.Value.Number(v)
	if err != nil {
		return failed(byCrossing, c.Value, err)
	}
	subject, err := c.By.Subject(v)
	if err != nil {
		return failed(byCrossing, c.By, err)
	}
	d := Decision{By: byCrossing, subject: c.By.shown(subject), value: number}
	level := 0
	for level < len(c.At) && c.At[level] <= d.value {
		level++
	}
	reset := d.value < c.ResetBelow
	if d.Gets = level > 0 || reset; d.Gets {
		d.Term.Mark = &outbox.Mark{Key: markKey(c.prefix, subject), Level: int64(level), Lower: reset, For: c.Remember}
	}
	return d
}

// failed is the Decision for an event that a filter cannot evaluate.
func failed(by string, f *formula, err error) Decision {
	text := fmt.Sprintf("%s: %v", f.name, err)
	if len(text) > maxTermError {
		text = strings.ToValidUTF8(text[:maxTermError-3], "") + "…"
	}
	return Decision{Gets: true, By: by, Term: outbox.Term{Code: CostCode(err, CodeWhen), Error: text}}
}

// position maps an event, for an endpoint, to a number from 0 to below 1.
func position(endpoint, eventID string) float64 {
	sum := sha256.Sum256([]byte(endpoint + "\nsample\n" + eventID))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// markKey contains the subject only as a hash. Line breaks separate the parts.
func markKey(prefix string, subject []byte) string {
	sum := sha256.Sum256(append([]byte(prefix), subject...))
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}

// formula is an expression of a filter.
type formula struct {
	*expr.Expression
	name    string        // as the file has it: "when", "crossing.value"
	source  string        // as the file says it
	answers config.Secret // what env() and file() gave
}

// shown is the subject, masked if env() or file() gave a part of it.
func (f *formula) shown(subject []byte) []byte {
	if f.answers.Reveal() != "" {
		return []byte(`"` + Hidden + `"`)
	}
	return subject
}
