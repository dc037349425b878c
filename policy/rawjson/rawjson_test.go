package rawjson

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"
)

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                  `""`,
		"plain <é😀\u2028>&": "\"plain <é😀\u2028>&\"",
		"\"\\\b\t\n\f\r":    `"\"\\\b\t\n\f\r"`,
		"\x00\x1f\x7f":      "\"\\u0000\\u001f\x7f\"",
		"a\xffb\xe2\x80":    "\"a\uFFFDb\uFFFD\uFFFD\"",
	} {
		if got := string(AppendString([]byte("x"), in)); got != "x"+want {
			t.Errorf("%q became %s, want %s", in, got[1:], want)
		}
	}
}

func FuzzString(f *testing.F) {
	f.Add("a\"\\\n\x00\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		quoted := AppendString(nil, s)
		if err := json.Unmarshal(quoted, &got); err != nil || utf8.ValidString(s) && got != s {
			t.Errorf("%q became %s, %v", s, quoted, err)
		}
		if utf8.ValidString(s) && Unquote(quoted) != s {
			t.Errorf("%s was read as %q", quoted, Unquote(quoted))
		}
	})
}

func FuzzCompact(f *testing.F) {
	for _, s := range []string{`{}`, ` [ 1 , "a b" ] `, `"\\"`, `"\" "`, `{"a\\":" "}`, "[\n\t\r]", `"<>&"`, "\"\u2028 \u2029\"", `"\\\" "`, `{" a ":[{ },[ ],"\\"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got := AppendCompact([]byte("x"), data)
		if !bytes.Equal(before, data) {
			t.Errorf("AppendCompact changed its source %q", before)
		}
		var want bytes.Buffer
		if json.Compact(&want, data) == nil && string(got) != "x"+want.String() {
			t.Errorf("AppendCompact(%q) = %q, want %q", data, got[1:], want.String())
		}
	})
}

// Members and elements are those that encoding/json finds, and no source makes a panic.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{}`, ` { "a" : 1 , "b":[1, {"a":"}"}] , "\u0061":"\\\"," } `, `[1, "]" ,[ ],{"a":[]} , null]`, `[]`, `7`, `{"a"`, `["`, `{"a":`, `[[`, `{"a":1,}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var members map[string]json.RawMessage
		isObject := json.Unmarshal(data, &members) == nil && members != nil && utf8.Valid(data) && LoneSurrogate(data) < 0
		seen := 0
		for key, v := range Members(data) {
			name := Unquote(key)
			if !isObject {
				continue
			}
			seen++
			want, ok := members[name]
			if got, found := Member(data, name); !ok || !found || !bytes.Equal(got, Trim(want)) {
				t.Errorf("%q of %q is %q, want %q; at its place %q", name, data, got, want, v)
			}
		}
		if isObject && seen < len(members) {
			t.Errorf("found %d members of %q", seen, data)
		}
		var elements []json.RawMessage
		isArray := json.Unmarshal(data, &elements) == nil && elements != nil
		got := slices.Collect(Elements(data))
		if isArray && !slices.EqualFunc(got, elements, func(a []byte, b json.RawMessage) bool { return bytes.Equal(a, Trim(b)) }) {
			t.Errorf("elements of %q are %q", data, got)
		}
		if isArray && len(got) > 0 {
			if last, ok := Element(data, len(got)-1); !ok || !bytes.Equal(last, got[len(got)-1]) {
				t.Errorf("the last element of %q is %q", data, last)
			}
		}
	})
}
