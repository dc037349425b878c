package sqlite

import (
	"errors"
	"fmt"
	"slices"

	"relay/outbox"
)

// walk goes through the deliveries that match a filter, segment by segment: what the lists have in common, then
// row by row what is left. It pauses when its slice is over.
type walk struct {
	s      *Store
	filter outbox.Filter
	oldest bool  // oldest first
	counts bool  // nobody looks at the items
	after  int64 // the delivery after which it begins, 0 for the first one

	begun    bool
	from, to int64 // deliveries between these, both included
	next     int64 // the next one to look at
	over     bool
	rows     int // looked at
	segments int

	terms   [][]uint64    // one of each of these
	states  whichStates   // that match
	only    []int64       // nil, or all that can match
	segment int64         // whose bits follow; -1 for none
	set     bitmap        // of deliveries to look at
	pending bitmap        // of those that may be pending
	ends    outbox.Filter // the part of the filter that the end of a delivery tells
	event   bool          // the filter asks for more than that, or somebody looks at the items
	listed  bool          // lists tell all that it asks for more than that
	sure    bool          // and those of the segment are certain, and nobody looks at the items
}

// whichStates tells which states match.
type whichStates struct{ pending, delivered, failed, discarded bool }

// passed is the last delivery that was looked at.
func (w *walk) passed() int64 {
	if w.oldest {
		return w.next - 1
	}
	return w.next + 1
}

// run goes on until the slice is over, there is no more, or yield wants no more.
func (w *walk) run(yield func(item *outbox.Item, seq int64) (more bool)) error {
	if !w.begun {
		if err := w.begin(); err != nil {
			return err
		}
	}
	for !w.over {
		seq, err := w.candidate()
		if err != nil {
			return err
		}
		if seq > 0 {
			item, matches, err := w.read(seq)
			if err != nil {
				return err
			}
			if matches && !yield(item, seq) {
				return nil
			}
		}
		if w.s.spent() {
			return nil
		}
	}
	return nil
}

// begin finds out where to look.
func (w *walk) begin() error {
	s, f := w.s, &w.filter
	w.begun, w.segment = true, -1
	w.from, w.to = 1, s.meta.nextDelivery-1
	has := func(state outbox.State) bool { return f.States == nil || slices.Contains(f.States, state) }
	w.states = whichStates{has(outbox.Pending), has(outbox.Delivered), has(outbox.Failed), has(outbox.Discarded)}
	w.ends = outbox.Filter{Endpoints: f.Endpoints, Except: f.Except, States: f.States, Status: f.Status, Code: f.Code, Attempts: f.Attempts, Attempted: f.Attempted}
	w.event = !w.counts || f.Types != nil || f.TypeLike != nil || f.Event != "" || f.Tenants != nil || f.Key != "" || len(f.Fields) > 0 || f.Manual != nil || f.Resent != nil || f.Accepted != outbox.Span{}
	if err := w.bound(); err != nil {
		return err
	}
	if w.after > 0 && w.oldest {
		w.from = max(w.from, w.after+1)
	} else if w.after > 0 {
		w.to = min(w.to, w.after-1)
	}
	if f.Event != "" {
		if err := w.ofEvent(); err != nil {
			return err
		}
	}
	w.listed = w.counts && f.Event == "" && f.Accepted == outbox.Span{} && (f.Manual == nil || *f.Manual) && f.Resent == nil
	w.chooseTerms()
	if w.next = w.to; w.oldest {
		w.next = w.from
	}
	w.over = w.from > w.to
	return nil
}

// bound turns the span of accepts into numbers of deliveries.
func (w *walk) bound() error {
	if since := w.filter.Accepted.Since; !since.IsZero() {
		e, err := w.s.eventBefore(since)
		if err != nil {
			return err
		}
		w.from = max(w.from, e.first+e.targets) // those after the last event before
	}
	if until := w.filter.Accepted.Until; !until.IsZero() {
		e, err := w.s.eventBefore(until)
		if err != nil {
			return err
		}
		next, err := w.s.eventAfter(e.number)
		if err != nil {
			return err
		}
		if next.number > 0 {
			w.to = min(w.to, next.first-1)
		}
	}
	return nil
}

