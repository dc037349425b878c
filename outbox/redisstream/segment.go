package redisstream

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"relay/outbox"
)

// The history of a shard is the log of events, in the order of their accept, and segments, each with some thousand
// events that were in the log before. A segment is a hash that does not change any more:
//
//	v        1, the version
//	o        orders of its events, as distances
//	i<k>     ids of the k-th 256 events
//	p<term>  places of events, and numbers of deliveries, that have a term that many events of the segment have
//	b<byte>  the same of rare terms, by a byte of their hash
//	T        event types
//
// A term is the hash of an endpoint, type, tenant, key or field: what a segment says is looked up in the event itself, so
// two terms with one hash do no harm, and values stand nowhere in clear.
const (
	segmentEvents = 4096    // from so many events in the log on a segment is made
	segmentMost   = 1 << 15 // places have two bytes
	segmentPage   = 256     // ids of a field
	commonTerm    = 16      // places from which on a term has a field of its own
	noNumber      = 1<<16 - 1
)

// logged is an event, or a delivery that an operator made, as the log has it.
type logged struct {
	order     int64
	only      int // number of that delivery, -1 for an event
	id        string
	event     outbox.Event // without data and origin
	endpoints []string
}

// parseLogged reads a field and value of the log.
func parseLogged(field, terms string) (l logged, err error) {
	tail, made := strings.CutPrefix(field, "m")
	r, err := parseTail(tail)
	l.order, l.id, l.only = r.order, r.event, -1
	if made {
		l.only = r.n
	}
	d := decoder{rest: terms}
	l.endpoints = d.terms(&l.event)
	d.fields(&l.event)
	if err != nil || d.err != nil {
		return logged{}, fmt.Errorf("%w: an entry of the log cannot be read", outbox.ErrCorrupt)
	}
	l.event.ID = l.id
	return l, nil
}

// term is the hash of something that is searched for. The kinds are e endpoint, t type, n tenant, k key, f field,
// m made by an operator.
func term(kind byte, value string) uint64 {
	h := mix(fnvOffset, kind)
	for i := range len(value) {
		h = mix(h, value[i])
	}
	return h
}

// FNV-1a of 64 bits, http://www.isthe.com/chongo/tech/comp/fnv/: hash/fnv takes slices of bytes only.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func mix(h uint64, b byte) uint64 { return (h ^ uint64(b)) * fnvPrime }

func fieldTerm(f outbox.Field) uint64 { return term('f', f.Path+"\x00"+f.Value) }

// place is where an event is in a segment, and the number of one of its deliveries, or noNumber.
type place struct{ at, n int }

// segmentFields are the fields and values of a segment's hash.
func segmentFields(list []logged) (values []any) {
	places := map[uint64][]place{}
	types := map[string]bool{}
	var orders []byte
	var ids [][]byte
	last := list[0].order
	for at, l := range list {
		orders = binary.AppendUvarint(orders, uint64(l.order-last))
		last = l.order
		if at%segmentPage == 0 {
			ids = append(ids, nil)
		}
		page := &ids[at/segmentPage]
		*page = appendID(binary.AppendUvarint(*page, uint64(l.only+1)), l.id)
		types[l.event.Type] = true
		note := func(t uint64, n int) { places[t] = append(places[t], place{at, n}) }
		for n, name := range l.endpoints {
			if l.only >= 0 {
				n = l.only
			}
			note(term('e', name), n)
		}
		note(term('t', l.event.Type), noNumber)
		if l.event.Tenant != "" {
			note(term('n', l.event.Tenant), noNumber)
		}
		if l.event.Key != "" {
			note(term('k', l.event.Key), noNumber)
		}
		for _, f := range l.event.Fields {
			note(fieldTerm(f), noNumber)
		}
		if l.only >= 0 {
			note(term('m', ""), noNumber)
		}
	}
	add := func(field string, value []byte) {
		values = append(values, field, value)
	}
	add("v", []byte("1"))
	add("o", orders)
	for k, page := range ids {
		add("i"+strconv.Itoa(k), page)
	}
	var buckets [256][]byte
	for t, list := range places {
		if len(list) < commonTerm {
			b := &buckets[byte(t)]
			for _, p := range list {
				*b = binary.BigEndian.AppendUint32(*b, uint32(t>>32))
				*b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(*b, uint16(p.at)), uint16(p.n))
			}
			continue
		}
		add(commonField(t), appendPlaces(nil, list))
	}
	for k, b := range buckets {
		if len(b) > 0 {
			add("b"+string([]byte{byte(k)}), b)
		}
	}
	names := make([]string, 0, len(types))
	for name := range types {
		names = append(names, name)
	}
	slices.Sort(names)
	add("T", []byte(strings.Join(names, "\n")))
	return values
}

