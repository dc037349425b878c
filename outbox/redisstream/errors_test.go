package redisstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// pin checks one error of a real server, so that a version that words it another
// way is seen.
func pin(t *testing.T, err error, code string) {
	t.Helper()
	got := reply(err)
	if err != nil && got == "" {
		got = broken(err)
	}
	if got != code {
		t.Errorf("%v: code %q, want %q", err, got, code)
	}
	kind := outbox.ErrUnavailable
	if code == "oom" {
		kind = outbox.ErrFull
	}
	explained := explain(err)
	if !errors.Is(explained, kind) || !errors.Is(explained, err) {
		t.Errorf("explained: %v", explained)
	}
	if again := explain(fmt.Errorf("claim: %w", explained)); !errors.Is(again, kind) || strings.Count(again.Error(), kind.Error()) != 1 {
		t.Errorf("explained twice: %v", again)
	}
}

func user(s *redistest.Server, name, password string) Options {
	o := at(s.URL())
	o.Username, o.Password = name, password
	return o
}

func TestRepliesOfRedis(t *testing.T) {
	s := redistest.Start(t, "--busy-reply-threshold", "50")
	ctx := t.Context()
	m := nodeTest(t, connectTest(t, at(s.URL())))
	s.MustDo(t, "SET", "string", "x")
	s.MustDo(t, "ACL", "SETUSER", "few", "on", ">canary1", "~*", "+ping", "+eval", "+client", "+hello", "+xread", "+xreadgroup")

	_, err := m.EvalSha(ctx, strings.Repeat("0", 40), nil).Result()
	pin(t, err, "noscript")
	if !isNoScript(err) || uncertain(err) || !retryable(err) {
		t.Error("noscript: wrong kind")
	}
	pin(t, m.HGet(ctx, "string", "f").Err(), "wrong_type")
	_, err = m.Eval(ctx, "return redis.call('HGET', KEYS[1], 'f')", []string{"string"}).Result()
	pin(t, err, "wrong_type")
	pin(t, m.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{"none", ">"}}).Err(), "no_group")
	pin(t, m.Do(ctx, "CLUSTER", "SLOTS").Err(), "no_cluster")
	pin(t, m.Do(ctx, "NOSUCH", "payload").Err(), "unknown_command")
	pin(t, m.Do(ctx, "SET", "k").Err(), "refused")
	if text := explain(m.Do(ctx, "NOSUCH", "payload").Err()).Error(); strings.Contains(text, "payload") {
		t.Errorf("shows an argument: %s", text)
	}

	ping := func(o Options) error { return nodeTest(t, connectTest(t, o)).Ping(ctx).Err() }
	pin(t, ping(user(s, "few", "canary2")), "unauthenticated")
	pin(t, ping(user(s, "nobody", "canary2")), "unauthenticated")
	for _, o := range []Options{user(s, "few", "canary2"), user(s, "nobody", "canary2")} {
		if err := explain(ping(o)); retryable(err) || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v", err)
		}
	}
	few := nodeTest(t, connectTest(t, user(s, "few", "canary1")))
	pin(t, few.Get(ctx, "string").Err(), "no_permission")
	_, err = few.Eval(ctx, "return redis.call('GET', KEYS[1])", []string{"string"}).Result()
	pin(t, err, "no_permission")
	far := at(s.URL())
	far.Database = 99
	pin(t, ping(far), "no_database")

	// Nobody's stream: a group's reader blocks, and the stream is deleted.
	s.MustDo(t, "XGROUP", "CREATE", "stream", "g", "$", "MKSTREAM")
	blocked := make(chan error, 1)
	go func() {
		blocked <- m.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{"stream", ">"}, Block: time.Minute}).Err()
	}()
	await(t, "a client blocks", func() bool { return strings.Contains(info(s), "blocked_clients:1") })
	s.MustDo(t, "DEL", "stream")
	pin(t, <-blocked, "no_group")

	busy := make(chan error, 1)
	go func() { busy <- m.Eval(ctx, "while true do end", nil).Err() }()
	await(t, "a script is slow", func() bool {
		_, err := s.Do("PING")
		return err != nil && strings.Contains(err.Error(), "BUSY")
	})
	pin(t, ping(at(s.URL())), "busy")
	s.MustDo(t, "SCRIPT", "KILL")
	pin(t, <-busy, "refused")
}

