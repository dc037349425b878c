package redisstream

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Relay is one Relay of the fleet that shares the outbox.
type Relay struct {
	Number    int64             `json:"number"` // given when it joined
	Host      string            `json:"host"`
	PID       int               `json:"pid"`
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Seen      time.Time         `json:"seen"`      // its last heartbeat, by the clock of Redis
	Endpoints map[string]string `json:"endpoints"` // by name: a hash of what it does with each
	Self      bool              `json:"self"`
}

// deadAfter is how long a Relay is shown after its last heartbeat.
const deadAfter = 10 * time.Second

// forgetAfter is when what it said of itself is removed.
const forgetAfter = time.Hour

// present tells the fleet about this Relay.
func (sh *shard) present(ctx context.Context, number int64) error {
	if sh.index > 0 {
		return nil // one shard knows the fleet
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	text, err := json.Marshal(Relay{Host: host, PID: os.Getpid(), Version: sh.s.o.Version, Started: time.Now().UTC(), Endpoints: sh.s.o.Endpoints})
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	stale, err := node.ZRangeArgs(ctx, redis.ZRangeArgs{Key: sh.alive, ByScore: true, Start: "-inf", Stop: time.Now().Add(-forgetAfter).UnixMicro()}).Result()
	if err != nil {
		return sh.note(err)
	}
	p := node.Pipeline()
	p.HSet(ctx, sh.about, strconv.FormatInt(number, 10), text)
	for _, n := range stale {
		p.ZRem(ctx, sh.alive, n)
		p.HDel(ctx, sh.about, n)
	}
	_, err = p.Exec(ctx)
	return sh.note(err)
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
	_, _ = p.Exec(ctx) // else it is forgotten in an hour
}

// Fleet returns the Relays that share this outbox and live, by number.
func (s *Store) Fleet(ctx context.Context) ([]Relay, error) {
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
	clock, beats, about := p.Time(ctx), p.ZRangeWithScores(ctx, sh.alive, 0, -1), p.HGetAll(ctx, sh.about)
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	var fleet []Relay
	for _, z := range beats.Val() {
		name, _ := z.Member.(string)
		seen := time.UnixMicro(int64(z.Score)).UTC()
		if clock.Val().Sub(seen) > deadAfter {
			continue
		}
		var r Relay
		if json.Unmarshal([]byte(about.Val()[name]), &r) != nil {
			continue // it has only just joined
		}
		r.Number, _ = strconv.ParseInt(name, 10, 64)
		r.Seen, r.Self = seen, r.Number == joined.fences.relay
		fleet = append(fleet, r)
	}
	slices.SortFunc(fleet, func(a, b Relay) int { return int(max(-1, min(1, a.Number-b.Number))) })
	return fleet, nil
}

// Disagreements names the endpoints that Relays of a fleet have different
// settings for, and says who has which.
func Disagreements(fleet []Relay) map[string]string {
	byName := map[string]map[string][]string{}
	for _, r := range fleet {
		for name, hash := range r.Endpoints {
			if byName[name] == nil {
				byName[name] = map[string][]string{}
			}
			byName[name][hash] = append(byName[name][hash], strconv.FormatInt(r.Number, 10))
		}
	}
	out := map[string]string{}
	for name, hashes := range byName {
		if len(hashes) < 2 {
			continue
		}
		var who []string
		for hash, relays := range hashes {
			who = append(who, hash+" at relay "+strings.Join(relays, ", "))
		}
		slices.Sort(who)
		out[name] = strings.Join(who, "; ")
	}
	return out
}
