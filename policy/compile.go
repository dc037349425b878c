package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"relay/config"
	"relay/policy/sign"
)

// Runtime is the block runtime: what endpoints that are made at run time may be.
type Runtime struct {
	Enabled      bool
	Policies     []string // that they may name, the first one by default; nil for all of the file
	Overrides    []string // attributes and blocks of a policy that they may have
	MaxEndpoints int
	PerTenant    int  // 0 for no bound
	HTTPSOnly    bool // no http:// even where egress allows it
	MaxURL       int  // bytes
	PlainSecrets bool // secrets may be stored without secrets_key

	drawn drawn
}

// readRuntime reads the block; nil stands for the defaults.
func (d *decoder) readRuntime(b *config.Block) *Runtime {
	r := &Runtime{Enabled: true, Overrides: []string{"timeout", "retry", "rate_limit", "concurrency"}, MaxEndpoints: 10_000, MaxURL: maxURL}
	if b == nil {
		return r
	}
	b.Bool("enabled", &r.Enabled)
	b.Strings("policies", &r.Policies, func(s string) error {
		if !slices.Contains(d.policyNames, s) {
			return fmt.Errorf("there is no policy %q.%s", b.At("policies").Quote(s), config.Suggest(s, d.policyNames))
		}
		return nil
	})
	if r.Policies != nil && len(r.Policies) == 0 {
		b.Invalid("policies", "An empty list allows none. Leave policies out for all, or write enabled = false.")
	}
	b.Strings("overrides", &r.Overrides, func(s string) error {
		if !slices.Contains(overridable(), s) {
			return fmt.Errorf("%q is not one of %v.%s", b.At("overrides").Quote(s), overridable(), config.Suggest(s, overridable()))
		}
		return nil
	})
	b.Int("max_endpoints", &r.MaxEndpoints, 1, 100_000)
	b.Int("per_tenant", &r.PerTenant, 0, 100_000)
	b.Bool("https_only", &r.HTTPSOnly)
	b.Int("max_url", &r.MaxURL, 16, maxURL)
	secrets := "sealed"
	b.String("secrets", &secrets, config.OneOf("sealed", "plain"))
	r.PlainSecrets = secrets == "plain"
	r.drawn = r.drawn.with(b)
	b.Done()
	return r
}

// always are the members that every endpoint made at run time may have.
func always() []string {
	return []string{"url", "events", "tenants", "when", "policy", "sign", "secrets", "headers", "body", "description", "labels", "enabled"}
}

// overridable are the parts of a policy that runtime can open.
func overridable() []string {
	return []string{"concurrency", "fleet_concurrency", "fresh_share", "http2", "propagate_trace", "connection_max_age", "obey_rate_headers", "timeout",
		"budget", "retry", "rate_limit", "breaker", "batch", "disable", "egress", "tls", "sample", "dedupe", "crossing", "handshake", "origin"}
}

// Compiler compiles endpoints that are made at run time, with the policies, signatures and bodies
// of a file. Its methods may be called at the same time.
type Compiler struct {
	Runtime *Runtime

	mu    sync.Mutex // guards d
	d     *decoder
	shape func() config.Shape
}

func newCompiler(d *decoder, r *Runtime) *Compiler {
	return &Compiler{Runtime: r, d: d, shape: sync.OnceValue(func() config.Shape {
		return config.ShapeOf(`endpoint "LABEL"`, config.Describe(func(f *config.File) { _, _ = Decode(f) }))
	})}
}

// Choices are what endpoints made at run time may be and name.
type Choices struct {
	Enabled    bool     `json:"enabled"`
	Policies   []string `json:"policies" bound:"-"` // that they may name
	Signatures []string `json:"signatures"`         // of the file, then those that are built in
	Bodies     []string `json:"bodies" bound:"-"`   // of the file
	Overrides  []string `json:"overrides"`          // attributes and blocks of a policy that they may have of their own
	HTTPSOnly  bool     `json:"https_only"`
	Secrets    bool     `json:"secrets"` // secrets and headers can be stored: the file has secrets_key, or runtime { secrets = "plain" }
}

// Choices of the file. Of Secrets it knows only whether they may be stored as they are.
func (c *Compiler) Choices() Choices {
	r := c.Runtime
	out := Choices{Enabled: r.Enabled, Policies: r.Policies, Overrides: r.Overrides, HTTPSOnly: r.HTTPSOnly, Secrets: r.PlainSecrets, Signatures: slices.Concat(c.d.schemeNames, sign.BuiltinNames(), []string{unsigned})}
	if out.Policies == nil {
		out.Policies = append([]string{}, c.d.policyNames...)
	}
	out.Bodies = append([]string{}, slices.Sorted(maps.Keys(c.d.bodies))...)
	return out
}

// Compiler returns the compiler for endpoints beside those of p. It is nil for a policy that was
// not decoded from a file.
func (p *Policy) Compiler() *Compiler { return p.compiler }

