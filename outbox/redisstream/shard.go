package redisstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// shard is one part of the outbox: keys of one hash tag, so one slot of a Cluster.
type shard struct {
	s     *Store
	index int
	keys
	accepts *lane[*accept]
	claims  *lane[*fetch]
	settles *lane[*settlement]

	counter atomic.Uint64 // of fences
	clock   clock         // of Redis
	untold  atomic.Bool   // the fleet has not heard of a reload

	toldSkew time.Duration // by which the clocks differ, as logged; of upkeep alone

	mu       sync.Mutex
	joined   *session
	down     time.Time // since when Redis does not answer; zero while it does
	downWhy  error
	said     time.Time // when an outage was last logged
	saidCode string    // why, then
	told     bool      // this one was
	unsure   time.Time // a script's answer was lost: claims of ours may be unknown to us; zero when not
	orphans  map[string]bool
	lastBell string
	weighed  time.Time // when the memory of Redis was last looked at
	full     error     // what was seen then, nil while there is room
	mended   time.Time // when reconcile last had its turn
	cursor   uint64    // where it goes on
}

// session is what joining gives.
type session struct {
	outbox string // id of the outbox: another one means that all was lost
	token  string // of this Relay: another one under its number means that a failover undid the join
	fences fences
}

const (
	acceptWorkers = 4
	claimWorkers  = 2
	acceptWeight  = 256 << 10 // bytes of a group
	acceptEntry   = 2 << 10   // least weight of an entry: at most 128 in a group of small ones
	settleGroup   = 256
	claimGroup    = 64
)

func newShard(s *Store, index int) *shard {
	sh := &shard{s: s, index: index, keys: newKeys(s.o.Namespace, index)}
	sh.accepts = newLane(acceptWorkers, acceptWeight, func(a *accept) int { return a.weight }, sh.commitAccepts)
	sh.claims = newLane(claimWorkers, claimGroup, func(*fetch) int { return 1 }, sh.commitClaims)
	sh.settles = newLane(1, settleGroup, func(*settlement) int { return 1 }, sh.commitSettles)
	return sh
}

func (sh *shard) start() {
	sh.accepts.start(&sh.s.lanes, sh.s.stop)
	sh.claims.start(&sh.s.lanes, sh.s.stop)
	sh.settles.start(&sh.s.lanes, sh.s.stop)
	sh.s.loops.Go(sh.upkeep)
	sh.s.loops.Go(sh.listen)
}

// errEpoch: the outbox is not the one that was joined: FLUSHALL, or a server that
// came back empty.
var errEpoch = fmt.Errorf("%w: it was emptied a moment ago", outbox.ErrUnavailable)

// eval runs a script on the server that has the shard. The commands of after run
// behind it on the same connection; their errors are their own.
func (sh *shard) eval(ctx context.Context, sc *script, keys []string, args []any, after ...func(redis.Pipeliner)) (any, error) {
	node, err := sh.s.conn.node(ctx, sh.meta)
	if err != nil {
		return nil, sh.note(err)
	}
	call := func(f func(p redis.Pipeliner) *redis.Cmd) (any, error) {
		if len(after) == 0 {
			return f(nil).Result()
		}
		p := node.Pipeline()
		cmd := f(p)
		for _, g := range after {
			g(p)
		}
		_, err := p.Exec(ctx)
		return result(cmd, err)
	}
	v, err := call(func(p redis.Pipeliner) *redis.Cmd {
		if p == nil {
			return node.EvalSha(ctx, sc.sha, keys, args...)
		}
		return p.EvalSha(ctx, sc.sha, keys, args...)
	})
	if err != nil && isNoScript(err) {
		v, err = call(func(p redis.Pipeliner) *redis.Cmd {
			if p == nil {
				return node.Eval(ctx, sc.text, keys, args...)
			}
			return p.Eval(ctx, sc.text, keys, args...)
		})
	}
	if err != nil && isEpoch(err) {
		return nil, errEpoch
	}
	return v, sh.note(err)
}

// result is a command's in a pipeline. Each has its own error, but when a new
// connection is refused by Redis go-redis tells only the pipeline.
func result(cmd *redis.Cmd, pipeline error) (any, error) {
	v, err := cmd.Result()
	if v == nil && err == nil {
		err = pipeline
	}
	return v, err
}

