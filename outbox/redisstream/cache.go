package redisstream

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"relay/outbox"
)

// cache keeps recent events, so that a Relay need not read back what it accepted.
type cache struct {
	mu    sync.Mutex
	limit int
	bytes int
	lru   *lru.Cache[string, *outbox.Event]
}

// cacheEntries is more than fit by size, unless events are tiny.
const cacheEntries = 1 << 16

func newCache(limit int) *cache {
	c := &cache{limit: limit}
	c.lru, _ = lru.NewWithEvict(cacheEntries, func(_ string, e *outbox.Event) { c.bytes -= weight(e) }) // fails for a size below 1
	return c
}

// weight is about what an event costs in bytes.
func weight(e *outbox.Event) int { return len(e.Data) + len(e.Trace) + 400 }

func (c *cache) add(e *outbox.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if weight(e) > c.limit/8 {
		return // one large event is not worth many small ones
	}
	if c.lru.Contains(e.ID) {
		return
	}
	c.lru.Add(e.ID, e)
	c.bytes += weight(e)
	for c.bytes > c.limit {
		c.lru.RemoveOldest()
	}
}

func (c *cache) get(id string) *outbox.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, _ := c.lru.Get(id)
	return e
}

func (c *cache) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(id)
}
