package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// db is the only connection to the database, used by one goroutine at a time.
type db struct {
	conn *sqlite3.Conn
	path string
	sync string // what PRAGMA synchronous is set to

	wal     int       // pages in the write-ahead log that no checkpoint has copied
	written time.Time // when the last of them were

	begin, commit, rollback         *query
	pages, freePages, vacuum        *query
	findKey, addKey                 *query
	knownEvent, addEvent            *query
	addEndpoint, setCounts          *query
	addPending, dropPending, hasRow *query
	addDone, addAttempt             *query
	findMark, setMark, dropMarks    *query
	findNote, setNote, notes        *query
	due, unmarked                   *query
	findEvent, eventAt              *query
	ends, attempts, pendings        *query
	addName, addManual, dropManual  *query
	manualOf, findManual, findOnce  *query
	repeats, resent                 *query
	oldestFresh, oldestRetried      *query
	finals, punctual, dropDone      *query
	dropAttempts, goneCounts        *query
	targets, bare, dropEvent, strip *query
	dropKeys, saveMeta              *query
	addTally, dropTally, setTallied *query
	findStat, setStat, stats        *query
	oldStats, dropStat, dropDays    *query
	findDocument, documents         *query
	kindRevision, setKind           *query
	setDocument, dropDocuments      *query
	addLine, lines, dropLines       *query
	eraseEvent, eraseDone           *query
	eraseAttempts, eventLean        *query
	postings, setPosting            *query
	dropPosting, setListed, addType *query
	listEvents, listManual          *query
	doneBelow, doneAbove            *query
	stateBetween, pendingBetween    *query
	endBelow, endAbove              *query
	pendingBelow, pendingAbove      *query
	pendingAt, lastAttempt          *query
	eventBelow, eventAbove          *query
	dropPostings                    *query
	fresh, retried                  *query
}

// connect opens the file at path. Closing the connection must never write to it:
// what is refused stays as it was, and after a failed fsync nothing is tried again.
func connect(path, vfs string) (*db, error) {
	// The log is to get the database's mode, whatever the umask; see modeof in
	// the driver and https://sqlite.org/uri.html.
	params := "modeof=" + escape(path) + "&vfs=" + escape(registerJoined(vfs))
	uri := url.URL{Scheme: "file", Path: path, RawQuery: params}
	conn, err := sqlite3.OpenFlags(uri.String(), sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	d := &db{conn: conn, path: path}
	if _, err := conn.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// The hook takes the place of automatic checkpoints.
	conn.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		d.wal, d.written = pages, time.Now()
		return nil
	})
	return d, nil
}

// escape encodes a value of a URI parameter for SQLite, which reads no "+" as a
// space.
func escape(v string) string { return strings.ReplaceAll(url.QueryEscape(v), "+", "%20") }

// attemptColumns are those of an attempt, in both tables that keep some.
const attemptColumns = leanColumns + `, request, head, body`

// leanColumns are those without what was said.
const leanColumns = `started, took, dns, connect, tls, first_byte, status, outcome, error, more`

// attemptCount is how many attemptColumns there are.
const attemptCount = 13

// endsColumns is where the columns begin that follow those of an attempt.
const endsColumns = 5 + attemptCount

// recordColumns are those of an event with its deliveries.
const recordColumns = `seq, accepted, first, targets, erased, id, type, time, tenant, key, trace, more, data`

// walkColumns are those of the end of a delivery in a page.
const walkColumns = `seq, event, endpoint, state, attempts, finished, code, ` + leanColumns

// statColumns are those of the sums of statistics.
const statColumns = `delivered, failed, discarded, first_try, attempts, took`

