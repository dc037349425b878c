package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxType and maxID bound the type and the id of an event, in bytes.
const (
	maxType = 128
	maxID   = 64
)

// own is the first segment of Relay's events about itself.
const own = "relay"

// Matcher tells which event types an endpoint gets. The zero value matches all but Relay's own.
//
// A pattern is compared segment by segment, where "." separates segments: "*" stands for one
// segment, "**" for any number of them, zero too. A pattern with "!" before it excludes. The
// order of patterns does not matter: a type matches when it fits at least one pattern (or there
// is none without "!") and no excluding one. Relay's own events, "relay" and "relay.…", match
// only patterns that begin with the segment "relay" itself, so that "**" does not match them.
type Matcher struct {
	include, exclude [][]string // segments of each pattern
}

// NewMatcher reads patterns. The error names the first bad one.
func NewMatcher(patterns []string) (Matcher, error) {
	var m Matcher
	for _, p := range patterns {
		if err := validPattern(p); err != nil {
			return Matcher{}, fmt.Errorf("event pattern %q: %w", p, err)
		}
		if rest, not := strings.CutPrefix(p, "!"); not {
			m.exclude = append(m.exclude, strings.Split(rest, "."))
		} else {
			m.include = append(m.include, strings.Split(p, "."))
		}
	}
	return m, nil
}

// All tells whether there is no pattern: all types match but Relay's own.
func (m Matcher) All() bool { return len(m.include)+len(m.exclude) == 0 }

// String lists the patterns: those that include, then those that exclude.
func (m Matcher) String() string {
	if m.All() {
		return "all"
	}
	var all []string
	for _, p := range m.include {
		all = append(all, strings.Join(p, "."))
	}
	for _, p := range m.exclude {
		all = append(all, "!"+strings.Join(p, "."))
	}
	return strings.Join(all, " ")
}

// Match tells whether the endpoint gets events of this type.
func (m Matcher) Match(eventType string) bool {
	include, exclude := m.decide(eventType)
	return exclude < 0 && (include >= 0 || len(m.include) == 0 && !isOwn(eventType))
}

// Verdict says why an endpoint gets events of a type, or why not.
type Verdict struct {
	Match   bool
	Pattern string // the first that includes the type or, with "!", excludes it; "" when none does
}

// Explain is Match with the pattern that decided.
func (m Matcher) Explain(eventType string) Verdict {
	v := Verdict{Match: m.Match(eventType)}
	switch include, exclude := m.decide(eventType); {
	case exclude >= 0:
		v.Pattern = "!" + strings.Join(m.exclude[exclude], ".")
	case include >= 0:
		v.Pattern = strings.Join(m.include[include], ".")
	}
	return v
}

// decide returns the index of the first pattern that includes the type and of the first that
// excludes it, or -1.
func (m Matcher) decide(eventType string) (include, exclude int) {
	segments := strings.Split(eventType, ".")
	fits := func(pattern []string) bool {
		return (pattern[0] == own || segments[0] != own) && matchSegments(pattern, segments)
	}
	return slices.IndexFunc(m.include, fits), slices.IndexFunc(m.exclude, fits)
}

// isOwn tells whether the type is one of Relay's events about itself.
func isOwn(eventType string) bool {
	first, _, _ := strings.Cut(eventType, ".")
	return first == own
}

// matchSegments backtracks only to the last "**", because an earlier one could not match more. So
// it takes at most len(pattern) × len(segments) steps.
func matchSegments(pattern, segments []string) bool {
	p, s := 0, 0
	anyAt, resume := -1, 0 // the last "**", and the first segment after its match
	for s < len(segments) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			anyAt, resume = p, s
			p++
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == segments[s]):
			p++
			s++
		case anyAt >= 0:
			resume++
			p, s = anyAt+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

func validPattern(pattern string) error {
	pattern = strings.TrimPrefix(pattern, "!")
	if pattern == "" {
		return errors.New(`it is empty; write a type like "invoice.paid", or "**" for all`)
	}
	if strings.ContainsAny(pattern, ", \t\r\n") {
		return errors.New(`one item is one pattern: write several as ["order.*", "invoice.paid"]`)
	}
	if len(pattern) > maxType {
		return fmt.Errorf("it is longer than %d bytes", maxType)
	}
	for _, s := range strings.Split(pattern, ".") {
		switch {
		case s == "":
			return errors.New("it has an empty segment between dots")
		case s == "*" || s == "**":
		case strings.Contains(s, "*"):
			return errors.New(`a star stands for a whole segment: write "invoice.*", not "invo*"`)
		case !isName(s):
			return errors.New("only letters, digits, _, - and the dot can be in a type")
		}
	}
	return nil
}

// ValidType checks an event type: 1 to 128 of A-Z a-z 0-9 _ - and ".", which
// separates segments that are not empty. The error does not repeat s.
func ValidType(s string) error {
	switch {
	case s == "":
		return errors.New("event type is empty")
	case len(s) > maxType:
		return fmt.Errorf("event type is longer than %d bytes", maxType)
	}
	for segment := range strings.SplitSeq(s, ".") {
		if segment == "" {
			return errors.New("event type has a dot at its start, at its end, or two in a row")
		}
		if !isName(segment) {
			return errors.New("event type can have only letters, digits, _, - and dots")
		}
	}
	return nil
}

// ValidID checks an event id from the app: 1 to 64 of A-Z a-z 0-9 _ -. A dot would make the
// signed content ambiguous. The error does not repeat s.
func ValidID(s string) error {
	if len(s) < 1 || len(s) > maxID || !isName(s) {
		return fmt.Errorf("event id must be 1 to %d letters, digits, _ and -", maxID)
	}
	return nil
}

// isName tells whether s has only A-Z a-z 0-9 _ -.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}
