package rawjson

import (
	"bytes"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// RFC 8259 lets a string escape half of a surrogate pair ("\ud83d"), which no UTF-8 can
// say. Texts hold such a half as the three bytes that UTF-8 would have for it (WTF-8), so
// that two of them differ and AppendEscaped writes the escape again.

// escapeSize is that of \uXXXX.
const escapeSize = 6

// LoneSurrogate returns where the first escape of half a surrogate pair begins in JSON, or -1. It
// may find one in text that is not JSON, too.
func LoneSurrogate(src []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(src[i:], '\\')
		if n < 0 {
			return -1
		}
		i += n
		switch r, size := escaped(src[i:]); {
		case utf16.IsSurrogate(r):
			return i
		default:
			i += size
		}
	}
}

// escaped reads the escape that src begins with. A surrogate is returned only if it is alone;
// size is at most len(src).
func escaped(src []byte) (r rune, size int) {
	if len(src) < escapeSize || src[1] != 'u' {
		return 0, min(2, len(src))
	}
	r = hexRune(src)
	if next := src[escapeSize:]; utf16.IsSurrogate(r) && len(next) >= escapeSize && next[0] == '\\' && next[1] == 'u' {
		if pair := utf16.DecodeRune(r, hexRune(next)); pair != utf8.RuneError {
			return pair, 2 * escapeSize
		}
	}
	return r, escapeSize
}

// Unquote returns the text of a JSON string, in WTF-8 if it has half of a surrogate pair.
func Unquote(src []byte) string {
	if len(src) < 2 {
		return ""
	}
	src = src[1 : len(src)-1]
	i := bytes.IndexByte(src, '\\')
	if i < 0 {
		return string(src)
	}
	out := make([]byte, 0, len(src))
	for ; i >= 0; i = bytes.IndexByte(src, '\\') {
		out = append(out, src[:i]...)
		src = src[i:]
		r, size := escaped(src)
		switch {
		case size >= escapeSize && utf16.IsSurrogate(r):
			out = append(out, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
		case size >= escapeSize:
			out = utf8.AppendRune(out, r)
		case size == 2:
			out = append(out, plain(src[1]))
		}
		src = src[size:]
	}
	return string(append(out, src...))
}

// plain is the character of an escape of one letter.
func plain(letter byte) byte {
	if i := strings.IndexByte("bfnrt", letter); i >= 0 {
		return "\b\f\n\r\t"[i]
	}
	return letter
}

// half returns the half of a surrogate pair that s begins with in WTF-8.
func half(s string) (r rune, ok bool) {
	if len(s) < 3 || s[0] != 0xED || s[1] < 0xA0 || s[1] > 0xBF || s[2] < 0x80 || s[2] > 0xBF {
		return 0, false
	}
	return 0xD000 | rune(s[1]&0x3F)<<6 | rune(s[2]&0x3F), true
}

// WellFormed returns s as UTF-8: each half of a surrogate pair becomes U+FFFD, and so does any
// other byte that is not UTF-8.
func WellFormed(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if _, is := half(s); is {
			size = 3
		}
		b.WriteRune(r) // U+FFFD for bytes that are not UTF-8
		s = s[size:]
	}
	return b.String()
}
