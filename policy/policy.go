// Package policy is what the operator promised receivers: the endpoints, which events each of
// them gets, and how those are signed, sent and retried. Values are immutable once decoded and
// carry no HCL types.
//
// Read in this order: Policy, Matcher and Filter (routing), Outcomes, then decode.go and the
// blocks it calls.
package policy

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"net/url"
	"time"

	"relay/config"
	"relay/policy/expr"
	"relay/policy/sign"
)

// Policy is a decoded file; make one with New or Decode. Its methods may be
// called at the same time.
type Policy struct {
	Endpoints []*Endpoint  // in the order of the file
	Types     []*EventType // in the order of the file; if empty, all types are undeclared

	Alerts []*Alert // in the order of the file

	types    map[string]*EventType
	byName   map[string]*Endpoint
	router   router
	compiler *Compiler
	traced   bool // an endpoint has PropagateTrace
}

// Endpoint is a URL with its policy, in which named defaults and overrides are merged.
type Endpoint struct {
	Name             string
	Description      string
	Labels           []Label // by name
	URL              *url.URL
	drawn            drawn
	Enabled          bool // otherwise its deliveries are held
	Made             bool // at run time, not by the file
	Events           Matcher
	Filter           *Filter        // nil for all events of the matching types
	Headers          []Header       // as written, after Relay's own headers
	Body             *Body          // nil for the default one: {"id","type","timestamp","data"}
	Signers          []*sign.Signer // each signs every request; empty for sign = ["none"]
	Concurrency      int            // attempts at a time in each Relay
	PropagateTrace   bool           // requests carry the trace context of their event
	HTTP2            bool           // offered to the receiver, if URL is https
	ConnectionMaxAge time.Duration  // of a connection when a request begins; 0 for unlimited
	Handshake        bool           // the receiver is asked for its consent before the first event
	Origin           string         // the sender's host name in the handshake; "" without Handshake
	Timeout          Timeout
	Budget           Budget
	Retry            Retry
	Egress           Egress
	TLS              TLS

	FleetConcurrency int        // attempts at a time of all Relays with this outbox; 0 for unlimited
	FreshShare       float64    // of the slots, 0 to 1: goes to new events while a backlog waits
	RateLimit        *RateLimit // nil for none
	ObeyRateHeaders  bool       // slow down according to RateLimit and X-RateLimit-* headers of answers
	Breaker          *Breaker   // nil for none
	Batch            *Batch     // nil for one event in each request
	Disable          Disable
}

// New makes a policy of endpoints, whose names differ.
func New(endpoints []*Endpoint) *Policy {
	p := &Policy{Endpoints: endpoints, byName: make(map[string]*Endpoint, len(endpoints))}
	for _, e := range endpoints {
		p.byName[e.Name] = e
		p.traced = p.traced || e.PropagateTrace
	}
	p.router.set(endpoints)
	return p
}

// Adopt replaces endpoints of p by equal ones of old, so that memory holds them once. Call it
// before p is shared. Endpoints with expressions are not replaced, because each policy bounds how
// many evaluations run at a time.
func (p *Policy) Adopt(old *Policy) {
	for i, e := range p.Endpoints {
		if o := old.byName[e.Name]; o != nil && e.Filter == nil && e.Body == nil && e.Equal(o) {
			p.Endpoints[i], p.byName[e.Name] = o, o
		}
	}
}

// PropagatesTrace reports whether an endpoint has PropagateTrace.
func (p *Policy) PropagatesTrace() bool { return p.traced }

// Endpoint returns the endpoint of that name, or nil.
func (p *Policy) Endpoint(name string) *Endpoint { return p.byName[name] }

// View is an event and its delivery, for filters and bodies.
type View = expr.View

// Meter adds up the cost of evaluations.
type Meter = expr.Meter

// mostFilters bounds the time of the filters of one event together. Beyond it each has a budget
// of a millisecond.
const mostFilters = 500 * time.Millisecond

// Header is one request header. The value may hold a credential, so it prints
// as redacted.
type Header struct {
	Name  string
	Value config.Secret

	drawn bool // the name, if env() or file() gave a part of it
}

