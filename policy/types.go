package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/config"
	"relay/policy/rawjson"
)

// EventType is a declared type of event: a promise to receivers, which ingest enforces on the
// app.
type EventType struct {
	Name        string
	Description string
	Schema      *Schema // of the data; nil for any
	Example     []byte  // of the data, compact JSON; nil for none

	Index []string // paths of fields of the data by which deliveries can be found
}

// Type returns the declaration of a type, nil for none. known is false if other types are
// declared and this one is not.
func (p *Policy) Type(name string) (t *EventType, known bool) {
	t = p.types[name]
	return t, t != nil || len(p.types) == 0
}

// declare sets the policy's types.
func (p *Policy) declare(types []*EventType) {
	p.Types, p.types = types, make(map[string]*EventType, len(types))
	for _, t := range types {
		p.types[t.Name] = t
	}
}

// Hash is 12 hex digits over the type's declaration.
func (t *EventType) Hash() string {
	var schema []byte
	var budget time.Duration
	if t.Schema != nil {
		schema, budget = t.Schema.text, t.Schema.budget
	}
	return fingerprint(fmt.Appendf(nil, "%q %q %s %s %s %q", t.Name, t.Description, schema, t.Example, budget, t.Index))
}

// TypeChange is the difference that another policy makes for one event type.
type TypeChange struct {
	Type string `json:"type"`
	Kind string `json:"kind"` // Added, Removed or Changed
}

// DiffTypes lists the event types that differ, in the order of Diff.
func DiffTypes(old, new *Policy) []TypeChange {
	changes := []TypeChange{}
	for _, t := range new.Types {
		before := old.types[t.Name]
		switch {
		case before == nil:
			changes = append(changes, TypeChange{t.Name, Added})
		case before.Hash() != t.Hash():
			changes = append(changes, TypeChange{t.Name, Changed})
		}
	}
	for _, t := range old.Types {
		if new.types[t.Name] == nil {
			changes = append(changes, TypeChange{t.Name, Removed})
		}
	}
	return changes
}

// readTypes decodes the event_type blocks.
func (d *decoder) readTypes(blocks []*config.Block) []*EventType {
	var types []*EventType
	for _, b := range blocks {
		t := &EventType{Name: b.Name}
		if err := ValidType(t.Name); err != nil {
			b.Fail(b.Label(), "Invalid event type", err.Error()+".")
		} else if isOwn(t.Name) {
			b.Fail(b.Label(), "Reserved event type", "relay and relay.* are Relay's own.")
		}
		b.String("description", &t.Description)
		budget := 50 * time.Millisecond
		b.Duration("budget", &budget, leastBudget, mostFilter)
		var text string
		if b.String("schema", &text) {
			var err error
			if t.Schema, err = newSchema(text, budget, d.lane); err != nil {
				b.Invalid("schema", about(b, "schema", text, err))
			}
		}
		if b.String("example", &text) {
			t.readExample(b, text)
		}
		t.Index = b.Index("index")
		b.Done()
		types = append(types, t)
	}
	return types
}

func (t *EventType) readExample(b *config.Block, text string) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		b.Invalid("example", about(b, "example", text, fmt.Errorf(`it is not JSON: %w. Write jsonencode({ … }), or file("…")`, err)))
		return
	}
	t.Example = compact.Bytes()
	if t.Schema == nil {
		return
	}
	if m := t.Schema.Check(t.Example); m != nil {
		if b.Draws("example") || b.Draws("schema") { // it names keys of both
			b.Invalid("example", "it does not fit the schema.")
			return
		}
		b.Invalid("example", "it does not fit the schema: "+m.Error()+".")
	}
}

// about is an error that may quote its text. If env() or file() gave the text, only the line is
// shown.
func about(b *config.Block, name, text string, err error) string {
	if !b.Draws(name) {
		return err.Error()
	}
	if !json.Valid([]byte(text)) {
		at := int64(len(text))
		if e, ok := errors.AsType[*json.SyntaxError](json.Unmarshal([]byte(text), new(any))); ok {
			at = min(max(e.Offset-1, 0), at)
		}
		return fmt.Sprintf("what env() or file() gives is not JSON from its line %d on.", 1+strings.Count(text[:at], "\n"))
	}
	if m, ok := errors.AsType[*Mismatch](err); ok {
		return fmt.Sprintf("what env() or file() gives is no JSON Schema: its line %d does not fit %q.", lineOf(text, m.Pointer), m.Keyword)
	}
	return "what env() or file() gives is JSON and cannot be used. Write it out here, with jsonencode({ … }), to be told why."
}

// lineOf is the line of a JSON text where a value begins, or the value around it.
func lineOf(text, pointer string) int {
	whole := []byte(text)
	at := whole
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		inner, ok := rawjson.Member(at, name)
		if n, err := strconv.Atoi(name); !ok && err == nil {
			inner, ok = rawjson.Element(at, n)
		}
		if !ok {
			break
		}
		at = inner
	}
	return 1 + strings.Count(text[:cap(whole)-cap(at)], "\n")
}

// warnUnknown warns of the endpoint's patterns that match no declared type: a strict ingest takes
// no event for them.
func (e *Endpoint) warnUnknown(b *config.Block, types []*EventType) {
	for _, pattern := range e.Events.include {
		fits := func(t *EventType) bool { return matchSegments(pattern, strings.Split(t.Name, ".")) }
		if pattern[0] != own && !slices.ContainsFunc(types, fits) {
			b.Warn("events", fmt.Sprintf("no event_type fits the pattern %q, and ingest is strict: there will be no such event", b.At("events").Quote(strings.Join(pattern, "."))))
		}
	}
}
