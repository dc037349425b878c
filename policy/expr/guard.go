package expr

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// HCL evaluates without limits. So the parts of an expression that a loop repeats are
// wrapped: each round takes from an allowance, whose end ends the evaluation.

var errTooMuch = boundError(fmt.Sprintf("it takes more than %d steps (rounds of for, elements that functions look at), or makes more than %d bytes in them", maxSteps, maxMade))

// boundError says which limit was met; it holds no data.
type boundError string

func (e boundError) Error() string { return string(e) }

// allowance is what is left for one evaluation.
type allowance struct{ steps, made int }

func (a *allowance) spent() bool { return a.steps < 0 || a.made < 0 }

// allowanceName cannot be written in HCL.
const allowanceName = "(allowance)"

var allowanceType = sync.OnceValue(func() cty.Type { return cty.Capsule("allowance", reflect.TypeFor[allowance]()) })

// guards is a walk that wraps what needs it. Wrapping twice is harmless and not done.
type guards struct{ functions map[string]function.Function }

func (guards) Enter(hclsyntax.Node) hcl.Diagnostics { return nil }

// Exit comes when the node's children are done.
func (g guards) Exit(n hclsyntax.Node) hcl.Diagnostics {
	switch n := n.(type) {
	case *hclsyntax.ForExpr:
		n.ValExpr = guardRound(n.ValExpr)
		if n.CondExpr != nil {
			n.CondExpr = guardRound(n.CondExpr)
		}
	case *hclsyntax.SplatExpr:
		n.Each = guardRound(n.Each)
	case *hclsyntax.BinaryOpExpr:
		if n.Op.Type == cty.Number {
			n.LHS, n.RHS = guardNumber(n.LHS), guardNumber(n.RHS)
		}
	case *hclsyntax.UnaryOpExpr:
		if n.Op.Type == cty.Number {
			n.Val = guardNumber(n.Val)
		}
	case *hclsyntax.FunctionCallExpr:
		f := g.functions[n.Name]
		for i := range n.Args {
			switch p := parameter(f, i); {
			case p == nil, p.Type.IsCapsuleType():
			case p.Type == cty.Number:
				n.Args[i] = guardNumber(n.Args[i])
			case p.Type != cty.String:
				n.Args[i] = guardArgument(n.Args[i], p.Type.IsCollectionType())
			}
		}
	}
	return nil
}

func parameter(f function.Function, i int) *function.Parameter {
	if params := f.Params(); i < len(params) {
		return &params[i]
	}
	return f.VarParam()
}

// round is an expression that a loop evaluates for each element. It looks like one in
// parentheses, so that walks see what is inside.
type round struct{ *hclsyntax.ParenthesesExpr }

func guardRound(e hclsyntax.Expression) hclsyntax.Expression {
	if _, ok := e.(round); ok || e == nil {
		return e
	}
	return round{&hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}}
}

// Value implements hcl.Expression. It panics where the allowance is spent: HCL goes on
// with the next element after an error.
func (r round) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	left := allowanceOf(ctx)
	left.steps--
	v, diags := r.Expression.Value(ctx)
	left.made -= weigh(v, left.made)
	if left.spent() {
		panic(errTooMuch)
	}
	return v, diags
}

// argument is an expression whose elements a function looks at.
type argument struct {
	*hclsyntax.ParenthesesExpr
	converted bool // a tuple becomes a list first, which takes the square of its length
}

func guardArgument(e hclsyntax.Expression, converted bool) hclsyntax.Expression {
	if _, ok := e.(argument); ok {
		return e
	}
	return argument{&hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}, converted}
}

// Value implements hcl.Expression.
func (a argument) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := a.Expression.Value(ctx)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		return v, diags
	}
	left, n := allowanceOf(ctx), v.LengthInt()
	left.steps -= n / 10
	if a.converted {
		left.steps -= n * n / 4000
	}
	if left.spent() {
		panic(errTooMuch)
	}
	return v, diags
}

func allowanceOf(ctx *hcl.EvalContext) *allowance {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[allowanceName]; ok {
			return v.EncapsulatedValue().(*allowance)
		}
	}
	panic("expr: an expression is evaluated without an allowance")
}

// weigh counts the bytes of texts and 16 for each value, and stops soon after limit.
func weigh(v cty.Value, limit int) int {
	if v.IsNull() || !v.IsKnown() {
		return 16
	}
	if v.Type() == cty.String {
		return 16 + len(v.AsString())
	}
	n := 16
	if v.CanIterateElements() {
		for _, e := range v.Elements() {
			if n += weigh(e, limit-n); n > limit {
				break
			}
		}
	}
	return n
}

// number is an expression that becomes a number. A text like "1e999999999" would be one
// whose digits fill the memory when it is written out.
type number struct{ *hclsyntax.ParenthesesExpr }

func guardNumber(e hclsyntax.Expression) hclsyntax.Expression {
	if _, ok := e.(number); ok {
		return e
	}
	return number{&hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}}
}

// Value implements hcl.Expression.
func (n number) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := n.Expression.Value(ctx)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() || v.Type() != cty.String {
		return v, diags
	}
	converted, err := parseNumber(v.AsString())
	if err != nil {
		return cty.DynamicVal, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "A number is required", Subject: n.SrcRange.Ptr()}}
	}
	return converted, diags
}

var errNumber = boundError("a number is beyond what a double can hold, or has more than 100 digits")

// parseNumber reads what a double can hold, exactly.
func parseNumber(s string) (cty.Value, error) {
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil, math.IsNaN(f), math.IsInf(f, 0), len(s) > 100:
		return cty.NilVal, errNumber
	case f == 0:
		return cty.Zero, nil // also 1e-999999999
	}
	v, err := cty.ParseNumberVal(s)
	if err != nil {
		return cty.NilVal, errNumber
	}
	return v, nil
}
