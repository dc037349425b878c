// Package redisstream is the shared outbox engine: any number of Relays keep one
// backlog in Redis or Valkey. Payloads are kept once per event. Each endpoint has a
// stream of its deliveries with one consumer group: what a Relay works on is its pending
// entries there, and a delivery that waits for a retry is in a set by due time.
// DESIGN.md tells why, and what each kind of fault leaves behind.
//
// Read in this order: keys.go (what is kept), lua/ (every change, one script
// each), accept.go, claim.go, settle.go, shard.go (how a Relay stays connected).
package redisstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

var (
	_ outbox.Operable = (*Store)(nil)
	_ outbox.Limiter  = (*Store)(nil)
	_ outbox.Fleet    = (*Store)(nil)
	_ outbox.Warned   = (*Store)(nil)
)

// The levels of durability.
const (
	Memory     = "memory"     // Redis has it; a power cut of its machine takes the last second, a failover perhaps more
	Fsync      = "fsync"      // it is on the disk of one server
	Replicated = "replicated" // so many replicas have it
)

const (
	settleBacklog = 1024             // settlements that may wait for their commit
	openTimeout   = 3 * time.Second  // for Redis to answer at the start; after it Open goes on without
	flushTimeout  = 2 * time.Second  // for the last settlements at the end
	failFast      = time.Second      // an outage older than this is not waited for
	callTimeout   = 10 * time.Second // for a call that got no deadline
	cacheBytes    = 32 << 20         // payloads that need not be read back
)

// Store is an open outbox, shared with other processes.
type Store struct {
	o        Options
	log      zerolog.Logger
	conn     *conn
	scripts  scripts
	confirm  confirm
	shards   []*shard
	events   *cache
	window   time.Duration // how long ids and keys of the app are known
	started  time.Time
	stop     chan struct{}  // closed by Close
	ended    chan struct{}  // closed when the last settlements are in, or given up
	replaced chan struct{}  // a server has another run id than before
	slots    slots          // for settlements that wait for their commit
	broken   chan struct{}  // never closed: outages pass, and Redis is not ours to open again
	workers  sync.WaitGroup // of batchers, and what hands back
	loops    sync.WaitGroup // upkeep, bells and reconcilers

	closing  sync.Once
	closeErr error

	mu        sync.Mutex
	closed    bool
	endpoints map[string]*endpoint
	leases    map[claimKey]*lease // what this process has claimed
	notes     noted               // what is known of them
	kinds     revisions           // of documents, by kind
	strays    strays
	inspected inspection        // of the settings of Redis
	hashes    map[string]string // of the endpoints' settings, for the fleet; only read
}

// Open connects to the outbox and makes it when there is none. When Redis does not
// answer within 3 seconds Open succeeds all the same: nothing is accepted until it
// does. Errors: what makes the server unfit for the promised durability, a newer
// format, options that make no sense.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o, outbox.IdempotencyWindow)
	if err != nil {
		return nil, fmt.Errorf("open outbox %s: %w", o, err)
	}
	return s, nil
}

func open(ctx context.Context, o Options, window time.Duration) (*Store, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	s := &Store{
		o: o, log: o.Log, window: window, started: time.Now().UTC(), hashes: o.Endpoints,
		stop: make(chan struct{}), ended: make(chan struct{}), broken: make(chan struct{}),
		replaced:  make(chan struct{}, 1),
		slots:     slots{free: settleBacklog},
		endpoints: map[string]*endpoint{},
		leases:    map[claimKey]*lease{},
		events:    newCache(cacheBytes),
		notes:     noted{heard: make(chan struct{})},
		kinds:     revisions{},
		scripts:   loadScripts(),
	}
	if s.conn, err = connect(o); err != nil {
		return nil, err
	}
	for i := range o.Shards {
		s.shards = append(s.shards, newShard(s, i))
	}
	within, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	err = s.begin(within)
	if err != nil && (!errors.Is(err, outbox.ErrUnavailable) || ctx.Err() != nil) {
		return nil, errors.Join(err, s.conn.Close())
	}
	if err != nil {
		s.log.Error().Err(err).Msg("redis cannot be reached: no events are accepted until it can")
	}
	for _, sh := range s.shards {
		sh.start()
	}
	s.loops.Go(s.keepInspecting)
	return s, nil
}

