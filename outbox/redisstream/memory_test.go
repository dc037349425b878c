package redisstream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// usedMemory is what Redis says.
func usedMemory(t testing.TB, server *redistest.Server) int64 {
	t.Helper()
	text, _ := server.MustDo(t, "INFO", "memory").(string)
	n, err := strconv.ParseInt(parseInfo(text)["used_memory"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func setMaxMemory(t *testing.T, server *redistest.Server, n int64) {
	t.Helper()
	server.MustDo(t, "CONFIG", "SET", "maxmemory", strconv.FormatInt(n, 10))
}

// fill accepts n events of 64 KiB.
func fill(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		b := one(fmt.Sprint("e", i), "a")
		b.Entries[0].Event.Data = []byte(`"` + strings.Repeat("x", 64<<10) + `"`)
		if _, err := s.Accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// Fault F17, first part: close to maxmemory Relay refuses events itself, before Redis
// must refuse commands.
func TestNearMaxMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	fill(t, s, 200)
	var err error
	await(t, "the store is full", func() bool {
		// Buffers of connections come and go, so the limit follows what is used.
		setMaxMemory(t, server, usedMemory(t, server)*33/32)
		_, err = s.Accept(t.Context(), one("more", "a"))
		return err != nil
	})
	if !errors.Is(err, outbox.ErrFull) || !strings.Contains(err.Error(), "maxmemory") {
		t.Errorf("Accept: %v, want ErrFull with maxmemory", err)
	}
	if err := s.Health(t.Context()); !errors.Is(err, outbox.ErrFull) {
		t.Errorf("Health: %v, want ErrFull", err)
	}
	server.MustDo(t, "SET", "theirs", "there is room still")
	setMaxMemory(t, server, 0)
	await(t, "the store accepts", func() bool {
		_, err := s.Accept(t.Context(), one("again", "a"))
		return err == nil
	})
}

// Fault F17, second part: beyond maxmemory all that drains goes on, and makes room.
// A Relay that starts on the full server drains, too.
func TestBeyondMaxMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	const events = 100
	fill(t, s, events)
	limit := usedMemory(t, server) - 3<<20
	setMaxMemory(t, server, limit)
	if _, err := server.Do("SET", "theirs", "x"); err == nil {
		t.Fatal("redis has room: this test tests nothing")
	}
	mustRefuse(t, s, "refused", outbox.ErrFull, 10*time.Second)
	other, err := Open(t.Context(), at(server.URL()))
	if err != nil {
		t.Fatalf("Open on a full server: %v", err)
	}
	t.Cleanup(func() { _ = other.Close() })

	claims := claimSome(t, other, "a", 10, time.Minute)
	if err := other.Release(t.Context(), claims[1]); err != nil {
		t.Errorf("Release: %v", err)
	}
	if err := other.Settle(t.Context(), claims[2], retry(claims[2], 100*time.Millisecond)); err != nil {
		t.Errorf("Settle: %v", err)
	}
	deliver(t, other, claims[0])
	deliver(t, other, claims[3:]...)
	deliver(t, other, claimSome(t, other, "a", events-8, time.Minute)...)
	if c := countsOf(t, other, "a"); c.Delivered != events || c.Pending != 0 {
		t.Errorf("counts %+v, want %d delivered", c, events)
	}
	if r, err := other.Lookup(t.Context(), claims[2].EventID); err != nil || len(r.Deliveries[0].Attempts) != 2 {
		t.Errorf("Lookup: %+v, %v, want 2 attempts", r, err)
	}
	await(t, "retention makes room", func() bool {
		if _, _, err := other.Reap(t.Context(), outbox.Retention{}); err != nil {
			t.Fatalf("Reap: %v", err)
		}
		_, err := s.Accept(t.Context(), one("refused", "a"))
		return err == nil
	})
	if n := usedMemory(t, server); n > limit {
		t.Errorf("redis uses %d bytes of %d after all was delivered", n, limit)
	}
}

// Fault F18: a server that evicts any key is refused, with its policy's name.
func TestEvictingServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
	s, err := Open(t.Context(), at(server.URL()))
	if err == nil {
		_ = s.Close()
		t.Fatal("Open succeeded")
	}
	if errors.Is(err, outbox.ErrUnavailable) || !strings.Contains(err.Error(), "allkeys-lru") || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("Open: %v", err)
	}
}

