package deliver

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/sign"
)

// maxKeptDraft is how much body memory is kept for further attempts, in bytes.
const maxKeptDraft = 64 << 10

// draft is what one attempt sends, before the network. Its memory is kept for the next.
type draft struct {
	message sign.Message
	view    policy.View
	header  []sign.Header
	body    []byte
}

// build makes the header and the body of the next attempt of c, signed at the time
// now. url is e.URL as text. The error says why the endpoint's own body cannot be made of
// this event; no later attempt would do better.
func (d *draft) build(e *policy.Endpoint, c *outbox.Claim, url, userAgent string, now time.Time) error {
	if e.Body == nil {
		d.body = appendEnvelope(d.body[:0], c.Event)
	} else {
		d.view = policy.View{
			ID: c.EventID, Type: c.Event.Type, Tenant: c.Event.Tenant, Key: c.Event.Key,
			Time: c.Event.Time, Data: c.Event.Data, Delivery: c.ID,
		}
		var err error
		if d.body, err = e.Body.Append(d.body[:0], &d.view); err != nil {
			return err
		}
	}
	d.message = sign.Message{
		EventID:    c.EventID,
		EventType:  c.Event.Type,
		DeliveryID: c.ID,
		Endpoint:   c.Endpoint,
		Method:     "POST",
		URL:        url,
		Attempt:    c.Attempts + 1,
		Time:       now,
		Body:       d.body,
	}
	d.header = appendHeader(d.header[:0], e, &d.message, userAgent)
	if e.Body != nil {
		d.header = e.Body.AppendHeader(d.header, &d.view)
	}
	return nil
}

// appendHeader appends the request's header to h, which is empty. The endpoint's
// own lines may replace the first two and nothing else of ours; signatures are of what
// is sent.
func appendHeader(h []sign.Header, e *policy.Endpoint, m *sign.Message, userAgent string) []sign.Header {
	m.ContentType = "application/json"
	if e.Body != nil {
		m.ContentType = e.Body.ContentType()
	}
	for _, own := range e.Headers {
		if strings.EqualFold(own.Name, "Content-Type") {
			m.ContentType = strings.TrimSpace(own.Value.Reveal())
		}
	}
	h = append(h,
		sign.Header{Name: "Content-Type", Value: m.ContentType},
		sign.Header{Name: "User-Agent", Value: userAgent})
	for _, s := range e.Signers {
		h = s.Sign(h, m)
	}
	if indexOf(h, "webhook-id") < 0 {
		h = append(h, sign.Header{Name: "webhook-id", Value: m.EventID})
	}
	h = append(h,
		sign.Header{Name: "Relay-Attempt", Value: strconv.Itoa(m.Attempt)},
		sign.Header{Name: "Relay-Delivery", Value: m.DeliveryID})
	for _, own := range e.Headers {
		switch i := indexOf(h, own.Name); {
		case i < 0:
			h = append(h, sign.Header{Name: own.Name, Value: own.Value.Reveal()})
		case i < 2:
			h[i].Value = own.Value.Reveal()
		}
	}
	return h
}

func indexOf(h []sign.Header, name string) int {
	return slices.IndexFunc(h, func(l sign.Header) bool { return strings.EqualFold(l.Name, name) })
}

func userAgent(version string) string { return "Relay/" + version }
