package deliver

import (
	"encoding/json"
	"time"

	"relay/outbox"
)

// appendEnvelope appends the body of a request:
//
//	{"id":…,"type":…,"timestamp":…,"data":…}
//
// It depends on the event alone, so every attempt sends the same bytes (promise
// P3). data is what the app sent, less white space between tokens. The time
// is RFC 3339 in UTC, with a fraction only where the event has one.
func appendEnvelope(dst []byte, e *outbox.Event) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, e.ID)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, e.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","data":`...)
	dst = appendCompact(dst, e.Data)
	return append(dst, '}')
}

// appendString appends s as a JSON string. Ids and types hold no byte that
// needs an escape; if one ever does, it must not break out of the string.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendCompact appends valid JSON without the white space between its tokens
// and changes nothing else. JSON that has none is one copy.
func appendCompact(dst, src []byte) []byte {
	kept := 0
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case c > '"': // most bytes
		case c == '"':
			for i++; i < len(src) && src[i] != '"'; i++ {
				if src[i] == '\\' {
					i++ // what is escaped ends no string
				}
			}
		case c == ' ', c == '\t', c == '\n', c == '\r':
			dst = append(dst, src[kept:i]...)
			kept = i + 1
		}
	}
	return append(dst, src[kept:]...)
}
