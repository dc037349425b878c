package deliver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"relay/relay/gate"
)

// Trouble is a time in which no attempt succeeded.
type Trouble = gate.Trouble

// State of an endpoint: whether its deliveries are made.
type State = gate.EndpointState

// The states that an endpoint of the file can have. Unless it is Active, its deliveries are
// accepted and held.
const (
	Active   = gate.StateActive
	Paused   = gate.StatePaused
	Disabled = gate.StateDisabled
)

// The codes of a Status: the cause of the last change.
const (
	ByOperator = gate.ByOperator
	ByGone     = gate.Gone    // the receiver answered 410
	ByFailing  = gate.Failing // no attempt succeeded for disable.after_failing
)

// The causes of Status.Waiting.
const (
	WaitLimit      = string(gate.Limit)
	WaitBreaker    = string(gate.Breaker)
	WaitRetryAfter = string(gate.RetryAfter)
	WaitConsent    = string(gate.NoConsent)
	WaitPaused     = string(gate.Paused)
	WaitDisabled   = string(gate.Disabled)
	WaitSlots      = string(gate.Slots)
)

// WaitCauses are all causes of Status.Waiting.
func WaitCauses() []string {
	var all []string
	for _, cause := range gate.Causes() {
		all = append(all, string(cause))
	}
	return all
}

// The states of a breaker.
const (
	BreakerClosed   = gate.Closed
	BreakerOpen     = gate.Opened
	BreakerHalfOpen = gate.HalfOpen
)

// BreakerStates are all states of a breaker.
func BreakerStates() []string { return []string{BreakerClosed, BreakerOpen, BreakerHalfOpen} }

// Status is an endpoint's state and figures, as this Relay sees them at one time. It holds no
// secret.
type Status struct {
	Endpoint string
	State    State
	Reason   string    // of the state, for people: "the receiver answered 410"; of an active one, why there is no consent
	Code     string    // of the state: one of those above; "consent" for an active one without consent; "" while active or if disabled by the file
	Since    time.Time // when the state began; zero when unknown

	PausedToo bool // beside being Disabled: it needs Resume, too

	Waiting   string    // why nothing is claimed right now, one of WaitCauses; "" when claims are made
	Breaker   string    // one of BreakerStates; "" without a breaker
	OpenUntil time.Time // of an open breaker: the next probe is not before; else zero
	HeldUntil time.Time // by Retry-After: no attempt begins before; else zero
	Limit     float64   // sends per second; 0 for none
	Tokens    float64   // in the bucket of the limit now, as far as this Relay knows; 0 without a limit

	// Failing tells of an active endpoint that at least 3 attempts were made over 10 s or more, and none succeeded; nil
	// after a success, and once no attempt is made for longer than the schedule of retries explains.
	Failing *Trouble

	// Ended lists, in the answer to Resume and Enable, what they ended: WaitPaused, WaitDisabled,
	// WaitRetryAfter, WaitBreaker.
	Ended []string

	InFlight int               // attempts under way
	Attempts map[Outcome]int64 // recorded since the process started; an outcome without any may be missing
	LateBy   Histogram         // seconds from when an attempt was due to when it began
	Took     Histogram         // seconds that attempts took
}

// Histogram counts durations since the process started. The zero value is empty.
type Histogram struct {
	Bounds []float64 // upper ends of the buckets, inclusive, ascending, in seconds; shared: read only
	Counts []uint64  // of each bucket alone, and behind them those above the last bound: len(Bounds) + 1
	Sum    float64   // of all values, in seconds
}

// Reasons why the state of an endpoint was not changed.
var (
	// ErrNoEndpoint: neither the file nor the outbox knows an endpoint of this name.
	ErrNoEndpoint = errors.New("no endpoint has this name")
	// ErrInFile: the file says enabled = false, which only a change of the file takes back.
	ErrInFile = errors.New("the endpoint has enabled = false in the file: change it there, and reload")
	// ErrByOperator: an operator paused or disabled the endpoint, which only an operator takes back.
	ErrByOperator = errors.New("an operator paused or disabled the endpoint: only a token with the right \"operate\" takes that back")
)

// Status returns the status of all endpoints of the policy and of the outbox's notes, by name.
func (d *Deliverer) Status() []Status {
	d.mu.Lock()
	names := map[string]bool{}
	for name := range d.enabled {
		names[name] = true
	}
	d.mu.Unlock()
	for _, name := range d.gates.Noted() {
		names[name] = true
	}
	all, ends := make([]Status, 0, len(names)), bounds()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s, ok := d.statusOf(name, ends); ok {
			all = append(all, s)
		}
	}
	return all
}

// StatusOf returns the status of one endpoint, and false if neither policy nor outbox knows it.
func (d *Deliverer) StatusOf(name string) (Status, bool) { return d.statusOf(name, bounds()) }

