package redisstream

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// A retry that falls due just after a heartbeat, at an endpoint that nobody claims from, joins its line with the
// next one. What is accepted more than OrderSlack after its due time must be behind it (G3).
func TestHeartbeatIsWithinTheSlack(t *testing.T) {
	const now = 1_700_000_000_000_000
	in := func(d time.Duration) string { return strconv.FormatInt(now+d.Microseconds(), 10) }
	for range 1000 {
		if next := nextTick(now, "", ""); next < outbox.OrderSlack/2 || next > outbox.OrderSlack*9/10 {
			t.Fatalf("the next heartbeat is in %s", next)
		}
		if next := nextTick(now, in(time.Hour), in(200*time.Millisecond)); next < 200*time.Millisecond || next > 305*time.Millisecond {
			t.Fatalf("the next heartbeat is in %s, with a retry due in 200ms", next)
		}
		if next := nextTick(now, in(0), ""); next < tickEvery/4 || next > 300*time.Millisecond {
			t.Fatalf("the next heartbeat is in %s, with a lease that ends now", next)
		}
		if next := nextTick(now, "", in(0)); next > 105*time.Millisecond {
			t.Fatalf("the next heartbeat is in %s, with a retry that is due", next)
		}
	}
}

// A heartbeat does a bounded number of endpoints, and of retries of each. What it leaves must not wait for the usual time.
func TestHeartbeatComesBackForTheRest(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, err := Open(t.Context(), at(server.URL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil { // its heartbeats would do it
		t.Fatal(err)
	}
	k := newKeys("relay", 0)
	server.MustDo(t, "HSET", k.who, "test", "token")
	id := server.MustDo(t, "HGET", k.meta, "id").(string)
	tick := func() (now, leaseEnds, retryDue string) {
		t.Helper()
		list, err := texts(server.MustDo(t, "EVAL", s.scripts.tick.text, "9", k.meta, k.leases, k.agenda, k.alive, k.who, k.endpoints, k.kinds, k.took, k.erased,
			k.prefix, id, "test", "token"), 3)
		if err != nil {
			t.Fatal(err)
		}
		return list[0], list[1], list[2]
	}
	queued := func(endpoint string) int64 { return server.MustDo(t, "XLEN", k.backlog(endpoint)).(int64) }

	for n := range 201 {
		name := fmt.Sprint("e", n)
		server.MustDo(t, "ZADD", k.retries(name), "1", fmt.Sprintf("1.0.1|evt_%d", n))
		server.MustDo(t, "ZADD", k.agenda, "1", name)
		server.MustDo(t, "ZADD", k.leases, "1", fmt.Sprint("l", n)) // others: a ring stands for these
	}
	if now, leaseEnds, retryDue := tick(); leaseEnds != now || retryDue != now {
		t.Errorf("at %s a lease ends at %q and a retry is due at %q, want both now", now, leaseEnds, retryDue)
	}
	if _, leaseEnds, retryDue := tick(); leaseEnds != "" || retryDue != "" || queued("e0") != 1 || queued("e200") != 1 {
		t.Errorf("a lease ends at %q, a retry is due at %q, want all done", leaseEnds, retryDue)
	}

	for n := range 501 {
		server.MustDo(t, "ZADD", k.retries("many"), "1", fmt.Sprintf("1.0.1|evt_%d", n))
	}
	server.MustDo(t, "ZADD", k.agenda, "1", "many")
	if now, _, retryDue := tick(); retryDue != now {
		t.Errorf("at %s a retry is due at %q, want now", now, retryDue)
	}
	if _, _, retryDue := tick(); retryDue != "" || queued("many") != 501 {
		t.Errorf("a retry is due at %q, and %d have joined the line, want all", retryDue, queued("many"))
	}

	// However many endpoints have retries, a call does not keep Redis from others for long.
	server.MustDo(t, "EVAL", `
		for n = 0, 11 do
			redis.call('ZADD', KEYS[1], 1, 'f' .. n)
			for k = 1, 500 do redis.call('ZADD', ARGV[1] .. 'r:f' .. n, 1, '1.0.1|evt_' .. k) end
		end
	`, "1", k.agenda, k.prefix)
	all := func() (n int64) {
		for i := range 12 {
			n += queued(fmt.Sprint("f", i))
		}
		return n
	}
	if now, _, retryDue := tick(); retryDue != now || all() != 5000 {
		t.Errorf("at %s a retry is due at %q, and %d have joined their lines, want 5000", now, retryDue, all())
	}
	if _, _, retryDue := tick(); retryDue != "" || all() != 6000 {
		t.Errorf("a retry is due at %q, and %d have joined their lines, want all", retryDue, all())
	}
}

// trips counts round trips, and pipelines among them.
type trips struct{ commands, pipelines atomic.Int64 }

func (*trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		n.commands.Add(1)
		return next(ctx, cmd)
	}
}

func (n *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		n.pipelines.Add(1)
		return next(ctx, cmds)
	}
}

