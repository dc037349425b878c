package explain

import (
	"encoding/json"
	"fmt"

	"relay/outbox"
	"relay/policy"
)

// Filtered is the result of an endpoint's filters for an event of a matching type.
type Filtered struct {
	Filter        string          `json:"filter,omitempty"`         // that decided; none if none rejected the event
	OutboxDecides bool            `json:"outbox_decides,omitempty"` // whether it gets the event depends on earlier events
	Subject       json.RawMessage `json:"subject,omitempty"`        // of dedupe and crossing: the value of by
	WhenError     string          `json:"when_error,omitempty"`     // why the delivery would fail at accept
	Code          string          `json:"code,omitempty"`           // of the delivery then
}

// filter returns whether the endpoint gets the event, and the reason for people, "" for none.
func filter(e *policy.Endpoint, event *outbox.Event, idGiven bool) (out Filtered, gets bool, why string) {
	if e.Filter == nil {
		return out, true, ""
	}
	f := *e.Filter
	if !idGiven {
		f.Sample = 0
	}
	d := f.Decide(e.Name, policy.ViewOf(event))
	why = f.Explain(d)
	if why == "" {
		why = "its filters let it through"
	}
	if f.Sample != e.Filter.Sample {
		why += fmt.Sprintf("; sample = %s goes by the id that an accept makes", e.Show("sample", fmt.Sprintf("%g", e.Filter.Sample)))
	}
	m := d.Term.Mark
	out = Filtered{Filter: d.By, OutboxDecides: m != nil && m.Level > 0, Subject: d.Subject(), WhenError: d.Term.Error, Code: d.Term.Code}
	return out, d.Gets && (m == nil || m.Level > 0), why
}
