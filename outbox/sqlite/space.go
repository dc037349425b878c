package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/rs/zerolog"

	"relay/outbox"
)

// Sizes: in bytes, but for those that say pages.
const (
	pageSize    = 4096
	cacheSize   = 8 << 20
	walLong     = 2000                  // pages: then the write-ahead log is copied at the next chance
	walTooLong  = 8000                  // pages: then it is copied at once
	walLimit    = walTooLong * pageSize // of the log's file, when it starts anew
	minFree     = 2 * walLimit          // with less free disk nothing is accepted
	ballastSize = 16 << 20              // given up when the disk is full, so that deliveries can be recorded
	vacuumSlice = 256                   // pages given back to the file system at a time

	retryFull = time.Second // how often a full disk is looked at again
	calm      = time.Second // after so long without a commit the log is copied
)

// disk is the directory of an outbox and what lies beside the database.
type disk struct {
	dir        string
	lock       *flock.Flock
	free       func() (int64, error)
	ballast    int64 // bytes
	hasBallast bool
	retry      time.Time // no new ballast before
}

// own makes the directory when it is not there and takes possession of it.
func own(o Options) (*disk, error) {
	d := &disk{dir: o.Dir, free: o.free, ballast: o.ballast}
	if d.free == nil {
		d.free = func() (int64, error) { return freeSpace(d.dir) }
	}
	if d.ballast == 0 {
		d.ballast = ballastSize
	}
	if err := d.makeDir(o.Log); err != nil {
		return nil, err
	}
	path := filepath.Join(d.dir, "relay.lock")
	d.lock = flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	locked, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	if !locked {
		pid, _ := os.ReadFile(path) // for the message only
		return nil, fmt.Errorf("%w: %s is in use by process %s; stop it, or choose another directory", outbox.ErrLocked, d.dir, pid)
	}
	if err := errors.Join(os.WriteFile(path, fmt.Append(nil, os.Getpid()), 0o600), d.touch(d.file())); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// file is the path of the database.
func (d *disk) file() string { return filepath.Join(d.dir, "relay.db") }

// makeDir makes the directory for this user alone. One that is there keeps its
// mode: it may hold more than the outbox.
func (d *disk) makeDir(log zerolog.Logger) error {
	info, err := os.Stat(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := os.Chmod(d.dir, 0o700); err != nil { // whatever the umask
			return fmt.Errorf("make directory: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("find directory: %w", err)
	} else if info.Mode().Perm()&0o077 != 0 {
		log.Warn().Msgf("outbox directory %s has mode %#o: chmod 700 keeps other users out", d.dir, info.Mode().Perm())
	}
	if why := unsafeFS(d.dir); why != "" {
		log.Warn().Msgf("outbox directory %s is no safe place: %s", d.dir, why)
	}
	return nil
}

// touch makes a file that only this user can read, whatever the umask; one that is
// there is made so.
func (d *disk) touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// sync makes the names of new files durable. The driver means to do that for the
// log, but syncs the file a second time instead.
func (d *disk) sync() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *disk) ballastFile() string { return filepath.Join(d.dir, "relay.ballast") }

// raise makes the ballast, if there is space for it and reserve more bytes.
func (d *disk) raiseBallast(reserve int64) error {
	if info, err := os.Stat(d.ballastFile()); err == nil && info.Size() == d.ballast {
		d.hasBallast = true
		return nil
	}
	if free, err := d.free(); err != nil || free < d.ballast+reserve {
		return err
	}
	f, err := os.OpenFile(d.ballastFile(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(allocate(f, d.ballast), f.Close()); err != nil {
		return errors.Join(err, os.Remove(d.ballastFile()))
	}
	d.hasBallast = true
	return nil
}

// dropBallast gives the ballast up.
func (d *disk) dropBallast() {
	d.hasBallast = false
	d.retry = time.Now().Add(retryFull)
	_ = os.Remove(d.ballastFile()) // when even that fails, the next write says so
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
		full = fmt.Errorf("%w: the disk has only %d bytes left", outbox.ErrFull, free)
	case !s.disk.hasBallast:
		full = fmt.Errorf("%w: the disk was full and has no room for the ballast yet", outbox.ErrFull)
	}
	if (full == nil) != (s.full == nil) {
		if full == nil {
			s.log.Info().Msg("outbox has room again")
		} else {
			s.log.Warn().Err(full).Msg("no more events are accepted until deliveries or retention free space")
		}
	}
	s.full = full
	return nil
}
