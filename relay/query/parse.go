package query

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"relay/config"
	"relay/ingest/problem"
)

const (
	maxValues = 100 // of one parameter
	maxValue  = 256 // bytes; a cursor may be longer
	maxCursor = 600
)

// Parser reads queries.
type Parser struct {
	Now time.Time // that durations are counted back from

	// Indexed tells whether the file names a path of the data, like "data.deviceId", in index. nil for
	// any: the path was checked when the query was made.
	Indexed func(path string) bool

	// Stored is for a filter of Query.Fixed, which may have more values than a caller may give, because of Query.Within.
	Stored bool
}

// reader reads one query.
type reader struct {
	Parser
	name string // of the parameter
}

// Values reads a query string. Errors: *Error.
func (p Parser) Values(all url.Values, use Use) (*Query, error) {
	r := &reader{Parser: p}
	q := &Query{Limit: DefaultLimit, Total: true, Backlog: true, now: p.Now, asks: url.Values{}}
	if err := r.cursor(q, all, use); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := r.param(q, name, all[name], use); err != nil {
			return nil, err
		}
	}
	return q, r.together(q, use)
}

// cursor reads the time of the first page, before durations are counted back from it.
func (r *reader) cursor(q *Query, all url.Values, use Use) error {
	if r.name = "cursor"; use&Lists == 0 || len(all[r.name]) != 1 {
		return nil // refused later, if it is there
	}
	at, err := r.pageTime(all.Get(r.name))
	if err != nil {
		return &Error{problem.InvalidCursor, r.name, err.Error()}
	}
	q.now, r.Now = at, at
	return nil
}

// param reads all values of one name.
func (r *reader) param(q *Query, name string, values []string, use Use) error {
	r.name = name
	p := param(name)
	if p == nil || p.Use&use == 0 {
		return unknown(name, use)
	}
	if len(values) > 1 && !p.Many {
		return r.refuse("is given %d times, and may be given once", len(values))
	}
	if len(values) > maxValues && !r.Stored {
		return r.refuse("is given %d times, and may be given %d times", len(values), maxValues)
	}
	for _, v := range values {
		switch {
		case v == "":
			return r.refuse("is empty: give a value, or leave it out")
		case len(v) > maxValue && name != "cursor":
			return r.refuse("is longer than %d bytes", maxValue)
		case p.Values != nil && !slices.Contains(p.Values, v):
			return r.refuse("is %s; it can be %s.%s", quote(v), list(p.Values), config.Suggest(v, p.Values))
		}
		if err := p.read(q, r, v); err != nil {
			return err
		}
	}
	q.asks[name] = slices.Clone(values)
	return nil
}

// refuse refuses the parameter; the detail begins with its name.
func (r *reader) refuse(format string, a ...any) error {
	return &Error{problem.InvalidParameter, shorten(r.name), shorten(r.name) + " " + strings.TrimSuffix(fmt.Sprintf(format, a...), ".")}
}

func unknown(name string, use Use) error {
	var names, shown []string
	hint := ""
	for _, p := range For(use) {
		names, shown = append(names, p.Name), append(shown, p.Shown())
		if p.Name == strings.TrimSuffix(name, ".")+"." {
			hint = " Write " + p.Shown() + "."
		}
	}
	if hint == "" && len(name) > 3 {
		hint = config.Suggest(name, names)
	}
	return &Error{problem.UnknownParameter, shorten(name), fmt.Sprintf("there is no parameter %s here.%s There are %s", quote(name), hint, list(shown))}
}

// shorten bounds a name that the caller gave.
func shorten(name string) string {
	if len(name) > 64 {
		return strings.ToValidUTF8(name[:64], "") + "…"
	}
	return name
}

// list is names for people.
func list(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// Body reads the JSON body of a route that acts on all deliveries of a filter: an object with the names of the
// query string, whose values are strings, numbers, true, false or arrays of those. others are members that the route
// reads itself, as they came. Errors: *Error.
func (p Parser) Body(body []byte, others ...string) (*Query, map[string]jsontext.Value, error) {
	all, rest := url.Values{}, map[string]jsontext.Value{}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil, &Error{problem.EmptyBody, "", `the body is an object with a filter, like {"endpoint":"billing","state":"failed"}`}
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, nil, badJSON(err)
	}
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, nil, badJSON(err)
		}
		name := t.String()
		v, err := d.ReadValue()
		if err != nil {
			return nil, nil, badJSON(err)
		}
		if slices.Contains(others, name) {
			rest[name] = v.Clone()
			continue
		}
		if param(name) == nil || param(name).Use&Bulk == 0 {
			return nil, nil, unknown(name, Bulk)
		}
		if all[name], err = texts(name, v); err != nil {
			return nil, nil, err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, badJSON(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, nil, badJSON(err)
	}
	q, err := p.Values(all, Bulk)
	return q, rest, err
}

func badJSON(err error) error {
	detail := `the body is one object with a filter, like {"endpoint":"billing","state":"failed"}`
	if err != nil && !errors.Is(err, io.EOF) {
		detail = "the body is not JSON in UTF-8 with unique names: " + detail
	}
	return &Error{problem.InvalidJSON, "", detail}
}

// texts are the values of a member as in a query string.
func texts(name string, v jsontext.Value) ([]string, error) {
	r := &reader{name: name}
	wrong := r.refuse("is a string, a number, true, false or an array of those; leave it out for all")
	d := jsontext.NewDecoder(bytes.NewReader(v))
	one := func() (string, error) {
		switch d.PeekKind() {
		case '"', '0', 't', 'f':
			t, err := d.ReadToken()
			if err != nil {
				return "", badJSON(err)
			}
			return t.String(), nil
		}
		return "", wrong
	}
	if v.Kind() != '[' {
		text, err := one()
		return []string{text}, err
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, badJSON(err)
	}
	var all []string
	for d.PeekKind() != ']' {
		text, err := one()
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	if all == nil {
		return nil, r.refuse("is an empty array; leave it out for all")
	}
	return all, nil
}
