package redisstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
	"relay/outbox/brief"
)

// format is the version of all that is kept. A Relay refuses another one. Format 1 kept claims in
// a set of leases, format 2 no history.
const (
	formatNumber = 3
	format       = "3"
)

// An event is kept as one value, of which only an erasure changes something:
//
//	version 3 | fingerprint 32 | number of endpoints 2 | nonce 8 | bytes of the terms 4, fields 2, origin 2 |
//	terms: endpoints, time, type, tenant, key | fields | origin: trace, via, relay | data
//
// Scripts read the parts of fixed width. The nonce tells an accept that is executed twice, because
// the answer to the first was lost, from another one. Terms and fields are what is searched
// for; the log of events has a copy of them.
const (
	eventVersion = 3
	eventHead    = 1 + 32 + 2 + 8 + 4 + 2 + 2
	maxFanOut    = 1<<16 - 1
)

func encodeEvent(e *outbox.Entry, nonce uint64) []byte {
	size := eventHead + 5*binary.MaxVarintLen64 + len(e.Event.Type) + len(e.Event.Tenant) + len(e.Event.Key) + len(e.Event.Trace) + len(e.Event.Data)
	for _, name := range e.Endpoints {
		size += len(name) + 2
	}
	b := make([]byte, 0, size)
	b = append(b, eventVersion)
	b = append(b, e.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Endpoints)))
	b = binary.BigEndian.AppendUint64(b, nonce)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = appendTerms(b, &e.Event, e.Endpoints)
	fields := len(b)
	b = appendFields(b, e.Event.Fields)
	origin := len(b)
	for _, s := range []string{e.Event.Trace, e.Event.Via, e.Event.Relay} {
		b = appendString(b, s)
	}
	binary.BigEndian.PutUint32(b[eventHead-8:], uint32(fields-eventHead))
	binary.BigEndian.PutUint16(b[eventHead-4:], uint16(origin-fields))
	binary.BigEndian.PutUint16(b[eventHead-2:], uint16(len(b)-origin))
	return append(b, e.Event.Data...)
}

// appendTerms writes what is searched for: scripts find the endpoints at its begin.
func appendTerms(b []byte, e *outbox.Event, endpoints []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(endpoints)))
	for _, name := range endpoints {
		b = appendString(b, name)
	}
	b = binary.AppendVarint(b, e.Time.UnixMicro())
	for _, s := range []string{e.Type, e.Tenant, e.Key} {
		b = appendString(b, s)
	}
	return b
}

func appendFields(b []byte, fields []outbox.Field) []byte {
	for _, f := range fields {
		b = appendString(appendString(b, f.Path), f.Value)
	}
	return b
}

// terms reads what appendTerms and appendFields wrote.
func (d *decoder) terms(e *outbox.Event) (endpoints []string) {
	n := d.uvarint()
	if n > maxFanOut {
		d.fail()
		return nil
	}
	endpoints = make([]string, n)
	for i := range endpoints {
		endpoints[i] = d.string()
	}
	e.Time = time.UnixMicro(d.varint()).UTC()
	e.Type, e.Tenant, e.Key = d.string(), d.string(), d.string()
	return endpoints
}

func (d *decoder) fields(e *outbox.Event) {
	for d.rest != "" && d.err == nil {
		e.Fields = append(e.Fields, outbox.Field{Path: d.string(), Value: d.string()})
	}
}

// decodeEvent reads an event; its data is a part of kept.
func decodeEvent(id string, kept string) (*outbox.Event, []string, error) {
	e, endpoints, err := decodeHead(id, kept)
	if err != nil {
		return nil, nil, err
	}
	e.Data = []byte(kept[headLength(kept):])
	return e, endpoints, nil
}

// headLength is where the data of an event begins.
func headLength(kept string) int {
	b := []byte(kept[eventHead-8 : eventHead])
	return eventHead + int(binary.BigEndian.Uint32(b)) + int(binary.BigEndian.Uint16(b[4:])) + int(binary.BigEndian.Uint16(b[6:]))
}

