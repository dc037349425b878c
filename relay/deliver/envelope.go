package deliver

import (
	"time"

	"relay/outbox"
	"relay/policy/rawjson"
)

// appendEnvelope appends the body of a request, where its endpoint has no own:
//
//	{"id":…,"type":…,"timestamp":…,"data":…}
//
// It depends on the event alone, so every attempt sends the same bytes (promise
// P3). data is what the app sent, less white space between tokens. The time
// is RFC 3339 in UTC, with a fraction only where the event has one.
func appendEnvelope(dst []byte, e *outbox.Event) []byte {
	dst = append(dst, `{"id":`...)
	dst = rawjson.AppendString(dst, e.ID)
	dst = append(dst, `,"type":`...)
	dst = rawjson.AppendString(dst, e.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","data":`...)
	dst = rawjson.AppendCompact(dst, e.Data)
	return append(dst, '}')
}
