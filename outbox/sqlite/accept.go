package sqlite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// accept is a batch on its way into the database.
type accept struct {
	ctx     context.Context
	batch   outbox.Batch
	events  []outbox.Event // of the entries, as they will be kept
	targets []*endpoint    // of all entries, one after another
	size    int64          // bytes that it may take in the file

	// What came of it; valid once done is closed.
	receipts []outbox.Receipt
	err      error
	done     chan struct{}

	entries []*entry    // its pending deliveries, for the queues in memory
	made    []madeEvent // what it has written
	repeats [][2]int    // places of entries that repeat an earlier one, and of that one
}

// madeEvent is an event that was written, with the numbers of its deliveries from first on.
type madeEvent struct {
	number  int64
	event   *outbox.Event
	first   int64
	targets []*endpoint
	manual  bool
}

// answer gives the batch its answer, unless it has one.
func (a *accept) answer(err error) {
	select {
	case <-a.done:
	default:
		a.err = err
		if err != nil {
			a.receipts = nil
		}
		close(a.done)
	}
}

// Accept implements outbox.Store. It keeps the events' Data for deliveries from
// memory: nobody may write to it any more.
func (s *Store) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a := &accept{ctx: ctx, batch: b, events: make([]outbox.Event, len(b.Entries)), done: make(chan struct{})}
	deliveries := 0
	for i, e := range b.Entries {
		a.events[i] = e.Event
		a.events[i].Time = fromMicros(e.Event.Time.UnixMicro())
		a.size += sizeOf(e)
		deliveries += len(e.Endpoints)
	}
	a.targets = make([]*endpoint, 0, deliveries)

	s.mu.Lock()
	if s.refusal != nil {
		defer s.mu.Unlock()
		return nil, s.refusal
	}
	for _, e := range b.Entries {
		for _, name := range e.Endpoints {
			a.targets = append(a.targets, s.endpoint(name))
		}
	}
	s.accepts = append(s.accepts, a)
	s.mu.Unlock()
	s.nudge()

	select {
	case <-a.done:
		return a.receipts, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sizeOf is about what an entry takes in the file, with its share of the indexes
// and, when the data is large, the rest of its last page.
func sizeOf(e outbox.Entry) int64 {
	size := int64(len(e.Event.Data)+len(e.Event.Tenant)+len(e.Event.Key)+len(e.Event.Trace)) + 512 + 256*int64(len(e.Endpoints))
	for _, f := range e.Event.Fields {
		size += int64(len(f.Value)) + 32
	}
	for _, t := range e.Terms {
		size += int64(len(t.Error))
		if t.Mark != nil {
			size += 64 + 2*int64(len(t.Mark.Key))
		}
	}
	if len(e.Event.Data) > pageSize/2 {
		size += pageSize
	}
	return size
}

// insert writes a batch in the transaction under way. What refuses the batch
// alone goes to a.err, before anything was written; an error that it returns ends the
// transaction.
func (s *Store) insert(a *accept) error {
	a.receipts, a.entries, a.repeats, a.err = make([]outbox.Receipt, len(a.events)), a.entries[:0], a.repeats[:0], nil
	a.made = a.made[:0]
	if a.err = a.ctx.Err(); a.err != nil {
		return nil
	}
	if a.batch.Key != "" {
		if known, err := s.knownKey(a); known || err != nil {
			return err
		}
	}
	fresh, err := s.knownEvents(a)
	if a.err != nil || err != nil {
		return err
	}
	if fresh > 0 {
		if s.full != nil || a.size > s.room {
			a.err = cmp.Or(s.full, fmt.Errorf("%w: %d bytes of max_size are left, the batch needs about %d", outbox.ErrFull, s.room, a.size))
			return nil
		}
		s.room -= a.size
	}

	now, targets := s.clock.Now(), a.targets
	for i := range a.events {
		n := len(a.batch.Entries[i].Endpoints)
		if !a.receipts[i].Duplicate {
			made, err := s.insertEvent(a, i, targets[:n], now)
			if err != nil {
				return err
			}
			a.receipts[i] = outbox.Receipt{ID: a.events[i].ID, Deliveries: made}
		}
		targets = targets[n:]
	}
	for _, r := range a.repeats {
		a.receipts[r[0]].Deliveries = a.receipts[r[1]].Deliveries
	}
	// A full outbox that knows all the events keeps no new key: their ids make the
	// batch repeatable already.
	if a.batch.Key == "" || fresh == 0 && s.full != nil {
		return nil
	}
	receipts, err := json.Marshal(a.receipts)
	if err != nil {
		return fmt.Errorf("encode receipts: %w", err)
	}
	expires := now + outbox.IdempotencyWindow.Microseconds()
	if err := s.db.addKey.text(a.batch.Key).blob(a.batch.Fingerprint[:]).text(string(receipts)).int(expires).exec(); err != nil {
		return fmt.Errorf("insert key: %w", err)
	}
	return nil
}

// knownKey answers a batch whose key was used before.
func (s *Store) knownKey(a *accept) (known bool, err error) {
	q := s.db.findKey.text(a.batch.Key)
	if q.step() {
		known = true
		if outbox.Fingerprint(q.stmt.ColumnRawBlob(0)) != a.batch.Fingerprint {
			a.err = &outbox.ConflictError{Index: -1}
		} else if err := json.Unmarshal(q.stmt.ColumnRawText(1), &a.receipts); err != nil {
			return true, errors.Join(fmt.Errorf("decode receipts: %w", err), q.done())
		}
		for i := range a.receipts {
			a.receipts[i].Duplicate = true
		}
	}
	if err := q.done(); err != nil {
		return false, fmt.Errorf("select key: %w", err)
	}
	return known, nil
}

// knownEvents fills in the receipts of events whose id is known, or refuses the
// batch. It returns how many are not known. An id that the app did not choose costs no
// look: it is new, or else the insert finds out.
func (s *Store) knownEvents(a *accept) (fresh int, err error) {
	first := map[string]int{} // place in the batch by id
	for i, e := range a.batch.Entries {
		if e.Fingerprint == (outbox.Fingerprint{}) {
			fresh++
			continue
		}
		print, deliveries, known := e.Fingerprint, 0, false
		if j, ok := first[e.Event.ID]; ok {
			known, print = true, a.batch.Entries[j].Fingerprint
			a.repeats = append(a.repeats, [2]int{i, j})
		} else {
			first[e.Event.ID] = i
			q := s.db.knownEvent.text(e.Event.ID)
			if known = q.step(); known {
				print = outbox.Fingerprint{} // of an id that the app did not choose then
				copy(print[:], q.stmt.ColumnRawBlob(0))
				deliveries = countTargets(q.stmt.ColumnRawBlob(1))
			}
			if err := q.done(); err != nil {
				return 0, fmt.Errorf("select event: %w", err)
			}
		}
		if print != e.Fingerprint {
			a.err = &outbox.ConflictError{Index: i, ID: e.Event.ID}
			return 0, nil
		}
		if !known {
			fresh++
		}
		a.receipts[i] = outbox.Receipt{ID: e.Event.ID, Deliveries: deliveries, Duplicate: known}
	}
	return fresh, nil
}

// insertEvent writes the batch's i-th event and those of its deliveries that are made, and
// returns how many.
func (s *Store) insertEvent(a *accept, i int, targets []*endpoint, now int64) (made int, err error) {
	terms := a.batch.Entries[i].Terms
	if terms != nil {
		if targets, terms, err = s.passing(targets, terms, now); err != nil {
			return 0, err
		}
	}
	event := new(a.events[i]) // a copy, or one delivery in memory keeps its whole batch there
	err = s.addEvent(event, targets, a.batch.Entries[i].Fingerprint, now)
	if errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) {
		return 0, &clash{a, i}
	}
	if err != nil {
		return 0, err
	}
	a.made = append(a.made, madeEvent{number: s.meta.nextEvent, event: event, first: s.meta.nextDelivery, targets: targets})
	for j, ep := range targets {
		e := &entry{seq: s.meta.nextDelivery, number: s.meta.nextEvent, endpoint: ep, event: event, created: now, due: now}
		s.meta.nextDelivery++
		s.count(ep).accepted++
		if terms != nil && terms[j].Code != "" {
			err = s.insertFailed(e, terms[j])
		} else {
			err = s.insertPending(a, e)
		}
		if err != nil {
			return 0, err
		}
	}
	s.meta.nextEvent++
	return len(targets), nil
}

