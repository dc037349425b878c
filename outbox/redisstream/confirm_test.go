package redisstream

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// replicated is a store whose commits wait so long for a replica, which has all that was written so far.
func replicated(t *testing.T, timeout time.Duration) (s *Store, master, replica *redistest.Server) {
	t.Helper()
	master = redistest.Start(t)
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica = redistest.Start(t, "--replicaof", host, port)
	await(t, "the replica follows", func() bool {
		text, _ := master.MustDo(t, "INFO", "replication").(string)
		return strings.Contains(text, "state=online")
	})
	o := at(master.URL())
	o.Durability, o.Replicas, o.ReplicaTimeout = Replicated, 1, timeout
	return openTest(t, o), master, replica
}

// WAIT answers for the last write of its connection. Where Redis refuses the write that a second look comes behind, the
// answer is about older writes, and says nothing.
func TestConfirmationNeedsItsWrite(t *testing.T) {
	t.Parallel()
	s, master, _ := replicated(t, time.Minute)
	acceptOne(t, s, "evt_1", "a")
	sh := s.shards[0]
	joined, err := sh.session()
	if err != nil {
		t.Fatal(err)
	}
	inVain := func() error {
		c := s.confirming(t.Context(), sh, joined)
		c.waited = redis.NewIntCmd(t.Context()) // by no replica
		return c.wait(t.Context())
	}
	if err := inVain(); err != nil {
		t.Errorf("with the replica there: %v", err)
	}
	master.MustDo(t, "CONFIG", "SET", "min-replicas-to-write", "2")
	if err := inVain(); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("confirmed without a write: %v", err)
	}
}

// asked has the last pipeline that ended with WAIT.
type asked struct{ last atomic.Pointer[[]redis.Cmder] }

func (*asked) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*asked) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (a *asked) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[len(cmds)-1].Name() == "wait" {
			a.last.Store(&cmds)
		}
		return next(ctx, cmds)
	}
}

// A change that was made before, and was not confirmed then, is confirmed behind a write: its own script writes
// nothing, and from Redis 7.2 on WAIT answers for the client's own writes alone.
func TestRepeatedChangeIsConfirmed(t *testing.T) {
	t.Parallel()
	s, _, replica := replicated(t, 300*time.Millisecond)
	await(t, "the event is confirmed", func() bool { // perhaps by a repeat: the replica may be slow
		_, err := s.Accept(t.Context(), one("evt_1", "a"))
		return err == nil
	})
	r, err := s.Lookup(t.Context(), "evt_1")
	if err != nil {
		t.Fatal(err)
	}
	node, err := s.shards[0].node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var pipeline asked
	node.AddHook(&pipeline)
	change := outbox.Change{Action: outbox.Discard, Delivery: r.Deliveries[0].ID}
	replica.Pause()
	for n := range 2 {
		if got, err := edited(t, s, change); !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("call %d while the replica hangs: %+v, %v", n, got, err)
		}
	}
	replica.Continue()
	await(t, "it is confirmed", func() bool {
		got, err := s.Edit(t.Context(), []outbox.Change{change})
		return err == nil && got[0].Err == nil && got[0].Repeated
	})
	cmds := *pipeline.last.Load()
	if before := cmds[len(cmds)-2]; before.Name() != "eval" || before.Args()[1] != touch || before.Err() != nil {
		t.Errorf("before WAIT came %s", before.Name())
	}
}