func commonField(t uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte{'p'}, t))
}

func bucketField(t uint64) string { return "b" + string([]byte{byte(t)}) }

func appendPlaces(b []byte, list []place) []byte {
	last := 0
	for _, p := range list {
		n := p.n + 1
		if p.n == noNumber {
			n = 0
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(p.at-last)), uint64(n))
		last = p.at
	}
	return b
}

// readPlaces returns the places of a term, in order, from the field of its own and its bucket.
func readPlaces(t uint64, common, bucket string) (list []place, err error) {
	at := 0
	for d := (decoder{rest: common}); d.rest != "" && d.err == nil; {
		at += int(d.uvarint())
		n := int(d.uvarint()) - 1
		if n < 0 {
			n = noNumber
		}
		list = append(list, place{at, n})
	}
	for b := []byte(bucket); len(b) >= 8; b = b[8:] {
		if binary.BigEndian.Uint32(b) == uint32(t>>32) {
			list = append(list, place{int(binary.BigEndian.Uint16(b[4:])), int(binary.BigEndian.Uint16(b[6:]))})
		}
	}
	for _, p := range list {
		if p.at >= segmentMost {
			return nil, errSegment
		}
	}
	return list, nil
}

var errSegment = fmt.Errorf("%w: a segment of the history cannot be read", outbox.ErrCorrupt)

// appendID writes an event id: one that Relay made, "evt_" and a UUID, in 17 bytes.
func appendID(b []byte, id string) []byte {
	if uuid, ok := strings.CutPrefix(id, "evt_"); ok && len(uuid) == 36 && uuid[8] == '-' && uuid[13] == '-' && uuid[18] == '-' && uuid[23] == '-' {
		c := append(b, 1)
		for i := 0; i < len(uuid); i += 2 {
			if uuid[i] == '-' {
				i++
			}
			high, low := digit(uuid[i]), digit(uuid[i+1])
			if high > 15 || low > 15 {
				return appendString(append(b, 0), id)
			}
			c = append(c, high<<4|low)
		}
		return c
	}
	return appendString(append(b, 0), id)
}

// digit is the value of a hexadecimal digit in lower case, above 15 for anything else.
func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func uuidText(raw []byte) string {
	h := hex.EncodeToString(raw)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// kept is an event of a segment: which it is.
type kept struct {
	only int // number of the delivery that an operator made, -1 for an event
	id   string
}

// readIDs reads a field of ids.
func readIDs(page string) (list []kept, err error) {
	d := decoder{rest: page}
	for d.rest != "" && d.err == nil {
		k := kept{only: int(d.uvarint()) - 1}
		switch {
		case d.rest == "":
			d.fail()
		case d.rest[0] == 1 && len(d.rest) > 16:
			k.id = "evt_" + uuidText([]byte(d.rest[1:17]))
			d.rest = d.rest[17:]
		default:
			d.rest = d.rest[1:]
			k.id = d.string()
		}
		list = append(list, k)
	}
	if d.err != nil {
		return nil, errSegment
	}
	return list, nil
}

// readOrders reads the orders of a segment's events.
func readOrders(text string, first int64) (list []int64, err error) {
	list = make([]int64, 0, len(text)/2)
	last, n, shift := first, uint64(0), 0
	for i := range len(text) {
		n |= uint64(text[i]&0x7f) << shift
		if shift += 7; shift > 63 {
			return nil, errSegment
		}
		if text[i] < 0x80 {
			last += int64(n)
			list = append(list, last)
			n, shift = 0, 0
		}
	}
	return list, nil
}

// segment names a segment: "<name>:<first order>:<last order>:<events>".
type segment struct {
	name        string
	first, last int64
	events      int
}

func (g segment) member() string {
	return fmt.Sprintf("%s:%d:%d:%d", g.name, g.first, g.last, g.events)
}

// base is what a segment and those that replace it have in common.
func (g segment) base() string {
	name, _, _ := strings.Cut(g.name, ".")
	return name
}

func parseSegment(member string) (g segment, err error) {
	part := strings.Split(member, ":")
	if len(part) != 4 {
		return segment{}, errSegment
	}
	g.name = part[0]
	var err1, err2, err3 error
	g.first, err1 = strconv.ParseInt(part[1], 10, 64)
	g.last, err2 = strconv.ParseInt(part[2], 10, 64)
	g.events, err3 = strconv.Atoi(part[3])
	if err1 != nil || err2 != nil || err3 != nil || g.events < 0 {
		return segment{}, errSegment
	}
	return g, nil
}
