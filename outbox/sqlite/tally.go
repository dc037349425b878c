package sqlite

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/internal/sorting"
	"relay/outbox"
	"relay/outbox/sketch"
)

// A commit that settles anything writes down what, in one row of the table tally. So statistics are as
// exact as states, and cost a settlement some bytes of a row that is written anyway. In memory the same is summed up by
// key; every some seconds the sums go to the table stat, and the rows of tally with them.

// statKey is what a row of statistics is about.
type statKey struct {
	hour         int64 // since 1970, by the wall clock
	endpoint     int64
	kind, tenant string
}

func compareKeys(a, b statKey) int {
	return cmp.Or(cmp.Compare(a.hour, b.hour), cmp.Compare(a.endpoint, b.endpoint), cmp.Compare(a.kind, b.kind), cmp.Compare(a.tenant, b.tenant))
}

// settled is what is counted of a settlement, or of an end without one.
type settled struct {
	state   outbox.State
	n       int  // number of the attempt
	attempt bool // there was one
	took    time.Duration
}

// tallies are the statistics that are not in the table stat yet.
type tallies struct {
	// Of the transaction under way.
	now   int64 // its hour since 1970, by the wall clock
	body  []byte
	keys  map[statKey]uint64 // places in body, from 1
	added []addition

	open  map[statKey]*outbox.Stat // of rows that are committed
	since time.Time                // of the first of them
	rows  int
	last  int64 // number of the last row of tally

	frozen  map[statKey]*outbox.Stat // on their way to stat, of the rows up to
	upto    int64
	order   []statKey // of frozen
	written int       // so many of order are in stat

	hour    int64                // of the keys below
	inHour  map[statKey]struct{} // which have a row already, at least outbox.MaxStatKeys of them
	aged    int64                // hour for which old rows were rolled up last
	readers int                  // reads under way, for which nothing moves to stat
}

type addition struct {
	key  statKey
	what settled
}

// Bounds of what is kept in tally.
const (
	rollAfter = 10 * time.Second
	rollRows  = 1000
	rollSlice = 64 // keys, or old rows, of a commit
)

// tally counts in the transaction under way.
func (s *Store) tally(e *entry, what settled) {
	t := &s.stats
	key := statKey{hour: t.now, endpoint: e.endpoint.id, kind: e.event.Type, tenant: e.event.Tenant}
	if key.hour != t.hour {
		t.hour, t.inHour = key.hour, map[statKey]struct{}{}
	}
	if _, known := t.inHour[key]; !known {
		if len(t.inHour) >= outbox.MaxStatKeys {
			key.kind, key.tenant = "", ""
		} else {
			t.inHour[key] = struct{}{}
		}
	}
	if len(t.body) == 0 {
		t.body = binary.AppendVarint(t.body, key.hour)
	}
	if t.keys == nil {
		t.keys = map[statKey]uint64{}
	}
	place, known := t.keys[key]
	t.body = binary.AppendUvarint(t.body, place)
	if !known {
		t.keys[key] = uint64(len(t.keys)) + 1
		t.body = binary.AppendUvarint(t.body, uint64(key.endpoint))
		t.body = appendText(appendText(t.body, key.kind), key.tenant)
	}
	flags := byte(slices.Index(states[:], what.state))
	if what.n == 1 {
		flags |= tallyFirst
	}
	if what.attempt {
		flags |= tallyAttempt
		what.took = max(what.took.Truncate(time.Microsecond), 0)
	}
	t.body = append(t.body, flags)
	if what.attempt {
		t.body = binary.AppendUvarint(t.body, uint64(what.took.Microseconds()))
	}
	t.added = append(t.added, addition{key, what})
}

// Flags of a settlement in tally, beside the place of its state.
const (
	tallyFirst   = 1 << 2
	tallyAttempt = 1 << 3
)

// writeTally writes what the transaction under way has counted.
func (s *Store) writeTally() error {
	t := &s.stats
	if len(t.body) == 0 {
		return nil
	}
	if err := s.db.addTally.int(t.last + 1).blob(t.body).exec(); err != nil {
		return fmt.Errorf("insert tally: %w", err)
	}
	return nil
}

// begin begins a transaction that counts in one hour, whatever becomes of the wall clock meanwhile. What one that failed
// has counted is forgotten.
func (t *tallies) begin(hour int64) {
	t.now, t.body, t.added = hour, t.body[:0], t.added[:0]
	clear(t.keys)
}