// node returns a client of the server that has the shard.
func (sh *shard) node(ctx context.Context) (*redis.Client, error) {
	return sh.s.conn.node(ctx, sh.meta)
}

// note takes a call's error for what it says about the server, and explains it.
func (sh *shard) note(err error) error {
	if err == nil || isNil(err) {
		sh.up()
		return err
	}
	if isMoved(err) {
		sh.s.conn.refresh(context.Background())
	}
	if uncertain(err) {
		sh.mu.Lock()
		sh.unsure = time.Now()
		sh.mu.Unlock()
	}
	explained := explain(err)
	if errors.Is(explained, outbox.ErrUnavailable) {
		sh.fell(explained)
	}
	return explained
}

// How often an outage that goes on is logged.
const (
	sayEvery = 30 * time.Second
	sayOther = 2 * time.Second // when it has another reason now
)

func (sh *shard) fell(err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := time.Now()
	if sh.down.IsZero() {
		sh.down = now
	}
	sh.downWhy = err
	code := ""
	if f, ok := errors.AsType[*fault](err); ok {
		code = f.code
	}
	if since := now.Sub(sh.said); since >= sayEvery || code != sh.saidCode && since >= sayOther {
		sh.said, sh.saidCode, sh.told = now, code, true
		sh.s.log.Error().Err(err).Msg("redis does not answer as it must: events are refused and deliveries wait until it does")
	}
}

// up notes that Redis answered. Who waits for work looks again.
func (sh *shard) up() {
	sh.mu.Lock()
	if sh.down.IsZero() {
		sh.mu.Unlock()
		return
	}
	was := time.Since(sh.down)
	sh.down, sh.downWhy = time.Time{}, nil
	told := sh.told
	sh.told = false // said stays: one call that fails again and again among others is told of now and then
	sh.mu.Unlock()
	if told {
		sh.s.log.Info().Dur("took", was).Msg("redis answers again")
	}
	sh.s.lookAgain(sh)
}

// outage returns how long Redis has not answered, and why.
func (sh *shard) outage() (time.Duration, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.down.IsZero() {
		return 0, nil
	}
	return time.Since(sh.down), sh.downWhy
}

// session returns what joining gave, or why there is nothing yet.
func (sh *shard) session() (*session, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.joined == nil {
		if sh.downWhy != nil {
			return nil, sh.downWhy
		}
		return nil, fmt.Errorf("%w: not connected yet", outbox.ErrUnavailable)
	}
	return sh.joined, nil
}

// join makes the shard's outbox if there is none, and gets this Relay its number.
func (sh *shard) join(ctx context.Context) error {
	token := rand.Text()
	sent := time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.join, []string{sh.meta, sh.bell, sh.who}, []any{rand.Text(), format, token})
	if err != nil {
		return err
	}
	received := time.Now()
	answer, err := texts(v, 5)
	if err != nil {
		return err
	}
	if answer[3] != format {
		return fmt.Errorf("the outbox in namespace %q has format %s, this Relay reads format %s: run the version of Relay that made it, or a newer one", sh.s.o.Namespace, answer[3], format)
	}
	relay, err := strconv.ParseInt(answer[1], 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %q is no number of a Relay", outbox.ErrCorrupt, answer[1])
	}
	now, _ := strconv.ParseInt(answer[4], 10, 64)
	sh.clock.observe(time.UnixMicro(now), sent, received)
	sh.mu.Lock()
	lost := sh.joined != nil && sh.joined.outbox != answer[0]
	joined := &session{outbox: answer[0], token: token, fences: newFences(relay, sh.index)}
	sh.joined = joined
	sh.lastBell = answer[2]
	sh.mu.Unlock()
	if lost {
		sh.s.log.Error().Str("code", "outbox_epoch_changed").Str("outbox", sh.s.o.String()).
			Msg("the outbox in Redis is not the one that this Relay worked on: it was emptied or replaced, and what was pending in it is gone")
	}
	// A full Redis must not keep a Relay from draining it: what it says of itself can wait.
	if err := sh.present(ctx, joined); err != nil && !errors.Is(err, outbox.ErrFull) {
		return err
	}
	sh.s.lookAgain(sh)
	return nil
}

