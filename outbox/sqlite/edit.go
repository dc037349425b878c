package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// editSlice is how many changes one commit makes, so that no accept waits long for them.
const editSlice = 25

// Edit implements outbox.Editor.
func (s *Store) Edit(ctx context.Context, changes []outbox.Change) ([]outbox.Edited, error) {
	if len(changes) > outbox.MaxChanges {
		return nil, fmt.Errorf("edit %d deliveries at once: at most %d are possible", len(changes), outbox.MaxChanges)
	}
	all := make([]outbox.Edited, 0, len(changes))
	for slice := range slices.Chunk(changes, editSlice) {
		e := &edits{s: s, changes: slices.Clone(slice)}
		if err := s.change(ctx, writing{run: e.run, then: e.publish}); err != nil {
			return nil, err
		}
		for i, edited := range e.all {
			for tries := 0; errors.Is(edited.Err, errSettling) && tries < settlingTries; tries++ {
				again := &edits{s: s, changes: e.changes[i : i+1]}
				if err := s.change(ctx, writing{run: again.run, then: again.publish}); err != nil {
					return nil, err
				}
				edited = again.all[0]
			}
			if errors.Is(edited.Err, errSettling) {
				edited.Err = outbox.ErrClaimed
			}
			all = append(all, edited)
		}
	}
	return all, nil
}

// errSettling says that the settlement of a delivery waits for its commit: the next one, unless the disk is full.
var errSettling = errors.New("a settlement of the delivery is under way")

const settlingTries = 3

// edits are changes on their way into the database.
type edits struct {
	s       *Store
	changes []outbox.Change

	// What came of the transaction under way.
	all  []outbox.Edited
	made []madeEvent  // redeliveries, for the lists of deliveries
	dues []*entry     // which are due, and on disk only
	over []int64      // deliveries that are over
	gone []lostFields // fields of events, for the lists in memory
}

// run makes the changes in the transaction under way.
func (e *edits) run() (refusal, err error) {
	e.all, e.made, e.dues, e.over, e.gone = nil, nil, nil, nil, nil
	for _, c := range e.changes {
		var edited outbox.Edited
		switch c.Action {
		case outbox.Redeliver:
			edited, err = e.redeliver(c)
		case outbox.Retry:
			edited, err = e.retry(c)
		case outbox.Discard:
			edited, err = e.discard(c)
		case outbox.Erase:
			edited, err = e.erase(c)
		default:
			edited = outbox.Edited{Delivery: c.Delivery, Err: fmt.Errorf("%q is no action", c.Action)}
		}
		if err != nil {
			return nil, err
		}
		e.all = append(e.all, edited)
	}
	return nil, nil
}

// publish makes what was committed known to the queues, below mu.
func (e *edits) publish() {
	s := e.s
	for _, seq := range e.over {
		delete(s.loaded, seq)
	}
	for _, d := range e.dues {
		s.dueBy(d.endpoint, d.due)
		s.serve(d.endpoint)
	}
	for _, m := range e.made {
		s.addToList(m)
	}
	for _, g := range e.gone {
		s.unlistTail(g)
	}
}

// stored is a delivery as it is stored.
type stored struct {
	entry
	state outbox.State
	mem   *entry // in memory; nil when it is on disk only
}

// find reads a delivery; nil for none.
func (s *Store) find(seq int64) (*stored, error) {
	d := &stored{entry: entry{seq: seq}}
	var endpoint int64
	q := s.db.ends.int(seq).int(seq)
	if q.step() {
		d.state, d.number, endpoint = states[q.stmt.ColumnInt64(1)&3], q.stmt.ColumnInt64(endsColumns), q.stmt.ColumnInt64(endsColumns+1)
	}
	if err := q.done(); err != nil {
		return nil, fmt.Errorf("select end of a delivery: %w", err)
	}
	if d.state == "" {
		q := s.db.pendings.int(seq).int(seq)
		if q.step() {
			d.state, d.row = outbox.Pending, true
			d.due, d.number, endpoint = q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2), q.stmt.ColumnInt64(3)
			d.attempts, d.code = q.stmt.ColumnInt(4), q.stmt.ColumnText(5)
			if d.mem = s.loaded[seq]; d.mem == nil {
				d.mem = s.findBare(seq) // the transaction under way has written its row
			}
		}
		if err := q.done(); err != nil {
			return nil, fmt.Errorf("select pending delivery: %w", err)
		}
	}
	if d.state == "" {
		if d.mem = s.findBare(seq); d.mem == nil {
			return nil, nil
		}
		s.mu.Lock()
		d.entry, d.state = *d.mem, outbox.Pending // a Claim may lease it at this moment
		s.mu.Unlock()
		return d, nil
	}
	ep, known := s.endpointAt(endpoint)
	if !known {
		return nil, fmt.Errorf("endpoint of a delivery: %w", sqlite3.CORRUPT)
	}
	d.endpoint = ep
	return d, nil
}