// commit adds what the transaction has counted, now that it is committed.
func (t *tallies) commit() {
	if len(t.body) == 0 {
		return
	}
	t.last++
	t.grow(t.added)
	t.begin(0)
}

// grow sums up a row.
func (t *tallies) grow(added []addition) {
	if len(t.open) == 0 {
		t.open, t.since = map[statKey]*outbox.Stat{}, time.Now()
	}
	t.rows++
	for _, a := range added {
		sum(t.open, a)
	}
}

func sum(sums map[statKey]*outbox.Stat, a addition) {
	row := sums[a.key]
	if row == nil {
		row = &outbox.Stat{}
		sums[a.key] = row
	}
	if a.what.attempt {
		row.Attempts++
		row.Took.Add(a.what.took)
	}
	switch a.what.state {
	case outbox.Delivered:
		row.Delivered++
		if a.what.n == 1 {
			row.FirstTry++
		}
	case outbox.Failed:
		row.Failed++
	case outbox.Discarded:
		row.Discarded++
	}
}

// parseTally reads a row of tally.
func parseTally(b []byte) (added []addition, err error) {
	r := reader{b: b}
	hour := r.varint()
	var keys []statKey
	for len(r.b) > 0 && !r.broken {
		place := r.uvarint()
		if place == 0 {
			keys = append(keys, statKey{hour: hour, endpoint: int64(r.uvarint()), kind: r.text(), tenant: r.text()})
			place = uint64(len(keys))
		}
		flags := r.bytes(1)
		if r.broken || place > uint64(len(keys)) {
			return nil, sqlite3.CORRUPT
		}
		what := settled{state: states[flags[0]&3], attempt: flags[0]&tallyAttempt > 0}
		if flags[0]&tallyFirst > 0 {
			what.n = 1
		}
		if what.attempt {
			what.took = time.Duration(r.uvarint()) * time.Microsecond
		}
		added = append(added, addition{keys[place-1], what})
	}
	return added, r.err()
}

// loadTallies reads what is not in stat yet.
func (s *Store) loadTallies() error {
	t := &s.stats
	*t = tallies{hour: s.clock.Wall(s.clock.Now()).Unix() / 3600, inHour: map[statKey]struct{}{}}
	t.upto, t.written, t.last = s.meta.tallied, s.meta.talliedKeys, s.meta.tallied
	q, err := s.db.query(`SELECT id, body FROM tally ORDER BY id`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		t.last = q.stmt.ColumnInt64(0)
		added, err := parseTally(q.stmt.ColumnRawBlob(1))
		if err != nil {
			return fmt.Errorf("read tally: %w", err)
		}
		if t.last > t.upto {
			t.grow(added)
			continue
		}
		if t.frozen == nil {
			t.frozen = map[statKey]*outbox.Stat{}
		}
		for _, a := range added {
			sum(t.frozen, a)
		}
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select tally: %w", err)
	}
	t.order = sortedKeys(t.frozen)
	for _, sums := range []map[statKey]*outbox.Stat{t.open, t.frozen} {
		for key := range sums {
			if key.hour == t.hour {
				t.inHour[key] = struct{}{}
			}
		}
	}
	keys, err := s.db.query(fmt.Sprintf(`SELECT endpoint, type, tenant FROM stat WHERE step = 1 AND start = %d`, t.hour))
	if err != nil {
		return err
	}
	defer keys.stmt.Close()
	for keys.step() {
		t.inHour[statKey{t.hour, keys.stmt.ColumnInt64(0), keys.stmt.ColumnText(1), keys.stmt.ColumnText(2)}] = struct{}{}
	}
	if err := keys.done(); err != nil {
		return fmt.Errorf("select statistics: %w", err)
	}
	return nil
}

func sortedKeys(sums map[statKey]*outbox.Stat) []statKey {
	keys := make([]statKey, 0, len(sums))
	for key := range sums {
		keys = append(keys, key)
	}
	sorting.By(keys, compareKeys)
	return keys
}

// rollAt is when rollUp has something to do; now or before if it has now, zero for never.
func (s *Store) rollAt(now time.Time) time.Time {
	switch t := &s.stats; {
	case t.readers > 0:
		return time.Time{}
	case len(t.order) > 0 || t.rows >= rollRows:
		return now
	case t.rows > 0:
		return t.since.Add(s.rollAfter)
	}
	return time.Time{}
}

