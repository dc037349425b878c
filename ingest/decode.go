package ingest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
)

// maxBatch is how many events one request may have.
const maxBatch = 1000

// maxDeliveries bounds events times endpoints of one batch: all other requests wait while the
// outbox writes them. A single event may have more.
const maxDeliveries = 50_000

// media is how a body is written.
type media int

const (
	plainJSON   media = iota // one event, or an array of events
	jsonLines                // one event on each line
	cloudJSON                // one CloudEvent, attributes and data
	cloudBatch               // an array of those
	cloudBinary              // the data of a CloudEvent; its attributes are headers
)

// mediaOf reads the headers that say how the body is written. Content-Type is required and must
// be JSON: web pages cannot send such a body to another site without a preflight request, which
// Relay does not answer.
func mediaOf(r *Request, typed bool) (media, *problem.Problem) {
	if e := r.ContentEncoding; e != "" && !strings.EqualFold(e, "identity") {
		return 0, problem.New(problem.UnsupportedEncoding, "send the body as it is, without Content-Encoding")
	}
	if r.ContentType == "" && len(r.Attributes) > 0 && len(r.Body) == 0 && !typed {
		return cloudBinary, nil // a CloudEvent without data
	}
	accepted := "send application/json, for many events application/x-ndjson, or CloudEvents as application/cloudevents+json"
	if typed {
		accepted = "send application/json"
	}
	name, charset := r.ContentType, ""
	if name != "application/json" { // the usual value
		var params map[string]string
		var err error
		if name, params, err = mime.ParseMediaType(r.ContentType); err != nil {
			return 0, problem.New(problem.UnsupportedMediaType, accepted)
		}
		charset = params["charset"]
	}
	switch {
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return 0, problem.New(problem.UnsupportedMediaType, "JSON is UTF-8; send it with charset=utf-8 or none")
	case typed && (len(r.Attributes) > 0 || strings.HasPrefix(name, "application/cloudevents")):
		return 0, problem.New(problem.UnsupportedMediaType, "a CloudEvent says its type itself: send it to /v1/events")
	case name == "application/cloudevents+json":
		return cloudJSON, nil
	case name == "application/cloudevents-batch+json":
		return cloudBatch, nil
	case strings.HasPrefix(name, "application/cloudevents"):
		return 0, problem.New(problem.UnsupportedMediaType, accepted)
	case len(r.Attributes) > 0 && isJSON(name):
		return cloudBinary, nil
	case len(r.Attributes) > 0:
		return 0, unsupported("datacontenttype")
	case name == "application/json", strings.HasPrefix(name, "application/") && strings.HasSuffix(name, "+json"):
		return plainJSON, nil
	case !typed && (name == "application/x-ndjson" || name == "application/jsonl"):
		return jsonLines, nil
	}
	return 0, problem.New(problem.UnsupportedMediaType, accepted)
}

// typed reads a body that is the data of one event.
func (d *decoder) typed(eventType string, body []byte) ([]outbox.Entry, *problem.Problem) {
	if validType(eventType) != nil {
		return nil, wrongType()
	}
	if leadingSpace(body) == len(body) {
		return nil, problem.New(problem.EmptyBody, "the body is the data of the event")
	}
	data, p := d.checkJSON(body)
	if p != nil {
		return nil, p
	}
	return []outbox.Entry{{Event: outbox.Event{Type: eventType, Data: bytes.Clone(data)}}}, nil
}

// events reads a body of whole events. many is true for a batch.
func (d *decoder) events(body []byte, m media) (entries []outbox.Entry, many bool, p *problem.Problem) {
	space := leadingSpace(body)
	switch {
	case space == len(body):
		return nil, false, problem.New(problem.EmptyBody, "the body is an event or a batch of events")
	case m == jsonLines:
		entries, p = d.lines(body)
		return entries, true, p
	case m == cloudBatch:
		entries, p = d.array(body, d.cloudEvent)
		return entries, true, p
	case m == plainJSON && body[space] == '[':
		entries, p = d.array(body, d.event)
		return entries, true, p
	}
	read := d.event
	if m == cloudJSON {
		read = d.cloudEvent
	}
	if p := d.open(body, maxDepth+1); p != nil {
		return nil, false, p
	}
	e, p := read()
	if p == nil {
		p = d.end()
	}
	return []outbox.Entry{e}, false, p
}

