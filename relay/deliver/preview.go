package deliver

import (
	"strings"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/post"
)

// Request is the request of an attempt, as HTTP/1.1.
type Request struct {
	Line   string        // "POST /hooks HTTP/1.1"
	Header []sign.Header // complete, in the order of the wire
	Body   []byte
}

// PreviewDelivery is the id in previews, which have no delivery yet.
const PreviewDelivery = "dlv_preview"

// Preview returns what the first attempt for e would send at the time now, made by the code of
// real attempts. Nothing is sent. The result contains the endpoint's secrets: pass a copy without
// them if others will see it. The error says why the endpoint's body cannot be made of the event.
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

// Body returns the body that an attempt for e would have, without what a batch adds to it. The error is that of
// Preview.
func Body(e *policy.Endpoint, event *outbox.Event, deliveryID string) ([]byte, error) {
	var d draft
	c := outbox.Claim{Delivery: outbox.Delivery{ID: deliveryID, EventID: event.ID, Endpoint: e.Name}, Event: event}
	if err := d.appendBody(e, &c); err != nil {
		return nil, err
	}
	return d.body, nil
}

// Span is when an attempt begins after the first one: the sum of the schedule's delays, at the
// least and the most jitter. The duration of attempts and Retry-After come on top.
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
