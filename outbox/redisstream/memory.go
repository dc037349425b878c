package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// health answers for Store.Health.
func (sh *shard) health(ctx context.Context) error {
	own, used, err := sh.usage(ctx)
	if err != nil {
		return err
	}
	if limit := sh.limit(); limit > 0 && own+smallest > limit {
		return sh.fullness(own)
	}
	return used.refusal()
}

// fill answers for Store.Fill.
func (sh *shard) fill(ctx context.Context) (float64, error) {
	own, used, err := sh.usage(ctx)
	if err != nil {
		return 0, err
	}
	fill := 0.0
	if limit := sh.limit(); limit > 0 {
		fill = float64(own) / float64(limit)
	}
	return max(fill, used.share()), nil
}

// usage asks how many bytes the shard has, and Redis in all.
func (sh *shard) usage(ctx context.Context) (own int64, used memory, err error) {
	if _, err := sh.session(); err != nil {
		return 0, memory{}, err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return 0, memory{}, sh.note(err)
	}
	own, err = node.HGet(ctx, sh.meta, "bytes").Int64()
	if err != nil && !isNil(err) {
		return 0, memory{}, sh.note(err)
	}
	used, err = sh.memory(ctx, node)
	return own, used, err
}

// smallest is what an event costs at least.
const smallest = 700

// limit is the shard's part of MaxSize, 0 for none.
func (sh *shard) limit() int64 { return sh.s.o.MaxSize / int64(len(sh.s.shards)) }

func (sh *shard) fullness(used int64) error {
	return fmt.Errorf("%w: %d of %d bytes of max_size are in use; deliveries and retention free space", outbox.ErrFull, used, sh.limit())
}

// memory is what Redis uses, with all that others keep in it.
type memory struct {
	used, most int64  // bytes; most is 0 for no limit
	runID      string // of the process that says so
}

// room is what Accept may fill: the last sixteenth of maxmemory is for what drains.
func (m memory) room() int64 { return m.most - m.most/16 }

func (m memory) share() float64 {
	if m.most == 0 {
		return 0
	}
	return float64(m.used) / float64(m.room())
}

// refusal is nil while there is room.
func (m memory) refusal() error {
	if m.most == 0 || m.used <= m.room() {
		return nil
	}
	return fmt.Errorf("%w: redis uses %d of %d bytes of its maxmemory; deliveries and retention free space", outbox.ErrFull, m.used, m.most)
}

// memory asks Redis. A user who may not ask leaves it to Redis to refuse.
func (sh *shard) memory(ctx context.Context, node *redis.Client) (memory, error) {
	text, err := node.Info(ctx, "memory", "server").Result()
	if denied(err) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, sh.note(err)
	}
	info := parseInfo(text)
	m := memory{runID: info["run_id"]}
	m.used, _ = strconv.ParseInt(info["used_memory"], 10, 64)
	m.most, _ = strconv.ParseInt(info["maxmemory"], 10, 64)
	return m, nil
}

// memoryEvery is how old the last look at the memory of Redis may be.
const memoryEvery = 2 * time.Second

// watchMemory looks rarely, for crowded.
func (sh *shard) watchMemory(ctx context.Context) {
	sh.mu.Lock()
	fresh := time.Since(sh.weighed) < memoryEvery
	sh.mu.Unlock()
	if fresh {
		return
	}
	node, err := sh.node(ctx)
	if err != nil {
		return // the next call says so
	}
	m, err := sh.memory(ctx, node)
	if err != nil {
		return
	}
	sh.answers(m.runID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.weighed, sh.full = time.Now(), m.refusal()
}

// crowded says why nothing can be accepted, for lack of memory.
func (sh *shard) crowded() error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.full
}
