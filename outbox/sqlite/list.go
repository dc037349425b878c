package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// Lists say which deliveries have an endpoint, a type, a tenant, a key or a field in common. The deliveries of a segment are
// listed in memory as they are accepted; once the segment is complete, its lists are written in one commit. ../DESIGN.md tells more.

const (
	segmentBits = 12 // of a delivery's number; those above are its segment's
	segmentSize = 1 << segmentBits

	bucketBits = 6  // of a term, from the top: terms that few deliveries have share the row of their bucket
	rareTerm   = 32 // so few

	listEventsSlice = 256 // events that are listed in one go after an opening
	tailMost        = 16  // segments in memory; beyond, they are read again later

	typesMost = 50_000 // names of types that are known; with more, TypeLike is asked for each delivery
)

// kinds of terms.
const (
	termEndpoint = 'e'
	termType     = 't'
	termTenant   = 'n'
	termKey      = 'k'
	termField    = 'f'
	termManual   = 'm'
)

// termOf is a term of a kind: a hash of 52 bits. Deliveries that are listed by chance are told apart when they are read.
func termOf(kind byte, texts ...string) uint64 {
	const prime = 1099511628211 // FNV-1a
	h := (uint64(14695981039346656037) ^ uint64(kind)) * prime
	for _, text := range texts {
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * prime
		}
		h = (h ^ 0xff) * prime // not in UTF-8
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h >> segmentBits
}

func endpointTerm(ep *endpoint) uint64 { return termOf(termEndpoint, ep.name) }

// appendTerms appends what the deliveries of an event have in common.
func appendTerms(terms []uint64, e *outbox.Event, manual bool) []uint64 {
	terms = append(terms, termOf(termType, e.Type))
	if e.Tenant != "" {
		terms = append(terms, termOf(termTenant, e.Tenant))
	}
	if e.Key != "" {
		terms = append(terms, termOf(termKey, e.Key))
	}
	for _, f := range e.Fields {
		terms = append(terms, fieldTerm(f))
	}
	if manual {
		terms = append(terms, termOf(termManual))
	}
	return terms
}

func fieldTerm(f outbox.Field) uint64 { return termOf(termField, f.Path, f.Value) }

// lists are the segments that are not on disk, and what is known of all.
type lists struct {
	ready bool  // tail has all from meta.listed on
	next  int64 // else: the next event to list
	tail  []*segment
	types map[string]struct{} // of all events in lists
	terms []uint64            // buffer
	swept int64               // the next segment to look at, whether its deliveries are gone
}

// segment is the lists of a segment, as pairs of term and place.
type segment struct {
	number int64
	event  int64 // no event below has deliveries in this segment or later
	pairs  []uint64
	types  map[string]struct{}
}

// openLists reads what is known of lists.
func (s *Store) openLists() error {
	s.lists = lists{next: s.meta.listedEvent, types: map[string]struct{}{}}
	q, err := s.db.query(`SELECT name FROM type`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		s.lists.types[q.stmt.ColumnText(0)] = struct{}{}
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select types: %w", err)
	}
	return nil
}

// addToList lists deliveries that are committed.
func (s *Store) addToList(m madeEvent) {
	if l := &s.lists; l.ready {
		s.extendTail(m)
		if len(l.tail) > tailMost {
			s.dropTail()
		}
	}
}

// dropTail has the tail read again.
func (s *Store) dropTail() {
	s.lists.ready, s.lists.tail, s.lists.next = false, nil, s.meta.listedEvent
}

func (s *Store) extendTail(m madeEvent) {
	l := &s.lists
	l.terms = appendTerms(l.terms[:0], m.event, m.manual)
	for i, ep := range m.targets {
		seq := m.first + int64(i)
		g := s.segmentOf(seq, m)
		if g == nil {
			continue
		}
		place := uint64(seq & (segmentSize - 1))
		if ep.term == 0 {
			ep.term = endpointTerm(ep)
		}
		g.pairs = append(g.pairs, ep.term<<segmentBits|place)
		for _, term := range l.terms {
			g.pairs = append(g.pairs, term<<segmentBits|place)
		}
		if _, known := g.types[m.event.Type]; !known {
			g.types[m.event.Type] = struct{}{}
		}
	}
}

// segmentOf returns the segment of a delivery, nil when it is on disk. It makes all that are missing before.
func (s *Store) segmentOf(seq int64, m madeEvent) *segment {
	l := &s.lists
	number := seq >> segmentBits
	for {
		next := s.meta.listed + int64(len(l.tail))
		if number < next {
			break
		}
		event := m.number
		if m.manual {
			event = s.meta.nextEvent
			if !l.ready {
				event = l.next
			}
		}
		l.tail = append(l.tail, &segment{number: next, event: event, types: map[string]struct{}{}})
	}
	if number < s.meta.listed {
		return nil
	}
	return l.tail[number-s.meta.listed]
}

