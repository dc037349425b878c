// Package policy says what the operator promised receivers: which endpoints
// there are, who gets which event, signed how, sent how, retried when. Values are
// immutable once decoded and carry no HCL types.
package policy

import (
	"net/netip"
	"net/url"
	"time"

	"relay/config"
	"relay/relay/sign"
)

// Policy is a decoded file. Its methods may be called at the same time.
type Policy struct {
	Endpoints []*Endpoint // in the order of the file

	routes *routes // event type → names, bounded cache
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
	Timeout     Timeout
	Retry       Retry
	Egress      Egress
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
