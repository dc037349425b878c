// Package sqlite is the embedded outbox engine: one SQLite file in WAL mode,
// owned by one process and written by one goroutine that commits in groups.
// ../DESIGN.md tells how it works and what each kind of crash does to it.
package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/outbox/clock"
)

var _ outbox.Operable = (*Store)(nil)

// The levels of durability.
const (
	Fsync   = "fsync"   // what was accepted survives a power cut
	Relaxed = "relaxed" // it survives the death of the process; a power cut takes the last moments
)

// backlog is how many settlements may wait for their commit.
const backlog = 1024

// DefaultMaxSize is the limit of the database file in bytes.
const DefaultMaxSize = 4 << 30

// Options are the settings of Open.
type Options struct {
	Dir        string // where the outbox is; made with mode 0700 when it is not there
	Durability string // Fsync, the default, or Relaxed
	MaxSize    int64  // bytes of the database file, 0 for DefaultMaxSize; write-ahead log and ballast come on top
	Log        zerolog.Logger
	VFS        string // name of a registered SQLite VFS, to test faults; "" for the operating system

	free    func() (int64, error) // free disk space in bytes, for tests
	ballast int64                 // bytes, for tests; 0 for ballastSize
	raise   time.Duration         // for tests; 0 for raiseAfter
	roll    time.Duration         // for tests; 0 for rollAfter
	woke    func()                // called by the owner each time it wakes, for tests
	wall    func() time.Time      // instead of the machine's wall clock, for tests
}

// Store is an open outbox. Its fields belong to the owner goroutine (run), but
// for those below mu.
type Store struct {
	level      string
	maxSize    int64
	log        zerolog.Logger
	raiseAfter time.Duration
	rollAfter  time.Duration
	woke       func()           // nil but in tests,
	wall       func() time.Time // and so is this

	db      *db
	disk    *disk
	meta    meta
	known   []*endpoint      // those with a row, by id - 1
	touched []*endpoint      // which the transaction under way changes
	loaded  map[int64]*entry // deliveries that are in memory and have a row, by number
	bare    []*entry         // those that have none, in the order of accept, and some that are over
	raised  int64            // when the watermark was raised last, by the outbox's clock
	grouped int              // batches of the last group
	spare   int64            // bytes of memory for what the transaction under way accepts
	room    int64            // bytes that may still be accepted
	full    error            // why there is no room; nil while there is
	stalled time.Time        // until then the disk is full even for settlements
	swept   time.Time        // when what is pending was looked for last
	names   names
	heads   []byte // of the attempt that is being written
	stats   tallies
	taken   []taken   // out of memory by the transaction under way
	now     int64     // of the transaction under way
	until   time.Time // the read under way should pause then
	lists   lists

	agePending bool      // old statistics are to be rolled up
	rested     time.Time // no chores until then, for want of room
	scrub      bool      // the log holds what was erased
	walked     int64     // no delivery up to this one is over that is not in the index of late ones

	wake   chan struct{} // something waits for the owner
	slots  chan struct{} // one token for each settlement that waits for its commit
	stop   chan struct{} // closed by Close
	broken chan struct{} // closed by fail
	done   chan struct{} // closed when the owner is gone

	closing  sync.Once
	late     error // the store broke while it was being closed
	closeErr error // valid once done is closed

	mu      sync.Mutex
	refusal error // why calls are refused, nil while the store works
	accepts []*accept
	settles []*settle
	writes  []*writing
	calls   []*call
	heard   uint64        // revision of the last note that is committed
	noted   chan struct{} // closed, and replaced, when a note is committed
	told    map[string]*news
	queues
}

// Open opens the outbox in a directory, or makes it; it belongs to this process
// until Close. Errors: outbox.ErrLocked when another has it, outbox.ErrCorrupt when the
// file cannot be trusted, and others that say what is wrong. None of them changes the
// file.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	go s.run()
	return s, nil
}