// rollUp brings a slice of the sums to stat, in a commit of its own. A commit says how many keys it brings the
// number to, so that each is added once.
func (s *Store) rollUp() error {
	t := &s.stats
	if len(t.order) == 0 {
		t.frozen, t.order, t.upto, t.written = t.open, sortedKeys(t.open), t.last, 0
		t.open, t.rows = nil, 0
	}
	until := min(t.written+rollSlice, len(t.order))
	err := s.db.transact("NORMAL", func() error {
		for _, key := range t.order[t.written:until] {
			if err := s.addStat(1, key, t.frozen[key]); err != nil {
				return err
			}
		}
		keys := until
		if until == len(t.order) {
			keys = 0
			if err := s.db.dropTally.int(t.upto).exec(); err != nil {
				return fmt.Errorf("delete tally: %w", err)
			}
		}
		if err := s.db.setTallied.int(t.upto).int(int64(keys)).exec(); err != nil {
			return fmt.Errorf("update meta: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.written = until; until == len(t.order) {
		t.frozen, t.order, t.written = nil, nil, 0
	}
	return nil
}

// addStat adds to a row of stat.
func (s *Store) addStat(step int64, key statKey, more *outbox.Stat) error {
	total := outbox.Stat{}
	q := s.db.findStat.int(step).int(key.hour).int(key.endpoint).string(key.kind).string(key.tenant)
	var err error
	if q.step() {
		err = readSums(q, 0, &total)
	}
	if err := cmp.Or(err, q.done()); err != nil {
		return fmt.Errorf("select statistics: %w", err)
	}
	total.Add(more)
	err = s.db.setStat.int(step).int(key.hour).int(key.endpoint).string(key.kind).string(key.tenant).
		int(total.Delivered).int(total.Failed).int(total.Discarded).int(total.FirstTry).int(total.Attempts).blob(total.Took.Append(nil)).exec()
	if err != nil {
		return fmt.Errorf("write statistics: %w", err)
	}
	return nil
}

// readSums reads the sums of a row, whose columns begin at one.
func readSums(q *query, column int, row *outbox.Stat) (err error) {
	row.Delivered, row.Failed, row.Discarded = q.stmt.ColumnInt64(column), q.stmt.ColumnInt64(column+1), q.stmt.ColumnInt64(column+2)
	row.FirstTry, row.Attempts = q.stmt.ColumnInt64(column+3), q.stmt.ColumnInt64(column+4)
	if row.Took, err = sketch.Parse(q.stmt.ColumnRawBlob(column + 5)); err != nil {
		return fmt.Errorf("%w: %w", sqlite3.CORRUPT, err)
	}
	return nil
}

// age rolls a slice of old hours up to their days, and removes old days, in a commit of its own. It tells
// whether there are more.
func (s *Store) age() (more bool, err error) {
	now := s.clock.Wall(s.clock.Now())
	hours, days := old(now, outbox.HourlyFor), old(now, outbox.DailyFor)
	type row struct {
		key  statKey
		sums outbox.Stat
	}
	var rows []row
	q := s.db.oldStats.int(hours).int(rollSlice)
	for q.step() {
		r := row{key: statKey{q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnText(2), q.stmt.ColumnText(3)}}
		err = cmp.Or(err, readSums(q, 4, &r.sums))
		rows = append(rows, r)
	}
	if err := cmp.Or(err, q.done()); err != nil {
		return false, fmt.Errorf("select statistics: %w", err)
	}
	var removed int64
	err = s.db.transact("NORMAL", func() error {
		for _, r := range rows {
			day := r.key
			day.hour -= day.hour % 24
			if err := s.addStat(24, day, &r.sums); err != nil {
				return err
			}
			if err := s.db.dropStat.int(r.key.hour).int(r.key.endpoint).string(r.key.kind).string(r.key.tenant).exec(); err != nil {
				return fmt.Errorf("delete statistics: %w", err)
			}
		}
		if err := s.db.dropDays.int(days).int(rollSlice).exec(); err != nil {
			return fmt.Errorf("delete statistics: %w", err)
		}
		removed = s.db.conn.Changes()
		return nil
	})
	if err != nil {
		return false, err
	}
	return len(rows) == rollSlice || removed == rollSlice, nil
}

// old is the last hour whose start is longer ago than age, and nothing later.
func old(now time.Time, age time.Duration) int64 {
	return (now.Add(-age).Unix() - 1) / 3600
}
