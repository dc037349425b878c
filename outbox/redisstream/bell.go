package redisstream

import (
	"context"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	bellBlock = 5 * time.Second // how long one look at the bell waits; Close ends it sooner
	bellRead  = 1000            // rings of one look: fewer than are kept
)

// listen hears of work that other Relays left in Redis, until Close.
func (sh *shard) listen() {
	backoff := retryFirst
	for {
		err := sh.hear()
		select {
		case <-sh.s.stop:
			return
		default:
		}
		if err == nil {
			backoff = retryFirst
			continue
		}
		if !sh.s.sleep(backoff/2 + mathrand.N(backoff)) {
			return
		}
		backoff = min(2*backoff, retryMost)
		sh.s.lookAgain(sh) // bells may have been missed
	}
}

func (sh *shard) hear() error {
	if _, err := sh.session(); err != nil {
		return err
	}
	ctx := context.Background()
	client, err := sh.s.conn.blocking(ctx, sh.bell)
	if err != nil {
		return sh.note(err)
	}
	sh.mu.Lock()
	last := sh.lastBell
	sh.mu.Unlock()
	started := time.Now()
	found, err := client.XRead(ctx, &redis.XReadArgs{Streams: []string{sh.bell, last}, Count: bellRead, Block: bellBlock}).Result()
	if isNil(err) {
		sh.up()
		if time.Since(started) > 2*bellBlock {
			sh.s.lookAgain(sh) // this process was stopped for a while: the bell may have wrapped
		}
		return nil
	}
	select {
	case <-sh.s.stop:
		return nil
	default:
	}
	if err != nil {
		return sh.note(err)
	}
	for _, stream := range found {
		if len(stream.Messages) == bellRead {
			sh.missed(ctx, client, last)
		}
		names := make([]string, 0, len(stream.Messages))
		for _, m := range stream.Messages {
			last = m.ID
			if name, ok := m.Values["e"].(string); ok {
				names = append(names, name)
			}
			if revision, ok := m.Values["n"].(string); ok {
				sh.s.hearNotes(revision, time.Time{})
			}
			if text, ok := m.Values["k"].(string); ok {
				kind, revision, _ := strings.Cut(text, "|")
				sh.s.hearKind(kind, revision, time.Time{})
			}
		}
		sh.s.rung(sh, names)
	}
	sh.mu.Lock()
	sh.lastBell = last
	sh.mu.Unlock()
	return nil
}

// missed looks into all endpoints if rings behind the last one that was heard are gone: thousands came at once.
func (sh *shard) missed(ctx context.Context, client *redis.Client, last string) {
	first, err := client.XRangeN(ctx, sh.bell, "-", "+", 1).Result()
	if err != nil || len(first) == 0 || parseEntry('q', last).before(parseEntry('q', first[0].ID)) {
		sh.s.lookAgain(sh)
	}
}