// With is p with endpoints made at run time instead of those that it has. They come after those of the
// file.
func (p *Policy) With(made []*Endpoint) *Policy {
	fixed := slices.DeleteFunc(slices.Clone(p.Endpoints), func(e *Endpoint) bool { return e.Made })
	all := New(append(fixed, made...))
	all.Types, all.types, all.Alerts, all.compiler = p.Types, p.types, p.Alerts, p.compiler
	return all
}

// Compile decodes an endpoint from a JSON object whose members are named like the attributes and
// blocks of the file; body is the name of a body block. Errors: config.Flaws, with every problem.
func (c *Compiler) Compile(name string, spec []byte) (*Endpoint, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(spec, &members); err != nil || members == nil {
		return nil, config.Flaws{{Detail: "write a JSON object: {…}"}}
	}
	body, flaws := c.take(members)
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, config.Flaws{{Detail: "this is not JSON"}}
	}
	f, err := config.NewFragment("endpoint", name, rest, c.shape())
	if err != nil {
		return nil, joined(flaws, err)
	}
	b, err := f.Block()
	if err != nil {
		return nil, joined(flaws, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.d.endpoint(b, func(e *Endpoint, _ *config.Block) {
		if e.Body = body; body != nil && hasHeader(e.Headers, "Content-Type") {
			flaws = append(flaws, config.Flaw{Pointer: "/headers", Detail: "the body has its own content type: leave Content-Type out"})
		}
	})
	e.Made = true
	if err := f.Flaws(b); err != nil || len(flaws) > 0 {
		return nil, joined(append(flaws, c.check(e)...), err)
	}
	if flaws = c.check(e); len(flaws) > 0 {
		return nil, flaws
	}
	return e, nil
}

// Text is an endpoint as the file would have it, without its secrets and its body.
func (c *Compiler) Text(name string, spec []byte) (string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(spec, &members); err != nil {
		return "", config.Flaws{{Detail: "write a JSON object: {…}"}}
	}
	delete(members, "secrets")
	delete(members, "body") // a name; the file has the body itself
	rest, err := json.Marshal(members)
	if err != nil {
		return "", err
	}
	f, err := config.NewFragment("endpoint", name, rest, c.shape())
	if err != nil {
		return "", err
	}
	return f.Text(), nil
}

// take checks which members there are, and takes the body out.
func (c *Compiler) take(members map[string]json.RawMessage) (found *Body, flaws config.Flaws) {
	for _, key := range slices.Sorted(maps.Keys(members)) {
		at := "/" + config.EscapePointer(key)
		switch {
		case slices.Contains(always(), key) || slices.Contains(c.Runtime.Overrides, key):
			continue
		case slices.Contains(overridable(), key):
			flaws = append(flaws, config.Flaw{Pointer: at, Detail: fmt.Sprintf("the file does not let endpoints override it; runtime { overrides = […, %q] } would", key)})
			delete(members, key)
		}
	}
	text := members["body"]
	delete(members, "body")
	found, err := c.bodyOf(text)
	if err != nil {
		flaws = append(flaws, config.Flaw{Pointer: "/body", Detail: err.Error()})
	}
	if _, ok := members["policy"]; !ok && len(c.Runtime.Policies) > 0 {
		members["policy"] = json.RawMessage(strconv.Quote(c.Runtime.Policies[0]))
	}
	var policy string
	if json.Unmarshal(members["policy"], &policy) == nil && len(c.Runtime.Policies) > 0 && !slices.Contains(c.Runtime.Policies, policy) {
		flaws = append(flaws, config.Flaw{Pointer: "/policy", Detail: fmt.Sprintf("the file allows %v.%s", c.Runtime.Policies, config.Suggest(policy, c.Runtime.Policies))})
	}
	return found, flaws
}

// bodyOf finds a body of the file by its name, a JSON text. nil and null are the default body.
func (c *Compiler) bodyOf(text json.RawMessage) (*Body, error) {
	if text == nil || string(text) == "null" {
		return nil, nil
	}
	var name string
	if json.Unmarshal(text, &name) != nil {
		return nil, errors.New("write the name of a body block of the file")
	}
	body := c.d.bodies[name]
	if body == nil {
		return nil, fmt.Errorf("the file has no body %q.%s", name, config.Suggest(name, slices.Sorted(maps.Keys(c.d.bodies))))
	}
	return body, nil
}

// check holds an endpoint against the block runtime.
func (c *Compiler) check(e *Endpoint) (flaws config.Flaws) {
	if e.URL == nil {
		return nil // said already
	}
	if c.Runtime.HTTPSOnly && e.URL.Scheme != "https" {
		flaws = append(flaws, config.Flaw{Pointer: "/url", Detail: "it must begin with https://"})
	}
	if n := len(e.URL.String()); n > c.Runtime.MaxURL {
		flaws = append(flaws, config.Flaw{Pointer: "/url", Detail: fmt.Sprintf("it has %d characters, at most %d are allowed", n, c.Runtime.MaxURL)})
	}
	return flaws
}

// joined adds the flaws of err.
func joined(flaws config.Flaws, err error) error {
	if more, ok := errors.AsType[config.Flaws](err); ok {
		return append(flaws, more...)
	}
	if err != nil {
		flaws = append(flaws, config.Flaw{Detail: err.Error()})
	}
	return flaws
}
