package page

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"relay/policy"
	"relay/relay/admin"
)

// endpointForm is the form of an endpoint made at run time: what was typed, and what is wrong with it.
type endpointForm struct {
	Name  string // of the endpoint that is changed, "" for a new one
	Typed url.Values

	Base     string // the settings that the person began with, as JSON without headers
	Revision string // of Base

	Headers  []string          // names of those that there are; their values are not shown
	Choices  policy.Choices    // of the file
	Bound    bool              // the session is for one tenant, which a new endpoint gets by itself
	Types    []admin.EventType // of the catalogue
	Customer bool              // the session is bound: settings that are JSON stay as they are
	Problem  *refusal
	Problems map[string][]flaw // by field; "" for the whole
	Others   []otherChange     // that somebody made meanwhile
	Off      *admin.Endpoint   // which Relay or an operator disabled; nil for others
}

// otherChange is a setting that somebody else changed.
type otherChange struct {
	Name string
	Now  string // as JSON, "" if it was taken away
	Both bool   // the form changes it, too
}

// formField is a field as the template shows it.
type formField struct {
	Name, Value, Example string
	Options              []string // of a choice; nil for a text
	Area                 bool
	Required             bool
	Problems             []flaw
	HelpKey              string // of a text
	Help                 string // its argument, "" for none
}

// textFields are the fields with a text, in the order of the form. Those in the second group are hidden at first.
func textFields() (first, second []string) {
	return []string{"url", "description", "events", "tenants"}, []string{"labels", "policy", "sign", "timeout", "concurrency", "limit", "per"}
}

// show fills the form with settings.
func (f *endpointForm) show(s settings) {
	s = s.copied()
	if f.Typed == nil {
		f.Typed = url.Values{}
	}
	if events, is := s["events"].([]any); is {
		s["events"] = f.tick(events)
	}
	first, second := textFields()
	for _, field := range slices.Concat(first, second) {
		if f.opened(field) {
			f.Typed.Set(field, typedOf(field, s.take(field)))
		}
	}
	f.Typed.Set("enabled", "on")
	if s.take("enabled") == false {
		f.Typed.Del("enabled")
	}
	f.Typed.Set("rest", s.text())
}

// of notes the endpoint where it is disabled although its settings have it switched on.
func (f *endpointForm) of(e *admin.Endpoint) {
	if e.State == "disabled" && (disabledItself(e) || e.Code == "operator") {
		f.Off = e
	}
}

// OffItself tells whether Relay itself disabled it.
func (f *endpointForm) OffItself() bool { return f.Off != nil && disabledItself(f.Off) }

// opened tells whether the form has a field: settings that the file does not let endpoints override have none, and
// are shown with all else.
func (f *endpointForm) opened(field string) bool {
	needs := map[string]string{"timeout": "timeout", "concurrency": "concurrency", "limit": "rate_limit", "per": "rate_limit"}[field]
	return needs == "" || slices.Contains(f.Choices.Overrides, needs)
}

