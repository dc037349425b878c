package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"relay/outbox"
)

// Lost says that the outbox's path no longer leads to its files: they were moved away,
// removed or replaced. An event that is accepted then is lost with the process. It is nil while
// all is in its place. A lock file that is gone is made again. It is called by one goroutine
// at a time, and not beside Close.
func (s *Store) Lost() error {
	for _, name := range []string{databaseFile, logFile} {
		if was, known := s.disk.files[name]; known {
			if err := s.disk.find(name, was); err != nil {
				return err
			}
		}
	}
	if s.disk.find(lockFile, s.disk.locked) == nil {
		return nil
	}
	return s.disk.relock()
}

// refuseRemoved refuses batches if a file of the outbox was removed, and returns those to
// commit. A look costs about a microsecond for each group. A folder that was only moved is
// found by Lost: what is accepted meanwhile is there when it is put back.
func (s *Store) refuseRemoved(accepts []*accept) []*accept {
	if len(accepts) == 0 {
		return nil
	}
	name, removed := s.disk.removed()
	if !removed {
		return accepts
	}
	for _, a := range accepts {
		a.answer(fmt.Errorf("%w: %s was removed from the outbox folder %s", outbox.ErrUnavailable, name, s.disk.dir))
	}
	return nil
}

// removed names a file with data that has no name in the folder any more, wherever the folder
// is now. It may be called beside the others.
func (d *disk) removed() (name string, yes bool) {
	for name, was := range d.files {
		now, err := d.root.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, was) {
			return name, true
		}
	}
	return "", false
}

// note remembers the files with data as they are now, and the lock file.
func (d *disk) note() error {
	d.files = map[string]fs.FileInfo{}
	for _, name := range []string{databaseFile, logFile} {
		file, err := d.root.Stat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // in a virtual file system it is elsewhere
			return err
		}
		if err == nil {
			d.files[name] = file
		}
	}
	return d.noteLock()
}

func (d *disk) noteLock() (err error) {
	d.locked, err = d.root.Stat(lockFile)
	return err
}

// find looks for a file where it was.
func (d *disk) find(name string, was fs.FileInfo) error {
	now, err := os.Lstat(filepath.Join(d.dir, name))
	switch {
	case err == nil && os.SameFile(now, was):
		return nil
	case err == nil:
		return fmt.Errorf("the outbox folder %s holds the %s of another outbox: put back what was there, or restart Relay to work with this one", d.dir, name)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the outbox folder %s cannot be looked into: %w", d.dir, err)
	}
	if _, err := os.Lstat(d.dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the outbox folder %s is gone: put it back where it was", d.dir)
	}
	if name == logFile { // a stop copies what is in it
		return fmt.Errorf("%s is gone from the outbox folder %s: restart Relay with SIGTERM, which saves what it held", name, d.dir)
	}
	return fmt.Errorf("%s is gone from the outbox folder %s: put it back", name, d.dir)
}

// relock locks the directory by a new file.
func (d *disk) relock() error {
	if err := d.touch(lockFile); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(d.dir, lockFile))
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("lock directory: %w", err)
	case !locked:
		return fmt.Errorf("%w: another process has locked the outbox folder %s, whose lock file was removed; stop one of the two", outbox.ErrLocked, d.dir)
	}
	old := d.lock
	d.lock = lock
	if err := d.root.WriteFile(lockFile, fmt.Append(nil, os.Getpid()), 0o600); err != nil && !isFull(err) {
		return err
	}
	return errors.Join(old.Close(), d.noteLock())
}
