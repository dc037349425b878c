package redisstream

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// confirmation makes sure that a commit is as durable as promised. WAIT and
// WAITAOF answer for the writes of the connection they come on, so they follow a write on it: the script's, or else one
// of their own.
type confirmation struct {
	sh     *shard
	joined *session
	kind   confirm
	after  []func(redis.Pipeliner) // nil: the script's answer is enough
	wrote  redis.Cmder             // the write of its own, nil where the script's is enough
	waited redis.Cmder
}

// confirming prepares one for the next script call.
func (s *Store) confirming(ctx context.Context, sh *shard, joined *session) *confirmation {
	s.mu.Lock()
	c := &confirmation{sh: sh, joined: joined, kind: s.confirm}
	s.mu.Unlock()
	if c.kind.waitAOF || c.kind.waitReplicas > 0 {
		c.after = []func(redis.Pipeliner){func(p redis.Pipeliner) { c.ask(ctx, p) }}
	}
	return c
}

// rewriting is confirming for a script that may find that all was done before, and write nothing.
func (s *Store) rewriting(ctx context.Context, sh *shard, joined *session) *confirmation {
	c := s.confirming(ctx, sh, joined)
	if c.after != nil {
		c.after = []func(redis.Pipeliner){func(p redis.Pipeliner) { c.write(ctx, p) }}
	}
	return c
}

func (c *confirmation) ask(ctx context.Context, p redis.Pipeliner) {
	ms := c.kind.timeout.Milliseconds()
	if c.kind.waitReplicas > 0 {
		c.waited = redis.NewIntCmd(ctx, "wait", c.kind.waitReplicas, ms)
	} else {
		c.waited = redis.NewIntSliceCmd(ctx, "waitaof", 1, 0, ms)
	}
	_ = p.Process(ctx, c.waited) // its error is the command's
}

// touch is a write that a full server takes, too.
const touch = "#!lua flags=allow-oom\nreturn redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])"

// write asks behind a write.
func (c *confirmation) write(ctx context.Context, p redis.Pipeliner) {
	c.wrote = p.Eval(ctx, touch, []string{c.sh.alive}, c.sh.clock.at(time.Now()).UnixMicro(), c.joined.consumer)
	c.ask(ctx, p)
}

// wait returns nil when the commit is as durable as promised. It asks a second
// time, behind a write, when the first was in vain.
func (c *confirmation) wait(ctx context.Context) error {
	if c.after == nil {
		return nil
	}
	if c.enough() {
		return nil
	}
	node, err := c.sh.node(ctx)
	if err != nil {
		return c.sh.note(err)
	}
	p := node.Pipeline()
	c.write(ctx, p)
	_, _ = p.Exec(ctx) // each command has its own error
	if c.enough() {
		return nil
	}
	if err := cmp.Or(c.wrote.Err(), c.waited.Err()); err != nil {
		return c.sh.note(err)
	}
	if c.kind.waitReplicas > 0 {
		return fmt.Errorf("%w: written, but not confirmed by %d replicas within %s; a repeat with the same id or key asks again", outbox.ErrUnavailable, c.kind.waitReplicas, c.kind.timeout)
	}
	return fmt.Errorf("%w: written, but not on the disk of redis within %s; a repeat with the same id or key asks again", outbox.ErrUnavailable, c.kind.timeout)
}

func (c *confirmation) enough() bool {
	if c.wrote != nil && c.wrote.Err() != nil {
		return false // Redis refused it, and would answer for older writes
	}
	switch w := c.waited.(type) {
	case *redis.IntCmd:
		return w.Err() == nil && w.Val() >= int64(c.kind.waitReplicas)
	case *redis.IntSliceCmd:
		return w.Err() == nil && len(w.Val()) > 0 && w.Val()[0] >= 1
	}
	return false
}
