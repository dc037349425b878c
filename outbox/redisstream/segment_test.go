package redisstream

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream/redistest"
)

// restless is a store whose history becomes segments before each look at it, and whose segments are replaced
// from time to time. Its errors of that are those of calls after its end.
type restless struct{ *Store }

func (r restless) stir(ctx context.Context) {
	for _, sh := range r.shards {
		_ = sh.sealAll(chores{logged: 1 << 30, erased: 1})
		if rand.N(4) > 0 {
			continue
		}
		node, err := sh.node(ctx)
		if err != nil {
			return
		}
		if list, err := sh.segmentsFrom(ctx, node, 0, true, 1000); err == nil && len(list) > 0 {
			_ = sh.rewrite(ctx, list[rand.N(len(list))])
		}
	}
}

func (r restless) Deliveries(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	r.stir(ctx)
	return r.Store.Deliveries(ctx, q)
}

func (r restless) Count(ctx context.Context, f outbox.Filter) (int64, bool, error) {
	r.stir(ctx)
	return r.Store.Count(ctx, f)
}

// The suite of what an operator asks, with a history of small segments.
func TestSegments(t *testing.T) {
	for _, shards := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			var n atomic.Int64
			options := map[outbox.Engine]Options{}
			open := func(t *testing.T, o Options) outbox.Engine {
				s, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				r := restless{s}
				options[r] = o
				return r
			}
			fresh := func() Options {
				return Options{URL: server.URL(), Database: -1, Namespace: fmt.Sprintf("segments%d", n.Add(1)), Shards: shards, segment: 7}
			}
			outboxtest.RunOperable(t, outboxtest.Harness{
				Open: func(t *testing.T) outbox.Engine { return open(t, fresh()) },
				OpenSized: func(t *testing.T, size int64) outbox.Engine {
					o := fresh()
					o.MaxSize = size
					return open(t, o)
				},
				Reopen: func(t *testing.T, s outbox.Engine) outbox.Engine {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, options[s])
				},
				Join:    func(t *testing.T, s outbox.Engine) outbox.Engine { return open(t, options[s]) },
				Sharded: shards > 1,
			})
		})
	}
}

// slow is a source that has nothing, and takes longer to say so than a page may take.
type slow struct{}

func (slow) next(context.Context, int64, int64) ([]candidate, int64, bool, error) {
	time.Sleep(time.Minute)
	return nil, 0, true, nil
}

// A page that reaches the end of the history when its time is over is the last one, in either order.
func TestLastPageIsSlow(t *testing.T) {
	for _, oldest := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sc := newScan(&shard{}, &outbox.Query{Oldest: oldest}, cursor{})
			sc.source = slow{}
			sc.run(t.Context(), 10)
			if _, end, err := merge([]*scan{sc}, 10); end != nil || err != nil {
				t.Errorf("oldest first %t: the next page begins at %+v, %v", oldest, end, err)
			}
		})
	}
}

// What a segment says of its events is what they were made of.
func TestSegmentFields(t *testing.T) {
	var list []logged
	for i := range 700 {
		l := logged{order: int64(1_796_000_000_000_000 + i*i), only: -1, id: fmt.Sprintf("evt_01938f4c-%04x-7abc-8def-0123456789ab", i)}
		if i%5 == 0 {
			l.id = "order-" + strconv.Itoa(i)
		}
		l.event = outbox.Event{Type: "t" + strconv.Itoa(i%3), Tenant: "n" + strconv.Itoa(i%200), Key: "k" + strconv.Itoa(i)}
		l.endpoints = []string{"all", "e" + strconv.Itoa(i%50)}
		if i%100 == 7 {
			l.only, l.endpoints = 3, []string{"again"}
		}
		list = append(list, l)
	}
	fields := map[string]string{}
	values := segmentFields(list)
	for i := 0; i < len(values); i += 2 {
		fields[values[i].(string)] = string(values[i+1].([]byte))
	}
	orders, err := readOrders(fields["o"], list[0].order)
	if err != nil || len(orders) != len(list) {
		t.Fatalf("%d orders, %v", len(orders), err)
	}
	var ids []kept
	for k := range 3 {
		page, err := readIDs(fields["i"+strconv.Itoa(k)])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, page...)
	}
	for i, l := range list {
		if orders[i] != l.order || ids[i].id != l.id || ids[i].only != l.only {
			t.Fatalf("event %d: order %d, %+v, want %d, %s, %d", i, orders[i], ids[i], l.order, l.id, l.only)
		}
	}
	find := func(kind byte, value string) (at []int, n map[int]bool) {
		h := term(kind, value)
		places, err := readPlaces(h, fields[commonField(h)], fields[bucketField(h)])
		if err != nil {
			t.Fatal(err)
		}
		n = map[int]bool{}
		for _, p := range places {
			at = append(at, p.at)
			n[p.n] = true
		}
		return at, n
	}
	where := func(is func(l logged) bool) (at []int) {
		for i, l := range list {
			if is(l) {
				at = append(at, i)
			}
		}
		return at
	}
	for _, c := range []struct {
		kind  byte
		value string
		is    func(l logged) bool
		n     map[int]bool
	}{
		{'t', "t1", func(l logged) bool { return l.event.Type == "t1" }, map[int]bool{noNumber: true}},
		{'n', "n7", func(l logged) bool { return l.event.Tenant == "n7" }, map[int]bool{noNumber: true}},
		{'k', "k300", func(l logged) bool { return l.event.Key == "k300" }, map[int]bool{noNumber: true}},
		{'e', "all", func(l logged) bool { return l.endpoints[0] == "all" }, map[int]bool{0: true}},
		{'e', "e3", func(l logged) bool { return len(l.endpoints) > 1 && l.endpoints[1] == "e3" }, map[int]bool{1: true}},
		{'e', "again", func(l logged) bool { return l.only == 3 }, map[int]bool{3: true}},
		{'m', "", func(l logged) bool { return l.only == 3 }, map[int]bool{noNumber: true}},
		{'e', "none", func(logged) bool { return false }, map[int]bool{}},
	} {
		at, n := find(c.kind, c.value)
		if diff := cmp.Diff(where(c.is), at, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%c %s (-want +got):\n%s", c.kind, c.value, diff)
		}
		if diff := cmp.Diff(c.n, n); diff != "" {
			t.Errorf("numbers of %c %s (-want +got):\n%s", c.kind, c.value, diff)
		}
	}
	for name := range fields {
		if strings.Contains(name+fields[name], "n7") || strings.Contains(name+fields[name], "k300") {
			t.Errorf("field %q has a value in clear", name)
		}
	}
}

