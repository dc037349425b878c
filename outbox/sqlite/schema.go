package sqlite

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox/clock"
)

// Marks of the file format, in the header of the database.
const (
	applicationID = 0x52656C79 // "Rely"
	formatVersion = 3          // PRAGMA user_version
)

// schema is format version 3. Times are microseconds since 1970 by the outbox's clock, but for
// event.time and attempt.started, which are as they were given; durations are microseconds.
//
// A delivery's due time is 0 until its first attempt. So the pending index holds
// an endpoint's fresh deliveries in the order of accept, whatever the clock did, and
// behind them its retries in the order of their due times.
const schema = `
CREATE TABLE meta (
	prefix TEXT NOT NULL,            -- of the ids of deliveries
	epoch INTEGER NOT NULL,          -- how often the outbox was opened; upper bits of a fence
	next_event INTEGER NOT NULL,     -- at least; rows above were written since the last reap
	next_delivery INTEGER NOT NULL
) STRICT;
CREATE TABLE endpoint (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	accepted INTEGER NOT NULL DEFAULT 0,  -- counts since the outbox was made,
	delivered INTEGER NOT NULL DEFAULT 0, -- written in the commit of what they count
	failed INTEGER NOT NULL DEFAULT 0,
	discarded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE event (
	seq INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	type TEXT NOT NULL,
	time INTEGER NOT NULL,
	tenant TEXT,
	key TEXT,
	accepted INTEGER NOT NULL,
	first INTEGER NOT NULL,          -- its deliveries are first to first + count - 1
	count INTEGER NOT NULL,
	print BLOB,                      -- fingerprint, when the app chose the id
	kept INTEGER NOT NULL,           -- 0 for its deliveries, 1 though nobody wanted it, 2 only to know the id again
	data BLOB
) STRICT;
CREATE INDEX event_bare ON event(kept, accepted) WHERE kept > 0;
CREATE TABLE delivery (
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	state INTEGER NOT NULL DEFAULT 0, -- 0 pending, 1 delivered, 2 failed, 3 discarded
	attempts INTEGER NOT NULL DEFAULT 0,
	due INTEGER NOT NULL DEFAULT 0,
	finished INTEGER NOT NULL DEFAULT 0,
	code TEXT
) STRICT;
CREATE INDEX delivery_pending ON delivery(endpoint, due) WHERE state = 0;
CREATE INDEX delivery_retried ON delivery(endpoint) WHERE state = 0 AND due > 0;
CREATE INDEX delivery_final ON delivery(state, finished) WHERE state > 0;
CREATE TABLE attempt (
	id INTEGER PRIMARY KEY,          -- delivery * 65536 + number of the attempt; 0 holds the error of one that failed without any
	started INTEGER NOT NULL,
	took INTEGER NOT NULL,
	dns INTEGER NOT NULL,
	connect INTEGER NOT NULL,
	tls INTEGER NOT NULL,
	first_byte INTEGER NOT NULL,
	status INTEGER NOT NULL,
	outcome TEXT,
	code TEXT,
	error TEXT,
	head TEXT,
	body BLOB
) STRICT;
CREATE TABLE idem (
	key TEXT PRIMARY KEY,            -- idempotency key of a batch
	print BLOB NOT NULL,
	receipts TEXT NOT NULL,          -- JSON
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idem_expires ON idem(expires);
` + laterTables + clockTable

// laterTables are what format version 1 did not have.
const laterTables = `CREATE TABLE note (
	endpoint TEXT PRIMARY KEY,       -- by name: one without deliveries has no row
	revision INTEGER NOT NULL,       -- rises with each write, over all rows; none is ever removed
	text BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE mark (
	key TEXT PRIMARY KEY,
	level INTEGER NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mark_expires ON mark(expires);
`

// clockTable is what format version 2 did not have: its times were the wall clock's.
const clockTable = `CREATE TABLE clock (
	seen INTEGER NOT NULL,           -- the outbox's time was that far at least
	shift INTEGER NOT NULL           -- of the wall clock against it
) STRICT;
INSERT INTO clock VALUES (0, 0);
`

// meta is the row of the table meta.
type meta struct {
	prefix       string
	epoch        uint64
	nextEvent    int64
	nextDelivery int64
	revision     uint64 // of the last note
	clock        clock.State
}