// complete fills in defaults.
func (o Options) complete() (Options, error) {
	o.Namespace = cmp.Or(o.Namespace, "relay")
	o.Shards = cmp.Or(o.Shards, 1)
	o.Durability = cmp.Or(o.Durability, Memory)
	o.Patience = cmp.Or(o.Patience, callTimeout)
	o.segment = cmp.Or(o.segment, segmentEvents)
	if o.Durability != Memory && o.Durability != Fsync && o.Durability != Replicated {
		return o, fmt.Errorf("durability %q is not known; use %q, %q or %q", o.Durability, Memory, Fsync, Replicated)
	}
	if o.Shards < 1 || o.Shards > 1<<shardBits {
		return o, fmt.Errorf("shards = %d: use 1 to %d", o.Shards, 1<<shardBits)
	}
	if o.Durability == Replicated && (o.Replicas < 1 || o.ReplicaTimeout <= 0) {
		return o, errors.New("durability replicated needs a number of replicas and a timeout")
	}
	return o, nil
}

// begin checks the server and joins every shard.
func (s *Store) begin(ctx context.Context) error {
	findings, err := probe(ctx, s.conn, s.o)
	if err != nil {
		return explain(err)
	}
	if err := findings.Refusal(); err != nil {
		return err
	}
	s.inspectedAs(findings)
	for _, sh := range s.shards {
		if err := sh.join(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// shardFor picks the shard of a request, which goes to one shard whole: a repeat
// of it must find the first one.
func (s *Store) shardFor(b *outbox.Batch) *shard {
	if len(s.shards) == 1 {
		return s.shards[0]
	}
	h := fnv.New32a()
	if b.Key != "" {
		_, _ = h.Write([]byte(b.Key)) // never fails
	} else {
		_, _ = h.Write([]byte(b.Entries[0].Event.ID))
	}
	return s.shards[h.Sum32()%uint32(len(s.shards))]
}

// Health implements outbox.Store. It asks Redis.
func (s *Store) Health(ctx context.Context) error {
	for _, sh := range s.shards {
		if err := s.refusal(); err != nil {
			return err
		}
		if err := sh.health(ctx); err != nil {
			return err
		}
	}
	return s.unfit()
}

// Fill implements outbox.Store: of max_size or of what Redis may use, whatever is fuller.
func (s *Store) Fill(ctx context.Context) (fill float64, err error) {
	for _, sh := range s.shards {
		if err := s.refusal(); err != nil {
			return 0, err
		}
		n, err := sh.fill(ctx)
		if err != nil {
			return 0, err
		}
		fill = max(fill, n)
	}
	return fill, nil
}

// Broken implements outbox.Store.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Durability implements outbox.Store.
func (s *Store) Durability() string { return s.o.Durability }

func (s *Store) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return outbox.ErrClosed
	}
	return nil
}

// Close implements outbox.Store. Settlements in line are committed first, for up
// to 2 seconds, and deliveries that no Claim came for are handed back.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.mu.Lock()
		s.closed = true
		for _, e := range s.endpoints {
			e.wait.call()
		}
		s.mu.Unlock()
		close(s.stop)
		closed := make(chan error, 1)
		giveUp := time.AfterFunc(flushTimeout, func() {
			close(s.ended)
			closed <- s.conn.Close() // calls to a Redis that hangs end now, not each after its timeout
		})
		s.workers.Wait()
		var ready []*lease
		s.mu.Lock()
		s.stopTimers()
		for _, e := range s.endpoints {
			ready = append(ready, e.takeReady(func(*lease) bool { return true })...)
		}
		s.mu.Unlock()
		if giveUp.Stop() {
			close(s.ended)
			ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
			defer cancel()
			if err := s.release(ctx, ready); err != nil {
				s.log.Warn().Err(err).Msg("deliveries that nobody came for were not handed back: others take them over when the lease ends")
			}
			for _, sh := range s.shards {
				sh.leave(ctx)
			}
			closed <- s.conn.Close()
		}
		s.closeErr = <-closed
		s.loops.Wait()
	})
	return s.closeErr
}