// failing is a connection on which some calls of a command, and of a script where it runs one, do not get to Redis.
type failing struct {
	command, sha string
	left         atomic.Int32
}

func (*failing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == f.command && (f.sha == "" || cmd.Args()[1] == f.sha) && f.left.Add(-1) >= 0 {
			cmd.SetErr(io.ErrUnexpectedEOF)
			return io.ErrUnexpectedEOF
		}
		return next(ctx, cmd)
	}
}

// Segments whose events retention removed go with them: those of which less than half is left are made smaller.
func TestSegmentsEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := at(server.URL())
	o.segment = 8
	s := openTest(t, o)
	sh := s.shards[0]
	for i := range 32 {
		acceptOne(t, s, fmt.Sprintf("evt_%d", i), "a")
	}
	claims := claimSome(t, s, "a", 32, time.Minute)
	for i, c := range claims {
		o := done(c)
		if i%8 == 0 {
			o.State = outbox.Failed
		}
		if err := s.Settle(t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
	}
	countsOf(t, s, "a") // all are settled
	count := func() (segments int, events int) {
		node, err := sh.node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list, err := sh.segmentsFrom(t.Context(), node, 0, true, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range list {
			events += g.events
		}
		return len(list), events
	}
	await(t, "4 segments", func() bool { // the keeper of the history makes some, perhaps, and may be at it
		if err := sh.sealAll(chores{logged: 32}); err != nil {
			t.Fatal(err)
		}
		n, events := count()
		return n == 4 && events == 32
	})
	reap := func(r outbox.Retention) {
		t.Helper()
		await(t, "retention", func() bool {
			_, more, err := s.Reap(t.Context(), r)
			return err == nil && !more
		})
		for range 4 {
			sh.looked = nil
			if err := sh.prune(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(2 * time.Millisecond) // streams count milliseconds
	node, err := sh.node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{command: "hmget"}
	f.left.Store(1)
	node.AddHook(f)
	if err := sh.prune(t.Context(), outbox.Retention{Failed: time.Hour}); err == nil || len(sh.looked) > 0 {
		t.Errorf("a segment that could not be read: %v, looked at: %v", err, sh.looked)
	}
	reap(outbox.Retention{Failed: time.Hour})
	if n, events := count(); n != 4 || events != 4 {
		t.Errorf("%d segments with %d events, want 4 with those that failed", n, events)
	}
	reap(outbox.Retention{Failed: time.Nanosecond})
	if n, events := count(); n != 0 || events != 0 {
		t.Errorf("%d segments with %d events are left", n, events)
	}
	await(t, "nothing but counts is left", func() bool {
		return len(server.MustDo(t, "KEYS", sh.prefix+"s:*").([]any)) == 0 && len(server.MustDo(t, "KEYS", sh.prefix+"f:*").([]any)) == 0
	})
}

// A shard that had no time to look at anything keeps back what the others found: it may have something newer.
func TestMergeWaitsForAll(t *testing.T) {
	t.Parallel()
	o := at(redistest.Start(t).URL())
	o.Shards = 2
	s := openTest(t, o)
	for _, oldest := range []bool{false, true} {
		q := &outbox.Query{Limit: 10, Oldest: oldest}
		scans := s.scans(q, cursor{})
		scans[1].found, scans[1].done = []match{{position: position{order: 5, shard: 1}}}, true
		list, end, err := merge(scans, 11)
		if err != nil || len(list) > 0 || end == nil {
			t.Errorf("oldest %t: %d found up to %v, %v", oldest, len(list), end, err)
			continue
		}
		page, err := s.page(q, cursor{}, list, end)
		if err != nil || len(page.Items) > 0 || page.Next == "" {
			t.Errorf("oldest %t: %+v, %v", oldest, page, err)
		}
	}
}
