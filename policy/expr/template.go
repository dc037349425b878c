package expr

import (
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2"

	"relay/config"
	"relay/policy/rawjson"
)

// maxBody bounds a body, in bytes, in addition to maxGrowth times the event's data.
const (
	maxBody   = 1 << 20
	maxGrowth = 8
)

var errTooLong = fmt.Errorf("the body has more than %s and %d times the event's data", config.FormatSize(maxBody), maxGrowth)

func tooLong(n int, v *View) bool { return n > maxBody+maxGrowth*len(v.Data) }

// Template writes a body for an event. Literals of the file are bytes, parts of the event's data
// are copied from its bytes, and only the rest is evaluated.
type Template struct {
	root    node
	program *program
}

// fixed makes a template without expressions.
func fixed(root node) *Template { return &Template{root, &program{site: Site{Budget: time.Minute}}} }

// Append appends the body. The same view gives the same bytes. The error says where in the
// file and why, holds no data of the event, and leaves dst as it was.
func (t *Template) Append(dst []byte, v *View) ([]byte, error) {
	start := len(dst)
	r := t.program.begin(v)
	defer t.program.end(r)
	dst, err := t.root.append(dst, r)
	if err == nil && tooLong(len(dst)-start, v) {
		err = errTooLong
	}
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// The kinds of bodies that are compiled.
const (
	KindForm = "form"
	KindJSON = "json" // an object, a list, or data
	KindText = "text"
)

// Template compiles the whole attribute as a body of one of the kinds.
func (s *Scope) Template(kind string) *Template {
	return &Template{compiler{s}.root(s.from.Expr, kind), s.program}
}

// IsJSON reports whether a body is written as JSON.
func (s *Scope) IsJSON() bool { return compiler{s}.isJSON(s.from.Expr) }

// Masked is Template with *** for results of env() and file(), nil without such results.
func (s *Scope) Masked(kind string) *Template {
	if s.once.text() == "" {
		return nil
	}
	shown := s.mask()
	t := &Template{compiler{shown}.root(s.from.Expr, kind), shown.program}
	if shown.bad {
		t.root = hiddenNode{}
	}
	return t
}

// Default is AppendDefault as a template.
func Default() *Template { return fixed(defaultBody{}) }

type defaultBody struct{}

func (defaultBody) append(dst []byte, r *evaluation) ([]byte, error) {
	return AppendDefault(dst, r.View), nil
}

// AppendDefault appends the body of an endpoint that has none of its own:
//
//	{"id":…,"type":…,"timestamp":…,"data":…}
//
// It depends on the event alone, so every attempt sends the same bytes (promise P3). data is
// what the app sent, less white space between tokens. The time is RFC 3339 in UTC, with a
// fraction only where the event has one.
func AppendDefault(dst []byte, v *View) []byte {
	dst = append(dst, `{"id":`...)
	dst = rawjson.AppendString(dst, v.ID)
	dst = append(dst, `,"type":`...)
	dst = rawjson.AppendString(dst, v.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = appendTime(dst, v.Time)
	dst = append(dst, `","data":`...)
	dst = rawjson.AppendCompact(dst, v.Data)
	return append(dst, '}')
}

// Data is the event's data alone.
func Data() *Template { return fixed(data{mode: modeJSON}) }

// Keyword is the name of a body that is not an expression, "" for others.
func Keyword(from config.Deferred) string {
	switch k := hcl.ExprAsKeyword(from.Expr); k {
	case CloudStructured, CloudBinary:
		return k
	}
	return ""
}
