package redisstream_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// A Cluster of three masters with a replica each is put through faults. The suite takes
// long on it and is for a soak.
func TestKillCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, 1)
	t.Run("slot moves", func(t *testing.T) { testSlotMoves(t, c) })
	t.Run("master dies", func(t *testing.T) { testClusterFailover(t, c) })
	if os.Getenv("RELAY_SOAK_ROUNDS") != "" {
		t.Run("conformance", func(t *testing.T) { outboxtest.Run(t, clusterEngine(c)) })
		t.Run("operable", func(t *testing.T) { outboxtest.RunOperable(t, clusterEngine(c)) })
		neverCrossSlot(t, c)
	}
}

// neverCrossSlot checks that no command had keys of several slots, and tells what
// else the nodes refused since they started.
func neverCrossSlot(t *testing.T, c *redistest.Cluster) {
	t.Helper()
	for i := range c.Addrs() {
		s := c.Node(i)
		if n := refusals(t, s, "CROSSSLOT"); n > 0 {
			t.Errorf("%s answered CROSSSLOT %d times", s.Addr(), n)
		}
		t.Logf("%s answered MOVED %d times, ASK %d, TRYAGAIN %d, CLUSTERDOWN %d", s.Addr(),
			refusals(t, s, "MOVED"), refusals(t, s, "ASK"), refusals(t, s, "TRYAGAIN"), refusals(t, s, "CLUSTERDOWN"))
	}
}

func clusterEngine(c *redistest.Cluster) outboxtest.Harness {
	var n atomic.Int64
	options := map[outbox.Engine]redisstream.Options{}
	open := func(t *testing.T, o redisstream.Options) outbox.Engine {
		s, err := redisstream.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		options[s] = o
		return s
	}
	fresh := func(size int64) redisstream.Options {
		return redisstream.Options{Cluster: c.Addrs(), Database: -1, Namespace: fmt.Sprintf("n%d", n.Add(1)), MaxSize: size}
	}
	return outboxtest.Harness{
		Open:      func(t *testing.T) outbox.Engine { return open(t, fresh(0)) },
		OpenSized: func(t *testing.T, size int64) outbox.Engine { return open(t, fresh(size)) },
		Reopen: func(t *testing.T, s outbox.Engine) outbox.Engine {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, options[s])
		},
	}
}

// spread returns a namespace whose three shards lie on different masters, and the
// slots of the shards.
func spread(t *testing.T, c *redistest.Cluster, prefix string) (namespace string, slots [3]int) {
	t.Helper()
	for n := range 1000 {
		namespace = fmt.Sprintf("%s%d", prefix, n)
		owners := map[*redistest.Server]bool{}
		for i := range slots {
			slots[i] = c.Slot(fmt.Sprintf("{%s:%d}:meta", namespace, i))
			owners[c.Owner(slots[i])] = true
		}
		if len(owners) == len(slots) {
			return namespace, slots
		}
	}
	t.Fatal("no namespace has its shards on different masters")
	return "", slots
}

// Fault F21: the slot of a shard moves to another master under load, with a
// while in which half of its keys are here and half there. What is for the shard waits or
// is refused meanwhile, the other shards go on, and nothing is lost.
func testSlotMoves(t *testing.T, c *redistest.Cluster) {
	namespace, slots := spread(t, c, "s")
	l := startLoad(t, redisstream.Options{Cluster: c.Addrs(), Database: -1, Namespace: namespace, Shards: 3})
	l.progress()
	from := c.Owner(slots[0])
	for range soakRounds(t, 1) {
		l.forgetRefusals()
		to := c.Owner(slots[1])
		if to == c.Owner(slots[0]) {
			to = from
		}
		began := time.Now()
		c.BeginMove(slots[0], to)
		if !testkit.Wait(t.Context(), 500*time.Millisecond) {
			return
		}
		moved := 0
		for moved < 100 {
			n := c.MoveKeys(slots[0], to, 20)
			if n == 0 {
				break
			}
			moved += n
		}
		if !testkit.Wait(t.Context(), 2*time.Second) {
			return
		}
		c.FinishMove(slots[0], to)
		finished := time.Since(began)
		l.progress()
		t.Logf("slot moved in %s, %d keys of it early; every shard works after %s; longest refused %s",
			finished.Round(time.Millisecond), moved, time.Since(began).Round(time.Millisecond), l.refused())
	}
	neverCrossSlot(t, c)
	if tally := l.finish(); tally.Lost > 0 {
		t.Errorf("lost deliveries: %s", strings.Join(tally.Losses, "\n"))
	}
}

