// Package explain shows which endpoints get an event, the first request of each, and the times of
// further attempts. It sends, resolves and stores nothing. An Explanation is a value with a JSON
// form; print.go writes it for people.
package explain

import (
	"net/netip"
	"strings"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
	"relay/relay/post"
)

// Options of For.
type Options struct {
	Version string           // for User-Agent
	Own     []netip.AddrPort // listeners of Relay: see OwnAddresses
	Signed  bool             // sign with the endpoint's secrets; otherwise signatures are masked
	Now     time.Time        // of the attempt
}

// For explains an event, as ingest parsed it, to the endpoints.
func For(entry *outbox.Entry, endpoints []*policy.Endpoint, o Options) Explanation {
	e := &entry.Event
	out := Explanation{
		Event:     Event{ID: e.ID, Given: entry.Fingerprint != outbox.Fingerprint{}, Type: e.Type, Time: e.Time, Tenant: e.Tenant, Key: e.Key},
		Endpoints: []Endpoint{},
	}
	for _, to := range endpoints {
		out.Endpoints = append(out.Endpoints, endpoint(to, entry, o))
	}
	return out
}

// OwnAddresses are the listeners of the file that have a numeric address: no endpoint
// may point at them.
func OwnAddresses(c config.Config) []netip.AddrPort {
	var own []netip.AddrPort
	for _, l := range c.Listeners() {
		if addr, err := netip.ParseAddrPort(l); err == nil {
			own = append(own, addr)
		}
	}
	return own
}

