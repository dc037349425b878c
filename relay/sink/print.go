package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Bounds of output for people.
const (
	maxText  = 200     // bytes of one field
	maxShown = 4 << 10 // bytes of a body

	// Bodies beyond these are shown unchanged, because indentation grows with the square of the
	// depth.
	maxPretty = 64 << 10 // bytes
	maxDepth  = 32
)

// PrintOptions says how requests are printed.
type PrintOptions struct {
	Color bool // ANSI colours
	Body  bool // the body too: indented and cut at 4 KiB for people, whole in JSON
	JSON  bool // one JSON object a line, in ASCII
}

// NewPrinter returns an Options.Observe that writes each request to w in one Write, one at a
// time. All data of requests is quoted or escaped, so that it can neither control a terminal nor
// forge a line. Errors of w are ignored, because the sink must answer even if nobody reads the
// output.
func NewPrinter(w io.Writer, o PrintOptions) func(Received) {
	var mu sync.Mutex
	format := o.text
	if o.JSON {
		format = o.json
	}
	return func(r Received) {
		text := format(r)
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write(text)
	}
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (o PrintOptions) paint(color, s string) string {
	if !o.Color {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

func (o PrintOptions) text(r Received) []byte {
	color := yellow
	if r.Answer.Status/100 == 2 {
		color = green
	}
	attempt := "attempt -"
	if r.Attempt > 0 {
		attempt = "attempt " + strconv.Itoa(r.Attempt)
	}
	parts := []string{
		o.paint(dim, r.Time.Format("15:04:05.000")),
		o.paint(color, fmt.Sprintf("%-5s", r.Answer)),
		attempt,
		quote(r.EventType),
		quote(r.EventID),
		quote(r.Path),
		humanize.IBytes(uint64(len(r.Body))),
	}
	switch r.Signature {
	case Good:
		parts = append(parts, o.paint(green, "signature ok"))
	case Bad:
		parts = append(parts, o.paint(red, "signature BAD"))
	default:
		parts = append(parts, o.paint(dim, "signature unchecked"))
	}
	if r.Duplicate {
		parts = append(parts, o.paint(yellow, "duplicate"))
	}
	if r.Err != nil {
		parts = append(parts, o.paint(red, escape(clip(r.Err.Error(), maxText))))
	}
	line := strings.Join(parts, "  ") + "\n"
	if o.Body && len(r.Body) > 0 {
		line += "    " + strings.ReplaceAll(pretty(r.Body), "\n", "\n    ") + "\n"
	}
	return []byte(line)
}

// pretty is the body for people: indented when it is JSON of a modest size,
// escaped and cut.
func pretty(body []byte) string {
	var indented bytes.Buffer
	if len(body) <= maxPretty && depth(body) <= maxDepth && json.Indent(&indented, body, "", "  ") == nil {
		body = indented.Bytes()
	}
	shown := clip(string(body), maxShown)
	lines := strings.Split(strings.TrimRight(shown, "\n"), "\n")
	for i, line := range lines {
		lines[i] = escape(line)
	}
	if more := len(body) - len(shown); more > 0 {
		lines = append(lines, "… "+humanize.IBytes(uint64(more))+" more")
	}
	return strings.Join(lines, "\n")
}

// depth is an upper bound of how deep JSON is nested: brackets in strings count.
func depth(body []byte) int {
	now, deepest := 0, 0
	for _, c := range body {
		switch c {
		case '{', '[':
			now++
			deepest = max(deepest, now)
		case '}', ']':
			now--
		}
	}
	return deepest
}

func (o PrintOptions) json(r Received) []byte {
	line := struct {
		Time       time.Time       `json:"time"`
		Path       string          `json:"path"`
		EventID    string          `json:"event_id,omitempty"`
		EventType  string          `json:"event_type,omitempty"`
		DeliveryID string          `json:"delivery_id,omitempty"`
		Attempt    int             `json:"attempt,omitempty"`
		Size       int             `json:"size"`
		Signature  Signature       `json:"signature"`
		Duplicate  bool            `json:"duplicate"`
		Answer     string          `json:"answer"`
		Error      string          `json:"error,omitempty"`
		Body       json.RawMessage `json:"body,omitempty"`
		BodyBase64 []byte          `json:"body_base64,omitempty"` // a body that is not JSON
	}{
		Time: r.Time, Path: r.Path, EventID: r.EventID, EventType: r.EventType, DeliveryID: r.DeliveryID,
		Attempt: r.Attempt, Size: len(r.Body), Signature: r.Signature, Duplicate: r.Duplicate, Answer: r.Answer.String(),
	}
	if r.Err != nil {
		line.Error = r.Err.Error()
	}
	switch {
	case !o.Body:
	case json.Valid(r.Body):
		line.Body = r.Body
	default:
		line.BodyBase64 = r.Body
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // every field can be encoded
	}
	return append(ascii(text), '\n')
}

// ascii writes JSON with \u escapes for all that is not printable ASCII: the control characters
// from U+007F on, and those for the direction of text, are allowed in JSON, and terminals obey
// them.
func ascii(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// quote is a field of a request: unchanged if that is harmless, else as a Go string; "-" if it is
// missing.
func quote(s string) string {
	if s == "" {
		return "-"
	}
	short := clip(s, maxText)
	quoted := strconv.Quote(short)
	if len(short) < len(s) {
		return quoted + "…"
	}
	if quoted == `"`+s+`"` && !strings.Contains(s, " ") {
		return s
	}
	return quoted
}

// escape keeps printable characters and quotes, and escapes the rest like Go: \x1b, \u202e.
func escape(s string) string {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// clip cuts s to at most n bytes, not within a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}
