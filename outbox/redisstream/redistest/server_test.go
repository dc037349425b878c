package redistest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
)

// wantReply runs a command and compares its reply.
func wantReply(t *testing.T, s *redistest.Server, want any, args ...string) {
	t.Helper()
	got, err := s.Do(args...)
	testkit.Must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%v (-want +got):\n%s", args, diff)
	}
}

func TestRedisReplies(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "50mb")
	wantReply(t, s, "PONG", "PING")
	wantReply(t, s, int64(2), "RPUSH", "list", "a\r\nb", "")
	wantReply(t, s, []any{"a\r\nb", ""}, "LRANGE", "list", "0", "-1")
	wantReply(t, s, []any{}, "LRANGE", "none", "0", "-1")
	wantReply(t, s, nil, "GET", "none")
	wantReply(t, s, []any{int64(1), nil, []any{redistest.ReplyError("ERR as cued")}},
		"EVAL", "return {1, false, {redis.error_reply('ERR as cued')}}", "0")
	wantReply(t, s, []any{"maxmemory", "52428800"}, "CONFIG", "GET", "maxmemory")
	wantReply(t, s, []any{"appendonly", "yes"}, "CONFIG", "GET", "appendonly")

	_, err := s.Do("INCR", "list")
	if reply, ok := errors.AsType[redistest.ReplyError](err); !ok || !strings.HasPrefix(string(reply), "WRONGTYPE ") {
		t.Errorf("INCR of a list: %v, want the reply WRONGTYPE", err)
	}
}

func TestRedisPassword(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--requirepass", "open sesame", "--appendonly", "no")
	wantReply(t, s, []any{"appendonly", "no"}, "CONFIG", "GET", "appendonly")
	if want := "unix://:open%20sesame@" + s.Socket(); s.URL() != want {
		t.Errorf("URL = %s, want %s", s.URL(), want)
	}
	if want := "redis://:open%20sesame@" + s.Addr(); s.TCPURL() != want {
		t.Errorf("TCPURL = %s, want %s", s.TCPURL(), want)
	}
}

// TestRedisLives: what each way to end a server leaves, and that it is the same
// server afterwards.
func TestRedisLives(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "always")
	s.MustDo(t, "SET", "n", "1")
	before := s.MustDo(t, "CONFIG", "GET", "port")

	s.Kill()
	if _, err := s.Do("PING"); err == nil {
		t.Error("a killed server answers")
	}
	s.Kill() // twice is once
	s.Restart()
	wantReply(t, s, "1", "GET", "n")
	wantReply(t, s, before, "CONFIG", "GET", "port")

	s.MustDo(t, "SET", "n", "2")
	s.Stop()
	s.Start()
	s.WaitReady()
	wantReply(t, s, "2", "GET", "n")

	s.Restart() // of one that runs
	wantReply(t, s, "2", "GET", "n")

	s.Wipe()
	s.Restart()
	wantReply(t, s, int64(0), "DBSIZE")
}

// A child that rewrites the AOF ends with its server, and writes nothing to its folder.
func TestRedisKillEndsChildren(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--rdb-key-save-delay", "60000000") // a minute for each key
	s.MustDo(t, "SET", "n", "1")
	dir := s.MustDo(t, "CONFIG", "GET", "dir").([]any)[1].(string)
	s.MustDo(t, "BGREWRITEAOF")
	child := ""
	testkit.Until(t, "a child writes", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "temp-rewriteaof-*.aof"))
		testkit.Must(t, err)
		if len(found) > 0 {
			child = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "temp-rewriteaof-"), ".aof")
		}
		return child != ""
	})
	s.Kill()
	testkit.Until(t, "the child has ended", func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", child, "stat"))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestRedisPause(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Pause()
	var readers []*bufio.Reader
	for _, network := range []string{"unix", "tcp"} {
		conn, err := net.Dial(network, map[string]string{"unix": s.Socket(), "tcp": s.Addr()}[network])
		testkit.Must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("INCR n\r\n"))
		testkit.Must(t, err)
		testkit.Must(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		r := bufio.NewReader(conn)
		if b, err := r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a paused server says %q, %v", b, err)
		}
		testkit.Must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		readers = append(readers, r)
	}
	s.Continue()
	for _, r := range readers {
		_, err := r.ReadString('\n')
		testkit.Must(t, err)
	}
	wantReply(t, s, "2", "GET", "n")

	s.Pause()
	s.Stop() // does not wait for ever
}

func TestRedisMeasures(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	before := s.Commands()
	s.MustDo(t, "PING")
	s.MustDo(t, "EVAL", "for i = 1, 10 do redis.call('PING') end", "0")
	// PING, EVAL and the 10 in it, and the first INFO, which did not count itself.
	if n := s.Commands() - before; n != 13 {
		t.Errorf("Commands grew by %d, want 13", n)
	}
	if runtime.GOOS != "linux" {
		return
	}
	for deadline := time.Now().Add(10 * time.Second); s.CPU() == 0; {
		s.MustDo(t, "EVAL", "for i = 1, 1000000 do end", "0")
		if time.Now().After(deadline) {
			t.Fatal("CPU stays 0 while the server works")
		}
	}
	s.Kill()
	if s.CPU() != 0 || s.Commands() != -1 {
		t.Errorf("CPU = %v, Commands = %d of a killed server, want 0 and -1", s.CPU(), s.Commands())
	}
}

// TestRedisMany: servers started at the same time do not take each other's ports.
func TestRedisMany(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 8 {
		s := redistest.Start(t)
		s.MustDo(t, "SET", "n", fmt.Sprint(i))
		s.Kill()
		if seen[s.Addr()] {
			t.Errorf("%s was given twice", s.Addr())
		}
		seen[s.Addr()] = true
	}
}