// findBare returns a delivery that is in memory without a row.
func (s *Store) findBare(seq int64) *entry {
	i, found := slices.BinarySearchFunc(s.bare, seq, func(e *entry, seq int64) int { return cmp.Compare(e.seq, seq) })
	if found && s.bare[i].event != nil {
		return s.bare[i]
	}
	return nil
}

// readHead reads a delivery's event, without its data, and when the delivery was made. erased tells whether the data
// was.
func (s *Store) readHead(d *entry) (erased bool, err error) {
	d.event = nil
	q := s.db.eventLean.int(d.number)
	if q.step() {
		d.event = &outbox.Event{}
		d.created, erased, err = s.readLeanEvent(q, d.event)
	}
	if err = errors.Join(err, q.done()); err != nil {
		return false, fmt.Errorf("select event: %w", err)
	}
	if d.event == nil {
		return false, fmt.Errorf("event of a delivery: %w", sqlite3.CORRUPT)
	}
	if !s.meta.manual {
		return erased, nil
	}
	q = s.db.findManual.int(d.seq)
	if q.step() {
		d.manual, d.origin, d.created = true, q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1)
	}
	if err := q.done(); err != nil {
		return false, fmt.Errorf("select redelivery: %w", err)
	}
	return erased, nil
}

// redeliver makes a new delivery of an event.
func (e *edits) redeliver(c outbox.Change) (edited outbox.Edited, err error) {
	s := e.s
	edited.Delivery = c.Delivery
	if c.Once != "" {
		seq, err := s.db.findOnce.text(c.Once).number()
		if err != nil {
			return edited, fmt.Errorf("select redelivery: %w", err)
		}
		if seq > 0 {
			return outbox.Edited{Delivery: deliveryID(s.meta.prefix, seq), Repeated: true}, nil
		}
	}
	old, err := s.find(deliveryNumber(s.meta.prefix, c.Delivery))
	switch {
	case err != nil:
		return edited, err
	case old == nil:
		edited.Err = outbox.ErrNotFound
		return edited, nil
	case !old.state.Final():
		edited.Err = &outbox.StateError{State: old.state}
		return edited, nil
	}
	erased, err := s.readHead(&old.entry)
	switch {
	case err != nil:
		return edited, err
	case erased:
		edited.Err = outbox.ErrErased
		return edited, nil
	}
	if edited.Err, err = e.needless(old, c); edited.Err != nil || err != nil {
		return edited, err
	}
	switch {
	case s.full != nil || s.room < redeliverySize:
		edited.Err = cmp.Or(s.full, outbox.ErrFull)
		return edited, nil
	}
	s.room -= redeliverySize
	edited.Delivery, err = e.repeat(&old.entry, c)
	return edited, err
}

// redeliverySize is about what a redelivery takes in the file, with its end.
const redeliverySize = 512

// repeat writes a redelivery.
func (e *edits) repeat(old *entry, c outbox.Change) (id string, err error) {
	s, ep := e.s, e.s.target(old, c)
	if ep.id == 0 {
		if err := s.addEndpoint(ep); err != nil {
			return "", err
		}
	}
	d := &entry{seq: s.meta.nextDelivery, number: old.number, endpoint: ep, event: old.event, created: s.now, due: s.now, manual: true, origin: old.seq, row: true}
	s.meta.nextDelivery++
	s.count(ep).accepted++
	if err := s.addManual(d, c.Once); err != nil {
		return "", err
	}
	if err := s.addPending(d, d.due, 0, ""); err != nil {
		return "", err
	}
	e.dues = append(e.dues, d)
	e.made = append(e.made, madeEvent{number: d.number, event: d.event, first: d.seq, targets: []*endpoint{ep}, manual: true})
	return deliveryID(s.meta.prefix, d.seq), nil
}

// addManual notes that an operator made a delivery.
func (s *Store) addManual(d *entry, once string) error {
	s.meta.manual = true
	if err := s.db.addManual.int(d.seq).int(d.number).int(d.endpoint.id).int(d.created).int(d.origin).text(once).exec(); err != nil {
		return fmt.Errorf("insert redelivery: %w", err)
	}
	return nil
}

