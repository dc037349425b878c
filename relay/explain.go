package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/ingest"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

func (c *command) explain() *cobra.Command {
	var configs []string
	var endpoint string
	var signed, asJSON bool
	cmd := &cobra.Command{
		Use:   "explain EVENT.json",
		Short: "Say who gets an event, as which request, and when",
		Long: "Say for every endpoint of the configuration whether it gets an event and why; show the request\n" +
			"of a first attempt; list when the next ones would be. EVENT.json is what one would POST to\n" +
			"/v1/events; - reads it from standard input. Nothing is sent, looked up or stored.\n\n" +
			"Values of an endpoint's own headers, the query of its URL and signatures are not shown.\n" +
			"--sign shows signatures, made now with the endpoint's secrets: whoever has them can send this\n" +
			"request in your name while the receiver accepts its time.",
		Example: "  relay explain event.json\n  echo '{\"type\":\"invoice.paid\",\"data\":{}}' | relay explain - --endpoint billing --sign",
		Args:    argRange(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, p, err := c.load(configs)
			if err != nil {
				return err
			}
			endpoints := p.Endpoints
			if endpoint != "" {
				e := p.Endpoint(endpoint)
				if e == nil {
					return usageError{noEndpoint(endpoint, p)}
				}
				endpoints = []*policy.Endpoint{e}
			}
			entry, err := c.event(args[0], ingest.Options{
				Route: func(e *outbox.Event) ([]string, []outbox.Term) { return ingest.Route(p, e) }, Type: p.Type,
				MaxBody: file.Config.Ingest.MaxBody, Strict: file.Config.Ingest.Strict,
			})
			if err != nil {
				return err
			}
			out := explainEvent(entry)
			own := ownAddresses(file.Config)
			for _, e := range endpoints {
				out.Endpoints = append(out.Endpoints, explainEndpoint(e, &entry, own, signed, time.Now().UTC()))
			}
			if asJSON {
				enc := json.NewEncoder(c.out)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				return enc.Encode(out)
			}
			return printExplained(c.out, out, signed)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "only the endpoint of this `name`")
	cmd.Flags().BoolVar(&signed, "sign", false, "show real signatures, made now")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func noEndpoint(name string, p *policy.Policy) error {
	var names []string
	for _, e := range p.Endpoints {
		names = append(names, e.Name)
	}
	return fmt.Errorf("the configuration has no endpoint %q.%s", name, config.Suggest(name, names))
}

// event reads the event as ingest would take it.
func (c *command) event(path string, o ingest.Options) (outbox.Entry, error) {
	in, name := c.in, "the event on standard input"
	if path != "-" {
		name = path
		f, err := os.Open(path)
		if err != nil {
			return outbox.Entry{}, fmt.Errorf("read event: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, o.MaxBody+1))
	if err != nil {
		return outbox.Entry{}, fmt.Errorf("read event: %w", err)
	}
	entry, err := ingest.ParseEvent(text, o)
	if err != nil {
		return entry, fmt.Errorf("%s would be refused: %w", name, err)
	}
	return entry, nil
}

// ownAddresses are the listeners of the file that have a numeric address: no endpoint
// may point at them.
func ownAddresses(c config.Config) []netip.AddrPort {
	listeners := []string{c.Admin.HTTP}
	for _, h := range c.Ingest.HTTP {
		listeners = append(listeners, h.Addr)
	}
	var own []netip.AddrPort
	for _, l := range listeners {
		if addr, err := netip.ParseAddrPort(l); err == nil {
			own = append(own, addr)
		}
	}
	return own
}

// explained is what `relay explain` says.
type explained struct {
	Event     explainedEvent      `json:"event"`
	Endpoints []explainedEndpoint `json:"endpoints"`
}

type explainedEvent struct {
	ID     string    `json:"id"`
	Given  bool      `json:"id_given"` // else an accept makes another one
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	Tenant string    `json:"tenant,omitempty"`
	Key    string    `json:"key,omitempty"`
}

type explainedEndpoint struct {
	Name    string `json:"name"`
	Gets    bool   `json:"gets"`
	Held    bool   `json:"held"`              // it gets the event and is not enabled
	Pattern string `json:"pattern,omitempty"` // that decided
	Why     string `json:"why"`
	explainedFilter
	Sends *explainedRequest `json:"request,omitempty"`
	Plan  *explainedPlan    `json:"plan,omitempty"`
}

type explainedRequest struct {
	URL    string            `json:"url"`
	Line   string            `json:"line"`
	Header []explainedHeader `json:"header"`
	Body   string            `json:"body"`
	Signed []explainedSigner `json:"signed_by"`
	HTTP2  bool              `json:"http2"` // offered

	BodyError string `json:"body_error,omitempty"` // why there is no such request
}

type explainedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type explainedSigner struct {
	Scheme  string `json:"scheme"`
	Secrets int    `json:"secrets"`
}

type explainedPlan struct {
	Attempts        []explainedAttempt `json:"attempts"`
	RetryOn         []string           `json:"retry_on"`
	Classes         []explainedClass   `json:"retry_classes"` // the first that fits counts, else Attempts
	MaxAgeMS        int64              `json:"max_age_ms"`    // 0 for no bound
	MaxRetryAfterMS int64              `json:"max_retry_after_ms"`
	ConnectMS       int64              `json:"connect_timeout_ms"`
	TotalMS         int64              `json:"total_timeout_ms"`
	explainedLimits
	Egress explainedEgress `json:"egress"`
}

// explainedAttempt is when an attempt begins, from the first on.
type explainedAttempt struct {
	N       int   `json:"n"`
	AfterMS int64 `json:"after_ms"` // without jitter
	LeastMS int64 `json:"least_ms"`
	MostMS  int64 `json:"most_ms"`
}

type explainedEgress struct {
	Verdict        string   `json:"verdict"` // "allowed", "denied" or, for a name, "when_dialled"
	Why            string   `json:"why,omitempty"`
	AllowPrivate   []string `json:"allow_private"`
	AllowPlaintext bool     `json:"allow_plaintext"`
	Ports          []uint16 `json:"ports"` // none: the URL's own
}

func explainEvent(entry outbox.Entry) explained {
	e := entry.Event
	return explained{
		Event: explainedEvent{
			ID: e.ID, Given: entry.Fingerprint != outbox.Fingerprint{}, Type: e.Type, Time: e.Time, Tenant: e.Tenant, Key: e.Key,
		},
		Endpoints: []explainedEndpoint{},
	}
}

func explainEndpoint(e *policy.Endpoint, entry *outbox.Entry, own []netip.AddrPort, signed bool, now time.Time) explainedEndpoint {
	event := &entry.Event
	v := e.Events.Explain(event.Type)
	out := explainedEndpoint{Name: e.Name, Gets: v.Match, Pattern: v.Pattern}
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
	if v.Match {
		var why string
		if out.explainedFilter, out.Gets, why = explainFilter(e, event, entry.Fingerprint != outbox.Fingerprint{}); why != "" {
			out.Why += "; " + why
		}
	}
	if out.Gets && out.WhenError == "" {
		out.Held = !e.Enabled
		out.Sends, out.Plan = explainRequest(e, event, signed, now), explainPlan(e, own)
	}
	return out
}

// explainRequest makes the request of an endpoint that has no secrets left but, with
// signed, the keys of its signatures.
func explainRequest(e *policy.Endpoint, event *outbox.Event, signed bool, now time.Time) *explainedRequest {
	shown := e.ShownURL()
	safe := *e
	safe.Headers, safe.Signers = nil, nil
	for _, h := range e.Headers {
		safe.Headers = append(safe.Headers, policy.Header{Name: h.Name, Value: config.NewSecret("***")})
	}
	out := &explainedRequest{URL: shown.String(), Header: []explainedHeader{}, Signed: []explainedSigner{}, HTTP2: e.HTTP2 && e.URL.Scheme == "https"}
	for _, s := range e.Signers {
		out.Signed = append(out.Signed, explainedSigner{s.Scheme().Name(), s.Signing()})
		if !signed {
			s = s.Masked()
		}
		safe.Signers = append(safe.Signers, s)
	}
	if !signed {
		safe.URL = shown // else signatures may be of the real one
	}
	safe.Body = e.Body.Masked()
	r, err := deliver.Preview(&safe, event, version, now)
	body := r.Body
	if err == nil && signed { // signatures are of the real body
		safe.Body = e.Body
		r, err = deliver.Preview(&safe, event, version, now)
	}
	if err != nil {
		out.BodyError = err.Error()
		return out
	}
	out.Line = strings.Replace(r.Line, e.URL.RequestURI(), shown.RequestURI(), 1)
	for _, h := range r.Header {
		h.Value = strings.ReplaceAll(h.Value, e.URL.String(), out.URL)
		h.Value = strings.ReplaceAll(h.Value, e.URL.RequestURI(), shown.RequestURI())
		out.Header = append(out.Header, explainedHeader(h))
	}
	out.Body = string(body)
	return out
}

func explainPlan(e *policy.Endpoint, own []netip.AddrPort) *explainedPlan {
	p := &explainedPlan{
		RetryOn:         e.Retry.On.List(),
		MaxRetryAfterMS: e.Retry.MaxRetryAfter.Milliseconds(),
		ConnectMS:       e.Timeout.Connect.Milliseconds(),
		TotalMS:         e.Timeout.Total.Milliseconds(),
		Classes:         explainClasses(&e.Retry),
		MaxAgeMS:        e.Retry.MaxAge.Milliseconds(),
		explainedLimits: explainLimits(e),
		Egress:          explainEgress(e, own),
	}
	spans := deliver.Spans(&e.Retry.Steps)
	for i, due := range append([]time.Duration{0}, e.Retry.Due()...) {
		p.Attempts = append(p.Attempts, explainedAttempt{i + 1, inMS(due), inMS(spans[i].Least), inMS(spans[i].Most)})
	}
	return p
}

// inMS rounds: jitter is a product of floats.
func inMS(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }

func explainEgress(e *policy.Endpoint, own []netip.AddrPort) explainedEgress {
	out := explainedEgress{
		Verdict: "allowed", AllowPrivate: []string{}, AllowPlaintext: e.Egress.AllowPlaintext, Ports: append([]uint16{}, e.Egress.Ports...),
	}
	for _, p := range e.Egress.AllowPrivate {
		out.AllowPrivate = append(out.AllowPrivate, p.String())
	}
	switch reason, known := deliver.Denied(e, own); {
	case !known:
		out.Verdict = "when_dialled"
	case reason != "":
		out.Verdict, out.Why = "denied", reason
	}
	return out
}
