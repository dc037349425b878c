package redisstream

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// Faults F14 and F28: groups and consumers are destroyed under load. What was claimed may be
// made twice; nothing is lost, and nothing counted twice.
func TestKillGroupsUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "SET", newKeys("relay", 0).prefix+"reconciler", "this test")
	s := openTest(t, at(server.URL()))
	x := startTraffic(t, s)
	k := s.shards[0].keys
	rounds := faults(t, 10)
	for round := range rounds {
		x.more(20)
		for _, name := range pair {
			if round%2 == 0 {
				server.MustDo(t, "XGROUP", "DESTROY", k.backlog(name), group)
				continue
			}
			if _, err := server.Do("XGROUP", "DELCONSUMER", k.backlog(name), group, host()); err != nil {
				t.Logf("DELCONSUMER: %v", err) // the group is not made again yet
			}
		}
		reconcileAll(t, s)
	}
	x.more(20)
	await(t, "what nobody can claim is back in line", func() bool { return reconcileAll(t, s) == 0 })
	x.finish(s, at(server.URL()), rounds*underWay)
}

// consumersOf are the consumers of an endpoint's group, with the number of their claims.
func consumersOf(t *testing.T, server *redistest.Server, stream string) map[string]int64 {
	t.Helper()
	list, _ := server.MustDo(t, "XINFO", "CONSUMERS", stream, group).([]any)
	all := map[string]int64{}
	for _, c := range list {
		fields := c.([]any)
		all[fields[1].(string)] = fields[3].(int64)
	}
	return all
}

// Fault F24: Relays of one machine have consumers of their own, whose names are used again.
func TestConsumersHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	names := func(stores ...*Store) (all []string) {
		for _, s := range stores {
			joined, err := s.shards[0].session()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, joined.consumer)
		}
		return all
	}
	one, two, three := openTest(t, at(server.URL())), openTest(t, at(server.URL())), openTest(t, at(server.URL()))
	if got := names(one, two, three); !slices.Equal(got, []string{machine, machine + "~2", machine + "~3"}) {
		t.Errorf("names %v", got)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(openTest(t, at(server.URL()))); got[0] != machine+"~2" {
		t.Errorf("the name %v was not used again", got)
	}
}

// A consumer goes with its Relay, but never while it has claims.
func TestConsumersAreRemoved(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	idle, busy := openTest(t, at(server.URL())), openTest(t, at(server.URL()))
	for _, id := range []string{"e1", "e2", "e3"} {
		acceptOne(t, busy, id, "a")
	}
	deliver(t, idle, claimSome(t, idle, "a", 1, time.Minute)...)
	countsOf(t, idle, "a") // it is settled
	claims := claimSome(t, busy, "a", 2, time.Hour)
	stream := busy.shards[0].backlog("a")
	before := consumersOf(t, server, stream)
	for _, s := range []*Store{idle, busy} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	after := consumersOf(t, server, stream)
	if len(before) != 2 || len(after) != 1 || after[host()+"~2"] != int64(len(claims)) {
		t.Errorf("consumers %v, then %v, want the one that has claims", before, after)
	}

	// It goes later, when the claims have ended.
	s := openTest(t, at(server.URL()))
	if left, err := s.shards[0].remove(t.Context(), host()+"~2", ""); err != nil || left {
		t.Errorf("removed with claims: %t, %v", left, err)
	}
	server.MustDo(t, "XCLAIM", stream, group, host()+"~2", "0", idOf(claims[0]), idOf(claims[1]), "TIME", "0")
	server.MustDo(t, "ZADD", s.shards[0].leases, "0", "a")
	deliver(t, s, claimSome(t, s, "a", 2, time.Minute)...)
	countsOf(t, s, "a")
	if all, err := s.shards[0].remove(t.Context(), host()+"~2", ""); err != nil || !all {
		t.Errorf("removed without claims: %t, %v", all, err)
	}
	if after := consumersOf(t, server, stream); len(after) != 1 {
		t.Errorf("consumers %v", after)
	}
}

