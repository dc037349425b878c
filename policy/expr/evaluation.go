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

// Site is where an expression is in the configuration, and its budget.
type Site struct {
	Endpoint string        // its name
	Budget   time.Duration // of one evaluation, or of one body
	Lane     *eval.Lane    // for evaluations that cost more than a millisecond
}

// dataTime is added to a budget for each MiB of the event's data.
const dataTime = 20 * time.Millisecond

// maxValues bounds the values of the event's data for one expression.
const maxValues = eval.MaxValues

type boundError = eval.BoundError

// IsTooExpensive reports whether an evaluation was ended because it exceeded its budget.
func IsTooExpensive(err error) bool {
	return errors.Is(err, eval.ErrTooMuch) || errors.Is(err, eval.ErrTooLong) || IsBusy(err)
}

// IsBusy reports whether an evaluation was ended because too many expensive ones were running. It
// may succeed later.
func IsBusy(err error) bool { return errors.Is(err, eval.ErrBusy) }

// evaluation is the state of evaluating expressions for one event, in one goroutine. Its memory
// is reused.
type evaluation struct {
	*View
	ctx  *hcl.EvalContext
	left eval.Allowance
}

// program is shared by the expressions of one attribute.
type program struct {
	site      Site
	functions map[string]function.Function // those that the expressions call, without bounds
	idle      sync.Pool                    // of *evaluation
}

// newProgram keeps only the functions that the expression calls.
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

// end is for defer. After a panic the memory is not reused.
func (p *program) end(r *evaluation) {
	r.left.End()
	r.Meter.add(r.left.Used(), p.site.Budget)
	r.View = nil
	delete(r.ctx.Variables, "event")
	delete(r.ctx.Variables, "delivery")
	p.idle.Put(r)
}

// err is the allowance's error, with a place in the file.
func (r *evaluation) err(at hcl.Range) error {
	if err := r.left.Err(); err != nil {
		return &placedError{at, err}
	}
	return nil
}
