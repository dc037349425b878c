package listen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"relay/internal/access"
)

// maxSocketPath is what the kernel's address of a Unix socket holds, in bytes.
const maxSocketPath = 107

// ErrAnswered says that another process has a Unix socket.
var ErrAnswered = errors.New("another process answers on it; stop that or choose another path")

// TCP listens on host:port.
func TCP(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: stop the process that has it or choose another port", err)
	}
	return l, err
}

// Unix listens on a Unix socket at path.
//
// The socket appears at path when it is ready, with its mode set: until then an
// app finds nothing there. It takes the place of a dead process's socket, which
// is one that nobody holds the lock of (path.lock, which stays) and that
// refuses connections; anything else at path is left alone and is an error. A
// missing directory is made, but not its parents; it opens to the group if the
// mode does. Closing the listener removes the socket if it is still this one.
func Unix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	switch {
	case path == "", path[0] == '@', strings.Contains(path, "\x00"):
		return nil, fmt.Errorf("listen on %q: give the path of a file; abstract sockets, which begin with @, have no permissions", path)
	case len(path) > maxSocketPath:
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a socket's has at most %d; choose a shorter one", path, len(path), maxSocketPath)
	}
	l, err := openUnix(ctx, path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, access.ExplainShared(err, filepath.Dir(path)))
	}
	return l, nil
}

func openUnix(ctx context.Context, path string, mode fs.FileMode) (_ net.Listener, err error) {
	if err := makeSocketDir(filepath.Dir(path), mode); err != nil {
		return nil, err
	}
	_, err = os.Lstat(path + ".lock")
	known := err == nil // a Relay has listened here
	lock := flock.New(path + ".lock")
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock socket: %w", err)
	}
	if !locked {
		return nil, ErrAnswered
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	if err := shareLock(path + ".lock"); err != nil {
		return nil, fmt.Errorf("lock socket: %w", err)
	}
	if err := checkVacant(ctx, path, known); err != nil {
		return nil, err
	}

	// The name is no longer than the path, so that it fits where the path fits.
	dir, base := filepath.Split(path)
	hidden := dir + rand.Text()[:min(len(base), 26)]
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", hidden)
	if err != nil {
		return nil, err
	}
	unix := ln.(*net.UnixListener)
	unix.SetUnlinkOnClose(false) // it would remove the hidden name
	s := &socket{UnixListener: unix, path: path, lock: lock}
	if s.file, err = publish(hidden, path, mode); err != nil {
		return nil, errors.Join(err, unix.Close(), os.Remove(hidden))
	}
	return s, nil
}

// shareLock lets the next user of a folder that is its group's lock the socket, too.
func shareLock(path string) error {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = access.Narrow(f, folder)
	return errors.Join(err, f.Close())
}

// publish gives a socket its mode and then its name.
func publish(hidden, path string, mode fs.FileMode) (fs.FileInfo, error) {
	if err := os.Chmod(hidden, mode); err != nil {
		return nil, err
	}
	file, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	return file, os.Rename(hidden, path)
}

// makeSocketDir makes the directory of a socket, for the owner only or, if the
// socket is for its group, for that too. The umask has no say.
func makeSocketDir(dir string, socket fs.FileMode) error {
	mode := fs.FileMode(0o700)
	if socket&0o070 != 0 {
		mode = 0o750
	}
	switch err := os.Mkdir(dir, mode); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make directory %s: its parent does not exist; make it or choose another path", dir)
	case err != nil:
		return fmt.Errorf("make directory: %w", err)
	}
	return os.Chmod(dir, mode)
}

// checkVacant returns nil if path is free or holds a socket that nobody answers
// on. The caller holds the lock. Known tells that the lock was there: then a socket of another
// user, which cannot be asked, is what a Relay of that user left.
func checkVacant(ctx context.Context, path string, known bool) error {
	file, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case file.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is not a socket; move it away or choose another path")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close() // nothing was sent
		return ErrAnswered
	case errors.Is(err, syscall.ECONNREFUSED), known && errors.Is(err, fs.ErrPermission):
		return nil
	}
	return fmt.Errorf("cannot tell whether another process answers: %w", err)
}

// socket is a listener that owns its path.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	lock *flock.Flock
	once sync.Once
	err  error
}

// Addr is the path that apps use.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the socket, unless another file has taken its place, and stops
// listening. Connections that were accepted stay open.
func (s *socket) Close() error {
	s.once.Do(func() {
		var removed error
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
			removed = os.Remove(s.path)
		}
		s.err = errors.Join(removed, s.UnixListener.Close(), s.lock.Unlock())
	})
	return s.err
}