func open(ctx context.Context, o Options) (s *Store, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.Durability = cmp.Or(o.Durability, Fsync)
	if o.Durability != Fsync && o.Durability != Relaxed {
		return nil, fmt.Errorf("durability %q is not known; use %q or %q", o.Durability, Fsync, Relaxed)
	}
	if o.Dir == "" {
		return nil, errors.New("no directory given")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	s = &Store{
		level:      o.Durability,
		maxSize:    cmp.Or(o.MaxSize, DefaultMaxSize),
		log:        o.Log,
		raiseAfter: cmp.Or(o.raise, raiseAfter),
		rollAfter:  cmp.Or(o.roll, rollAfter),
		woke:       o.woke,
		wall:       o.wall,
		loaded:     map[int64]*entry{},
		wake:       make(chan struct{}, 1),
		slots:      make(chan struct{}, backlog),
		stop:       make(chan struct{}),
		broken:     make(chan struct{}),
		done:       make(chan struct{}),
		noted:      make(chan struct{}),
		told:       map[string]*news{},
		swept:      time.Now(),
	}
	if s.disk, err = own(o); err != nil {
		return nil, err
	}
	if err := s.load(o); err != nil {
		return nil, errors.Join(err, s.disk.close())
	}
	return s, nil
}

// load brings the store to work. Deliveries that are due are loaded when their endpoint is
// claimed from.
func (s *Store) load(o Options) error {
	err := s.connect(o)
	full := isFull(err)
	if full { // even a start writes a little: this is what the ballast is for
		s.disk.dropBallast()
		err = s.connect(o)
	}
	if err != nil {
		return err
	}
	if err := s.disk.sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory: %w", err), s.db.close())
	}
	if err := s.disk.note(); err != nil {
		return errors.Join(err, s.db.close())
	}
	if full {
		return nil // the owner makes a new ballast when there is room for more than that
	}
	if err := s.disk.raiseBallast(0); err != nil && !isFull(err) {
		return errors.Join(fmt.Errorf("make ballast: %w", err), s.db.close())
	}
	return nil
}

// connect opens the file and reads what the store must know.
func (s *Store) connect(o Options) (err error) {
	s.known, s.queues = nil, queues{endpoints: map[string]*endpoint{}, leases: map[uint64]*entry{}} // not of an attempt before
	if s.db, err = connect(filepath.Join(o.Dir, databaseFile), o.VFS); err != nil {
		return err
	}
	if err := s.loadFile(); err != nil {
		return errors.Join(s.db.explain(err), s.db.close())
	}
	return nil
}

func (s *Store) loadFile() (err error) {
	if err := s.db.setup(); err != nil {
		return err
	}
	if err := s.db.prepare(); err != nil {
		return err
	}
	if s.meta, err = s.db.readMeta(); err != nil {
		return err
	}
	if err := s.loadEndpoints(); err != nil {
		return err
	}
	s.clock = clock.New(s.meta.clock, s.wall)
	if err := s.recoverRows(); err != nil {
		return err
	}
	if err := s.names.load(s.db); err != nil {
		return err
	}
	if err := s.loadTallies(); err != nil {
		return err
	}
	if err := s.openLists(); err != nil {
		return err
	}
	s.prefix, s.fence, s.heard = s.meta.prefix, s.meta.epoch<<fenceBits, s.meta.revision
	s.raised = s.clock.Now()
	return nil
}

// fenceBits is how many bits of a fence count claims; those above are the epoch.
const fenceBits = 40

// loadEndpoints reads the endpoints and their counts.
func (s *Store) loadEndpoints() error {
	q, err := s.db.query(`SELECT name, accepted, delivered, failed, discarded, gone_delivered, gone_failed, gone_discarded FROM endpoint ORDER BY id`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		ep := s.endpoint(q.stmt.ColumnText(0))
		ep.id = int64(len(s.known) + 1) // rows are never removed
		ep.counts = counts{q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2), q.stmt.ColumnInt64(3), q.stmt.ColumnInt64(4)}
		ep.gone = counts{0, q.stmt.ColumnInt64(5), q.stmt.ColumnInt64(6), q.stmt.ColumnInt64(7)}
		if ep.counts.pending() > 0 {
			ep.nextDue = 0
		}
		s.known = append(s.known, ep)
	}
	if err := q.done(); err != nil {
		return fmt.Errorf("select endpoints: %w", err)
	}
	return nil
}

// Close implements outbox.Store. Batches and settlements in line are committed
// first. A second call waits for the first and answers the same.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.mu.Lock()
		s.refusal = outbox.ErrClosed
		s.callAll()
		s.mu.Unlock()
		close(s.stop)
		s.nudge()
	})
	<-s.done
	return s.closeErr
}

// shut lets go of the outbox. Only one that works gets a last checkpoint.
func (s *Store) shut() error {
	var err error
	select {
	case <-s.broken:
		err = s.late
	default:
		if err = s.keepClock(); err == nil {
			err = s.db.checkpoint(sqlite3.CHECKPOINT_TRUNCATE)
		}
		if isFull(err) {
			err = nil // the log is as good a place
		}
	}
	if err = errors.Join(err, s.db.close(), s.disk.close()); err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}
