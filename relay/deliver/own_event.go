package deliver

import (
	"time"

	"relay/outbox"
	"relay/relay/gate"
)

// The types of Relay's own events that delivering raises.
const (
	EndpointDisabled   = "relay.endpoint.disabled" // by an operator or by Relay; Data is EndpointChanged
	EndpointEnabled    = "relay.endpoint.enabled"
	EndpointPaused     = "relay.endpoint.paused"
	EndpointResumed    = "relay.endpoint.resumed"
	BreakerOpened      = "relay.breaker.opened" // Data is BreakerChanged
	BreakerClosedAgain = "relay.breaker.closed"
	DeliveryFailed     = "relay.delivery.failed" // a delivery is over without success; Data is FailedDelivery
)

// OwnEvent is an event about Relay itself.
type OwnEvent struct {
	Type     string
	Endpoint string    // that it is about; it does not get the event
	At       time.Time // when it happened
	Data     any       // one of the structs below, a JSON object; no secret, no payload
}

// EndpointChanged is the data of relay.endpoint.*.
type EndpointChanged struct {
	Endpoint string `json:"endpoint"`
	State    State  `json:"state"`            // now
	Code     string `json:"code,omitempty"`   // operator, gone, failing
	Reason   string `json:"reason,omitempty"` // for people
}

// BreakerChanged is the data of relay.breaker.*.
type BreakerChanged struct {
	Endpoint  string    `json:"endpoint"`
	Breaker   string    `json:"breaker"`             // now
	OpenUntil time.Time `json:"open_until,omitzero"` // of one that is open: the next probe is not before
}

// FailedDelivery is the data of relay.delivery.failed. It is not raised for deliveries of Relay's
// own events, because that would never end.
type FailedDelivery struct {
	Endpoint   string `json:"endpoint"`
	EventID    string `json:"event_id"`
	EventType  string `json:"event_type"`
	DeliveryID string `json:"delivery_id,omitempty"` // "" for one that failed without an attempt
	Attempts   int    `json:"attempts"`
	Outcome    string `json:"outcome"`          // of the last attempt: retry (there was no attempt left), refused, gone
	Code       string `json:"code"`             // of the last attempt, or when_error without one
	Status     int    `json:"status,omitempty"` // HTTP status of its answer, if there was one
	Error      string `json:"error,omitempty"`  // for people
}

func (d *Deliverer) raise(kind, endpoint string, at time.Time, data any) {
	if d.o.Raise != nil {
		d.o.Raise(OwnEvent{Type: kind, Endpoint: endpoint, At: at, Data: data})
	}
}

// raiseTransition logs a change that a gate made, and raises its event.
func (d *Deliverer) raiseTransition(h gate.Transition) {
	switch h.What {
	case gate.ToOpen:
		d.o.Log.Warn().Str("endpoint", h.Endpoint).Time("next_at", h.Until).
			Msg("breaker opened: most attempts failed, so none are made for a while")
		d.raise(BreakerOpened, h.Endpoint, h.At, BreakerChanged{Endpoint: h.Endpoint, Breaker: BreakerOpen, OpenUntil: h.Until})
	case gate.ToClosed:
		d.o.Log.Info().Str("endpoint", h.Endpoint).Msg("breaker closed: the endpoint is well again")
		d.raise(BreakerClosedAgain, h.Endpoint, h.At, BreakerChanged{Endpoint: h.Endpoint, Breaker: BreakerClosed})
	case gate.ToDisabled:
		d.o.Log.Warn().Str("endpoint", h.Endpoint).Str("code", h.Code).Str("next", "mend the receiver, then: relay enable "+h.Endpoint).
			Msg("endpoint disabled: " + h.Reason + "; its deliveries are held")
		d.raise(EndpointDisabled, h.Endpoint, h.At, EndpointChanged{Endpoint: h.Endpoint, State: Disabled, Code: h.Code, Reason: h.Reason})
	}
}

// raiseFailed tells of a delivery that is over without success.
func (d *Deliverer) raiseFailed(res *Result) {
	if res.State != outbox.Failed {
		return
	}
	a := &res.Attempt
	d.raise(DeliveryFailed, res.Endpoint, a.Started.Add(a.Took), FailedDelivery{
		Endpoint: res.Endpoint, EventID: res.EventID, EventType: res.EventType, DeliveryID: res.DeliveryID,
		Attempts: a.N, Outcome: a.Outcome, Code: a.Code, Status: a.Status, Error: a.Error,
	})
}
