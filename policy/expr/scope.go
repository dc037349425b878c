// Package expr evaluates HCL for an event, within bounds: expressions of filters, and
// the templates of bodies. The decoder of the file makes a Scope of an attribute, which
// checks it, and compiles it to an Expression or a Template; both may be used at the same time.
//
// Read in this order: Scope, Expression, Template (compile.go, nodes.go), guard.go.
package expr

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"relay/config"
)

// Scope is the variables and functions for the expressions of one attribute. It checks the
// expressions during decoding, so that an evaluation can fail only because of data.
type Scope struct {
	from    config.Deferred
	program *program
	known   map[string]function.Function // that it can call
	once    *answers                     // of env() and file()
	bad     bool                         // a problem was found

	variables []string
}

// NewScope checks the whole expression of an attribute, which may use these variables.
func NewScope(from config.Deferred, site Site, variables ...string) *Scope {
	s := &Scope{from: from, once: &answers{known: map[string]cty.Value{}}, variables: variables}
	s.known = eventFunctions(from.Functions, s.once)
	s.program = newProgram(from.Expr, site, s.known)
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

// mask returns a copy of s, which was checked, in which env and file return ***. It reports no
// problems.
func (s *Scope) mask() *Scope {
	once := &answers{sealed: true, masked: true}
	known := eventFunctions(s.from.Functions, once)
	return &Scope{once: once, known: known, program: newProgram(s.from.Expr, s.program.site, known)}
}

// Fail reports a problem at a part of the expression.
func (s *Scope) Fail(at hcl.Range, summary, detail string) {
	s.bad = true
	if !s.once.masked {
		s.from.Fail(at, summary, detail)
	}
}

// FailWhole reports a problem of the whole expression.
func (s *Scope) FailWhole(summary, detail string) { s.Fail(s.from.Expr.Range(), summary, detail) }

// Bad reports whether a problem was found; then nothing may be compiled.
func (s *Scope) Bad() bool { return s.bad }

// Answers are what env() and file() gave, empty where neither is called.
func (s *Scope) Answers() config.Secret { return config.NewSecret(s.once.text()) }

// Constant tells whether the value is the same for every event.
func (s *Scope) Constant() bool { return len(hclsyntax.Variables(s.from.Expr)) == 0 }

// Expression compiles the whole attribute.
func (s *Scope) Expression() *Expression { return s.compile(s.from.Expr) }

// membersOf lists a variable's members.
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

func (s *Scope) checkVariable(t hcl.Traversal) {
	root := t.RootName()
	members := membersOf(root)
	if !slices.Contains(s.variables, root) {
		last := len(s.variables) - 1
		s.Fail(t.SourceRange(), "Unknown variable", fmt.Sprintf("there is no variable %q here; there are %s and %s.%s",
			root, strings.Join(s.variables[:last], ", "), s.variables[last], config.Suggest(root, s.variables)))
		return
	}
	if len(t) == 1 {
		return
	}
	if name, ok := memberName(t[1]); ok && !slices.Contains(members, name) {
		s.Fail(t.SourceRange(), "Unsupported attribute", fmt.Sprintf("%s has no %q; it has %s.%s",
			root, name, strings.Join(members, ", "), config.Suggest(name, members)))
	}
}

// memberName is the member that a step of a traversal names: .name or ["name"].
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

// checkCall checks a call's name and number of arguments, and calls env and file, whose results
// are constant.
func (s *Scope) checkCall(call *hclsyntax.FunctionCallExpr) {
	f, ok := s.known[call.Name]
	switch {
	case call.Name == "env", call.Name == "file":
		s.callOnce(call)
		return
	case !ok:
		names := slices.Sorted(maps.Keys(s.known))
		s.Fail(call.NameRange, "Call to unknown function", fmt.Sprintf("There is no function named %q here.%s", call.Name, config.Suggest(call.Name, names)))
		return
	case call.ExpandFinal:
		return
	}
	switch n, least := len(call.Args), len(f.Params()); {
	case n < least, f.VarParam() == nil && n > least:
		s.Fail(call.Range(), "Wrong number of arguments", fmt.Sprintf("%s takes %d, here are %d.", call.Name, least, n))
	}
}

// callOnce calls env or file, and keeps the result.
func (s *Scope) callOnce(call *hclsyntax.FunctionCallExpr) {
	if len(hclsyntax.Variables(call)) > 0 {
		s.Fail(call.Range(), "Invalid argument", call.Name+" is called when the file is read, so it takes no variables.")
		return
	}
	s.constant(call)
}

// constant evaluates an expression without variables.
func (s *Scope) constant(e hclsyntax.Expression) (cty.Value, bool) {
	r := s.program.begin(&View{})
	defer s.program.end(r)
	v, err := s.compile(e).value(r)
	if err != nil {
		s.invalid(e.Range(), err)
	}
	return v, err == nil
}

// Invalid reports an error of the whole attribute, whose value is the same for every event.
func (s *Scope) Invalid(err error) { s.invalid(s.from.Expr.Range(), err) }

// invalid reports an error of a constant.
func (s *Scope) invalid(at hcl.Range, err error) {
	if p, ok := errors.AsType[*placedError](err); ok {
		at, err = p.at, p.reason
	}
	s.Fail(at, "Invalid value", err.Error())
}

// NeverBool tells whether the value is neither true nor false, for any event.
func (s *Scope) NeverBool() bool { return neverBool(s.from.Expr) }

func neverBool(e hclsyntax.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return neverBool(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return neverBool(e.Wrapped)
	case *hclsyntax.TemplateExpr, *hclsyntax.ObjectConsExpr, *hclsyntax.TupleConsExpr, *hclsyntax.ForExpr, *hclsyntax.SplatExpr:
		return true
	case *hclsyntax.BinaryOpExpr:
		return e.Op.Type != cty.Bool
	case *hclsyntax.UnaryOpExpr:
		return e.Op.Type != cty.Bool
	case *hclsyntax.ConditionalExpr:
		return neverBool(e.TrueResult) || neverBool(e.FalseResult)
	case *hclsyntax.ScopeTraversalExpr:
		if len(e.Traversal) < 2 || e.Traversal.RootName() == "endpoint" {
			return true
		}
		name, ok := memberName(e.Traversal[1])
		return ok && name != "data"
	}
	return false
}