// Fault F20 in a Cluster: the master of a shard is killed, its replica replaces it,
// and it comes back as replica. The level "replicated" loses nothing.
func testClusterFailover(t *testing.T, c *redistest.Cluster) {
	namespace, slots := spread(t, c, "f")
	l := startLoad(t, redisstream.Options{
		Cluster: c.Addrs(), Database: -1, Namespace: namespace, Shards: 3,
		Durability: redisstream.Replicated, Replicas: 1, ReplicaTimeout: time.Second,
	})
	for round := range soakRounds(t, 2) {
		l.progress()
		l.forgetRefusals()
		slot := slots[round%len(slots)]
		old, began := c.Owner(slot), time.Now()
		old.Kill()
		c.Owner(slot) // waits for it
		replaced := time.Since(began)
		// Its master has no replica now, so nothing is confirmed until the old one is back.
		old.Restart()
		soon(t, "the old master to be a replica in sync", func() error { return follows(old) })
		back := time.Since(began)
		l.progress()
		t.Logf("kill -9: another master after %s, its replica after %s, every shard works after %s; longest refused %s",
			replaced.Round(time.Millisecond), back.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), l.refused())
	}
	neverCrossSlot(t, c)
	if tally := l.finish(); tally.Lost > 0 {
		t.Errorf("lost deliveries: %s", strings.Join(tally.Losses, "\n"))
	}
}

// What an endpoint has waiting stays in Redis until somebody has time for it: a
// Claim leases what it was asked for, and what its Relay gives out in a moment. Retries that
// are due, and shards that have more, once made it lease the whole backlog first.
func TestClaimLeavesBacklog(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			const retries, backlog = 200, 3000
			namespace := fmt.Sprintf("b%d", shards)
			store, err := redisstream.Open(t.Context(), redisstream.Options{URL: server.URL(), Database: -1, Namespace: namespace, Shards: shards})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			accept := func(prefix string, n int) {
				for i := range n {
					e := outbox.Event{ID: fmt.Sprintf("%s%d", prefix, i), Type: "a", Data: []byte("1")}
					if _, err := store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"a"}}}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			claim := func(n int) []outbox.Claim {
				claims, err := store.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: n, Lease: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				return claims
			}
			accept("retried", retries)
			var first []outbox.Claim
			for len(first) < retries {
				first = append(first, claim(retries-len(first))...)
			}
			due := time.Now().Add(3 * time.Second)
			for _, c := range first {
				if err := store.Settle(t.Context(), c, outbox.Settlement{Attempt: outbox.Attempt{N: 1, Started: time.Now()}, State: outbox.Pending, Due: due}); err != nil {
					t.Fatal(err)
				}
			}
			accept("fresh", backlog)
			if !testkit.Wait(t.Context(), time.Until(due)) {
				return
			}
			given := 0
			for range 10 {
				given += len(claim(8))
			}
			leased := 0
			for i := range shards {
				summary, _ := server.MustDo(t, "XPENDING", fmt.Sprintf("{%s:%d}:q:a", namespace, i), "relay").([]any)
				n, _ := summary[0].(int64)
				leased += int(n)
			}
			if most := given + 600; leased > most {
				t.Errorf("%d claims are out and %d deliveries leased, want at most %d", given, leased, most)
			}
			t.Logf("%d claims are out, %d deliveries leased", given, leased)
		})
	}
}
