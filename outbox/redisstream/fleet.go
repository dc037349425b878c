package redisstream

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"

	"github.com/redis/go-redis/v9"
)

// about is what a Relay says of itself in each shard.
type about struct {
	outbox.Relay
	Process process `json:"process"`
}

// deadAfter is how long a Relay is shown after its last heartbeat.
const deadAfter = 10 * time.Second

// forgetAfter is when what it said of itself is removed.
const forgetAfter = time.Hour

// introduction is what this Relay says of itself in the shard.
func (sh *shard) introduction() ([]byte, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	self := about{
		Relay:   outbox.Relay{Host: host, PID: os.Getpid(), Version: sh.s.o.Version, Started: sh.s.started},
		Process: thisProcess(),
	}
	if sh.index == 0 { // where Fleet looks
		sh.s.mu.Lock()
		self.Endpoints = sh.s.hashes
		sh.s.mu.Unlock()
	}
	return json.Marshal(self)
}

// SetEndpoints implements outbox.Fleet. It replaces the hashes that Options.Endpoints gave.
func (s *Store) SetEndpoints(ctx context.Context, hashes map[string]string) error {
	s.mu.Lock()
	s.hashes = hashes
	s.mu.Unlock()
	if err := s.refusal(); err != nil {
		return err
	}
	sh := s.shards[0]
	joined, err := sh.session()
	if err != nil {
		return err // joining tells it
	}
	return sh.tell(ctx, joined)
}

// tell writes the introduction anew. Where that fails, the next tick tries again.
func (sh *shard) tell(ctx context.Context, joined *session) error {
	text, err := sh.introduction()
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err == nil {
		err = node.HSet(ctx, sh.about, strconv.FormatInt(joined.fences.relay, 10), text).Err()
	}
	sh.untold.Store(err != nil)
	return sh.note(err)
}

// present tells the fleet about this Relay, and takes back what dead ones held.
func (sh *shard) present(ctx context.Context, joined *session) error {
	text, err := sh.introduction()
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	p := node.Pipeline()
	p.HSet(ctx, sh.about, strconv.FormatInt(joined.fences.relay, 10), text)
	others := p.HGetAll(ctx, sh.about)
	stale := p.ZRangeArgs(ctx, redis.ZRangeArgs{Key: sh.alive, ByScore: true, Start: "-inf", Stop: sh.clock.at(time.Now()).Add(-forgetAfter).UnixMicro()})
	if _, err := p.Exec(ctx); err != nil {
		return sh.note(err)
	}
	gone := stale.Val()
	for number, text := range others.Val() {
		var other about
		if json.Unmarshal([]byte(text), &other) != nil || !other.Process.dead() {
			continue
		}
		n, err := sh.inherit(ctx, node, number)
		if err != nil {
			return err
		}
		if n > 0 {
			sh.s.log.Info().Int("events", n).Msg("took over the claims of a relay that died on this machine")
		}
		gone = append(gone, number)
	}
	if len(gone) == 0 {
		return nil
	}
	p = node.Pipeline()
	for _, number := range gone {
		p.ZRem(ctx, sh.alive, number)
		p.HDel(ctx, sh.about, number)
		p.HDel(ctx, sh.who, number)
	}
	_, err = p.Exec(ctx)
	return sh.note(err)
}

// inherit hands back all claims of another Relay, which is certainly dead: nobody
// needs to wait for the end of its leases.
func (sh *shard) inherit(ctx context.Context, node *redis.Client, number string) (int, error) {
	members, err := node.ZRange(ctx, sh.lease, 0, -1).Result()
	if err != nil {
		return 0, sh.note(err)
	}
	var list []*held
	for _, m := range members {
		if !strings.HasPrefix(m, number+"-") {
			continue
		}
		if h := sh.orphan(ctx, node, m); h != nil {
			list = append(list, h)
		}
	}
	return len(list), sh.s.release(ctx, list)
}

// leave takes this Relay out of the fleet.
func (sh *shard) leave(ctx context.Context) {
	joined, err := sh.session()
	if err != nil {
		return
	}
	node, err := sh.node(ctx)
	if err != nil {
		return
	}
	p := node.Pipeline()
	p.ZRem(ctx, sh.alive, joined.fences.relay)
	p.HDel(ctx, sh.about, strconv.FormatInt(joined.fences.relay, 10))
	p.HDel(ctx, sh.who, strconv.FormatInt(joined.fences.relay, 10))
	_, _ = p.Exec(ctx) // else it is forgotten in an hour
}

// Relays implements outbox.Fleet. A Relay is shown until deadAfter has passed since its last heartbeat.
func (s *Store) Relays(ctx context.Context) ([]outbox.Relay, error) {
	if err := s.refusal(); err != nil {
		return nil, err
	}
	sh := s.shards[0]
	joined, err := sh.session()
	if err != nil {
		return nil, err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	p := node.Pipeline()
	clock, beats, said := p.Time(ctx), p.ZRangeWithScores(ctx, sh.alive, 0, -1), p.HGetAll(ctx, sh.about)
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	var fleet []outbox.Relay
	for _, z := range beats.Val() {
		name, _ := z.Member.(string)
		seen := time.UnixMicro(int64(z.Score)).UTC()
		if clock.Val().Sub(seen) > deadAfter {
			continue
		}
		var r outbox.Relay
		if json.Unmarshal([]byte(said.Val()[name]), &r) != nil {
			continue // it has only just joined
		}
		r.Number, _ = strconv.ParseInt(name, 10, 64)
		r.Seen, r.Self = seen, r.Number == joined.fences.relay
		fleet = append(fleet, r)
	}
	slices.SortFunc(fleet, func(a, b outbox.Relay) int { return int(max(-1, min(1, a.Number-b.Number))) })
	return fleet, nil
}
