package admin

import (
	"encoding/json"
	"fmt"
	"time"
)

// DeliveryList is a page of deliveries.
type DeliveryList struct {
	Items []Delivery `json:"items"`
	Next  *string    `json:"next"`            // cursor of the next page, null after the last one
	Total *Total     `json:"total,omitempty"` // of all pages
}

// Total is a number of deliveries: exact, or the least that it is where counting takes too long.
type Total struct {
	N       int64
	AtLeast bool
}

// MarshalJSON writes n, or {"at_least":n}.
func (t Total) MarshalJSON() ([]byte, error) {
	if t.AtLeast {
		return fmt.Appendf(nil, `{"at_least":%d}`, t.N), nil
	}
	return fmt.Appendf(nil, "%d", t.N), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Total) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '{' {
		t.AtLeast = false
		return json.Unmarshal(text, &t.N)
	}
	var least struct {
		N *int64 `json:"at_least"`
	}
	if err := json.Unmarshal(text, &least); err != nil || least.N == nil {
		return fmt.Errorf("total is neither a number nor has at_least: %w", err)
	}
	t.N, t.AtLeast = *least.N, true
	return nil
}

// Delivery is one event for one endpoint.
type Delivery struct {
	ID       string   `json:"id"`
	Event    EventRef `json:"event"`
	Endpoint string   `json:"endpoint"`
	State    string   `json:"state"` // pending, held, delivered, failed or discarded

	Code  string `json:"code,omitempty"`  // of the state or of the last attempt
	Error string `json:"error,omitempty"` // of the last attempt, for people

	Attempts    int `json:"attempts"`               // recorded so far
	MaxAttempts int `json:"max_attempts,omitempty"` // by the schedule of the running file; left out for an endpoint that is not in it

	Created     time.Time `json:"created"`
	NextAttempt time.Time `json:"next_attempt,omitzero"` // while pending or held: not before, by its schedule and by an open breaker or a Retry-After of the endpoint
	Waits       string    `json:"waits,omitempty"`       // what it waits for beside its time: one of the causes of waiting of an endpoint, or the state of an endpoint that holds it
	Finished    time.Time `json:"finished,omitzero"`

	Last *Last `json:"last"` // attempt; null if there was none

	RedeliveryOf  string   `json:"redelivery_of,omitempty"`  // id of the delivery that this one repeats; left out if that is not there for the token; in lists it may be no longer kept
	RedeliveredAs []string `json:"redelivered_as,omitempty"` // ids of those that repeat it; only in the answer for one delivery or event
	Manual        bool     `json:"manual,omitempty"`         // made by an operator: a test or a redelivery
	Resent        bool     `json:"resent,omitempty"`         // the event was sent again to the same endpoint by a later delivery; only in lists
}

// EventRef names an event.
type EventRef struct {
	ID     string    `json:"id"`
	Type   string    `json:"type"`
	Tenant string    `json:"tenant,omitempty"`
	Key    string    `json:"key,omitempty"`
	Time   time.Time `json:"time"` // of the occurrence by the app, else of the accept
}

// Last is the last attempt of a delivery, in short.
type Last struct {
	N       int       `json:"n"`
	Started time.Time `json:"started"`
	TookMS  float64   `json:"took_ms"`
	Status  int       `json:"status"` // of HTTP, 0 if no answer came
	Code    string    `json:"code,omitempty"`
	Relay   string    `json:"relay,omitempty" bound:"-"` // which one made it
}

// DeliveryWhole is a delivery with everything that is known of it.
type DeliveryWhole struct {
	Delivery

	Payload json.RawMessage `json:"payload"`                    // the event's data as it came, without white space between tokens; null if it was erased
	Erased  time.Time       `json:"erased,omitzero"`            // when the data was erased
	LeftOut bool            `json:"payload_left_out,omitempty"` // payload and bodies are not shown: the token has no right payload
	Request *SentRequest    `json:"request"`                    // of the last attempt; null if nothing was sent
	History []Attempt       `json:"history"`                    // attempts, oldest first
}

