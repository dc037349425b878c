package redisstream

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"relay/internal/sorting"
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

// join makes the shard's outbox if there is none, and gets this Relay its number and its name. It
// does nothing if another call has joined since the session was was what the caller knew (nil: none).
func (sh *shard) join(ctx context.Context, was *session) error {
	sh.joining.Lock()
	defer sh.joining.Unlock()
	sh.mu.Lock()
	done := sh.joined != was
	sh.mu.Unlock()
	if done {
		return nil
	}
	dead, err := sh.deadHere(ctx)
	if err != nil {
		return err
	}
	token := rand.Text()
	args := []any{rand.Text(), format, token, host(), deadAfter.Microseconds()}
	for _, d := range dead {
		args = append(args, d.name, d.token)
	}
	sent := time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.join, []string{sh.meta, sh.bell, sh.who, sh.alive}, args)
	if err != nil {
		return err
	}
	received := time.Now()
	answer, err := texts(v, 7)
	if err != nil {
		return err
	}
	if err := sh.readable(answer[3]); err != nil {
		return err
	}
	relay, err := strconv.ParseInt(answer[1], 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %q is no number of a Relay", outbox.ErrCorrupt, answer[1])
	}
	now, _ := strconv.ParseInt(answer[4], 10, 64)
	sh.clock.observe(time.UnixMicro(now), sent, received)
	sh.mu.Lock()
	lost := sh.joined != nil && sh.joined.outbox != answer[0]
	joined := &session{outbox: answer[0], relay: relay, consumer: answer[5], token: token}
	sh.joined = joined
	sh.lastBell = answer[2]
	sh.mu.Unlock()
	if lost {
		sh.s.log.Error().Str("code", "outbox_epoch_changed").Str("outbox", sh.s.o.String()).
			Msg("the outbox in Redis is not the one that this Relay worked on: it was emptied or replaced, and what was pending in it is gone")
	}
	// A full Redis must not keep a Relay from draining it: what it says of itself can wait.
	if err := sh.tell(ctx, joined); err != nil && !errors.Is(err, outbox.ErrFull) {
		return err
	}
	predecessors := names(dead)
	if answer[6] != "" {
		predecessors = append(predecessors, joined.consumer)
	}
	if err := sh.succeed(ctx, joined, predecessors); err != nil {
		return err
	}
	sh.s.lookAgain(sh)
	return nil
}

// readable is nil for the format that this Relay reads.
func (sh *shard) readable(kept string) error { return readable(sh.s.o.Namespace, kept) }

func readable(namespace, kept string) error {
	switch n, err := strconv.Atoi(kept); {
	case kept == format:
		return nil
	case err == nil && n < formatNumber:
		return fmt.Errorf("the outbox in namespace %q has format %s, this Relay reads format %s only: drain it with the build that wrote it, or use another namespace", namespace, kept, format)
	default:
		return fmt.Errorf("the outbox in namespace %q has format %s, this Relay reads format %s: run the version of Relay that made it, or a newer one", namespace, kept, format)
	}
}

// member is a Relay of the fleet, by its name.
type member struct{ name, token string }

// deadHere are Relays that ran on this machine and are certainly dead.
func (sh *shard) deadHere(ctx context.Context) (dead []member, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	p := node.Pipeline()
	said, who := p.HGetAll(ctx, sh.about), p.HGetAll(ctx, sh.who)
	if _, err := p.Exec(ctx); err != nil {
		return nil, sh.note(err)
	}
	for name, text := range said.Val() {
		var other about
		if json.Unmarshal([]byte(text), &other) == nil && other.Process.dead() {
			dead = append(dead, member{name, who.Val()[name]})
		}
	}
	return dead, nil
}

