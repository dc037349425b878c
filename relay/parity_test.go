package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"relay/relay/admin"
)

// operation is a part of the OpenAPI document.
type operation struct {
	ID         string `json:"operationId"`
	Verb       string `json:"x-verb"`
	Parameters []struct{ Name, In string }
	Body       struct {
		Content map[string]struct{ Schema schema }
	} `json:"requestBody"`
}

type schema struct {
	Ref        string `json:"$ref"`
	AllOf      []schema
	Properties map[string]json.RawMessage
	Patterns   map[string]json.RawMessage `json:"patternProperties"`
}

// without are members of bodies for which a verb needs no flag: it takes them in a file, or, as the document
// says, they are for another action.
var without = map[string][]string{
	"explain":           {"type", "data", "id", "time", "tenant", "key"},
	"discardDeliveries": {"to", "force"}, "retryDeliveries": {"to", "force"}, "redeliverDeliveries": {"force"}, "eraseEvents": {"to"},
}

// Every operation of the document has the verb that it names, with a flag for each of its parameters
// and members of the body. What no person calls has none.
func TestEveryOperationHasItsVerb(t *testing.T) {
	var document struct {
		Paths      map[string]map[string]operation
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(admin.Document("v1"), &document); err != nil {
		t.Fatal(err)
	}
	withoutVerb := []string{"getMetrics", "getDocument"}
	c := &command{streams: streams{strings.NewReader(""), io.Discard, io.Discard}, env: func(string) (string, bool) { return "", false }}
	root := c.root()
	found := 0
	for path, methods := range document.Paths {
		for method, o := range methods {
			if slices.Contains(withoutVerb, o.ID) {
				continue
			}
			words := strings.Fields(o.Verb)
			if len(words) < 2 || words[0] != "relay" {
				t.Errorf("%s %s (%s) names no verb", method, path, o.ID)
				continue
			}
			var names, flags []string
			for _, w := range words[1:] {
				if flag, is := strings.CutPrefix(w, "--"); is {
					flags = append(flags, flag)
				} else if strings.ToLower(w) == w && w != "…" {
					names = append(names, w)
				}
			}
			verb, rest, err := root.Find(names)
			if err != nil || len(rest) > 0 || !verb.Runnable() {
				t.Errorf("%s: there is no verb %q: %v", o.ID, o.Verb, err)
				continue
			}
			found++
			for _, p := range o.Parameters {
				if p.In == "query" {
					flags = append(flags, flagOf(p.Name))
				}
			}
			for _, content := range o.Body.Content {
				flags = append(flags, members(content.Schema, document.Components.Schemas)...)
			}
			for _, name := range flags {
				if verb.Flags().Lookup(name) == nil && !slices.Contains(without[o.ID], name) {
					t.Errorf("%s: %s has no flag --%s", o.ID, verb.CommandPath(), name)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d operations have a verb: the test no longer sees them", found)
	}
}

// members are the flags of a body's members.
func members(s schema, all map[string]schema) (flags []string) {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = all[name]
	}
	for name := range s.Properties {
		flags = append(flags, flagOf(name))
	}
	for pattern := range s.Patterns {
		flags = append(flags, flagOf(strings.Trim(pattern, `^\.`)))
	}
	for _, part := range s.AllOf {
		flags = append(flags, members(part, all)...)
	}
	return flags
}
