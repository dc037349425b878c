-- An outbox of format version 3, with one of everything. It never changes: what a
-- released Relay wrote must open for ever (promise P16).
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (
	prefix TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	next_event INTEGER NOT NULL,
	next_delivery INTEGER NOT NULL
) STRICT;
CREATE TABLE endpoint (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	accepted INTEGER NOT NULL DEFAULT 0,
	delivered INTEGER NOT NULL DEFAULT 0,
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
	first INTEGER NOT NULL,
	count INTEGER NOT NULL,
	print BLOB,
	kept INTEGER NOT NULL,
	data BLOB
) STRICT;
CREATE INDEX event_bare ON event(kept, accepted) WHERE kept > 0;
CREATE TABLE delivery (
	seq INTEGER PRIMARY KEY,
	event INTEGER NOT NULL,
	endpoint INTEGER NOT NULL,
	state INTEGER NOT NULL DEFAULT 0,
	attempts INTEGER NOT NULL DEFAULT 0,
	due INTEGER NOT NULL DEFAULT 0,
	finished INTEGER NOT NULL DEFAULT 0,
	code TEXT
) STRICT;
CREATE INDEX delivery_pending ON delivery(endpoint, due) WHERE state = 0;
CREATE INDEX delivery_retried ON delivery(endpoint) WHERE state = 0 AND due > 0;
CREATE INDEX delivery_final ON delivery(state, finished) WHERE state > 0;
CREATE TABLE attempt (
	id INTEGER PRIMARY KEY,
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
CREATE TABLE clock (
	seen INTEGER NOT NULL,
	shift INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES ('fixture', 3, 5, 9);
INSERT INTO endpoint VALUES (1, 'billing', 2, 0, 1, 0), (2, 'search', 2, 1, 0, 0);
INSERT INTO event VALUES
	(5, 'app-1', 'invoice.paid', 1770091506789123, 'acme', 'invoice/1', 1770091506800000, 9, 2,
		X'0101010101010101010101010101010101010101010101010101010101010101', 0, CAST('{"amount":1}' AS BLOB)),
	(6, 'evt_2', 'invoice.paid', 1770091507000000, NULL, NULL, 1770091507000001, 11, 2, NULL, 0, NULL),
	(7, 'evt_3', 'nobody.cares', 1770091508000000, NULL, NULL, 1770091508000001, 13, 0, NULL, 1, CAST('{}' AS BLOB)),
	(8, 'app-4', 'invoice.paid', 1770091509000000, NULL, NULL, 1770091509000001, 8, 1,
		X'0404040404040404040404040404040404040404040404040404040404040404', 2, NULL);
INSERT INTO delivery VALUES
	(9, 5, 1, 0, 1, 1770091600000000, 0, 'http_503'),
	(10, 5, 2, 1, 1, 0, 1770091510000000, NULL),
	(11, 6, 1, 2, 1, 0, 1770091511000000, 'tls_name'),
	(12, 6, 2, 0, 0, 0, 0, NULL);
INSERT INTO attempt VALUES
	(9 * 65536 + 1, 1770091509500000, 1500, 100, 200, 300, 1400, 503, 'retry', 'http_503', 'receiver answered 503', 'HTTP/1.1 503 Service Unavailable', CAST('busy' AS BLOB)),
	(10 * 65536 + 1, 1770091509600000, 1000, 0, 0, 0, 900, 200, 'delivered', NULL, NULL, 'HTTP/1.1 200 OK', NULL),
	(11 * 65536 + 1, 1770091510900000, 1000, 0, 0, 0, 0, 0, 'refused', 'tls_name', 'certificate is for another name', NULL, NULL);
INSERT INTO idem VALUES ('key-1', X'0505050505050505050505050505050505050505050505050505050505050505', '[{"ID":"evt_2","Deliveries":2,"Duplicate":false}]', 1770177907000000);
INSERT INTO note VALUES ('billing', 4, X'706175736564'), ('search', 3, NULL);
INSERT INTO clock VALUES (1770091511000000, 0);
INSERT INTO mark VALUES ('billing order/1', 3, 4102444800000000);
PRAGMA application_id = 1382378617;
PRAGMA user_version = 3;
COMMIT;