// typedOf is a value as a person types it.
func typedOf(field string, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		var all []string
		for _, item := range v {
			all = append(all, fmt.Sprint(item))
		}
		return strings.Join(all, ", ")
	case map[string]any:
		if field != "labels" {
			break
		}
		var all []string
		for name, value := range v {
			all = append(all, name+"="+fmt.Sprint(value))
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	text, _ := json.Marshal(v) // it was JSON
	return string(text)
}

// settings are what was typed, without headers; what cannot be read is noted in Problems.
func (f *endpointForm) settings(c *call) settings {
	out := settings{}
	if rest := strings.TrimSpace(f.Typed.Get("rest")); rest != "" {
		read, ok := readSettings([]byte(rest))
		if !ok {
			f.wrong("rest", c.t("form.not_json"))
		}
		out = merged(out, read)
	}
	base, _ := readSettings([]byte(f.Base))
	base = base.copied()
	first, second := textFields()
	for _, field := range slices.Concat(first, second) {
		typed := strings.TrimSpace(f.Typed.Get(field))
		if typed == "" {
			continue
		}
		if had := base.take(field); typed == typedOf(field, had) { // as it was: an item of a list may have a comma in it
			out.put(field, had)
			continue
		}
		v, err := valueOf(c, field, typed)
		if err != "" {
			f.wrong(field, err)
			continue
		}
		out.put(field, v)
	}
	typed, _ := out["events"].([]any)
	if events := f.events(typed); len(events) > 0 {
		out.put("events", events)
	}
	if f.Typed.Get("limit") != "" && f.Typed.Get("per") == "" {
		out.put("per", "1s")
	}
	if f.Typed.Get("enabled") == "" {
		out.put("enabled", false)
	}
	return out
}

// valueOf is what was typed into a field as a value of the settings, or what is wrong with it.
func valueOf(c *call, field, typed string) (v any, wrong string) {
	switch field {
	case "events", "sign":
		return itemsOf(names(typed)), ""
	case "tenants":
		return itemsOf(parts(typed)), ""
	case "labels":
		all := map[string]any{}
		for _, item := range parts(typed) {
			name, value, ok := strings.Cut(item, "=")
			if !ok {
				return nil, c.t("form.labels.wrong", item)
			}
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		return all, ""
	case "concurrency", "limit":
		if n, ok := readNumber(typed); ok {
			return n, ""
		}
	}
	return typed, ""
}

func readNumber(typed string) (json.Number, bool) {
	var n json.Number
	return n, json.Unmarshal([]byte(typed), &n) == nil && typed[0] != '"'
}

func itemsOf(all []string) (items []any) {
	for _, item := range all {
		items = append(items, item)
	}
	return items
}

// names are the items of a list that was typed, between white space or commas, those of a Chinese keyboard too.
func names(typed string) []string {
	return strings.FieldsFunc(typed, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",，、", r) })
}

