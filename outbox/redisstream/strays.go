package redisstream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// strays are keys of another type that stand where events were: somebody who used the same name wrote them. The events
// are lost, and no other work waits for them.
type strays struct {
	mu   sync.Mutex
	keys map[string]*shard
	over bool // others were met that had no room, since keys was empty
}

// straysKnown bounds how many are remembered and told in the log.
const straysKnown = 100

// add tells whether the key was not known and has room, and whether it is the first one that has none.
func (x *strays) add(key string, sh *shard) (added, first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.keys[key] != nil:
		return false, false
	case len(x.keys) >= straysKnown:
		first, x.over = !x.over, true
		return false, first
	case x.keys == nil:
		x.keys = map[string]*shard{}
	}
	x.keys[key] = sh
	return true, false
}

// more tells whether there were others than those that are known.
func (x *strays) more() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.over
}

func (x *strays) list() map[string]*shard {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.keys)
}

func (x *strays) remove(key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.keys, key)
	x.over = x.over && len(x.keys) > 0
}

// isStray: the key of the command is of another type. Use it only of commands to the hash of an event.
func isStray(err error) bool { return reply(err) == "wrong_type" }

// stray tells of an event that is lost, once.
func (sh *shard) stray(eventID string) {
	key := sh.event(eventID)
	added, first := sh.s.strays.add(key, sh)
	if first {
		sh.s.log.Error().Str("code", "wrong_type").Msg(fmt.Sprintf("more than %d keys hold something of another type where an event was: further ones are not told", straysKnown))
	}
	if !added {
		return
	}
	what, next := strayed([]string{key})
	sh.s.log.Error().Str("code", "wrong_type").Str("event_id", eventID).Str("next", next).Msg(what)
}

// strayOf tells of the key that an accept met, if it is that of an event.
func (sh *shard) strayOf(said string) {
	_, key, _ := strings.Cut(said, " Key: ")
	if id, ok := strings.CutPrefix(key, sh.event("")); ok {
		sh.stray(id)
	}
}

// strayed is what an operator reads of such keys.
func strayed(keys []string) (what, next string) {
	more := ""
	if n := len(keys) - 3; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	verb := "key holds"
	if len(keys) > 1 {
		verb = "keys hold"
	}
	return fmt.Sprintf("%d %s something of another type where an event was, which is lost: %s%s", len(keys), verb, strings.Join(keys[:min(3, len(keys))], ", "), more),
		"look at it with TYPE, find out who writes it and give that program other names, then DEL it; send the event again"
}

// strayWarning is about those that are still there.
func (s *Store) strayWarning() []outbox.Warning {
	keys := slices.Sorted(maps.Keys(s.strays.list()))
	if len(keys) == 0 {
		return nil
	}
	what, next := strayed(keys)
	if s.strays.more() {
		what = "at least " + what
	}
	return []outbox.Warning{{What: what, Next: next, Danger: true}}
}

// lookAtStrays forgets those that somebody has removed.
func (s *Store) lookAtStrays(ctx context.Context) {
	for key, sh := range s.strays.list() {
		node, err := sh.node(ctx)
		if err != nil {
			return // the next look finds them
		}
		if err := node.HLen(ctx, key).Err(); err == nil {
			s.strays.remove(key)
		}
	}
}

// outcomes reads the commands of a pipeline to the hashes of events: the error of the first one that failed, but for those
// that met a key of another type. failed is the error of the pipeline.
func outcomes[C redis.Cmder](cmds []C, failed error) error {
	if failed == nil {
		return nil
	}
	met := false
	for _, c := range cmds {
		switch err := c.Err(); {
		case isStray(err):
			met = true
		case err != nil:
			return err
		}
	}
	if met {
		return nil
	}
	return failed // a connection that was refused
}
