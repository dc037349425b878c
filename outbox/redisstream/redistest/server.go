package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
)

const (
	patience        = 2 * time.Minute  // to start, load, stop, agree: a Sentinel that was kept from running waits 30 s (TILT)
	commandDeadline = 10 * time.Second // for one command
	pollEvery       = 5 * time.Millisecond
)

// Server is a real redis-server of one test. It listens on a Unix socket
// and on a loopback TCP port, which it keeps over restarts, like its data.
//
// All methods may be called at any time from any goroutine, with one limit:
// those that neither take a testing.TB nor return an error end the test that
// started the server when they fail, and so belong on that test's goroutine.
type Server struct {
	t        testing.TB
	dir      string // redis.conf, log, redis.sock, nodes.conf and the folder data
	args     []string
	port     int
	password string
	sentinel bool

	mu   sync.Mutex // guards proc
	proc *life      // the last one started
}

// life is one run of a server process.
type life struct {
	*os.Process
	gone chan struct{} // closed when it has ended and was waited for
}

// Start starts a redis-server, waits until it is ready, and kills it when
// the test ends. It writes an AOF with appendfsync everysec and no RDB; args,
// as on the command line ("--maxmemory", "50mb"), override any setting. With
// --requirepass, Do and the URLs carry the password.
//
// A machine without redis-server fails the test. When the test has failed, the
// end of the server's log is in the test's.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, false, args)
}

// StartKept is Start for a server that a Kill leaves with all that it has answered. Under everysec Redis may answer up to
// 2 s before it writes, while its disk is slow.
func StartKept(t testing.TB, args ...string) *Server {
	t.Helper()
	return Start(t, append([]string{"--appendfsync", "no"}, args...)...)
}

func start(t testing.TB, sentinel bool, args []string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed: run make setup")
	}
	// Not t.TempDir: a test's name in it makes the path of the socket too long.
	dir, err := os.MkdirTemp("", "relay-redis-")
	if err != nil {
		t.Fatalf("make folder: %v", err)
	}
	s := &Server{t: t, dir: dir, args: args, sentinel: sentinel}
	for i, arg := range args {
		if arg == "--requirepass" && i+1 < len(args) {
			s.password = args[i+1]
		}
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("%s ended with the log:\n%s", s.Addr(), s.logTail())
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove folder: %v", err)
		}
	})
	// Between the look at a port and the server's bind, another program may take it.
	for range 10 {
		s.port = testkit.Port(t)
		s.configure()
		s.Start()
		err = s.ready()
		if err == nil {
			return s
		}
		if !strings.Contains(s.logTail(), "Failed listening on") {
			break
		}
	}
	t.Fatalf("start redis: %v", err)
	return nil
}

// configure writes redis.conf: a file, because Sentinel tells servers to write
// down what it changed, and they must find it there when they start again.
func (s *Server) configure() {
	s.t.Helper()
	args := []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port), "--unixsocket", s.Socket(),
		"--dir", s.data(), "--logfile", s.log()}
	if !s.sentinel {
		args = append(args, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
			"--repl-diskless-sync-delay", "0", "--cluster-config-file", filepath.Join(s.dir, "nodes.conf"))
	}
	var conf strings.Builder
	for _, arg := range append(args, s.args...) {
		if option, ok := strings.CutPrefix(arg, "--"); ok {
			conf.WriteString("\n" + option)
		} else {
			conf.WriteString(" " + strconv.Quote(arg))
		}
	}
	conf.WriteString("\n")
	if err := os.MkdirAll(s.data(), 0o700); err != nil {
		s.t.Fatalf("make folder: %v", err)
	}
	if err := os.WriteFile(s.conf(), []byte(conf.String()), 0o600); err != nil {
		s.t.Fatalf("write configuration: %v", err)
	}
	_ = os.Remove(s.log())
}

func (s *Server) conf() string { return filepath.Join(s.dir, "redis.conf") }
func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

// Socket is the path of the Unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, "redis.sock") }

// Addr is host:port on loopback.
func (s *Server) Addr() string { return testkit.Loopback(s.port) }

// URL names the Unix socket: unix:///…/redis.sock.
func (s *Server) URL() string { return s.url(url.URL{Scheme: "unix", Path: s.Socket()}) }

// TCPURL names the TCP port: redis://127.0.0.1:….
func (s *Server) TCPURL() string { return s.url(url.URL{Scheme: "redis", Host: s.Addr()}) }

func (s *Server) url(u url.URL) string {
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// Start runs the server again after Kill or Stop, on its old data, port and
// socket. It returns as soon as the process runs: the server may yet be loading.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.ended() {
		s.t.Fatal("start redis: it runs already")
	}
	args := []string{s.conf()}
	if s.sentinel {
		args = append(args, "--sentinel")
	}
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Kill ends its children, too
	// Where the system can (the field is Linux's), a test binary that dies without
	// its cleanups takes the server along.
	if field := reflect.ValueOf(cmd.SysProcAttr).Elem().FieldByName("Pdeathsig"); field.IsValid() {
		field.Set(reflect.ValueOf(syscall.SIGKILL))
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis: %v", err)
	}
	proc := &life{Process: cmd.Process, gone: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // a killed server has no good exit
		close(proc.gone)
	}()
	s.proc = proc
}

