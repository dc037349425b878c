package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
	"relay/internal/trace"
	"relay/outbox"
	"relay/policy"
	"relay/policy/rawjson"
	"relay/policy/rfc3339"
)

// CloudEvents 1.0 (https://github.com/cloudevents/spec) are taken in all three forms of
// the HTTP binding and become events like any other:
//
//	id               the event's id where it is one by our rules; else "evt_" and a hash of
//	                 source and id, the same each time, so that a repeat is known as one
//	source           is part of what a repeat must have in common; else not kept
//	type, time       the same
//	subject          the key
//	tenant           (an extension) the tenant
//	datacontenttype  must be JSON
//	traceparent,     (the distributed tracing extension) are kept with the event where Relay
//	tracestate       traces or sends trace contexts on
//	others           are checked for their form and not kept

// specVersion is the only supported version.
const specVersion = "1.0"

// nothing is the data of a CloudEvent without data.
var nothing = []byte("null")

// Attribute is a header of a CloudEvent in binary mode: the name in lower case and without "ce-",
// the value unchanged.
type Attribute struct{ Name, Value string }

// cloudEvent collects the attributes of a CloudEvent.
type cloudEvent struct {
	event       outbox.Event
	id          string // as it came
	source      string
	version     string
	contentType string // "" is JSON
	traceParent string // of the distributed tracing extension, with traceState
	traceState  string
}

// set sets one attribute. The caller adds the place to the problem.
func (c *cloudEvent) set(name, value string) *problem.Problem {
	switch name {
	case "specversion":
		c.version = value
		if value != specVersion {
			return c.wrong(problem.UnsupportedSpecVersion, name, "this version of CloudEvents cannot be read; send specversion 1.0")
		}
	case "id":
		c.id = value
		if value == "" {
			return c.wrong(problem.InvalidID, name, "the id of a CloudEvent is not empty")
		}
	case "source":
		c.source = value
		if _, err := url.Parse(value); err != nil || value == "" {
			return c.wrong(problem.InvalidAttribute, name, "a source is a URI or a part of one, like /orders or https://shop.example.com")
		}
	case "type":
		return c.label(&c.event.Type, name, value, problem.InvalidType, validType)
	case "subject":
		return c.label(&c.event.Key, name, value, problem.InvalidKey, policy.ValidLabel)
	case "tenant":
		return c.label(&c.event.Tenant, name, value, problem.InvalidTenant, policy.ValidLabel)
	case "time":
		var p *problem.Problem
		c.event.Time, p = parseTime([]byte(value))
		return p
	case "datacontenttype":
		c.contentType = value
	case "traceparent":
		c.traceParent = value
	case "tracestate":
		c.traceState = value
	default:
		return checkExtension(name)
	}
	return nil
}

func (c *cloudEvent) label(to *string, name, value string, as problem.Code, valid func(string) error) *problem.Problem {
	if valid(value) != nil {
		return c.wrong(as, name, allowed[as])
	}
	*to = value
	return nil
}

func (c *cloudEvent) wrong(as problem.Code, name, detail string) *problem.Problem {
	p := problem.New(as, detail)
	p.Field = name
	return p
}

// checkExtension checks the name of an attribute that Relay does not keep.
func checkExtension(name string) *problem.Problem {
	wrong := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if name == "" || strings.ContainsFunc(name, wrong) {
		return problem.New(problem.UnknownField, fmt.Sprintf("%.64q is no attribute of a CloudEvent: their names are small letters and digits", name))
	}
	return nil
}

// entry makes an event of the collected attributes.
func (c *cloudEvent) entry(data []byte) (e outbox.Entry, p *problem.Problem) {
	for _, need := range [][2]string{{"specversion", c.version}, {"id", c.id}, {"source", c.source}, {"type", c.event.Type}} {
		if need[1] == "" {
			return e, c.wrong(problem.MissingField, need[0], fmt.Sprintf("a CloudEvent needs the attribute %s; in binary mode it is the header ce-%[1]s", need[0]))
		}
	}
	if c.contentType != "" && !isJSON(c.contentType) {
		return e, unsupported("datacontenttype")
	}
	c.event.ID, c.event.Data = c.id, data
	// Two sources can use the same id. An event of one must not count as a repeat of the other's.
	e.Fingerprint = sha256.Sum256([]byte(c.source))
	if policy.ValidID(c.id) != nil {
		h := sha256.New()
		fmt.Fprintf(h, "%s\x00%s", c.source, c.id)
		c.event.ID = "evt_" + hex.EncodeToString(h.Sum(nil)[:16])
	}
	e.Event = c.event
	e.Event.Trace = trace.Kept(c.traceParent, c.traceState)
	return e, nil
}

