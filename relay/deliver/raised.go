package deliver

import "time"

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

// Raised is something that Relay says of itself.
type Raised struct {
	Type     string
	Endpoint string    // that it is about: it is not told
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

// FailedDelivery is the data of relay.delivery.failed. It is not raised for deliveries
// of Relay's own events, which would go round in circles.
type FailedDelivery struct {
	Endpoint   string `json:"endpoint"`
	EventID    string `json:"event_id"`
	EventType  string `json:"event_type"`
	DeliveryID string `json:"delivery_id"`
	Attempts   int    `json:"attempts"`
	Outcome    string `json:"outcome"`          // of the last attempt: retry (there was no attempt left), refused, gone
	Code       string `json:"code"`             // of the last attempt
	Status     int    `json:"status,omitempty"` // HTTP status of its answer, if there was one
	Error      string `json:"error,omitempty"`  // for people
}