// ofEvent lists the deliveries of the event that the filter names.
func (w *walk) ofEvent() error {
	r, _, parts, err := w.s.readParts(w.s.db.findEvent.text(w.filter.Event))
	if err != nil {
		return err
	}
	w.only = []int64{}
	if r == nil {
		w.from, w.to = 1, 0
		return nil
	}
	for _, p := range parts {
		if p.seq >= w.from && p.seq <= w.to {
			w.only = append(w.only, p.seq)
		}
	}
	slices.Sort(w.only)
	if !w.oldest {
		slices.Reverse(w.only)
	}
	return nil
}

// mostTerms is how many values of one kind are looked up in lists. With more, each delivery is read.
const mostTerms = 100

// chooseTerms finds out which lists have what the filter asks for.
func (w *walk) chooseTerms() {
	s, f := w.s, &w.filter
	add := func(terms []uint64) {
		if len(terms) <= mostTerms {
			w.terms = append(w.terms, terms)
		} else {
			w.listed = false
		}
	}
	if f.Endpoints != nil {
		var terms []uint64
		for _, name := range f.Endpoints {
			terms = append(terms, termOf(termEndpoint, name))
		}
		add(terms)
	}
	if f.Types != nil {
		add(typeTerms(f.Types))
	}
	if f.TypeLike != nil && (f.Types != nil || len(s.lists.types) >= typesMost) {
		w.listed = false
	} else if f.TypeLike != nil {
		var like []string
		for name := range s.lists.types {
			if f.TypeLike(name) {
				like = append(like, name)
			}
		}
		// What is in memory has types that are not known yet, so the deliveries there are read.
		add(append(typeTerms(like), termAny))
	}
	if slices.Contains(f.Tenants, "") {
		w.listed = false
	} else if f.Tenants != nil {
		var terms []uint64
		for _, name := range f.Tenants {
			terms = append(terms, termOf(termTenant, name))
		}
		add(terms)
	}
	if f.Key != "" {
		add([]uint64{termOf(termKey, f.Key)})
	}
	for _, field := range f.Fields {
		add([]uint64{fieldTerm(field)})
	}
	if f.Manual != nil && *f.Manual {
		add([]uint64{termOf(termManual)})
	}
}

// termAny stands for all deliveries of a segment that is in memory.
const termAny = ^uint64(0)

func typeTerms(types []string) (terms []uint64) {
	for _, name := range types {
		terms = append(terms, termOf(termType, name))
	}
	return terms
}

// candidate returns the next delivery to look at, 0 for none yet.
func (w *walk) candidate() (seq int64, err error) {
	if w.only != nil {
		if len(w.only) == 0 {
			w.over = true
			return 0, nil
		}
		seq, w.only = w.only[0], w.only[1:]
		w.next = seq + w.ahead()
		return seq, nil
	}
	if w.segment < 0 {
		if err := w.enter(); w.over || err != nil {
			return 0, err
		}
	}
	place := w.set.last()
	if w.oldest {
		place = w.set.first()
	}
	base := w.segment << segmentBits
	if place < 0 { // the segment is over
		w.segment = -1
		if w.next = base - 1; w.oldest {
			w.next = base + segmentSize
		}
		return 0, nil
	}
	w.set.clear(uint64(place))
	w.next = base + place + w.ahead()
	return base + place, nil
}

// ahead is the way to the next number.
func (w *walk) ahead() int64 {
	if w.oldest {
		return 1
	}
	return -1
}

// enter goes to the next segment that has deliveries in a state that matches.
func (w *walk) enter() error {
	seq, err := w.nearest()
	if err != nil {
		return err
	}
	if seq < w.from || seq > w.to {
		w.over = true
		return nil
	}
	w.next, w.segment = seq, seq>>segmentBits
	w.segments++
	base := w.segment << segmentBits
	from, to := max(w.from-base, 0), min(w.to-base, segmentSize-1)
	if w.oldest {
		from = max(from, seq-base)
	} else {
		to = min(to, seq-base)
	}
	for i := range w.set {
		w.set[i] = ^uint64(0)
	}
	w.set.keep(from, to)
	w.sure = w.listed
	for _, terms := range w.terms {
		if err := w.narrow(terms); err != nil {
			return err
		}
	}
	return w.narrowStates(base)
}

