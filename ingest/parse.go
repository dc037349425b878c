package ingest

import (
	"errors"
	"fmt"

	"relay/ingest/problem"
	"relay/outbox"
)

// ParseEvent reads one event as POST /v1/events does, with the same checks, and accepts nothing.
// An event without id or time gets them as an accept would give them; Entry.Fingerprint is set if
// the id was given. The options Outbox and Log are not used. Errors: *EventError, or one for a
// batch.
func ParseEvent(body []byte, o Options) (outbox.Entry, error) {
	in := New(o)
	if int64(len(body)) > in.o.MaxBody {
		return outbox.Entry{}, eventError(in.bodyTooLarge())
	}
	b, many, p := in.read(&Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: body})
	switch {
	case p != nil:
		return outbox.Entry{}, eventError(p)
	case many:
		return outbox.Entry{}, errManyEvents
	}
	return b.Entries[0], nil
}

var errManyEvents = errors.New("the text is a batch: give one event, {\"type\":…,\"data\":…}")

// EventError says why a text is not an event that Relay accepts, in the words of an answer. Of
// the text it contains only names of keys.
type EventError struct {
	Code    string // as in an answer: "invalid_type"
	Field   string // "" if the error concerns no field
	Pointer string // into the data, RFC 6901, of a mismatch with the schema; "" for all of it
	Detail  string
	Offset  int // of the wrong byte, from 0; -1 for none
}

func (e *EventError) Error() string {
	s := e.Code
	if e.Field != "" {
		s += ": field " + e.Field
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Offset)
	}
	return s + ": " + e.Detail
}

func eventError(p *problem.Problem) *EventError {
	e := &EventError{Code: string(p.Code), Field: p.Field, Pointer: p.Pointer, Detail: p.Detail, Offset: -1}
	if p.Offset != nil {
		e.Offset = *p.Offset
	}
	return e
}
