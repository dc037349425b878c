package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"relay/ingest/problem"
	"relay/policy/rawjson"
)

// FuzzCheckJSON compares with encoding/json, which is laxer in three points
// only (UTF-8, duplicate keys, depth); those are looked at by other means.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e+7,true,false,null,"x\n\u00e9\/"]}`, ` [ ] `, `"\ud83d\ude00"`, `"\ud83d"`, `"\udc00\ud83d"`, "\"\xff\"", "\xff",
		`{"a":1,"\u0061":2}`, `{"a":{"b":1},"b":{"a":1}}`, `{"a":[{"x":1},{"x":1,"x":2}]}`, `{"":1,"":2}`, nested(64), nested(65), `{"\ud83d":1,"\ud83e":2,"\ufffd":3,"\uD83D":4}`, `{"\ude00":{"a":1,"\u0061":2}}`, `["\ud83d",{"a":1,"a":2}]`, "[\"\\ud83d\",\"\xff\"]", "\"\\ud83d\x80\"", `"\\ud83d\ude0"`, `["\ud83d"`, `["\ud83d",{"a":1}},]`, `["` + strings.Repeat("[", 99) + `"]`,
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
			if !valid || !utf8.Valid(text) || hasDuplicate(t, text) || depthOf(t, text) > maxDepth {
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
			if utf8.Valid(text) {
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
	found := false
	var look func(value []byte)
	look = func(value []byte) {
		names := map[string]bool{}
		for name, member := range rawjson.Members(value) {
			units := unitsOf(t, name)
			found = found || names[units]
			names[units] = true
			look(member)
		}
		for element := range rawjson.Elements(value) {
			look(element)
		}
	}
	look(text)
	return found
}

// unitsOf is a string as the UTF-16 code units that it says, which tell halves of surrogate
// pairs apart.
func unitsOf(t *testing.T, quoted []byte) string {
	var units []uint16
	for s := quoted[1 : len(quoted)-1]; len(s) > 0; {
		switch {
		case s[0] == '\\' && s[1] == 'u':
			unit, err := strconv.ParseUint(string(s[2:6]), 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			units, s = append(units, uint16(unit)), s[6:]
		case s[0] == '\\':
			var letter string
			if err := json.Unmarshal([]byte(`"`+string(s[:2])+`"`), &letter); err != nil {
				t.Fatal(err)
			}
			units, s = append(units, uint16(letter[0])), s[2:]
		default:
			r, size := utf8.DecodeRune(s)
			units, s = utf16.AppendRune(units, r), s[size:]
		}
	}
	return fmt.Sprint(units)
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

// TestDecoderIsReused: nothing of one text is left for the next.
func TestDecoderIsReused(t *testing.T) {
	d := new(decoder)
	for _, text := range []string{`["\ud83d"`, `{"a":[{"b":1`, `{"a":1,"a":2}`, nested(70), `{"a":1} x`, "\xff", `["\ud83d",{"a":1,"a":2}]`} {
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
