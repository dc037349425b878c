package redisstream

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// confirmation makes sure that a commit is as durable as promised. WAIT and
// WAITAOF answer for the connection they come on, so they follow the script on it.
type confirmation struct {
	sh     *shard
	joined *session
	kind   confirm
	after  []func(redis.Pipeliner) // nil: the script's answer is enough
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

func (c *confirmation) ask(ctx context.Context, p redis.Pipeliner) {
	ms := c.kind.timeout.Milliseconds()
	if c.kind.waitReplicas > 0 {
		c.waited = redis.NewIntCmd(ctx, "wait", c.kind.waitReplicas, ms)
	} else {
		c.waited = redis.NewIntSliceCmd(ctx, "waitaof", 1, 0, ms)
	}
	_ = p.Process(ctx, c.waited) // its error is the command's
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
	p.ZAdd(ctx, c.sh.alive, redis.Z{Score: float64(c.sh.clock.at(time.Now()).UnixMicro()), Member: c.joined.consumer})
	c.ask(ctx, p)
	_, _ = p.Exec(ctx) // each command has its own error
	if c.enough() {
		return nil
	}
	if err := c.waited.Err(); err != nil {
		return c.sh.note(err)
	}
	if c.kind.waitReplicas > 0 {
		return fmt.Errorf("%w: written, but not confirmed by %d replicas within %s; a repeat with the same id or key asks again", outbox.ErrUnavailable, c.kind.waitReplicas, c.kind.timeout)
	}
	return fmt.Errorf("%w: written, but not on the disk of redis within %s; a repeat with the same id or key asks again", outbox.ErrUnavailable, c.kind.timeout)
}

func (c *confirmation) enough() bool {
	switch w := c.waited.(type) {
	case *redis.IntCmd:
		return w.Err() == nil && w.Val() >= int64(c.kind.waitReplicas)
	case *redis.IntSliceCmd:
		return w.Err() == nil && len(w.Val()) > 0 && w.Val()[0] >= 1
	}
	return false
}
