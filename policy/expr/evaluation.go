package expr

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"relay/config/eval"
)

// Site is where an expression stands, and what it may use.
type Site struct {
	Endpoint string        // its name
	Budget   time.Duration // of one evaluation, or of one body
	Lane     *eval.Lane    // for what costs more than a millisecond
}

// dataTime is added to a budget for the event's data: for each MiB of it.
const dataTime = 20 * time.Millisecond

// maxValues bounds how many values of the event's data are made for an expression.
const maxValues = eval.MaxValues

type boundError = eval.BoundError

// IsTooExpensive tells of an evaluation that was ended because it took too much.
func IsTooExpensive(err error) bool {
	return errors.Is(err, eval.ErrTooMuch) || errors.Is(err, eval.ErrTooLong) || IsBusy(err)
}

// IsBusy tells of an evaluation that was ended because too many expensive ones ran beside
// it: it may go better at another time.
func IsBusy(err error) bool { return errors.Is(err, eval.ErrBusy) }

// evaluation is what one goroutine evaluates with, for one event at a time. Its memory is
// kept for the next event.
type evaluation struct {
	*View
	ctx  *hcl.EvalContext
	left eval.Allowance
}

// program is what the expressions of one attribute have in common.
type program struct {
	site      Site
	functions map[string]function.Function // those that they call, without bounds
	idle      sync.Pool                    // of *evaluation
}

// newProgram keeps of the known functions those that the expression calls.
func newProgram(e hclsyntax.Expression, site Site, known map[string]function.Function) *program {
	p := &program{site: site, functions: map[string]function.Function{}}
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok {
			if f, ok := known[call.Name]; ok {
				p.functions[call.Name] = f
			}
		}
		return nil
	})
	return p
}

func (p *program) begin(v *View) *evaluation {
	r, ok := p.idle.Get().(*evaluation)
	if !ok {
		r = &evaluation{}
		functions := eval.Functions(p.functions, &r.left)
		for name, f := range p.functions {
			if isFree(name) {
				functions[name] = f
			} else if cuts, ok := cutting(name); ok {
				functions[name] = wellFormed(functions[name], cuts)
			}
		}
		r.ctx = &hcl.EvalContext{
			Functions: functions,
			Variables: r.left.Variables(map[string]cty.Value{
				"endpoint": cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(p.site.Endpoint)}),
			}),
		}
	}
	r.View = v
	r.left.Begin(v.Meter.budget(p.site.Budget, time.Duration(len(v.Data))*dataTime>>20), p.site.Lane)
	return r
}

// end is for defer. After a panic nothing is kept.
func (p *program) end(r *evaluation) {
	r.left.End()
	r.Meter.add(r.left.Used(), p.site.Budget)
	r.View = nil
	delete(r.ctx.Variables, "event")
	delete(r.ctx.Variables, "delivery")
	p.idle.Put(r)
}

// err is the allowance's, at a place of the file.
func (r *evaluation) err(at hcl.Range) error {
	if err := r.left.Err(); err != nil {
		return &placedError{at, err}
	}
	return nil
}