func (p *life) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (s *Server) process() *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// WaitReady returns when the server answers PING, which it does not while it
// loads its data.
func (s *Server) WaitReady() {
	s.t.Helper()
	if err := s.ready(); err != nil {
		s.t.Fatalf("wait for redis: %v", err)
	}
}

func (s *Server) ready() error {
	proc := s.process()
	return poll(func() error {
		if proc.ended() {
			return permanent{errors.New("the process has ended")}
		}
		_, err := s.Do("PING")
		return err
	})
}

// Restart is Start and WaitReady. A server that runs is killed first.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
	s.WaitReady()
}

// Kill ends the process at once, as a crash does, and waits until it is gone. A child that
// rewrites the AOF ends with it: it would still write to the folder.
func (s *Server) Kill() {
	if proc := s.process(); proc != nil {
		if !proc.ended() {
			_ = syscall.Kill(-proc.Pid, syscall.SIGKILL) // the error says that it has just ended
		}
		<-proc.gone
	}
}

// Stop asks the server to end, which writes out its AOF, and waits for that. It
// wakes a paused server.
func (s *Server) Stop() {
	s.t.Helper()
	proc := s.process()
	_ = proc.Signal(syscall.SIGTERM)
	_ = proc.Signal(syscall.SIGCONT)
	select {
	case <-proc.gone:
	case <-time.After(patience):
		s.t.Fatalf("stop redis: it still runs after %v", patience)
	}
}

// Wipe kills the server and deletes its data. The next Start is with nothing; a
// cluster's node still knows the cluster.
func (s *Server) Wipe() {
	s.t.Helper()
	s.Kill()
	if err := errors.Join(os.RemoveAll(s.data()), os.Mkdir(s.data(), 0o700)); err != nil {
		s.t.Fatalf("wipe data: %v", err)
	}
}

// Pause freezes the server: connections are taken and nothing is answered.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.process().Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatalf("pause redis: %v", err)
	}
	// The signal takes its time; until it has worked, commands are still answered.
	err := poll(func() error {
		if stat := s.stat(); stat != nil && stat[0] != "T" {
			return fmt.Errorf("its state is %s", stat[0])
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("pause redis: %v", err)
	}
}

// Continue ends Pause; what was sent meanwhile is then answered.
func (s *Server) Continue() {
	s.t.Helper()
	if err := s.process().Signal(syscall.SIGCONT); err != nil {
		s.t.Fatalf("continue redis: %v", err)
	}
}

// stat is /proc/<pid>/stat from the process state on; nil where there is none.
func (s *Server) stat() []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process().Pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// CPU is the time that the running process has used, its own and the system's on
// its behalf, in steps of 10 ms. It begins at 0 with every start, and is 0 when
// the server is down and on systems other than Linux.
func (s *Server) CPU() time.Duration {
	stat := s.stat()
	if runtime.GOOS != "linux" || len(stat) < 13 {
		return 0
	}
	var ticks int64
	for _, field := range stat[11:13] {
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Commands is how many commands the server has run since it started, those of
// scripts included; -1 when it does not answer. Asking counts as one command.
func (s *Server) Commands() int64 {
	info, err := s.Do("INFO", "stats")
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(infoField(info, "total_commands_processed"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// infoField finds a line "name:value" in the reply to INFO or CLUSTER INFO.
func infoField(info any, name string) string {
	text, _ := info.(string)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// MustDo is Do for a command that must succeed.
func (s *Server) MustDo(t testing.TB, args ...string) any {
	t.Helper()
	reply, err := s.Do(args...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// Do sends one command on a connection of its own, which takes 10 s at most. The
// reply is a string, an int64, nil, or a []any of those, in which an error is a
// ReplyError. An error as the whole reply is the error of Do.
func (s *Server) Do(args ...string) (any, error) {
	reply, err := s.do(args)
	if err != nil {
		return nil, fmt.Errorf("do %s: %w", args[0], err)
	}
	return reply, nil
}

func (s *Server) do(args []string) (any, error) {
	conn, err := net.DialTimeout("unix", s.Socket(), commandDeadline)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(commandDeadline)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	if s.password != "" {
		if _, err := roundTrip(conn, r, []string{"AUTH", s.password}); err != nil {
			return nil, err
		}
	}
	return roundTrip(conn, r, args)
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// poll asks until there is no error, the error is permanent, or patience ends; it
// returns the last one.
func poll(ask func() error) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if p, ok := errors.AsType[permanent](err); ok {
			return p.error
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not after %v: %w", patience, err)
		}
		<-tick.C
	}
}

// logTail is the end of the server's log.
func (s *Server) logTail() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], nil))
}
