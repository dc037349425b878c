package deliver

import (
	"strings"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/post"
)

// Request is what an attempt would send, as HTTP/1.1 has it.
type Request struct {
	Line   string        // "POST /hooks HTTP/1.1"
	Header []sign.Header // all of it, in the order of the wire
	Body   []byte
}

// PreviewDelivery stands for the id of a delivery where there is none yet.
const PreviewDelivery = "dlv_preview"

// Preview returns what the first attempt for e would send at the time now, made by the
// code that makes and writes attempts. Nothing is sent. It holds what the endpoint
// holds: who shows it to others gives an endpoint without secrets. The error says why the
// endpoint's body cannot be made of the event.
func Preview(e *policy.Endpoint, event *outbox.Event, version string, now time.Time) (Request, error) {
	var d draft
	c := outbox.Claim{
		Delivery: outbox.Delivery{ID: PreviewDelivery, EventID: event.ID, Endpoint: e.Name},
		Event:    event,
	}
	if err := d.build(e, &c, e.RequestURL().String(), userAgent(version), now); err != nil {
		return Request{}, err
	}

	wire := post.Render(e, post.Request{Header: d.header, Body: d.body})
	head, body, _ := strings.Cut(string(wire), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	r := Request{Line: lines[0], Body: []byte(body)}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		r.Header = append(r.Header, sign.Header{Name: name, Value: value})
	}
	return r, nil
}

// Span is when an attempt begins, counted from the first one: the schedule's delays so
// far, with the least and the most that jitter makes of them. What attempts themselves
// take, and more time that a receiver asks for, come on top.
type Span struct {
	Least, Most time.Duration
}

// Spans returns the span of each attempt, the first included.
func Spans(s *policy.Steps) []Span {
	spans := []Span{{}}
	for n := 1; ; n++ {
		least, ok := backoff(s, n, 0)
		if !ok {
			return spans
		}
		most, _ := backoff(s, n, 1)
		last := spans[n-1]
		spans = append(spans, Span{last.Least + least, last.Most + most})
	}
}
