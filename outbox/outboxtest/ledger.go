package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"relay/outbox"
)

// Ledger is a crash test's own account of what was promised and what arrived.
// Producers write down each acknowledged event, the receiver each request that it
// answered with success; after the crash, Check asks the outbox for the rest:
//
//	acknowledged = delivered + pending + failed + discarded + lost, and lost must be 0
//
// It counts deliveries: an event for three endpoints is three. Its methods may
// be called at the same time.
type Ledger struct {
	mu       sync.Mutex
	file     *os.File            // nil when kept in memory only
	accepted map[string][]string // event id → endpoints
	received map[parcel]int      // how often each arrived
}

// parcel is one event at one endpoint.
type parcel struct{ event, endpoint string }

// Tally is the outcome of Ledger.Check, in deliveries.
type Tally struct {
	Acknowledged int // promised to a producer
	Delivered    int // of these: a receiver has it, whatever the outbox says
	Pending      int // of these: not received, still due in the outbox
	Failed       int // of these: not received, ended as failed
	Discarded    int // of these: not received, ended by an operator or by retention
	Lost         int // of these: none of the above, must be 0

	Duplicates int // requests that a receiver answered with success more than once
	Unpromised int // received, but no producer holds an acknowledgement: its answer was lost

	Losses []string // "event at endpoint: what the outbox says", sorted
}

// String is one line for logs and reports.
func (t Tally) String() string {
	return fmt.Sprintf("acknowledged %d, delivered %d, pending %d, failed %d, discarded %d, lost %d, duplicates %d, unpromised %d",
		t.Acknowledged, t.Delivered, t.Pending, t.Failed, t.Discarded, t.Lost, t.Duplicates, t.Unpromised)
}

// NewLedger returns an empty ledger in memory.
func NewLedger() *Ledger {
	return &Ledger{accepted: map[string][]string{}, received: map[parcel]int{}}
}

// OpenLedger returns a ledger that reads the file at path, which may be absent,
// and then appends a line for each record. Several processes may append to one
// file; what others wrote is seen by the next OpenLedger. The writers must not be the
// process that is killed: nothing is synced, and a torn line is an error.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := NewLedger()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read ledger: %w", err), f.Close())
	}
	for line := range strings.Lines(string(data)) {
		record, whole := strings.CutSuffix(line, "\n")
		if !whole || !l.note(strings.Split(record, "\t")) {
			return nil, errors.Join(fmt.Errorf("read ledger %s: %q is no record", path, line), f.Close())
		}
	}
	l.file = f
	return l, nil
}

// Accepted writes down that a producer holds an acknowledgement of the event,
// which has a delivery for each of the endpoints. A repeat that was acknowledged again
// changes nothing.
func (l *Ledger) Accepted(eventID string, endpoints ...string) error {
	return l.write(append([]string{"accepted", eventID}, endpoints...))
}

// Received writes down that the endpoint's receiver answered the event with
// success.
func (l *Ledger) Received(eventID, endpoint string) error {
	return l.write([]string{"received", eventID, endpoint})
}

// Check compares the ledger with an outbox, asked through lookup: the Lookup
// of the store that was opened after the crash.
func (l *Ledger) Check(ctx context.Context, lookup func(ctx context.Context, eventID string) (*outbox.Record, error)) (Tally, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var t Tally
	for p, times := range l.received {
		t.Duplicates += times - 1
		if !slices.Contains(l.accepted[p.event], p.endpoint) {
			t.Unpromised++
		}
	}
	for id, endpoints := range l.accepted {
		record, err := lookup(ctx, id)
		if errors.Is(err, outbox.ErrNotFound) {
			record, err = &outbox.Record{}, nil
		}
		if err != nil {
			return Tally{}, fmt.Errorf("look up event %s: %w", id, err)
		}
		for _, name := range endpoints {
			t.Acknowledged++
			t.add(parcel{id, name}, l.received[parcel{id, name}] > 0, stateAt(record, name))
		}
	}
	slices.Sort(t.Losses)
	return t, nil
}

// add counts one acknowledged delivery.
func (t *Tally) add(p parcel, received bool, state outbox.State) {
	switch {
	case received:
		t.Delivered++
	case state == outbox.Pending:
		t.Pending++
	case state == outbox.Failed:
		t.Failed++
	case state == outbox.Discarded:
		t.Discarded++
	default: // absent, or delivered to nobody
		t.Lost++
		t.Losses = append(t.Losses, fmt.Sprintf("%s at %s: state %q", p.event, p.endpoint, state))
	}
}

// stateAt is the state of the record's delivery for an endpoint, "" when there
// is none.
func stateAt(r *outbox.Record, endpoint string) outbox.State {
	for _, d := range r.Deliveries {
		if d.Endpoint == endpoint {
			return d.State
		}
	}
	return ""
}

// Close closes the file, if there is one.
func (l *Ledger) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// write notes a record and appends it to the file in a single write, so that
// lines of several writers do not mix.
func (l *Ledger) write(record []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := strings.Join(record, "\t")
	if strings.Count(line, "\t") != len(record)-1 || strings.Contains(line, "\n") || !l.note(record) {
		return fmt.Errorf("write ledger: %q is no record", record)
	}
	if l.file == nil {
		return nil
	}
	if _, err := l.file.WriteString(line + "\n"); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// note takes a record in; it reports whether it is one.
func (l *Ledger) note(record []string) bool {
	switch {
	case slices.Contains(record, ""):
		return false
	case len(record) >= 2 && record[0] == "accepted":
		l.accepted[record[1]] = record[2:]
	case len(record) == 3 && record[0] == "received":
		l.received[parcel{record[1], record[2]}]++
	default:
		return false
	}
	return true
}