// narrow keeps the deliveries that have one of some terms.
func (w *walk) narrow(terms []uint64) error {
	if w.set.last() < 0 {
		return nil
	}
	var union bitmap
	for _, term := range terms {
		if term == termAny {
			if w.segment >= w.s.meta.listed {
				w.sure = false
				return nil
			}
			continue
		}
		known, sure, err := w.s.listed(w.segment, term, &union)
		if err != nil {
			return err
		}
		w.sure = w.sure && sure
		if !known {
			return nil
		}
	}
	w.set.and(&union)
	return nil
}

// few deliveries of a segment are read one by one, instead of asking the indexes for all of it.
const few = 64

// narrowStates keeps the deliveries in states that match, as far as indexes tell.
func (w *walk) narrowStates(base int64) error {
	w.pending = bitmap{}
	switch n := w.set.count(); {
	case n == 0:
		return nil
	case n <= few:
		w.pending = w.set // it is looked up
		return nil
	}
	if w.states.pending {
		if err := w.mark(w.s.db.pendingBetween.int(base).int(base+segmentSize-1), base, &w.pending); err != nil {
			return err
		}
		for _, e := range w.s.bareFrom(base) {
			if e.seq >= base+segmentSize {
				break
			}
			if e.event != nil {
				w.pending.set(uint64(e.seq - base))
			}
		}
	}
	if w.states.delivered {
		return nil
	}
	match := w.pending
	for state, wanted := range map[int64]bool{2: w.states.failed, 3: w.states.discarded} {
		if wanted {
			if err := w.mark(w.s.db.stateBetween.int(state).int(base).int(base+segmentSize-1), base, &match); err != nil {
				return err
			}
		}
	}
	w.set.and(&match)
	return nil
}

// mark adds the numbers that a query returns to a bitmap.
func (w *walk) mark(q *query, base int64, set *bitmap) error {
	for q.step() {
		set.set(uint64(q.stmt.ColumnInt64(0) - base))
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select deliveries by state: %w", err)
	}
	return nil
}

// bareFrom returns the deliveries without a row from a number on.
func (s *Store) bareFrom(seq int64) []*entry {
	i, _ := slices.BinarySearchFunc(s.bare, seq, func(e *entry, seq int64) int { return int(e.seq - seq) })
	return s.bare[i:]
}

// nearest is the next delivery from w.next on that is in a state that matches; outside of from and to for none.
func (w *walk) nearest() (nearest int64, err error) {
	db := w.s.db
	nearest = w.from - 1
	if w.oldest {
		nearest = w.to + 1
	}
	look := func(q *query) {
		if q.step() {
			if seq := q.stmt.ColumnInt64(0); w.oldest {
				nearest = min(nearest, seq)
			} else {
				nearest = max(nearest, seq)
			}
		}
		err = errors.Join(err, q.done())
	}
	end, pending := db.endBelow, db.pendingBelow
	if w.oldest {
		end, pending = db.endAbove, db.pendingAbove
	}
	switch {
	case w.states.delivered && w.oldest:
		look(db.doneAbove.int(w.next).int(never))
	case w.states.delivered:
		look(db.doneBelow.int(w.next).int(0))
	default:
		for state, wanted := range map[int64]bool{2: w.states.failed, 3: w.states.discarded} {
			if wanted {
				look(end.int(state).int(w.next))
			}
		}
	}
	if w.states.pending {
		look(pending.int(w.next))
		nearest = w.nearestBare(nearest)
	}
	if err != nil {
		return 0, fmt.Errorf("select next delivery: %w", err)
	}
	return nearest, nil
}

// nearestBare is the nearer one of a delivery and the next that is in memory without a row.
func (w *walk) nearestBare(nearest int64) int64 {
	if w.oldest {
		for _, e := range w.s.bareFrom(w.next) {
			if e.event != nil {
				return min(nearest, e.seq)
			}
		}
		return nearest
	}
	all := w.s.bare
	upto := len(all) - len(w.s.bareFrom(w.next+1))
	for _, e := range slices.Backward(all[:upto]) {
		if e.event != nil {
			return max(nearest, e.seq)
		}
	}
	return nearest
}
