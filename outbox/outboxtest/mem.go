package outboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"relay/outbox"
	"relay/outbox/clock"
)

var _ outbox.Operable = (*Mem)(nil)

// Mem is an outbox in memory: a real engine that passes the suite, for tests of
// what stands on an outbox. It favours being plainly right over being fast. It
// starts no goroutine, and all its waits work inside a synctest bubble.
type Mem struct {
	options MemOptions
	closed  chan struct{}

	mu   *sync.Mutex // guards kept; all who share it have the same
	kept *contents   // what a crash leaves behind
}

// MemOptions are the settings of NewMem.
type MemOptions struct {
	MaxBytes int64 // of event data, with 512 bytes on top for each event and each delivery; 0 for no limit
	Shared   bool  // leases outlive Crash, as in an engine that several processes share

	Wall func() time.Time // stands in for the machine's wall clock; nil: the machine's
}

// NewMem returns an empty outbox.
func NewMem(o MemOptions) *Mem {
	return &Mem{
		options: o,
		closed:  make(chan struct{}),
		mu:      &sync.Mutex{},
		kept: &contents{
			events:     map[string]*event{},
			deliveries: map[string]*delivery{},
			endpoints:  map[string]*endpoint{},
			ids:        map[string]known{},
			keys:       map[string]known{},
			marks:      map[string]mark{},
			notes:      map[string]outbox.Note{},
			noted:      make(chan struct{}),
			name:       rand.Text(),
			onces:      map[string]*delivery{},
			documents:  map[string]*documents{},
			stats:      map[statKey]*outbox.Stat{},
			statKeys:   map[time.Time]int{},
			clock:      clock.New(clock.State{}, o.Wall),
		},
	}
}

// Crash ends m as a killed process would and opens the same outbox again. The
// leases of the dead owner are over, unless m is Shared. Crash works after Close
// too.
func (m *Mem) Crash() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
	if !m.options.Shared {
		for _, d := range m.kept.deliveries {
			d.until = time.Time{}
		}
		m.kept.clock = clock.New(m.kept.clock.State(), m.options.Wall)
	}
	return m.Join()
}

// Join opens the same outbox for another process, which works beside m's.
func (m *Mem) Join() *Mem {
	return &Mem{options: m.options, closed: make(chan struct{}), mu: m.mu, kept: m.kept}
}

// Accept implements outbox.Store. An event id that is known without a
// fingerprint on both sides cannot be told from a clash and is a conflict.
func (m *Mem) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, outbox.ErrClosed
	}
	k := m.kept

	if first, ok := k.keys[b.Key]; ok && b.Key != "" {
		if first.fingerprint != b.Fingerprint {
			return nil, &outbox.ConflictError{Index: -1}
		}
		return duplicates(first.receipts), nil
	}

	// Everything that can refuse the batch comes before the first write.
	now := k.now()
	receipts := make([]outbox.Receipt, len(b.Entries))
	fresh := map[string]known{}
	var size int64
	for i, e := range b.Entries {
		first, ok := fresh[e.Event.ID]
		if !ok {
			first, ok = k.ids[e.Event.ID]
		}
		if !ok {
			receipts[i] = outbox.Receipt{ID: e.Event.ID, Deliveries: len(e.Endpoints)}
			fresh[e.Event.ID] = known{e.Fingerprint, receipts[i : i+1], now}
			size += sizeOf(e.Event, len(e.Endpoints))
			continue
		}
		if e.Fingerprint == (outbox.Fingerprint{}) || e.Fingerprint != first.fingerprint {
			return nil, &outbox.ConflictError{Index: i, ID: e.Event.ID}
		}
		receipts[i] = duplicates(first.receipts)[0]
	}
	if size > 0 && m.full(size) {
		return nil, outbox.ErrFull
	}

	for i, e := range b.Entries {
		if first := fresh[e.Event.ID]; !receipts[i].Duplicate {
			receipts[i].Deliveries = k.insert(e, now)
		} else if first.receipts != nil { // earlier in the batch
			receipts[i].Deliveries = first.receipts[0].Deliveries
		}
	}
	maps.Copy(k.ids, fresh)
	if b.Key != "" {
		k.keys[b.Key] = known{b.Fingerprint, receipts, now}
	}
	return slices.Clone(receipts), nil
}

