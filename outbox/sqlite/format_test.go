package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// fixture is an outbox that a Relay of the given format version wrote.
func fixture(t *testing.T, version int) string {
	t.Helper()
	sql, err := os.ReadFile(fmt.Sprintf("testdata/v%d.sql", version))
	if err != nil {
		t.Fatal(err)
	}
	return string(sql)
}

// TestFormat opens outboxes that Relay wrote, of this format and earlier ones (promise
// P16), and finds everything in them.
func TestFormat(t *testing.T) {
	notes := map[int][]outbox.Note{2: {{Endpoint: "billing", Revision: 4, Text: []byte("paused")}, {Endpoint: "search", Revision: 3}}}
	notes[3] = notes[2]
	for version := 1; version <= formatVersion; version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			dir := t.TempDir()
			execute(t, filepath.Join(dir, "relay.db"), fixture(t, version))
			s := openTest(t, Options{Dir: dir})
			wantNotes(t, s, notes[version]...)
			testFixture(t, s)
			testFixtureMark(t, s, version)
			if err := s.Close(); err != nil { // the format goes up once
				t.Fatal(err)
			}
			wantNotes(t, openTest(t, Options{Dir: dir}), notes[version]...)
		})
	}
}

func wantNotes(t *testing.T, s *Store, want ...outbox.Note) {
	t.Helper()
	got, revision, err := s.Notes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	for _, n := range want {
		last = max(last, n.Revision)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || revision != last {
		t.Errorf("Notes up to revision %d, want %d (-want +got):\n%s", revision, last, diff)
	}
}

// testFixture finds everything that the fixtures hold, whatever their version.
func testFixture(t *testing.T, s *Store) {
	t.Helper()
	app1, err := s.Lookup(t.Context(), "app-1")
	if err != nil {
		t.Fatal(err)
	}
	at := func(micros int64) time.Time { return time.UnixMicro(1770091500_000000 + micros).UTC() }
	want := &outbox.Record{
		Event:    outbox.Event{ID: "app-1", Type: "invoice.paid", Time: at(6_789123), Tenant: "acme", Key: "invoice/1", Data: []byte(`{"amount":1}`)},
		Accepted: at(6_800000),
		Deliveries: []outbox.DeliveryRecord{
			{
				Delivery: outbox.Delivery{ID: "dlv_fixture9", EventID: "app-1", Endpoint: "billing", State: outbox.Pending, Attempts: 1, Due: at(100_000000), Created: at(6_800000), Code: "http_503"},
				Attempts: []outbox.Attempt{{N: 1, Started: at(9_500000), Took: 1500 * time.Microsecond,
					Timing: outbox.Timing{DNS: 100 * time.Microsecond, Connect: 200 * time.Microsecond, TLS: 300 * time.Microsecond, FirstByte: 1400 * time.Microsecond},
					Status: 503, Outcome: "retry", Code: "http_503", Error: "receiver answered 503", Head: "HTTP/1.1 503 Service Unavailable", Body: []byte("busy")}},
			},
			{
				Delivery: outbox.Delivery{ID: "dlv_fixture10", EventID: "app-1", Endpoint: "search", State: outbox.Delivered, Attempts: 1, Due: at(6_800000), Created: at(6_800000), Finished: at(10_000000)},
				Attempts: []outbox.Attempt{{N: 1, Started: at(9_600000), Took: time.Millisecond, Timing: outbox.Timing{FirstByte: 900 * time.Microsecond}, Status: 200, Outcome: "delivered", Head: "HTTP/1.1 200 OK"}},
			},
		},
	}
	if diff := cmp.Diff(want, app1); diff != "" {
		t.Errorf("Lookup (-want +got):\n%s", diff)
	}
	counts, err := s.Counts(t.Context())
	wantCounts := map[string]outbox.Counts{
		"billing": {Accepted: 2, Pending: 1, Failed: 1, Oldest: at(6_800000)},
		"search":  {Accepted: 2, Pending: 1, Delivered: 1, Oldest: at(7_000001)},
	}
	if diff := cmp.Diff(wantCounts, counts); diff != "" || err != nil {
		t.Errorf("Counts: %v (-want +got):\n%s", err, diff)
	}

	// Repeats are known, by id and by key, and the next numbers are new ones.
	for _, b := range []outbox.Batch{
		{Entries: []outbox.Entry{{Event: outbox.Event{ID: "app-1"}, Fingerprint: fill32(1)}}},
		{Entries: []outbox.Entry{{Event: outbox.Event{ID: "app-4"}, Fingerprint: fill32(4)}}},
		{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_9"}}}, Key: "key-1", Fingerprint: fill32(5)},
	} {
		if r, err := s.Accept(t.Context(), b); err != nil || !r[0].Duplicate {
			t.Errorf("Accept of %s, key %q: %+v, %v, want a duplicate", b.Entries[0].Event.ID, b.Key, r, err)
		}
	}
	if c := claimOne(t, s, "billing"); c.ID != "dlv_fixture9" || c.Attempts != 1 || string(c.Event.Data) != `{"amount":1}` {
		t.Errorf("Claim: %+v", c)
	}
	if c := claimOne(t, s, "search"); c.ID != "dlv_fixture12" || c.Fence != 4<<fenceBits+2 {
		t.Errorf("Claim: %+v", c)
	}
	mustAccept(t, s, event("evt_5", "search"))
	if c := claimOne(t, s, "search"); c.ID != "dlv_fixture13" {
		t.Errorf("Claim: %+v", c)
	}
	if err := sound(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// testFixtureMark finds level 3 remembered from version 2 on, and nothing before.
func testFixtureMark(t *testing.T, s *Store, version int) {
	t.Helper()
	for i, want := range []int{max(2-version, 0), 1} {
		wantMade(t, s, want, marked(fmt.Sprint("evt_level", i), outbox.Mark{Key: "billing order/1", Level: int64(3 + i), For: time.Hour}))
	}
}

// TestSchema compares the schema of a new outbox with the fixture's: one that has
// changed needs a new version, a new fixture, and a way from the old to the new.
func TestSchema(t *testing.T) {
	comments := regexp.MustCompile(`\s*--.*`)
	spaces := regexp.MustCompile(`\s+`)
	var schemas [formatVersion + 1]string
	for i := range schemas {
		dir := t.TempDir()
		if i > 0 {
			execute(t, filepath.Join(dir, "relay.db"), fixture(t, i))
		}
		s := openTest(t, Options{Dir: dir})
		err := s.do(t.Context(), func() error {
			q, err := s.db.query(`SELECT group_concat(sql, char(10)) FROM sqlite_schema`)
			if err != nil {
				return err
			}
			defer q.stmt.Close()
			if q.step() {
				schemas[i] = spaces.ReplaceAllString(comments.ReplaceAllString(q.stmt.ColumnText(0), ""), " ")
			}
			return q.done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i < len(schemas); i++ {
		if diff := cmp.Diff(schemas[i], schemas[0]); diff != "" {
			t.Errorf("schema (-v%d.sql +new):\n%s", i, diff)
		}
	}
}

// TestPowerCutAmidMigration cuts the power at each write and sync while an outbox of
// format version 1 is opened: it is whole before and after, of the one version or the
// other.
func TestPowerCutAmidMigration(t *testing.T) {
	p := &powerTest{T: t, fs: newCrashFS(t), dir: t.TempDir(), durability: Fsync}
	open := func() *db {
		d, err := connect(filepath.Join(p.dir, databaseFile), p.Name())
		if err == nil {
			err = d.conn.Exec(`PRAGMA locking_mode = EXCLUSIVE`) // there is no shared memory
		}
		if err != nil {
			t.Fatalf("cut %d: %v", p.seed, err)
		}
		return d
	}
	look := func() (version, tables int64) {
		d := open()
		version, err := d.number(`PRAGMA user_version`)
		if err == nil {
			tables, err = d.number(`SELECT count(*) FROM sqlite_schema WHERE name IN ('note', 'mark', 'mark_expires', 'clock')`)
		}
		if err = errors.Join(err, d.close()); err != nil {
			t.Fatalf("cut %d: %v", p.seed, err)
		}
		return version, tables
	}
	d := open()
	if err := errors.Join(d.conn.Exec(fixture(t, 1)), d.checkpoint(sqlite3.CHECKPOINT_TRUNCATE), d.close()); err != nil {
		t.Fatal(err)
	}
	before := p.fs.clone()
	seen := map[int64]int{}
	for _, survival := range []float64{0, 0.5} {
		for at, opened := 1, false; !opened; at++ {
			p.seed, p.random = uint64(at), rand.New(rand.NewPCG(uint64(at), 0))
			p.fs.files = before.clone().files
			p.cutAt(at, survival)
			s, err := Open(t.Context(), p.options())
			if opened = err == nil; opened {
				_ = s.Close()
			}
			p.fs.mu.Lock()
			p.fs.fault = nil
			p.fs.mu.Unlock()
			version, tables := look()
			if seen[version]++; (version-1)*2 != tables {
				t.Errorf("cut %d: format version %d with %d of its tables and indexes", at, version, tables)
			}
			s = p.open()
			wantNotes(t, s)
			if r, err := s.Lookup(t.Context(), "app-1"); err != nil || len(r.Deliveries) != 2 {
				t.Errorf("cut %d: Lookup: %+v, %v", at, r, err)
			}
			if err := sound(t.Context(), s); err != nil {
				t.Errorf("cut %d: %v", at, err)
			}
			p.close(s)
		}
	}
	if seen[1] == 0 || seen[formatVersion] == 0 || len(seen) != 2 {
		t.Errorf("versions after the cuts: %v, want some of 1 and %d", seen, formatVersion)
	}
}

func fill32(v byte) (f outbox.Fingerprint) {
	for i := range f {
		f[i] = v
	}
	return f
}