// decodeHead reads an event without its data.
func decodeHead(id string, kept string) (*outbox.Event, []string, error) {
	corrupt := fmt.Errorf("%w: event %s cannot be read", outbox.ErrCorrupt, id)
	if len(kept) < eventHead || kept[0] != eventVersion || len(kept) < headLength(kept) {
		return nil, nil, corrupt
	}
	fields := eventHead + int(binary.BigEndian.Uint32([]byte(kept[eventHead-8:])))
	origin := fields + int(binary.BigEndian.Uint16([]byte(kept[eventHead-4:])))
	e := &outbox.Event{ID: id}
	d := decoder{rest: kept[eventHead:fields]}
	endpoints := d.terms(e)
	f := decoder{rest: kept[fields:origin]}
	f.fields(e)
	o := decoder{rest: kept[origin:headLength(kept)]}
	e.Trace, e.Via, e.Relay = o.string(), o.string(), o.string()
	if errors.Join(d.err, f.err, o.err) != nil {
		return nil, nil, corrupt
	}
	return e, endpoints, nil
}

// record is what is kept of a delivery that was settled at least once, with its
// last attempt: "<state><attempts>,<due>,<finished>,<code>,<cut>,<attempt>". Times are in
// microseconds; cut is how many bytes of the attempt are left when its texts are erased. Scripts read all but the
// attempt. One that is failed from the start has no attempts, and its attempt says why.
type record struct {
	state    outbox.State
	attempts int
	due      int64
	finished int64  // 0 while pending
	code     string // of a delivery that an operator ended
	last     outbox.Attempt
}

// reason is the code of the delivery.
func (r *record) reason() string {
	if r.code != "" {
		return r.code
	}
	return r.last.Code
}

// appendTerm writes a term for the accept script, which makes the record of a delivery that is
// failed from the start:
//
//	t<level>,<lower>,<milliseconds>,<bytes of the key>,<key>,<cut>,<attempt>
//
// There is no level when there is no mark, and no attempt unless it fails. Scripts know no
// integers beyond 2⁵³, so levels are kept and compared as text of one length.
func appendTerm(b []byte, t *outbox.Term) []byte {
	b = append(b, 't')
	if m := t.Mark; m == nil {
		b = append(b, ",0,0,0,"...)
	} else {
		lower := 0
		if m.Lower {
			lower = 1
		}
		ms := max(1, (m.For + time.Millisecond - 1).Milliseconds())
		b = fmt.Appendf(b, "%019d,%d,%d,%d,%s", m.Level, lower, ms, len(m.Key), m.Key)
	}
	if t.Code == "" {
		return b
	}
	return appendAttempt(append(b, ','), &outbox.Attempt{Code: t.Code, Error: t.Error})
}

// gone stands for the record of a delivery that retention removed or a mark left out.
const gone = "-"

// letters of the states in records and counts.
var letters = map[outbox.State]byte{outbox.Pending: 'p', outbox.Delivered: 'd', outbox.Failed: 'f', outbox.Discarded: 'x'}

func (r *record) encode() []byte {
	a := &r.last
	b := make([]byte, 0, 128+len(a.Code)+len(a.Error)+len(a.Request)+len(a.Head)+len(a.Body))
	b = append(b, letters[r.state])
	b = strconv.AppendInt(b, int64(r.attempts), 10)
	b = strconv.AppendInt(append(b, ','), r.due, 10)
	b = strconv.AppendInt(append(b, ','), r.finished, 10)
	b = append(append(append(b, ','), r.code...), ',')
	return appendAttempt(b, a)
}

// appendAttempt writes "<cut>,<attempt>".
func appendAttempt(b []byte, a *outbox.Attempt) []byte {
	var buf [160]byte
	c := appendShort(buf[:0], a)
	b = append(strconv.AppendInt(b, int64(len(c)), 10), ',')
	b = append(b, c...)
	if a.Request == "" && a.Head == "" && len(a.Body) == 0 {
		return b
	}
	return append(appendString(appendString(b, a.Request), a.Head), a.Body...)
}

// packHeads makes the heads of a claim's attempt brief.
func packHeads(a *outbox.Attempt, c *outbox.Claim) {
	var room [512]byte
	f := brief.Facts{Event: c.EventID, Delivery: c.ID, Attempt: a.N, Started: a.Started}
	b := f.Pack(room[:0], a.Request)
	n := len(b)
	both := string(f.Pack(b, a.Head))
	a.Request, a.Head = both[:n], both[n:]
}