// Explanation is the output of `relay explain`.
type Explanation struct {
	Event     Event      `json:"event"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Event is the event as it would be stored.
type Event struct {
	ID     string    `json:"id"`
	Given  bool      `json:"id_given"` // otherwise accept makes another one
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	Tenant string    `json:"tenant,omitempty"`
	Key    string    `json:"key,omitempty"`
}

// Endpoint says whether an endpoint gets the event, and has the first request.
type Endpoint struct {
	Name    string `json:"name"`
	Gets    bool   `json:"gets"`
	Held    bool   `json:"held"`              // it gets the event, but is not enabled
	Pattern string `json:"pattern,omitempty"` // that decided
	Why     string `json:"why"`
	Filtered
	Costly []string `json:"costly,omitempty"` // expressions that take over a tenth of their budget
	Sends  *Request `json:"request,omitempty"`
	Plan   *Plan    `json:"plan,omitempty"`
}

// Request is the first attempt, without secrets.
type Request struct {
	URL    string   `json:"url"`
	Line   string   `json:"line"`
	Header []Header `json:"header"`
	Body   string   `json:"body"`
	Signed []Signer `json:"signed_by"`
	HTTP2  bool     `json:"http2"`           // offered
	Trace  bool     `json:"trace,omitempty"` // traceparent and tracestate of the event are sent, if it has them

	BodyError string `json:"body_error,omitempty"` // why there is no request
	Code      string `json:"code,omitempty"`       // of the attempt then
}

// Header is a line of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Signer is a signature scheme that signs, with so many secrets.
type Signer struct {
	Scheme  string `json:"scheme"`
	Secrets int    `json:"secrets"`
}

// Plan has the times and limits of attempts.
type Plan struct {
	Attempts        []Attempt `json:"attempts"`
	RetryOn         []string  `json:"retry_on"`
	Classes         []Class   `json:"retry_classes"` // the first that matches applies, else Attempts
	MaxAgeMS        int64     `json:"max_age_ms"`    // 0 for unlimited
	MaxRetryAfterMS int64     `json:"max_retry_after_ms"`
	ConnectMS       int64     `json:"connect_timeout_ms"`
	TotalMS         int64     `json:"total_timeout_ms"`
	Limits
	Egress Egress `json:"egress"`

	// Hidden are the settings that are not shown, because env() or file() gave a part of them.
	Hidden []string `json:"hidden,omitempty"`
}

// Attempt is when an attempt begins, from the first on.
type Attempt struct {
	N       int   `json:"n"`
	AfterMS int64 `json:"after_ms"` // without jitter
	LeastMS int64 `json:"least_ms"`
	MostMS  int64 `json:"most_ms"`
}

// Egress says whether connections to the address are allowed.
type Egress struct {
	Verdict        string   `json:"verdict"` // "allowed", "denied" or, for a name, "when_dialled"
	Why            string   `json:"why,omitempty"`
	AllowPrivate   []string `json:"allow_private"`
	AllowPlaintext bool     `json:"allow_plaintext"`
	Ports          []uint16 `json:"ports"` // none: the URL's own
}

func endpoint(e *policy.Endpoint, entry *outbox.Entry, o Options) Endpoint {
	event := &entry.Event
	v := e.Events.Explain(event.Type)
	out := Endpoint{Name: e.Name, Gets: v.Match, Pattern: v.Pattern}
	switch {
	case v.Match && v.Pattern == "" && e.Events.String() == "all":
		out.Why = "it gets all events"
	case v.Match && v.Pattern == "":
		out.Why = "no pattern excludes it: " + e.Events.String()
	case v.Match:
		out.Why = "pattern " + v.Pattern
	case v.Pattern != "":
		out.Why = "excluded by " + v.Pattern
	default:
		out.Why = "no pattern fits: " + e.Events.String()
	}
	if e.Hides("events") {
		out.Pattern, out.Why = "", "its events are not shown: env() or file() gives them"
	}
	if v.Match {
		var why string
		if out.Filtered, out.Gets, why = filter(e, event, entry.Fingerprint != outbox.Fingerprint{}); why != "" {
			out.Why += "; " + why
		}
		out.Costly = e.Costly(event)
	}
	if out.Gets && out.WhenError == "" {
		out.Held = !e.Enabled
		out.Sends, out.Plan = request(e, event, o), plan(e, o.Own)
	}
	return out
}

// request makes the request with an endpoint whose secrets are masked, except, with signed, the
// keys of its signatures.
func request(e *policy.Endpoint, event *outbox.Event, o Options) *Request {
	shown := e.ShownURL()
	safe := *e
	safe.Headers, safe.Signers = nil, nil
	for _, h := range e.Headers {
		name := h.Name
		if h.ShownName() != h.Name {
			name = "Hidden-By-Relay"
		}
		safe.Headers = append(safe.Headers, policy.Header{Name: name, Value: config.NewSecret(config.Hidden)})
	}
	out := &Request{URL: shown.String(), Header: []Header{}, Signed: []Signer{}, HTTP2: e.HTTP2 && e.URL.Scheme == "https", Trace: e.PropagateTrace}
	safe.Origin = e.Shown().Origin
	for _, s := range e.Signers {
		out.Signed = append(out.Signed, Signer{s.Scheme().Name(), s.Signing()})
		if !o.Signed {
			s = s.Masked()
		}
		safe.Signers = append(safe.Signers, s)
	}
	if !o.Signed {
		safe.URL = shown // otherwise signatures may cover the real one
	}
	safe.Body = e.Body.Masked()
	r, err := deliver.Preview(&safe, event, o.Version, o.Now)
	body := r.Body
	if err == nil && o.Signed { // signatures cover the real body
		safe.Body = e.Body
		r, err = deliver.Preview(&safe, event, o.Version, o.Now)
	}
	if err != nil {
		out.BodyError, out.Code = err.Error(), policy.CostCode(err, "body_error")
		return out
	}
	out.Line = strings.Replace(r.Line, e.URL.RequestURI(), shown.RequestURI(), 1)
	safe.URL = shown
	for _, h := range r.Header {
		switch strings.ToLower(h.Name) {
		case "content-type":
			h.Value = e.Show("content_type", h.Value)
		case "ce-source":
			h.Value = e.Show("source", h.Value)
		}
		h.Value = strings.ReplaceAll(h.Value, e.RequestURL().String(), safe.RequestURL().String())
		h.Value = strings.ReplaceAll(h.Value, e.URL.RequestURI(), shown.RequestURI())
		out.Header = append(out.Header, Header(h))
	}
	out.Body = string(body)
	return out
}

func plan(real *policy.Endpoint, own []netip.AddrPort) *Plan {
	e := real.Shown()
	p := &Plan{
		RetryOn:         e.Retry.On.List(),
		MaxRetryAfterMS: e.Retry.MaxRetryAfter.Milliseconds(),
		ConnectMS:       e.Timeout.Connect.Milliseconds(),
		TotalMS:         e.Timeout.Total.Milliseconds(),
		Classes:         classes(&e.Retry),
		MaxAgeMS:        e.Retry.MaxAge.Milliseconds(),
		Limits:          limits(e),
		Egress:          egress(real, own),
	}
	for _, name := range []string{
		"timeout", "connection_max_age", "budget", "retry", "concurrency", "fleet_concurrency", "fresh_share", "rate_limit", "obey_rate_headers", "breaker", "batch", "disable", "tls", "egress",
	} {
		if real.Hides(name) {
			p.Hidden = append(p.Hidden, name)
		}
	}
	spans := deliver.Spans(&e.Retry.Steps)
	for i, due := range append([]time.Duration{0}, e.Retry.Due()...) {
		p.Attempts = append(p.Attempts, Attempt{i + 1, inMS(due), inMS(spans[i].Least), inMS(spans[i].Most)})
	}
	return p
}

// inMS rounds: jitter is a product of floats.
func inMS(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }

func egress(e *policy.Endpoint, own []netip.AddrPort) Egress {
	shown := e.Shown().Egress
	out := Egress{
		Verdict: "allowed", AllowPrivate: []string{}, AllowPlaintext: shown.AllowPlaintext, Ports: append([]uint16{}, shown.Ports...),
	}
	for _, p := range shown.AllowPrivate {
		out.AllowPrivate = append(out.AllowPrivate, p.String())
	}
	switch reason, known := post.Denied(e, own); {
	case !known:
		out.Verdict = "when_dialled"
	case reason != "":
		out.Verdict, out.Why = "denied", e.Hush(reason)
	}
	return out
}