// listDue tells whether list has something to do.
func (s *Store) listDue() bool {
	return !s.lists.ready || s.complete()
}

// complete tells whether the first segment of the tail gets no more deliveries.
func (s *Store) complete() bool {
	return len(s.lists.tail) > 0 && s.lists.tail[0].number < s.meta.nextDelivery>>segmentBits
}

// list writes a segment that is complete, or lists a slice of what was accepted before the outbox was opened.
func (s *Store) list() error {
	switch {
	case s.lists.ready:
		return s.writeSegment()
	case len(s.lists.tail) > 2: // all events of the first were read
		if err := s.listRedeliveries(s.lists.tail[0]); err != nil {
			return err
		}
		return s.writeSegment()
	}
	return s.listSlice()
}

// listSlice lists some events.
func (s *Store) listSlice() error {
	l := &s.lists
	q := s.db.listEvents.int(l.next)
	n := 0
	for ; n < listEventsSlice && q.step(); n++ {
		m := madeEvent{number: q.stmt.ColumnInt64(0), first: q.stmt.ColumnInt64(1), event: &outbox.Event{}}
		var err error
		if m.targets, err = s.endpointsOf(q.stmt.ColumnRawBlob(2)); err == nil {
			err = s.readTerms(q, 3, m.event)
		}
		if err != nil {
			return errors.Join(err, q.done())
		}
		s.extendTail(m)
		l.next = m.number + 1
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select events to list: %w", err)
	}
	if n == listEventsSlice || len(l.tail) > 2 {
		return nil
	}
	if last := s.meta.nextDelivery - 1; last > 0 {
		s.segmentOf(last, madeEvent{number: s.meta.nextEvent})
	}
	for _, g := range l.tail {
		if err := s.listRedeliveries(g); err != nil {
			return err
		}
	}
	l.ready = true
	return nil
}

// readTerms reads what the terms of an event are made of.
func (s *Store) readTerms(q *query, column int, e *outbox.Event) error {
	e.Type, e.Tenant, e.Key = q.stmt.ColumnText(column), q.stmt.ColumnText(column+1), q.stmt.ColumnText(column+2)
	return s.readEventMore(q.stmt.ColumnRawBlob(column+3), e)
}

// listRedeliveries lists the redeliveries of a segment.
func (s *Store) listRedeliveries(g *segment) error {
	first := g.number << segmentBits
	q := s.db.listManual.int(first).int(first + segmentSize - 1)
	for q.step() {
		m := madeEvent{first: q.stmt.ColumnInt64(0), number: q.stmt.ColumnInt64(1), event: &outbox.Event{}, manual: true}
		ep, known := s.endpointAt(q.stmt.ColumnInt64(2))
		if !known {
			return errors.Join(fmt.Errorf("endpoint of a delivery: %w", sqlite3.CORRUPT), q.done())
		}
		m.targets = []*endpoint{ep}
		if err := s.readTerms(q, 3, m.event); err != nil {
			return errors.Join(err, q.done())
		}
		s.extendTail(m)
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select redeliveries: %w", err)
	}
	return nil
}

