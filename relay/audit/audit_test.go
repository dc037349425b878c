package audit_test

import (
	"encoding/json"
	"fmt"
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

// A search stops at its bound and tells where to go on, at a time, and at the oldest entry.
func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := outboxtest.NewMem(outboxtest.MemOptions{})
		for n := range audit.Scanned + 250 {
			verb := "pause"
			if n == 100 {
				verb = "erase"
			}
			testkit.Must(t, audit.Write(t.Context(), m, audit.Entry{Who: "a", Verb: verb, What: "endpoint b"}))
		}
		erased := func(e *audit.Entry) bool { return e.Verb == "erase" }
		find := func(s audit.Search) (numbers []uint64, next uint64) {
			t.Helper()
			found, next, err := audit.Find(t.Context(), m, s)
			testkit.Must(t, err)
			for i := range found {
				numbers = append(numbers, found[i].N)
			}
			return numbers, next
		}
		none, next := find(audit.Search{Limit: 5, Fits: erased})
		if len(none) > 0 || next != 251 {
			t.Errorf("within the bound: %v, go on below %d, want 251", none, next)
		}
		if found, end := find(audit.Search{Before: next, Limit: 5, Fits: erased}); fmt.Sprint(found) != "[101]" || end != 0 {
			t.Errorf("behind the bound: %v, then %d", found, end)
		}
		if found, next := find(audit.Search{Before: 300, Limit: 1, Fits: erased}); fmt.Sprint(found) != "[101]" || next != 101 {
			t.Errorf("a full page: %v, then %d", found, next)
		}
		if found, next := find(audit.Search{Before: 4, Limit: 3}); fmt.Sprint(found) != "[3 2 1]" || next != 0 {
			t.Errorf("all: %v, then %d", found, next)
		}
		time.Sleep(time.Hour)
		since := time.Now()
		testkit.Must(t, audit.Write(t.Context(), m, audit.Entry{Who: "a", Verb: "erase", What: "endpoint b"}))
		if found, next := find(audit.Search{Limit: 5, Since: since, Fits: erased}); fmt.Sprint(found) != fmt.Sprint([]int{audit.Scanned + 251}) || next != 0 {
			t.Errorf("since: %v, then %d", found, next)
		}
	})
}