func info(s *redistest.Server) string {
	reply, _ := s.Do("INFO")
	text, _ := reply.(string)
	return text
}

func TestFullRedis(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "1")
	m := nodeTest(t, connectTest(t, at(s.URL())))
	err := m.Set(t.Context(), "k", "v", 0).Err()
	pin(t, err, "oom")
	_, err = m.Eval(t.Context(), "#!lua\nreturn redis.call('SET', KEYS[1], 1)", []string{"k"}).Result()
	pin(t, err, "oom")
	_, err = m.Eval(t.Context(), "return redis.call('SET', KEYS[1], 1)", []string{"k"}).Result()
	pin(t, err, "oom")
	if retryable(err) || uncertain(err) {
		t.Error("full is neither retried at once nor uncertain")
	}
}

func TestReplicas(t *testing.T) {
	s := redistest.Start(t, "--min-replicas-to-write", "1")
	m := nodeTest(t, connectTest(t, at(s.URL())))
	pin(t, m.Set(t.Context(), "k", "v", 0).Err(), "noreplicas")

	s.MustDo(t, "REPLICAOF", "127.0.0.1", "1")
	err := m.Set(t.Context(), "k", "v", 0).Err()
	pin(t, err, "readonly")
	if !retryable(err) || uncertain(err) {
		t.Error("readonly: wrong kind")
	}
	s.MustDo(t, "CONFIG", "SET", "replica-serve-stale-data", "no")
	pin(t, m.Get(t.Context(), "k").Err(), "masterdown")
}

