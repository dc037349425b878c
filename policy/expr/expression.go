package expr

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"relay/config/eval"
)

// placedError says where in the file an evaluation failed, and why. It contains no data.
type placedError struct {
	at     hcl.Range
	reason error
}

func (e *placedError) Error() string { return fmt.Sprintf("%s: %v", e.at, e.reason) }
func (e *placedError) Unwrap() error { return e.reason }

func placed(at hcl.Range, format string, args ...any) error {
	return &placedError{at, fmt.Errorf(format, args...)}
}

// Expression is evaluated for each event.
type Expression struct {
	e        hclsyntax.Expression
	program  *program
	event    *want // nil for one that does not ask for it
	delivery bool  // asks for it
	plain    bool  // made of what the file says alone, so that errors may quote it
}

// want says which members of a value an expression asks for; of one without members all.
type want struct{ members map[string]*want }

// add adds the member that a traversal of the variable names.
func (w *want) add(t []hcl.Traverser) {
	for _, step := range t {
		name, ok := memberName(step)
		if !ok {
			break
		}
		if w.members == nil {
			w.members = map[string]*want{}
		}
		next, known := w.members[name]
		if known && next.members == nil {
			return // all of it
		}
		if !known {
			next = &want{}
			w.members[name] = next
		}
		w = next
	}
	w.members = nil
}

// compile prepares an expression of the scope.
func (s *Scope) compile(e hclsyntax.Expression) *Expression {
	x := &Expression{e: e, program: s.program, plain: isPlain(e)}
	for _, t := range hclsyntax.Variables(e) {
		switch t.RootName() {
		case "event":
			if x.event == nil {
				x.event = &want{members: map[string]*want{}}
			} else if x.event.members == nil {
				continue
			}
			x.event.add(t[1:])
		case "delivery":
			x.delivery = true
		}
	}
	eval.Guard(e, s.program.functions)
	return x
}

// isPlain tells whether an expression has no variables, and calls neither env nor file.
func isPlain(e hclsyntax.Expression) bool {
	plain := len(hclsyntax.Variables(e)) == 0
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		call, ok := n.(*hclsyntax.FunctionCallExpr)
		plain = plain && !(ok && (call.Name == "env" || call.Name == "file"))
		return nil
	})
	return plain
}

// value evaluates the expression. The error says where and why, without any data.
func (x *Expression) value(r *evaluation) (cty.Value, error) {
	if x.event != nil {
		event, err := r.event(x.event)
		if err != nil {
			return cty.NilVal, &placedError{x.e.Range(), err}
		}
		r.ctx.Variables["event"] = event
	}
	if x.delivery {
		r.ctx.Variables["delivery"] = cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal(r.Delivery)})
	}
	result, diags, err := eval.Value(x.e, r.ctx, &r.left)
	if err != nil {
		return cty.NilVal, &placedError{x.e.Range(), err}
	}
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return cty.NilVal, x.explain(d)
		}
	}
	switch {
	case !result.IsWhollyKnown():
		return cty.NilVal, placed(x.e.Range(), "the value is not known")
	case result.Type() == cty.Number && !result.IsNull() && result.AsBigFloat().IsInf():
		return cty.NilVal, placed(x.e.Range(), "the value is infinite")
	}
	return result, nil
}

// Bool evaluates a condition.
func (x *Expression) Bool(v *View) (bool, error) {
	r := x.program.begin(v)
	defer x.program.end(r)
	return x.isTrue(r)
}

func (x *Expression) isTrue(r *evaluation) (bool, error) {
	value, err := x.value(r)
	switch {
	case err != nil:
		return false, err
	case value.IsNull(), value.Type() != cty.Bool:
		return false, placed(x.e.Range(), "the condition is neither true nor false")
	}
	return value.True(), nil
}

// Number evaluates an expression that must be a number.
func (x *Expression) Number(v *View) (float64, error) {
	r := x.program.begin(v)
	defer x.program.end(r)
	value, err := x.value(r)
	switch {
	case err != nil:
		return 0, err
	case value.IsNull(), value.Type() != cty.Number:
		return 0, placed(x.e.Range(), "the value is not a number")
	}
	n, _ := value.AsBigFloat().Float64()
	return n, nil
}

// Subject evaluates the subject of an event. It is JSON in a canonical form. An empty subject is
// an error, because all events without a subject would count as equal.
func (x *Expression) Subject(v *View) ([]byte, error) {
	r := x.program.begin(v)
	defer x.program.end(r)
	value, err := x.value(r)
	switch {
	case err != nil:
		return nil, err
	case isEmpty(value):
		return nil, placed(x.e.Range(), "the subject is empty: all events without one would be taken for the same")
	}
	return appendValue(nil, value)
}

func isEmpty(v cty.Value) bool {
	switch {
	case v.IsNull():
		return true
	case v.Type() == cty.String:
		return v.AsString() == ""
	case v.CanIterateElements():
		for _, e := range v.Elements() {
			if !isEmpty(e) {
				return false
			}
		}
		return true
	}
	return false
}

// explain keeps the parts of a diagnostic that cannot contain data.
func (x *Expression) explain(d *hcl.Diagnostic) error {
	at := x.e.Range()
	if d.Subject != nil {
		at = *d.Subject
	}
	if call, ok := d.Extra.(hclsyntax.FunctionCallDiagExtra); ok && call.CalledFunctionName() != "" {
		name, err := call.CalledFunctionName(), call.FunctionCallError()
		if bound, ok := errors.AsType[boundError](err); ok {
			return placed(at, "%s: %w", name, bound)
		}
		if err != nil && (name == "env" || name == "file") { // called with values of the file
			return &placedError{at, err}
		}
		if x.plain && err != nil {
			return placed(at, "%s: %w", name, err)
		}
		return placed(at, "%s cannot take these values", name)
	}
	return placed(at, "%s", inWords(d))
}

// inWords tells what HCL met. Its details can quote data, and its summaries alone do not
// say what is missing.
func inWords(d *hcl.Diagnostic) string {
	const orAbsent = "; write try(…, null) for what may be absent"
	switch d.Summary {
	case eval.Unsuitable:
		return d.Detail
	case "Unsupported attribute": // names a part of the file
		if strings.HasPrefix(d.Detail, "This object") {
			return strings.TrimSuffix(lowerFirst(d.Detail), ".") + orAbsent
		}
		return "no object stands before the dot" + orAbsent
	case "Invalid index":
		return "there is no such element" + orAbsent
	case "Attempt to get attribute from null value":
		return "null stands before the dot, and has no members" + orAbsent
	case "Attempt to index null value":
		return "null stands before the index, and has no elements" + orAbsent
	case "Iteration over null value", "Splat of null value":
		return "null stands here, a list or an object is needed"
	case "Iteration over non-iterable value":
		return "neither a list nor an object stands here, one is needed"
	case "Null condition", "Condition is null":
		return "the condition is null, true or false is needed"
	case "Incorrect condition type", "Invalid 'for' condition":
		return "the condition is neither true nor false"
	case "Inconsistent conditional result types":
		return "the two results of the condition are of different types"
	case "Null value as key", "Incorrect key type", "Invalid object key":
		return "the key is null, an object or a list, a text is needed"
	case "Duplicate object key":
		return "a key comes twice; write … behind the value to collect the values of each key in a list"
	case "Invalid template interpolation value":
		return "null, an object or a list stands in a text, a text, a number, true or false is needed"
	case "Invalid expanding argument value":
		return "no list stands before the …, one is needed"
	case "Operation failed":
		return "the operation has no result, like 0/0"
	}
	return lowerFirst(d.Summary)
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