// setup checks that the file is ours and of a format that we know, makes the
// schema when it is new, and settles how the connection works. A file that it refuses
// is left as it was.
func (d *db) setup() error {
	// One connection, ever: no shared memory, and the log's index is on the heap.
	if err := d.conn.Exec(`PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF`); err != nil {
		return err
	}
	var id, version, tables int64
	for _, mark := range []struct {
		value *int64
		sql   string
	}{{&id, `PRAGMA application_id`}, {&version, `PRAGMA user_version`}, {&tables, `SELECT count(*) FROM sqlite_schema`}} {
		var err error
		if *mark.value, err = d.number(mark.sql); err != nil {
			return err
		}
	}
	switch {
	case id == 0 && version == 0 && tables == 0:
		if err := d.create(); err != nil {
			return fmt.Errorf("create: %w", err)
		}
	case id != applicationID:
		return fmt.Errorf("this is no outbox of Relay but another program's database (application id %#x); choose another path", id)
	case version < 1 || version > formatVersion:
		return fmt.Errorf("it has format version %d, this Relay knows version %d; use the Relay that wrote it, or a newer one", version, formatVersion)
	}
	if err := d.configure(); err != nil {
		return err
	}
	if version == 0 || version == formatVersion {
		return nil
	}
	return d.upgrade(version)
}

// upgrade brings a file from an earlier format version to this one with one commit.
func (d *db) upgrade(version int64) error {
	later := clockTable
	if version == 1 {
		later = laterTables + clockTable
	}
	if err := d.conn.Exec(fmt.Sprintf(`BEGIN; %s PRAGMA user_version = %d; COMMIT`, later, formatVersion)); err != nil {
		return fmt.Errorf("go to format version %d: %w", formatVersion, err)
	}
	return nil
}

// create makes an empty outbox. It comes into being with one commit: before it,
// the file holds no table and is made again.
func (d *db) create() error {
	// Eight bytes at the end of each page are its checksum, so that a flipped bit is
	// found when the page is read: https://sqlite.org/cksumvfs.html.
	if _, err := d.conn.FileControl("main", sqlite3.FCNTL_RESERVE_BYTES, 8); err != nil {
		return fmt.Errorf("reserve checksums: %w", err)
	}
	if err := d.conn.Exec(`PRAGMA auto_vacuum = INCREMENTAL`); err != nil {
		return err
	}
	if err := d.configure(); err != nil {
		return err
	}
	// Lower case letters and digits, 50 bits: enough to tell outboxes apart.
	prefix := strings.ToLower(rand.Text()[:10])
	if err := d.conn.Exec(fmt.Sprintf(`BEGIN; %s
		INSERT INTO meta VALUES ('%s', 0, 1, 1);
		PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT`, schema, prefix, applicationID, formatVersion)); err != nil {
		return err
	}
	return d.checkpoint(sqlite3.CHECKPOINT_TRUNCATE)
}

// configure sets what SQLite does not keep in the file.
func (d *db) configure() error {
	if err := d.conn.Exec(fmt.Sprintf(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
		PRAGMA journal_size_limit = %d; PRAGMA cache_size = -%d`, walLimit, cacheSize>>10)); err != nil {
		return err
	}
	d.sync = "FULL"
	return nil
}

// readMeta reads the meta row. The numbers to come are above all that are or were
// in use.
func (d *db) readMeta() (meta, error) {
	q, err := d.query(`SELECT prefix, epoch,
		max(next_event, 1 + coalesce((SELECT max(seq) FROM event), 0)),
		max(next_delivery, 1 + coalesce((SELECT max(seq) FROM delivery), 0)),
		(SELECT coalesce(max(revision), 0) FROM note), seen, shift FROM meta, clock`)
	if err != nil {
		return meta{}, err
	}
	defer q.stmt.Close()
	var m meta
	if q.step() {
		m = meta{
			prefix:       q.stmt.ColumnText(0),
			epoch:        uint64(q.stmt.ColumnInt64(1)),
			nextEvent:    q.stmt.ColumnInt64(2),
			nextDelivery: q.stmt.ColumnInt64(3),
			revision:     uint64(q.stmt.ColumnInt64(4)),
			clock:        clock.State{Seen: q.stmt.ColumnInt64(5), Shift: q.stmt.ColumnInt64(6)},
		}
	}
	err = q.done()
	if err == nil && m.prefix == "" {
		err = sqlite3.CORRUPT // no row
	}
	if err != nil {
		return meta{}, fmt.Errorf("read meta: %w", err)
	}
	return m, nil
}

// raiseEpoch is the first write of every opening.
func (d *db) raiseEpoch(now clock.State) error {
	if err := d.conn.Exec(fmt.Sprintf(`BEGIN; UPDATE meta SET epoch = epoch + 1; UPDATE clock SET seen = %d, shift = %d; COMMIT`, now.Seen, now.Shift)); err != nil {
		return fmt.Errorf("raise epoch: %w", err)
	}
	return nil
}
