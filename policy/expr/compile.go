package expr

import (
	"math/big"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"relay/policy/rawjson"
)

// compiler turns the expression of a body into nodes. Objects, tuples, templates, conditionals
// and calls of try and jsonencode become nodes of their own, so that the order of keys and the
// bytes of data are kept; HCL evaluates the rest.
type compiler struct{ *Scope }

func (c compiler) root(e hclsyntax.Expression, kind string) node {
	switch kind {
	case KindForm:
		return c.form(e)
	case KindJSON:
		return c.compile(e, modeJSON)
	}
	return c.whole(e)
}

// compile never returns nil; after a problem the result is not used.
func (c compiler) compile(e hclsyntax.Expression, m mode) node {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.compile(e.Expression, m)
	case *hclsyntax.TemplateWrapExpr:
		return c.compile(e.Wrapped, m)
	case *hclsyntax.ConditionalExpr:
		return choice{c.Scope.compile(e.Condition), c.compile(e.TrueResult, m), c.compile(e.FalseResult, m)}
	case *hclsyntax.TemplateExpr:
		if m == modeJSON {
			return join(literal(`"`), c.parts(e, modeEscaped), literal(`"`))
		}
		return c.parts(e, m)
	case *hclsyntax.ObjectConsExpr:
		return c.object(e, m)
	case *hclsyntax.TupleConsExpr:
		return c.tuple(e, m)
	case *hclsyntax.ScopeTraversalExpr:
		if n := c.member(e.Traversal, m); n != nil {
			return n
		}
	case *hclsyntax.FunctionCallExpr:
		switch {
		case e.ExpandFinal:
		case e.Name == "try":
			var all tries
			for _, a := range e.Args {
				all = append(all, c.compile(a, m))
			}
			return all
		case e.Name == "jsonencode" && m == modeText:
			return c.compile(e.Args[0], modeJSON)
		case e.Name == "jsonencode" && m == modeEscaped:
			return escaped{c.compile(e.Args[0], modeJSON)}
		case e.Name == "jsonencode":
			return join(literal(`"`), escaped{c.compile(e.Args[0], modeJSON)}, literal(`"`))
		}
	}
	return c.computed(e, m)
}

func (c compiler) computed(e hclsyntax.Expression, m mode) node {
	n := computed{c.Scope.compile(e), m}
	if len(hclsyntax.Variables(e)) > 0 {
		return n
	}
	r := c.program.begin(&View{})
	defer c.program.end(r)
	text, err := n.append(nil, r)
	if err != nil {
		c.invalid(e.Range(), err)
	}
	return literal(text)
}

// isJSON tells whether a body is written as JSON: an object, a list, or data.
func (c compiler) isJSON(e hclsyntax.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.ObjectConsExpr, *hclsyntax.TupleConsExpr:
		return true
	case *hclsyntax.ScopeTraversalExpr:
		_, ok := c.member(e.Traversal, modeJSON).(data)
		return ok
	case *hclsyntax.ParenthesesExpr:
		return c.isJSON(e.Expression)
	}
	return false
}

// whole compiles a body of kind text.
func (c compiler) whole(e hclsyntax.Expression) node {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return c.whole(e.Expression)
	case *hclsyntax.ConditionalExpr:
		return choice{c.Scope.compile(e.Condition), c.whole(e.TrueResult), c.whole(e.FalseResult)}
	case *hclsyntax.FunctionCallExpr:
		switch {
		case e.ExpandFinal:
		case e.Name == "try":
			var all tries
			for _, a := range e.Args {
				all = append(all, c.whole(a))
			}
			return all
		case e.Name == "jsonencode":
			return c.compile(e.Args[0], modeJSON)
		}
	case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr, *hclsyntax.ScopeTraversalExpr:
		if !c.isJSON(e) {
			return c.compile(e, modeText)
		}
	}
	if c.isJSON(e) {
		return c.compile(e, modeJSON)
	}
	return c.computed(e, modeWhole)
}

