package eval

import (
	"reflect"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// allowanceName is no valid name in HCL.
const allowanceName = "(allowance)"

var allowanceType = sync.OnceValue(func() cty.Type { return cty.Capsule("allowance", reflect.TypeFor[Allowance]()) })

// Variables adds the allowance to the variables of a context, where the wrappers of Guard find
// it.
func (a *Allowance) Variables(to map[string]cty.Value) map[string]cty.Value {
	to[allowanceName] = cty.CapsuleVal(allowanceType(), a)
	return to
}

func allowanceOf(ctx *hcl.EvalContext) *Allowance {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[allowanceName]; ok {
			return v.EncapsulatedValue().(*Allowance)
		}
	}
	panic("eval: an expression is evaluated without an allowance")
}

// Value evaluates an expression that was guarded, in a context with left among its Variables and
// Functions. If left is spent, err is left's error and the value must not be used.
func Value(e hclsyntax.Expression, ctx *hcl.EvalContext, left *Allowance) (v cty.Value, diags hcl.Diagnostics, err error) {
	defer func() {
		if err = left.Err(); err != nil { // also where try took it for an error like any other
			if p := recover(); p != nil && p != any(errSpent) {
				panic(p)
			}
		}
	}()
	v, diags = e.Value(ctx)
	return v, diags, left.Err()
}

// errSpent is the panic that ends a loop whose allowance is spent: HCL goes on with the next
// element after an error.
const errSpent = BoundError("the allowance is spent")

// Guard wraps the parts of an expression that can take long, so that they take from the allowance
// of the context: each round of a loop, and each operand that data can make large. functions are
// those that it can call. Guarding twice is harmless and not done.
func Guard(n hclsyntax.Node, functions map[string]function.Function) {
	_ = hclsyntax.Walk(n, guards(functions))
}

type guards map[string]function.Function

// Enter implements hclsyntax.Walker.
func (guards) Enter(hclsyntax.Node) hcl.Diagnostics { return nil }

// Exit implements hclsyntax.Walker; it comes when the node's children are done.
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
		switch takes := n.Op.Impl.Params()[0].Type; takes {
		case cty.Number, cty.Bool:
			n.LHS, n.RHS = guardScalar(n.LHS, takes, true), guardScalar(n.RHS, takes, true)
		default: // == and !=
			n.LHS, n.RHS = guardOperand(n.LHS, cty.NilType), guardOperand(n.RHS, cty.NilType)
		}
	case *hclsyntax.UnaryOpExpr:
		n.Val = guardScalar(n.Val, n.Op.Type, true)
	case *hclsyntax.ConditionalExpr:
		n.TrueResult, n.FalseResult = guardOperand(n.TrueResult, cty.DynamicPseudoType), guardOperand(n.FalseResult, cty.DynamicPseudoType)
	case *hclsyntax.TemplateExpr:
		for i, part := range n.Parts {
			n.Parts[i] = guardOperand(part, cty.NilType)
		}
	case *hclsyntax.FunctionCallExpr:
		if f, ok := g[n.Name]; ok {
			guardArguments(n, f)
		}
	}
	return nil
}

func guardArguments(n *hclsyntax.FunctionCallExpr, f function.Function) {
	for i, e := range n.Args {
		switch p := parameter(f, i); {
		case n.ExpandFinal && i == len(n.Args)-1:
			n.Args[i] = guardOperand(e, cty.NilType)
		case p == nil, p.Type.IsCapsuleType():
		case p.Type == cty.Number:
			n.Args[i] = guardScalar(e, cty.Number, false)
		case p.Type == cty.DynamicPseudoType:
			n.Args[i] = guardOperand(e, cty.NilType)
		default:
			n.Args[i] = guardOperand(e, p.Type)
		}
	}
}

func parameter(f function.Function, i int) *function.Parameter {
	if params := f.Params(); i < len(params) {
		return &params[i]
	}
	return f.VarParam()
}

