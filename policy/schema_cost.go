package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"relay/config/eval"
)

// The library has no bounds: a schema of a few lines that refers to itself twice takes time
// exponential in the data's depth. So each part of a compiled schema has a meter, which the
// library calls for each value and which panics when the allowance is spent. One goroutine at a
// time uses such a copy.

// checker is a compiled schema and the allowance that its parts take from.
type checker struct {
	schema *jsonschema.Schema
	left   eval.Allowance
}

// errUncompared is the panic that ends a check.
const errUncompared = eval.BoundError("the allowance of a comparison is spent")

// compileSchema compiles a document that is a schema.
func compileSchema(doc any) (*checker, error) {
	k := &checker{}
	k.left.Begin(compileBudget, nil)
	defer k.left.End()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.RegisterFormat(&jsonschema.Format{Name: "date-time", Validate: dateTime})
	c.UseLoader(noLoader{})
	c.UseRegexpEngine(k.pattern)
	if err := c.AddResource(here, doc); err != nil {
		return nil, fmt.Errorf("add schema: %w", err)
	}
	compiled, err := c.Compile(here)
	switch {
	case k.left.Err() != nil:
		return nil, fmt.Errorf("it cannot be used: %w", k.left.Err())
	case err != nil:
		return nil, schemaError(err)
	}
	k.schema = compiled
	k.meter(compiled, map[*jsonschema.Schema]bool{})
	return k, nil
}

// pattern is the library's engine of regular expressions.
func (k *checker) pattern(s string) (jsonschema.Regexp, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("a pattern is longer than %d bytes", maxPattern)
	}
	if !k.left.Spend(len(s) * 2000) { // the program it compiles to is bounded, too
		return nil, k.left.Err()
	}
	p, err := eval.NewPattern(s)
	if err != nil {
		return nil, err
	}
	return &pattern{p, s, &k.left}, nil
}

// pattern is a regular expression that takes from an allowance.
type pattern struct {
	*eval.Pattern
	text string
	left *eval.Allowance
}

// String implements jsonschema.Regexp.
func (p *pattern) String() string { return p.text }

// MatchString implements jsonschema.Regexp.
func (p *pattern) MatchString(s string) bool {
	is := p.Pattern.MatchString(s, p.left)
	if p.left.Err() != nil {
		panic(errUncompared)
	}
	return is
}

// meter makes the format of each part take from the allowance: the library checks the format
// before it descends. A part without a format gets one that every value fits.
func (k *checker) meter(s *jsonschema.Schema, seen map[*jsonschema.Schema]bool) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	inner := parts(s)
	format := jsonschema.Format{Validate: func(any) error { return nil }}
	if s.Format != nil {
		format = *s.Format
	}
	validate := format.Validate
	cost := 300 * (1 + len(inner))
	if s.Enum != nil {
		cost += 50 * len(s.Enum.Values)
	}
	format.Validate = func(v any) error {
		if !k.left.Spend(cost + valueCost(v, s.UniqueItems)) {
			panic(errUncompared)
		}
		return validate(v)
	}
	s.Format = &format
	for _, p := range inner {
		k.meter(p, seen)
	}
}

// valueCost is the library's time for a value, in nanoseconds. deep is set if it compares the
// value's elements with each other.
func valueCost(v any, deep bool) int {
	cost := 100
	switch v := v.(type) {
	case map[string]any:
		cost += 200 * len(v)
		if deep {
			for _, e := range v {
				cost += valueCost(e, deep)
			}
		}
	case []any:
		cost += 150 * len(v)
		if deep {
			for _, e := range v {
				cost += 2 * valueCost(e, deep)
			}
		}
	case string:
		cost += 5 * len(v)
	case json.Number: // it computes with fractions of whole numbers
		cost += 40 * len(v)
		if strings.ContainsAny(string(v), "eE") {
			cost += 20_000
		}
	}
	return cost
}

// parts are the schemas that a schema holds or refers to.
func parts(s *jsonschema.Schema) []*jsonschema.Schema {
	all := slices.Concat(s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems)
	all = append(all, s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties,
		s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema)
	if s.DynamicRef != nil {
		all = append(all, s.DynamicRef.Ref)
	}
	for _, p := range s.Properties {
		all = append(all, p)
	}
	for _, p := range s.PatternProperties {
		all = append(all, p)
	}
	for _, p := range s.DependentSchemas {
		all = append(all, p)
	}
	for _, d := range s.Dependencies {
		if p, ok := d.(*jsonschema.Schema); ok {
			all = append(all, p)
		}
	}
	for _, x := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		switch x := x.(type) {
		case *jsonschema.Schema:
			all = append(all, x)
		case []*jsonschema.Schema:
			all = append(all, x...)
		}
	}
	return slices.DeleteFunc(all, func(p *jsonschema.Schema) bool { return p == nil })
}
