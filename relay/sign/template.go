package sign

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Template is text with variables in it, such as "${timestamp}.${body}".
type Template []Part

// Part of a Template: exactly one of the two is set.
type Part struct {
	Literal  string
	Variable string // see Message for what each stands for
}

// variables are the names that `signed` and `headers` have in common; `signed`
// also has body, `headers` also have signature.
func variables() []string {
	return []string{"id", "type", "delivery", "attempt", "endpoint", "timestamp", "timestamp_ms", "timestamp_rfc3339", "method", "url"}
}

// String is the template as the file has it.
func (t Template) String() string {
	var b strings.Builder
	for _, p := range t {
		b.WriteString(p.Literal)
		if p.Variable != "" {
			b.WriteString("${" + p.Variable + "}")
		}
	}
	return b.String()
}

func (t Template) uses(variable string) bool { return slices.Contains(t, Part{Variable: variable}) }

func (t Template) check(known []string) error {
	if len(t) == 0 {
		return errors.New("is empty")
	}
	for _, p := range t {
		if (p.Literal == "") == (p.Variable == "") {
			return errors.New("a part must be either text or a variable")
		}
		if p.Variable != "" && !slices.Contains(known, p.Variable) {
			return fmt.Errorf("variable %q is not known here, use one of %s", p.Variable, strings.Join(known, ", "))
		}
	}
	return nil
}

// write writes the content that t makes of m, the body without a copy. It
// returns buf, which may have grown, for the next call.
func (t Template) write(w io.Writer, m *Message, buf []byte) []byte {
	for _, p := range t {
		if p.Variable == "body" {
			w.Write(m.Body)
			continue
		}
		buf = p.append(buf[:0], m, nil)
		w.Write(buf)
	}
	return buf
}

// append appends the text that t makes of m.
func (t Template) append(b []byte, m *Message, signature []byte) []byte {
	for _, p := range t {
		b = p.append(b, m, signature)
	}
	return b
}

func (p Part) append(b []byte, m *Message, signature []byte) []byte {
	switch p.Variable {
	case "id":
		return append(b, m.EventID...)
	case "type":
		return append(b, m.EventType...)
	case "delivery":
		return append(b, m.DeliveryID...)
	case "attempt":
		return strconv.AppendInt(b, int64(m.Attempt), 10)
	case "endpoint":
		return append(b, m.Endpoint...)
	case "timestamp":
		return strconv.AppendInt(b, m.Time.Unix(), 10)
	case "timestamp_ms":
		return strconv.AppendInt(b, m.Time.UnixMilli(), 10)
	case "timestamp_rfc3339":
		return m.Time.UTC().AppendFormat(b, time.RFC3339)
	case "method":
		return append(b, m.Method...)
	case "url":
		return append(b, m.URL...)
	case "body":
		return append(b, m.Body...)
	case "signature":
		return append(b, signature...)
	}
	return append(b, p.Literal...)
}

// read is the way back: it takes text apart at the literals of t, sets what the
// variables say in m and returns the signature. What follows the last part is left
// for the caller to find, who writes the text again and compares.
func (t Template) read(text string, m *Message) (signature string, err error) {
	for i, p := range t {
		if p.Variable == "" {
			rest, ok := strings.CutPrefix(text, p.Literal)
			if !ok {
				return "", fmt.Errorf("is not of the form %s", t)
			}
			text = rest
			continue
		}
		end := len(text)
		if i+1 < len(t) {
			end = strings.Index(text, t[i+1].Literal)
		}
		if end <= 0 {
			return "", fmt.Errorf("is not of the form %s", t)
		}
		if p.Variable == "signature" {
			signature = text[:end]
		} else if err := m.set(p.Variable, text[:end]); err != nil {
			return "", fmt.Errorf("has a bad %s: %w", p.Variable, err)
		}
		text = text[end:]
	}
	return signature, nil
}

// set takes over what a header says. Method and url stay what the receiver saw.
func (m *Message) set(variable, text string) error {
	switch variable {
	case "id":
		m.EventID = text
	case "type":
		m.EventType = text
	case "delivery":
		m.DeliveryID = text
	case "endpoint":
		m.Endpoint = text
	case "attempt":
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("not a number")
		}
		m.Attempt = n
	case "timestamp":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("not a number of seconds")
		}
		m.setSeconds(time.Unix(n, 0))
	case "timestamp_ms":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("not a number of milliseconds")
		}
		m.Time = time.UnixMilli(n)
	case "timestamp_rfc3339":
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return errors.New("not an RFC 3339 time")
		}
		m.setSeconds(at)
	}
	return nil
}

// setSeconds keeps the milliseconds that another header has told.
func (m *Message) setSeconds(at time.Time) {
	if m.Time.Unix() != at.Unix() {
		m.Time = at
	}
}
