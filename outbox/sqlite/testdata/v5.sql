-- An outbox of format version 5, with one of everything, as a crash left it. It never changes: what a
-- released Relay wrote must open for ever (promise P16).
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (
	prefix TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	next_event INTEGER NOT NULL,
	next_delivery INTEGER NOT NULL,
	watermark INTEGER NOT NULL,
	seen INTEGER NOT NULL,
	shift INTEGER NOT NULL,
	listed INTEGER NOT NULL,
	listed_event INTEGER NOT NULL,
	tallied INTEGER NOT NULL,
	tallied_keys INTEGER NOT NULL
) STRICT;
CREATE TABLE name (
	id INTEGER PRIMARY KEY,
	text TEXT NOT NULL
) STRICT;
CREATE TABLE endpoint (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	accepted INTEGER NOT NULL DEFAULT 0,
	delivered INTEGER NOT NULL DEFAULT 0,
	failed INTEGER NOT NULL DEFAULT 0,
	discarded INTEGER NOT NULL DEFAULT 0,
	gone_delivered INTEGER NOT NULL DEFAULT 0,
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
	trace TEXT,
	accepted INTEGER NOT NULL,
	first INTEGER NOT NULL,
	targets BLOB,
	print BLOB,
	kept INTEGER NOT NULL,
	erased INTEGER,
	more BLOB,
	data BLOB
) STRICT;
CREATE INDEX event_bare ON event(kept, accepted) WHERE kept > 0;
CREATE TABLE pending (
	endpoint INTEGER NOT NULL,
	due INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	event INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	code TEXT,
	PRIMARY KEY (endpoint, due, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_retried ON pending(endpoint, seq) WHERE attempts > 0;
CREATE INDEX pending_seq ON pending(seq);
CREATE TABLE manual (
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	created INTEGER NOT NULL,
	origin INTEGER NOT NULL,
	once TEXT
) STRICT;
CREATE INDEX manual_event ON manual(event);
CREATE UNIQUE INDEX manual_once ON manual(once) WHERE once IS NOT NULL;
CREATE TABLE done (
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	state INTEGER NOT NULL,
	late INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	finished INTEGER NOT NULL,
	code TEXT,
	started INTEGER,
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
CREATE INDEX done_late ON done(state, finished) WHERE late > 0;
CREATE INDEX done_state ON done(state, seq) WHERE state > 1;
CREATE TABLE attempt (
	id INTEGER PRIMARY KEY,
	due INTEGER NOT NULL,
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
CREATE TABLE posting (
	segment INTEGER NOT NULL,
	term INTEGER NOT NULL,
	list BLOB NOT NULL,
	PRIMARY KEY (segment, term)
) STRICT, WITHOUT ROWID;
CREATE TABLE type (
	name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE tally (
	id INTEGER PRIMARY KEY,
	body BLOB NOT NULL
) STRICT;
CREATE TABLE stat (
	step INTEGER NOT NULL,
	start INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	type TEXT NOT NULL,
	tenant TEXT NOT NULL,
	delivered INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	discarded INTEGER NOT NULL,
	first_try INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	took BLOB,
	PRIMARY KEY (step, start, endpoint, type, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE document (
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	revision INTEGER NOT NULL,
	changed INTEGER NOT NULL,
	body BLOB,
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX document_revision ON document(kind, revision);
CREATE INDEX document_removed ON document(changed) WHERE body IS NULL;
CREATE TABLE kind (
	name TEXT PRIMARY KEY,
	revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE line (
	n INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	body BLOB
) STRICT;
CREATE TABLE idem (
	key TEXT PRIMARY KEY,
	print BLOB NOT NULL,
	receipts TEXT NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idem_expires ON idem(expires);
CREATE TABLE note (
	endpoint TEXT PRIMARY KEY,
	revision INTEGER NOT NULL,
	text BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE mark (
	key TEXT PRIMARY KEY,
	level INTEGER NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mark_expires ON mark(expires);
INSERT INTO meta VALUES ('fixture', 3, 5, 9, 5, 1770091511000000, 0, 0, 1, 1, 1);
INSERT INTO endpoint VALUES (1, 'billing', 2, 0, 1, 0, 0, 0, 0), (2, 'search', 3, 2, 0, 0, 0, 0, 0), (3, 'audit', 2, 0, 1, 0, 0, 0, 0);
INSERT INTO name VALUES (1, 'http'), (2, 'relay-1'), (3, 'data.amount'), (4, '10.0.0.7:443');
-- The watermark is at 5. Of event 4 a delivery is pending with a row, of event 6 one without.
INSERT INTO event VALUES
	(4, 'evt_1', 'user.created', 1770091505000000, NULL, NULL, NULL, 1770091506000000, 8, X'03', NULL, 0, NULL, NULL, CAST('{}' AS BLOB)),
	(5, 'app-1', 'invoice.paid', 1770091506789123, 'acme', 'invoice/1', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 app=1', 1770091506800000, 9, X'0102',
		X'0101010101010101010101010101010101010101010101010101010101010101', 0, NULL, X'0102030131', CAST('{"amount":1}' AS BLOB)),
	(6, 'evt_2', 'invoice.paid', 1770091507000000, NULL, NULL, NULL, 1770091507000001, 11, X'010203', NULL, 0, 1770091512000000, NULL, NULL),
	(7, 'evt_3', 'nobody.cares', 1770091508000000, NULL, NULL, NULL, 1770091508000001, 14, NULL, NULL, 1, NULL, NULL, CAST('{}' AS BLOB)),
	(8, 'app-4', 'invoice.paid', 1770091505500000, NULL, NULL, NULL, 1770091509000001, 14, NULL,
		X'0404040404040404040404040404040404040404040404040404040404040404', 2, NULL, NULL, NULL);
INSERT INTO pending VALUES
	(1, 1770091600000000, 9, 5, 1, 'http_503'),
	(3, 1770091506000000, 8, 4, 0, NULL);
INSERT INTO attempt VALUES
	(9 * 65536 + 1, 1770091600000000, 'http_503', 1770091509500000, 1500, 100, 200, 300, 1400, 503, 'r', 'receiver answered 503', X'03040202D00F', 'POST https://billing.example/hook', 'HTTP/1.1 503 Service Unavailable', CAST('busy' AS BLOB)),
	(11 * 65536 + 1, 1770091508000000, 'connect', 1770091507500000, 1000, 0, 0, 0, 0, 0, 'r', 'connection refused', NULL, NULL, NULL, NULL);
INSERT INTO done VALUES
	(10, 5, 2, 1, 0, 1, 1770091510000000, NULL, 1770091509600000, 1000, 0, 0, 0, 900, 200, 'd', NULL, NULL, NULL, 'HTTP/1.1 200 OK', NULL),
	(11, 6, 1, 2, 1, 2, 1770091511000000, 'tls_name', 1770091510900000, 1000, 0, 0, 0, 0, 0, 'n', 'certificate is for another name', NULL, NULL, NULL, NULL),
	(13, 6, 3, 2, 1, 0, 1770091507000001, 'body_error', NULL, 0, 0, 0, 0, 0, 0, NULL, 'no such field', NULL, NULL, NULL, NULL),
	(14, 5, 2, 1, 1, 1, 1770091511000000, NULL, 1770091510500000, 1000, 0, 0, 0, 0, 200, 'd', NULL, NULL, NULL, NULL, NULL);
INSERT INTO manual VALUES (14, 5, 2, 1770091510200000, 10, 'job 1');
-- Of the first row of tally, one of two keys is in stat.
INSERT INTO tally VALUES (1, X'D8823C00010C696E766F6963652E70616964000AE80700020C696E766F6963652E706169640461636D650DE807'), (2, X'D8823C00020C696E766F6963652E706169640461636D650DE80700030C696E766F6963652E706169640002');
INSERT INTO stat VALUES (1, 491692, 1, 'invoice.paid', '', 0, 1, 0, 0, 1, X'C0843D7401');
INSERT INTO document VALUES ('job', 'a', 2, 1770091511000000, CAST('{}' AS BLOB)), ('job', 'b', 3, 1770091511000000, NULL);
INSERT INTO kind VALUES ('job', 3);
INSERT INTO line VALUES (1, 1770091511000000, CAST('first' AS BLOB));
INSERT INTO type VALUES ('invoice.paid');
INSERT INTO idem VALUES ('key-1', X'0505050505050505050505050505050505050505050505050505050505050505', '[{"ID":"evt_2","Deliveries":2,"Duplicate":false}]', 4102444800000000);
INSERT INTO note VALUES ('billing', 4, X'706175736564'), ('search', 3, NULL);
INSERT INTO mark VALUES ('billing order/1', 3, 4102444800000000);
PRAGMA application_id = 1382378617;
PRAGMA user_version = 5;
COMMIT;
