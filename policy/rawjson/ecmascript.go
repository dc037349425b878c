package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrInvalid is the error for a text that is not JSON.
var ErrInvalid = errors.New("not JSON")

// AppendECMAScript appends the result of ECMAScript's JSON.stringify(JSON.parse(src)): numbers as
// the shortest text of a double (null for infinite ones), strings with the fewest escapes, of
// duplicate keys the last value at the first place, and keys that are array indexes first, in
// ascending order. src is checked; it may overlap the end of dst.
func AppendECMAScript(dst, src []byte) ([]byte, error) {
	if !json.Valid(src) {
		return dst, ErrInvalid
	}
	if !utf8.Valid(src) {
		src = bytes.ToValidUTF8(src, []byte("\uFFFD"))
	}
	w := writer{src: src, out: dst}
	w.value()
	return w.out, nil
}

// writer reads src from its start and writes out at its end.
type writer struct {
	src     []byte
	at      int
	out     []byte
	scratch []byte
}

// next returns the first byte of the next token.
func (w *writer) next() byte {
	w.at = space(w.src, w.at)
	return w.src[w.at]
}

func (w *writer) value() {
	switch c := w.next(); c {
	case '{':
		w.object()
	case '[':
		w.array()
	case '"':
		w.string()
	case 't', 'f', 'n':
		end := skipScalar(w.src, w.at)
		w.out = append(w.out, w.src[w.at:end]...)
		w.at = end
	default:
		end := skipScalar(w.src, w.at)
		w.out = appendNumber(w.out, w.src[w.at:end])
		w.at = end
	}
}

func (w *writer) array() {
	for sep := byte('['); ; sep = ',' {
		w.at++ // the bracket or the comma
		if w.next() == ']' && sep == '[' {
			w.out = append(w.out, '[')
			break
		}
		w.out = append(w.out, sep)
		w.value()
		if w.next() == ']' {
			break
		}
	}
	w.at++
	w.out = append(w.out, ']')
}

// member is a part of an object in out.
type member struct {
	start, colon, end int
	index             uint32
	isIndex           bool
}

func (w *writer) object() {
	begin := len(w.out)
	var room [16]member
	members := room[:0]
	sorted := true
	for open := true; ; open = false {
		w.at++ // the bracket or the comma
		if w.next() == '}' && open {
			break
		}
		w.out = append(w.out, ',') // the first one becomes a bracket
		m := member{start: len(w.out)}
		w.string()
		m.colon = len(w.out)
		w.next()
		w.at++
		w.out = append(w.out, ':')
		w.value()
		m.end = len(w.out)
		m.index, m.isIndex = arrayIndex(w.out[m.start+1 : m.colon-1])
		sorted = sorted && !m.isIndex
		members = append(members, m)
		if w.next() == '}' {
			break
		}
	}
	w.at++
	if !sorted || w.repeats(members) {
		w.reorder(begin, members)
	}
	if len(members) == 0 {
		w.out = append(w.out, '{')
	}
	w.out[begin] = '{'
	w.out = append(w.out, '}')
}

func (w *writer) key(m member) []byte { return w.out[m.start:m.colon] }

// repeats reports duplicate keys. Keys are equal if their texts are, because each string has one
// form here.
func (w *writer) repeats(members []member) bool {
	if len(members) > 16 {
		seen := make(map[string]bool, len(members))
		for _, m := range members {
			if seen[string(w.key(m))] {
				return true
			}
			seen[string(w.key(m))] = true
		}
		return false
	}
	for i, m := range members {
		for _, o := range members[:i] {
			if bytes.Equal(w.key(m), w.key(o)) {
				return true
			}
		}
	}
	return false
}

// reorder rewrites the members that begin at out[begin].
func (w *writer) reorder(begin int, members []member) {
	first := make(map[string]int, len(members))
	kept := members[:0]
	for _, m := range members {
		if i, ok := first[string(w.key(m))]; ok {
			kept[i] = m
			continue
		}
		first[string(w.key(m))] = len(kept)
		kept = append(kept, m)
	}
	slices.SortStableFunc(kept, func(a, b member) int {
		switch {
		case a.isIndex && b.isIndex:
			return int(int64(a.index) - int64(b.index))
		case a.isIndex:
			return -1
		case b.isIndex:
			return 1
		}
		return 0
	})
	w.scratch = w.scratch[:0]
	for _, m := range kept {
		w.scratch = append(append(w.scratch, ','), w.out[m.start:m.end]...)
	}
	w.out = append(w.out[:begin], w.scratch...)
}

// arrayIndex reads a key that ECMAScript orders by its number: 0 to 2^32-2 in its
// shortest form.
func arrayIndex(key []byte) (uint32, bool) {
	if len(key) == 0 || len(key) > 10 || key[0] == '0' && len(key) > 1 {
		return 0, false
	}
	var n uint64
	for _, c := range key {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n < math.MaxUint32
}

// string writes a string, which is copied if it has no escapes.
func (w *writer) string() {
	end := skipString(w.src, w.at)
	s := w.src[w.at:end]
	w.at = end
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			w.out = append(w.out, s...)
			return
		}
		w.out = append(w.out, s[:i]...)
		s = s[i:]
		switch s[1] {
		case 'u':
			s = w.unit(s)
			continue
		case '/':
			w.out = append(w.out, '/')
		default:
			w.out = append(w.out, '\\', s[1])
		}
		s = s[2:]
	}
}

// unit writes the character of the \uXXXX at the start of s, together with the next escape if
// both are a surrogate pair, and returns the rest. A lone surrogate stays an escape.
func (w *writer) unit(s []byte) []byte {
	r, size := escaped(s)
	if utf16.IsSurrogate(r) {
		w.out = appendUnit(w.out, r)
	} else {
		w.out = AppendEscaped(w.out, string(r))
	}
	return s[size:]
}

func hexRune(s []byte) rune {
	n, _ := strconv.ParseUint(string(s[2:6]), 16, 16) // four digits: s is valid
	return rune(n)
}

// appendNumber is Number::toString of ECMA-262 for JSON numbers.
func appendNumber(dst, src []byte) []byte {
	if len(src) <= 15 && isPlain(src) {
		return append(dst, src...)
	}
	f, _ := strconv.ParseFloat(string(src), 64) // infinite if it is out of range
	switch size := math.Abs(f); {
	case math.IsInf(f, 0):
		return append(dst, "null"...)
	case f == 0:
		return append(dst, '0') // without the sign of -0
	case size >= 1e-6 && size < 1e21:
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-2] == '0' { // e-07 is e-7
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// isPlain: a whole number of digits alone is its own shortest form, up to 15 of them.
func isPlain(src []byte) bool {
	for _, c := range src {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
