package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"relay/config"
)

// What one expression may use for one event. Data can come from anybody, so its size
// must not decide how long an attempt takes to be built.
const (
	maxValues = 10_000  // values of the event's data that are made for it, and elements of a list
	maxSteps  = 10_000  // rounds of for and of splats
	maxMade   = 4 << 20 // bytes that those rounds make
	maxText   = 1 << 20 // bytes of a text that a function makes
)

// scope is what the expressions of one attribute can use. It checks them when the file is
// decoded, so that only data can make an evaluation fail.
type scope struct {
	from config.Deferred
	base *hcl.EvalContext // functions, and what is the same for all events
	once *answers         // of env() and file()
	bad  bool             // a problem was found

	variables []string
}

// newScope checks the whole expression of an attribute, which can use these variables.
func newScope(from config.Deferred, endpoint string, variables ...string) *scope {
	s := &scope{from: from, once: &answers{known: map[string]cty.Value{}}, variables: variables}
	s.base = &hcl.EvalContext{
		Functions: eventFunctions(from.Functions, s.once),
		Variables: map[string]cty.Value{"endpoint": cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(endpoint)})},
	}
	_ = hclsyntax.VisitAll(from.Expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok {
			s.checkCall(call)
		}
		return nil
	})
	s.once.sealed = true
	for _, t := range hclsyntax.Variables(from.Expr) {
		s.checkVariable(t)
	}
	return s
}

// mask returns a scope like s, which was checked, where env and file give ***. It keeps its
// problems to itself.
func (s *scope) mask() *scope {
	once := &answers{sealed: true, masked: true}
	return &scope{
		once: once,
		base: &hcl.EvalContext{Functions: eventFunctions(s.from.Functions, once), Variables: s.base.Variables},
	}
}

func (s *scope) fail(at hcl.Range, summary, detail string) {
	s.bad = true
	if !s.once.masked {
		s.from.Fail(at, summary, detail)
	}
}

// membersOf lists what a variable has.
func membersOf(variable string) []string {
	switch variable {
	case "event":
		return []string{"data", "id", "key", "tenant", "time", "timestamp", "type"}
	case "delivery":
		return []string{"id"}
	case "endpoint":
		return []string{"name"}
	}
	return nil
}

func (s *scope) checkVariable(t hcl.Traversal) {
	root := t.RootName()
	members := membersOf(root)
	if !slices.Contains(s.variables, root) {
		last := len(s.variables) - 1
		s.fail(t.SourceRange(), "Unknown variable", fmt.Sprintf("there is no variable %q here; there are %s and %s.%s",
			root, strings.Join(s.variables[:last], ", "), s.variables[last], config.Suggest(root, s.variables)))
		return
	}
	if len(t) == 1 {
		return
	}
	if name, ok := memberName(t[1]); ok && !slices.Contains(members, name) {
		s.fail(t.SourceRange(), "Unsupported attribute", fmt.Sprintf("%s has no %q; it has %s.%s",
			root, name, strings.Join(members, ", "), config.Suggest(name, members)))
	}
}