// writeSegment writes the lists of the first segment of the tail, in a commit of its own.
func (s *Store) writeSegment() error {
	l := &s.lists
	g := l.tail[0]
	slices.Sort(g.pairs)
	g.pairs = slices.Compact(g.pairs)
	event := s.meta.nextEvent
	if len(l.tail) > 1 {
		event = l.tail[1].event
	}
	err := s.db.transact("NORMAL", func() error {
		for pairs := g.pairs; len(pairs) > 0; {
			n, err := s.writeBucket(g.number, pairs)
			if err != nil {
				return err
			}
			pairs = pairs[n:]
		}
		for name := range g.types {
			if _, known := l.types[name]; !known && len(l.types) < typesMost {
				if err := s.db.addType.string(name).exec(); err != nil {
					return fmt.Errorf("insert type: %w", err)
				}
			}
		}
		if err := s.db.setListed.int(g.number + 1).int(event).exec(); err != nil {
			return fmt.Errorf("update meta: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name := range g.types {
		if len(l.types) < typesMost {
			l.types[name] = struct{}{}
		}
	}
	s.meta.listed, s.meta.listedEvent = g.number+1, event
	l.tail = slices.Delete(l.tail, 0, 1)
	return nil
}

// bucketOf is the row of a term that few deliveries have.
func bucketOf(term uint64) int64 { return -1 - int64(term>>(64-segmentBits-bucketBits)) }

// writeBucket writes the lists of the terms of one bucket, and returns how many pairs there are.
func (s *Store) writeBucket(number int64, pairs []uint64) (n int, err error) {
	bucket := bucketOf(pairs[0] >> segmentBits)
	var rare []byte
	for n < len(pairs) && bucketOf(pairs[n]>>segmentBits) == bucket {
		term := pairs[n] >> segmentBits
		from := n
		for n < len(pairs) && pairs[n]>>segmentBits == term {
			n++
		}
		if n-from < rareTerm {
			rare = appendRare(rare, term, pairs[from:n])
			continue
		}
		if err := s.writePosting(number, int64(term), appendList(nil, pairs[from:n])); err != nil {
			return 0, err
		}
	}
	if len(rare) > 0 {
		return n, s.writePosting(number, bucket, rare)
	}
	return n, nil
}

func (s *Store) writePosting(number, term int64, list []byte) error {
	if err := s.db.setPosting.int(number).int(term).blob(list).exec(); err != nil {
		return fmt.Errorf("insert list: %w", err)
	}
	return nil
}

// listed adds the deliveries of a segment that have a term to a bitmap. known is false when the segment has no lists yet. It is
// sure that they have it when all of the hash was compared: by chance a pair of terms in 2^52 have the same.
func (s *Store) listed(number int64, term uint64, set *bitmap) (known, sure bool, err error) {
	if number >= s.meta.listed {
		at := number - s.meta.listed
		if !s.lists.ready || at >= int64(len(s.lists.tail)) {
			return false, false, nil
		}
		for _, pair := range s.lists.tail[at].pairs {
			if pair>>segmentBits == term {
				set.set(pair & (segmentSize - 1))
			}
		}
		return true, true, nil
	}
	read := func(row int64, add func([]byte) error) {
		q := s.db.postings.int(number).int(row)
		if q.step() {
			err = errors.Join(err, add(q.stmt.ColumnRawBlob(0)))
		}
		err = errors.Join(err, q.done())
	}
	read(int64(term), func(b []byte) error { return readList(b, set) })
	var rare bitmap
	read(bucketOf(term), func(b []byte) error { return readRare(b, term, &rare) })
	if err != nil {
		return false, false, fmt.Errorf("select list: %w", err)
	}
	set.or(&rare)
	return true, rare.last() < 0, nil
}

// lostFields are the fields that a delivery had before its event was erased.
type lostFields struct {
	seq    int64
	fields []outbox.Field
}

// unlist removes a delivery from the lists of fields on disk, in the transaction under way.
func (s *Store) unlist(g lostFields) error {
	number, place := g.seq>>segmentBits, uint64(g.seq&(segmentSize-1))
	if number >= s.meta.listed {
		return nil
	}
	for _, f := range g.fields {
		term := fieldTerm(f)
		for _, row := range []int64{int64(term), bucketOf(term)} {
			q := s.db.postings.int(number).int(row)
			var list []byte
			if q.step() {
				list = q.stmt.ColumnBlob(0, nil)
			}
			if err := q.done(); err != nil {
				return fmt.Errorf("select list: %w", err)
			}
			if list == nil {
				continue
			}
			without, err := withoutPlace(list, term, row, place)
			if err != nil {
				return fmt.Errorf("read list: %w", err)
			}
			if len(without) == 0 {
				err = s.db.dropPosting.int(number).int(row).exec()
			} else {
				err = s.writePosting(number, row, without)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutPlace is the list of a row without a place of a term.
func withoutPlace(list []byte, term uint64, row int64, place uint64) ([]byte, error) {
	if row >= 0 {
		var set bitmap
		if err := readList(list, &set); err != nil {
			return nil, err
		}
		set.clear(place)
		if set.count() == 0 {
			return nil, nil
		}
		return appendList(nil, set.pairs(term)), nil
	}
	var kept []byte
	for len(list) > 0 {
		if len(list) < 5 {
			return nil, sqlite3.CORRUPT
		}
		at := binary.BigEndian.Uint32(list)
		var set bitmap
		n := 4
		for p, more := uint64(0), true; more; {
			code, width := binary.Uvarint(list[n:])
			if p += code >> 1; width <= 0 || p >= segmentSize {
				return nil, sqlite3.CORRUPT
			}
			set.set(p)
			more = code&1 == 0
			n += width
		}
		if at == rareOf(term) {
			set.clear(place)
		}
		if set.count() > 0 {
			kept = binary.BigEndian.AppendUint32(kept, at)
			kept = append(kept, appendRare(nil, term, set.pairs(term))[4:]...)
		}
		list = list[n:]
	}
	return kept, nil
}

// pairs are the places of a bitmap as pairs of a term.
func (b *bitmap) pairs(term uint64) (pairs []uint64) {
	for place := range uint64(segmentSize) {
		if b.has(place) {
			pairs = append(pairs, term<<segmentBits|place)
		}
	}
	return pairs
}

// unlistTail removes a delivery from the lists of fields in memory.
func (s *Store) unlistTail(g lostFields) {
	at := g.seq>>segmentBits - s.meta.listed
	if at < 0 || at >= int64(len(s.lists.tail)) {
		return
	}
	tail := s.lists.tail[at]
	for _, f := range g.fields {
		pair := fieldTerm(f)<<segmentBits | uint64(g.seq&(segmentSize-1))
		tail.pairs = slices.DeleteFunc(tail.pairs, func(p uint64) bool { return p == pair })
	}
}