// addEvent writes an event, whose deliveries have the next numbers.
func (s *Store) addEvent(event *outbox.Event, targets []*endpoint, print outbox.Fingerprint, accepted int64) error {
	var ids []byte
	for _, ep := range targets {
		if ep.id == 0 {
			if err := s.addEndpoint(ep); err != nil {
				return err
			}
		}
		ids = appendTarget(ids, ep)
	}
	kept := 0
	if len(targets) == 0 {
		kept = keptUnwanted
	}
	var known []byte
	if print != (outbox.Fingerprint{}) {
		known = print[:]
	}
	more, err := s.appendEventMore(nil, event)
	if err != nil {
		return err
	}
	err = s.db.addEvent.int(s.meta.nextEvent).text(event.ID).text(event.Type).int(event.Time.UnixMicro()).text(event.Tenant).text(event.Key).text(event.Trace).
		int(accepted).int(s.meta.nextDelivery).blob(ids).blob(known).int(int64(kept)).blob(more).blob(event.Data).exec()
	if err != nil {
		return fmt.Errorf("insert event: %w", err)
	}
	return nil
}

// insertPending takes in a fresh delivery, with a row when it does not stay in memory.
func (s *Store) insertPending(a *accept, e *entry) error {
	a.entries = append(a.entries, e)
	if s.place(e); e.row {
		return s.addPending(e, e.due, 0, "")
	}
	return nil
}

// addEndpoint gives an endpoint its row.
func (s *Store) addEndpoint(ep *endpoint) error {
	ep.id = int64(len(s.known) + 1)
	s.known = append(s.known, ep)
	if err := s.db.addEndpoint.int(ep.id).text(ep.name).exec(); err != nil {
		return fmt.Errorf("insert endpoint: %w", err)
	}
	return nil
}

// clash ends a transaction in which an insert met an id that is taken. That is
// found out by chance, not by looking first, so the others are tried again without it.
type clash struct {
	accept *accept
	index  int // of the entry
}

func (c *clash) Error() string { return "insert event: the id is taken" }