// memberName is the name that a step of a traversal picks: .name or ["name"].
func memberName(step hcl.Traverser) (string, bool) {
	switch step := step.(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// checkCall looks at a call's name and number of arguments, and calls env and file once
// and for all.
func (s *scope) checkCall(call *hclsyntax.FunctionCallExpr) {
	f, ok := s.base.Functions[call.Name]
	switch {
	case call.Name == "env", call.Name == "file":
		s.callOnce(call)
		return
	case !ok:
		names := slices.Sorted(maps.Keys(s.base.Functions))
		s.fail(call.NameRange, "Call to unknown function", fmt.Sprintf("There is no function named %q here.%s", call.Name, config.Suggest(call.Name, names)))
		return
	case call.ExpandFinal:
		return
	}
	switch n, least := len(call.Args), len(f.Params()); {
	case n < least, f.VarParam() == nil && n > least:
		s.fail(call.Range(), "Wrong number of arguments", fmt.Sprintf("%s takes %d, here are %d.", call.Name, least, n))
	}
}

// callOnce calls env or file, whose answer is kept.
func (s *scope) callOnce(call *hclsyntax.FunctionCallExpr) {
	if len(hclsyntax.Variables(call)) > 0 {
		s.fail(call.Range(), "Invalid argument", call.Name+" is called when the file is read, so it takes no variables.")
		return
	}
	s.constant(call)
}

// constant evaluates an expression without variables.
func (s *scope) constant(e hclsyntax.Expression) (cty.Value, bool) {
	v, err := s.compile(e).value(&View{})
	if err != nil {
		s.invalid(e.Range(), err)
	}
	return v, err == nil
}

// invalid reports an error of a constant.
func (s *scope) invalid(at hcl.Range, err error) {
	if p, ok := errors.AsType[*placedError](err); ok {
		at, err = p.at, p.reason
	}
	s.fail(at, "Invalid value", err.Error())
}

// placedError says where in the file an evaluation failed, and why. It holds no data.
type placedError struct {
	at     hcl.Range
	reason error
}

func (e *placedError) Error() string { return fmt.Sprintf("%s: %v", e.at, e.reason) }
func (e *placedError) Unwrap() error { return e.reason }

func placed(at hcl.Range, format string, args ...any) error {
	return &placedError{at, fmt.Errorf(format, args...)}
}

// expression is evaluated for each event.
type expression struct {
	e        hclsyntax.Expression
	base     *hcl.EvalContext
	event    *want // nil for one that does not ask for it
	delivery bool  // asks for it
}

// want says which members of a value an expression asks for; of one without members all.
type want struct{ members map[string]*want }

// add takes note of a traversal behind the variable.
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
func (s *scope) compile(e hclsyntax.Expression) *expression {
	x := &expression{e: e, base: s.base}
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
	_ = hclsyntax.Walk(e, guards{s.base.Functions})
	return x
}

// value evaluates the expression. The error tells where and what, without any data.
func (x *expression) value(v *View) (result cty.Value, err error) {
	ctx := x.base.NewChild()
	left := &allowance{steps: maxSteps, made: maxMade}
	ctx.Variables = map[string]cty.Value{allowanceName: cty.CapsuleVal(allowanceType(), left)}
	if x.event != nil {
		if ctx.Variables["event"], err = v.value(x.event); err != nil {
			return cty.NilVal, &placedError{x.e.Range(), err}
		}
	}
	if x.delivery {
		ctx.Variables["delivery"] = cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal(v.Delivery)})
	}
	defer func() {
		if left.spent() { // also where try took it for an error like any other
			err = &placedError{x.e.Range(), errTooMuch}
			if p := recover(); p != nil && p != any(errTooMuch) {
				panic(p)
			}
		}
	}()
	result, diags := x.e.Value(ctx)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			return cty.NilVal, explain(d, x.e.Range())
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

// explain keeps of a diagnostic what cannot hold data.
func explain(d *hcl.Diagnostic, at hcl.Range) error {
	if d.Subject != nil {
		at = *d.Subject
	}
	if d.Summary == "Unsupported attribute" { // names what the file says
		return placed(at, "%s; write try(…, null) for what may be absent", strings.TrimSuffix(lowerFirst(d.Detail), "."))
	}
	if d.Summary == "Invalid index" {
		return placed(at, "there is no such element; write try(…, null) for what may be absent")
	}
	if call, ok := d.Extra.(hclsyntax.FunctionCallDiagExtra); ok && call.CalledFunctionName() != "" {
		name, err := call.CalledFunctionName(), call.FunctionCallError()
		if bound, ok := errors.AsType[boundError](err); ok {
			return placed(at, "%s: %w", name, bound)
		}
		if err != nil && (name == "env" || name == "file") { // called with what the file says
			return &placedError{at, err}
		}
		return placed(at, "%s cannot take these values", name)
	}
	return placed(at, "%s", lowerFirst(d.Summary))
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
