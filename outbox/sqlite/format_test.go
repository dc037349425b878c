package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/outbox"
)

// fixture is an outbox that a Relay of this format version wrote.
func fixture(t *testing.T) string {
	t.Helper()
	sql, err := os.ReadFile(fmt.Sprintf("testdata/v%d.sql", formatVersion))
	if err != nil {
		t.Fatal(err)
	}
	return string(sql)
}

// TestFormat opens an outbox that Relay wrote (promise P16), and finds everything in it.
func TestFormat(t *testing.T) {
	synctest.Test(t, testFormat) // a delivery of the fixture is due a minute later
}

func testFormat(t *testing.T) {
	dir := t.TempDir()
	execute(t, filepath.Join(dir, "relay.db"), fixture(t))
	began := time.Now()
	s := openTest(t, Options{Dir: dir, wall: func() time.Time { return time.UnixMicro(1770091513_000000).Add(time.Since(began)) }})
	notes := []outbox.Note{{Endpoint: "billing", Revision: 4, Text: []byte("paused")}, {Endpoint: "search", Revision: 3}}
	wantNotes(t, s, notes...)
	testFixture(t, s)
	for i := range 2 { // level 3 is remembered
		wantMade(t, s, i, marked(fmt.Sprint("evt_level", i), outbox.Mark{Key: "billing order/1", Level: int64(3 + i), For: time.Hour}))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantNotes(t, openTest(t, Options{Dir: dir}), notes...)
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

// testFixture finds the events and deliveries that the fixture holds.
func testFixture(t *testing.T, s *Store) {
	t.Helper()
	app1, err := s.Lookup(t.Context(), "app-1")
	if err != nil {
		t.Fatal(err)
	}
	at := func(micros int64) time.Time { return time.UnixMicro(1770091500_000000 + micros).UTC() }
	want := &outbox.Record{
		Event: outbox.Event{ID: "app-1", Type: "invoice.paid", Time: at(6_789123), Tenant: "acme", Key: "invoice/1", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 app=1", Data: []byte(`{"amount":1}`),
			Via: "http", Relay: "relay-1", Fields: []outbox.Field{{Path: "data.amount", Value: "1"}}},
		Accepted: at(6_800000),
		Deliveries: []outbox.DeliveryRecord{
			{
				Delivery: outbox.Delivery{ID: "dlv_fixture9", EventID: "app-1", Endpoint: "billing", State: outbox.Pending, Attempts: 1, Due: at(100_000000), Created: at(6_800000), Code: "http_503"},
				Attempts: []outbox.Attempt{{N: 1, Started: at(9_500000), Took: 1500 * time.Microsecond,
					Timing: outbox.Timing{DNS: 100 * time.Microsecond, Connect: 200 * time.Microsecond, TLS: 300 * time.Microsecond, FirstByte: 1400 * time.Microsecond},
					Status: 503, Outcome: "retry", Code: "http_503", Error: "receiver answered 503", Head: "HTTP/1.1 503 Service Unavailable", Body: []byte("busy"),
					Reused: true, Peer: "10.0.0.7:443", Request: "POST https://billing.example/hook", Relay: "relay-1", Generation: 1, Next: at(9_501000)}},
			},
			{
				Delivery: outbox.Delivery{ID: "dlv_fixture10", EventID: "app-1", Endpoint: "search", State: outbox.Delivered, Attempts: 1, Due: at(6_800000), Created: at(6_800000), Finished: at(10_000000)},
				Attempts: []outbox.Attempt{{N: 1, Started: at(9_600000), Took: time.Millisecond, Timing: outbox.Timing{FirstByte: 900 * time.Microsecond}, Status: 200, Outcome: "delivered", Head: "HTTP/1.1 200 OK"}},
			},
			{
				Delivery: outbox.Delivery{ID: "dlv_fixture14", EventID: "app-1", Endpoint: "search", State: outbox.Delivered, Attempts: 1, Due: at(10_200000), Created: at(10_200000), Finished: at(11_000000), Origin: "dlv_fixture10", Manual: true},
				Attempts: []outbox.Attempt{{N: 1, Started: at(10_500000), Took: time.Millisecond, Status: 200, Outcome: "delivered"}},
			},
		},
	}
	if diff := cmp.Diff(want, app1); diff != "" {
		t.Errorf("Lookup (-want +got):\n%s", diff)
	}
	evt2, err := s.Lookup(t.Context(), "evt_2")
	if err != nil {
		t.Fatal(err)
	}
	evt2want := []outbox.DeliveryRecord{
		{
			Delivery: outbox.Delivery{ID: "dlv_fixture11", EventID: "evt_2", Endpoint: "billing", State: outbox.Failed, Attempts: 2, Due: at(8_000000), Created: at(7_000001), Finished: at(11_000000), Code: "tls_name"},
			Attempts: []outbox.Attempt{
				{N: 1, Started: at(7_500000), Took: time.Millisecond, Outcome: "retry", Code: "connect", Error: "connection refused"},
				{N: 2, Started: at(10_900000), Took: time.Millisecond, Outcome: "refused", Code: "tls_name", Error: "certificate is for another name"},
			},
		},
		{Delivery: outbox.Delivery{ID: "dlv_fixture12", EventID: "evt_2", Endpoint: "search", State: outbox.Pending, Due: at(7_000001), Created: at(7_000001)}},
		{
			Delivery: outbox.Delivery{ID: "dlv_fixture13", EventID: "evt_2", Endpoint: "audit", State: outbox.Failed, Due: at(7_000001), Created: at(7_000001), Finished: at(7_000001), Code: "body_error"},
			Error:    "no such field",
		},
	}
	if diff := cmp.Diff(evt2want, evt2.Deliveries); diff != "" {
		t.Errorf("Lookup (-want +got):\n%s", diff)
	}
	if !evt2.Erased.Equal(at(12_000000)) {
		t.Errorf("event evt_2 was erased %v", evt2.Erased)
	}
	testFixtureOperable(t, s)
	counts, err := s.Counts(t.Context())
	wantCounts := map[string]outbox.Counts{
		"billing": {Accepted: 2, Pending: 1, Failed: 1, Oldest: at(6_800000)},
		"search":  {Accepted: 3, Pending: 1, Delivered: 2, Oldest: at(7_000001)},
		"audit":   {Accepted: 2, Pending: 1, Failed: 1, Oldest: at(6_000000)},
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
	if c := claimOne(t, s, "audit"); c.ID != "dlv_fixture8" || c.Event.ID != "evt_1" {
		t.Errorf("Claim: %+v", c)
	}
	mustAccept(t, s, event("evt_5", "search"))
	if c := claimOne(t, s, "search"); c.ID != "dlv_fixture15" {
		t.Errorf("Claim: %+v", c)
	}
	if err := sound(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// testFixtureOperable finds what operators see.
func testFixtureOperable(t *testing.T, s *Store) {
	t.Helper()
	page, err := s.Deliveries(t.Context(), outbox.Query{Limit: 10})
	var got []string
	for _, i := range page.Items {
		got = append(got, fmt.Sprint(i.ID, " ", i.EventID, " ", i.State, " ", i.Attempts))
	}
	want := []string{"dlv_fixture14 app-1 delivered 1", "dlv_fixture13 evt_2 failed 0", "dlv_fixture12 evt_2 pending 0", "dlv_fixture11 evt_2 failed 2",
		"dlv_fixture10 app-1 delivered 1", "dlv_fixture9 app-1 pending 1", "dlv_fixture8 evt_1 pending 0"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || page.Next != "" {
		t.Errorf("Deliveries: %v, next %q (-want +got):\n%s", err, page.Next, diff)
	}
	documents, revision, err := s.Documents(t.Context(), "job", 0)
	if len(documents) != 1 || documents[0].Name != "a" || revision != 3 || err != nil {
		t.Errorf("Documents: %+v, %d, %v", documents, revision, err)
	}
	if line, err := s.Append(t.Context(), nil); line.N != 2 || err != nil {
		t.Errorf("Append: %+v, %v", line, err)
	}
	rows, err := s.Statistics(t.Context(), outbox.StatQuery{})
	var failed, delivered int64
	for _, row := range rows {
		failed, delivered = failed+row.Failed, delivered+row.Delivered
	}
	if len(rows) != 3 || failed != 2 || delivered != 2 || err != nil {
		t.Errorf("Statistics: %+v, %v", rows, err)
	}
}

// TestSchema compares the schema of a new outbox with the fixture's: one that has
// changed needs a new version, a new fixture, and a way from the old to the new.
func TestSchema(t *testing.T) {
	comments := regexp.MustCompile(`\s*--.*`)
	spaces := regexp.MustCompile(`\s+`)
	var schemas []string
	for _, sql := range []string{"", fixture(t)} {
		dir := t.TempDir()
		execute(t, filepath.Join(dir, "relay.db"), sql)
		s := openTest(t, Options{Dir: dir})
		err := s.do(t.Context(), func() error {
			q, err := s.db.query(`SELECT group_concat(sql, char(10)) FROM sqlite_schema`)
			if err != nil {
				return err
			}
			defer q.stmt.Close()
			if q.step() {
				schemas = append(schemas, spaces.ReplaceAllString(comments.ReplaceAllString(q.stmt.ColumnText(0), ""), " "))
			}
			return q.done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(schemas[1], schemas[0]); diff != "" {
		t.Errorf("schema (-v%d.sql +new):\n%s", formatVersion, diff)
	}
}

func fill32(v byte) (f outbox.Fingerprint) {
	for i := range f {
		f[i] = v
	}
	return f
}