// retry makes a pending delivery due now.
func (e *edits) retry(c outbox.Change) (edited outbox.Edited, err error) {
	s := e.s
	edited.Delivery = c.Delivery
	d, err := s.find(deliveryNumber(s.meta.prefix, c.Delivery))
	switch {
	case err != nil:
		return edited, err
	case d == nil:
		edited.Err = outbox.ErrNotFound
	case d.state != outbox.Pending:
		edited.Err = &outbox.StateError{State: d.state}
	case d.mem != nil || d.due <= s.now: // what is in memory is due, or claimed
		edited.Repeated = true
	default:
		if err := s.dropPending(&d.entry); err != nil {
			return edited, err
		}
		d.due = s.now
		e.dues = append(e.dues, &d.entry)
		return edited, s.addPending(&d.entry, d.due, d.attempts, d.code)
	}
	return edited, nil
}

// discard ends a pending delivery that is not claimed.
func (e *edits) discard(c outbox.Change) (edited outbox.Edited, err error) {
	s := e.s
	edited.Delivery = c.Delivery
	d, err := s.find(deliveryNumber(s.meta.prefix, c.Delivery))
	switch {
	case err != nil:
		return edited, err
	case d == nil:
		edited.Err = outbox.ErrNotFound
	case d.state == outbox.Discarded:
		edited.Repeated = true
	case d.state != outbox.Pending:
		edited.Err = &outbox.StateError{State: d.state}
	default:
		edited.Err, err = e.end(d, c.Code, false)
	}
	return edited, err
}

// end ends a pending delivery as discarded, a claimed one only by force.
func (e *edits) end(d *stored, code string, force bool) (refusal, err error) {
	if refusal := e.s.takeOut([]*stored{d}, force); refusal != nil {
		return refusal, nil
	}
	return nil, e.finish(d, code)
}

// finish writes the end of a delivery that was taken out of memory.
func (e *edits) finish(d *stored, code string) error {
	s := e.s
	if _, err := s.readHead(&d.entry); err != nil {
		return err
	}
	if err := s.dropPending(&d.entry); err != nil {
		return err
	}
	e.over = append(e.over, d.seq)
	s.count(d.endpoint).end(outbox.Discarded)
	s.tally(&d.entry, settled{state: outbox.Discarded})
	return s.addDone(&d.entry, end{state: outbox.Discarded, attempts: d.attempts, finished: s.now, code: code})
}

// taken is a delivery that was taken out of memory.
type taken struct {
	entry  *entry
	leased bool
}

// takeOut takes deliveries out of memory before their end is written, so that nobody claims or settles them meanwhile: all,
// or none. putBack puts them back should the transaction fail.
func (s *Store) takeOut(all []*stored, force bool) (refusal error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.taken)
	for _, d := range all {
		if d.mem == nil {
			continue
		}
		t, refusal := s.takeOne(d.mem, force)
		if refusal != nil {
			s.restore(s.taken[before:])
			s.taken = s.taken[:before]
			return refusal
		}
		s.taken = append(s.taken, t)
	}
	return nil
}

func (s *Store) takeOne(e *entry, force bool) (t taken, refusal error) {
	if s.leases[e.fence] == e {
		if !force && time.Now().Before(e.until) {
			return t, outbox.ErrClaimed
		}
		s.queues.end(e)
		return taken{e, true}, nil
	}
	for _, q := range [...]*queue{&e.endpoint.ready, &e.endpoint.lane} {
		if i := slices.Index(*q, e); i >= 0 {
			*q = slices.Delete(*q, i, i+1)
			s.bytes -= e.weight()
			return taken{e, false}, nil
		}
	}
	return t, errSettling
}

// restore undoes takeOne.
func (s *Store) restore(all []taken) {
	for _, t := range all {
		if !t.leased {
			s.put(t.entry)
			continue
		}
		s.leases[t.entry.fence] = t.entry
		t.entry.endpoint.leased++
		s.bytes += t.entry.weight()
		s.extend(t.entry, t.entry.until)
	}
}

// putBack puts back what the transaction that failed had taken out of memory.
func (s *Store) putBack() {
	s.mu.Lock()
	defer s.unlock()
	s.restore(s.taken)
	s.taken = nil
}

// letGo forgets what the transaction that is committed has taken out of memory.
func (s *Store) letGo() {
	for _, t := range s.taken {
		t.entry.event = nil
	}
	s.taken = nil
}