const (
	tickEvery  = time.Second
	retryFirst = 50 * time.Millisecond // after an error
	retryMost  = time.Second
)

// upkeep joins, beats the heart, and takes back leases that ended, until Close.
func (sh *shard) upkeep() {
	backoff := retryFirst
	for {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		next, err := sh.tick(ctx)
		cancel()
		if err == nil {
			backoff = retryFirst
		} else {
			next = backoff/2 + mathrand.N(backoff)
			backoff = min(2*backoff, retryMost)
		}
		if !sh.s.sleep(next) {
			return
		}
	}
}

// sleep waits, unless the store is closed.
func (s *Store) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// tick returns when to come again.
func (sh *shard) tick(ctx context.Context) (time.Duration, error) {
	joined, err := sh.session()
	if err != nil { // never joined: the server has not been checked either
		if err := sh.s.begin(ctx); err != nil {
			sh.fell(err)
			return 0, err
		}
		sh.up()
		return 0, nil
	}
	sent := time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.tick, []string{sh.meta, sh.lease, sh.agenda, sh.bell, sh.alive, sh.who},
		[]any{sh.prefix, joined.outbox, joined.fences.relay, joined.token})
	received := time.Now()
	if errors.Is(err, errEpoch) {
		return 0, sh.join(ctx)
	}
	if err != nil {
		return 0, err
	}
	answer, err := texts(v, 5)
	if err != nil {
		return 0, err
	}
	now, _ := strconv.ParseInt(answer[0], 10, 64)
	sh.clock.observe(time.UnixMicro(now), sent, received)
	sh.tellSkew(received)
	if sh.index == 0 { // where notes are
		sh.s.hearNotes(answer[4], sent)
	}
	sh.s.handBackAhead()
	sh.seekOrphans(ctx, joined)
	sh.watchMemory(ctx)
	sh.mend(ctx, joined)
	if sh.untold.Load() {
		_ = sh.tell(ctx, joined) // the next tick tries again
	}

	next := tickEvery*3/4 + mathrand.N(tickEvery/2)
	for _, at := range answer[1:3] {
		if at == "" {
			continue
		}
		// Jitter, so that one Relay of a fleet does it and the others find it done.
		due, _ := strconv.ParseInt(at, 10, 64)
		wait := max(0, time.Duration(due-now)*time.Microsecond) + 5*time.Millisecond + mathrand.N(100*time.Millisecond)
		next = min(next, wait)
	}
	return next, nil
}

// bellBlock is how long one look at the bell waits. Close ends it sooner.
const bellBlock = 5 * time.Second

// listen hears of work that other Relays left for whoever has time, until Close.
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
	found, err := client.XRead(ctx, &redis.XReadArgs{Streams: []string{sh.bell, last}, Count: 1000, Block: bellBlock}).Result()
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
		names := make([]string, 0, len(stream.Messages))
		for _, m := range stream.Messages {
			last = m.ID
			if name, ok := m.Values["e"].(string); ok {
				names = append(names, name)
			}
			if revision, ok := m.Values["n"].(string); ok {
				sh.s.hearNotes(revision, time.Time{})
			}
		}
		sh.s.rung(sh, names)
	}
	sh.mu.Lock()
	sh.lastBell = last
	sh.mu.Unlock()
	return nil
}

// texts reads a script's answer that is a list of texts.
func texts(v any, least int) ([]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) < least {
		return nil, fmt.Errorf("%w: unexpected answer of a script: %T", outbox.ErrUnavailable, v)
	}
	out := make([]string, len(list))
	for i, x := range list {
		switch x := x.(type) {
		case string:
			out[i] = x
		case int64:
			out[i] = strconv.FormatInt(x, 10)
		case nil:
		default:
			return nil, fmt.Errorf("%w: unexpected answer of a script: %T", outbox.ErrUnavailable, x)
		}
	}
	return out, nil
}

// isEpoch recognises our own scripts' refusal.
func isEpoch(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer) && strings.HasPrefix(answer.Error(), "EPOCH ")
}