// statusOf is StatusOf with bounds shared between the histograms of many endpoints.
func (d *Deliverer) statusOf(name string, bounds []float64) (Status, bool) {
	d.mu.Lock()
	enabled, inFile := d.enabled[name]
	r := d.runners[name]
	d.mu.Unlock()
	condition, noted := d.gates.Condition(name)
	if !inFile && !noted {
		return Status{}, false
	}
	s := Status{Endpoint: name, State: Active}
	var st gate.State
	if r != nil && enabled {
		st = r.gate.State()
	} else {
		st.Condition = condition
		st.Disabled = st.Condition.Disabled != nil
	}
	s.Breaker, s.HeldUntil, s.Limit, s.Tokens, s.Waiting = st.Breaker, st.Held, st.Limit, st.Tokens, string(st.Cause)
	if o := st.Condition.Breaker; o != nil && st.Breaker == BreakerOpen {
		s.OpenUntil = o.Until
	}
	var why *gate.Halt
	switch {
	case inFile && !enabled:
		s.State, s.Reason = Disabled, "the file says enabled = false"
	case st.Disabled && st.Condition.Disabled != nil:
		s.State, why = Disabled, st.Condition.Disabled
	case st.Condition.Paused != nil:
		s.State, why = Paused, st.Condition.Paused
	}
	s.PausedToo = s.State == Disabled && st.Condition.Paused != nil
	if why != nil {
		s.Code, s.Reason, s.Since = why.Code, why.Reason, why.At
	}
	if s.State == Active {
		s.Failing = st.Failing
	}
	if s.State != Active {
		s.Waiting = string(s.State)
	} else if st.Cause == gate.NoConsent {
		s.Code, s.Reason = string(gate.NoConsent), st.Why
	}
	if r != nil {
		s.Attempts = map[Outcome]int64{}
		for i, o := range allOutcomes() {
			if n := r.counts.outcomes[i].Load(); n > 0 {
				s.Attempts[o] = n
			}
		}
		s.InFlight = int(r.counts.flying.Load())
		if d := r.counts.seen.Load(); d != nil {
			s.LateBy, s.Took = d.late.read(bounds), d.took.read(bounds)
		}
		if s.Waiting == "" && enabled && r.full() {
			s.Waiting = WaitSlots
		}
	}
	return s, true
}

// full tells whether all slots are in use.
func (r *runner) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now != nil && int(r.counts.flying.Load()) >= r.now.endpoint.Concurrency
}

// Pause holds an endpoint's deliveries until Resume, at all Relays of the outbox and over
// restarts. by says who asked, for people. Attempts under way continue. It returns the new
// status. Errors: ErrNoEndpoint, or the outbox's.
func (d *Deliverer) Pause(ctx context.Context, endpoint, by string) (Status, error) {
	return d.hold(endpoint, EndpointPaused, func() (bool, error) { return d.gates.Pause(ctx, endpoint, by) })
}

// Disable holds an endpoint's deliveries until Enable. Otherwise like Pause.
func (d *Deliverer) Disable(ctx context.Context, endpoint, by string) (Status, error) {
	return d.hold(endpoint, EndpointDisabled, func() (bool, error) { return d.gates.Disable(ctx, endpoint, by) })
}

// Resume ends a pause, a hold that the receiver asked for with Retry-After, and the wait of an
// open breaker, whose probes begin. The time without a successful attempt starts again at 0. It
// returns the new status, with Ended. Errors: as for Pause.
func (d *Deliverer) Resume(ctx context.Context, endpoint, _ string) (Status, error) {
	return d.release(endpoint, EndpointResumed, func() ([]gate.Cause, error) { return d.gates.Resume(ctx, endpoint) })
}

// Enable ends a Disable, or the decision of Relay itself that the receiver is gone or failed for
// too long. The breaker closes and a hold that the receiver asked for ends; a pause stays.
// Errors: ErrInFile; otherwise like Resume.
func (d *Deliverer) Enable(ctx context.Context, endpoint, _ string) (Status, error) {
	d.mu.Lock()
	enabled, inFile := d.enabled[endpoint]
	d.mu.Unlock()
	if inFile && !enabled {
		return Status{}, ErrInFile
	}
	return d.release(endpoint, EndpointEnabled, func() ([]gate.Cause, error) { return d.gates.Enable(ctx, endpoint) })
}

// EnableAgain ends the decision of Relay itself that the receiver is gone or failed for too long, like Enable, and leaves an
// operator's. It is no error if there is none. Errors: ErrByOperator, ErrInFile; otherwise like Resume.
func (d *Deliverer) EnableAgain(ctx context.Context, endpoint, _ string) (Status, error) {
	s, err := d.release(endpoint, EndpointEnabled, func() ([]gate.Cause, error) {
		if ended, err := d.gates.EnableAgain(ctx, endpoint); err != nil || !ended {
			return nil, err
		}
		return []gate.Cause{gate.Disabled}, nil
	})
	switch {
	case err != nil || s.State == Active || len(s.Ended) > 0:
		return s, err
	case s.Code == ByOperator:
		return Status{}, ErrByOperator
	case s.Code == "":
		return Status{}, ErrInFile
	}
	return s, nil // Relay disables it at this moment: its decision is not in the outbox yet
}

// hold carries out an operator's decision, and raises an event if it changed something.
func (d *Deliverer) hold(endpoint, raise string, do func() (changed bool, err error)) (Status, error) {
	if _, known := d.StatusOf(endpoint); !known {
		return Status{}, ErrNoEndpoint
	}
	changed, err := do()
	if err != nil {
		return Status{}, err
	}
	s, _ := d.StatusOf(endpoint)
	if changed {
		d.raiseDecision(raise, &s)
	}
	return s, nil
}

// release ends an operator's decision, and raises an event if the endpoint's state changed.
func (d *Deliverer) release(endpoint, raise string, do func() (ended []gate.Cause, err error)) (Status, error) {
	before, known := d.StatusOf(endpoint)
	if !known {
		return Status{}, ErrNoEndpoint
	}
	ended, err := do()
	if err != nil {
		return Status{}, err
	}
	s, _ := d.StatusOf(endpoint)
	for _, cause := range ended {
		s.Ended = append(s.Ended, string(cause))
	}
	if slices.Contains(s.Ended, WaitPaused) || slices.Contains(s.Ended, WaitDisabled) || s.State != before.State {
		d.raiseDecision(raise, &s)
	}
	return s, nil
}

func (d *Deliverer) raiseDecision(kind string, s *Status) {
	d.raise(kind, s.Endpoint, d.at(time.Now()), EndpointChanged{Endpoint: s.Endpoint, State: s.State, Code: ByOperator, Reason: s.Reason})
}
