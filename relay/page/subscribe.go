package page

import (
	"slices"

	"relay/policy"
	"relay/relay/admin"
)

// typeChoice is an event type of the catalogue in the form of an endpoint.
type typeChoice struct {
	Type, Description string
	Ticked            bool
}

// catalogueTypes are the names of the event types that the file declares; none if they cannot be read.
func (c *call) catalogueTypes() (all []admin.EventType) {
	var list admin.TypeList
	if err := c.get("/v1/types", nil, &list); err != nil {
		return nil
	}
	return list.Types
}

// Ticks are the event types that can be ticked.
func (f *endpointForm) Ticks() (all []typeChoice) {
	for _, t := range f.Types {
		all = append(all, typeChoice{t.Type, t.Description, slices.Contains(f.Typed["tick"], t.Type)})
	}
	return all
}

// tick moves types of the catalogue from the text of patterns to the boxes.
func (f *endpointForm) tick(events []any) (rest []any) {
	f.Typed.Del("tick")
	for _, e := range events {
		name, is := e.(string)
		if is && slices.ContainsFunc(f.Types, func(t admin.EventType) bool { return t.Type == name }) {
			f.Typed.Add("tick", name)
		} else {
			rest = append(rest, e)
		}
	}
	return rest
}

// events are the patterns that were typed with the types that were ticked. Those that were there before stay in their order.
func (f *endpointForm) events(typed []any) []any {
	all := typed
	for _, name := range f.Typed["tick"] {
		if !slices.Contains(all, any(name)) {
			all = append(all, name)
		}
	}
	base, _ := readSettings([]byte(f.Base))
	before, _ := base["events"].([]any)
	if within(before, all) && within(all, before) {
		return before
	}
	return all
}

// within tells whether each item of a is one of b.
func within(a, b []any) bool {
	return !slices.ContainsFunc(a, func(e any) bool { return !slices.Contains(b, e) })
}

// unknownTypes are the patterns that fit no event type of the catalogue, where there is one.
func unknownTypes(events string, types []admin.EventType) (unknown []string) {
	if len(types) == 0 || events == "all" {
		return nil
	}
	for _, pattern := range names(events) { // as typed, or as the API has them
		m, err := policy.NewMatcher([]string{pattern})
		if err == nil && pattern[0] != '!' && !slices.ContainsFunc(types, func(t admin.EventType) bool { return m.Match(t.Type) }) {
			unknown = append(unknown, pattern)
		}
	}
	return unknown
}

// Unknown are the patterns of the form that fit no event type.
func (f *endpointForm) Unknown() []string { return unknownTypes(f.Typed.Get("events"), f.Types) }
