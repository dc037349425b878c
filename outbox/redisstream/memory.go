package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// memory is what Redis uses, with all that others keep in it.
type memory struct{ used, most int64 } // bytes; most is 0 for no limit

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
	text, err := node.Info(ctx, "memory").Result()
	if denied(err) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, sh.note(err)
	}
	info := parseInfo(text)
	var m memory
	m.used, _ = strconv.ParseInt(info["used_memory"], 10, 64)
	m.most, _ = strconv.ParseInt(info["maxmemory"], 10, 64)
	return m, nil
}

// memoryEvery is how old the last look at the memory of Redis may be.
const memoryEvery = 2 * time.Second

// watchMemory looks now and then, for crowded.
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
