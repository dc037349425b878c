package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
)

// manager listens as systemd does for sd_notify, and keeps what it was told.
func manager(t *testing.T, p *process) *testkit.Log {
	t.Helper()
	path := filepath.Join(p.dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	testkit.Must(t, err)
	told, done := new(testkit.Log), make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4<<10); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			fmt.Fprintf(told, "<%s>\n", b[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	p.env = append(p.env, "NOTIFY_SOCKET="+path)
	return told
}

func until(t *testing.T, log *testkit.Log, text string) {
	t.Helper()
	testkit.Until(t, text, func() bool { return strings.Contains(log.String(), text) })
}

// systemd hears when Relay is ready, reloads (also in vain) and stops, and that it is alive.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "http://127.0.0.1:1", "a")
	told := manager(t, p)
	p.env = append(p.env, "WATCHDOG_USEC=100000")
	p.start()
	until(t, told, "<READY=1\nSTATUS=ready>\n")
	until(t, told, "<WATCHDOG=1>\n<WATCHDOG=1>\n")
	told.Take()
	testkit.Must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	until(t, told, "<RELOADING=1\nMONOTONIC_USEC=")
	until(t, told, "<READY=1\nSTATUS=ready>\n")
	p.rewrite("concurrency = 8", "concurrency = 0")
	until(t, told, "<READY=1\nSTATUS=ready; the last reload was refused: ")
	if code := p.stop(syscall.SIGINT); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	until(t, told, "<STOPPING=1\nSTATUS=stopping>\n")
}

// Relay and its app are ready when the app runs.
func TestSystemdIsToldOfTheApp(t *testing.T) {
	t.Parallel()
	p := newBeside(t, "http://127.0.0.1:1", `echo up > up; exit 0`)
	told := manager(t, p)
	p.start()
	if code := p.ends(time.Minute); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	p.wrote("up")
	until(t, told, "<STOPPING=1\nSTATUS=stopping>\n") // what was sent may still be read
	if log := told.String(); !strings.HasPrefix(log, "<READY=1") || !strings.HasSuffix(log, "<STOPPING=1\nSTATUS=stopping>\n") {
		t.Errorf("systemd was told %q", log)
	}
}

// activated runs Relay below systemd's own tool, which listens and starts it at the first connection.
func activated(t *testing.T, p *process, sockets ...string) {
	t.Helper()
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Fatal("this test needs systemd-socket-activate: make setup installs it")
	}
	self, err := os.Executable()
	testkit.Must(t, err)
	program := filepath.Join(p.dir, "relay")
	testkit.Must(t, os.Symlink(self, program))
	args := []string{"systemd-socket-activate"}
	for _, s := range sockets {
		args = append(args, "--listen="+s)
	}
	// The tool passes on only the variables that it is told to.
	args = append(args, "--setenv=XDG_STATE_HOME", program, "serve", "--config", filepath.Join(p.dir, "relay.hcl"))
	p.log = new(testkit.Log)
	p.cmd = &exec.Cmd{Path: tool, Args: args, Env: append(os.Environ(), p.env...), Stdout: p.log, Stderr: p.log, WaitDelay: 5 * time.Second}
	testkit.Must(t, p.cmd.Start())
	// The file of a socket is there before somebody listens at it: a client of that moment is refused.
	testkit.Until(t, "the sockets", func() bool { return strings.Count(p.log.String(), "Listening on ") == len(sockets) })
}

// A client that connects before Relay runs is answered, and the socket's file outlives Relay, so
// that nobody is refused while it restarts.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	receiver, arrived := counting(0)
	defer receiver.Close()
	p := newProcess(t, receiver.URL, "a")
	activated(t, p, p.socket())
	if strings.Contains(p.log.String(), `"ready"`) {
		t.Fatal("Relay runs before anybody connected")
	}
	if !post(p.client(), "early") {
		t.Fatalf("the event was not accepted:\n%s", p.log)
	}
	testkit.Until(t, "the event", func() bool { return arrived.Load() == 1 })
	if code := p.stop(syscall.SIGINT); code != exitOK {
		t.Errorf("exit code %d, want 0\n%s", code, p.log)
	}
	if _, err := os.Lstat(p.socket()); err != nil {
		t.Errorf("Relay removed the socket of systemd: %v", err)
	}
}

// A socket that no listener of the file has would keep its clients waiting for ever.
func TestSocketActivationWithoutListener(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "http://127.0.0.1:1", "a")
	other := filepath.Join(p.dir, "other.sock")
	activated(t, p, other)
	conn, err := net.Dial("unix", other)
	testkit.Must(t, err)
	defer conn.Close()
	if code := p.ends(time.Minute); code != exitFailed || !strings.Contains(p.log.String(), "no listener of the file has this address: write ingest { unix") {
		t.Errorf("exit code %d\n%s", code, p.log)
	}
}
