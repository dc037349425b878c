package rawjson

import (
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

func TestLoneSurrogate(t *testing.T) {
	for src, want := range map[string]int{
		``: -1, `"a"`: -1, `"\u0061"`: -1, `"\ud83d\ude00"`: -1, `"\\ud83d"`: -1, `"\\\\ud83d"`: -1, `"\ue000"`: -1, `"\ud7ff"`: -1,
		`"\ud83d"`: 1, `"\uDE00"`: 1, `"\ude00\ud83d"`: 1, `"\ud83d\ud83d\ude00"`: 1, `"\ud83d\ude00\ude00"`: 13, `"\\\ud83d"`: 3, `{"a":1,"\udfff":2}`: 8,
		`"\ud83d\n"`: 1, `"\ud83d \ude00"`: 1,
		`\`: -1, `\u`: -1, `\ud83`: -1, `\ud8zz`: -1, `\ud83d\`: 0,
	} {
		if got := LoneSurrogate([]byte(src)); got != want {
			t.Errorf("%s has one at %d, want %d", src, got, want)
		}
	}
}

func TestSurrogates(t *testing.T) {
	for src, want := range map[string]struct{ text, again, formed string }{
		`"\ud83d"`:             {"\xed\xa0\xbd", `"\ud83d"`, "\uFFFD"},
		`"\uDFFF!"`:            {"\xed\xbf\xbf!", `"\udfff!"`, "\uFFFD!"},
		`"a\ud800\ud800\n"`:    {"a\xed\xa0\x80\xed\xa0\x80\n", `"a\ud800\ud800\n"`, "a\uFFFD\uFFFD\n"},
		`"\ud83d\ude00\ude00"`: {"😀\xed\xb8\x80", `"😀\ude00"`, "😀\uFFFD"},
		`"\ud7ff\ue000\ufffd"`: {"\ud7ff\ue000\ufffd", "\"\ud7ff\ue000\ufffd\"", "\ud7ff\ue000\ufffd"},
	} {
		text := Unquote([]byte(src))
		if again := string(AppendString(nil, text)); text != want.text || again != want.again {
			t.Errorf("%s says %q and is written %s, want %q and %s", src, text, again, want.text, want.again)
		}
		if got := WellFormed(text); got != want.formed {
			t.Errorf("%s as UTF-8 is %q, want %q", src, got, want.formed)
		}
	}
	if got := WellFormed("a\xff\xed\xa0b"); got != "a\uFFFD\uFFFD\uFFFDb" {
		t.Errorf("other bytes became %q", got)
	}
	src := []byte(`{"\ud83d":1,"\ud83e":2,"\ufffd":3,"\u0061":4}`)
	for name, want := range map[string]string{"\xed\xa0\xbd": "1", "\xed\xa0\xbe": "2", "\uFFFD": "3", "a": "4"} {
		if got, ok := Member(src, name); !ok || string(got) != want {
			t.Errorf("the member %q is %s, want %s", name, got, want)
		}
	}
}

// FuzzUnquote: a string says what it says to encoding/json, which has U+FFFD for half of a
// surrogate pair, and what was read is written with the same code units.
func FuzzUnquote(f *testing.F) {
	for _, s := range []string{`"a\"\\\/\b\f\n\r\t"`, `"\ud83d"`, `"\ud83d\ud83d\ude00\u0061"`, `"\uDE00 é"`, "\"\xff\"", `"\u12`, `"\`, `""`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got := Unquote(src)
		formed := WellFormed(got)
		if !utf8.ValidString(formed) {
			t.Errorf("%q is not well formed: %q", src, formed)
		}
		var want string
		if src = Trim(src); !utf8.Valid(src) || json.Unmarshal(src, &want) != nil || len(src) == 0 || src[0] != '"' {
			return
		}
		got = Unquote(src)
		if formed := WellFormed(got); formed != want {
			t.Errorf("%s says %q, want %q", src, formed, want)
		}
		if (LoneSurrogate(src) < 0) != utf8.ValidString(got) {
			t.Errorf("%s has one at %d", src, LoneSurrogate(src))
		}
		again := AppendString(nil, got)
		if !slices.Equal(units(again), units(src)) {
			t.Errorf("%s is written %s", src, again)
		}
	})
}

// units are the UTF-16 code units of a string.
func units(src []byte) (all []uint16) {
	for src = src[1 : len(src)-1]; len(src) > 0; {
		r, size := utf8.DecodeRune(src)
		if r == '\\' && src[1] == 'u' {
			r, size = hexRune(src), escapeSize
		} else if r == '\\' {
			r, size = rune(plain(src[1])), 2
		}
		if src = src[size:]; utf16.IsSurrogate(r) {
			all = append(all, uint16(r))
		} else {
			all = utf16.AppendRune(all, r)
		}
	}
	return all
}
