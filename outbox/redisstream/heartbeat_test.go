package redisstream

import (
	"fmt"
	"strconv"
	"testing"
	"time"

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
}
