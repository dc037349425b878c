package policy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"relay/config"
	"relay/config/eval"
	"relay/policy/sign"
)

// Decode reads the policy, signature, endpoint and event_type blocks of a file. Errors:
// config.Diagnostics with every problem, those of config.Load too. It may add to f.Warnings.
//
// An endpoint's settings are made in three steps, each of which changes only the arguments it
// names: the defaults with the blocks of policy "default"; those of the policy that the endpoint
// names; its own. A list is replaced as a whole, and in a retry block a schedule replaces an
// inherited strategy, and the other way round. A retry block with a label overrides the inherited
// one with that label; attributes that neither has come from the endpoint's retry block without a
// label. A rate_limit, breaker or batch block that is written is on, unless it says enabled =
// false.
func Decode(f *config.File) (*Policy, error) {
	root := f.Root()
	d := decoder{schemes: map[string]*sign.Scheme{}, policies: map[string]settings{}, bodies: map[string]*Body{}, shards: f.Config.Outbox.Redis.Shards,
		lane:      eval.NewLane(runtime.GOMAXPROCS(0) / 2),
		listeners: f.Config.Listeners(), breakers: map[Breaker]*Breaker{}, rateLimits: map[RateLimit]*RateLimit{}, matchers: map[string]Matcher{}}
	d.readSignatures(root.Unique(root.Blocks("signature", true)))
	d.readPolicies(root.Unique(root.Blocks("policy", true)))
	d.readBodies(root.Unique(root.Blocks("body", true)))
	runtime := d.readRuntime(root.One("runtime"))
	types := d.readTypes(root.Unique(root.Blocks("event_type", true)))
	var endpoints []*Endpoint
	for _, b := range root.Unique(root.Blocks("endpoint", true)) {
		e := d.endpoint(b, d.ownBody)
		endpoints = append(endpoints, e)
		if f.Config.Ingest.Strict && len(types) > 0 {
			e.warnUnknown(b, types)
		}
	}
	alerts := readAlerts(root.Unique(root.Blocks("alert", true)), endpoints)
	if err := root.Err(); err != nil {
		return nil, err
	}
	p := New(endpoints)
	p.declare(types)
	p.Alerts = alerts
	p.compiler = newCompiler(&d, runtime)
	return p, nil
}

// decoder has the names that endpoints can refer to.
type decoder struct {
	schemes     map[string]*sign.Scheme // those of the file; nil for an invalid one
	schemeNames []string
	policies    map[string]settings
	policyNames []string
	shards      int // of the outbox; 0 if it has none
	bodies      map[string]*Body
	lane        *eval.Lane // for everything that is evaluated for events
	listeners   []string   // host:port of this Relay's own

	// Endpoints with the same rules share them.
	breakers   map[Breaker]*Breaker
	rateLimits map[RateLimit]*RateLimit
	matchers   map[string]Matcher // by patterns with spaces between them
}

// Limits of what may be spent on an event.
const (
	leastBudget = time.Millisecond
	mostFilter  = time.Second
	mostBody    = 5 * time.Second
)

const defaultPolicy = "default"

// settings are what policies and endpoints have in common.
type settings struct {
	concurrency      int
	fleetConcurrency int
	freshShare       float64
	http2            bool
	propagateTrace   bool
	connectionMaxAge time.Duration
	obeyRateHeaders  bool
	timeout          Timeout
	budget           Budget
	retry            retry
	rateLimit        rateLimit
	breaker          breaker
	batch            batch
	disable          Disable
	egress           Egress
	tls              tlsBlock
	drawn            drawn
}

func defaultSettings() settings {
	return settings{
		concurrency:      16,
		freshShare:       0.5,
		connectionMaxAge: 5 * time.Minute,
		timeout:          Timeout{Connect: 5 * time.Second, Total: 15 * time.Second},
		budget:           Budget{Filter: 50 * time.Millisecond, Body: 200 * time.Millisecond},
		retry:            defaultRetry(),
		rateLimit:        rateLimit{per: time.Second},
		breaker:          defaultBreaker(),
		batch:            defaultBatch(),
		disable:          defaultDisable(),
		tls:              tlsBlock{TLS: TLS{MinVersion: tls.VersionTLS12}},
	}
}

func (d *decoder) readPolicies(blocks []*config.Block) {
	base := defaultSettings()
	for _, b := range blocks {
		if b.Name == defaultPolicy {
			base.read(b)
			b.Done()
		}
	}
	d.policies[defaultPolicy] = base
	d.policyNames = []string{defaultPolicy}
	for _, b := range blocks {
		checkName(b)
		if b.Name == defaultPolicy {
			continue
		}
		s := base
		s.read(b)
		b.Done()
		d.policies[b.Name] = s
		d.policyNames = append(d.policyNames, b.Name)
	}
}

