package listen

import (
	"context"
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
// The file is created with its mode, so that the mode applies from the start. It takes the place
// of a dead process's socket, which is one that nobody holds the lock of (path.lock, which stays)
// and that refuses connections; anything else at path is an error and stays as it is. A missing
// directory is made, but not its parents; it opens to the group if the mode does. Closing the
// listener removes the socket if it is still this one.
func Unix(ctx context.Context, path string, mode fs.FileMode) (*Socket, error) {
	switch {
	case path == "", path[0] == '@', strings.Contains(path, "\x00"):
		return nil, fmt.Errorf("listen on %q: give the path of a file; abstract sockets, which begin with @, have no permissions", path)
	case len(path) > access.MaxSocketPath:
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a socket's has at most %d; choose a shorter one", path, len(path), access.MaxSocketPath)
	}
	s := &Socket{path: path, mode: mode}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(s.explain(err), s.Close())
	}
	return s, nil
}

// Socket is a listener on a Unix socket that owns its path.
type Socket struct {
	path string
	mode fs.FileMode

	mu       sync.Mutex
	lock     *flock.Flock
	lockFile fs.FileInfo       // that it is held on
	now      *net.UnixListener // nil before the first
	file     fs.FileInfo       // the socket of the listener above
	old      *net.UnixListener // whose file is gone; connections that wait there are still accepted
	closed   bool
}

// drainTime is for accepting connections that wait on a socket whose file was removed.
const drainTime = 50 * time.Millisecond

func (s *Socket) explain(err error) error {
	return fmt.Errorf("listen on %s: %w", s.path, access.ExplainShared(err, filepath.Dir(s.path)))
}

// open locks the path and listens there. The caller holds mu, or is the first.
func (s *Socket) open(ctx context.Context) error {
	if err := makeSocketDir(filepath.Dir(s.path), s.mode); err != nil {
		return err
	}
	known, err := s.takeLock()
	if err != nil {
		return err
	}
	if err := clearPath(ctx, s.path, known); err != nil {
		return err
	}
	l, file, err := bind(ctx, s.path, s.mode)
	if err != nil {
		return err
	}
	if s.old != nil {
		_ = s.old.Close() // it was about to be
	}
	s.old, s.now, s.file = s.now, l, file
	return nil
}

// takeLock locks the path, unless this Socket already holds the lock. known is true if the lock
// file existed, because a Relay has listened here.
func (s *Socket) takeLock() (known bool, err error) {
	name := s.path + ".lock"
	before, err := os.Lstat(name)
	known = err == nil
	if known && s.lock != nil && os.SameFile(before, s.lockFile) {
		return true, nil
	}
	lock := flock.New(name)
	locked, err := lock.TryLock()
	if err != nil {
		return known, fmt.Errorf("lock socket: %w", err)
	}
	if !locked {
		return known, ErrAnswered
	}
	file, err := os.Lstat(name)
	if err == nil {
		err = shareLock(name)
	}
	if err != nil {
		return known, fmt.Errorf("lock socket: %w", errors.Join(err, lock.Unlock()))
	}
	if s.lock != nil {
		_ = s.lock.Unlock() // of a file that is gone
	}
	s.lock, s.lockFile = lock, file
	return known, nil
}

// bind listens at the final path: programs that clean directories take the names of live
// sockets from the kernel, and the kernel knows the name that was bound.
func bind(ctx context.Context, path string, mode fs.FileMode) (*net.UnixListener, fs.FileInfo, error) {
	name := path
	if whole, err := filepath.Abs(path); err == nil && len(whole) <= access.MaxSocketPath {
		name = whole // a relative path means nothing to other processes
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// Linux makes the file with the mode that the socket has. Elsewhere only the umask
		// restricts it until Chmod.
		return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), uint32(mode.Perm())) })
	}}
	l, err := c.Listen(ctx, "unix", name)
	if err != nil {
		return nil, nil, err
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false) // it would remove another process's file
	file, err := os.Lstat(name)
	if err == nil {
		err = os.Chmod(name, mode) // bits that the umask has removed
	}
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close())
	}
	return unix, file, nil
}

// Check checks that the socket's file is still there, and creates it again if not; connections
// stay open. The error says that the file is gone or another process's, and why it was not
// created again.
func (s *Socket) Check(ctx context.Context) (renewed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, nil
	}
	file, err := os.Lstat(s.path)
	if err == nil && os.SameFile(file, s.file) {
		if _, err := s.takeLock(); err != nil {
			return false, s.explain(err)
		}
		return false, nil
	}
	if err := s.open(ctx); err != nil {
		return false, s.explain(err)
	}
	_ = s.old.SetDeadline(time.Now().Add(drainTime)) // ends an Accept
	return true, nil
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		s.mu.Lock()
		now, old := s.now, s.old
		s.mu.Unlock()
		if old != nil {
			_ = old.SetDeadline(time.Now().Add(drainTime))
			if c, err := old.Accept(); err == nil {
				return c, nil
			}
			s.forget(old)
			continue
		}
		c, err := now.Accept()
		if err != nil && s.replaced(now) {
			continue
		}
		return c, err
	}
}

func (s *Socket) replaced(l *net.UnixListener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now != l
}

// forget closes a listener that was replaced.
func (s *Socket) forget(old *net.UnixListener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.old == old {
		_ = old.Close() // its file is gone
		s.old = nil
	}
}

// Addr is the path that apps use.
func (s *Socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the socket, unless another file has taken its place, and stops
// listening. Connections that were accepted stay open.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	if s.now != nil {
		if file, err := os.Lstat(s.path); err == nil && os.SameFile(file, s.file) {
			errs = append(errs, os.Remove(s.path))
		}
		errs = append(errs, s.now.Close())
	}
	if s.old != nil {
		_ = s.old.Close() // its file is gone
		s.old = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}

// shareLock gives the lock file the group's mode, so that another user of the folder's group can
// lock it later.
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

// makeSocketDir makes the directory of a socket, for the owner or, if the socket's mode includes
// the group, for the group, too, regardless of the umask.
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

// clearPath returns nil if path is free, or after removing a dead socket. The caller holds the
// lock. known is true if the lock file existed; then a socket of another user, which cannot be
// tested, counts as left by a Relay of that user.
func clearPath(ctx context.Context, path string, known bool) error {
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
		return os.Remove(path)
	}
	return fmt.Errorf("cannot tell whether another process answers: %w", err)
}
