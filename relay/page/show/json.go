package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"unicode/utf8"
)

const (
	// MaxBody is how many bytes of a payload are shown.
	MaxBody = 64 << 10

	maxHex   = 4 << 10   // bytes of a dump
	maxHTML  = 512 << 10 // of a pretty-printed payload
	maxDepth = 32        // of JSON that is pretty-printed
)

// Form is how a payload is shown.
type Form string

// Forms of a payload.
const (
	FormEmpty Form = "empty"
	FormJSON  Form = "json" // pretty-printed
	FormText  Form = "text" // as it came: not JSON, or JSON that is too deep
	FormHex   Form = "hex"  // a dump: more than an eighth is not text
)

// Shown is a payload for people.
type Shown struct {
	HTML      template.HTML // for inside <pre>
	Form      Form
	UTF8      bool // false if some bytes are not
	Truncated bool // HTML has the beginning only
	Size      int  // bytes of the whole payload
}

// Body shows a payload. JSON is pretty-printed with two spaces: members stay in their order, duplicate ones too, and numbers and
// strings stay byte for byte as they came. Other text is shown as [Text] does, and other bytes as a dump. At most 64 KiB
// are shown, of a dump 4 KiB.
func Body(raw []byte) Shown {
	s := Shown{Size: len(raw), UTF8: utf8.Valid(raw)}
	head := raw[:min(len(raw), MaxBody)]
	s.Truncated = len(head) < len(raw)
	switch {
	case len(raw) == 0:
		s.Form = FormEmpty
	case foreign(head): // never JSON, which has no controls
		s.Form = FormHex
		s.Truncated = len(raw) > maxHex
		s.HTML = template.HTML(dump(raw[:min(len(raw), maxHex)]))
	case s.UTF8 && json.Valid(raw) && depth(raw) <= maxDepth:
		s.Form = FormJSON
		p := printer{rest: head, b: make([]byte, 0, min(8*len(head), maxHTML+MaxBody))}
		p.print()
		s.Truncated = s.Truncated || p.full
		s.HTML = template.HTML(p.b)
	default:
		s.Form = FormText
		s.HTML = template.HTML(appendText(nil, string(whole(head, s.UTF8))))
	}
	if s.Truncated {
		s.HTML += `<span class="j-cut">…</span>`
	}
	return s
}

// whole is head without the first bytes of a character that the limit cuts.
func whole(head []byte, valid bool) []byte {
	for valid && !utf8.Valid(head) {
		head = head[:len(head)-1]
	}
	return head
}

// foreign is whether more than an eighth of the bytes is not text.
func foreign(raw []byte) bool {
	bad := 0
	for rest := raw; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 || r < 0x20 && r != '\t' && r != '\n' && r != '\r' {
			bad++
		}
		rest = rest[n:]
	}
	return bad > len(raw)/8
}

// perRow is how many bytes a row of a dump has, so that it fits beside another card and on a telephone.
const perRow = 8

// dump is bytes in rows: offset, numbers, and the letters of ASCII.
func dump(raw []byte) []byte {
	b := []byte(`<span class="j-hex">`)
	for at := 0; at < len(raw); at += perRow {
		row := raw[at:min(len(raw), at+perRow)]
		b = fmt.Appendf(b, "%04x  %-*s  ", at, 3*perRow-1, fmt.Sprintf("% x", row))
		for _, c := range row {
			if c < 0x20 || c >= 0x7f {
				c = '.'
			}
			b = appendRune(b, rune(c))
		}
		b = append(b, '\n')
	}
	return append(b, spanEnd...)
}

// depth is how deep valid JSON is nested.
func depth(raw []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// printer writes valid JSON, or the beginning of it, as HTML.
type printer struct {
	b     []byte
	rest  []byte
	open  []byte // brackets around what comes next
	value bool   // a value of a member comes next
	full  bool   // the HTML became too long
}

func (p *printer) print() {
	for {
		p.rest = bytes.TrimLeft(p.rest, " \t\r\n")
		if len(p.rest) == 0 {
			return
		}
		if len(p.b) > maxHTML {
			p.full = true
			return
		}
		p.token(p.rest[0])
	}
}

func (p *printer) token(c byte) {
	switch c {
	case '{', '[':
		p.begin(c)
	case '}', ']':
		p.open = p.open[:len(p.open)-1]
		p.newline()
		p.span("j-punc", p.take(1))
	case ',':
		p.span("j-punc", p.take(1))
		p.newline()
	case ':':
		p.span("j-punc", p.take(1))
		p.b = append(p.b, ' ')
		p.value = true
		return
	case '"':
		class := "j-str"
		if n := len(p.open); n > 0 && p.open[n-1] == '{' && !p.value {
			class = "j-key"
		}
		p.span(class, p.take(quoted(p.rest)))
	case 't', 'f', 'n':
		p.span("j-lit", p.take(word(p.rest)))
	default:
		p.span("j-num", p.take(word(p.rest)))
	}
	p.value = false
}

// begin writes an opening bracket; one that is closed at once stays on its line.
func (p *printer) begin(c byte) {
	inside := bytes.TrimLeft(p.rest[1:], " \t\r\n")
	if len(inside) > 0 && inside[0] == c+2 { // { and }, [ and ] are two apart
		p.rest = inside
		p.span("j-punc", []byte{c})
		p.span("j-punc", p.take(1))
		return
	}
	p.span("j-punc", p.take(1))
	p.open = append(p.open, c)
	p.newline()
}

func (p *printer) newline() {
	p.b = append(p.b, '\n')
	for range p.open {
		p.b = append(p.b, "  "...)
	}
}

func (p *printer) span(class string, token []byte) {
	p.b = append(p.b, `<span class="`...)
	p.b = append(p.b, class...)
	p.b = append(p.b, `">`...)
	p.b = appendText(p.b, string(token))
	p.b = append(p.b, spanEnd...)
}

func (p *printer) take(n int) []byte {
	token := p.rest[:n]
	p.rest = p.rest[n:]
	return whole(token, true) // the limit may cut a character of the last string
}

// quoted is the length of a string with its quotes, or of what the limit leaves of it.
func quoted(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// word is the length of a number, true, false or null.
func word(b []byte) int {
	if n := bytes.IndexAny(b, ",]} \t\r\n"); n >= 0 {
		return n
	}
	return len(b)
}
