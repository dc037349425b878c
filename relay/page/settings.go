package page

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// settings are those of an endpoint made at run time, as JSON says them; numbers stay as they were written.
type settings map[string]any

// readSettings reads a JSON object; false if the text is none.
func readSettings(text []byte) (settings, bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var s settings
	if d.Decode(&s) != nil || s == nil || d.More() {
		return nil, false
	}
	return s, true
}

// text is JSON for people, "" for no settings.
func (s settings) text() string {
	if len(s) == 0 {
		return ""
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "" // what was read from JSON can be written
	}
	return string(text)
}

// settingPath is the place of a form's field in the settings: a member, or a member of a member.
type settingPath struct{ block, name string }

// settingPaths are the places of the fields, by their names.
func settingPaths() map[string]settingPath {
	return map[string]settingPath{
		"url": {"", "url"}, "description": {"", "description"}, "events": {"", "events"}, "tenants": {"", "tenants"}, "labels": {"", "labels"},
		"policy": {"", "policy"}, "enabled": {"", "enabled"}, "sign": {"", "sign"}, "headers": {"", "headers"}, "concurrency": {"", "concurrency"},
		"timeout": {"timeout", "total"}, "limit": {"rate_limit", "limit"}, "per": {"rate_limit", "per"},
	}
}

// take takes the value of a field out of the settings; nil if it is absent.
func (s settings) take(field string) any {
	p := settingPaths()[field]
	from := map[string]any(s)
	if p.block != "" {
		from, _ = s[p.block].(map[string]any)
	}
	v := from[p.name]
	delete(from, p.name)
	if p.block != "" && from != nil && len(from) == 0 {
		delete(s, p.block)
	}
	return v
}

// put sets the value of a field.
func (s settings) put(field string, v any) {
	p := settingPaths()[field]
	if p.block == "" {
		s[p.name] = v
		return
	}
	block, is := s[p.block].(map[string]any)
	if !is {
		block = map[string]any{}
		s[p.block] = block
	}
	block[p.name] = v
}

// copied is a deep copy.
func (s settings) copied() settings { return merged(nil, s) }

// changes is the JSON merge patch (RFC 7396) that makes b of a.
func changes(a, b map[string]any) settings {
	patch := settings{}
	for name := range a {
		if _, stays := b[name]; !stays {
			patch[name] = nil
		}
	}
	for name, v := range b {
		old, had := a[name]
		was, wasObject := old.(map[string]any)
		is, isObject := v.(map[string]any)
		switch {
		case wasObject && isObject:
			if inner := changes(was, is); len(inner) > 0 {
				patch[name] = map[string]any(inner)
			}
		case !had || !reflect.DeepEqual(old, v):
			patch[name] = v
		}
	}
	return patch
}

// merged applies a JSON merge patch (RFC 7396, section 2). Neither argument changes.
func merged(into, patch map[string]any) settings {
	out := settings{}
	maps.Copy(out, into)
	for name, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, name)
		case isObject:
			old, _ := out[name].(map[string]any)
			out[name] = map[string]any(merged(old, inner))
		default:
			out[name] = v
		}
	}
	return out
}

// fieldOf is the field of the form for a pointer into the settings (RFC 6901); "" for the whole.
func fieldOf(pointer string) string {
	parts := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	switch first := parts[0]; {
	case first == "":
		return ""
	case first == "timeout" && (len(parts) == 1 || parts[1] == "total"):
		return "timeout"
	case first == "rate_limit" && len(parts) > 1 && parts[1] == "per":
		return "per"
	case first == "rate_limit" && (len(parts) == 1 || parts[1] == "limit"):
		return "limit"
	case first == "timeout", first == "rate_limit":
		return "rest"
	case first == "name" || slices.Contains(slices.Collect(maps.Keys(settingPaths())), first):
		return first
	}
	return "rest"
}
