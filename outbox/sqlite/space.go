package sqlite

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"relay/internal/access"
	"relay/outbox"
)

// Sizes: in bytes, but for those that say pages.
const (
	pageSize    = 4096
	cacheSize   = 8 << 20
	walLong     = 1000                  // pages: then the write-ahead log is copied at the next chance
	walTooLong  = 3000                  // pages: then it is copied at once
	walLimit    = walTooLong * pageSize // of the log's file, when it starts again
	ballastSize = 16 << 20              // given up when the disk is full: more than the log needs to be copied
	minFree     = 64 << 20              // with less free disk nothing is accepted
	vacuumSlice = 256                   // pages given back to the file system at a time

	retryFull = time.Second // how often a full disk is looked at again
	calm      = time.Second // after so long without a commit the log is copied
)

// disk is the directory of an outbox and what lies beside the database.
type disk struct {
	dir        string
	root       *os.Root // so that no planted link leads out of the directory
	info       fs.FileInfo
	files      map[string]fs.FileInfo // with data, as they were when the outbox was opened, by name
	locked     fs.FileInfo            // the lock file
	log        zerolog.Logger
	lock       *flock.Flock
	free       func() (int64, error)
	ballast    int64 // bytes
	hasBallast bool
	retry      time.Time // no new ballast before
}

// Names in the directory. SQLite keeps its log beside the database.
const (
	databaseFile = "relay.db"
	logFile      = "relay.db-wal"
	lockFile     = "relay.lock"
	ballastFile  = "relay.ballast"
)

// own makes the directory when it is not there and takes possession of it.
func own(o Options) (d *disk, err error) {
	d = &disk{dir: o.Dir, free: o.free, ballast: cmp.Or(o.ballast, ballastSize), log: o.Log}
	if d.free == nil {
		d.free = func() (int64, error) { return freeSpace(d.dir) }
	}
	if d.info, err = makeDir(d.dir); err != nil {
		return nil, access.Explain(err, d.dir)
	}
	if d.root, err = os.OpenRoot(d.dir); err != nil {
		return nil, access.Explain(err, d.dir)
	}
	d.lock = flock.New(filepath.Join(d.dir, lockFile))
	if err := d.take(); err != nil {
		return nil, errors.Join(access.Explain(err, d.dir), d.close())
	}
	return d, nil
}

// take locks the directory, warns of what is wrong with it, and makes the database's file.
func (d *disk) take() error {
	if err := d.touch(lockFile); err != nil {
		return err
	}
	locked, err := d.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock directory: %w", err)
	}
	if !locked {
		pid, _ := d.root.ReadFile(lockFile) // for the message only
		return fmt.Errorf("%w: %s is in use by process %s; stop it, or choose another directory", outbox.ErrLocked, d.dir, pid)
	}
	if err := d.root.WriteFile(lockFile, fmt.Append(nil, os.Getpid()), 0o600); err != nil && !isFull(err) {
		return err
	}
	d.warn()
	if err := d.touch(databaseFile); err != nil {
		return err
	}
	// SQLite would not say which of its files it may not open.
	if _, err := d.root.Stat(logFile); err != nil {
		return nil
	}
	return d.touch(logFile)
}

// warn tells what is wrong with the directory. One that is there keeps its mode: it may
// hold more than the outbox.
func (d *disk) warn() {
	if wide := access.Wide(d.dir, access.Of(d.info), access.Us()); wide != "" {
		d.log.Warn().Msg("outbox directory " + wide)
	}
	if why := unsafeFS(d.dir); why != "" {
		d.log.Warn().Msgf("outbox directory %s is no safe place: %s", d.dir, why)
	}
}

// close lets go of the directory.
func (d *disk) close() error { return errors.Join(d.lock.Close(), d.root.Close()) }

// makeDir makes the directory for this user alone, when it is not there.
func makeDir(dir string) (fs.FileInfo, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(dir); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
		info, err = os.Stat(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("find directory: %w", err)
	}
	return info, nil
}

