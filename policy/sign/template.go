package sign

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/policy/rfc3339"
)

// Template is text with variables in it, such as "${timestamp}.${body}".
type Template []Part

// Part of a Template: exactly one of the two is set.
type Part struct {
	Literal  string
	Variable string // see Message for what each stands for
}

// variables are the names for both `signed` and `headers`; `signed` also has body, `headers` also
// have signature.
func variables() []string {
	return append([]string{"id", "type", "delivery", "attempt", "endpoint", "timestamp", "timestamp_ms", "timestamp_rfc3339",
		"method", "url", "host", "path", "content_type", "body_sha256", "body_sha256_base64", "body_sha512", "body_sha512_base64"},
		keyVariables()...)
}

// keyVariables are of one key each, as signature is: see keyed.
func keyVariables() []string { return []string{"algorithm", "key_id", "key_number"} }

// values are the values of the variables in one request.
type values struct {
	*Message
	keyed
	sha256, sha512 []byte // of the body, computed on first use
}

// keyed are the values that each key has of its own.
type keyed struct {
	algorithm string
	id        string // key_id
	number    int    // key_number, from 1
	signature []byte // encoded; of all keys if the scheme joins them
}

// String is the template as in the file.
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

func (t Template) uses(variables ...string) bool {
	return slices.ContainsFunc(t, func(p Part) bool { return p.Variable != "" && slices.Contains(variables, p.Variable) })
}

// perKey reports whether the text differs by key.
func (t Template) perKey() bool { return t.uses("signature") || t.uses(keyVariables()...) }

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

// write writes the text of t for v, without copying the body. It returns buf, which may have
// grown, for the next call.
func (t Template) write(w io.Writer, v *values, buf []byte) []byte {
	for _, p := range t {
		if p.Variable == "body" {
			w.Write(v.Body)
			continue
		}
		buf = p.append(buf[:0], v)
		w.Write(buf)
	}
	return buf
}

// append appends the text of t for v.
func (t Template) append(b []byte, v *values) []byte {
	for _, p := range t {
		b = p.append(b, v)
	}
	return b
}

func (p Part) append(b []byte, v *values) []byte {
	switch p.Variable {
	case "id":
		return append(b, v.EventID...)
	case "type":
		return append(b, v.EventType...)
	case "delivery":
		return append(b, v.DeliveryID...)
	case "attempt":
		return strconv.AppendInt(b, int64(v.Attempt), 10)
	case "endpoint":
		return append(b, v.Endpoint...)
	case "timestamp":
		return strconv.AppendInt(b, v.Time.Unix(), 10)
	case "timestamp_ms":
		return strconv.AppendInt(b, v.Time.UnixMilli(), 10)
	case "timestamp_rfc3339":
		return v.Time.UTC().AppendFormat(b, time.RFC3339)
	case "method":
		return append(b, v.Method...)
	case "url":
		origin, path := splitURL(v.URL)
		return append(append(b, origin...), path...)
	case "host":
		origin, _ := splitURL(v.URL)
		_, host, _ := strings.Cut(origin, "://")
		return append(b, host...)
	case "path":
		_, path := splitURL(v.URL)
		return append(b, path...)
	case "content_type":
		return append(b, v.ContentType...)
	case "body":
		return append(b, v.Body...)
	case "body_sha256":
		return encode(b, encodingHex, v.bodySHA256())
	case "body_sha256_base64":
		return encode(b, encodingBase64, v.bodySHA256())
	case "body_sha512":
		return encode(b, encodingHex, v.bodySHA512())
	case "body_sha512_base64":
		return encode(b, encodingBase64, v.bodySHA512())
	case "algorithm":
		return append(b, v.algorithm...)
	case "key_id":
		return append(b, v.id...)
	case "key_number":
		return strconv.AppendInt(b, int64(v.number), 10)
	case "signature":
		return append(b, v.signature...)
	}
	return append(b, p.Literal...)
}

func (v *values) bodySHA256() []byte {
	if len(v.sha256) == 0 {
		sum := sha256.Sum256(v.Body)
		v.sha256 = append(v.sha256, sum[:]...)
	}
	return v.sha256
}

func (v *values) bodySHA512() []byte {
	if len(v.sha512) == 0 {
		sum := sha512.Sum512(v.Body)
		v.sha512 = append(v.sha512, sum[:]...)
	}
	return v.sha512
}

// splitURL splits an absolute URL without user and fragment into scheme and host, and the target
// of the request line, which is at least a slash.
func splitURL(url string) (origin, path string) {
	start := strings.Index(url, "://") + len("://")
	end := strings.IndexAny(url[min(start, len(url)):], "/?")
	if end < 0 {
		return url, "/"
	}
	origin, path = url[:start+end], url[start+end:]
	if path[0] == '?' {
		path = "/" + path
	}
	return origin, path
}

// errContradicts is a sentence that begins with a header.
var errContradicts = errors.New("contradicts the request or is not in its usual form")

// observed reports whether a receiver knows the variable's value without a header.
func (p Part) observed() bool {
	switch p.Variable {
	case "method", "url", "host", "path", "content_type", "body_sha256", "body_sha256_base64", "body_sha512", "body_sha512_base64":
		return true
	}
	return false
}

// read is the reverse of append: it splits text at the literals of t and sets the variables in v.
// It ignores text after the last part; the caller finds it by writing the text again and
// comparing.
func (t Template) read(text string, v *values) error {
	for i, p := range t {
		if p.Variable == "" || p.observed() {
			rest, ok := strings.CutPrefix(text, string(p.append(nil, v)))
			switch {
			case !ok && p.observed():
				return errContradicts
			case !ok:
				return fmt.Errorf("is not of the form %s", t)
			}
			text = rest
			continue
		}
		end := len(text)
		if i+1 < len(t) {
			end = strings.Index(text, t[i+1].Literal)
		}
		if end <= 0 {
			return fmt.Errorf("is not of the form %s", t)
		}
		if err := v.set(p.Variable, text[:end]); err != nil {
			return fmt.Errorf("has a bad %s: %w", p.Variable, err)
		}
		text = text[end:]
	}
	return nil
}

// set sets a variable from a header.
func (v *values) set(variable, text string) error {
	switch variable {
	case "id":
		v.EventID = text
	case "type":
		v.EventType = text
	case "delivery":
		v.DeliveryID = text
	case "endpoint":
		v.Endpoint = text
	case "attempt", "key_number":
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("not a number")
		}
		if variable == "attempt" {
			v.Attempt = n
		} else {
			v.number = n
		}
	case "timestamp":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("not a number of seconds")
		}
		v.setSeconds(time.Unix(n, 0))
	case "timestamp_ms":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("not a number of milliseconds")
		}
		v.Time = time.UnixMilli(n)
	case "timestamp_rfc3339":
		at, err := rfc3339.Parse([]byte(text))
		if err != nil {
			return errors.New("not an RFC 3339 time")
		}
		v.setSeconds(at)
	case "algorithm":
		v.algorithm = text
	case "key_id":
		v.id = text
	case "signature":
		v.signature = []byte(text)
	}
	return nil
}

// setSeconds keeps the milliseconds of another header.
func (m *Message) setSeconds(at time.Time) {
	if m.Time.Unix() != at.Unix() {
		m.Time = at
	}
}