// read applies the block of a policy or an endpoint. Attributes that it leaves out keep their
// values.
func (s *settings) read(b *config.Block) {
	s.drawn = s.drawn.with(b)
	b.Int("concurrency", &s.concurrency, 1, 1024)
	b.Int("fleet_concurrency", &s.fleetConcurrency, 0, 1024)
	b.Float("fresh_share", &s.freshShare, 0, 1)
	b.Bool("http2", &s.http2)
	b.Bool("propagate_trace", &s.propagateTrace)
	b.Duration("connection_max_age", &s.connectionMaxAge, time.Second, 24*time.Hour)
	b.Bool("obey_rate_headers", &s.obeyRateHeaders)
	if t := b.One("timeout"); t != nil {
		connect := t.Duration("connect", &s.timeout.Connect, time.Millisecond, 10*time.Minute)
		t.Duration("total", &s.timeout.Total, time.Millisecond, 10*time.Minute)
		if connect && s.timeout.Connect > s.timeout.Total {
			t.Invalid("connect", fmt.Sprintf("total is %s, so connect could never end an attempt. Write a larger total, or a smaller connect.",
				t.At("total").Quote(config.FormatDuration(s.timeout.Total))))
		}
		t.Done()
	}
	if t := b.One("budget"); t != nil {
		t.Duration("filter", &s.budget.Filter, leastBudget, mostFilter)
		t.Duration("body", &s.budget.Body, leastBudget, mostBody)
		t.Done()
	}
	s.retry.read(b)
	if r := b.One("rate_limit"); r != nil {
		s.rateLimit.read(r)
	}
	if r := b.One("breaker"); r != nil {
		s.breaker.read(r)
	}
	if r := b.One("batch"); r != nil {
		s.batch.read(r)
	}
	if r := b.One("disable"); r != nil {
		s.disable.read(r)
	}
	if e := b.One("egress"); e != nil {
		s.readEgress(e)
	}
	if s.tls.last = b.One("tls"); s.tls.last != nil {
		s.tls.read(s.tls.last)
	}
}

// fill writes the settings into an endpoint.
func (s *settings) fill(e *Endpoint) {
	e.Concurrency, e.FleetConcurrency, e.FreshShare = s.concurrency, s.fleetConcurrency, s.freshShare
	e.PropagateTrace = s.propagateTrace
	e.HTTP2, e.ConnectionMaxAge, e.ObeyRateHeaders, e.Timeout, e.Budget = s.http2, s.connectionMaxAge, s.obeyRateHeaders, s.timeout, s.budget
	e.Retry, e.RateLimit, e.Breaker, e.Disable = s.retry.spell(), s.rateLimit.spell(), s.breaker.spell(), s.disable
	e.Batch, e.Egress, e.TLS = s.batch.spell(), s.egress, s.tls.spell()
}

// shared returns an earlier value that is equal to v, else v.
func shared[T comparable](known map[T]*T, v *T) *T {
	if v == nil {
		return nil
	}
	if known[*v] == nil {
		known[*v] = v
	}
	return known[*v]
}

func (s *settings) readEgress(b *config.Block) {
	b.Bool("allow_plaintext", &s.egress.AllowPlaintext)
	if items, ok := b.Texts("allow_private"); ok {
		s.egress.AllowPrivate = nil
		for _, item := range items {
			prefix, err := parsePrivate(item.Value)
			if err != nil {
				b.Fail(item.Place, "Invalid allow_private", err.Error())
			}
			s.egress.AllowPrivate = append(s.egress.AllowPrivate, prefix)
		}
	}
	if items, ok := b.List("ports"); ok {
		s.egress.Ports = nil
		for _, item := range items {
			port, err := parsePort(item.Value)
			if err != nil {
				b.Fail(item.Place, "Invalid ports", err.Error())
			}
			s.egress.Ports = append(s.egress.Ports, port)
		}
	}
	b.Done()
}

// neverAllowed are ranges that no policy can allow: link-local addresses, where clouds hand out
// credentials, and the metadata address of AWS over IPv6.
func neverAllowed() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("fd00:ec2::254/128"),
	}
}

func parsePrivate(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return prefix, errors.New(`write an address range like "10.1.0.0/16", or "10.1.2.3/32" for one address`)
	case prefix.Addr().Is4In6():
		return prefix, errors.New("write the range as IPv4")
	case prefix != prefix.Masked():
		return prefix, errors.New("the range begins at another address: write that one, like 10.1.0.0/16 for all of 10.1")
	}
	i := slices.IndexFunc(neverAllowed(), prefix.Overlaps)
	if i >= 0 {
		return prefix, fmt.Errorf("it holds %s: link-local and metadata addresses cannot be allowed. Name a smaller range", neverAllowed()[i])
	}
	return prefix, nil
}

// checkName: names stand in logs, metrics and URLs.
func checkName(b *config.Block) {
	if len(b.Name) < 1 || len(b.Name) > 64 || !isName(b.Name) {
		b.Fail(b.Label(), "Invalid name", "a name is 1 to 64 letters, digits, _ and -.")
	}
}
