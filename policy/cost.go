package policy

import (
	"fmt"
	"time"

	"relay/config"
	"relay/outbox"
)

// slowShare is the share of a budget above which the operator is warned, because on a busy
// machine the expression may exceed the budget.
const slowShare = 0.1

// Costly describes which of the endpoint's expressions take over a tenth of their budget for an
// event. It holds no data.
func (e *Endpoint) Costly(event *outbox.Event) (all []string) {
	filter, body := ViewOf(event), ViewOf(event)
	filter.Meter, body.Meter = &Meter{}, &Meter{}
	d := e.Filter.Decide(e.Name, filter)
	all = costly(all, "filter", filter.Meter, e.Budget.Filter)
	if d.Gets && d.Term.Code == "" && e.Body != nil {
		_, _ = e.Body.Append(nil, body) // errors are reported elsewhere
		all = costly(all, "body", body.Meter, e.Budget.Body)
	}
	return all
}

func costly(all []string, what string, m *Meter, budget time.Duration) []string {
	if m.Share <= slowShare {
		return all
	}
	return append(all, fmt.Sprintf("its %s takes %.0f %% of its budget of %s", what, 100*m.Share, config.FormatDuration(budget)))
}

// maxExamples bounds how long examples are evaluated.
const maxExamples = 2 * time.Second

// CostlyExamples is Costly for the examples of the event types, each for the endpoints that
// get its type.
func (p *Policy) CostlyExamples() (all []string) {
	began := time.Now()
	for _, t := range p.Types {
		if t.Example == nil {
			continue
		}
		event := outbox.Event{ID: "evt_example", Type: t.Name, Time: began.UTC(), Data: t.Example}
		for _, name := range p.Match(t.Name) {
			if time.Since(began) > maxExamples {
				return all
			}
			for _, cost := range p.Endpoint(name).Costly(&event) {
				all = append(all, fmt.Sprintf("endpoint %q: %s for the example of %s", name, cost, t.Name))
			}
		}
	}
	return all
}
