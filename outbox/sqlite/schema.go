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
	formatVersion = 5          // PRAGMA user_version
)

// schema is format version 5. Times are microseconds since 1970 by the outbox's clock, but for
// event.time and those of attempts, which are as they were given; durations are microseconds.
// ../DESIGN.md tells which deliveries have a row, and where.
const schema = `
CREATE TABLE meta (
	prefix TEXT NOT NULL,            -- of the ids of deliveries
	epoch INTEGER NOT NULL,          -- how often the outbox was opened; upper bits of a fence
	next_event INTEGER NOT NULL,     -- at least; rows above were written since this one was
	next_delivery INTEGER NOT NULL,
	watermark INTEGER NOT NULL,      -- no delivery of an event up to this one is pending without a row
	seen INTEGER NOT NULL,           -- the outbox's time was that far at least
	shift INTEGER NOT NULL,          -- of the wall clock against it
	listed INTEGER NOT NULL,         -- postings have all deliveries of the segments below this one
	listed_event INTEGER NOT NULL,   -- no event below this one has deliveries in other segments
	tallied INTEGER NOT NULL,        -- of the rows of tally up to this one,
	tallied_keys INTEGER NOT NULL    -- so many keys are in stat already
) STRICT;
CREATE TABLE name (                  -- texts that come again and again, by number
	id INTEGER PRIMARY KEY,
	text TEXT NOT NULL
) STRICT;
CREATE TABLE endpoint (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	accepted INTEGER NOT NULL DEFAULT 0,  -- counts since the outbox was made,
	delivered INTEGER NOT NULL DEFAULT 0, -- written in the commit of what they count
	failed INTEGER NOT NULL DEFAULT 0,
	discarded INTEGER NOT NULL DEFAULT 0,
	gone_delivered INTEGER NOT NULL DEFAULT 0, -- so many of them were removed
	gone_failed INTEGER NOT NULL DEFAULT 0,
	gone_discarded INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE event (
	seq INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	type TEXT NOT NULL,
	time INTEGER NOT NULL,
	tenant TEXT,
	key TEXT,
	trace TEXT,                      -- as in outbox.Event
	accepted INTEGER NOT NULL,
	first INTEGER NOT NULL,          -- its deliveries have the numbers from this one on,
	targets BLOB,                    -- one for each of these endpoints, given by id as uvarints
	print BLOB,                      -- fingerprint, when the app chose the id
	kept INTEGER NOT NULL,           -- 0 for its deliveries, 1 though nobody wanted it, 2 only to know the id again
	erased INTEGER,                  -- when its data was
	more BLOB,                       -- see appendEventMore
	data BLOB
) STRICT;
CREATE INDEX event_bare ON event(kept, accepted) WHERE kept > 0;
CREATE TABLE pending (
	endpoint INTEGER NOT NULL,
	due INTEGER NOT NULL,            -- of a fresh one: when its event was accepted
	seq INTEGER NOT NULL,
	event INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	code TEXT,
	PRIMARY KEY (endpoint, due, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_retried ON pending(endpoint, seq) WHERE attempts > 0;
CREATE INDEX pending_seq ON pending(seq);
CREATE TABLE manual (                -- deliveries that an operator made
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	created INTEGER NOT NULL,
	origin INTEGER NOT NULL,         -- the delivery that it repeats; 0 for a target of its event
	once TEXT                        -- of the change that made it
) STRICT;
CREATE INDEX manual_event ON manual(event);
CREATE UNIQUE INDEX manual_once ON manual(once) WHERE once IS NOT NULL;
CREATE TABLE done (
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	state INTEGER NOT NULL,          -- 1 delivered, 2 failed, 3 discarded
	late INTEGER NOT NULL,           -- 0 if delivered within lateAfter of its accept
	attempts INTEGER NOT NULL,
	finished INTEGER NOT NULL,
	code TEXT,
	started INTEGER,                 -- from here on the last attempt; NULL if it is among the others, or there is none
	took INTEGER NOT NULL,
	dns INTEGER NOT NULL,
	connect INTEGER NOT NULL,
	tls INTEGER NOT NULL,
	first_byte INTEGER NOT NULL,
	status INTEGER NOT NULL,
	outcome TEXT,
	error TEXT,
	more BLOB,                       -- see appendAttemptMore
	request TEXT,
	head TEXT,
	body BLOB
) STRICT;
CREATE INDEX done_late ON done(state, finished) WHERE late > 0;
CREATE INDEX done_state ON done(state, seq) WHERE state > 1;
CREATE TABLE attempt (
	id INTEGER PRIMARY KEY,          -- delivery * 65536 + number of the attempt
	due INTEGER NOT NULL,            -- of the next one
	code TEXT,
	started INTEGER NOT NULL,
	took INTEGER NOT NULL,
	dns INTEGER NOT NULL,
	connect INTEGER NOT NULL,
	tls INTEGER NOT NULL,
	first_byte INTEGER NOT NULL,
	status INTEGER NOT NULL,
	outcome TEXT,
	error TEXT,
	more BLOB,
	request TEXT,
	head TEXT,
	body BLOB
) STRICT;
CREATE TABLE posting (               -- of a segment of deliveries, by number
	segment INTEGER NOT NULL,
	term INTEGER NOT NULL,           -- hash of what they have in common, or below 0 a bucket of rare terms
	list BLOB NOT NULL,
	PRIMARY KEY (segment, term)
) STRICT, WITHOUT ROWID;
CREATE TABLE type (                  -- of all events that are in postings
	name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE tally (                 -- what each commit settled, until it is in stat
	id INTEGER PRIMARY KEY,
	body BLOB NOT NULL
) STRICT;
CREATE TABLE stat (
	step INTEGER NOT NULL,           -- hours: 1 or 24
	start INTEGER NOT NULL,          -- hours since 1970, by the wall clock
	endpoint INTEGER NOT NULL,
	type TEXT NOT NULL,
	tenant TEXT NOT NULL,
	delivered INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	discarded INTEGER NOT NULL,
	first_try INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	took BLOB,                       -- sketch
	PRIMARY KEY (step, start, endpoint, type, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE document (
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	revision INTEGER NOT NULL,       -- rises with each write, over all rows of a kind
	changed INTEGER NOT NULL,
	body BLOB,                       -- NULL once it was removed
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX document_revision ON document(kind, revision);
CREATE INDEX document_removed ON document(changed) WHERE body IS NULL;
CREATE TABLE kind (                  -- of documents
	name TEXT PRIMARY KEY,
	revision INTEGER NOT NULL        -- of the last write
) STRICT, WITHOUT ROWID;
CREATE TABLE line (                  -- of the journal
	n INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	body BLOB
) STRICT;
CREATE TABLE idem (
	key TEXT PRIMARY KEY,            -- idempotency key of a batch
	print BLOB NOT NULL,
	receipts TEXT NOT NULL,          -- JSON
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idem_expires ON idem(expires);
CREATE TABLE note (
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

// meta is the row of the table meta.
type meta struct {
	prefix       string
	epoch        uint64
	nextEvent    int64
	nextDelivery int64
	watermark    int64
	revision     uint64 // of the last note
	line         uint64 // of the journal, the last one
	manual       bool   // an operator made deliveries
	tallied      int64
	talliedKeys  int
	listed       int64
	listedEvent  int64
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
	default:
		if err := readable(id, version); err != nil {
			return err
		}
	}
	return d.configure()
}

// readable is nil for a file of ours that has the format this Relay reads. The part of the error
// after "; " says what to do.
func readable(id, version int64) error {
	switch {
	case id != applicationID:
		return fmt.Errorf("this is no outbox of Relay but another program's database (application id %#x); choose another path", id)
	case version > 0 && version < formatVersion:
		return fmt.Errorf("it has format version %d and was written by a build before the first release, this Relay knows version %d; drain it with that build, or move it away", version, formatVersion)
	case version != formatVersion:
		return fmt.Errorf("it has format version %d, this Relay knows version %d; use the Relay that wrote it, or a newer one", version, formatVersion)
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
		INSERT INTO meta VALUES ('%s', 0, 1, 1, 0, 0, 0, 0, 1, 0, 0);
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
// in use, and the clock is not before the last accept.
func (d *db) readMeta() (meta, error) {
	q, err := d.query(`SELECT prefix, epoch, max(next_event, 1 + coalesce(seq, 0)), next_delivery, watermark,
		(SELECT coalesce(max(revision), 0) FROM note), max(seen, coalesce(accepted, 0)), shift, coalesce(first, 0), targets,
		(SELECT coalesce(max(seq), 0) FROM manual), (SELECT coalesce(max(n), 0) FROM line),
		tallied, tallied_keys, listed, listed_event
		FROM meta LEFT JOIN (SELECT * FROM event ORDER BY seq DESC LIMIT 1)`)
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
			nextDelivery: max(q.stmt.ColumnInt64(3), q.stmt.ColumnInt64(8)+int64(countTargets(q.stmt.ColumnRawBlob(9))), q.stmt.ColumnInt64(10)+1),
			watermark:    q.stmt.ColumnInt64(4),
			revision:     uint64(q.stmt.ColumnInt64(5)),
			line:         uint64(q.stmt.ColumnInt64(11)),
			manual:       q.stmt.ColumnInt64(10) > 0,
			tallied:      q.stmt.ColumnInt64(12),
			talliedKeys:  q.stmt.ColumnInt(13),
			listed:       q.stmt.ColumnInt64(14),
			listedEvent:  q.stmt.ColumnInt64(15),
			clock:        clock.State{Seen: q.stmt.ColumnInt64(6), Shift: q.stmt.ColumnInt64(7)},
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

// writeMeta writes the meta row in the transaction under way.
func (d *db) writeMeta(m meta, now clock.State) error {
	if err := d.saveMeta.int(int64(m.epoch)).int(m.nextEvent).int(m.nextDelivery).int(m.watermark).int(now.Seen).int(now.Shift).exec(); err != nil {
		return fmt.Errorf("update meta: %w", err)
	}
	return nil
}
