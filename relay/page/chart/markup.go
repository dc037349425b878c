package chart

import (
	"html/template"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// markup writes HTML that is well-formed XML, too.
type markup struct{ b []byte }

func (m *markup) html() template.HTML { return template.HTML(m.b) }

func (m *markup) raw(parts ...string) {
	for _, p := range parts {
		m.b = append(m.b, p...)
	}
}

// text writes s as text, or as the value of an attribute. A character that XML does not allow, or that changes the direction
// of the text around it, becomes U+FFFD.
func (m *markup) text(s string) {
	plain := 0
	for plain < len(s) && s[plain] >= ' ' && s[plain] < 0x7f && strings.IndexByte(`<>&"'`, s[plain]) < 0 {
		plain++
	}
	m.raw(s[:plain])
	for _, r := range s[plain:] {
		switch {
		case r == '<':
			m.raw("&lt;")
		case r == '>':
			m.raw("&gt;")
		case r == '&':
			m.raw("&amp;")
		case r == '"':
			m.raw("&#34;")
		case r == '\'':
			m.raw("&#39;")
		case unicode.IsControl(r) && r != '\t' && r != '\n', r >= 0xfffe && r <= 0xffff, unicode.Is(unicode.Bidi_Control, r):
			m.raw("\ufffd")
		default:
			m.b = utf8.AppendRune(m.b, r) // a byte that is not UTF-8 is U+FFFD by now
		}
	}
}

// num writes v, which is not negative, with at most one decimal place.
func (m *markup) num(v float64) {
	tenths := int64(math.Round(v * 10))
	m.b = strconv.AppendInt(m.b, tenths/10, 10)
	if tenths%10 != 0 {
		m.b = append(m.b, '.', byte('0'+tenths%10))
	}
}

func (m *markup) attr(name string, v float64) {
	m.raw(` `, name, `="`)
	m.num(v)
	m.raw(`"`)
}

// rect draws nothing if it has no width or height.
func (m *markup) rect(class string, x, y, w, h float64) {
	if w <= 0 || h <= 0 {
		return
	}
	m.raw(`<rect class="`, class, `"`)
	m.attr("x", x)
	m.attr("y", y)
	m.attr("width", w)
	m.attr("height", h)
	m.raw(`/>`)
}

func (m *markup) line(class string, x1, y1, x2, y2 float64) {
	m.raw(`<line class="`, class, `"`)
	m.attr("x1", x1)
	m.attr("y1", y1)
	m.attr("x2", x2)
	m.attr("y2", y2)
	m.raw(`/>`)
}

// svg opens a picture that is w by h in its own coordinates and as large as its place.
func (m *markup) svg(t Text, class string, w, h float64) {
	m.raw(`<svg class="c-svg`, class, `" viewBox="0 0 `)
	m.num(w)
	m.raw(` `)
	m.num(h)
	m.raw(`" preserveAspectRatio="none" role="img"`)
	id := identifier(t.ID)
	if id == "" {
		m.raw(` aria-label="`)
		m.text(t.Title)
		m.raw(`"><desc>`)
	} else {
		m.raw(` aria-labelledby="`, id, `-title" aria-describedby="`, id, `-desc"><title id="`, id, `-title">`)
		m.text(t.Title)
		m.raw(`</title><desc id="`, id, `-desc">`)
	}
	m.text(t.Description)
	m.raw(`</desc>`)
}

func identifier(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) || r == '-' || r == '_' {
			return r
		}
		return -1
	}, s)
}