// appendShort writes what an erasure leaves of an attempt.
func appendShort(b []byte, a *outbox.Attempt) []byte {
	b = binary.AppendVarint(b, int64(a.N))
	b = binary.AppendVarint(b, a.Started.UnixMicro())
	for _, d := range []time.Duration{a.Took, a.Timing.DNS, a.Timing.Connect, a.Timing.TLS, a.Timing.FirstByte} {
		b = binary.AppendVarint(b, int64(d))
	}
	b = binary.AppendVarint(b, int64(a.Status))
	for _, s := range []string{a.Outcome, a.Code, a.Error, a.Peer, a.Relay} {
		b = appendString(b, s)
	}
	b = binary.AppendVarint(b, a.Generation)
	next := int64(0)
	if !a.Next.IsZero() {
		next = a.Next.UnixMicro()
	}
	b = binary.AppendVarint(b, next)
	reused := int64(0)
	if a.Reused {
		reused = 1
	}
	return binary.AppendVarint(b, reused)
}

var errRecord = errors.New("record of a delivery cannot be read")

func decodeRecord(s string) (r record, err error) {
	part := strings.SplitN(s, ",", 6)
	if len(part) != 6 || part[0] == "" {
		return record{}, errRecord
	}
	for state, letter := range letters {
		if part[0][0] == letter {
			r.state = state
		}
	}
	var errs [4]error
	var cut int
	r.attempts, errs[0] = strconv.Atoi(part[0][1:])
	r.due, errs[1] = strconv.ParseInt(part[1], 10, 64)
	r.finished, errs[2] = strconv.ParseInt(part[2], 10, 64)
	r.code = part[3]
	cut, errs[3] = strconv.Atoi(part[4])
	if r.state == "" || errors.Join(errs[:]...) != nil || cut < 0 || cut > len(part[5]) {
		return record{}, errRecord
	}
	if cut == 0 { // it was ended before its first attempt
		return r, nil
	}
	r.last, err = decodeAttempt(part[5][:cut], part[5][cut:])
	return r, err
}

func decodeAttempt(short, texts string) (a outbox.Attempt, err error) {
	d := decoder{rest: short}
	a.N = int(d.varint())
	a.Started = time.UnixMicro(d.varint()).UTC()
	for _, to := range []*time.Duration{&a.Took, &a.Timing.DNS, &a.Timing.Connect, &a.Timing.TLS, &a.Timing.FirstByte} {
		*to = time.Duration(d.varint())
	}
	a.Status = int(d.varint())
	for _, to := range []*string{&a.Outcome, &a.Code, &a.Error, &a.Peer, &a.Relay} {
		*to = d.string()
	}
	a.Generation = d.varint()
	if next := d.varint(); next != 0 {
		a.Next = time.UnixMicro(next).UTC()
	}
	a.Reused = d.varint() != 0
	if d.err != nil {
		return outbox.Attempt{}, errRecord
	}
	if texts == "" {
		return a, nil
	}
	d = decoder{rest: texts}
	a.Request, a.Head = d.string(), d.string()
	if d.rest != "" {
		a.Body = []byte(d.rest)
	}
	if d.err != nil {
		return outbox.Attempt{}, errRecord
	}
	return a, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads what append wrote. After the first error it yields zero values.
type decoder struct {
	rest string
	err  error
}

func (d *decoder) varint() int64 {
	n, size := binary.Varint([]byte(d.rest[:min(len(d.rest), binary.MaxVarintLen64)]))
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint([]byte(d.rest[:min(len(d.rest), binary.MaxVarintLen64)]))
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) string() string {
	n, size := binary.Uvarint([]byte(d.rest[:min(len(d.rest), binary.MaxVarintLen64)]))
	if size <= 0 || n > uint64(len(d.rest)-size) {
		d.fail()
		return ""
	}
	s := d.rest[size : size+int(n)]
	d.rest = d.rest[size+int(n):]
	return s
}

func (d *decoder) fail() { d.rest, d.err = "", errRecord }
