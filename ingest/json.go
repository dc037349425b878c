package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
)

// maxDepth is how deep the data of an event may nest.
const maxDepth = 64

// decoder reads one JSON text strictly: RFC 8259 with no byte order mark, no
// duplicate keys, no invalid UTF-8 or lone surrogates, and bounded nesting. All
// JSON that comes in passes through it, once: it checks and splits in the same
// walk. The zero value is ready for open.
type decoder struct {
	dec  jsontext.Decoder
	src  bytes.Buffer // what dec reads, without a copy
	text []byte
}

// open starts a text that may nest up to depth.
//
// Depth is looked at first, because the JSON library goes on to 10,000 levels.
// Most texts have fewer brackets than the limit has levels, so counting them is
// enough.
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
	d.dec.Reset(&d.src)
	return nil
}

// close forgets the text, so that a decoder at rest pins no body.
func (d *decoder) close() {
	d.text = nil
	d.src = bytes.Buffer{}
	d.dec.Reset(&d.src)
}

// kind tells what comes next: the first byte of a value, '0' for all numbers,
// or the end of an object or array. It is 0 when the text is wrong there, which
// the next value says in detail.
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

// offset is the place behind what was read last.
func (d *decoder) offset() int { return int(d.dec.InputOffset()) }

// end checks that nothing but whitespace is left.
func (d *decoder) end() *problem.Problem {
	at := d.offset()
	if _, err := d.dec.ReadToken(); err == io.EOF {
		return nil
	}
	at += leadingSpace(d.text[at:])
	p := problem.New(problem.InvalidJSON, "there is more text behind the value")
	p.Offset = new(at)
	return p
}

// problem says in our terms why the text is not valid. The library's own words
// may quote the text, so they are not used.
func (d *decoder) problem(err error) *problem.Problem {
	at := len(d.text)
	if wrong, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at = int(wrong.ByteOffset)
		if errors.Is(wrong.Err, jsontext.ErrDuplicateName) {
			p := problem.New(problem.DuplicateKey, fmt.Sprintf("the key %.64q is there twice in one object", wrong.JSONPointer.LastToken()))
			p.Offset = new(at)
			return p
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
	case isSurrogate(rest):
		p = problem.New(problem.InvalidUTF8, "this escape is half of a surrogate pair")
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

// unquote returns what a string value stands for.
func unquote(v jsontext.Value) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	s, _ := jsontext.AppendUnquote(nil, v) // the decoder has checked it
	return s
}

// deeperThan returns where text first nests deeper than limit, or -1. It stops
// there, and makes no other sense of the text.
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

// isSurrogate tells whether text begins with an escape of a surrogate.
func isSurrogate(text []byte) bool {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return false
	}
	r, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return err == nil && 0xD800 <= r && r <= 0xDFFF
}

// leadingSpace counts the whitespace (RFC 8259, section 2) that text begins with.
func leadingSpace(text []byte) int {
	return len(text) - len(bytes.TrimLeft(text, " \t\r\n"))
}
