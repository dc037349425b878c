package config

import (
	"maps"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty/function"
)

// Deferred is an attribute whose expression is evaluated later, for each event.
type Deferred struct {
	Expr      hclsyntax.Expression
	Functions map[string]function.Function // of the file, without bounds; env and file are called during evaluation
	Source    string                       // as it is written

	block *Block
	attr  *hclsyntax.Attribute
}

// Deferred returns an attribute's expression with everything needed to evaluate it; false if the
// attribute is absent or null.
func (b *Block) Deferred(name string) (Deferred, bool) {
	b.note(Attribute{Name: name, Kind: "expression"})
	a := b.ask(name)
	if a == nil {
		return Deferred{}, false
	}
	if literal, ok := a.Expr.(*hclsyntax.LiteralValueExpr); ok && literal.Val.IsNull() {
		return Deferred{}, false
	}
	at := a.Expr.Range()
	functions := b.source.functions()
	if d := drawingOf(a.Expr); d.nested {
		maps.Copy(functions, b.source.draw(drawer{quiet: true}))
	}
	return Deferred{
		Expr:      a.Expr,
		Functions: functions,
		Source:    string(at.SliceBytes(b.source.text)),
		block:     b,
		attr:      a,
	}, true
}

// functions are those of the file as they are.
func (s *source) functions() map[string]function.Function {
	all := pureFunctions()
	for _, name := range []string{"env", "file"} {
		all[name] = s.plain.Functions[name]
	}
	return all
}

// Fail adds a problem at a part of the expression.
func (d Deferred) Fail(at hcl.Range, summary, detail string) {
	p := place(d.attr, false, d.attr.Expr)
	p.at = at
	d.block.Fail(p, summary, detail)
}