// isJSON tells whether a media type is of JSON in UTF-8 (section 3.1 of the JSON format).
func isJSON(contentType string) bool {
	isJSON, charset := rawjson.MediaType(contentType)
	return isJSON && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// unsupported refuses data that is not JSON.
func unsupported(field string) *problem.Problem {
	p := problem.New(problem.UnsupportedData, "Relay keeps data as JSON; put other data into a JSON string, encoded as your receivers expect it, with a JSON datacontenttype")
	p.Field = field
	return p
}

// cloudEvent reads the object of a CloudEvent in structured mode.
func (d *decoder) cloudEvent() (e outbox.Entry, p *problem.Problem) {
	if d.kind() != '{' {
		v, p := d.value()
		if p == nil {
			p = d.wrong(problem.InvalidEvent, "", v, "a CloudEvent is an object; an array of them is application/cloudevents-batch+json")
		}
		return e, p
	}
	if p := d.bracket(); p != nil {
		return e, p
	}
	var c cloudEvent
	data := nothing
	for d.kind() != '}' {
		quoted, p := d.value()
		if p != nil {
			return e, p
		}
		name := string(unquote(quoted))
		v, p := d.value()
		if p != nil {
			return e, p
		}
		switch {
		case name == "data":
			data = bytes.Clone(v)
		case v.Kind() == 'n': // as if it were absent
		case name == "data_base64":
			p = unsupported(name)
		default:
			if p = d.whole(name, v); p == nil {
				p = c.member(name, v)
			}
		}
		if p != nil {
			if p.Offset == nil {
				p.Offset = new(d.offset() - len(v))
			}
			return e, p
		}
	}
	if p := d.bracket(); p != nil {
		return e, p
	}
	return c.entry(data)
}

// member takes an attribute of a structured CloudEvent.
func (c *cloudEvent) member(name string, v jsontext.Value) *problem.Problem {
	switch v.Kind() {
	case '"':
		return c.set(name, string(unquote(v)))
	case '{', '[':
		return c.wrong(problem.InvalidAttribute, name, "an attribute is a string, a number or true or false")
	}
	if slices.Contains([]string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "tenant"}, name) {
		return c.wrong(problem.InvalidAttribute, name, "the attribute "+name+" is a string")
	}
	return checkExtension(name)
}

// binary reads a CloudEvent with its attributes in headers and its data as the body.
func (d *decoder) binary(r *Request) ([]outbox.Entry, *problem.Problem) {
	var c cloudEvent
	var seen []string
	for _, a := range r.Attributes {
		value, err := headerValue(a.Value)
		var p *problem.Problem
		switch {
		case slices.Contains(seen, a.Name):
			p = c.wrong(problem.DuplicateKey, a.Name, fmt.Sprintf("the header %.64q is there twice", "ce-"+a.Name))
		case err != nil:
			p = c.wrong(problem.InvalidAttribute, a.Name, fmt.Sprintf("the value of the header %.64q %v", "ce-"+a.Name, err))
		default:
			p = c.set(a.Name, value)
		}
		if p != nil {
			return nil, p
		}
		seen = append(seen, a.Name)
	}
	c.contentType = r.ContentType
	data := nothing
	if len(r.Body) > 0 {
		v, p := d.checkJSON(r.Body)
		if p != nil {
			return nil, p
		}
		data = bytes.Clone(v)
	}
	e, p := c.entry(data)
	return []outbox.Entry{e}, p
}

// headerValue decodes a value of the HTTP binding (section 3.1.3.2): it removes one round of
// percent-encoding, and the quotes of older senders.
func headerValue(s string) (string, error) {
	if strings.HasPrefix(s, `"`) {
		var b strings.Builder
		rest := s[1:]
		for {
			end := strings.IndexAny(rest, `"\`)
			if end < 0 || rest[end] == '\\' && end+1 == len(rest) {
				return "", errors.New("has a quote that is not closed")
			}
			b.WriteString(rest[:end])
			if rest[end] == '"' {
				if rest[end+1:] != "" {
					return "", errors.New("goes on behind its closing quote")
				}
				break
			}
			b.WriteByte(rest[end+1])
			rest = rest[end+2:]
		}
		s = b.String()
	}
	s, err := url.PathUnescape(s)
	if err != nil {
		return "", errors.New("has a % that no two hexadecimal digits follow; write %25 for the character itself")
	}
	if !utf8.ValidString(s) {
		return "", errors.New("is not UTF-8")
	}
	return s, nil
}

// parseTime reads a time by RFC 3339, kept to the microsecond in UTC. It refuses year 1, the zero
// value of a time in many languages.
func parseTime(text []byte) (time.Time, *problem.Problem) {
	t, err := rfc3339.Parse(text)
	c, detail := problem.InvalidTime, allowed[problem.InvalidTime]
	if err == nil {
		t = t.UTC().Truncate(time.Microsecond)
		if 2 <= t.Year() && t.Year() <= 9999 {
			return t, nil
		}
		c, detail = problem.OutOfRange, "the year is 2 to 9999"
	}
	p := problem.New(c, detail)
	p.Field = "time"
	return time.Time{}, p
}
