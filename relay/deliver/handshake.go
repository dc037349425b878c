package deliver

import (
	"math"
	"strconv"
	"strings"
	"time"

	"relay/policy"
	"relay/policy/sign"
	"relay/relay/gate"
	"relay/relay/post"
)

// The handshake of "HTTP 1.1 Web Hooks for Event Delivery" 1.0 (CloudEvents), section 4: a
// receiver is asked with OPTIONS whether it wants events of this origin. Only the answer can give
// consent: there is no WebHook-Request-Callback, because receivers cannot connect to Relay. The
// endpoint's own headers are not sent, because they may hold a credential; the specification's
// handshake has none.

// handshake asks the receiver of s for its consent, and reports the answer to the gate. It takes
// at most as long as an attempt, and ends when s is replaced.
func (r *runner) handshake(s *setup) {
	c := r.d.askConsent(s)
	if s.claiming.Err() != nil {
		return
	}
	again := r.gate.Asked(s.endpoint, c)
	if c.Given {
		r.d.o.Log.Info().Str("endpoint", r.name).Time("next_at", again).Msg("the receiver consents to events")
		return
	}
	r.d.o.Log.Warn().Str("endpoint", r.name).Str("code", string(gate.NoConsent)).Str("error", c.Why).Time("next_at", again).
		Msg("no consent of the receiver: nothing is sent to it before it is asked again")
}

// askConsent makes one request, on a connection of its own.
func (d *Deliverer) askConsent(s *setup) gate.Consent {
	e := s.endpoint
	out := d.client.Sender(s.claiming, e)
	defer out.Close()
	header := []sign.Header{{Name: "User-Agent", Value: d.userAgent}, {Name: "WebHook-Request-Origin", Value: e.Origin}}
	if limit := e.RateLimit; limit != nil {
		header = append(header, sign.Header{Name: "WebHook-Request-Rate", Value: perMinute(limit)})
	}
	a, f := out.Send(s.claiming, post.Request{Method: "OPTIONS", Header: header, Until: time.Now().Add(e.Timeout.Total)})
	switch {
	case f != nil && f.Code == policy.CodeTimeout:
		return gate.Consent{Why: s.late()}
	case f != nil:
		return gate.Consent{Why: f.Text}
	}
	return consentOf(&a, e.Origin)
}

// perMinute is a rate limit as the header has it: whole requests, at least one.
func perMinute(l *policy.RateLimit) string {
	return strconv.FormatFloat(max(1, math.Floor(float64(l.N)/l.Per.Minutes())), 'f', 0, 64)
}

// consentOf reads the answer to a handshake.
func consentOf(a *post.Answer, origin string) gate.Consent {
	allowed := lineOf(a.Head, "Webhook-Allowed-Origin")
	switch {
	case a.Status < 200 || a.Status > 299:
		return gate.Consent{Why: "the receiver answered " + strconv.Itoa(a.Status) + " to the handshake"}
	case allowed == "":
		return gate.Consent{Why: "the receiver's answer to the handshake has no WebHook-Allowed-Origin"}
	case allowed != "*" && !strings.EqualFold(allowed, origin):
		return gate.Consent{Why: "the receiver allows events of another origin, not of " + origin}
	}
	c := gate.Consent{Given: true}
	if rate := lineOf(a.Head, "Webhook-Allowed-Rate"); rate != "" && rate != "*" {
		n, err := strconv.ParseInt(rate, 10, 32)
		if err != nil || n < 1 {
			return gate.Consent{Why: "the receiver's WebHook-Allowed-Rate is no number of requests per minute"}
		}
		c.Rate = int(n)
	}
	return c
}

// lineOf returns the value of the first line of that canonical name in a record of a head.
func lineOf(head, name string) string {
	for line := range strings.Lines(head) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
