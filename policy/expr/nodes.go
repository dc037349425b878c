package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"relay/policy/rawjson"
)

// mode is how a node writes its value.
type mode uint8

const (
	modeJSON    mode = iota // a value of JSON
	modeEscaped             // text, inside of a JSON string
	modeText                // text
	modeWhole               // text unchanged, everything else as JSON
)

// node appends a part of a body. After an error the caller drops what was appended.
type node interface {
	append(dst []byte, r *evaluation) ([]byte, error)
}

// literal is bytes from the file.
type literal []byte

func (n literal) append(dst []byte, _ *evaluation) ([]byte, error) { return append(dst, n...), nil }

// hiddenNode replaces a body that cannot be made with masked values.
type hiddenNode struct{}

func (hiddenNode) append(dst []byte, _ *evaluation) ([]byte, error) {
	return dst, errors.New("the body is not shown: it needs what env() or file() gave")
}

// sequence is one node after the other.
type sequence []node

func (n sequence) append(dst []byte, r *evaluation) (_ []byte, err error) {
	start := len(dst)
	for _, part := range n {
		if dst, err = part.append(dst, r); err != nil {
			return dst, err
		}
		if tooLong(len(dst)-start, r.View) {
			return dst, errTooLong
		}
	}
	return dst, nil
}

// join makes one node of several, and merges adjacent literals.
func join(nodes ...node) node {
	var all sequence
	for _, n := range nodes {
		inner, ok := n.(sequence)
		if !ok {
			inner = sequence{n}
		}
		for _, n := range inner {
			if text, ok := n.(literal); ok && len(all) > 0 {
				if last, ok := all[len(all)-1].(literal); ok {
					all[len(all)-1] = append(last[:len(last):len(last)], text...)
					continue
				}
			}
			all = append(all, n)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

// field is a member of event other than data, or the delivery's id.
type field struct {
	name string
	mode mode
}

func (n field) append(dst []byte, r *evaluation) ([]byte, error) {
	if n.name == "timestamp" {
		return strconv.AppendInt(dst, r.Time.Unix(), 10), nil
	}
	quote := n.mode == modeJSON
	if quote {
		dst = append(dst, '"')
	}
	switch {
	case n.name == "time":
		dst = appendTime(dst, r.Time)
	case n.mode == modeText:
		dst = append(dst, r.text(n.name)...)
	default:
		dst = rawjson.AppendEscaped(dst, r.text(n.name))
	}
	if quote {
		dst = append(dst, '"')
	}
	return dst, nil
}

// step goes from a value to one of its members or elements.
type step struct {
	name    string
	index   int
	isIndex bool
}

func (s step) String() string {
	if s.isIndex {
		return fmt.Sprintf("[%d]", s.index)
	}
	return "." + s.name
}

// data is a part of the event's data, as the bytes that were accepted.
type data struct {
	path  []step
	mode  mode
	place hcl.Range
}

func (n data) append(dst []byte, r *evaluation) ([]byte, error) {
	value := r.Data
	for i, s := range n.path {
		if r.left.Spend(len(value) / 2); r.left.Err() != nil {
			return dst, r.err(n.place)
		}
		inner, ok := s.of(value)
		if !ok {
			return dst, placed(n.place, "the event has no %s; write try(…, null) for what may be absent", n.name(i+1))
		}
		value = inner
	}
	if n.mode == modeJSON {
		return rawjson.AppendCompact(dst, value), nil
	}
	switch value = rawjson.Trim(value); {
	case len(value) > 1 && value[0] == '"' && n.mode == modeEscaped:
		return append(dst, value[1:len(value)-1]...), nil
	case len(value) > 1 && value[0] == '"':
		return append(dst, rawjson.WellFormed(rawjson.Unquote(value))...), nil
	case len(value) > 0 && strings.IndexByte("{[n", value[0]) < 0:
		return append(dst, value...), nil
	case len(value) > 0 && value[0] == 'n':
		return dst, placed(n.place, "%s is null, which is no text", n.name(len(n.path)))
	}
	return dst, placed(n.place, "%s is an object or a list, which is no text; write jsonencode(…)", n.name(len(n.path)))
}

func (s step) of(value []byte) ([]byte, bool) {
	if s.isIndex {
		return rawjson.Element(value, s.index)
	}
	return rawjson.Member(value, s.name)
}

// name is the file's text, up to the nth step.
func (n data) name(steps int) string {
	var b strings.Builder
	b.WriteString("event.data")
	for _, s := range n.path[:steps] {
		b.WriteString(s.String())
	}
	return b.String()
}

// choice is a conditional; only the chosen branch is evaluated.
type choice struct {
	condition *Expression
	yes, no   node
}

func (n choice) append(dst []byte, r *evaluation) ([]byte, error) {
	is, err := n.condition.isTrue(r)
	if err != nil {
		return dst, err
	}
	if is {
		return n.yes.append(dst, r)
	}
	return n.no.append(dst, r)
}

// tries is the first of several nodes without an error.
type tries []node

func (n tries) append(dst []byte, r *evaluation) ([]byte, error) {
	start := len(dst)
	var err error
	for _, one := range n {
		if dst, err = one.append(dst[:start], r); err == nil || r.left.Err() != nil {
			return dst, err
		}
	}
	return dst, err
}

// escaped writes a value of JSON inside a JSON string.
type escaped struct{ value node }

func (n escaped) append(dst []byte, r *evaluation) ([]byte, error) {
	text, err := n.value.append(nil, r)
	if err == nil && tooLong(len(text), r.View) { // each nested jsonencode doubles the backslashes
		err = errTooLong
	}
	if err != nil {
		return dst, err
	}
	return rawjson.AppendEscaped(dst, string(text)), nil
}

// query writes a text for a form.
type query struct{ value node }

func (n query) append(dst []byte, r *evaluation) ([]byte, error) {
	text, err := n.value.append(nil, r)
	return appendQuery(dst, string(text)), err
}

// appendQuery is the serializer of application/x-www-form-urlencoded (URL standard).
func appendQuery(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '*', c == '-', c == '.', c == '_':
			dst = append(dst, c)
		case c == ' ':
			dst = append(dst, '+')
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// computed is an expression that HCL must evaluate.
type computed struct {
	*Expression
	mode mode
}

func (n computed) append(dst []byte, r *evaluation) ([]byte, error) {
	value, err := n.value(r)
	if err != nil {
		return dst, err
	}
	if n.mode == modeJSON || n.mode == modeWhole && (value.IsNull() || value.Type() != cty.String) {
		if dst, err = appendValue(dst, value); err != nil {
			err = &placedError{n.e.Range(), err}
		}
		return dst, err
	}
	switch {
	case value.IsNull():
		return dst, placed(n.e.Range(), "the value is null, which is no text")
	case !value.Type().IsPrimitiveType():
		return dst, placed(n.e.Range(), "the value is an object or a list, which is no text; write jsonencode(…)")
	}
	text := scalarText(value)
	if n.mode == modeEscaped {
		return rawjson.AppendEscaped(dst, text), nil
	}
	return append(dst, rawjson.WellFormed(text)...), nil
}