// What a heartbeat, or a start, asks about each endpoint takes few round trips: with one for each of thousands of endpoints it
// would come so late that others took this Relay for dead.
func TestClaimsOfManyEndpoints(t *testing.T) {
	t.Parallel()
	s := openTest(t, at(redistest.Start(t).URL()))
	sh := s.shards[0]
	joined, err := sh.session()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := range 250 {
		names = append(names, fmt.Sprint("e", n))
	}
	acceptOne(t, s, "evt_1", names...)
	for _, name := range names {
		claimSome(t, s, name, 1, time.Minute)
	}
	node, err := sh.node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := new(trips)
	node.AddHook(n)
	claims, err := sh.claimsOf(t.Context(), joined.consumer)
	if err != nil || len(claims) != len(names) {
		t.Errorf("%d claims, %v, want %d", len(claims), err, len(names))
	}
	if c, p := n.commands.Load(), n.pipelines.Load(); c+p > 20 { // heartbeats are among them
		t.Errorf("%d commands and %d pipelines for %d endpoints", c, p, len(names))
	}
	if others, err := sh.claimsOf(t.Context(), "nobody"); err != nil || len(others) != 0 {
		t.Errorf("of a Relay that has none: %v, %v", others, err)
	}
}

// A Relay that is gone keeps its claims at an endpoint that nobody claims from. That is not asked with each heartbeat.
func TestGoneRelaysAreLookedAtRarely(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	sh := s.shards[0]
	acceptOne(t, s, "evt_1", "paused")
	server.MustDo(t, "XGROUP", "CREATE", sh.backlog("paused"), group, "0")
	server.MustDo(t, "XREADGROUP", "GROUP", group, "ghost", "COUNT", "1", "STREAMS", sh.backlog("paused"), ">")
	sh.mu.Lock()
	sh.gone, sh.forgot = []string{"ghost"}, time.Time{}
	sh.mu.Unlock()
	looks := func() string {
		text, _ := server.MustDo(t, "INFO", "commandstats").(string)
		calls, _, _ := strings.Cut(parseInfo(text)["cmdstat_xgroup|delconsumer"], ",")
		return calls
	}
	sh.forgetGone(t.Context()) // unless a heartbeat was first
	await(t, "it was looked at", func() bool { return looks() != "" })
	before := looks()
	for range 5 {
		sh.forgetGone(t.Context())
	}
	sh.mu.Lock()
	gone := slices.Clone(sh.gone)
	sh.mu.Unlock()
	if after := looks(); after != before || len(gone) != 1 {
		t.Errorf("looked again: %q after %q; %v are gone", after, before, gone)
	}
}

// Claims that were made and whose events cannot be read are nobody's: they are looked for as after a lost answer, also
// where the server of their slot is not known any more.
func TestClaimsWithoutEventsAreLookedFor(t *testing.T) {
	nowhere := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, MaxRedirects: -1, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second})
	defer nowhere.Close()
	s := &Store{conn: &conn{data: nowhere, reads: nowhere}, events: newCache(1)}
	sh := newShard(s, 0)
	if _, err := sh.complete(t.Context(), []*lease{{ref: ref{event: "evt_1"}}}); err == nil || sh.unsure.IsZero() {
		t.Errorf("complete: %v; unsure since %v", err, sh.unsure)
	}
}