// parts are the items of a list that was typed, between commas or on lines of their own; there may be white space in them.
func parts(typed string) (all []string) {
	for _, item := range strings.FieldsFunc(typed, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return all
}

// headers are the header lines that were typed, and null for those that are taken away.
func (f *endpointForm) headers(c *call) map[string]any {
	out := map[string]any{}
	for _, name := range f.Typed["drop"] {
		out[name] = nil
	}
	for line := range strings.Lines(f.Typed.Get("headers")) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			f.wrong("headers", c.t("form.headers.wrong"))
			continue
		}
		out[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return out
}

// flaw is what is wrong with a field.
type flaw struct {
	Text string // in the language of the viewer
	Said string // by the API, in English; "" where Text says it all
}

// wrong notes what is wrong with a field.
func (f *endpointForm) wrong(field, why string) { f.flawed(field, flaw{Text: why}) }

func (f *endpointForm) flawed(field string, x flaw) {
	if f.Problems == nil {
		f.Problems = map[string][]flaw{}
	}
	f.Problems[field] = append(f.Problems[field], x)
}

// refuse notes what the API says against the settings.
func (f *endpointForm) refuse(r *refusal, c *call) {
	said := func(detail string) flaw {
		if detail != "" && c.lang == languages()[0] {
			return flaw{Text: detail}
		}
		return flaw{c.t("form.unaccepted"), detail}
	}
	f.Problem = r
	switch {
	case len(r.Diagnostics) == 0 && c.words().advice(r.Code, r.Field) != "":
		field := cmp.Or(r.Field, fieldOf(r.Pointer))
		f.wrong(field, c.words().advice(r.Code, r.Field))
	case r.Code == "endpoint_in_file" && f.Name == "":
		if c.lang == languages()[0] {
			f.wrong("name", cmp.Or(r.Detail, c.t("refusal."+r.Code)))
			break
		}
		f.flawed("name", flaw{c.t("refusal." + r.Code), r.Detail})
	case len(r.Diagnostics) > 0:
		for _, flaw := range r.Diagnostics {
			pointer, detail, _ := strings.Cut(flaw, ": ")
			if !strings.HasPrefix(flaw, "/") {
				pointer, detail = "", flaw
			}
			if pointer == "" && f.Name == "" && strings.HasPrefix(detail, "Invalid name.") { // which is no part of the settings
				pointer = "/name"
			}
			f.flawed(fieldOf(pointer), said(detail))
		}
	default:
		f.flawed(cmp.Or(r.Field, fieldOf(r.Pointer)), said(r.Detail))
	}
}

// withoutAdvice is a reason without what only who writes the file can do about it.
func withoutAdvice(detail string) string {
	for _, advice := range []string{"; set egress", ", or set egress", "; runtime {", ". Add one, or runtime {"} {
		if said, _, is := strings.Cut(detail, advice); is {
			return said + "."
		}
	}
	return detail
}

// First are the fields that are always shown.
func (f *endpointForm) First() []formField {
	first, _ := textFields()
	all := f.fields(first)
	if f.Name == "" {
		name := f.field("name")
		all = append([]formField{all[0], name}, all[1:]...)
	}
	return all
}

// Second are those that are hidden at first.
func (f *endpointForm) Second() []formField {
	_, second := textFields()
	all := f.fields(second)
	areas := []string{"headers", "rest"}
	if f.Customer {
		areas = areas[:1]
	}
	for _, name := range areas {
		area := f.field(name)
		area.Area = true
		all = append(all, area)
	}
	return all
}

// More tells whether one of those has something to see.
func (f *endpointForm) More() bool {
	return slices.ContainsFunc(f.Second(), func(x formField) bool { return x.Value != "" || len(x.Problems) > 0 })
}

func (f *endpointForm) fields(names []string) (all []formField) {
	for _, name := range names {
		if f.opened(name) && (name != "tenants" || !f.Bound) {
			all = append(all, f.field(name))
		}
	}
	return all
}

func (f *endpointForm) field(name string) formField {
	examples := map[string]string{
		"name": "orders", "url": "https://example.com/hooks", "events": "order.*, invoice.paid", "tenants": "acme", "labels": "project=shop",
		"sign": "standard", "timeout": "30s", "concurrency": "10", "limit": "50", "per": "1s", "headers": "Authorization: Bearer …", "rest": `{"when": "event.data.amount > 100"}`,
	}
	out := formField{Name: name, Value: f.Typed.Get(name), Example: examples[name], Required: name == "url", Problems: f.Problems[name], HelpKey: "form." + name + ".help"}
	switch name {
	case "url":
		if f.Name != "" {
			out.HelpKey = "form.url.help.edit"
		}
	case "policy":
		out.Options = append([]string{""}, f.Choices.Policies...)
		if !slices.Contains(out.Options, out.Value) {
			out.Options = append(out.Options, out.Value)
		}
	case "events":
		if len(f.Types) > 0 {
			out.HelpKey = "form.events.help.ticked"
		}
	case "sign":
		out.Help = strings.Join(f.Choices.Signatures, ", ")
	case "rest":
		out.Help = strings.Join(slices.Concat([]string{"when", "body"}, slices.DeleteFunc(slices.Clone(f.Choices.Overrides), func(s string) bool {
			return s == "concurrency" // all of it has a field
		})), ", ")
	}
	return out
}

// Enabled tells whether the box is ticked.
func (f *endpointForm) Enabled() bool { return f.Typed.Get("enabled") != "" }

// Drops tells whether a header is to be taken away.
func (f *endpointForm) Drops(name string) bool { return slices.Contains(f.Typed["drop"], name) }

// Whole are the problems of no field.
func (f *endpointForm) Whole() []flaw {
	if f.Customer {
		return slices.Concat(f.Problems[""], f.Problems["rest"])
	}
	return f.Problems[""]
}

// began is what of an endpoint the form begins with: its settings without headers, whose names are kept.
func (f *endpointForm) began(made *admin.Made) settings {
	s, _ := readSettings(made.Settings)
	if s == nil {
		s = settings{}
	}
	f.Headers = nil
	if headers, is := s.take("headers").(map[string]any); is {
		for name := range headers {
			f.Headers = append(f.Headers, name)
		}
		slices.Sort(f.Headers)
	}
	f.Base, f.Revision = s.text(), made.Revision
	return s
}

// Method offers methods to templates.
func (f *endpointForm) Method(name string) any {
	switch name {
	case "First":
		return f.First
	case "Second":
		return f.Second
	case "More":
		return f.More
	case "Enabled":
		return f.Enabled
	case "OffItself":
		return f.OffItself
	case "Drops":
		return f.Drops
	case "Whole":
		return f.Whole
	case "Tenants":
		return f.Tenants
	case "Ticks":
		return f.Ticks
	case "Unknown":
		return f.Unknown
	case "Rest":
		return f.Rest
	}
	return nil
}

// Tenants are those that were typed.
func (f *endpointForm) Tenants() string { return f.Typed.Get("tenants") }

// Rest are the settings without a field, as JSON.
func (f *endpointForm) Rest() string { return f.Typed.Get("rest") }
