// Package policy says what the operator promised receivers: which endpoints
// there are, who gets which event, signed how, sent how, retried when. Values are
// immutable once decoded and carry no HCL types.
//
// Read in this order: Policy, Matcher (who gets what), RetryOn, then decode.go and
// the blocks it calls.
package policy

import (
	"net/netip"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"relay/config"
	"relay/relay/sign"
)

// Policy is a decoded file; make one with New or Decode. Its methods may be
// called at the same time.
type Policy struct {
	Endpoints []*Endpoint // in the order of the file

	byName map[string]*Endpoint
	routes *lru.Cache[string, []string] // event type → names
}

// Endpoint is a URL with its policy: named defaults and overrides already
// merged.
type Endpoint struct {
	Name        string
	Description string
	URL         *url.URL
	Enabled     bool // else its deliveries are accepted and held
	Events      Matcher
	Headers     []Header       // as written, after Relay's own
	Signers     []*sign.Signer // all of them sign each request; empty for sign = ["none"]
	Concurrency int            // attempts at the same time, for each Relay
	HTTP2       bool           // offered to the receiver, where URL is https
	Timeout     Timeout
	Retry       Retry
	Egress      Egress
}

// New makes a policy of endpoints, whose names differ.
func New(endpoints []*Endpoint) *Policy {
	p := &Policy{Endpoints: endpoints, byName: make(map[string]*Endpoint, len(endpoints))}
	for _, e := range endpoints {
		p.byName[e.Name] = e
	}
	// The app chooses the types, so the cache is bounded: to about a million names
	// in all, when each type goes to each endpoint.
	size := min(max(1_000_000/max(len(endpoints), 1), 64), 4096)
	cache, err := lru.New[string, []string](size)
	if err != nil {
		panic(err) // only for a size under 1
	}
	p.routes = cache
	return p
}

// Endpoint returns the endpoint of that name, or nil.
func (p *Policy) Endpoint(name string) *Endpoint { return p.byName[name] }

// Route names the endpoints that get an event of this type, in the order of the
// file. Disabled ones are among them: their deliveries are held. The answer is
// shared: read only.
func (p *Policy) Route(eventType string) []string {
	if names, ok := p.routes.Get(eventType); ok {
		return names
	}
	var names []string
	for _, e := range p.Endpoints {
		if e.Events.Match(eventType) {
			names = append(names, e.Name)
		}
	}
	p.routes.Add(eventType, names)
	return names
}

// Header is one request header. The value may hold a credential, so it prints
// as redacted.
type Header struct {
	Name  string
	Value config.Secret
}

// Timeout bounds one attempt.
type Timeout struct {
	Connect time.Duration // DNS, dial and TLS handshake, each
	Total   time.Duration // from the first byte of DNS to the last of the response
}

// Retry is the schedule after an attempt that did not deliver. Every strategy of
// the file (exponential, linear, fixed) is spelled out here as a list.
type Retry struct {
	Schedule      []time.Duration // the delay after attempt 1, 2, …; after the last one the delivery is failed
	Jitter        float64         // ± this share of the delay, 0 to 1
	On            RetryOn
	MaxRetryAfter time.Duration // Retry-After is honoured up to this
}

// Egress says where an endpoint's connections may go beside public addresses.
type Egress struct {
	AllowPrivate   []netip.Prefix
	AllowPlaintext bool     // http:// URLs
	Ports          []uint16 // allowed ports; empty = 443, and 80 with AllowPlaintext, and the URL's own
}
