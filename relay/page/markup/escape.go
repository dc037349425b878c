package markup

import (
	"fmt"
	"strings"
)

// unsafe stands for an address that is none of this site.
const unsafe = "#unsafe"

// text escapes for the text of elements and for values in quotes, as html/template does.
var text = strings.NewReplacer(
	"\x00", "\uFFFD", `"`, "&#34;", "&", "&amp;", "'", "&#39;", "+", "&#43;", "<", "&lt;", ">", "&gt;",
).Replace

// put is a value as it is written at a place.
func (p place) put(v any) (string, error) {
	if safe, is := v.(HTML); is {
		if p.kind != inText {
			return "", fmt.Errorf("markup cannot be put into attribute %s", p.attr)
		}
		return string(safe), nil
	}
	s, is := v.(string)
	if !is {
		s = fmt.Sprint(v)
	}
	if p.kind == inValue && p.address() {
		return text(p.addressOf(s)), nil
	}
	return text(s), nil
}

// addressOf is an address of this site. One that begins with anything but a path, a query or a fragment is replaced, so
// that no value can lead elsewhere or run code.
func (p place) addressOf(s string) string {
	if !p.begun {
		if s == "" || strings.IndexByte("/?#", s[0]) < 0 || strings.HasPrefix(s, "//") || strings.HasPrefix(s, `/\`) {
			return unsafe
		}
	}
	return normalized(s)
}

// normalized escapes what may not stand in an address (RFC 3986 section 2), and quotes and parentheses; what is escaped stays.
func normalized(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if alphanumeric(c) || strings.IndexByte("!#$&*+,/:;=?@[]-._~", c) >= 0 || c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isHex(c byte) bool {
	return 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || '0' <= c && c <= '9'
}