func (c compiler) parts(e *hclsyntax.TemplateExpr, m mode) node {
	var all []node
	for _, p := range e.Parts {
		all = append(all, c.compile(p, m))
	}
	return join(all...)
}

func (c compiler) object(e *hclsyntax.ObjectConsExpr, m mode) node {
	if m != modeJSON {
		c.Fail(e.Range(), "Object in a text", "write jsonencode({…}).")
		return literal("")
	}
	all := []node{literal("{")}
	c.keys(e, func(i int, key string, value hclsyntax.Expression) {
		if i > 0 {
			all = append(all, literal(","))
		}
		all = append(all, literal(append(rawjson.AppendString(nil, key), ':')), c.compile(value, modeJSON))
	})
	return join(append(all, literal("}"))...)
}

// keys returns an object's keys, which must be constant and unique.
func (c compiler) keys(e *hclsyntax.ObjectConsExpr, each func(i int, key string, value hclsyntax.Expression)) {
	var seen []string
	for _, item := range e.Items {
		at := item.KeyExpr.Range()
		if len(hclsyntax.Variables(item.KeyExpr)) > 0 {
			c.Fail(at, "Key is not constant", `the keys of a body are the same for every event. For others write a for expression: { for k, v in event.data : k => v }.`)
			continue
		}
		v, ok := c.constant(item.KeyExpr)
		if !ok {
			continue
		}
		if v.IsNull() || !v.Type().IsPrimitiveType() {
			c.Fail(at, "Invalid key", "a key is a text.")
			continue
		}
		key := scalarText(v)
		if slices.Contains(seen, key) {
			c.Fail(at, "Duplicate key", "this key stands twice in this object.")
			continue
		}
		each(len(seen), key, item.ValueExpr)
		seen = append(seen, key)
	}
}

func (c compiler) tuple(e *hclsyntax.TupleConsExpr, m mode) node {
	if m != modeJSON {
		c.Fail(e.Range(), "List in a text", "write jsonencode([…]), or join(\", \", […]).")
		return literal("")
	}
	all := []node{literal("[")}
	for i, value := range e.Exprs {
		if i > 0 {
			all = append(all, literal(","))
		}
		all = append(all, c.compile(value, modeJSON))
	}
	return join(append(all, literal("]"))...)
}

// form compiles an object into key=value&…, in its order.
func (c compiler) form(e hclsyntax.Expression) node {
	object, ok := e.(*hclsyntax.ObjectConsExpr)
	if !ok {
		c.Fail(e.Range(), "Invalid body", "a form is written as an object of texts: body = { text = event.data.text }.")
		return literal("")
	}
	var all []node
	c.keys(object, func(i int, key string, value hclsyntax.Expression) {
		name := appendQuery(nil, key)
		if i > 0 {
			name = append([]byte("&"), name...)
		}
		all = append(all, literal(append(name, '=')), query{c.compile(value, modeText)})
	})
	return join(all...)
}

// member compiles a part of the event that is copied unchanged; nil for an expression that must
// be evaluated.
func (c compiler) member(t hcl.Traversal, m mode) node {
	if len(t) < 2 {
		return nil
	}
	name, ok := memberName(t[1])
	switch root := t.RootName(); {
	case !ok, root == "endpoint":
		return nil
	case root == "event" && name == "data":
		var path []step
		for _, s := range t[2:] {
			p, ok := pathStep(s)
			if !ok {
				return nil
			}
			path = append(path, p)
		}
		return data{path, m, t.SourceRange()}
	case len(t) > 2:
		return nil
	case root == "delivery":
		return field{"delivery", m}
	}
	return field{name, m}
}

// pathStep is a step into data: a name, or a whole number for an element.
func pathStep(s hcl.Traverser) (step, bool) {
	if name, ok := memberName(s); ok {
		return step{name: name}, true
	}
	index, ok := s.(hcl.TraverseIndex)
	if !ok || index.Key.Type() != cty.Number {
		return step{}, false
	}
	n, accuracy := index.Key.AsBigFloat().Int64()
	return step{index: int(n), isIndex: true}, accuracy == big.Exact && n >= 0 && n <= 1<<30
}
