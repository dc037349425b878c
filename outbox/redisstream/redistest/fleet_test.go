package redistest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relay/outbox/redisstream/redistest"
)

// eventually waits for a reply.
func eventually(t *testing.T, s *redistest.Server, want any, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		got, err := s.Do(args...)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v = %v, %v, want %v", args, got, err, want)
		}
	}
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	f := redistest.StartSentinel(t, 2)
	old := f.Master()
	if n := len(f.Sentinels()); n != 3 {
		t.Errorf("%d sentinels, want 3", n)
	}
	if r := f.Replicas(); len(r) != 2 || slices.Contains(r, old) {
		t.Errorf("%d replicas, want 2 others than the master", len(r))
	}
	old.MustDo(t, "SET", "n", "1")
	for _, replica := range f.Replicas() {
		eventually(t, replica, "1", "GET", "n")
	}

	old.Kill()
	master := f.WaitFailover(old)
	if master == old || f.Master() != master {
		t.Errorf("after the failover from %s to %s, the master is %s", old.Addr(), master.Addr(), f.Master().Addr())
	}
	wantReply(t, master, "1", "GET", "n")
	master.MustDo(t, "SET", "n", "2")
	old.Restart()
	if !slices.Contains(f.Replicas(), old) {
		t.Error("the old master is not among the replicas")
	}
}

// redirect is the first word of the error that a node answers, and the rest.
func redirect(s *redistest.Server, args ...string) (string, string) {
	_, err := s.Do(args...)
	reply, _ := errors.AsType[redistest.ReplyError](err)
	word, rest, _ := strings.Cut(string(reply), " ")
	return word, rest
}

func TestClusterMove(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, 0)
	slot := c.Slot("{tag}")
	from, to := c.Owner(slot), c.Node(0)
	if from == to {
		to = c.Node(1)
	}
	for i := range 250 {
		from.MustDo(t, "SET", fmt.Sprintf("{tag}%d", i), fmt.Sprint(i))
	}
	at := fmt.Sprintf("%d %s", slot, to.Addr())

	c.BeginMove(slot, to)
	wantReply(t, from, "0", "GET", "{tag}0")
	if word, rest := redirect(from, "GET", "{tag}new"); word != "ASK" || rest != at {
		t.Errorf("GET of a key that is not there yet: %s %s, want ASK %s", word, rest, at)
	}
	if n := c.MoveKeys(slot, to, 10); n != 10 {
		t.Errorf("MoveKeys moved %d, want 10", n)
	}
	wantReply(t, from, int64(240), "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
	wantReply(t, to, int64(10), "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
	if c.Owner(slot) != from {
		t.Error("the slot has a new owner half-way")
	}

	c.FinishMove(slot, to)
	wantReply(t, to, int64(250), "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
	if word, rest := redirect(from, "GET", "{tag}0"); word != "MOVED" || rest != at {
		t.Errorf("GET at the old owner: %s %s, want MOVED %s", word, rest, at)
	}
	if c.Owner(slot) != to {
		t.Error("the slot has its old owner")
	}

	c.MoveSlot(slot, from)
	wantReply(t, from, "249", "GET", "{tag}249")

	for _, key := range []string{"", "a", "user:{42}:name", "{}x", "{{a}}", "a{b", "\xff\x00", "{a}{b}"} {
		wantReply(t, from, int64(c.Slot(key)), "CLUSTER", "KEYSLOT", key)
	}
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, 1)
	if n := len(c.Addrs()); n != 6 {
		t.Errorf("%d nodes, want 6", n)
	}
	slot := c.Slot("a")
	old := c.Owner(slot)
	old.MustDo(t, "SET", "a", "1")
	replica := slices.IndexFunc(c.Addrs(), func(addr string) bool { return addr == old.Addr() }) + 3
	eventually(t, c.Node(replica), int64(1), "DBSIZE")

	old.Kill()
	master := c.Owner(slot) // waits for it
	if master != c.Node(replica) {
		t.Errorf("the slot is at %s, want the replica %s", master.Addr(), c.Node(replica).Addr())
	}
	wantReply(t, master, "master", "EVAL", "return redis.call('INFO', 'replication'):match('role:(%w+)')", "0")

	old.Restart()
	to := c.Node(0)
	if to == old || to == master {
		to = c.Node(1)
	}
	c.MoveSlot(slot, to)
	wantReply(t, to, "1", "GET", "a")
}
