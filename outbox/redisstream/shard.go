package redisstream

import (
	"context"
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
	accepts *batcher[*accept]
	claims  *batcher[*fetch]
	settles *batcher[*settlement]

	clock  clock       // of Redis
	untold atomic.Bool // the fleet has not heard of a reload

	toldSkew time.Duration // by which the clocks differ, as logged; of upkeep alone
	runID    string        // of the process that answered last; of upkeep alone

	toDo chan chores // for the keeper of the history

	pruning sync.Mutex           // guards looked
	looked  map[string]time.Time // when a segment was last looked at, by name

	joining sync.Mutex // held while a join is under way

	mu       sync.Mutex
	joined   *session
	gone     []string  // Relays of which consumers may be left
	forgot   time.Time // when that was last looked at
	down     time.Time // since when Redis does not answer; zero while it does
	downWhy  error
	said     time.Time // when an outage was last logged
	saidCode string    // why, then
	told     bool      // this one was
	unsure   time.Time // a script's answer was lost: claims of ours may be unknown to us; zero when not
	orphans  map[orphan]bool
	lastBell string
	weighed  time.Time // when the memory of Redis was last looked at
	full     error     // what was seen then, nil while there is room
}

// session is what joining gives.
type session struct {
	outbox   string // id of the outbox: another one means that all was lost
	relay    int64  // number of this Relay
	consumer string // its name, in the fleet and in the groups of streams
	token    string // of this Relay: another one under its name means that it is another's
}

const (
	acceptWorkers = 4
	claimWorkers  = 2
	acceptWeight  = 256 << 10 // bytes of a group
	acceptEntry   = 2 << 10   // least weight of an entry: at most 128 in a group of small ones
	acceptAlone   = 16 << 10  // a script call for each endpoint and group costs more than waiting for a larger group
	settleGroup   = 256
	claimGroup    = 64
)

func newShard(s *Store, index int) *shard {
	sh := &shard{s: s, index: index, keys: newKeys(s.o.Namespace, index), toDo: make(chan chores, 1)}
	sh.accepts = newBatcher(acceptWorkers, acceptWeight, acceptAlone, func(a *accept) int { return a.weight }, sh.commitAccepts)
	sh.claims = newBatcher(claimWorkers, claimGroup, claimWorkers*claimGroup, func(*fetch) int { return 1 }, sh.commitClaims)
	sh.settles = newBatcher(1, settleGroup, settleGroup, func(*settlement) int { return 1 }, sh.commitSettles)
	return sh
}

func (sh *shard) start() {
	sh.accepts.start(&sh.s.workers, sh.s.stop)
	sh.claims.start(&sh.s.workers, sh.s.stop)
	sh.settles.start(&sh.s.workers, sh.s.stop)
	sh.s.loops.Go(sh.upkeep)
	sh.s.loops.Go(sh.listen)
	sh.s.loops.Go(sh.mend)
	sh.s.loops.Go(sh.keepHistory)
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
	return v, sh.noteScript(err)
}

// noteScript is note for an answer of our own scripts, which may find another outbox.
func (sh *shard) noteScript(err error) error {
	if err != nil && isEpoch(err) {
		return errEpoch
	}
	return sh.note(err)
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
		sh.s.log.Error().Err(err).Msg("redis does not answer as it must: it takes no events and deliveries wait until it does")
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
	sh.told = false // keep said, so that one call that keeps failing among good ones is logged at most every 30 s
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

const (
	tickEvery  = outbox.OrderSlack * 3 / 4 // ± a fifth: what falls due between two heartbeats, and nobody claims, joins its line in time for G3
	retryFirst = 50 * time.Millisecond     // after an error
	retryMost  = time.Second
)

// upkeep joins and beats the heart, until Close.
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
	v, err := sh.eval(ctx, &sh.s.scripts.tick, []string{sh.meta, sh.leases, sh.agenda, sh.alive, sh.who, sh.endpoints, sh.kinds, sh.took, sh.erased},
		[]any{sh.prefix, joined.outbox, joined.consumer, joined.token})
	received := time.Now()
	if errors.Is(err, errEpoch) {
		return 0, sh.join(ctx, joined)
	}
	if err != nil {
		return 0, err
	}
	answer, err := texts(v, 8)
	if err != nil {
		return 0, err
	}
	now, _ := strconv.ParseInt(answer[0], 10, 64)
	sh.clock.observe(time.UnixMicro(now), sent, received)
	sh.tellSkew(received)
	if sh.index == 0 { // where notes are
		sh.s.hearNotes(answer[4], sent)
		sh.s.hearKinds(answer[8:], sent)
	}
	sh.s.forgetEnded()
	sh.seekOrphans(ctx, joined)
	sh.watchMemory(ctx)
	sh.forgetGone(ctx)
	sh.remember(answer[5], answer[6], answer[7])
	if sh.untold.Load() {
		_ = sh.tell(ctx, joined) // the next tick tries again
	}

	return nextTick(now, answer[1], answer[2]), nil
}

// nextTick is how long to wait until the next heartbeat: less where the end of a lease, or a retry that is due, comes
// before. Times are those of the tick script, "" for none.
func nextTick(now int64, leaseEnds, retryDue string) time.Duration {
	next := tickEvery*4/5 + mathrand.N(tickEvery*2/5)
	for i, at := range []string{leaseEnds, retryDue} {
		if at == "" {
			continue
		}
		// Jitter, so that one Relay of a fleet does it and the others find it done.
		due, _ := strconv.ParseInt(at, 10, 64)
		wait := max(0, time.Duration(due-now)*time.Microsecond) + 5*time.Millisecond + mathrand.N(100*time.Millisecond)
		if i == 0 { // a lease may end there; at most endpoints it was settled long before
			wait = max(wait, tickEvery/4)
		}
		next = min(next, wait)
	}
	return next
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
