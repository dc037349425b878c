package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"relay/outbox"
	"relay/relay/gate"
)

// State tells whether an endpoint takes deliveries.
type State string

// The states.
const (
	Active   State = "active"
	Paused   State = "paused"   // by an operator
	Disabled State = "disabled" // in the file, by an operator, or by Relay
)

// Status is what an operator sees of an endpoint: as all Relays of the outbox know it,
// and what this process does for it.
type Status struct {
	Endpoint string
	State    State
	Reason   string // why it is not active, or has no consent, for people
	Code     string // the same for programs: operator, gone, failing, file, consent
	Since    time.Time

	Waiting   string    // why nothing is claimed now: limit, breaker, retry_after, consent, paused, disabled, slots; "" when something may be
	Breaker   string    // closed, open or half_open; "" without a rule
	OpenUntil time.Time // of the breaker
	HeldUntil time.Time // as the receiver asked
	Limit     float64   // sends per second, 0 for none
	Tokens    float64   // as far as this process knows
	InFlight  int       // attempts of this process

	// Since this process started.
	Attempts     map[Outcome]int64
	LateBy, Took Histogram
}

// Errors of Pause, Resume, Enable and Disable, beside those of the outbox.
var (
	// ErrNoEndpoint: neither the file nor the outbox knows the name.
	ErrNoEndpoint = errors.New("no endpoint has this name")
	// ErrInFile: the file says enabled = false.
	ErrInFile = errors.New("the file says enabled = false: change it there")
)

// Raised is something that happened to an endpoint or a delivery, for those who want
// to hear of it (design section 8: Relay's own events).
type Raised struct {
	Type     string // relay.endpoint.disabled and the like
	Endpoint string // that it is about
	At       time.Time
	Data     any // becomes a JSON object
}

