package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"relay/ingest/problem"
)

// FuzzCheckJSON compares with encoding/json, which is laxer in three points
// only; those are looked at by other means.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e+7,true,false,null,"x\n\u00e9\/"]}`, ` [ ] `, `"\ud83d\ude00"`, `"\ud83d"`, `"\udc00\ud83d"`, "\"\xff\"", "\xff",
		`{"a":1,"\u0061":2}`, `{"a":{"b":1},"b":{"a":1}}`, `{"a":[{"x":1},{"x":1,"x":2}]}`, `{"":1,"":2}`, nested(64), nested(65), `["` + strings.Repeat("[", 99) + `"]`,
		"\uFEFF{}", `01`, `-`, `1.`, `1e`, `+1`, `.5`, `NaN`, `{"a":}`, `{"a" 1}`, `[1,]`, `{,}`, `"a`, `"\`, `"\u12`, `tru`, `truex`, `{} {}`, "[1]\x00", `{"a":1}}`, `[}`, "",
		`]` + nested(70), `"\"` + nested(70), "\"\t\"", "\v1", `1e999999`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		v, p := new(decoder).checkJSON(text)
		if !bytes.Equal(before, text) {
			t.Fatal("the text was changed")
		}
		valid := json.Valid(text)
		if p == nil {
			if !valid || !utf8.Valid(text) || halfPair(text) || hasDuplicate(t, text) || depthOf(t, text) > maxDepth {
				t.Fatalf("accepted %q", text)
			}
			if want := bytes.Trim(text, " \t\r\n"); !bytes.Equal(v, want) {
				t.Fatalf("value %q, want %q", v, want)
			}
			return
		}
		if p.Offset == nil || *p.Offset < 0 || *p.Offset > len(text) {
			t.Fatalf("offset %s of %d", show(p.Offset), len(text))
		}
		if !valid {
			return // what is wrong first decides the code
		}
		switch p.Code {
		case problem.TooDeep:
			if depthOf(t, text) <= maxDepth {
				t.Fatalf("%s: %q", p.Code, text)
			}
		case problem.InvalidUTF8:
			if utf8.Valid(text) && !halfPair(text) {
				t.Fatalf("%s: %q", p.Code, text)
			}
		case problem.DuplicateKey:
			if !hasDuplicate(t, text) {
				t.Fatalf("%s: %q", p.Code, text)
			}
		default:
			t.Fatalf("%s, but encoding/json takes %q", p.Code, text)
		}
	})
}

// depthOf and hasDuplicate are the slow and plain way to know, for valid text.
func depthOf(t *testing.T, text []byte) int {
	depth, deepest := 0, 0
	tokens(t, text, func(token json.Token) {
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
			deepest = max(deepest, depth)
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
	})
	return deepest
}

func hasDuplicate(t *testing.T, text []byte) bool {
	type level struct {
		names map[string]bool // nil in an array
		value bool            // the next token is a value
	}
	stack := []*level{{}}
	found := false
	tokens(t, text, func(token json.Token) {
		top := stack[len(stack)-1]
		name, isString := token.(string)
		switch {
		case token == json.Delim('{'):
			top.value = false
			stack = append(stack, &level{names: map[string]bool{}})
		case token == json.Delim('['):
			top.value = false
			stack = append(stack, &level{})
		case token == json.Delim('}'), token == json.Delim(']'):
			stack = stack[:len(stack)-1]
		case isString && top.names != nil && !top.value:
			found = found || top.names[name]
			top.names[name], top.value = true, true
		default:
			top.value = false
		}
	})
	return found
}

func tokens(t *testing.T, text []byte, visit func(json.Token)) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		visit(token)
	}
}

// halfPair tells whether there is an escape of half a surrogate pair.
func halfPair(text []byte) bool {
	escapes := regexp.MustCompile(`\\(u[0-9a-fA-F]{4}|.)`)
	pairs := regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
	marked := escapes.ReplaceAllFunc(text, func(e []byte) []byte {
		if len(e) == 2 {
			return nil // \\ and its like, so that what follows is no escape
		}
		return e
	})
	return regexp.MustCompile(`(?i)\\ud[89a-f][0-9a-f]{2}`).Match(pairs.ReplaceAll(marked, nil))
}

// TestDecoderIsReused: nothing of one text is left for the next.
func TestDecoderIsReused(t *testing.T) {
	d := new(decoder)
	for _, text := range []string{`{"a":[{"b":1`, `{"a":1,"a":2}`, nested(70), `{"a":1} x`, "\xff"} {
		if _, p := d.checkJSON([]byte(text)); p == nil {
			t.Errorf("accepted %q", text)
		}
		if v, p := d.checkJSON([]byte(` {"a":1} `)); p != nil || string(v) != `{"a":1}` {
			t.Errorf("after %q: %s %v", text, v, p)
		}
	}
	d.close()
	if cap(d.text) > 0 || d.src.Cap() > 0 || len(d.dec.UnreadBuffer()) > 0 {
		t.Error("a closed decoder pins a text")
	}
}
