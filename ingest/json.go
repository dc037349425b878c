package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
	"relay/policy/rawjson"
)

// maxDepth is how deep the data of an event may nest.
const maxDepth = 64

// decoder reads one JSON text strictly: RFC 8259 with no byte order mark, no duplicate keys, no
// invalid UTF-8, and bounded nesting. All incoming JSON passes through it once; it checks and
// splits in the same pass. Half of a surrogate pair is legal as an escape ("\ud83d"); for a text
// that has one, the library's own checks of UTF-8 and of duplicate keys are too coarse. The zero
// value is ready for open.
type decoder struct {
	dec  jsontext.Decoder
	src  bytes.Buffer // what dec reads, without a copy
	text []byte
}

// open starts a text that may nest up to depth.
//
// It checks the depth first, because the JSON library allows 10,000 levels. Most texts have fewer
// brackets than the limit, so counting them is enough.
func (d *decoder) open(text []byte, depth int) *problem.Problem {
	if bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > depth {
		if at := deeperThan(text, depth); at >= 0 {
			p := problem.New(problem.TooDeep, fmt.Sprintf("data may be nested %d deep", maxDepth))
			p.Offset = new(at)
			return p
		}
	}
	d.text = text
	d.src = *bytes.NewBuffer(text)
	if rawjson.LoneSurrogate(text) < 0 || !utf8.Valid(text) {
		d.dec.Reset(&d.src)
		return nil
	}
	d.dec.Reset(&d.src, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	return repeatedName(text)
}

// repeatedName looks for a duplicate key in a text with halves of surrogate pairs, up to the
// first error.
func repeatedName(text []byte) *problem.Problem {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	open := []map[string]bool{nil} // the keys of each object, nil in an array
	for {
		switch dec.PeekKind() {
		case 0:
			return nil
		case '{':
			open = append(open, map[string]bool{})
		case '[':
			open = append(open, nil)
		case '}', ']':
			open = open[:len(open)-1]
		default:
			keys := open[len(open)-1]
			_, before := dec.StackIndex(dec.StackDepth()) // keys and values so far
			v, err := dec.ReadValue()
			if err != nil {
				return nil
			}
			if keys == nil || before%2 != 0 {
				continue
			}
			name := rawjson.Unquote(v)
			if keys[name] {
				return duplicate(name, int(dec.InputOffset())-len(v))
			}
			keys[name] = true
			continue
		}
		if _, err := dec.ReadToken(); err != nil {
			return nil
		}
	}
}

func duplicate(name string, at int) *problem.Problem {
	p := problem.New(problem.DuplicateKey, fmt.Sprintf("the key %.64q is there twice in one object", name))
	p.Offset = new(at)
	return p
}

// close forgets the text, so that an idle decoder keeps no body in memory.
func (d *decoder) close() {
	d.text = nil
	d.src = bytes.Buffer{}
	d.dec.Reset(&d.src)
}

// kind returns what comes next: the first byte of a value, '0' for all numbers, or the end of an
// object or array. It is 0 at an error, which reading the next value returns.
func (d *decoder) kind() jsontext.Kind { return d.dec.PeekKind() }

// bracket reads the bracket that kind announced.
func (d *decoder) bracket() *problem.Problem {
	if _, err := d.dec.ReadToken(); err != nil {
		return d.problem(err)
	}
	return nil
}

// value reads a whole value, or the name of a member. The bytes are part of the
// text.
func (d *decoder) value() (jsontext.Value, *problem.Problem) {
	v, err := d.dec.ReadValue()
	if err != nil {
		return nil, d.problem(err)
	}
	return v, nil
}

// offset is the offset after the last token.
func (d *decoder) offset() int { return int(d.dec.InputOffset()) }

// end checks that nothing but whitespace is left.
func (d *decoder) end() *problem.Problem {
	at := d.offset()
	if _, err := d.dec.ReadToken(); errors.Is(err, io.EOF) {
		return nil
	}
	at += leadingSpace(d.text[at:])
	p := problem.New(problem.InvalidJSON, "there is more text behind the value")
	p.Offset = new(at)
	return p
}

// problem says why the text is not valid. It does not use the library's message, which may quote
// the text.
func (d *decoder) problem(err error) *problem.Problem {
	at := len(d.text)
	if wrong, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at = int(wrong.ByteOffset)
		if errors.Is(wrong.Err, jsontext.ErrDuplicateName) {
			return duplicate(wrong.JSONPointer.LastToken(), at)
		}
	}
	p := problem.New(problem.InvalidJSON, "the text is not JSON from this byte on")
	rest := d.text[min(at, len(d.text)):]
	switch r, size := utf8.DecodeRune(rest); {
	case at == 0 && bytes.HasPrefix(rest, []byte("\uFEFF")):
		p.Detail = "the text begins with a byte order mark"
	case size == 0 || errors.Is(err, io.ErrUnexpectedEOF):
		p.Detail = "the text ends early"
	case r == utf8.RuneError && size == 1:
		p = problem.New(problem.InvalidUTF8, "this byte is not UTF-8")
	case rawjson.LoneSurrogate(rest) == 0: // the library says so, because other bytes are no UTF-8
		p = problem.New(problem.InvalidUTF8, "this byte is not UTF-8")
		at = notUTF8(d.text)
	}
	p.Offset = new(at)
	return p
}

// checkJSON reads text as one value nested at most 64 deep and returns it
// without the whitespace around it.
func (d *decoder) checkJSON(text []byte) (jsontext.Value, *problem.Problem) {
	if p := d.open(text, maxDepth); p != nil {
		return nil, p
	}
	v, p := d.value()
	if p != nil {
		return nil, p
	}
	return v, d.end()
}

// whole refuses a string with half of a surrogate pair, which is allowed only in data, because
// headers and logs cannot contain it.
func (d *decoder) whole(field string, v jsontext.Value) *problem.Problem {
	at := rawjson.LoneSurrogate(v)
	if at < 0 {
		return nil
	}
	p := problem.New(problem.InvalidUTF8, "this escape is half of a surrogate pair, which only data may have")
	p.Field, p.Offset = field, new(d.offset()-len(v)+at)
	return p
}

// unquote returns the text of a string value.
func unquote(v jsontext.Value) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	return []byte(rawjson.Unquote(v))
}

// deeperThan returns where text first nests deeper than limit, or -1. It checks nothing else.
func deeperThan(text []byte, limit int) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '[', '{':
			if depth++; depth > limit {
				return i
			}
		case ']', '}':
			depth--
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		}
	}
	return -1
}

// notUTF8 returns the offset of the first byte that is not UTF-8, or the length.
func notUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(text)
}

// leadingSpace counts the whitespace (RFC 8259, section 2) that text begins with.
func leadingSpace(text []byte) int {
	return len(text) - len(bytes.TrimLeft(text, " \t\r\n"))
}