// EndpointRaised is the Data of relay.endpoint.* and relay.breaker.*.
type EndpointRaised struct {
	Endpoint string    `json:"endpoint"`
	Code     string    `json:"code,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

// DeliveryRaised is the Data of relay.delivery.failed.
type DeliveryRaised struct {
	Endpoint   string `json:"endpoint"`
	DeliveryID string `json:"delivery_id"`
	EventID    string `json:"event_id"`
	EventType  string `json:"event_type"`
	Attempts   int    `json:"attempts"`
	Status     int    `json:"status,omitempty"`
	Code       string `json:"code"`
	Error      string `json:"error"`
}

func (d *Deliverer) raiseHappening(h gate.Happening) {
	e := d.o.Log.Warn()
	if h.What == gate.BreakerClosed {
		e = d.o.Log.Info()
	}
	e = e.Str("endpoint", h.Endpoint)
	if !h.Until.IsZero() {
		e = e.Time("next_at", h.Until)
	}
	if h.Code != "" {
		e = e.Str("code", h.Code)
	}
	switch h.What {
	case gate.BreakerOpened:
		e.Msg("breaker opened: most attempts fail, so none are made for a while")
	case gate.BreakerClosed:
		e.Msg("breaker closed: the endpoint is well again")
	case gate.EndpointDisabled:
		e.Str("next", "mend the receiver, then: relay enable "+h.Endpoint).Msg("endpoint disabled: " + h.Reason + "; its deliveries are held")
	}
	if d.o.Raise != nil {
		d.o.Raise(Raised{
			Type: "relay." + h.What, Endpoint: h.Endpoint, At: h.At,
			Data: EndpointRaised{Endpoint: h.Endpoint, Code: h.Code, Reason: h.Reason, Until: h.Until},
		})
	}
}

// raiseFailed tells of a delivery that is over without success.
func (d *Deliverer) raiseFailed(res *Result) {
	if d.o.Raise == nil || res.State != outbox.Failed {
		return
	}
	a := &res.Attempt
	d.o.Raise(Raised{
		Type: "relay.delivery.failed", Endpoint: res.Endpoint, At: a.Started.Add(a.Took),
		Data: DeliveryRaised{
			Endpoint: res.Endpoint, DeliveryID: res.DeliveryID, EventID: res.EventID, EventType: res.EventType,
			Attempts: a.N, Status: a.Status, Code: a.Code, Error: a.Error,
		},
	})
}

// Status returns the status of all endpoints that the policy or the outbox has
// something to say about, by name.
func (d *Deliverer) Status() []Status {
	d.mu.Lock()
	names := map[string]bool{}
	for name := range d.enabled {
		names[name] = true
	}
	for name := range d.notes {
		names[name] = true
	}
	d.mu.Unlock()
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s, ok := d.StatusOf(name); ok {
			all = append(all, s)
		}
	}
	return all
}

// StatusOf returns the status of one endpoint, and false when nothing is known about it.
func (d *Deliverer) StatusOf(name string) (Status, bool) {
	d.mu.Lock()
	enabled, inFile := d.enabled[name]
	note, noted := d.notes[name]
	r := d.runners[name]
	d.mu.Unlock()
	if !inFile && !noted {
		return Status{}, false
	}
	s := Status{Endpoint: name, State: Active}
	var st gate.State
	if r != nil && enabled {
		st = r.gate.State()
	} else {
		st.Condition, _ = gate.ParseCondition(note.Text) // one that is not understood says nothing
		st.Disabled = st.Condition.Disabled != nil
	}
	s.Breaker, s.HeldUntil, s.Limit, s.Tokens, s.Waiting = st.Breaker, st.Held, st.Limit, st.Tokens, string(st.Cause)
	if o := st.Condition.Breaker; o != nil && st.Breaker == "open" {
		s.OpenUntil = o.Until
	}
	var why *gate.Decision
	switch {
	case inFile && !enabled:
		s.State, s.Code, s.Reason = Disabled, "file", "the file says enabled = false"
	case st.Disabled && st.Condition.Disabled != nil:
		s.State, why = Disabled, st.Condition.Disabled
	case st.Condition.Paused != nil:
		s.State, why = Paused, st.Condition.Paused
	}
	if why != nil {
		s.Code, s.Reason, s.Since = why.Code, why.Reason, why.At
	}
	if s.State != Active {
		s.Waiting = string(s.State)
	} else if st.Cause == gate.NoConsent {
		s.Code, s.Reason = string(gate.NoConsent), st.Why
	}
	s.Attempts = map[Outcome]int64{}
	if r != nil {
		for i, o := range allOutcomes() {
			s.Attempts[o] = r.counts.outcomes[i].Load()
		}
		s.InFlight = int(r.counts.flying.Load())
		s.LateBy, s.Took = r.counts.late.read(), r.counts.took.read()
		if s.Waiting == "" && enabled && r.full() {
			s.Waiting = "slots"
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

// Pause holds an endpoint's deliveries until Resume, at all Relays of the outbox. by says
// who wants it, for people.
func (d *Deliverer) Pause(ctx context.Context, endpoint, by string) (Status, error) {
	return d.decide(ctx, endpoint, "relay.endpoint.paused", func(c *gate.Condition) bool {
		if c.Paused != nil {
			return false
		}
		c.Paused = decision(by)
		return true
	})
}

// Resume ends what Pause began.
func (d *Deliverer) Resume(ctx context.Context, endpoint, by string) (Status, error) {
	return d.decide(ctx, endpoint, "relay.endpoint.resumed", func(c *gate.Condition) bool {
		paused := c.Paused != nil
		c.Paused = nil
		return paused
	})
}

// Disable holds an endpoint's deliveries until Enable, at all Relays of the outbox.
func (d *Deliverer) Disable(ctx context.Context, endpoint, by string) (Status, error) {
	return d.decide(ctx, endpoint, "relay.endpoint.disabled", func(c *gate.Condition) bool {
		if c.Disabled != nil && c.Disabled.Code == gate.ByOperator {
			return false
		}
		c.Disabled = decision(by)
		return true
	})
}

// Enable ends what Disable began, or Relay itself when the receiver was gone or failed for
// too long. The breaker closes, and what the receiver asked for is over. Errors: ErrInFile.
func (d *Deliverer) Enable(ctx context.Context, endpoint, by string) (Status, error) {
	d.mu.Lock()
	enabled, inFile := d.enabled[endpoint]
	d.mu.Unlock()
	if inFile && !enabled {
		return Status{}, fmt.Errorf("enable endpoint %s: %w", endpoint, ErrInFile)
	}
	return d.decide(ctx, endpoint, "relay.endpoint.enabled", func(c *gate.Condition) bool {
		before := *c
		*c = gate.Condition{Paused: c.Paused}
		return *c != before
	})
}

func decision(by string) *gate.Decision {
	return &gate.Decision{At: time.Now().UTC().Round(0), Code: gate.ByOperator, Reason: "by " + by}
}

// decide carries out what an operator wants, and raises it where that changed something.
func (d *Deliverer) decide(ctx context.Context, endpoint, raise string, change func(*gate.Condition) bool) (Status, error) {
	if _, known := d.StatusOf(endpoint); !known {
		return Status{}, ErrNoEndpoint
	}
	var now gate.Condition
	written, err := d.remember(ctx, endpoint, func(c *gate.Condition) bool {
		changed := change(c)
		now = *c
		return changed
	})
	if err != nil {
		return Status{}, err
	}
	if written && d.o.Raise != nil {
		data := EndpointRaised{Endpoint: endpoint, Code: gate.ByOperator}
		for _, why := range []*gate.Decision{now.Paused, now.Disabled} {
			if why != nil {
				data.Reason = why.Reason
			}
		}
		d.o.Raise(Raised{Type: raise, Endpoint: endpoint, At: time.Now(), Data: data})
	}
	s, _ := d.StatusOf(endpoint)
	return s, nil
}
