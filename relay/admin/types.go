package admin

import (
	"encoding/json"
	"net/http"
	"slices"

	"relay/policy"
)

// TypeList is the catalogue of event types, for those who receive them.
type TypeList struct {
	Types []EventType `json:"types"`           // of the file, in its order; none: events may have any type
	Index []string    `json:"index,omitempty"` // paths of the data by which deliveries can be found, like data.deviceId
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

// IndexesOf are the paths of the data by which deliveries can be found: those of all events, and those of event types.
func IndexesOf(ofAll []string, p *policy.Policy) []string {
	all := slices.Clone(ofAll)
	for _, t := range p.Types {
		all = append(all, t.Index...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *api) typeRoutes() []route {
	return []route{{
		id: "listTypes", method: "GET", path: "/v1/types", verb: "relay types --running", summary: "List the event types of the file that runs, for those who receive them",
		about:  "Every token sees all of them: they are what the file publishes.",
		answer: TypeList{}, handle: func(w http.ResponseWriter, _ *http.Request) {
			list := TypesOf(a.Policy())
			if a.Indexes != nil {
				list.Index = a.Indexes()
			}
			answer(w, http.StatusOK, list)
		},
	}}
}
