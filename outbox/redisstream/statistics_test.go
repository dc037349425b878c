package redisstream

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// writers are the scripts that a call ran, by their hashes.
type writers struct {
	mu  sync.Mutex
	ran map[string]int
}

type writersKey struct{}

func (*writers) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*writers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (w *writers) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(writersKey{}) != nil && cmd.Name() == "evalsha" {
			w.mu.Lock()
			w.ran[fmt.Sprint(cmd.Args()[1])]++
			w.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

// After a burst a request for statistics does not add up what the burst left: it reads that, and counts it all.
func TestStatisticsWriteNothing(t *testing.T) {
	t.Parallel()
	s := openTest(t, at(redistest.Start(t).URL()))
	node, err := s.shards[0].node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &writers{ran: map[string]int{}}
	node.AddHook(w)
	const n = 300
	for i := range n {
		settled(t, s, fmt.Sprintf("evt_%d", i), outbox.Delivered)
	}
	rows, err := s.Statistics(context.WithValue(t.Context(), writersKey{}, true), outbox.StatQuery{})
	if err != nil {
		t.Fatal(err)
	}
	delivered := int64(0)
	for _, r := range rows {
		delivered += r.Delivered
	}
	if delivered != n || w.ran[s.scripts.rows.sha] == 0 || w.ran[s.scripts.roll.sha] != 0 || w.ran[s.scripts.fold.sha] != 0 {
		t.Errorf("%d deliveries are counted, want %d; scripts: %v", delivered, n, w.ran)
	}
}

// Rows of hours that nobody folded yet are answered as those of their day, and days that are too old not at all.
func TestOldHoursAreDays(t *testing.T) {
	now := time.Date(2026, 3, 20, 12, 30, 0, 0, time.UTC)
	x := statSum{q: &outbox.StatQuery{}, now: now, rows: map[statRow]*outbox.Stat{}}
	key := statKey{"a", "t", ""}
	recent, old := now.Add(-outbox.HourlyFor+time.Hour).Truncate(time.Hour), now.Add(-outbox.HourlyFor-2*time.Hour).Truncate(time.Hour)
	if row := x.row(period{recent.Unix(), time.Hour}, key); row.Step != time.Hour || !row.Start.Equal(recent) {
		t.Errorf("%+v", row)
	}
	row := x.row(period{old.Unix(), time.Hour}, key)
	if want := old.Truncate(day); row.Step != day || !row.Start.Equal(want) {
		t.Errorf("%+v, want the day %v", row, want)
	}
	if again := x.row(period{row.Start.Unix(), day}, key); again != row {
		t.Error("the day and its hour have two rows")
	}
	if row := x.row(period{now.Add(-outbox.DailyFor - 2*day).Truncate(day).Unix(), day}, key); row != nil {
		t.Errorf("%+v is too old", row)
	}
}

// What is not in an hour yet keeps to the bound of rows as what is added to it does.
func TestLeftRowsAreBounded(t *testing.T) {
	known := statKey{"a", "known", "t"}
	c := newCap([]any{known.field(), ""}, 3, 2)
	got := []statKey{c.key(known), c.key(statKey{"a", "new", "t"}), c.key(statKey{"b", "more", "t"}), c.key(known)}
	want := []statKey{known, {"a", "new", "t"}, {endpoint: "b"}, known}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("row %d is counted under %v, want %v", i, got[i], want[i])
		}
	}
	now := time.Now()
	for range 20 { // each answer keeps the same rows
		rows := map[statKey]*outbox.Stat{}
		for _, kind := range []string{"d", "b", "c", "a", "e"} {
			rows[statKey{"a", kind, "t"}] = &outbox.Stat{}
		}
		sum := &statSum{q: &outbox.StatQuery{}, now: now, rows: map[statRow]*outbox.Stat{}}
		start := now.Truncate(time.Hour).Unix()
		sum.addLeft(start, rows, newCap(nil, len(rows), 2))
		for kind, want := range map[string]bool{"a": true, "b": true, "c": false, "": true} {
			key := statKey{"a", kind, "t"}
			if kind == "" {
				key.tenant = ""
			}
			if got := sum.rows[statRow{start, time.Hour, key}] != nil; got != want {
				t.Fatalf("there is a row of type %q: %t, want %t", kind, got, want)
			}
		}
	}
}
