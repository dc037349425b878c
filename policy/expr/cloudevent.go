package expr

import (
	"strings"

	"relay/policy/rawjson"
)

// Bodies that are CloudEvents 1.0 (https://github.com/cloudevents/spec), by their names in the
// file: attributes and data in the body, or attributes in headers and the data as the body.
const (
	CloudStructured = "cloudevent"
	CloudBinary     = "cloudevent_binary"
)

// CloudEvent is the structured form.
func CloudEvent(source string) *Template { return fixed(cloudEvent{source}) }

// cloudEvent writes the structured form.
type cloudEvent struct{ source string }

func (n cloudEvent) append(dst []byte, r *evaluation) ([]byte, error) {
	sep := byte('{')
	for _, a := range attributes(r.View, n.source) {
		dst = append(dst, sep)
		dst = append(rawjson.AppendString(dst, a[0]), ':')
		dst = rawjson.AppendString(dst, a[1])
		sep = ','
	}
	dst = append(dst, `,"datacontenttype":"application/json","data":`...)
	return append(rawjson.AppendCompact(dst, r.Data), '}'), nil
}

// attributes are those of the event, without datacontenttype. An event's key is both its subject
// and its partitionkey.
func attributes(v *View, source string) [][2]string {
	all := [][2]string{{"specversion", "1.0"}, {"id", v.ID}, {"source", source}, {"type", v.Type}, {"time", v.text("time")}}
	if v.Key != "" {
		all = append(all, [2]string{"subject", v.Key}, [2]string{"partitionkey", v.Key})
	}
	if v.Tenant != "" {
		all = append(all, [2]string{"tenant", v.Tenant})
	}
	return all
}

// CloudHeader lists the header lines of the binary form, as the HTTP binding says.
func CloudHeader(v *View, source string) [][2]string {
	all := attributes(v, source)
	for i, a := range all {
		all[i] = [2]string{"ce-" + a[0], percent(a[1])}
	}
	return all
}

// percent encodes the characters that the HTTP binding does not allow in a header (3.1.3.2).
func percent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