// array reads a JSON array of events, each with read.
func (d *decoder) array(body []byte, read func() (outbox.Entry, *problem.Problem)) (entries []outbox.Entry, p *problem.Problem) {
	if p := d.open(body, maxDepth+2); p != nil {
		return nil, p
	}
	if d.kind() != '[' {
		v, p := d.value()
		if p == nil {
			p = d.wrong(problem.InvalidEvent, "", v, "a batch is an array; one CloudEvent is application/cloudevents+json")
		}
		return nil, p
	}
	if p := d.bracket(); p != nil {
		return nil, p
	}
	for d.kind() != ']' {
		i := len(entries)
		if i == maxBatch {
			return nil, tooManyEvents()
		}
		e, p := read()
		if p != nil {
			p.Index = new(i)
			return nil, p
		}
		entries = append(entries, e)
	}
	if p := d.bracket(); p != nil {
		return nil, p
	}
	if p := d.end(); p != nil {
		return nil, p
	}
	if len(entries) == 0 {
		return nil, problem.New(problem.EmptyBatch, "a batch holds 1 to 1,000 events")
	}
	return entries, nil
}

// lines reads one event from each line; blank lines are skipped.
func (d *decoder) lines(body []byte) (entries []outbox.Entry, p *problem.Problem) {
	entries = make([]outbox.Entry, 0, min(bytes.Count(body, []byte("\n"))+1, maxBatch))
	start, number := 0, 0
	for line := range bytes.Lines(body) {
		number++
		if leadingSpace(line) < len(line) {
			i := len(entries)
			if i == maxBatch {
				return nil, tooManyEvents()
			}
			e, p := d.line(line)
			if p != nil {
				p.Index, p.Line = new(i), number
				if p.Offset != nil {
					*p.Offset += start
				}
				return nil, p
			}
			entries = append(entries, e)
		}
		start += len(line)
	}
	return entries, nil
}

func (d *decoder) line(line []byte) (e outbox.Entry, p *problem.Problem) {
	if p := d.open(line, maxDepth+1); p != nil {
		return e, p
	}
	if e, p = d.event(); p != nil {
		return e, p
	}
	return e, d.end()
}

// event reads the object of one event. It copies the parts of the text that it keeps, because the
// text's memory is reused for the next request.
func (d *decoder) event() (e outbox.Entry, p *problem.Problem) {
	ev := &e.Event
	if d.kind() != '{' {
		v, p := d.value()
		if p == nil {
			p = d.wrong(problem.InvalidEvent, "", v, "an event is an object with the fields type and data")
		}
		return e, p
	}
	if p := d.bracket(); p != nil {
		return e, p
	}
	for p == nil && d.kind() != '}' {
		var name, data jsontext.Value
		if name, p = d.value(); p != nil {
			break
		}
		switch string(unquote(name)) {
		case "type":
			ev.Type, p = d.field("type", problem.InvalidType, validType)
		case "data":
			data, p = d.value()
			ev.Data = bytes.Clone(data)
		case "id":
			ev.ID, p = d.field("id", problem.InvalidID, policy.ValidID)
		case "time":
			ev.Time, p = d.time()
		case "tenant":
			ev.Tenant, p = d.field("tenant", problem.InvalidTenant, policy.ValidLabel)
		case "key":
			ev.Key, p = d.field("key", problem.InvalidKey, policy.ValidLabel)
		default:
			p = d.unknown(name)
		}
	}
	if p != nil {
		return e, p
	}
	if p := d.bracket(); p != nil {
		return e, p
	}
	switch {
	case ev.Type == "":
		return e, missing("type")
	case ev.Data == nil:
		return e, missing("data")
	}
	return e, nil
}

// field reads a string and checks it. null counts as not given.
func (d *decoder) field(name string, c problem.Code, valid func(string) error) (string, *problem.Problem) {
	v, p := d.value()
	if p != nil || v.Kind() == 'n' {
		return "", p
	}
	if v.Kind() != '"' {
		return "", d.notString(name, c, v)
	}
	if p := d.whole(name, v); p != nil {
		return "", p
	}
	s := string(unquote(v))
	if valid(s) != nil {
		return "", d.wrong(c, name, v, allowed[c])
	}
	return s, nil
}

