package deliver

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
)

// maxKeptDraft is how much body memory is kept for further attempts, in bytes.
const maxKeptDraft = 64 << 10

// draft is the request of one attempt. Its memory is reused.
type draft struct {
	message sign.Message
	view    policy.View
	header  []sign.Header
	body    []byte
	meter   policy.Meter // costs of the events in body
}

// build makes the header and the body of the next attempt of c alone, signed at the time now. url
// is e.URL as text. The error says why the endpoint's own body cannot be made of this event; a
// later attempt would fail in the same way.
func (d *draft) build(e *policy.Endpoint, c *outbox.Claim, url, userAgent string, now time.Time) error {
	d.body, d.meter = d.body[:0], policy.Meter{}
	if e.Batch != nil {
		err := d.add(e, c)
		if err == nil {
			d.seal(e, []outbox.Claim{*c}, url, userAgent, now)
		}
		return err
	}
	if err := d.appendBody(e, c); err != nil {
		return err
	}
	d.message = sign.Message{EventID: c.EventID, EventType: c.Event.Type, DeliveryID: c.ID, Attempt: c.Attempts + 1}
	d.address(e, url, userAgent, now)
	d.header = e.Body.AppendHeader(d.header, &d.view)
	return nil
}

// appendBody appends the body for the event of c.
func (d *draft) appendBody(e *policy.Endpoint, c *outbox.Claim) (err error) {
	d.view = policy.View{
		ID: c.EventID, Type: c.Event.Type, Tenant: c.Event.Tenant, Key: c.Event.Key,
		Time: c.Event.Time, Data: c.Event.Data, Delivery: c.ID,
	}
	d.view.Meter = &d.meter
	d.body, err = e.Body.Append(d.body, &d.view)
	return err
}

// took reports whether the bodies of a batch took over budget together, so that no further event
// is waited for, because a lease ends. 0 is no bound.
func (d *draft) took(budget time.Duration) bool { return budget > 0 && d.meter.Took > budget }

// address completes the message, apart from its ids, and makes the header.
func (d *draft) address(e *policy.Endpoint, url, userAgent string, now time.Time) {
	d.message.Endpoint, d.message.Method, d.message.URL = e.Name, "POST", url
	d.message.Time, d.message.Body = now, d.body
	d.header = appendHeader(d.header[:0], e, &d.message, userAgent)
}

// appendHeader appends the request's header to h, which is empty. The endpoint's own headers may
// replace the first two lines and no other line; signatures cover the result.
func appendHeader(h []sign.Header, e *policy.Endpoint, m *sign.Message, userAgent string) []sign.Header {
	m.ContentType = e.ContentType()
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