// ShownName is the name, masked if it must not be shown.
func (h Header) ShownName() string {
	if h.drawn {
		return Hidden
	}
	return h.Name
}

// Timeout bounds one attempt.
type Timeout struct {
	Connect time.Duration // DNS, dial and TLS handshake, each
	Total   time.Duration // from the DNS query to the last byte of the answer
}

// Budget bounds the evaluation for one event, so that no event delays others. 20 ms are added for
// each MiB of the event's data.
type Budget struct {
	Filter time.Duration // on each expression of the filter
	Body   time.Duration // on the body
}

// Retry says whether and when a delivery is tried again after an attempt that did not deliver.
type Retry struct {
	Steps                       // unless a class says otherwise
	On            Outcomes      // outcomes that are tried again; all others are final
	MaxRetryAfter time.Duration // Retry-After is honoured up to this
	Classes       []RetryClass  // the most specific one first
}

// Steps are the delays of a retry block. Every strategy of the file (exponential, linear,
// fixed) is spelled out here as a list.
type Steps struct {
	Schedule []time.Duration // the delay after attempt 1, 2, …; after the last one the delivery is failed
	Jitter   float64         // ± this share of the delay, 0 to 1
	MaxAge   time.Duration   // since accept; no attempt is due later. 0 for unlimited
}

// Due lists when the attempts after the first are due, counted from the first, without jitter,
// Retry-After and the duration of attempts.
func (s *Steps) Due() []time.Duration {
	var all []time.Duration
	var due time.Duration
	for _, delay := range s.Schedule {
		if due += delay; s.MaxAge > 0 && due > s.MaxAge {
			break
		}
		all = append(all, due)
	}
	return all
}

// RetryClass is a block like retry "429": the steps after attempts of one kind. n in its
// schedule counts all attempts of the delivery, those of other kinds too.
type RetryClass struct {
	Name string // as in Outcomes: a status, a class of them, "network", "timeout" or a named error
	Of   Outcomes
	Steps
}

// After returns the steps that follow an attempt with this status or, where there is
// no answer, this code.
func (r *Retry) After(status int, code string) *Steps {
	for i := range r.Classes {
		if r.Classes[i].Of.Has(status, code) {
			return &r.Classes[i].Steps
		}
	}
	return &r.Steps
}

// RateLimit is a token bucket: in any window of time at most N × window / Per + Burst attempts
// begin, in all Relays with one outbox together.
type RateLimit struct {
	N     int
	Per   time.Duration
	Burst int
}

// Breaker stops sending to an endpoint that mostly fails, and probes it from time to time.
type Breaker struct {
	FailureRatio float64       // opens at this share of failures, above 0 to 1,
	MinAttempts  int           // among at least so many attempts
	Window       time.Duration // within the last Window
	Open         time.Duration // how long it stays open at first; doubles with each failed probe,
	MaxOpen      time.Duration // up to this
	Jitter       float64       // ± this share of it, 0 to 1
	Probes       int           // probes that must succeed before it closes
	On           Outcomes      // what counts as a failure
}

// Disable says when Relay disables an endpoint that seems dead. Its deliveries are then held.
type Disable struct {
	OnGone       bool          // at an answer 410
	AfterFailing time.Duration // without a successful attempt for this long; 0 for never
}

// TLS is what an endpoint's https connections use besides the system's authorities.
type TLS struct {
	Roots       *x509.CertPool   // instead of the system's; nil for those
	CA          string           // short hash of the file they are from; "" for the system's
	Certificate *tls.Certificate `json:"-"` // the client's own, with its key; nil for none
	MinVersion  uint16           // tls.VersionTLS12 or tls.VersionTLS13
	ServerName  string           // name that the certificate must have and that SNI sends; "" for the URL's host
	Digest      string           // differs when one of the others does; "" with an http:// URL
}

// Egress allows an endpoint's connections to go to other than public addresses.
type Egress struct {
	AllowPrivate   []netip.Prefix
	AllowPlaintext bool     // http:// URLs
	Ports          []uint16 // allowed ports; empty = 443, and 80 with AllowPlaintext, and the URL's own
}