// makeDirs makes a directory with the parents that it lacks, and makes their names
// durable: what is synced inside is worth nothing in a directory that is gone.
func makeDirs(dir string) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = os.Chmod(dir, 0o700) // whatever the umask
	}
	if err != nil {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// touch makes a file that only this user can read and write, whatever the umask; one that
// is there is made so. In a directory of another user its group can, too.
func (d *disk) touch(name string) error {
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	wide, err := access.Narrow(f, d.info)
	if wide != "" {
		d.log.Warn().Msg("file of the outbox " + wide)
	}
	return errors.Join(err, f.Close())
}

// sync makes the names of new files durable. The driver means to do that for the
// log, but syncs the file a second time instead.
func (d *disk) sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// raiseBallast makes the ballast, if there is space for it and reserve more bytes.
func (d *disk) raiseBallast(reserve int64) error {
	if info, err := d.root.Stat(ballastFile); err == nil && info.Size() == d.ballast {
		d.hasBallast = true
		return nil
	}
	if free, err := d.free(); err != nil || free < d.ballast+reserve {
		return err
	}
	err := d.touch(ballastFile)
	if errors.Is(err, fs.ErrPermission) { // a former user's, and there is nothing in it
		if err = d.root.Remove(ballastFile); err == nil {
			err = d.touch(ballastFile)
		}
	}
	if err != nil {
		return access.Explain(err, d.dir)
	}
	f, err := d.root.OpenFile(ballastFile, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(allocate(f, d.ballast), f.Close()); err != nil {
		return errors.Join(err, d.root.Remove(ballastFile))
	}
	d.hasBallast = true
	return nil
}

// dropBallast gives the ballast up.
func (d *disk) dropBallast() {
	d.hasBallast = false
	d.retry = time.Now().Add(retryFull)
	_ = d.root.Remove(ballastFile) // when even that fails, the next write says so
}

// fill writes size bytes.
func fill(f *os.File, size int64) error {
	chunk := []byte(strings.Repeat("relay outbox ballast\n", 1<<12))
	for at := int64(0); at < size; at += int64(len(chunk)) {
		if _, err := f.WriteAt(chunk[:min(int64(len(chunk)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom gives the ballast up and copies the log into the file, so that the log
// starts again in space that it has already. Then settlements need no more.
func (s *Store) makeRoom() error {
	s.disk.dropBallast()
	err := s.db.checkpoint(sqlite3.CHECKPOINT_PASSIVE)
	if isFull(err) {
		s.stalled = time.Now().Add(retryFull)
		return nil
	}
	return err
}

// restoreBallast makes the ballast again after a full disk.
func (s *Store) restoreBallast() {
	d := s.disk
	if d.hasBallast || time.Now().Before(d.retry) {
		return
	}
	d.retry = time.Now().Add(retryFull)
	if err := d.raiseBallast(minFree); err != nil {
		s.log.Debug().Err(err).Msg("no new ballast for the outbox yet")
	}
}

// measure finds out how much can be accepted now: s.room and s.full. In a
// transaction it sees what that has written.
func (s *Store) measure() error {
	used, _, err := s.db.used()
	if err != nil {
		return fmt.Errorf("measure outbox: %w", err)
	}
	free, err := s.disk.free()
	if err != nil {
		free = math.MaxInt64 // not known: the write will tell
	}
	// The rest is for the records of attempts.
	s.room = s.maxSize - s.maxSize/16 - used*pageSize
	var full error
	switch {
	case s.room < pageSize:
		full = fmt.Errorf("%w: %d of %d bytes (max_size) are in use", outbox.ErrFull, used*pageSize, s.maxSize)
	case free < minFree:
		full = fmt.Errorf("%w: its disk has only %d MiB left, and %d MiB must stay free: free space on the disk, or move the outbox to a larger one", outbox.ErrFull, free>>20, int64(minFree)>>20)
	case !s.disk.hasBallast:
		full = fmt.Errorf("%w: the disk was full and has no room for the ballast yet", outbox.ErrFull)
	}
	if (full == nil) != (s.full == nil) {
		if full == nil {
			s.log.Info().Msg("outbox has room again")
		} else {
			s.log.Warn().Err(full).Msg("no more events are accepted until there is room")
		}
	}
	s.full = full
	return nil
}
