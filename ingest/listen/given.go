package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Given are listening sockets that a service manager opened for this process, as systemd does by
// socket activation. Each can be taken once, by the address of a listener of the file. The nil
// value has none.
type Given struct {
	sockets []net.Listener
}

// Inherit makes listeners of the sockets and closes the files. A socket that takes no connections
// is an error.
func Inherit(files []*os.File) (*Given, error) {
	g := &Given{}
	var errs []error
	for _, f := range files {
		l, err := inherit(f)
		if err = errors.Join(err, f.Close()); err != nil {
			errs = append(errs, fmt.Errorf("socket %s of the service manager: %w", f.Name(), err))
			continue
		}
		g.sockets = append(g.sockets, l)
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, g.Close())...)
	}
	return g, nil
}

func inherit(f *os.File) (net.Listener, error) {
	if listens, err := syscall.GetsockoptInt(int(f.Fd()), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil {
		return nil, fmt.Errorf("read its state: %w", err)
	} else if listens == 0 {
		return nil, errors.New("it does not listen: write ListenStream= and Accept=no in the socket unit")
	}
	return net.FileListener(f)
}

// Unix takes the socket at path, nil if there is none.
func (g *Given) Unix(path string) net.Listener {
	l := g.take(func(at net.Addr) bool {
		u, ok := at.(*net.UnixAddr)
		return ok && samePath(u.Name, path)
	})
	if l == nil {
		return nil
	}
	return &givenSocket{Listener: l, path: path}
}

// TCP takes the socket at host:port, nil if there is none.
func (g *Given) TCP(addr string) net.Listener {
	want, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil // listening on it says why
	}
	return g.take(func(at net.Addr) bool {
		t, ok := at.(*net.TCPAddr)
		return ok && t.Port == want.Port && (t.IP.Equal(want.IP) || anyHost(t.IP) && anyHost(want.IP))
	})
}

// anyHost tells whether a socket on this address is reached by all addresses of the machine.
func anyHost(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

func (g *Given) take(is func(net.Addr) bool) net.Listener {
	if g == nil {
		return nil
	}
	i := slices.IndexFunc(g.sockets, func(l net.Listener) bool { return is(l.Addr()) })
	if i < 0 {
		return nil
	}
	l := g.sockets[i]
	g.sockets = slices.Delete(g.sockets, i, i+1)
	return l
}

// Left returns an error that names the sockets that were not taken. Clients of such a socket
// would wait for ever.
func (g *Given) Left() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, l := range g.sockets {
		a := l.Addr()
		block := fmt.Sprintf("ingest { %s %q {} }", map[string]string{"unix": "unix", "tcp": "http"}[a.Network()], a)
		errs = append(errs, fmt.Errorf("the service manager listens on %s for Relay, and no listener of the file has this address: write %s, or take it out of the socket unit", a, block))
	}
	return errors.Join(errs...)
}

// Close closes the sockets that were not taken. The service manager keeps its own descriptors.
func (g *Given) Close() error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, l := range g.sockets {
		errs = append(errs, l.Close())
	}
	g.sockets = nil
	return errors.Join(errs...)
}

// givenSocket is a Unix socket whose file is the service manager's, so Close lets it stay.
type givenSocket struct {
	net.Listener
	path string
}

// Check says that the file is gone. Only the service manager can make it again.
func (s *givenSocket) Check(context.Context) (renewed bool, err error) {
	if _, err := os.Lstat(s.path); err != nil {
		return false, fmt.Errorf("%w: restart the socket unit that makes it", err)
	}
	return false, nil
}

// samePath tells whether two paths are of one file, whether it exists or not.
func samePath(a, b string) bool {
	wholeA, errA := filepath.Abs(a)
	wholeB, errB := filepath.Abs(b)
	if errA == nil && errB == nil && wholeA == wholeB {
		return true
	}
	fileA, errA := os.Stat(a)
	fileB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fileA, fileB)
}
