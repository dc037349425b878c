package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maxFields bounds a list of fields: a short schema can describe very many.
const maxFields = 1000

// Field is a part of an event's data as its schema describes it.
type Field struct {
	Name        string `json:"name"` // "customer.id", "items[].sku"; "" for data that is not an object
	Type        string `json:"type"` // "integer", "string (date-time)", `"eur" or "usd"`
	Required    bool   `json:"required"`
	Description string `json:"description"`
}

// Fields lists the properties that the schema names, by name, nested ones after their parents,
// without those that depend on a condition; at most 1,000.
func (s *Schema) Fields() []Field {
	w := walker{}
	w.below(layers(s.compiled, nil), "")
	if len(w.fields) == 0 {
		f := describe(layers(s.compiled, nil))
		f.Required = true
		w.fields = []Field{f}
	}
	return w.fields
}

// walker collects fields. open has the schemas around the present one, so that a recursive schema
// ends.
type walker struct {
	fields []Field
	open   []*jsonschema.Schema
}

// below adds the properties of the value with this name, or of its items.
func (w *walker) below(all []*jsonschema.Schema, name string) {
	outer := len(w.open)
	if slices.ContainsFunc(all, func(s *jsonschema.Schema) bool { return slices.Contains(w.open, s) }) {
		return
	}
	w.open = append(w.open, all...)
	defer func() { w.open = w.open[:outer] }()

	properties := map[string][]*jsonschema.Schema{}
	var required []string
	for _, s := range all {
		required = append(required, s.Required...)
		for key, p := range s.Properties {
			properties[key] = layers(p, properties[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		if len(w.fields) == maxFields {
			return
		}
		f := describe(properties[key])
		f.Name, f.Required = strings.TrimPrefix(name+"."+key, "."), slices.Contains(required, key)
		w.fields = append(w.fields, f)
		w.below(properties[key], f.Name)
	}
	for _, s := range all {
		items := s.Items2020
		if old, ok := s.Items.(*jsonschema.Schema); ok {
			items = old
		}
		if items != nil {
			w.below(layers(items, nil), name+"[]")
			return
		}
	}
}

// layers adds a schema to a list, and the schemas that apply together with it by reference or
// allOf.
func layers(s *jsonschema.Schema, to []*jsonschema.Schema) []*jsonschema.Schema {
	if s == nil || slices.Contains(to, s) {
		return to
	}
	to = append(to, s)
	to = layers(s.Ref, to)
	for _, a := range s.AllOf {
		to = layers(a, to)
	}
	return to
}

// describe returns a value's type and description.
func describe(all []*jsonschema.Schema) (f Field) {
	format := ""
	for _, s := range all {
		if f.Description == "" {
			f.Description = s.Description
		}
		if format == "" && s.Format != nil && s.Format.Name != "" {
			format = fmt.Sprintf(" (%s)", s.Format.Name)
		}
		switch {
		case f.Type != "":
		case s.Const != nil:
			f.Type = literals([]any{*s.Const})
		case s.Enum != nil:
			f.Type = literals(s.Enum.Values)
		case s.Types != nil:
			f.Type = strings.Join(s.Types.ToStrings(), " or ")
		case len(s.Properties) > 0:
			f.Type = "object"
		}
	}
	if f.Type == "" {
		f.Type = "any"
	}
	f.Type += format
	return f
}

// literals writes values as JSON.
func literals(values []any) string {
	var all []string
	for _, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // it was parsed from JSON
		}
		all = append(all, string(text))
	}
	return strings.Join(all, " or ")
}