func TestDiskOfRedis(t *testing.T) {
	// A folder stands where the snapshot should go.
	s := redistest.Start(t, "--save", "3600 1", "--dbfilename", "taken", "--appendonly", "no")
	dir, _ := s.MustDo(t, "CONFIG", "GET", "dir").([]any)
	if err := os.MkdirAll(filepath.Join(dir[1].(string), "taken", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.MustDo(t, "BGSAVE")
	await(t, "the snapshot goes wrong", func() bool { return strings.Contains(info(s), "rdb_last_bgsave_status:err") })
	m := nodeTest(t, connectTest(t, at(s.URL())))
	pin(t, m.Set(t.Context(), "k", "v", 0).Err(), "misconf")
}

func TestLoadingRedis(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "no", "--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
	s.MustDo(t, "EVAL", "for i = 1, 3000 do redis.call('SET', 'k' .. i, string.rep('x', 100)) end", "0")
	s.MustDo(t, "SAVE")
	s.Kill()
	s.Start()
	await(t, "the server listens", func() bool { return strings.Contains(info(s), "loading:1") })
	m := nodeTest(t, connectTest(t, at(s.URL())))
	pin(t, m.Set(t.Context(), "k", "v", 0).Err(), "loading")
}

// The server says it and hangs up, before or after our first bytes: then all that
// is left is a broken connection.
func TestTooManyClients(t *testing.T) {
	s := redistest.Start(t, "--maxclients", "1")
	first := nodeTest(t, connectTest(t, at(s.URL())))
	await(t, "a place is free", func() bool { return first.Ping(t.Context()).Err() == nil })
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	pin(t, said(strings.TrimPrefix(strings.TrimSpace(string(text)), "-")), "max_clients")

	err = nodeTest(t, connectTest(t, at(s.URL()))).Ping(t.Context()).Err()
	if explained := explain(err); !retryable(err) || !errors.Is(explained, outbox.ErrUnavailable) || !strings.Contains(explained.Error(), "maxclients") {
		t.Errorf("got %v", explained)
	}
}

func TestRepliesOfCluster(t *testing.T) {
	s := redistest.Start(t, "--cluster-enabled", "yes")
	m := nodeTest(t, connectTest(t, at(s.URL())))
	pin(t, m.Set(t.Context(), "k", "v", 0).Err(), "clusterdown")
	far := at(s.URL())
	far.Database = 1
	pin(t, nodeTest(t, connectTest(t, far)).Ping(t.Context()).Err(), "no_database")
}

func TestConnectionErrors(t *testing.T) {
	s := redistest.Start(t)
	c := connectTest(t, at(s.URL()))
	m := nodeTest(t, c)
	certain := func(err error, code string, want bool) {
		t.Helper()
		pin(t, err, code)
		if uncertain(err) == want || !retryable(err) {
			t.Errorf("%v: uncertain %t, retryable %t", err, uncertain(err), retryable(err))
		}
	}
	if err := m.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	certain(m.WithTimeout(50*time.Millisecond).Set(t.Context(), "k", "v", 0).Err(), "timeout", false)

	// The caller's own cancel stays what it is.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := m.Set(ctx, "k", "v", 0).Err()
	if got := explain(err); any(got) != any(err) || retryable(err) {
		t.Errorf("got %v of %v", got, err)
	}
	s.Continue()

	blocked := make(chan error, 1)
	go func() { blocked <- m.BLPop(context.Background(), time.Minute, "list").Err() }()
	await(t, "a client blocks", func() bool { return strings.Contains(info(s), "blocked_clients:1") })
	s.Kill()
	certain(<-blocked, "disconnected", false)
	certain(m.Ping(t.Context()).Err(), "dial", true)

	tcp := nodeTest(t, connectTest(t, at(s.TCPURL())))
	certain(tcp.Ping(t.Context()).Err(), "dial", true)
}

// What no server was made to say here.
func TestCodes(t *testing.T) {
	reset := &net.OpError{Op: "write", Err: syscall.EPIPE}
	for _, tt := range []struct {
		err       error
		code      string
		retryable bool
		uncertain bool
	}{
		{redis.ErrPoolTimeout, "pool_timeout", true, false},
		{redis.ErrClosed, "closed", false, false},
		{fmt.Errorf("read: %w", net.ErrClosed), "closed", false, true},
		{io.EOF, "disconnected", true, true},
		{io.ErrUnexpectedEOF, "disconnected", true, true},
		{reset, "disconnected", true, true},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "dial", true, false},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "timeout", true, true},
		{said("MOVED 3999 127.0.0.1:6381"), "moved", true, false},
		{said("ASK 3999 127.0.0.1:6381"), "ask", true, false},
		{said("TRYAGAIN Multiple keys request during rehashing of slot"), "tryagain", true, false},
		{said("NOAUTH Authentication required."), "unauthenticated", false, false},
		{said("ERR AUTH <password> called without any password configured for the default user."), "unauthenticated", false, false},
		{said("DENIED Redis is running in protected mode because …"), "protected", false, false},
		{said("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."), "no_aof", false, false},
	} {
		pin(t, tt.err, tt.code)
		if retryable(tt.err) != tt.retryable || uncertain(tt.err) != tt.uncertain {
			t.Errorf("%v: retryable %t, uncertain %t", tt.err, retryable(tt.err), uncertain(tt.err))
		}
		if isMoved(tt.err) != (tt.code == "moved" || tt.code == "ask") {
			t.Errorf("%v: isMoved", tt.err)
		}
	}
	for _, err := range []error{nil, redis.Nil, context.Canceled, context.DeadlineExceeded} {
		if got := explain(err); any(got) != any(err) || retryable(err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// said is a reply of Redis.
type said string

func (s said) Error() string { return string(s) }

func (said) RedisError() {}
