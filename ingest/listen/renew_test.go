package listen

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"relay/internal/testkit"
	"strings"
	"sync"
	"testing"
)

// echo answers on a Socket until it is closed: what comes is sent back.
func echo(t *testing.T, s *Socket) {
	t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept: %v", err)
				}
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
}

func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func mustSocket(t *testing.T, path string) *Socket {
	t.Helper()
	return mustListen(t, path, 0o660).(*Socket)
}

// TestSocketIsMadeAnew: whatever happens to the file, the path leads to the Relay again, and
// connections go on.
func TestSocketIsMadeAnew(t *testing.T) {
	for name, harm := range map[string]func(dir, path string) error{
		"removed":           func(_, path string) error { return os.Remove(path) },
		"renamed":           func(_, path string) error { return os.Rename(path, path+".moved") },
		"with its lock":     func(_, path string) error { return errors.Join(os.Remove(path), os.Remove(path+".lock")) },
		"directory removed": func(dir, _ string) error { return os.RemoveAll(dir) },
		"directory moved":   func(dir, _ string) error { return os.Rename(dir, dir+".moved") },
		"a dead one's": func(_, path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return errors.Join(l.Close(), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(testkit.Dir(t), "run")
			path := filepath.Join(dir, "relay.sock")
			s := mustSocket(t, path)
			echo(t, s)
			before := connect(t, path)
			ask(t, before)
			for range 2 {
				if err := harm(dir, path); err != nil {
					t.Fatal(err)
				}
				if renewed, err := s.Check(t.Context()); !renewed || err != nil {
					t.Fatalf("made anew: %v, %v", renewed, err)
				}
				ask(t, before)
				ask(t, connect(t, path))
				if renewed, err := s.Check(t.Context()); renewed || err != nil {
					t.Fatalf("made anew again: %v, %v", renewed, err)
				}
				if file, err := os.Lstat(path); err != nil || file.Mode() != fs.ModeSocket|0o660 {
					t.Errorf("the new one has mode %v, %v", file.Mode(), err)
				}
				_ = os.RemoveAll(dir + ".moved")
			}
			if _, err := Unix(t.Context(), path, 0o660); !errors.Is(err, ErrAnswered) {
				t.Errorf("another one listens as well: %v", err)
			}
		})
	}
}

// TestSocketOfAnother: a file of others at the path stays, and is reported, until it is
// gone.
func TestSocketOfAnother(t *testing.T) {
	for name, put := range map[string]func(path string) (remove func() error, err error){
		"another program's": func(path string) (func() error, error) {
			l, err := net.Listen("unix", path)
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		},
		"another Relay's": func(path string) (func() error, error) {
			if err := os.Remove(path + ".lock"); err != nil {
				return nil, err
			}
			l, err := Unix(t.Context(), path, 0o600)
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		},
		"a file": func(path string) (func() error, error) {
			return func() error { return os.Remove(path) }, os.WriteFile(path, nil, 0o600)
		},
		"a directory": func(path string) (func() error, error) {
			return func() error { return os.Remove(path) }, os.Mkdir(path, 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(testkit.Dir(t), "relay.sock")
			s := mustSocket(t, path)
			echo(t, s)
			before := connect(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			remove, err := put(path)
			if err != nil {
				t.Fatal(err)
			}
			theirs, _ := os.Lstat(path)
			for range 2 {
				if renewed, err := s.Check(t.Context()); renewed || err == nil || !strings.Contains(err.Error(), path) {
					t.Fatalf("made anew %v, %v", renewed, err)
				}
			}
			if now, err := os.Lstat(path); err != nil || !os.SameFile(now, theirs) {
				t.Errorf("what others have put there is gone: %v", err)
			}
			ask(t, before)
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			if renewed, err := s.Check(t.Context()); !renewed || err != nil {
				t.Errorf("made anew %v, %v", renewed, err)
			}
			ask(t, connect(t, path))
		})
	}
}

// TestSocketKeepsWaiting: connections that waited to be accepted when the file was removed
// are accepted.
func TestSocketKeepsWaiting(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	s := mustSocket(t, path)
	waiting := []net.Conn{connect(t, path), connect(t, path)}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if renewed, err := s.Check(t.Context()); !renewed || err != nil {
		t.Fatalf("made anew %v, %v", renewed, err)
	}
	waiting = append(waiting, connect(t, path))
	echo(t, s)
	for _, c := range waiting {
		ask(t, c)
		_ = c.Close()
	}
}

// TestSocketIsInTheKernelsList: systemd-tmpfiles and others spare the sockets that
// /proc/net/unix names.
func TestSocketIsInTheKernelsList(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	mustSocket(t, path)
	list, err := os.ReadFile("/proc/net/unix")
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("this system has no such list: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(list)) {
		found = found || strings.HasSuffix(line, " "+path+"\n")
	}
	if !found {
		t.Errorf("%s is not in\n%s", path, list)
	}
}

// TestRelativeSocketIsInTheKernelsList: a relative path would say nothing to others.
func TestRelativeSocketIsInTheKernelsList(t *testing.T) {
	dir := testkit.Dir(t)
	t.Chdir(dir)
	s := mustSocket(t, "relay.sock")
	if got := s.Addr().String(); got != "relay.sock" {
		t.Errorf("its address is %s", got)
	}
	if list, err := os.ReadFile("/proc/net/unix"); err == nil && !strings.Contains(string(list), " "+filepath.Join(dir, "relay.sock")+"\n") {
		t.Errorf("%s is not in\n%s", dir, list)
	}
}

// TestSocketIsNeverTooWide: there is no moment in which others could connect.
func TestSocketIsNeverTooWide(t *testing.T) {
	dir := testkit.Dir(t)
	wide := make(chan error, 1)
	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if file, err := os.Lstat(filepath.Join(dir, "relay.sock")); err == nil && file.Mode().Perm()&^0o600 != 0 {
				select {
				case wide <- fmt.Errorf("its mode was %v", file.Mode()):
				default:
				}
			}
		}
	})
	for range 500 {
		s, err := Unix(t.Context(), filepath.Join(dir, "relay.sock"), 0o600)
		if err != nil {
			t.Error(err)
			break
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	looking.Wait()
	select {
	case err := <-wide:
		t.Error(err)
	default:
	}
}
