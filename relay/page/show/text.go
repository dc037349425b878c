package show

import (
	"fmt"
	"html/template"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is s as HTML. Characters that cannot be seen, or that change how the text around them is read (controls, marks of direction,
// spaces of no width, byte order marks, tags), are shown by their number, ⟨U+202E⟩, in a span of class j-chip; a byte that is not
// UTF-8 as ⟨0xFF⟩. Tabs and line ends stay, CR LF as LF.
func Text(s string) template.HTML {
	return template.HTML(appendText(nil, s))
}

// Plain is s as Text shows it, for places that take no markup: a title, an attribute. It is not escaped. Line ends and
// tabs become spaces.
func Plain(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "⟨0x%02X⟩", s[0])
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case hidden(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func appendText(b []byte, s string) []byte {
	open := false
	for len(s) > 0 {
		if n := plain(s); n > 0 {
			if open {
				b, open = append(b, spanEnd...), false
			}
			b, s = append(b, s[:n]...), s[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if r == '\r' && len(s) > 1 && s[1] == '\n' {
			s = s[1:]
			continue
		}
		bad := r == utf8.RuneError && n == 1
		chip := bad || hidden(r)
		if chip && !open {
			b = append(b, chipOpen...)
		} else if open && !chip {
			b = append(b, spanEnd...)
		}
		open = chip
		switch {
		case bad:
			b = fmt.Appendf(b, "⟨0x%02X⟩", s[0])
		case chip:
			b = fmt.Appendf(b, "⟨U+%04X⟩", r)
		default:
			b = appendRune(b, r)
		}
		s = s[n:]
	}
	if open {
		b = append(b, spanEnd...)
	}
	return b
}

// plain is how many bytes at the beginning of s are HTML as they are.
func plain(s string) int {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\n' && c != '\t') || c >= 0x7f || c == '<' || c == '>' || c == '&' || c == '"' || c == '\'' {
			return i
		}
	}
	return len(s)
}

const (
	chipOpen = `<span class="j-chip">`
	spanEnd  = `</span>`
)

func appendRune(b []byte, r rune) []byte {
	switch r {
	case '<':
		return append(b, "&lt;"...)
	case '>':
		return append(b, "&gt;"...)
	case '&':
		return append(b, "&amp;"...)
	case '"':
		return append(b, "&#34;"...)
	case '\'':
		return append(b, "&#39;"...)
	}
	return utf8.AppendRune(b, r)
}

// hidden is whether a reader would not see r, or would see what is around it wrongly.
func hidden(r rune) bool {
	switch {
	case r >= 0x20 && r < 0x7f || r == '\n' || r == '\t':
		return false
	case unicode.Is(unicode.Prepended_Concatenation_Mark, r): // of Arabic and others, visible
		return false
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Noncharacter_Code_Point):
		return true
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5, r == 0x3164, r == 0xffa0: // joiners and fillers, empty
		return true
	}
	return r >= 0xe0000 && r < 0xe1000 // tags and selectors, which can carry a text that nobody sees
}
