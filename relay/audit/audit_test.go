package audit_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox/outboxtest"
	"relay/relay/audit"
)

func TestEntriesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := outboxtest.NewMem(outboxtest.MemOptions{})
		entries := []audit.Entry{
			{Who: "support", Verb: "pause", What: "endpoint billing", Before: audit.State(map[string]string{"state": "active"}), After: json.RawMessage(`{"state":"paused"}`)},
			{Who: "uid 1000", Verb: "redeliver", What: "job job_1", Count: new(int64(0))},
			{Who: strings.Repeat("w", 9000), Verb: "discard", What: strings.Repeat("é", 9000), Before: audit.State(strings.Repeat("x", 9000)), After: audit.State(strings.Repeat("\x00", 9000))},
		}
		var want []audit.Entry
		for i, e := range entries {
			testkit.Must(t, audit.Write(t.Context(), m, e))
			e.N, e.Time = uint64(i+1), time.Now().UTC()
			want = append([]audit.Entry{e}, want...)
			time.Sleep(time.Second)
		}
		_, err := m.Append(t.Context(), []byte("of another version"))
		testkit.Must(t, err)

		got, err := audit.Read(t.Context(), m, 0, 10)
		testkit.Must(t, err)
		if len(got) != 4 || got[0].N != 4 || got[0].What == "" {
			t.Fatalf("entries: %+v", got)
		}
		if diff := cmp.Diff(want[1:], got[2:]); diff != "" {
			t.Errorf("entries (-want +got):\n%s", diff)
		}
		if long := got[1]; len(long.What) > 300 || len(long.Who) > 300 || len(long.Before) > 100 || len(long.After) > 100 || long.Verb != "discard" {
			t.Errorf("an entry that is too long: %+v", long)
		}
		page, err := audit.Read(t.Context(), m, 2, 10)
		testkit.Must(t, err)
		if len(page) != 1 || page[0].N != 1 {
			t.Errorf("entries below 2: %+v", page)
		}
	})
}
