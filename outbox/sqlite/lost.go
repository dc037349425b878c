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
// removed or replaced. What is accepted then would be lost with the process. It is nil while
// all is in its place. A lock file that is gone is made anew. It is called by one goroutine
// at a time, and not beside Close.
func (s *Store) Lost() error {
	for _, name := range []string{databaseFile, logFile} {
		if err := s.disk.find(name); err != nil {
			return err
		}
	}
	if s.disk.find(lockFile) == nil {
		return nil
	}
	return s.disk.relock()
}

// note remembers the files as they are now.
func (d *disk) note() error {
	d.files = map[string]fs.FileInfo{}
	for _, name := range []string{databaseFile, logFile, lockFile} {
		file, err := d.root.Stat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // in a virtual file system it is elsewhere
			return err
		}
		if err == nil {
			d.files[name] = file
		}
	}
	return nil
}

// find looks for a file where it was.
func (d *disk) find(name string) error {
	was, known := d.files[name]
	if !known {
		return nil
	}
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
	return errors.Join(old.Close(), d.note())
}
