// Package rawjson works on JSON as bytes, without decoding it: it writes strings, removes white
// space, finds members, and converts a text to ECMAScript's form. Only the last changes order or
// types.
//
// The caller must pass valid JSON. For other input nothing panics, and the result is undefined.
package rawjson

import (
	"bytes"
	"iter"
	"unicode/utf8"
)

// AppendString appends s as a JSON string in the form of ECMAScript: it escapes only what must be
// escaped. Half of a surrogate pair in WTF-8 becomes its escape, other bytes that are not UTF-8
// become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	return append(AppendEscaped(append(dst, '"'), s), '"')
}

// AppendEscaped is AppendString without the quotes.
func AppendEscaped(dst []byte, s string) []byte {
	kept := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, s[kept:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			if r, is := half(s[i:]); is {
				dst, size = appendUnit(dst, r), 3
			} else if c < ' ' {
				dst = appendUnit(dst, rune(c))
			} else {
				dst = append(dst, "\uFFFD"...)
			}
		}
		i += size
		kept = i
	}
	return append(dst, s[kept:]...)
}

// appendUnit appends \uXXXX.
func appendUnit(dst []byte, unit rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[unit>>12&15], hex[unit>>8&15], hex[unit>>4&15], hex[unit&15])
}

// AppendCompact appends src without the white space between its tokens and changes nothing else.
// JSON without white space is copied at once.
func AppendCompact(dst, src []byte) []byte {
	kept := 0
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case c > '"': // most bytes
		case c == '"':
			i = closing(src, i)
		case c == ' ', c == '\t', c == '\n', c == '\r':
			dst = append(dst, src[kept:i]...)
			kept = i + 1
		}
	}
	return append(dst, src[kept:]...)
}

// closing returns where the string ends that begins at start: at its second quote, or at the end of src.
func closing(src []byte, start int) int {
	for end := start + 1; ; end++ {
		n := bytes.IndexByte(src[min(end, len(src)):], '"')
		if n < 0 {
			return len(src)
		}
		end += n
		escapes := 0
		for src[end-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end // else the quote is escaped
		}
	}
}

// Members yields the members of an object in their order, the keys with their quotes. It yields
// nothing for other values.
func Members(src []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		i := space(src, 0)
		if !at(src, i, '{') {
			return
		}
		for {
			i = space(src, i+1)
			if !at(src, i, '"') {
				return
			}
			key := src[i:skip(src, i)]
			i = space(src, i+len(key))
			if !at(src, i, ':') {
				return
			}
			i = space(src, i+1)
			end := skip(src, i)
			if !yield(key, src[i:end]) {
				return
			}
			if i = space(src, end); !at(src, i, ',') {
				return
			}
		}
	}
}

// Elements yields the elements of an array, and nothing for other values.
func Elements(src []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := space(src, 0)
		if !at(src, i, '[') {
			return
		}
		i = space(src, i+1)
		for i < len(src) && src[i] != ']' {
			end := skip(src, i)
			if !yield(src[i:end]) {
				return
			}
			if i = space(src, end); !at(src, i, ',') {
				return
			}
			i = space(src, i+1)
		}
	}
}

// Member returns the value of an object's key: like encoding/json the last one, if the key is
// repeated.
func Member(src []byte, name string) (value []byte, ok bool) {
	for key, v := range Members(src) {
		if same(key, name) {
			value, ok = v, true
		}
	}
	return value, ok
}

// Element returns an array's element, from 0.
func Element(src []byte, n int) ([]byte, bool) {
	i := 0
	for v := range Elements(src) {
		if i == n {
			return v, true
		}
		i++
	}
	return nil, false
}

// same tells whether a quoted key is name.
func same(key []byte, name string) bool {
	if bytes.IndexByte(key, '\\') < 0 {
		return len(key) == len(name)+2 && string(key[1:len(key)-1]) == name
	}
	return Unquote(key) == name
}

// Trim returns src without white space at its ends.
func Trim(src []byte) []byte { return bytes.Trim(src, " \t\r\n") }

func at(src []byte, i int, c byte) bool { return i < len(src) && src[i] == c }

func space(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\t' || src[i] == '\n' || src[i] == '\r') {
		i++
	}
	return i
}

// skip returns the end of the value that begins at i, at most len(src).
func skip(src []byte, i int) int {
	depth := 0
	for i < len(src) {
		switch src[i] {
		case '"':
			i = skipString(src, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			if depth == 0 {
				return skipScalar(src, i)
			}
			i++
		}
		if depth <= 0 {
			return i
		}
	}
	return len(src)
}

// skipScalar passes over a number, true, false or null, and always over one byte.
func skipScalar(src []byte, i int) int {
	for i++; i < len(src); i++ {
		switch src[i] {
		case ',', ']', '}', ':', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return i
}

// skipString finds the closing quote, which has no odd number of backslashes before it.
func skipString(src []byte, i int) int {
	start := i + 1
	for end := start; ; end++ {
		n := bytes.IndexByte(src[min(end, len(src)):], '"')
		if n < 0 {
			return len(src)
		}
		end += n
		first := end
		for first > start && src[first-1] == '\\' {
			first--
		}
		if (end-first)%2 == 0 {
			return end + 1
		}
	}
}
