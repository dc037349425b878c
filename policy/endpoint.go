package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"relay/config"
	"relay/policy/sign"
)

// endpoint decodes a block. The result is used only if there was no problem. body makes its body.
func (d *decoder) endpoint(b *config.Block, body func(*Endpoint, *config.Block)) *Endpoint {
	checkName(b)
	e := &Endpoint{Name: b.Name, Enabled: true}
	b.String("description", &e.Description)
	e.readLabels(b)
	b.Bool("enabled", &e.Enabled)

	policy := defaultPolicy
	if b.String("policy", &policy) && !slices.Contains(d.policyNames, policy) {
		b.Invalid("policy", fmt.Sprintf("there is no policy %q.%s", b.At("policy").Quote(policy), config.Suggest(policy, d.policyNames)))
		policy = defaultPolicy
	}
	s := d.policies[policy]
	s.read(b)
	s.fill(e)
	e.Breaker, e.RateLimit = shared(d.breakers, e.Breaker), shared(d.rateLimits, e.RateLimit)
	e.drawn = s.drawn

	e.readURL(b, d.listeners)
	if e.URL != nil && e.URL.Scheme == "http" {
		if own := s.tls.last; own != nil {
			b.Fail(own.Place(), "Unused tls", "the endpoint's url begins with http://. Write https://, or remove the block.")
		}
		e.TLS = TLS{}
	}
	e.readHandshake(b)
	d.readEvents(e, b)
	e.readFilter(b, d.shards, d.lane)
	e.Signers = d.signers(b)
	e.readHeaders(b)
	body(e, b)
	e.checkBatch(b)
	b.Done()
	return e
}

// readURL reads the URL as a secret: some have a credential in their path.
func (e *Endpoint) readURL(b *config.Block, listeners []string) {
	b.Require("url", `url = "https://…"`)
	var s config.Secret
	b.Secret("url", &s, func(s string) (err error) {
		if e.URL, err = parseURL(s); err != nil {
			return err
		}
		if err := checkEgress(e.URL, e.Egress); err != nil {
			return err
		}
		return checkOwn(e.URL, listeners)
	})
}

func (e *Endpoint) readHandshake(b *config.Block) {
	b.Bool("handshake", &e.Handshake)
	given := b.String("origin", &e.Origin, func(s string) error {
		if config.CheckHost(s) != nil {
			return errors.New(`write the host name of the sender, like "events.example.com"`)
		}
		return nil
	})
	switch {
	case given && !e.Handshake:
		b.Invalid("origin", "It is what a handshake tells the receiver. Add handshake = true, or remove it.")
	case e.Handshake:
		b.Require("origin", `origin = "events.example.com", the host name that the handshake tells its receiver`)
	}
}

func (d *decoder) readEvents(e *Endpoint, b *config.Block) {
	items, ok := b.Texts("events")
	if !ok {
		return
	}
	if len(items) == 0 {
		b.Invalid("events", `An empty list would say that the endpoint gets nothing. Leave events out, or write ["**"], for all; enabled = false stops an endpoint.`)
		return
	}
	var patterns []string
	for _, item := range items {
		if err := validPattern(item.Value); err != nil {
			b.Fail(item.Place, "Invalid events", err.Error())
			continue
		}
		patterns = append(patterns, item.Value)
	}
	key := strings.Join(patterns, " ") // a pattern with a space is never valid
	if m, known := d.matchers[key]; known {
		e.Events = m
		return
	}
	m, err := NewMatcher(patterns)
	if err != nil {
		b.Invalid("events", err.Error())
		return
	}
	e.Events, d.matchers[key] = m, m
}

func (e *Endpoint) readHeaders(b *config.Block) {
	var seen []string
	for _, h := range b.Map("headers") {
		lower := strings.ToLower(h.Key)
		switch {
		case !httpguts.ValidHeaderFieldName(h.Key):
			b.Fail(h.KeyPlace, "Invalid header name", "a name is letters, digits and - (RFC 9110 section 5.1).")
		case reservedHeader(h.Key):
			b.Fail(h.KeyPlace, "Reserved header", fmt.Sprintf("%s is written by Relay or by HTTP itself.", h.KeyPlace.Quote(h.Key)))
		case signedHeader(e.Signers, h.Key):
			b.Fail(h.KeyPlace, "Reserved header", fmt.Sprintf("%s is written by the endpoint's signature.", h.KeyPlace.Quote(h.Key)))
		case slices.Contains(seen, lower):
			b.Fail(h.KeyPlace, "Duplicate header", fmt.Sprintf("%s stands twice.", h.KeyPlace.Quote(h.Key)))
		case !httpguts.ValidHeaderFieldValue(h.Value.Reveal()):
			b.Fail(h.Place, "Invalid header value", fmt.Sprintf("%s has a line break or another control character in it.", h.KeyPlace.Quote(h.Key)))
		}
		seen = append(seen, lower)
		e.Headers = append(e.Headers, Header{Name: h.Key, Value: h.Value, drawn: h.KeyPlace.Quote("") != ""})
	}
}

// reservedHeader: headers that frame the request or name the event; and Idempotency-Key, which
// would let Go's HTTP client repeat a request by itself.
func reservedHeader(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "host", "content-length", "transfer-encoding", "connection", "trailer", "te", "upgrade", "expect",
		"keep-alive", "proxy-connection", "idempotency-key", "x-idempotency-key":
		return true
	}
	return strings.HasPrefix(name, "webhook-") || strings.HasPrefix(name, "relay-")
}

func signedHeader(signers []*sign.Signer, name string) bool {
	return slices.ContainsFunc(signers, func(s *sign.Signer) bool {
		return slices.ContainsFunc(s.Names(), func(n string) bool { return strings.EqualFold(n, name) })
	})
}
