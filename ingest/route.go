package ingest

import (
	"relay/outbox"
	"relay/policy"
)

// Route asks a policy who gets an event and on which terms, in the words of the outbox; it
// is what Options.Route needs.
func Route(p *policy.Policy, e *outbox.Event) ([]string, []outbox.Term) {
	names, asked := p.Select(policy.View{ID: e.ID, Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time, Data: e.Data})
	if asked == nil {
		return names, nil
	}
	terms := make([]outbox.Term, len(asked))
	for i, t := range asked {
		terms[i] = outbox.Term{Code: t.Code, Error: t.Error, Mark: (*outbox.Mark)(t.Mark)}
	}
	return names, terms
}
