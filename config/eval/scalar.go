package eval

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Unsuitable is the summary of a diagnostic about a value that cannot stand where it does.
// Its detail tells what kind of value it is, and holds no data.
const Unsuitable = "Unsuitable value"

func unsuitable(at hcl.Range, detail string) (cty.Value, hcl.Diagnostics) {
	return cty.DynamicVal, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: Unsuitable, Detail: detail, Subject: at.Ptr()}}
}

// scalar is an expression that becomes a number, or true or false. HCL converts texts. Its
// own errors do not say what it met, and it takes null for false.
type scalar struct {
	*hclsyntax.ParenthesesExpr
	to      cty.Type // Number or Bool
	notNull bool     // operators need a value; functions have words of their own for null
}

func guardScalar(e hclsyntax.Expression, to cty.Type, notNull bool) hclsyntax.Expression {
	switch e := e.(type) {
	case scalar:
		return e
	case *hclsyntax.LiteralValueExpr:
		if e.Val.Type() == to {
			return e
		}
	}
	return scalar{parentheses(e), to, notNull}
}

// Value implements hcl.Expression.
func (s scalar) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	v, diags := s.Expression.Value(ctx)
	switch {
	case diags.HasErrors(), !v.IsKnown(), v.IsNull() && !s.notNull:
		return v, diags
	case huge(v):
		return unsuitable(s.SrcRange, ErrNumber.Error())
	case v.IsNull(), v.Type() != s.to && v.Type() != cty.String:
		return unsuitable(s.SrcRange, kind(v)+" stands here, "+needed(s.to)+" is needed")
	case v.Type() == s.to:
		return v, diags
	}
	if s.to == cty.Number {
		n, err := ParseNumber(v.AsString())
		if err != nil {
			return unsuitable(s.SrcRange, "a text stands here that is no number, or one beyond what a double can hold")
		}
		return n, diags
	}
	b, err := convert.Convert(v, s.to)
	if err != nil {
		return unsuitable(s.SrcRange, `a text stands here that is neither "true" nor "false"`)
	}
	return b, diags
}

func needed(t cty.Type) string {
	if t == cty.Number {
		return "a number"
	}
	return "true or false"
}

// kind says what a value is.
func kind(v cty.Value) string {
	switch t := v.Type(); {
	case v.IsNull():
		return "null"
	case t == cty.String:
		return "a text"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsObjectType(), t.IsMapType():
		return "an object"
	}
	return "a list"
}
