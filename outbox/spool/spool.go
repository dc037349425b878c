// Package spool keeps accepting events on this machine while the shared outbox is away. A batch
// that the shared outbox does not take goes into a spool, which is an embedded outbox, and moves
// from there into the shared one when that is back, oldest first, as if it were accepted there.
//
// A Store is the shared outbox in everything but Accept: claims, records, notes and limits are
// those of the shared one, and wait while it is away.
//
// Nothing is twice: a batch whose first accept had no answer, or that a crash moves again, is
// known to the shared outbox by its ids, keys and fingerprints.
package spool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/sqlite"
)

// Level is the durability of a receipt for an event in the spool: it is on this machine's disk.
const Level = "spooled"

// lane is the name of the one endpoint in the spool: its deliveries are the batches that wait.
const lane = "spool"

// Patience is for redisstream.Options: how long the shared outbox may take over a batch before
// the batch goes into the spool. It may still take the batch later, and then knows it.
const Patience = 2 * time.Second

// healthFor bounds the wait for the health of the shared outbox.
const healthFor = time.Second

// Options of a spool.
type Options struct {
	Dir     string   // folder of the spool; made if it is missing, and owned by this process
	MaxSize int64    // bytes, as of sqlite.Options
	Mirror  []string // kinds of documents of which the spool keeps a copy, see Documents
	Log     zerolog.Logger
}

// Store is a shared outbox with a spool.
type Store struct {
	*redisstream.Store // the shared outbox

	o     Options
	log   zerolog.Logger
	local *sqlite.Store

	used    atomic.Bool  // the spool is not empty, or was not a moment ago: all events go through it
	moving  atomic.Bool  // the shared outbox is back, and takes what is in the spool
	putting sync.RWMutex // read-held while a batch is written to the spool
	kick    chan struct{}
	permits chan struct{} // each lets one batch in while the spool is emptied
	left    atomic.Int64  // batches that moved, and are settled
	arrived atomic.Int64  // batches that the shared outbox has taken from the spool
	mu      sync.Mutex
	turned  chan struct{} // closed, and replaced, when used or moving change
	why     error         // why nothing moves, nil while it does
	said    time.Time     // when that was logged last
	stop    context.CancelFunc

	mirroring sync.Mutex
	given     map[string][]outbox.Document // copies that were given out in place of the originals, by kind
	behind    map[string]bool              // kinds of which copies lack changes that were read

	asked func() // called when the shared outbox has answered Lookup or Documents; nil but in tests

	mover    sync.WaitGroup
	closing  sync.Once
	closeErr error
}

// Open puts a spool before a shared outbox, which the Store closes. What is left in the spool
// moves at once. Errors: those of sqlite.Open.
func Open(ctx context.Context, shared *redisstream.Store, o Options) (*Store, error) {
	local, err := sqlite.Open(ctx, sqlite.Options{Dir: o.Dir, MaxSize: o.MaxSize, Log: o.Log})
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Store{
		Store: shared, o: o, log: o.Log, local: local,
		given: map[string][]outbox.Document{}, behind: map[string]bool{},
		kick: make(chan struct{}, 1), permits: make(chan struct{}, window), turned: make(chan struct{}),
	}
	counts, err := local.Counts(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("spool: %w", err), local.Close())
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	if waiting := counts[lane].Pending; waiting > 0 {
		s.log.Warn().Int64("pending", waiting).Msg("the spool has requests of an outage before: they move first")
		s.use()
	}
	s.mover.Go(func() { s.move(work) })
	return s, nil
}

// Accept implements outbox.Store. While the shared outbox is away, or the spool is not empty, the
// receipts have [Level], and count the deliveries that marks may still leave out.
func (s *Store) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if len(b.Entries) == 0 {
		return nil, errors.New("accept: the batch has no events")
	}
	for {
		if !s.used.Load() {
			receipts, err := s.Store.Accept(ctx, b)
			if !away(err) {
				return receipts, err
			}
			return s.put(b)
		}
		in, err := s.admitted(ctx)
		if err != nil {
			return nil, err
		}
		if in {
			return s.put(b)
		}
	}
}

func away(err error) bool { return errors.Is(err, outbox.ErrUnavailable) }

