package redisstream_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox/redisstream/redistest"
)

// This file compares ways to lay deliveries out in Redis. It stands apart from
// the engine: the scripts here are the least that a layout needs, so that
// what differs is the layout.
//
// All layouts keep the payload once, in a hash of the event, and end with a
// record in that hash. A claim has a lease and a fence in all of them: whoever
// lost its lease settles nothing. They differ in how a delivery waits and is leased:
//
//	floor     payload and record only, no queue: what no layout can go below
//	A         a stream per endpoint, one group on each; the group's pending list
//	          is the lease, consumer and times-delivered are the fence
//	A-direct  A, but the accept script reads its own deliveries back
//	B         one stream, a group per endpoint: everybody reads every event, and
//	          acknowledges what it does not want
//	C-direct  accept puts deliveries straight into a sorted set of leases, for a
//	          worker that is free; nothing is queued
//	C-backlog nobody is free: plain streams without a group, from which a claim moves
//	          deliveries to the leases of C
//
// The engine has layout C. Above the floor, C-direct costs Redis 2 to 3 µs of CPU a
// delivery, where A costs 9 to 13. C-backlog costs 6 to 12: what makes A dear is the
// stream itself, and the look at the pending list that its fence needs. A-direct
// saves a round trip, not work. B is cheaper than A only when everybody
// wants every event, and 13 times dearer when one of 100 does. The price of C is
// memory: a lease takes 160 bytes, a pending entry 90 beyond the 53 that a
// queued delivery takes in A and C alike. Leases are few, for workers are.
//
// Payloads are not read back: the Relay that accepted an event has it in memory.
// Elsewhere each layout would pay the same HGET.
//
//	go test ./outbox/redisstream -run '^$' -bench Layout
//	go test ./outbox/redisstream -run '^$' -bench Backlog -benchtime 1x
const (
	benchWorkers  = 4
	acceptGroup   = 16  // events of one accept
	settleGroup   = 64  // deliveries of one settle, at most
	roundEvents   = 256 // of one worker in one round
	benchLease    = time.Minute
	benchConsumer = "r1" // all workers are of one Relay

	keyEvent  = "{relay}:ev:"
	keyQueue  = "{relay}:q:"
	keyStream = "{relay}:events"
	keyLeases = "{relay}:leases"
)

// benchMix says who wants what: event n goes to fanout endpoints, in turn.
type benchMix struct {
	name              string
	endpoints, fanout int
}

func benchMixes() []benchMix {
	return []benchMix{{"broadcast", 10, 10}, {"selective", 100, 1}, {"single", 1, 1}}
}

// benchGroup is what one accept brings.
type benchGroup struct {
	events    []benchEvent
	endpoints []string // all that get something, each once
	each      int      // deliveries of each of them
}

type benchEvent struct {
	id        string
	endpoints []string
}

// benchClaim is one leased delivery. token is what its lease is called in Redis:
// the id of a stream entry or the member of the sorted set, fence included.
type benchClaim struct {
	event, endpoint, token string
}

// layout is one candidate. Calls run at the same time.
type layout interface {
	// prepare makes what must be there before the first accept.
	prepare(ctx context.Context) error

	// accept writes the group in one script. It returns claims if the layout
	// leases at once.
	accept(ctx context.Context, g benchGroup) ([]benchClaim, error)

	// claim leases as many deliveries as the group has. They may be another
	// worker's; since each claims what it added, all get as many.
	claim(ctx context.Context, g benchGroup) ([]benchClaim, error)

	// settle writes the records and ends the leases, in one script.
	settle(ctx context.Context, claims []benchClaim) error

	// left counts what is still queued or leased.
	left(ctx context.Context) (int64, error)
}

// candidate makes a layout over a server and a mix.
type candidate struct {
	name string
	make func(layoutBase) layout
}

func candidates() []candidate {
	return []candidate{
		{"floor", func(b layoutBase) layout { return layoutFloor{b} }},
		{"A", func(b layoutBase) layout { return layoutA{b, false} }},
		{"A-direct", func(b layoutBase) layout { return layoutA{b, true} }},
		{"B", func(b layoutBase) layout { return layoutB{b} }},
		{"C-direct", func(b layoutBase) layout { return layoutC{b} }},
		{"C-backlog", func(b layoutBase) layout { return layoutCBacklog{layoutC{b}} }},
	}
}