// Fault F19: Redis answers, but does not take writes. Nothing is promised, nothing of
// what was refused is there, and all goes on when the cause is gone.
func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	disk := redistest.Start(t, "--save", "3600 1", "--appendonly", "no", "--dbfilename", "taken")
	dir, _ := disk.MustDo(t, "CONFIG", "GET", "dir").([]any)
	taken := filepath.Join(dir[1].(string), "taken")
	plain := redistest.Start(t)
	var place net.Conn // the one that CONFIG SET maxclients 1 leaves
	snapshot := func(t *testing.T, want string) {
		await(t, "the snapshot is "+want, func() bool {
			_, _ = disk.Do("BGSAVE") // an error: one is under way
			text, _ := disk.MustDo(t, "INFO", "persistence").(string)
			return parseInfo(text)["rdb_last_bgsave_status"] == want
		})
	}
	for _, c := range []struct {
		name, says  string
		server      *redistest.Server
		begin, mend func(*testing.T, *redistest.Server)
	}{
		{"READONLY", "replica", plain, func(t *testing.T, s *redistest.Server) { s.MustDo(t, "REPLICAOF", "127.0.0.1", "1") },
			func(t *testing.T, s *redistest.Server) { s.MustDo(t, "REPLICAOF", "NO", "ONE") }},
		{"NOREPLICAS", "min-replicas-to-write", plain, func(t *testing.T, s *redistest.Server) {
			s.MustDo(t, "CONFIG", "SET", "min-replicas-to-write", "1")
		},
			func(t *testing.T, s *redistest.Server) {
				s.MustDo(t, "CONFIG", "SET", "min-replicas-to-write", "0")
			}},
		{"MISCONF", "disk", disk, func(t *testing.T, _ *redistest.Server) {
			// A folder stands where the snapshot should go.
			if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
			snapshot(t, "err")
		}, func(t *testing.T, _ *redistest.Server) {
			if err := os.RemoveAll(taken); err != nil {
				t.Fatal(err)
			}
			snapshot(t, "ok")
		}},
		{"max clients", "maxclients", plain, func(t *testing.T, s *redistest.Server) {
			var err error
			if place, err = net.Dial("unix", s.Socket()); err != nil {
				t.Fatal(err)
			}
			// It has the one place that there is when the store's connections are closed.
			fmt.Fprint(place, "CONFIG SET maxclients 1\r\nCLIENT KILL TYPE normal SKIPME yes\r\nPING\r\n")
			for lines := bufio.NewScanner(place); lines.Scan() && lines.Text() != "+PONG"; {
			}
		}, func(t *testing.T, s *redistest.Server) {
			fmt.Fprint(place, "CONFIG SET maxclients 1000\r\n")
			if _, err := bufio.NewReader(place).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			_ = place.Close()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := at(c.server.URL())
			o.Namespace = strings.ReplaceAll(c.name, " ", "-")
			s := openTest(t, o)
			acceptOne(t, s, "before", "a")
			claims := claimSome(t, s, "a", 1, time.Minute)
			c.begin(t, c.server)
			began := time.Now()
			err := mustRefuse(t, s, "refused", outbox.ErrUnavailable, 20*time.Second)
			t.Logf("refused after %s: %v", time.Since(began).Round(time.Millisecond), err)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("Accept: %v, want to hear of %q", err, c.says)
			}
			deliver(t, s, claims...) // waits for better times
			c.mend(t, c.server)
			if n := c.server.MustDo(t, "EXISTS", s.shards[0].event("refused")); n != int64(0) {
				t.Errorf("the refused event is there")
			}
			await(t, "the store accepts", func() bool {
				receipts, err := s.Accept(t.Context(), one("refused", "a"))
				return err == nil && !receipts[0].Duplicate
			})
			deliver(t, s, claimSome(t, s, "a", 1, time.Minute)...)
			if n := countsOf(t, s, "a"); n.Accepted != 2 || n.Delivered != 2 {
				t.Errorf("counts %+v, want 2 delivered", n)
			}
		})
	}
}
