package admin

import (
	"encoding/json"
	"net/http"

	"relay/policy"
)

// TypeList is the catalogue of event types, for those who receive them.
type TypeList struct {
	Types []EventType `json:"types"` // of the file, in its order; none: events may have any type
}

// EventType is an event type that the file declares.
type EventType struct {
	Type        string          `json:"type"`
	Description string          `json:"description"`
	Fields      []policy.Field  `json:"fields"` // of the data; none without a schema
	Example     json.RawMessage `json:"example,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"` // JSON Schema of the data
}

// TypesOf lists the event types of a policy.
func TypesOf(p *policy.Policy) TypeList {
	list := TypeList{Types: []EventType{}}
	for _, t := range p.Types {
		one := EventType{Type: t.Name, Description: t.Description, Fields: []policy.Field{}, Example: t.Example}
		if t.Schema != nil {
			one.Fields, one.Schema = append(one.Fields, t.Schema.Fields()...), t.Schema.Text()
		}
		list.Types = append(list.Types, one)
	}
	return list
}

func (a *api) typeRoutes() []route {
	return []route{{
		id: "listTypes", method: "GET", path: "/v1/types", verb: "relay types --running", summary: "List the event types of the file that runs, for those who receive them",
		about:  "Every token sees all of them: they are what the file publishes.",
		answer: TypeList{}, handle: func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, TypesOf(a.Policy())) },
	}}
}
