package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"relay/internal/access"
	"relay/internal/testkit"
)

func mustListen(t *testing.T, path string, mode fs.FileMode) net.Listener {
	t.Helper()
	l, err := Unix(t.Context(), path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// names are the files in a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range files {
		all = append(all, f.Name())
	}
	return strings.Join(all, " ")
}

// wantAnswer checks that l, and nobody else, answers at path.
func wantAnswer(t *testing.T, l net.Listener, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if _, err := got.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestUnix(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // it must have no say
	for mode, dirMode := range map[fs.FileMode]fs.FileMode{0o660: 0o750, 0o600: 0o700, 0o666: 0o750} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(testkit.Dir(t), "relay")
			path := filepath.Join(dir, "relay.sock")
			l := mustListen(t, path, mode)
			wantAnswer(t, l, path)
			if l.Addr().String() != path || l.Addr().Network() != "unix" {
				t.Errorf("address %v", l.Addr())
			}
			for name, want := range map[string]fs.FileMode{path: mode | fs.ModeSocket, dir: dirMode | fs.ModeDir, path + ".lock": 0o600} {
				if file, err := os.Stat(name); err != nil || file.Mode() != want {
					t.Errorf("%s: %v %v, want %v", name, file.Mode(), err, want)
				}
			}
			if got := names(t, dir); got != "relay.sock relay.sock.lock" {
				t.Errorf("directory holds %s", got)
			}

			if err := errors.Join(l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if _, err := net.Dial("unix", path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after close: %v", err)
			}
			wantAnswer(t, mustListen(t, path, mode), path) // and again
		})
	}
}

func TestUnixKeepsDirectoryMode(t *testing.T) {
	dir := testkit.Dir(t)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	mustListen(t, filepath.Join(dir, "s"), 0o660)
	if file, err := os.Stat(dir); err != nil || file.Mode().Perm() != 0o711 {
		t.Errorf("mode %v %v", file.Mode(), err)
	}
}

// TestUnixRefuses: bad paths (bad input B38) are errors that name the path,
// and what stands there is left alone.
func TestUnixRefuses(t *testing.T) {
	tests := map[string]struct {
		make func(t *testing.T, path string)
		path func(dir string) string
		want string
	}{
		"empty path":      {path: func(string) string { return "" }, want: `"": give the path of a file`},
		"abstract":        {path: func(string) string { return "@relay" }, want: `"@relay"`},
		"zero byte":       {path: func(string) string { return "\x00relay" }, want: "abstract"},
		"108 bytes":       {path: func(dir string) string { return longPath(dir, 108) }, want: "108 bytes"},
		"no parent":       {path: func(dir string) string { return dir + "/a/b/relay.sock" }, want: "parent does not exist"},
		"regular file":    {make: writeFile, want: "not a socket"},
		"directory":       {make: makeDir, want: "not a socket"},
		"dangling link":   {make: makeLink, want: "not a socket"},
		"a live socket":   {make: listenPlainly, want: "another process answers on"},
		"a live relay":    {make: func(t *testing.T, path string) { mustListen(t, path, 0o600) }, want: "another process answers on"},
		"directory is no": {make: func(t *testing.T, path string) { writeFile(t, filepath.Dir(path)) }, path: func(dir string) string { return dir + "/file/relay.sock" }, want: "lock socket"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(testkit.Dir(t), "relay.sock")
			if test.path != nil {
				path = test.path(filepath.Dir(path))
			}
			if test.make != nil {
				test.make(t, path)
			}
			before, _ := os.Lstat(path)
			l, err := Unix(t.Context(), path, 0o660)
			if err == nil {
				l.Close()
				t.Fatal("listens")
			}
			if got := err.Error(); !strings.Contains(got, test.want) || !strings.Contains(got, strings.Trim(path, "\x00")) {
				t.Errorf("got %q, want %q and the path in it", got, test.want)
			}
			if after, _ := os.Lstat(path); (before == nil) != (after == nil) || before != nil && !os.SameFile(before, after) {
				t.Error("what was there has changed")
			}
		})
	}
}

// TestUnixAfterRefusal: what was refused can be tried again.
func TestUnixAfterRefusal(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	writeFile(t, path)
	if _, err := Unix(t.Context(), path, 0o660); err == nil {
		t.Fatal("listens over a file")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path, 0o660)
}

func longPath(dir string, size int) string {
	return dir + "/" + strings.Repeat("s", size-len(dir)-1)
}

func writeFile(t *testing.T, path string) {
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeDir(t *testing.T, path string) {
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func makeLink(t *testing.T, path string) {
	if err := os.Symlink(path+".gone", path); err != nil {
		t.Fatal(err)
	}
}

// listenPlainly is a server that knows nothing of our lock.
func listenPlainly(t *testing.T, path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func TestUnixLongestPath(t *testing.T) {
	path := longPath(testkit.Dir(t), access.MaxSocketPath)
	wantAnswer(t, mustListen(t, path, 0o660), path)
}

func TestUnixReplacesStale(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, mustListen(t, path, 0o660), path)
}

// TestUnixCloseLeavesOthers: a file that took the socket's place is not
// removed.
func TestUnixCloseLeavesOthers(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	l := mustListen(t, path, 0o660)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenPlainly(t, path)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestUnixRace: of many that want a path, stale socket or none, one gets
// it.
func TestUnixRace(t *testing.T) {
	for _, stale := range []bool{false, true} {
		t.Run(fmt.Sprintf("stale=%v", stale), func(t *testing.T) {
			path := filepath.Join(testkit.Dir(t), "relay.sock")
			if stale {
				dead, err := net.Listen("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				dead.(*net.UnixListener).SetUnlinkOnClose(false)
				dead.Close()
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			var won []net.Listener
			for range 16 {
				wg.Go(func() {
					l, err := Unix(t.Context(), path, 0o660)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won = append(won, l)
					} else if !errors.Is(err, ErrAnswered) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if len(won) != 1 {
				t.Fatalf("%d listeners, want 1", len(won))
			}
			wantAnswer(t, won[0], path)
			won[0].Close()
		})
	}
}

// holdSocketEnv makes the test binary a process that listens at the path and
// waits to be killed.
const holdSocketEnv = "RELAY_TEST_HOLD_SOCKET"

func holdSocket(path string) {
	l, err := Unix(context.Background(), path, 0o660)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listening")
	for err == nil {
		_, err = l.Accept()
	}
	os.Exit(1)
}

// TestUnixAfterKill: a killed process leaves socket and lock file, and the
// next one takes its place; while it lives, nobody does.
func TestUnixAfterKill(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "relay.sock")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), holdSocketEnv+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	if _, err := Unix(t.Context(), path, 0o660); !errors.Is(err, ErrAnswered) {
		t.Errorf("beside a live process: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // says that it was killed
	if got := names(t, filepath.Dir(path)); got != "relay.sock relay.sock.lock" {
		t.Errorf("the dead process left %q", got)
	}
	wantAnswer(t, mustListen(t, path, 0o660), path)
}

func TestTCP(t *testing.T) {
	l, err := TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := TCP(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("taken port: %v", err)
	}
}