// idOf is the id of the entry that a claim of a first attempt is of.
func idOf(c outbox.Claim) string {
	return fmt.Sprintf("%d-0", orderOf(c.Fence))
}

// A Relay that was cut off loses its name to one that starts on its machine, and with it its
// claims, before their leases end. Both may make an attempt; one is recorded. Then each has
// a name of its own again.
func TestNameIsTakenOver(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	cut := openTest(t, at(proxy.URL()))
	for _, id := range []string{"e1", "e2"} {
		acceptOne(t, cut, id, "a")
	}
	claims := claimSome(t, cut, "a", 2, time.Hour)
	before, err := cut.shards[0].session()
	if err != nil {
		t.Fatal(err)
	}
	proxy.Refuse()
	proxy.Cut()
	server.MustDo(t, "ZADD", cut.shards[0].alive, "1", before.consumer) // it was heard of long ago
	other := openTest(t, at(server.URL()))
	if joined, err := other.shards[0].session(); err != nil || joined.consumer != before.consumer {
		t.Fatalf("session %+v, %v, want the name %s", joined, err, before.consumer)
	}
	again := claimSome(t, other, "a", 2, time.Hour)
	if again[0].Fence == claims[0].Fence || again[0].Attempts != 0 {
		t.Errorf("claimed %+v, want another fence", again[0])
	}
	deliver(t, other, again[0])
	countsOf(t, other, "a") // it is recorded
	proxy.Allow()
	deliver(t, cut, claims...) // the first too late, the second first
	await(t, "both are settled", func() bool {
		_, err := cut.Counts(t.Context())
		return err == nil && countsOf(t, other, "a").Delivered == 2
	})
	if err := other.Settle(t.Context(), again[1], done(again[1])); err != nil && !errors.Is(err, outbox.ErrLeaseLost) {
		t.Errorf("Settle: %v", err)
	}
	if c := countsOf(t, other, "a"); c.Delivered != 2 || c.Pending != 0 {
		t.Errorf("counts %+v, want 2 delivered", c)
	}
	for _, id := range []string{"e1", "e2"} {
		if r, err := other.Lookup(t.Context(), id); err != nil || len(r.Deliveries[0].Attempts) != 1 {
			t.Errorf("Lookup %s: %+v, %v, want one attempt", id, r, err)
		}
	}
	await(t, "the other joins again", func() bool {
		joined, err := cut.shards[0].session()
		return err == nil && joined.consumer == before.consumer+"~2"
	})
}

// An outbox of another format is refused, with what to do.
func TestOtherFormats(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for kept, next := range map[string]string{"2": "drain it with the build that wrote it", "4": "a newer one"} {
		server.MustDo(t, "HSET", newKeys("relay", 0).meta, "id", "x", "format", kept)
		s, err := Open(t.Context(), at(server.URL()))
		if err == nil {
			_ = s.Close()
			t.Fatalf("format %s was opened", kept)
		}
		if !strings.Contains(err.Error(), next) || !strings.Contains(err.Error(), "format "+kept) {
			t.Errorf("format %s: %v, want what to do", kept, err)
		}
		if errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("format %s is told as an outage", kept)
		}
	}
	if n := server.MustDo(t, "DBSIZE"); n != int64(1) {
		t.Errorf("%v keys, want the one that was there", n)
	}
}

// Whatever finds out at once that the outbox is another one, the Relay joins it once, under its
// old name.
func TestJoinsOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	sh := s.shards[0]
	before, err := sh.session()
	if err != nil {
		t.Fatal(err)
	}
	server.MustDo(t, "FLUSHALL")
	var joins sync.WaitGroup
	for range 8 {
		joins.Go(func() {
			if err := sh.join(t.Context(), before); err != nil {
				t.Errorf("join: %v", err)
			}
		})
	}
	joins.Wait()
	after, err := sh.session()
	if err != nil || after.relay != 1 || after.consumer != before.consumer {
		t.Errorf("session %+v, %v, want the first number and the name %s", after, err, before.consumer)
	}
}