// time reads the time of an event.
func (d *decoder) time() (time.Time, *problem.Problem) {
	v, p := d.value()
	if p != nil || v.Kind() == 'n' {
		return time.Time{}, p
	}
	if v.Kind() != '"' {
		return time.Time{}, d.notString("time", problem.InvalidTime, v)
	}
	t, p := parseTime(unquote(v))
	if p != nil {
		p.Offset = new(d.offset() - len(v))
	}
	return t, p
}

// notString refuses a value of another kind. A number that no float can hold has its own code.
func (d *decoder) notString(name string, c problem.Code, v jsontext.Value) *problem.Problem {
	if v.Kind() == '0' {
		if _, err := strconv.ParseFloat(string(v), 64); errors.Is(err, strconv.ErrRange) {
			c = problem.OutOfRange
		}
	}
	return d.wrong(c, name, v, name+" is a string")
}

// wrong refuses the value that was read last.
func (d *decoder) wrong(c problem.Code, field string, v jsontext.Value, detail string) *problem.Problem {
	at := d.offset() - len(v)
	p := problem.New(c, detail)
	p.Field, p.Offset = field, new(at)
	return p
}

// unknown refuses a field and suggests a similar name.
func (d *decoder) unknown(quoted jsontext.Value) *problem.Problem {
	name := string(unquote(quoted))
	detail := fmt.Sprintf("an event has no field %.64q; it has type, data, id, time, tenant and key", name)
	if len(name) <= 64 {
		for _, known := range []string{"type", "data", "id", "time", "tenant", "key"} {
			if levenshtein.Distance(strings.ToLower(name), known, nil)*2 <= len(known) {
				detail = fmt.Sprintf("an event has no field %q; did you mean %q?", name, known)
				break
			}
		}
	}
	return d.wrong(problem.UnknownField, "", quoted, detail)
}

// allowed says what a field may hold.
var allowed = map[problem.Code]string{
	problem.InvalidType:   "a type is 1 to 128 characters of A-Z a-z 0-9 _ . - with no dot at either end and no two dots together; relay and relay.* are Relay's own",
	problem.InvalidID:     "an id is 1 to 64 characters of A-Z a-z 0-9 _ -",
	problem.InvalidTime:   "a time is written by RFC 3339, like 2006-01-02T15:04:05Z",
	problem.InvalidTenant: "a tenant is 1 to 255 bytes without control characters",
	problem.InvalidKey:    "a key is 1 to 255 bytes without control characters",
}

// validType is policy's rule without the types of own events, with which an app could raise false
// alarms.
func validType(s string) error {
	if s == "relay" || strings.HasPrefix(s, "relay.") {
		return errors.New("relay.* is for Relay's own events")
	}
	return policy.ValidType(s)
}

func wrongType() *problem.Problem {
	p := problem.New(problem.InvalidType, allowed[problem.InvalidType])
	p.Field = "type"
	return p
}

func missing(field string) *problem.Problem {
	p := problem.New(problem.MissingField, "an event needs the field "+field)
	p.Field = field
	return p
}

func tooManyEvents() *problem.Problem {
	return problem.New(problem.BatchTooLarge, "a batch holds 1 to 1,000 events; split it")
}

// fingerprint covers all fields of an event from the app, and the previous value of the entry's
// fingerprint: for a CloudEvent, a hash of its source. The other parts end with a zero byte,
// which they cannot contain, and the data is last, so different events have different input.
func fingerprint(entry *outbox.Entry) outbox.Fingerprint {
	e := &entry.Event
	var at string
	if !e.Time.IsZero() {
		at = e.Time.Format(time.RFC3339Nano)
	}
	h := sha256.New()
	if entry.Fingerprint != (outbox.Fingerprint{}) {
		h.Write(entry.Fingerprint[:])
	}
	for _, part := range []string{e.ID, e.Type, at, e.Tenant, e.Key} {
		h.Write(append([]byte(part), 0))
	}
	h.Write(e.Data)
	var f outbox.Fingerprint
	h.Sum(f[:0])
	return f
}

// batchFingerprint covers all events of a request, in their order.
func batchFingerprint(entries []outbox.Entry) outbox.Fingerprint {
	h := sha256.New()
	for i := range entries {
		f := fingerprint(&entries[i])
		h.Write(f[:])
	}
	var f outbox.Fingerprint
	h.Sum(f[:0])
	return f
}