// SentRequest is the request of an attempt.
type SentRequest struct {
	Method  string   `json:"method"`
	URL     string   `json:"url"`     // without user and query
	Headers []Header `json:"headers"` // values of signatures and of the endpoint's own headers are ***

	Body *RebuiltBody `json:"body"` // null if it cannot be made again: error says why

	Error string `json:"error,omitempty"`
}

// RebuiltBody is a request's body, which is not kept: it is made again from the event by the file that runs now.
// If the endpoint's body was changed since the attempt, it differs from what was sent.
type RebuiltBody struct {
	Text       string `json:"text"`
	Generation int64  `json:"generation,omitempty" bound:"-"` // of the configuration that made it; compare that of the attempt
	MayDiffer  bool   `json:"may_differ,omitempty"`           // another configuration made the attempt
	Batch      bool   `json:"batch,omitempty"`                // the endpoint sends batches: this is the part of one event
}

// Header is a header line.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Attempt is one POST.
type Attempt struct {
	N       int       `json:"n"`
	Started time.Time `json:"started"`
	TookMS  float64   `json:"took_ms"`
	Timings Timings   `json:"timings"`
	Reused  bool      `json:"reused"`         // the connection had served before
	Peer    string    `json:"peer,omitempty"` // address that was dialled
	Status  int       `json:"status"`         // of HTTP, 0 if no answer came
	Outcome string    `json:"outcome"`        // delivered, retry, refused or gone
	Code    string    `json:"code,omitempty"`
	Error   string    `json:"error,omitempty"`

	RequestHeaders []Header  `json:"request_headers"` // as sent; values of signatures and of the endpoint's own headers are ***
	Response       *Response `json:"response"`        // null if no answer came

	NextAttempt time.Time `json:"next_attempt,omitzero"`          // that this one led to
	Relay       string    `json:"relay,omitempty" bound:"-"`      // which one made it
	Generation  int64     `json:"generation,omitempty" bound:"-"` // of that Relay's configuration
	Manual      bool      `json:"manual,omitempty"`               // of a test or a redelivery
}

// Timings are the phases of an attempt, in milliseconds. Those that did not occur, like the dial of a
// connection that had served before, are 0.
type Timings struct {
	DNS       float64 `json:"dns"`
	Connect   float64 `json:"connect"`
	TLS       float64 `json:"tls"`
	FirstByte float64 `json:"first_byte"`
	Total     float64 `json:"total"`
}

// Response is the answer of a receiver, as far as it is kept: 8 KiB of header lines and 16 KiB of the body.
type Response struct {
	Headers   []Header `json:"headers"`
	Body      string   `json:"body"`
	Encoding  string   `json:"encoding,omitempty"`  // base64 for a body that is not UTF-8
	Truncated bool     `json:"truncated,omitempty"` // the body was longer, or not read to its end
}

// EventWhole is an event with its deliveries.
type EventWhole struct {
	EventRef
	Data     json.RawMessage   `json:"data"`            // as it came, without white space between tokens; null if it was erased
	Erased   time.Time         `json:"erased,omitzero"` // when the data was erased
	Accepted time.Time         `json:"accepted"`
	Via      string            `json:"via,omitempty"`             // unix, http, front or relay
	Relay    string            `json:"relay,omitempty" bound:"-"` // which one accepted it
	Trace    string            `json:"trace,omitempty"`           // traceparent, and after a space tracestate
	Indexed  map[string]string `json:"indexed,omitempty"`         // fields by which its deliveries can be found, by path

	Deliveries []Delivery `json:"deliveries"`
	LeftOut    bool       `json:"payload_left_out,omitempty"` // data and indexed fields are not shown: the token has no right payload
	Unwanted   bool       `json:"unwanted,omitempty"`         // no endpoint wanted it when it was accepted: no pattern fitted its type, or filters left it out
}
