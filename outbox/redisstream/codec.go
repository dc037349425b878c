package redisstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
)

// format is the version of all that is kept. A Relay refuses another one. Format 1 kept claims in
// a set of leases.
const (
	formatNumber = 2
	format       = "2"
)

// An event is kept as one value that never changes:
//
//	version 2 | fingerprint 32 | number of endpoints 2 | nonce 8 | time | type | tenant | key | trace | endpoints | data
//
// The accept script reads the parts of fixed width. The nonce tells an accept that
// is executed twice, because the answer to the first was lost, from another one.
const (
	eventVersion = 2
	eventHead    = 1 + 32 + 2 + 8
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
	b = binary.AppendVarint(b, e.Event.Time.UnixMicro())
	b = appendString(b, e.Event.Type)
	b = appendString(b, e.Event.Tenant)
	b = appendString(b, e.Event.Key)
	b = appendString(b, e.Event.Trace)
	for _, name := range e.Endpoints {
		b = appendString(b, name)
	}
	return append(b, e.Event.Data...)
}

// decodeEvent reads an event; its data is a part of kept.
func decodeEvent(id string, kept string) (*outbox.Event, []string, error) {
	if len(kept) < eventHead || kept[0] != eventVersion {
		return nil, nil, fmt.Errorf("%w: event %s cannot be read", outbox.ErrCorrupt, id)
	}
	d := decoder{rest: kept[eventHead:]}
	e := &outbox.Event{ID: id, Time: time.UnixMicro(d.varint()).UTC(), Type: d.string(), Tenant: d.string(), Key: d.string(), Trace: d.string()}
	endpoints := make([]string, binary.BigEndian.Uint16([]byte(kept[33:35])))
	for i := range endpoints {
		endpoints[i] = d.string()
	}
	if d.err != nil {
		return nil, nil, fmt.Errorf("%w: event %s cannot be read", outbox.ErrCorrupt, id)
	}
	e.Data = []byte(d.rest)
	return e, endpoints, nil
}

// record is what is kept of a delivery that was settled at least once, with its
// last attempt: "<state><attempts>,<due>,<finished>,<attempt>". Times are in
// microseconds; scripts read the first two. One that is failed from the start has no attempts,
// and its attempt says why.
type record struct {
	state    outbox.State
	attempts int
	due      int64
	finished int64 // 0 while pending
	last     outbox.Attempt
}

// appendTerm writes a term for the accept script, which makes the record of a delivery that is
// failed from the start:
//
//	t<level>,<lower>,<milliseconds>,<bytes of the key>,<key><attempt>
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
	return appendAttempt(b, &outbox.Attempt{Code: t.Code, Error: t.Error})
}

// gone stands for the record of a delivery that retention removed or a mark left out.
const gone = "-"

// letters of the states in records and counts.
var letters = map[outbox.State]byte{outbox.Pending: 'p', outbox.Delivered: 'd', outbox.Failed: 'f', outbox.Discarded: 'x'}

func (r *record) encode() []byte {
	a := &r.last
	b := make([]byte, 0, 96+len(a.Code)+len(a.Error)+len(a.Head)+len(a.Body))
	b = append(b, letters[r.state])
	b = strconv.AppendInt(b, int64(r.attempts), 10)
	b = strconv.AppendInt(append(b, ','), r.due, 10)
	b = strconv.AppendInt(append(b, ','), r.finished, 10)
	return appendAttempt(append(b, ','), a)
}

func appendAttempt(b []byte, a *outbox.Attempt) []byte {
	b = binary.AppendVarint(b, int64(a.N))
	b = binary.AppendVarint(b, a.Started.UnixMicro())
	for _, d := range []time.Duration{a.Took, a.Timing.DNS, a.Timing.Connect, a.Timing.TLS, a.Timing.FirstByte} {
		b = binary.AppendVarint(b, int64(d))
	}
	b = binary.AppendVarint(b, int64(a.Status))
	for _, s := range []string{a.Outcome, a.Code, a.Error, a.Head} {
		b = appendString(b, s)
	}
	return append(b, a.Body...)
}

var errRecord = errors.New("record of a delivery cannot be read")

func decodeRecord(s string) (r record, err error) {
	part := strings.SplitN(s, ",", 4)
	if len(part) != 4 || part[0] == "" {
		return record{}, errRecord
	}
	for state, letter := range letters {
		if part[0][0] == letter {
			r.state = state
		}
	}
	var errs [3]error
	r.attempts, errs[0] = strconv.Atoi(part[0][1:])
	r.due, errs[1] = strconv.ParseInt(part[1], 10, 64)
	r.finished, errs[2] = strconv.ParseInt(part[2], 10, 64)
	d := decoder{rest: part[3]}
	a := &r.last
	a.N = int(d.varint())
	a.Started = time.UnixMicro(d.varint()).UTC()
	for _, to := range []*time.Duration{&a.Took, &a.Timing.DNS, &a.Timing.Connect, &a.Timing.TLS, &a.Timing.FirstByte} {
		*to = time.Duration(d.varint())
	}
	a.Status = int(d.varint())
	for _, to := range []*string{&a.Outcome, &a.Code, &a.Error, &a.Head} {
		*to = d.string()
	}
	if d.rest != "" {
		a.Body = []byte(d.rest)
	}
	if r.state == "" || errors.Join(append(errs[:], d.err)...) != nil {
		return record{}, errRecord
	}
	return r, nil
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
