package ingest

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"relay/outbox"
	"relay/policy/rawjson"
)

// maxField bounds the value of an indexed field, in bytes. Longer values are not indexed.
const maxField = 256

// index sets the event's fields: those of all events, then those of its type.
func (in *Ingest) index(e *outbox.Event) {
	e.Fields = appendFields(nil, e.Data, in.o.Index)
	if in.o.Type == nil {
		return
	}
	if t, _ := in.o.Type(e.Type); t != nil {
		e.Fields = appendFields(e.Fields, e.Data, t.Index)
	}
}

// appendFields appends the fields that data has at the paths. Objects, arrays and null are no
// fields.
func appendFields(fields []outbox.Field, data []byte, paths []string) []outbox.Field {
	for _, path := range paths {
		value, ok := fieldAt(data, path)
		known := slices.ContainsFunc(fields, func(f outbox.Field) bool { return f.Path == path })
		if ok && !known && len(fields) < outbox.MaxFields {
			fields = append(fields, outbox.Field{Path: path, Value: value})
		}
	}
	return fields
}

// fieldAt is the value at a path like data.device.id as text.
func fieldAt(data []byte, path string) (string, bool) {
	_, rest, _ := strings.Cut(path, ".")
	for name := range strings.SplitSeq(rest, ".") {
		inner, ok := rawjson.Member(data, name)
		if !ok {
			return "", false
		}
		data = inner
	}
	value := jsontext.Value(data)
	switch value.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(nil, data)
		return string(text), err == nil && len(text) <= maxField
	case '0', 't', 'f':
		return string(data), len(data) <= maxField
	}
	return "", false
}