// Claim implements outbox.Store.
func (m *Mem) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	for {
		if err := ctx.Err(); err != nil {
			if r.Ready != nil {
				m.Withdraw(r.Endpoint) // the Claim before, whose place this one takes
			}
			return nil, err
		}
		claims, wait, err := m.claimDue(r)
		if err != nil || len(claims) > 0 || r.Ready != nil {
			return claims, err
		}
		var due <-chan time.Time
		if !wait.until.IsZero() {
			due = time.After(time.Until(wait.until)) // by the monotonic clock
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.closed:
			return nil, outbox.ErrClosed
		case <-wait.changed:
		case <-due:
		}
	}
}

// wait says what a claimer without work waits for.
type wait struct {
	changed <-chan struct{}
	until   time.Time // zero when only a change can bring work
}

// claimDue leases what is due now, or says what to wait for.
func (m *Mem) claimDue(r outbox.ClaimRequest) ([]outbox.Claim, wait, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, wait{}, outbox.ErrClosed
	}
	now := m.kept.now()
	ep := m.kept.endpoint(r.Endpoint)
	ep.forget(m)
	if r.Behind {
		ep.laneUntil = now.Add(outbox.LaneOpen)
	}
	w := wait{changed: ep.changed}
	all := r.Fresh > 0 || r.FleetMax > 0 // else the first ones are enough
	var due []*delivery
	held := 0
	for _, d := range ep.pending { // sorted by due
		if len(due) == r.Max && !all {
			break
		}
		free := d.Due
		if d.until.After(now) {
			held++
			free = d.until
		}
		if !free.After(now) {
			due = append(due, d)
			continue
		}
		if w.until.IsZero() || free.Before(w.until) {
			w.until = free
		}
		if d.Due.After(now) {
			break
		}
	}
	most := r.Max
	if r.FleetMax > 0 {
		most = max(min(most, r.FleetMax-held), 0)
	}
	if !w.until.IsZero() {
		w.until = m.kept.clock.Moment(w.until.UnixMicro())
	}
	var claims []outbox.Claim
	for _, d := range pick(due, most, r.Fresh) {
		m.kept.fence++
		d.fence, d.until = m.kept.fence, now.Add(r.Lease)
		claims = append(claims, outbox.Claim{Delivery: m.kept.claimed(d), Event: new(d.event.Event), Fence: d.fence,
			Until: m.kept.clock.Moment(d.until.UnixMicro())})
	}
	if len(claims) == 0 && r.Ready != nil {
		ep.wait(m, r.Ready, w.until)
	}
	return claims, w, nil
}

// Withdraw implements outbox.Store.
func (m *Mem) Withdraw(endpoint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept.endpoint(endpoint).forget(m)
}

// pick chooses at most that many of the deliveries that are due: at most fresh of the
// express lane, then the first of all.
func pick(due []*delivery, most, fresh int) []*delivery {
	picked := make([]*delivery, 0, most)
	for _, d := range due {
		if d.lane && d.Attempts == 0 && len(picked) < min(most, fresh) {
			picked = append(picked, d)
		}
	}
	rest := slices.DeleteFunc(due, func(d *delivery) bool { return slices.Contains(picked, d) })
	return append(picked, rest[:min(len(rest), most-len(picked))]...)
}

// Settle implements outbox.Store.
func (m *Mem) Settle(_ context.Context, c outbox.Claim, s outbox.Settlement) error {
	if s.State != outbox.Pending && !s.State.Final() {
		return fmt.Errorf("settle delivery %s: %q is not a state to settle as", c.ID, s.State)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return outbox.ErrClosed
	}
	d := m.kept.leased(c)
	if d == nil {
		return outbox.ErrLeaseLost
	}
	ep := m.kept.endpoint(d.Endpoint)
	ep.remove(d)

	d.until = time.Time{}
	d.record(s.Attempt)
	m.kept.countAttempt(d)
	if s.State == outbox.Pending {
		d.Code = s.Attempt.Code
		d.Due = time.UnixMicro(m.kept.clock.Of(s.Due)).UTC()
		ep.add(d)
		return nil
	}
	m.kept.finish(d, s.State, s.Attempt.Code)
	ep.wake() // FleetMax has a place again
	return nil
}

// record adds an attempt.
func (d *delivery) record(a outbox.Attempt) {
	a.Started, a.Next = down(a.Started), down(a.Next)
	a.Body = bytes.Clone(a.Body)
	d.attempts = append(d.attempts, a)
	d.Attempts = len(d.attempts)
}