// nodeCost is that of a node of an expression, without its operands, in nanoseconds.
const nodeCost = 100

// round is an expression that a loop evaluates for each element. It looks like one in
// parentheses, so that walks visit its content.
type round struct {
	*hclsyntax.ParenthesesExpr
	cost int
}

func guardRound(e hclsyntax.Expression) hclsyntax.Expression {
	if _, ok := e.(round); ok || e == nil {
		return e
	}
	nodes := 5 // a context of variables
	_ = hclsyntax.VisitAll(e, func(hclsyntax.Node) hcl.Diagnostics { nodes++; return nil })
	return round{parentheses(e), nodes * nodeCost}
}

func parentheses(e hclsyntax.Expression) *hclsyntax.ParenthesesExpr {
	return &hclsyntax.ParenthesesExpr{Expression: e, SrcRange: e.Range()}
}

// Value implements hcl.Expression. It panics where the allowance is spent: HCL goes on
// with the next element after an error.
func (r round) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	left := allowanceOf(ctx)
	if !left.take(1, 0) || !left.Spend(r.cost) {
		panic(errSpent)
	}
	v, diags := r.Expression.Value(ctx)
	if made := weigh(v, left.made); !left.take(0, made) || !left.Spend(made) {
		panic(errSpent)
	}
	return v, diags
}

// operand is an expression whose whole value is used.
type operand struct {
	*hclsyntax.ParenthesesExpr
	to     cty.Type // that the value becomes, where it becomes a list
	unites bool     // the value's type is made one with another
}

// guardOperand wraps an expression that becomes a value of a type: NilType for its own,
// DynamicPseudoType for one that is found by comparison with others.
func guardOperand(e hclsyntax.Expression, to cty.Type) hclsyntax.Expression {
	switch e.(type) {
	case operand, *hclsyntax.LiteralValueExpr:
		return e
	}
	o := operand{ParenthesesExpr: parentheses(e), unites: to == cty.DynamicPseudoType}
	if to != cty.NilType && to.IsListType() {
		o.to = to
	}
	return o
}

// Value implements hcl.Expression.
func (o operand) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := o.Expression.Value(ctx)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() {
		return v, diags
	}
	switch {
	case huge(v):
		return unsuitable(o.SrcRange, ErrNumber.Error())
	case v.Type() == cty.String:
		allowanceOf(ctx).Spend(len(v.AsString()))
	case v.CanIterateElements():
		left, n := allowanceOf(ctx), v.LengthInt()
		left.Spend(values(v, int(left.budget)/valueCost) * valueCost)
		if o.to != cty.NilType && v.Type().IsTupleType() {
			var ok bool
			if v, ok = listOf(v, o.to.ElementType()); !ok {
				left.Spend(n * n * unifyCost)
			}
		}
		if o.unites && !v.Type().IsListType() {
			left.Spend(n * n * unifyCost)
		}
		if left.Err() != nil {
			panic(errSpent)
		}
	}
	return v, diags
}

// unifyCost is what cty takes to compare the type of an element with that of another, in
// nanoseconds. It compares each with each.
const unifyCost = 15

// listOf makes a list of a tuple, element by element, where that is what cty makes; else it
// answers with the tuple.
func listOf(tuple cty.Value, element cty.Type) (cty.Value, bool) {
	all := tuple.AsValueSlice()
	if len(all) == 0 {
		return tuple, true
	}
	if element == cty.DynamicPseudoType {
		element = all[0].Type()
	}
	if !element.IsPrimitiveType() {
		return tuple, false
	}
	for i, v := range all {
		converted, err := convert.Convert(v, element)
		if err != nil || !v.Type().Equals(element) && (element != cty.String || !v.Type().IsPrimitiveType()) {
			return tuple, false
		}
		all[i] = converted
	}
	return cty.ListVal(all), true
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
		for it := v.ElementIterator(); it.Next() && n <= limit; {
			_, e := it.Element()
			n += weigh(e, limit-n)
		}
	}
	return n
}
