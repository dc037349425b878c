package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"relay/relay/admin"
)

// wellRunning is a Relay of which nothing bad can be said.
func wellRunning() Running {
	r := Running{OnDisk: "abc", Version: "1", Endpoints: []admin.Endpoint{{Name: "billing", State: "active", Enabled: true}}}
	r.Ready = Ready{Status: "ready", Version: "1", Config: &admin.Config{Generation: 2, Hash: "abc"}}
	r.Ready.Outbox.ClockAheadMS = new(int64(999))
	return r
}

func TestRunning(t *testing.T) {
	for _, tt := range []struct {
		name        string
		change      func(*Running, *admin.Endpoint)
		level, part string
	}{
		{"well", func(*Running, *admin.Endpoint) {}, Fine, "is ready"},
		{"the files", func(*Running, *admin.Endpoint) {}, Fine, "is what the files say"},
		{"in all", func(_ *Running, e *admin.Endpoint) { e.Deliveries.Pending = 7 }, Fine, "7 deliveries wait in all"},
		{"not ready", func(r *Running, _ *admin.Endpoint) { r.Ready.Status, r.Ready.Reason = "not ready", "outbox is full" }, Breaks, "accepts no events: outbox is full"},
		{"version", func(r *Running, _ *admin.Endpoint) { r.Version = "2" }, Warns, "version 1 runs, and this program is 2"},
		{"stale", func(r *Running, _ *admin.Endpoint) { r.OnDisk = "def" }, Warns, "they are not in force"},
		{"refused", func(r *Running, _ *admin.Endpoint) { r.Ready.Config.Error = "line 3" }, Warns, "generation 2 still runs: line 3"},
		{"clock", func(r *Running, _ *admin.Endpoint) { r.Ready.Outbox.ClockAheadMS = new(int64(-1000)) }, Warns, "clock is -1s ahead"},
		{"the server of the outbox", func(r *Running, _ *admin.Endpoint) {
			r.Ready.Outbox.Warnings = []admin.Warning{{What: "appendonly is no", Next: "set appendonly yes"}}
		}, Warns, "sees at Redis: appendonly is no"},
		{"fleet", func(r *Running, _ *admin.Endpoint) {
			r.Ready.Disagreements = map[string]string{"billing": "two hashes"}
		}, Warns, "differ: two hashes"},
		{"gone", func(_ *Running, e *admin.Endpoint) {
			e.State, e.Code, e.Reason, e.Deliveries.Held = "disabled", "gone", "it answered 410", 1
		}, Breaks, "disabled (it answered 410): 1 delivery is held"},
		{"operator", func(_ *Running, e *admin.Endpoint) { e.State, e.Code = "disabled", "operator" }, Warns, "disabled"},
		{"paused", func(_ *Running, e *admin.Endpoint) { e.State, e.Deliveries.Held = "paused", 2 }, Warns, "paused: 2 deliveries are held"},
		{"removed", func(_ *Running, e *admin.Endpoint) { e.State, e.Deliveries.Held = "removed", 2 }, Warns, "in no file any more"},
		{"flawed", func(_ *Running, e *admin.Endpoint) {
			e.State, e.Deliveries.Held, e.Made = "invalid", 2, &admin.Made{Flaws: []admin.Flaw{{Pointer: "/policy", Detail: "there is none"}}}
		}, Breaks, "not in force: /policy: there is none; 2 deliveries are held"},
		{"consent", func(_ *Running, e *admin.Endpoint) { e.Code = "consent" }, Warns, "not yet consented"},
		{"breaker", func(_ *Running, e *admin.Endpoint) { e.Breaker = "open" }, Warns, "breaker is open"},
		{"backlog", func(_ *Running, e *admin.Endpoint) {
			e.Deliveries.Pending, e.Deliveries.OldestMS = 3, new(int64(16*60*1000))
		}, Warns, "3 deliveries wait, the oldest for 16m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := wellRunning()
			tt.change(&r, &r.Endpoints[0])
			found := r.Judge()
			ok := 0
			for _, f := range found {
				if f.Level == tt.level && strings.Contains(f.What, tt.part) && (f.Next == "") == (f.Level == Fine) {
					ok++
				} else if f.Level != Fine {
					t.Errorf("also %+v", f)
				}
			}
			if ok != 1 {
				t.Errorf("%d findings %q with %q in %+v", ok, tt.level, tt.part, found)
			}
		})
	}
	// What is disabled in the file is meant so.
	r := wellRunning()
	r.Endpoints[0].State, r.Endpoints[0].Enabled = "disabled", false
	if report := New(r.Judge(), 0); report.Breaks+report.Warnings != 0 {
		t.Errorf("%+v", report)
	}
}

// TestReport: the most severe comes first, in the order of parts, and only what breaks is an error.
func TestReport(t *testing.T) {
	all := []Finding{
		{Level: Fine, Part: File, What: "good"},
		{Level: Warns, Part: Endpoint, Endpoints: []string{"a", "b", "c", "d", "e", "f", "g"}, What: "slow", Next: "wait"},
		{Level: Warns, Part: Outbox, What: "small", Next: "grow"},
	}
	var b strings.Builder
	r := New(all, 1500*time.Millisecond)
	if err := errors.Join(r.Write(&b), r.Err()); err != nil {
		t.Fatal(err)
	}
	want := `warn   outbox: small
       next: grow
warn   endpoint a, b, c, d, e and 2 more: slow
       next: wait
ok     file: good

0 findings break, 2 warnings, 1 fine; took 1.5s
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	for i := range 1000 {
		all = append(all, Finding{Level: Breaks, Part: Endpoint, Code: "tls_failed", Endpoints: []string{fmt.Sprint("x", i)}, What: "bad", Next: "mend"})
	}
	b.Reset()
	r = New(all, 0)
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	if r.Err() == nil || len(r.Findings) != 1003 || strings.Count(b.String(), ": bad") != shownAlike || !strings.Contains(b.String(), "990 more with the code tls_failed") {
		t.Errorf("err %v, %d findings:\n%s", r.Err(), len(r.Findings), b.String())
	}
}