// BenchmarkLayout takes every delivery through its whole life. Look at the CPU
// per delivery first: the rate depends on what else the machine does.
func BenchmarkLayout(b *testing.B) {
	for _, m := range benchMixes() {
		for _, c := range candidates() {
			b.Run(m.name+"/"+c.name, func(b *testing.B) {
				base, l := openLayout(b, m, c)
				benchRound(b, base, l, 0) // opens the connections
				rounds := 1
				before := base.spent(b)
				for b.Loop() {
					benchRound(b, base, l, rounds)
					rounds++
				}
				after := base.spent(b)
				deliveries := float64((rounds - 1) * benchWorkers * roundEvents * m.fanout)
				for unit, n := range after {
					b.ReportMetric((n-before[unit])/deliveries, unit)
				}
				b.ReportMetric(deliveries/b.Elapsed().Seconds(), "deliveries/s")
				b.ReportMetric(0, "ns/op") // of a round: says nothing
				base.verify(b, l, rounds*benchWorkers*roundEvents)
			})
		}
	}
}

// BenchmarkBacklog tells the memory of a delivery that waits, and of one that is
// leased, beyond what the floor takes for the event itself.
func BenchmarkBacklog(b *testing.B) {
	for _, m := range benchMixes() {
		var floor float64
		for _, c := range candidates() {
			if c.name == "A-direct" {
				continue // keeps what A keeps
			}
			b.Run(m.name+"/"+c.name, func(b *testing.B) {
				base, l := openLayout(b, m, c)
				for b.Loop() {
					queued, leased := base.memory(b, l)
					if c.name == "floor" {
						floor = queued
						b.ReportMetric(floor, "floor-B")
						continue
					}
					if queued > 0 {
						b.ReportMetric(queued-floor, "queued-B")
					}
					b.ReportMetric(leased-floor, "leased-B")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// memory accepts 100,000 deliveries, claims some of them, and returns what one takes
// while it waits and while it is leased, in bytes. A layout that leases at once
// has no first figure. The second holds what a stream keeps of deleted entries until
// all of a node are.
func (b layoutBase) memory(tb testing.TB, l layout) (queued, leased float64) {
	const pending, sample = 100_000, 9_600
	// The data without tables and buffers of the server, which grow in leaps.
	used := func() float64 { return b.info(tb, "used_memory_dataset") }
	empty, direct, claimed := used(), 0, 0
	for n := 0; n < pending/b.mix.fanout; n += acceptGroup {
		claims, err := l.accept(tb.Context(), b.group(n))
		if err != nil {
			tb.Fatal(err)
		}
		direct += len(claims)
	}
	full := used()
	queued = (full - empty) / pending
	if _, ok := l.(layoutFloor); ok {
		return queued, 0
	}
	if direct == pending {
		return 0, queued
	}
	for n := 0; n < sample/b.mix.fanout; n += acceptGroup {
		claims, err := l.claim(tb.Context(), b.group(n))
		if err != nil {
			tb.Fatal(err)
		}
		claimed += len(claims)
	}
	if left, err := l.left(tb.Context()); err != nil || left == 0 || direct != 0 || claimed != sample {
		tb.Fatalf("claimed %d and %d of %d, %d left, error %v", direct, claimed, sample, left, err)
	}
	return queued, queued + (used()-full)/sample
}

// benchRound lets each worker accept its events in groups, claim as many
// deliveries and settle them.
func benchRound(b *testing.B, base layoutBase, l layout, n int) {
	ctx := b.Context()
	work := func(from int) error {
		var held []benchClaim
		for n := from; n < from+roundEvents; n += acceptGroup {
			g := base.group(n)
			claims, err := l.accept(ctx, g)
			if err == nil && claims == nil {
				claims, err = l.claim(ctx, g)
			}
			if err != nil {
				return err
			}
			for held = append(held, claims...); len(held) >= settleGroup; held = held[settleGroup:] {
				if err := l.settle(ctx, held[:settleGroup]); err != nil {
					return err
				}
			}
		}
		if len(held) == 0 {
			return nil
		}
		return l.settle(ctx, held)
	}
	var all sync.WaitGroup
	for w := range benchWorkers {
		all.Go(func() {
			if err := work((n*benchWorkers + w) * roundEvents); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// layoutBase is what all layouts build on.
type layoutBase struct {
	c       *redis.Client
	mix     benchMix
	names   []string // of the endpoints
	payload string
	record  string
}

// openLayout starts a server for one case and makes the layout in it.
func openLayout(b *testing.B, m benchMix, c candidate) (layoutBase, layout) {
	r := redistest.Start(b, "--auto-aof-rewrite-percentage", "0")
	base := layoutBase{
		c:       redis.NewClient(&redis.Options{Network: "unix", Addr: r.Socket(), Protocol: 2, MaxRetries: -1, PoolSize: benchWorkers}),
		mix:     m,
		payload: strings.Repeat("0123456789abcdef", 64),
		record:  strings.Repeat("delivered ", 8),
	}
	b.Cleanup(func() { _ = base.c.Close() })
	for i := range m.endpoints {
		base.names = append(base.names, fmt.Sprintf("ep%03d", i))
	}
	l := c.make(base)
	if err := l.prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	return base, l
}

// prepare is for layouts that need nothing.
func (b layoutBase) prepare(context.Context) error { return nil }

// claim is for layouts that lease at accept.
func (b layoutBase) claim(context.Context, benchGroup) ([]benchClaim, error) { return nil, nil }

// group is the accept that begins with this event.
func (b layoutBase) group(first int) benchGroup {
	var g benchGroup
	for n := range acceptGroup {
		e := benchEvent{id: benchEventID(first + n)}
		for i := range b.mix.fanout {
			e.endpoints = append(e.endpoints, b.names[((first+n)*b.mix.fanout+i)%len(b.names)])
		}
		g.events = append(g.events, e)
		if len(g.endpoints) < len(b.names) {
			g.endpoints = append(g.endpoints, e.endpoints...)
		}
	}
	g.each = acceptGroup * b.mix.fanout / len(g.endpoints)
	return g
}

// benchEventID is as long as "evt_" and a UUID.
func benchEventID(n int) string {
	const zeros = "evt_000000000000000000000000000000000000"
	s := strconv.Itoa(n)
	return zeros[:len(zeros)-len(s)] + s
}

// run calls a script that answers with how many events or deliveries it took,
// which must be all of them.
func (b layoutBase) run(ctx context.Context, s *redis.Script, want int, keys []string, args []any) error {
	n, err := s.Run(ctx, b.c, keys, args...).Int()
	if err == nil && n != want {
		err = fmt.Errorf("run script: took %d of %d", n, want)
	}
	return err
}

// eventKeys names the hash of each claim's event, with room for more keys.
func eventKeys(claims []benchClaim) []string {
	keys := make([]string, 0, 2*len(claims))
	for _, c := range claims {
		keys = append(keys, keyEvent+c.event)
	}
	return keys
}

// spent is what was used so far: CPU in microseconds, the rest in bytes.
func (b layoutBase) spent(tb testing.TB) map[string]float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return map[string]float64{
		"client-us": float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3,
		"redis-us":  1e6 * (b.info(tb, "used_cpu_user") + b.info(tb, "used_cpu_sys")),
		"net-B":     b.info(tb, "total_net_input_bytes") + b.info(tb, "total_net_output_bytes"),
		"aof-B":     b.info(tb, "aof_current_size"),
	}
}

// info is one number of INFO.
func (b layoutBase) info(tb testing.TB, name string) float64 {
	text, err := b.c.Info(tb.Context(), "everything").Result()
	if err != nil {
		tb.Fatal(err)
	}
	_, value, _ := strings.Cut(text, "\n"+name+":")
	value, _, _ = strings.Cut(value, "\r")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		tb.Fatalf("INFO %s: %v", name, err)
	}
	return n
}

// verify proves that the work was done: every event holds a record of each of its
// endpoints, and nothing is queued or leased.
func (b layoutBase) verify(tb testing.TB, l layout, events int) {
	tb.Helper()
	records := int64(0)
	for from := 0; from < events; from += 1024 {
		var gets []*redis.SliceCmd
		if _, err := b.c.Pipelined(tb.Context(), func(p redis.Pipeliner) error {
			for n := from; n < min(from+1024, events); n++ {
				gets = append(gets, p.HMGet(tb.Context(), keyEvent+benchEventID(n), b.names...))
			}
			return nil
		}); err != nil {
			tb.Fatal(err)
		}
		for _, get := range gets {
			for _, v := range get.Val() {
				if v == b.record {
					records++
				}
			}
		}
	}
	left, err := l.left(tb.Context())
	if want := int64(events * b.mix.fanout); err != nil || left != 0 || records != want {
		tb.Fatalf("%d of %d records, %d deliveries left, error %v", records, want, left, err)
	}
}

// queueKeys names the event hashes of a group, then the streams of its endpoints.
// slot tells an endpoint's place among them, as Lua counts.
func (g benchGroup) queueKeys() (keys []string, slot map[string]int) {
	slot = map[string]int{}
	for _, e := range g.events {
		keys = append(keys, keyEvent+e.id)
	}
	for _, name := range g.endpoints {
		keys = append(keys, keyQueue+name)
		slot[name] = len(keys)
	}
	return keys, slot
}
