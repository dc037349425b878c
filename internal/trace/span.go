package trace

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kind of a span, as OTLP numbers it.
type Kind int

// The kinds that Relay has.
const (
	Server Kind = 2
	Client Kind = 3
)

// Span is a piece of work, complete.
type Span struct {
	Context    Context // its own
	Parent     SpanID  // zero for the first of its trace
	Name       string
	Kind       Kind
	Start, End time.Time
	Attributes []Attribute
	Events     []Event
	Failed     bool
	Error      string // why it failed; no secret
}

// Attribute is a value of a span or a resource: a text or, if that is "", a number.
type Attribute struct {
	Key    string
	Text   string
	Number int64
}

// Event is a moment of a span.
type Event struct {
	Name string
	At   time.Time
}

// The numbers of fields and values below are those of
// https://github.com/open-telemetry/opentelemetry-proto, in
// opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.

// appendRequest appends an ExportTraceServiceRequest.
func appendRequest(b []byte, resource []Attribute, version string, spans []*Span) []byte {
	return message(b, 1, func(b []byte) []byte { // resource_spans
		b = message(b, 1, func(b []byte) []byte { return appendAttributes(b, 1, resource) })
		return message(b, 2, func(b []byte) []byte { // scope_spans
			b = message(b, 1, func(b []byte) []byte { return text(text(b, 1, "relay"), 2, version) })
			for _, s := range spans {
				b = message(b, 2, s.append)
			}
			return b
		})
	})
}

func (s *Span) append(b []byte) []byte {
	b = raw(b, 1, s.Context.Trace[:])
	b = raw(b, 2, s.Context.Span[:])
	b = text(b, 3, s.Context.State)
	if s.Parent != (SpanID{}) {
		b = raw(b, 4, s.Parent[:])
	}
	b = text(b, 5, s.Name)
	b = number(b, 6, uint64(s.Kind))
	b = nanoseconds(b, 7, s.Start)
	b = nanoseconds(b, 8, s.End)
	b = appendAttributes(b, 9, s.Attributes)
	for _, e := range s.Events {
		b = message(b, 11, func(b []byte) []byte { return text(nanoseconds(b, 1, e.At), 2, e.Name) })
	}
	if s.Failed {
		const failed = 2 // STATUS_CODE_ERROR
		b = message(b, 15, func(b []byte) []byte { return number(text(b, 2, s.Error), 3, failed) })
	}
	b = protowire.AppendTag(b, 16, protowire.Fixed32Type)
	return protowire.AppendFixed32(b, uint32(s.Context.Flags))
}

func appendAttributes(b []byte, field protowire.Number, all []Attribute) []byte {
	for _, a := range all {
		b = message(b, field, func(b []byte) []byte {
			b = text(b, 1, a.Key)
			return message(b, 2, func(b []byte) []byte {
				if a.Text != "" {
					return text(b, 1, a.Text)
				}
				return number(b, 3, uint64(a.Number))
			})
		})
	}
	return b
}

// message appends a field that is a message, which fill appends.
func message(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	return raw(b, field, fill(nil))
}

func raw(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func text(b []byte, field protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func number(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func nanoseconds(b []byte, field protowire.Number, at time.Time) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(at.UnixNano()))
}

// rejected is how many spans an ExportTraceServiceResponse says that the collector did not take,
// 0 for a body that is none.
func rejected(body []byte) int64 {
	part, ok := field(body, 1, protowire.BytesType) // partial_success
	if !ok {
		return 0
	}
	partial, _ := protowire.ConsumeBytes(part)
	value, ok := field(partial, 1, protowire.VarintType) // rejected_spans
	if !ok {
		return 0
	}
	n, _ := protowire.ConsumeVarint(value)
	return int64(n)
}

// field finds the first field of this number and type, and returns b from its value on.
func field(b []byte, want protowire.Number, kind protowire.Type) ([]byte, bool) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return nil, false
		}
		b = b[size:]
		if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
			return nil, false
		}
		if n == want && typ == kind {
			return b, true
		}
		b = b[size:]
	}
	return nil, false
}