// Release implements outbox.Store.
func (m *Mem) Release(_ context.Context, claims ...outbox.Claim) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return outbox.ErrClosed
	}
	for _, c := range claims {
		if d := m.kept.leased(c); d != nil {
			d.until = time.Time{}
			m.kept.endpoint(d.Endpoint).wake()
		}
	}
	return nil
}

// Lookup implements outbox.Reader.
func (m *Mem) Lookup(_ context.Context, eventID string) (*outbox.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, outbox.ErrClosed
	}
	e := m.kept.events[eventID]
	if e == nil {
		return nil, outbox.ErrNotFound
	}
	return m.kept.whole(e, e.deliveries...), nil
}

// Counts implements outbox.Store.
func (m *Mem) Counts(context.Context) (map[string]outbox.Counts, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, outbox.ErrClosed
	}
	all := map[string]outbox.Counts{}
	for name, ep := range m.kept.endpoints {
		if ep.accepted == 0 {
			continue // only ever claimed from
		}
		c := outbox.Counts{
			Accepted:  ep.accepted,
			Pending:   int64(len(ep.pending)),
			Delivered: ep.final[outbox.Delivered],
			Failed:    ep.final[outbox.Failed],
			Discarded: ep.final[outbox.Discarded],
		}
		for _, d := range ep.pending {
			if c.Oldest.IsZero() || d.Created.Before(c.Oldest) {
				c.Oldest = d.Created
			}
		}
		c.Oldest = m.kept.wall(c.Oldest)
		all[name] = c
	}
	return all, nil
}

// reapMax is how many deliveries one Reap removes at most.
const reapMax = 1000

// Reap implements outbox.Store.
func (m *Mem) Reap(ctx context.Context, r outbox.Retention) (removed int, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return 0, false, outbox.ErrClosed
	}
	k, now := m.kept, m.kept.now()
	old := func(at time.Time, keep time.Duration) bool { return !at.Add(keep).After(now) }
	for id, e := range k.events {
		wanted := len(e.deliveries) > 0
		e.deliveries = slices.DeleteFunc(e.deliveries, func(d *delivery) bool {
			keep := r.Delivered
			if d.State == outbox.Failed {
				keep = r.Failed
			}
			if !d.State.Final() || !old(d.Finished, keep) {
				return false
			}
			if removed == reapMax {
				more = true
				return false
			}
			delete(k.deliveries, d.ID)
			maps.DeleteFunc(k.onces, func(_ string, made *delivery) bool { return made == d })
			removed++
			return true
		})
		if len(e.deliveries) == 0 && (wanted || old(e.accepted, r.Delivered)) {
			delete(k.events, id)
			k.bytes -= e.size
		}
	}
	maps.DeleteFunc(k.ids, func(id string, first known) bool {
		repeatable := first.fingerprint != (outbox.Fingerprint{}) && !old(first.at, outbox.IdempotencyWindow)
		return k.events[id] == nil && !repeatable
	})
	maps.DeleteFunc(k.keys, func(_ string, first known) bool {
		return old(first.at, outbox.IdempotencyWindow)
	})
	maps.DeleteFunc(k.marks, func(_ string, last mark) bool { return !last.until.After(now) })
	return removed, more, nil
}

// Health implements outbox.Store.
func (m *Mem) Health(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return outbox.ErrClosed
	}
	if m.full(sizeOf(outbox.Event{}, 0)) {
		return outbox.ErrFull
	}
	return nil
}

// Fill implements outbox.Store.
func (m *Mem) Fill(context.Context) (float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return 0, outbox.ErrClosed
	}
	if m.options.MaxBytes == 0 {
		return 0, nil
	}
	return float64(m.kept.bytes) / float64(m.options.MaxBytes), nil
}

// Broken implements outbox.Store: memory does not break.
func (m *Mem) Broken() <-chan struct{} { return nil }

// Durability implements outbox.Store.
func (m *Mem) Durability() string { return "memory" }

// Close implements outbox.Store. A second call is answered with nil.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
	return nil
}

// full tells whether size more bytes do not fit.
func (m *Mem) full(size int64) bool {
	return m.options.MaxBytes > 0 && m.kept.bytes+size > m.options.MaxBytes
}

// end makes all calls under way and all later ones answer ErrClosed.
func (m *Mem) end() {
	if !m.isClosed() {
		close(m.closed)
		for _, ep := range m.kept.endpoints {
			ep.call(m)
		}
	}
}

func (m *Mem) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}