// admitted waits until a batch may enter the spool: at once while nothing moves, else one for
// every two that left, so that the spool becomes empty under any load. It returns false if the
// spool is empty by now.
func (s *Store) admitted(ctx context.Context) (bool, error) {
	for {
		s.mu.Lock()
		turned := s.turned
		s.mu.Unlock()
		if !s.used.Load() {
			return false, nil
		}
		if !s.moving.Load() {
			return true, ctx.Err()
		}
		select {
		case <-s.permits:
			return true, nil
		case <-turned:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// put writes a batch into the spool. It does not end with the caller's context, so that it is
// always known what the spool has; a commit there is short.
func (s *Store) put(b outbox.Batch) ([]outbox.Receipt, error) {
	packed, err := pack(&b)
	if err != nil {
		return nil, err
	}
	s.putting.RLock()
	defer s.putting.RUnlock()
	s.use()
	receipts, err := s.local.Accept(context.Background(), packed)
	if err != nil {
		return nil, unpackError(&b, err)
	}
	return unpackReceipts(&b, receipts), nil
}

// use sends all events through the spool, and wakes the mover.
func (s *Store) use() {
	if !s.used.Swap(true) {
		s.turn()
	}
	select {
	case s.kick <- struct{}{}:
	default: // it is awake
	}
}

// turn wakes who waits for another state.
func (s *Store) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.turned)
	s.turned = make(chan struct{})
}

// Health implements outbox.Store: an event would go into the shared outbox or into the spool.
func (s *Store) Health(ctx context.Context) error {
	if err := s.broken(ctx); err != nil {
		return err
	}
	if s.used.Load() {
		return s.local.Health(ctx)
	}
	within, cancel := context.WithTimeout(ctx, healthFor)
	defer cancel()
	err := s.Store.Health(within)
	if err == nil || ctx.Err() != nil || !away(err) && within.Err() == nil {
		return err
	}
	return s.local.Health(ctx)
}

// broken is the error of a spool that must be opened again.
func (s *Store) broken(ctx context.Context) error {
	select {
	case <-s.local.Broken():
		return s.local.Health(ctx)
	default:
		return nil
	}
}

// Broken implements outbox.Store: the spool can break, the shared outbox cannot.
func (s *Store) Broken() <-chan struct{} { return s.local.Broken() }

// Lookup implements outbox.Reader. A delivery in the spool is pending.
func (s *Store) Lookup(ctx context.Context, eventID string) (*outbox.Record, error) {
	arrived := s.arrived.Load()
	record, err := s.Store.Lookup(ctx, eventID)
	if !errors.Is(err, outbox.ErrNotFound) && !away(err) {
		return record, err
	}
	if s.asked != nil {
		s.asked()
	}
	waiting, localErr := s.find(ctx, eventID)
	switch {
	case localErr != nil && !errors.Is(localErr, outbox.ErrNotFound):
		return nil, localErr
	case waiting != nil:
		return waiting, nil
	case s.arrived.Load() != arrived: // it may have moved since the shared outbox was asked
		return s.Store.Lookup(ctx, eventID)
	}
	return nil, err
}

// Reap implements outbox.Store, of the spool, too.
func (s *Store) Reap(ctx context.Context, r outbox.Retention) (int, bool, error) {
	if _, _, err := s.local.Reap(ctx, outbox.Retention{Failed: r.Failed}); err != nil {
		return 0, false, err
	}
	return s.Store.Reap(ctx, r)
}

// Spool implements outbox.Spooling.
func (s *Store) Spool(ctx context.Context) (outbox.SpoolStatus, error) {
	counts, err := s.local.Counts(ctx)
	if err != nil {
		return outbox.SpoolStatus{}, err
	}
	c := counts[lane]
	status := outbox.SpoolStatus{Waiting: c.Pending, Oldest: c.Oldest, Moved: c.Delivered, Refused: c.Failed, Used: s.used.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if status.Used {
		status.Why = s.why
	}
	return status, nil
}

// Close implements outbox.Store. What is in the spool stays there.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.stop()
		err := s.Store.Close()
		s.mover.Wait()
		s.closeErr = errors.Join(err, s.local.Close())
	})
	return s.closeErr
}
