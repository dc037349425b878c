package eval

import (
	"errors"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// patterns caches the patterns that were compiled last. One evaluation uses it at a time.
type patterns struct {
	known *lru.Cache[string, *Pattern] // nil before the first
}

// mostPatterns is how many are kept.
const mostPatterns = 16

func (c *patterns) get(s string, left *Allowance) (*Pattern, error) {
	if c.known == nil {
		known, err := lru.New[string, *Pattern](mostPatterns)
		if err != nil {
			panic(err) // only for a size under 1
		}
		c.known = known
	}
	if p, ok := c.known.Get(s); ok {
		return p, nil
	}
	if !left.Spend(len(s) * 200) {
		return nil, left.Err()
	}
	p, err := NewPattern(s)
	if err != nil {
		return nil, err
	}
	left.Spend(p.program * 1000) // it is done, and bounded
	c.known.Add(s, p)
	return p, nil
}

// regexFunctions are regex, regexall and regexreplace, as cty has them, with patterns of
// bounded size that take from an allowance.
func regexFunctions(left *Allowance) map[string]function.Function {
	c := &patterns{}
	of := func(names []string, impl func(p *Pattern, args []cty.Value) (cty.Value, error)) function.Function {
		spec := &function.Spec{Type: function.StaticReturnType(cty.DynamicPseudoType)}
		pattern := 0
		for i, name := range names {
			if name == "pattern" {
				pattern = i
			}
			spec.Params = append(spec.Params, function.Parameter{Name: name, Type: cty.String, AllowMarked: true})
		}
		spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, err := c.get(args[pattern].AsString(), left)
			if err != nil {
				return cty.NilVal, err
			}
			v, err := impl(p, args)
			if left.Err() != nil {
				return cty.NilVal, left.Err()
			}
			return v, err
		}
		return function.New(spec)
	}
	return map[string]function.Function{
		"regex": of([]string{"pattern", "string"}, func(p *Pattern, args []cty.Value) (cty.Value, error) {
			s := args[1].AsString()
			found := p.first(s, left)
			if found == nil {
				return cty.NilVal, errors.New("pattern did not match any part of the given string")
			}
			return p.value(s, found), nil
		}),
		"regexall": of([]string{"pattern", "string"}, func(p *Pattern, args []cty.Value) (cty.Value, error) {
			s := args[1].AsString()
			var all []cty.Value
			p.each(s, left, func(found []int) {
				if left.Spend(valueCost * len(found)) {
					all = append(all, p.value(s, found))
				}
			})
			if len(all) == 0 {
				return cty.ListValEmpty(p.result), nil
			}
			return cty.ListVal(all), nil
		}),
		"regexreplace": of([]string{"str", "pattern", "replace"}, func(p *Pattern, args []cty.Value) (cty.Value, error) {
			return cty.StringVal(p.replace(args[0].AsString(), args[2].AsString(), left)), nil
		}),
	}
}
