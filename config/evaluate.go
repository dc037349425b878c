package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"relay/config/eval"
)

// Budgets of the evaluation of files, so that a wrong file cannot delay a start or end a process
// that reloads it.
const (
	valueBudget = 200 * time.Millisecond // of one expression
	fileBudget  = 5 * time.Second        // of all of them
)

var errFile = errors.New("the expressions of the configuration take longer than " + FormatDuration(fileBudget) + " together; make them simpler")

// value evaluates an expression within the budgets. err says that it was too expensive.
func (b *Block) value(e hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics, error) {
	f := b.file
	if f.took > fileBudget {
		return cty.NilVal, nil, errFile
	}
	eval.Guard(e, b.sourceOf(e).plain.Functions)
	f.left.Begin(valueBudget, nil)
	defer func() {
		f.left.End()
		f.took += f.left.Used()
	}()
	return eval.Value(e, ctx, &f.left)
}

// evaluate returns the converted value of an expression; p is its place. HCL's messages can quote
// the file, so for a secret only those without quotes are kept.
func (b *Block) evaluate(e hclsyntax.Expression, want cty.Type, p Place, secret bool) (cty.Value, bool) {
	d := drawingOf(e)
	from := b.sourceOf(e)
	ctx := from.plain
	if d.any && (secret || d.nested) {
		ctx = ctx.NewChild()
		ctx.Functions = from.draw(b.drawer(d, p, secret))
	}
	hide := secret || d.any
	v, diags, err := b.value(e, ctx)
	if err != nil {
		b.Fail(p, "Expression is too expensive", err.Error())
		return cty.NilVal, false
	}
	for _, d := range diags {
		at, summary, detail := p, d.Summary, d.Detail
		if summary == "Unknown variable" { // there are no variables, and HCL would suggest Relay's internal ones
			summary, detail = "Variables not allowed", "Variables may not be used here."
		}
		if d.Subject != nil {
			at.at = *d.Subject
		}
		switch extra := d.Extra.(type) {
		case hclsyntax.FunctionCallUnknownDiagExtra:
			// HCL suggests names in the random order of a map.
			name := extra.CalledFunctionName()
			names := slices.Sorted(maps.Keys(from.plain.Functions))
			detail = fmt.Sprintf("There is no function named %q.%s", name, Suggest(name, names))
		case hclsyntax.FunctionCallDiagExtra:
			if name := extra.CalledFunctionName(); hide && name != "env" && name != "file" {
				detail = notShown
			}
		default:
			if hide {
				detail = notShown
			}
		}
		b.Fail(at, summary, detail)
	}
	if diags.HasErrors() {
		return cty.NilVal, false
	}
	if v, err = convert.Convert(v, want); err != nil {
		detail := err.Error()
		if d.any {
			detail = want.FriendlyName() + " required"
		}
		b.Fail(p, "Unsuitable value", detail)
		return cty.NilVal, false
	}
	return v, true
}

// sourceOf is the file that an expression of the block is in. The top level may be in several.
func (b *Block) sourceOf(e hclsyntax.Expression) *source {
	if b.source != nil {
		return b.source
	}
	return b.file.source(e.Range().Filename)
}

// drawer is env() and file() for an expression at a place.
func (b *Block) drawer(d drawing, p Place, secret bool) drawer {
	to := drawer{quiet: d.nested}
	if secret {
		to.clean = !d.others // other functions may need the line ends
		to.warn = func(text string) { b.file.warnOnce(p, "", text) }
	}
	return to
}

const notShown = `This may be a secret, so it is not shown. Write a quoted string, env("NAME") or file("path").`