// marks are n parameters of a statement.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// prepare compiles all statements once.
func (d *db) prepare() error {
	for _, p := range []struct {
		query **query
		sql   string
	}{
		{&d.begin, `BEGIN IMMEDIATE`},
		{&d.commit, `COMMIT`},
		{&d.rollback, `ROLLBACK`},
		{&d.pages, `PRAGMA page_count`},
		{&d.freePages, `PRAGMA freelist_count`},
		{&d.vacuum, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, vacuumSlice)},

		{&d.findKey, `SELECT print, receipts FROM idem WHERE key = ?`},
		{&d.addKey, `INSERT INTO idem (key, print, receipts, expires) VALUES (?, ?, ?, ?)`},
		{&d.knownEvent, `SELECT print, targets FROM event WHERE id = ?`},
		{&d.addEvent, `INSERT INTO event (seq, id, type, time, tenant, key, trace, accepted, first, targets, print, kept, more, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&d.addEndpoint, `INSERT INTO endpoint (id, name) VALUES (?, ?)`},
		{&d.setCounts, `UPDATE endpoint SET accepted = ?, delivered = ?, failed = ?, discarded = ? WHERE id = ?`},

		{&d.addPending, `INSERT INTO pending (endpoint, due, seq, event, attempts, code) VALUES (?, ?, ?, ?, ?, ?)`},
		{&d.dropPending, `DELETE FROM pending WHERE endpoint = ? AND due = ? AND seq = ?`},
		{&d.hasRow, `SELECT EXISTS (SELECT 1 FROM done WHERE seq = ?1) OR EXISTS (SELECT 1 FROM pending WHERE seq = ?1)`},
		{&d.addDone, `INSERT INTO done (seq, event, endpoint, state, late, attempts, finished, code, ` + attemptColumns + `) VALUES (` + marks(8+attemptCount) + `)`},
		{&d.addAttempt, `INSERT OR REPLACE INTO attempt (id, due, code, ` + attemptColumns + `) VALUES (` + marks(3+attemptCount) + `)`},

		{&d.findMark, `SELECT level FROM mark WHERE key = ? AND expires > ?`},
		{&d.setMark, `INSERT OR REPLACE INTO mark (key, level, expires) VALUES (?, ?, ?)`},
		{&d.dropMarks, `DELETE FROM mark WHERE key IN (SELECT key FROM mark WHERE expires <= ? ORDER BY expires LIMIT ?)`},

		{&d.findNote, `SELECT revision, text FROM note WHERE endpoint = ?`},
		{&d.setNote, `INSERT OR REPLACE INTO note (endpoint, revision, text) VALUES (?, ?, ?)`},
		{&d.notes, `SELECT endpoint, revision, text FROM note`},

		{&d.due, `SELECT p.seq, p.due, p.event, p.attempts, p.code, coalesce(m.created, e.accepted), m.origin, e.id, e.type, e.time, e.tenant, e.key, e.trace, e.more, e.data
			FROM pending p CROSS JOIN event e ON e.seq = p.event LEFT JOIN manual m ON m.seq = p.seq
			WHERE p.endpoint = ? AND p.due >= ? ORDER BY p.due, p.seq`},
		{&d.unmarked, `SELECT seq, accepted, first, targets FROM event WHERE seq > ? ORDER BY seq`},

		{&d.findEvent, `SELECT ` + recordColumns + ` FROM event WHERE id = ? AND kept < 2`},
		{&d.eventAt, `SELECT ` + recordColumns + ` FROM event WHERE seq = ? AND kept < 2`},
		{&d.pendings, `SELECT seq, due, event, endpoint, attempts, code FROM pending INDEXED BY pending_seq WHERE seq BETWEEN ? AND ?`},
		{&d.addName, `INSERT INTO name (id, text) VALUES (?, ?)`},
		{&d.addManual, `INSERT INTO manual (seq, event, endpoint, created, origin, once) VALUES (?, ?, ?, ?, ?, ?)`},
		{&d.dropManual, `DELETE FROM manual WHERE seq = ?`},
		{&d.manualOf, `SELECT seq, endpoint, created, origin FROM manual WHERE event = ? ORDER BY seq`},
		{&d.repeats, `SELECT seq, once FROM manual WHERE event = ? AND endpoint = ? ORDER BY seq DESC`},
		{&d.resent, `SELECT EXISTS (SELECT 1 FROM manual m CROSS JOIN endpoint p ON p.id = m.endpoint WHERE m.event = ? AND m.seq > ? AND p.name = ?)`},
		{&d.findManual, `SELECT origin, created FROM manual WHERE seq = ?`},
		{&d.findOnce, `SELECT seq FROM manual WHERE once = ?`},
		{&d.ends, `SELECT seq, state, attempts, finished, code, ` + attemptColumns + `, event, endpoint FROM done WHERE seq BETWEEN ? AND ?`},
		{&d.attempts, `SELECT id, due, code, ` + attemptColumns + ` FROM attempt WHERE id BETWEEN ? AND ?`},
		{&d.oldestFresh, `SELECT due FROM pending WHERE endpoint = ? AND due < ? AND attempts = 0 ORDER BY due LIMIT 1`},
		{&d.oldestRetried, `SELECT coalesce((SELECT created FROM manual WHERE seq = p.seq), e.accepted) FROM pending p INDEXED BY pending_retried CROSS JOIN event e ON e.seq = p.event
			WHERE p.endpoint = ? AND p.attempts > 0 ORDER BY p.seq LIMIT 1`},

		{&d.finals, `SELECT seq, event, endpoint, state FROM done INDEXED BY done_late WHERE late > 0 AND state = ? AND finished <= ? ORDER BY finished LIMIT ?`},
		{&d.punctual, `SELECT d.seq, d.event, d.endpoint, d.state, d.late, d.finished, coalesce(m.created, e.accepted)
			FROM done d CROSS JOIN event e ON e.seq = d.event LEFT JOIN manual m ON m.seq = d.seq WHERE d.seq > ? ORDER BY d.seq`},
		{&d.goneCounts, `UPDATE endpoint SET gone_delivered = ?, gone_failed = ?, gone_discarded = ? WHERE id = ?`},
		{&d.dropAttempts, `DELETE FROM attempt WHERE id BETWEEN ? AND ?`},
		{&d.dropDone, `DELETE FROM done WHERE seq = ?`},
		{&d.targets, `SELECT print IS NOT NULL AND accepted > ?, first, targets, EXISTS (SELECT 1 FROM manual WHERE event = event.seq) FROM event WHERE seq = ?`},
		{&d.bare, `SELECT seq, print IS NOT NULL AND accepted > ? FROM event INDEXED BY event_bare
			WHERE kept > 0 AND kept = ? AND accepted <= ? ORDER BY accepted LIMIT ?`},
		{&d.dropEvent, `DELETE FROM event WHERE seq = ?`},
		{&d.strip, `UPDATE event SET kept = 2, tenant = NULL, key = NULL, trace = NULL, more = NULL, data = NULL WHERE seq = ?`},
		{&d.dropKeys, `DELETE FROM idem WHERE key IN (SELECT key FROM idem WHERE expires <= ? ORDER BY expires LIMIT ?)`},

		{&d.addTally, `INSERT INTO tally (id, body) VALUES (?, ?)`},
		{&d.dropTally, `DELETE FROM tally WHERE id <= ?`},
		{&d.setTallied, `UPDATE meta SET tallied = ?, tallied_keys = ?`},
		{&d.findStat, `SELECT ` + statColumns + ` FROM stat WHERE step = ? AND start = ? AND endpoint = ? AND type = ? AND tenant = ?`},
		{&d.setStat, `INSERT OR REPLACE INTO stat (step, start, endpoint, type, tenant, ` + statColumns + `) VALUES (` + marks(11) + `)`},
		{&d.stats, `SELECT start, endpoint, type, tenant, ` + statColumns + ` FROM stat WHERE step = ? AND (start, endpoint, type, tenant) > (?, ?, ?, ?) AND start < ? ORDER BY start, endpoint, type, tenant`},
		{&d.oldStats, `SELECT start, endpoint, type, tenant, ` + statColumns + ` FROM stat WHERE step = 1 AND start <= ? LIMIT ?`},
		{&d.dropStat, `DELETE FROM stat WHERE step = 1 AND start = ? AND endpoint = ? AND type = ? AND tenant = ?`},
		{&d.dropDays, `DELETE FROM stat WHERE step = 24 AND (start, endpoint, type, tenant) IN (SELECT start, endpoint, type, tenant FROM stat WHERE step = 24 AND start <= ? LIMIT ?)`},

		{&d.findDocument, `SELECT revision, body FROM document WHERE kind = ? AND name = ?`},
		{&d.documents, `SELECT name, revision, body FROM document WHERE kind = ? AND revision > ? ORDER BY revision`},
		{&d.kindRevision, `SELECT revision FROM kind WHERE name = ?`},
		{&d.setKind, `INSERT OR REPLACE INTO kind (name, revision) VALUES (?, ?)`},
		{&d.setDocument, `INSERT OR REPLACE INTO document (kind, name, revision, changed, body) VALUES (?, ?, ?, ?, ?)`},
		{&d.dropDocuments, `DELETE FROM document WHERE (kind, name) IN (SELECT kind, name FROM document WHERE body IS NULL AND changed <= ? LIMIT ?)`},
		{&d.addLine, `INSERT INTO line (n, at, body) VALUES (?, ?, ?)`},
		{&d.lines, `SELECT n, at, body FROM line WHERE n < ? ORDER BY n DESC LIMIT ?`},
		{&d.dropLines, `DELETE FROM line WHERE n <= ?`},

		{&d.eraseEvent, `UPDATE event SET erased = ?, more = ?, data = NULL WHERE seq = ?`},
		{&d.eraseDone, `UPDATE done SET request = NULL, head = NULL, body = NULL WHERE seq = ?`},
		{&d.eraseAttempts, `UPDATE attempt SET request = NULL, head = NULL, body = NULL WHERE id BETWEEN ? AND ?`},
		{&d.eventLean, `SELECT id, type, time, tenant, key, more, erased, accepted FROM event WHERE seq = ?`},

		{&d.postings, `SELECT list FROM posting WHERE segment = ? AND term = ?`},
		{&d.setPosting, `INSERT OR REPLACE INTO posting (segment, term, list) VALUES (?, ?, ?)`},
		{&d.dropPosting, `DELETE FROM posting WHERE segment = ? AND term = ?`},
		{&d.dropPostings, `DELETE FROM posting WHERE (segment, term) IN (SELECT segment, term FROM posting WHERE segment >= ? AND segment < ? LIMIT ?)`},
		{&d.setListed, `UPDATE meta SET listed = ?, listed_event = ?`},
		{&d.addType, `INSERT OR IGNORE INTO type (name) VALUES (?)`},
		{&d.listEvents, `SELECT seq, first, targets, type, tenant, key, more FROM event WHERE seq >= ? AND targets IS NOT NULL AND kept < 2 ORDER BY seq`},
		{&d.listManual, `SELECT m.seq, m.event, m.endpoint, e.type, e.tenant, e.key, e.more FROM manual m CROSS JOIN event e ON e.seq = m.event WHERE m.seq BETWEEN ? AND ?`},

		{&d.doneBelow, `SELECT ` + walkColumns + ` FROM done WHERE seq <= ? AND seq >= ? ORDER BY seq DESC LIMIT 1`},
		{&d.doneAbove, `SELECT ` + walkColumns + ` FROM done WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT 1`},
		{&d.stateBetween, `SELECT seq FROM done INDEXED BY done_state WHERE state > 1 AND state = ? AND seq BETWEEN ? AND ?`},
		{&d.endBelow, `SELECT seq FROM done INDEXED BY done_state WHERE state > 1 AND state = ? AND seq <= ? ORDER BY seq DESC LIMIT 1`},
		{&d.endAbove, `SELECT seq FROM done INDEXED BY done_state WHERE state > 1 AND state = ? AND seq >= ? ORDER BY seq LIMIT 1`},
		{&d.pendingBetween, `SELECT seq FROM pending INDEXED BY pending_seq WHERE seq BETWEEN ? AND ?`},
		{&d.pendingBelow, `SELECT seq FROM pending INDEXED BY pending_seq WHERE seq <= ? ORDER BY seq DESC LIMIT 1`},
		{&d.pendingAbove, `SELECT seq FROM pending INDEXED BY pending_seq WHERE seq >= ? ORDER BY seq LIMIT 1`},
		{&d.pendingAt, `SELECT endpoint, due, event, attempts, code FROM pending INDEXED BY pending_seq WHERE seq = ?`},
		{&d.lastAttempt, `SELECT code, ` + leanColumns + ` FROM attempt WHERE id = ?`},
		{&d.eventBelow, `SELECT seq, accepted, first, targets FROM event WHERE seq <= ? ORDER BY seq DESC LIMIT 1`},
		{&d.eventAbove, `SELECT seq, accepted, first, targets FROM event WHERE seq > ? ORDER BY seq LIMIT 1`},
		{&d.fresh, `SELECT due, seq, attempts FROM pending WHERE endpoint = ? AND (due, seq) > (?, ?) AND due <= ? ORDER BY due, seq`},
		{&d.retried, `SELECT seq, event FROM pending INDEXED BY pending_retried WHERE endpoint = ? AND attempts > 0 AND seq > ? ORDER BY seq`},
		{&d.saveMeta, `UPDATE meta SET epoch = ?, next_event = ?, next_delivery = ?, watermark = ?, seen = ?, shift = ?`},
	} {
		stmt, _, err := d.conn.PrepareFlags(p.sql, sqlite3.PREPARE_PERSISTENT)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", p.sql, err)
		}
		*p.query = &query{stmt: stmt}
	}
	return nil
}

// transact runs write in one transaction and commits it with PRAGMA synchronous at
// the given setting: FULL waits for the disk, NORMAL does not. Any error rolls
// all of it back.
func (d *db) transact(sync string, write func() error) error {
	if err := d.setSync(sync); err != nil {
		return err
	}
	if err := d.begin.exec(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	err := write()
	if err == nil {
		if err = d.commit.exec(); err == nil {
			return nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	if d.conn.GetAutocommit() {
		return err // the error has rolled back already
	}
	return errors.Join(err, d.rollback.exec())
}

// setSync sets PRAGMA synchronous when it is something else: the pragma acts when
// it is compiled, so it cannot be kept prepared.
func (d *db) setSync(sync string) error {
	if d.sync == sync {
		return nil
	}
	if err := d.conn.Exec(`PRAGMA synchronous = ` + sync); err != nil {
		return fmt.Errorf("set synchronous: %w", err)
	}
	d.sync = sync
	return nil
}

// checkpoint copies the write-ahead log into the database file. It syncs both
// files, so that nothing in it is at risk at any level.
func (d *db) checkpoint(mode sqlite3.CheckpointMode) error {
	// With synchronous NORMAL and FULL the checkpoint is synced alike.
	if _, _, err := d.conn.WALCheckpoint("main", mode); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	d.wal = 0
	return nil
}

// used is how many pages hold something, and how many are free for reuse.
func (d *db) used() (used, free int64, err error) {
	all, err := d.pages.number()
	if err != nil {
		return 0, 0, err
	}
	free, err = d.freePages.number()
	return all - free, free, err
}

// close ends the connection and writes nothing.
func (d *db) close() error {
	for _, stmt := range slices.Collect(d.conn.Stmts()) {
		_ = stmt.Close() // repeats the error of the last step
	}
	return d.conn.Close()
}

// query compiles a statement that is run once.
func (d *db) query(sql string) (*query, error) {
	stmt, _, err := d.conn.Prepare(sql)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", sql, err)
	}
	return &query{stmt: stmt}, nil
}

// number runs a statement once that returns one number.
func (d *db) number(sql string) (int64, error) {
	q, err := d.query(sql)
	if err != nil {
		return 0, err
	}
	defer q.stmt.Close()
	return q.number()
}

// isFull tells whether the disk had no room for a write. The transaction was
// rolled back and can be tried again, unless it was the fsync that found out: then
// nobody knows what is on the disk.
func isFull(err error) bool {
	full := errors.Is(err, sqlite3.FULL) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	return full && !errors.Is(err, sqlite3.IOERR_FSYNC)
}

// explain marks an error that says that the file cannot be trusted, and tells the
// operator what to do.
func (d *db) explain(err error) error {
	for _, code := range []error{sqlite3.CORRUPT, sqlite3.NOTADB, sqlite3.IOERR_DATA, sqlite3.IOERR_CORRUPTFS} {
		if errors.Is(err, code) {
			return fmt.Errorf("%w: %s: %w; nothing was changed: restore the file from a copy, or move it and %s-wal away to start empty",
				outbox.ErrCorrupt, d.path, err, d.path)
		}
	}
	return fmt.Errorf("%s: %w", d.path, err)
}
