package deliver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// State of an endpoint: whether its deliveries are made.
type State string

// The states. Deliveries of an endpoint that is not Active are accepted and held.
const (
	Active   State = "active"
	Paused   State = "paused"   // by an operator
	Disabled State = "disabled" // by the file, by an operator, or by Relay: the receiver is gone, or was failing for too long
)

// The codes of a Status: who or what changed the state.
const (
	ByOperator = "operator"
	ByGone     = "gone"    // the receiver answered 410
	ByFailing  = "failing" // no attempt went well for disable.after_failing
)

// The causes of Status.Waiting.
const (
	WaitLimit      = "limit"       // the bucket of rate_limit is empty
	WaitBreaker    = "breaker"     // the breaker is open
	WaitRetryAfter = "retry_after" // the receiver asked for time
	WaitPaused     = "paused"
	WaitDisabled   = "disabled"
	WaitSlots      = "slots" // as many attempts are under way as concurrency allows
)

// WaitCauses are all causes of Status.Waiting.
func WaitCauses() []string {
	return []string{WaitLimit, WaitBreaker, WaitRetryAfter, WaitPaused, WaitDisabled, WaitSlots}
}

// The states of a breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half_open" // probes look whether the receiver is well again
)

// BreakerStates are all states of a breaker.
func BreakerStates() []string { return []string{BreakerClosed, BreakerOpen, BreakerHalfOpen} }

// Status is what goes on at an endpoint, as this Relay sees it at one moment. It
// holds no secret.
type Status struct {
	Endpoint string
	State    State
	Reason   string    // of the state, for people: "the receiver answered 410"; "" while active
	Code     string    // of the state: one of those above, "" while active or where the file says so
	Since    time.Time // when the state began; zero when unknown

	Waiting   string    // why nothing is claimed right now, one of WaitCauses; "" when claims are made
	Breaker   string    // one of BreakerStates; "" without a breaker
	OpenUntil time.Time // of an open breaker: the next probe is not before; else zero
	HeldUntil time.Time // by Retry-After: no attempt begins before; else zero
	Limit     float64   // sends per second; 0 for none
	Tokens    float64   // in the bucket of the limit now, as far as this Relay knows; 0 without a limit

	InFlight int               // attempts under way
	Attempts map[Outcome]int64 // recorded since the process started; an outcome without any may be missing
	LateBy   Histogram         // seconds from when an attempt was due to when it began
	Took     Histogram         // seconds that attempts took
}

// Histogram counts what was seen since the process started. The zero value has seen
// nothing.
type Histogram struct {
	Bounds []float64 // upper ends of the buckets, inclusive, ascending, in seconds; shared: read only
	Counts []uint64  // of each bucket alone, and behind them those above the last bound: len(Bounds) + 1
	Sum    float64   // of all values, in seconds
}

// Why the state of an endpoint was not changed.
var (
	// ErrNoEndpoint: neither the file nor the outbox knows an endpoint of this name.
	ErrNoEndpoint = errors.New("no endpoint has this name")
	// ErrInFile: the file says enabled = false, which only a change of the file takes back.
	ErrInFile = errors.New("the endpoint has enabled = false in the file: change it there, and reload")
)

// Status returns the endpoints of the policy and those that something is remembered
// about, by name.
func (d *Deliverer) Status() []Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Status, 0, len(d.policy.Endpoints))
	for _, e := range d.policy.Endpoints {
		out = append(out, d.status(e.Name))
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Endpoint, b.Endpoint) })
	return out
}

// Pause holds the deliveries of an active endpoint until Resume. A disabled one stays
// as it is. by says who asked, for people. Attempts under way end as they began. It
// returns the endpoint as it is then. Errors: ErrNoEndpoint, or the outbox's, after
// which nothing has changed.
func (d *Deliverer) Pause(_ context.Context, endpoint, by string) (Status, error) {
	return d.change(endpoint, Active, Status{State: Paused, Code: ByOperator, Reason: "paused by " + by})
}

// Resume ends a pause; an endpoint that is not paused stays as it is. Otherwise
// like Pause.
func (d *Deliverer) Resume(_ context.Context, endpoint, _ string) (Status, error) {
	return d.change(endpoint, Paused, Status{State: Active})
}

// Enable takes back that an endpoint was disabled, by whomever; one that is not
// disabled stays as it is. Errors: ErrInFile; otherwise like Pause.
func (d *Deliverer) Enable(_ context.Context, endpoint, _ string) (Status, error) {
	if e := d.fromPolicy(endpoint); e != nil && !e.Enabled {
		return Status{}, ErrInFile
	}
	return d.change(endpoint, Disabled, Status{State: Active})
}

// Disable holds the deliveries of an endpoint until Enable, one that is paused too.
// Otherwise like Pause.
func (d *Deliverer) Disable(_ context.Context, endpoint, by string) (Status, error) {
	return d.change(endpoint, "", Status{State: Disabled, Code: ByOperator, Reason: "disabled by " + by})
}