// succeed claims at once what nobody works on: claims of dead Relays, and those of one that is
// gone and had this Relay's name. It forgets Relays that are gone for long.
func (sh *shard) succeed(ctx context.Context, joined *session, predecessors []string) error {
	expired := 0
	known := sh.known()
	for _, name := range predecessors {
		claims, err := sh.claimsOf(ctx, name)
		if err != nil {
			return err
		}
		claims = slices.DeleteFunc(claims, func(o orphan) bool { return known[o] })
		n, err := sh.expire(ctx, name, claims)
		if err != nil {
			return err
		}
		expired += n
	}
	if expired > 0 {
		sh.s.log.Info().Int("events", expired).Msg("took over the claims of a relay that died")
	}
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	stale, err := node.ZRangeArgs(ctx, redis.ZRangeArgs{Key: sh.alive, ByScore: true, Start: "-inf", Stop: sh.clock.at(time.Now()).Add(-forgetAfter).UnixMicro()}).Result()
	if err != nil {
		return sh.note(err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, name := range append(predecessors, stale...) {
		if name != joined.consumer {
			sh.gone = append(sh.gone, name)
		}
	}
	return nil
}

func names(list []member) (all []string) {
	for _, m := range list {
		all = append(all, m.name)
	}
	return all
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

// tell writes the introduction again. Where that fails, the next tick tries again.
func (sh *shard) tell(ctx context.Context, joined *session) error {
	text, err := sh.introduction(joined)
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err == nil {
		err = node.HSet(ctx, sh.about, joined.consumer, text).Err()
	}
	sh.untold.Store(err != nil)
	return sh.note(err)
}

// introduction is what this Relay says of itself in the shard.
func (sh *shard) introduction(joined *session) ([]byte, error) {
	self := about{
		Relay:   outbox.Relay{Number: joined.relay, Host: host(), PID: os.Getpid(), Version: sh.s.o.Version, Started: sh.s.started},
		Process: thisProcess(),
	}
	if sh.index == 0 { // where Fleet looks
		sh.s.mu.Lock()
		self.Endpoints = sh.s.hashes
		sh.s.mu.Unlock()
	}
	return json.Marshal(self)
}

func host() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// forgetEvery is how often it is looked whether Relays that are gone have claims still: they have some as long as an endpoint is
// paused, and each look asks about all endpoints.
const forgetEvery = time.Minute

// forgetGone removes Relays that are gone for good.
func (sh *shard) forgetGone(ctx context.Context) {
	sh.mu.Lock()
	gone := sh.gone
	if len(gone) == 0 || time.Since(sh.forgot) < forgetEvery {
		sh.mu.Unlock()
		return
	}
	sh.gone, sh.forgot = nil, time.Now()
	sh.mu.Unlock()
	for i, name := range gone {
		if all, err := sh.remove(ctx, name, ""); err == nil && all {
			gone[i] = ""
		}
	}
	gone = slices.DeleteFunc(gone, func(name string) bool { return name == "" })
	sh.mu.Lock()
	sh.gone = append(sh.gone, gone...)
	sh.mu.Unlock()
}

// leave takes this Relay out of the fleet.
func (sh *shard) leave(ctx context.Context) {
	if joined, err := sh.session(); err == nil {
		_, _ = sh.remove(ctx, joined.consumer, joined.token) // else it is forgotten in an hour
	}
}

// remove removes what a Relay said of itself, and its consumers, a number of endpoints at a time.
func (sh *shard) remove(ctx context.Context, name, token string) (all bool, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return false, sh.note(err)
	}
	fields, err := node.HKeys(ctx, sh.counts).Result()
	if err != nil {
		return false, sh.note(err)
	}
	endpoints := endpointsOf(fields)
	all = true
	for first := true; first || len(endpoints) > 0; first = false {
		n := min(len(endpoints), checkGroup)
		args := []any{sh.prefix, name, token, len(endpoints) <= n}
		for _, e := range endpoints[:n] {
			args = append(args, e)
		}
		v, err := sh.eval(ctx, &sh.s.scripts.leave, []string{sh.alive, sh.who, sh.about}, args)
		if err != nil {
			return false, err
		}
		all = all && v == "1"
		endpoints = endpoints[n:]
	}
	return all, nil
}

// Name implements outbox.Fleet.
func (s *Store) Name() string {
	joined, err := s.shards[0].session()
	if err != nil {
		return host()
	}
	return joined.consumer
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
		r.Name, r.Seen, r.Self = name, seen, name == joined.consumer
		fleet = append(fleet, r)
	}
	sorting.By(fleet, func(a, b outbox.Relay) int { return int(max(-1, min(1, a.Number-b.Number))) })
	return fleet, nil
}
