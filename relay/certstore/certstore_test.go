package certstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"relay/internal/seal"
	"relay/internal/testkit"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

func TestMain(m *testing.M) {
	testkit.Main(m)
}

// open is a Redis whose locks end a second after their owner died.
func open(t *testing.T, url string, keys *seal.Keys) *Redis {
	t.Helper()
	return openWith(t, url, Options{Keys: keys, Lease: time.Second})
}

func openWith(t *testing.T, url string, o Options) *Redis {
	t.Helper()
	client, err := redisstream.Connect(redisstream.Options{URL: url, Namespace: "orders", Database: -1})
	testkit.Must(t, err)
	o.Client, o.Namespace = client, "orders"
	r := OpenRedis(o)
	t.Cleanup(func() { testkit.Must(t, r.Close()) })
	return r
}

func keysOf(t *testing.T, texts ...string) *seal.Keys {
	t.Helper()
	k, err := seal.New(texts)
	testkit.Must(t, err)
	return k
}

var firstKey, secondKey = strings.Repeat("1", seal.MinKey), strings.Repeat("2", seal.MinKey)

// Both storages are what certmagic wants.
func TestConformance(t *testing.T) {
	t.Run("files", func(t *testing.T) {
		dir := t.TempDir()
		conformance(t, func() certmagic.Storage { return Files(dir) })
	})
	server := redistest.Start(t)
	t.Run("redis", func(t *testing.T) {
		conformance(t, func() certmagic.Storage { return openWith(t, server.URL(), Options{}) })
	})
	server.MustDo(t, "FLUSHALL")
	t.Run("redis, sealed", func(t *testing.T) {
		conformance(t, func() certmagic.Storage { return openWith(t, server.URL(), Options{Keys: keysOf(t, firstKey)}) })
	})
	t.Run("redis cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, 3, 0)
		conformance(t, func() certmagic.Storage {
			client, err := redisstream.Connect(redisstream.Options{Cluster: cluster.Addrs()[:1], Namespace: "orders"})
			testkit.Must(t, err)
			r := OpenRedis(Options{Client: client, Namespace: "orders"})
			t.Cleanup(func() { testkit.Must(t, r.Close()) })
			return r
		})
	})
}

func conformance(t *testing.T, open func() certmagic.Storage) {
	ctx := t.Context()
	a, b := open(), open()
	t.Run("values", func(t *testing.T) {
		for key, value := range map[string]string{"acme/ca/users/a.json": "account", "acme/ca/sites/x/x.key": "key", "acme/ca/sites/x/x.crt": strings.Repeat("c", 10_000), "acme/ca/sites/xy/xy.crt": "", "acmes": "beside"} {
			testkit.Must(t, a.Store(ctx, key, []byte("old")))
			testkit.Must(t, a.Store(ctx, key, []byte(value)))
			got, err := b.Load(ctx, key)
			if err != nil || string(got) != value {
				t.Errorf("%s: %d bytes, %v", key, len(got), err)
			}
			info, err := b.Stat(ctx, key)
			if err != nil || !info.IsTerminal || info.Size != int64(len(value)) || time.Since(info.Modified).Abs() > time.Minute || info.Key != key {
				t.Errorf("%s: %+v, %v", key, info, err)
			}
		}
		for _, key := range []string{"acme", "acme/ca/sites/x"} {
			if info, err := b.Stat(ctx, key); err != nil || info.IsTerminal || !b.Exists(ctx, key) {
				t.Errorf("%s: %+v, %v, exists %v", key, info, err, b.Exists(ctx, key))
			}
		}
		for _, key := range []string{"none", "acme/ca/site", "acme/ca/sites/x/x"} {
			if _, err := a.Load(ctx, key); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("load %s: %v", key, err)
			}
			if _, err := a.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) || a.Exists(ctx, key) {
				t.Errorf("stat %s: %v, exists %v", key, err, a.Exists(ctx, key))
			}
			testkit.Must(t, a.Delete(ctx, key))
		}
	})
	t.Run("lists", func(t *testing.T) {
		for _, tt := range []struct {
			prefix    string
			recursive bool
			want      string
		}{
			{"acme/ca/sites", false, "acme/ca/sites/x acme/ca/sites/xy"},
			{"acme/ca/sites", true, "acme/ca/sites/x acme/ca/sites/x/x.crt acme/ca/sites/x/x.key acme/ca/sites/xy acme/ca/sites/xy/xy.crt"},
			{"acme/ca/sites/x", true, "acme/ca/sites/x/x.crt acme/ca/sites/x/x.key"},
			{"acme", false, "acme/ca"},
		} {
			got, err := b.List(ctx, tt.prefix, tt.recursive)
			slices.Sort(got)
			if diff := cmp.Diff(strings.Fields(tt.want), got); err != nil || diff != "" {
				t.Errorf("%s, recursive %v: %v\n%s", tt.prefix, tt.recursive, err, diff)
			}
		}
		if _, err := b.List(ctx, "none", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("none: %v", err)
		}
	})
	t.Run("delete", func(t *testing.T) {
		testkit.Must(t, a.Delete(ctx, "acme/ca/sites/x"))
		for key, want := range map[string]bool{"acme/ca/sites/x": false, "acme/ca/sites/x/x.key": false, "acme/ca/sites/xy/xy.crt": true, "acmes": true} {
			if b.Exists(ctx, key) != want {
				t.Errorf("%s: exists %v", key, !want)
			}
		}
		testkit.Must(t, a.Delete(ctx, "acmes"))
		if b.Exists(ctx, "acmes") {
			t.Error("a deleted key exists")
		}
	})
	t.Run("locks exclude", func(t *testing.T) {
		var in, most atomic.Int32
		var wg sync.WaitGroup
		for i := range 6 {
			s := []certmagic.Storage{a, b}[i%2]
			wg.Go(func() {
				if err := s.Lock(ctx, "issue_cert_x"); err != nil {
					t.Error(err)
					return
				}
				if n := in.Add(1); n > most.Load() {
					most.Store(n)
				}
				testkit.Wait(ctx, 5*time.Millisecond)
				in.Add(-1)
				if err := s.Unlock(ctx, "issue_cert_x"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 1 {
			t.Errorf("%d had the lock at once", most.Load())
		}
	})
	t.Run("try", func(t *testing.T) {
		one, two := a.(certmagic.TryLocker), b.(certmagic.TryLocker)
		if ok, err := one.TryLock(ctx, "try"); !ok || err != nil {
			t.Fatalf("free: %v, %v", ok, err)
		}
		if ok, err := two.TryLock(ctx, "try"); ok || err != nil {
			t.Errorf("taken: %v, %v", ok, err)
		}
		within, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if err := b.Lock(within, "try"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lock within: %v", err)
		}
		testkit.Must(t, one.Unlock(ctx, "try"))
		if ok, err := two.TryLock(ctx, "try"); !ok || err != nil {
			t.Errorf("given back: %v, %v", ok, err)
		}
		testkit.Must(t, two.Unlock(ctx, "try"))
	})
}

// What is stored shows nothing, and keys can be rotated.
func TestSealedValues(t *testing.T) {
	ctx := t.Context()
	server := redistest.Start(t)
	plain, first := open(t, server.URL(), nil), open(t, server.URL(), keysOf(t, firstKey))
	testkit.Must(t, plain.Store(ctx, "old", []byte("stored before there was a key")))
	testkit.Must(t, first.Store(ctx, "a/x.key", []byte("canary-private")))
	raw := fmt.Sprint(server.MustDo(t, "HGETALL", "{orders:certs}:values"))
	if strings.Contains(raw, "canary") {
		t.Errorf("Redis shows %q", raw)
	}
	if got, err := first.Load(ctx, "old"); err != nil || !bytes.HasPrefix(got, []byte("stored before")) {
		t.Errorf("old: %q, %v", got, err)
	}
	if _, err := plain.Load(ctx, "a/x.key"); !errors.Is(err, seal.ErrKey) {
		t.Errorf("without a key: %v", err)
	}
	both := open(t, server.URL(), keysOf(t, secondKey, firstKey))
	if got, err := both.Load(ctx, "a/x.key"); err != nil || string(got) != "canary-private" {
		t.Errorf("after a rotation: %q, %v", got, err)
	}
	// A value that was moved to another key is not taken for that one's.
	server.MustDo(t, "EVAL", "redis.call('HSET', KEYS[1], 'b/x.key', redis.call('HGET', KEYS[1], 'a/x.key'))", "1", "{orders:certs}:values")
	if _, err := both.Load(ctx, "b/x.key"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("moved: %v", err)
	}
}

// A lock lives as long as its owner, and no longer than a lease after.
func TestLocksOfTheDead(t *testing.T) {
	ctx := t.Context()
	server := redistest.Start(t)
	a, b := open(t, server.URL(), nil), open(t, server.URL(), nil)
	for tries := 1; ; tries++ {
		testkit.Must(t, a.Lock(ctx, "x"))
		var lost atomic.Bool // on a machine that stalls for a lease it may be, but not each time
		stop := a.OnLost("x", func() { lost.Store(true) })
		testkit.Wait(ctx, 3*a.o.Lease)
		stop()
		if server.MustDo(t, "EXISTS", "{orders:certs}:lock:x") == int64(1) && !lost.Load() {
			break
		}
		if !lost.Load() || tries == 5 {
			t.Fatalf("the lock of a living owner ended; the owner was told: %t", lost.Load())
		}
		testkit.Must(t, a.Unlock(ctx, "x"))
	}
	// As if the process died: nothing renews.
	a.held.mu.Lock()
	l := a.held.all["x"]
	a.held.mu.Unlock()
	close(l.stop)
	<-l.ended
	if left := server.MustDo(t, "PTTL", "{orders:certs}:lock:x").(int64); left > a.o.Lease.Milliseconds() {
		t.Errorf("the lock of the dead is free after %d ms", left)
	}
	testkit.Must(t, b.Lock(ctx, "x"))
	l.stop = make(chan struct{}) // for Unlock
	testkit.Must(t, a.Unlock(ctx, "x"))
	if server.MustDo(t, "EXISTS", "{orders:certs}:lock:x") != int64(1) {
		t.Error("the old owner gave back what the new one has")
	}
	testkit.Must(t, b.Unlock(ctx, "x"))
}

// Who loses the lock is told, whether Redis is away or another has it, and can take it back.
func TestLostLocks(t *testing.T) {
	ctx := t.Context()
	server := redistest.Start(t)
	a := open(t, server.URL(), nil)
	testkit.Must(t, a.Lock(ctx, "x"))
	lost := make(chan struct{}, 1)
	tell := func() { lost <- struct{}{} }
	a.OnLost("x", tell)
	server.Kill()
	<-lost
	if err := a.RenewLockLease(ctx, "x", time.Minute); err == nil {
		t.Error("a lock is renewed while Redis is away")
	}
	server.Start()
	server.WaitReady()
	testkit.Until(t, "the lock to be back", func() bool { return a.RenewLockLease(ctx, "x", time.Minute) == nil })
	stop := a.OnLost("x", tell)
	server.MustDo(t, "SET", "{orders:certs}:lock:x", "another")
	<-lost
	stop()
	if err := a.RenewLockLease(ctx, "x", time.Minute); !errors.Is(err, errLost) {
		t.Errorf("another has it: %v", err)
	}
	at := make(chan struct{}, 1)
	a.OnLost("x", func() { at <- struct{}{} })
	<-at // it is lost already
	testkit.Must(t, a.Unlock(ctx, "x"))
	if got := server.MustDo(t, "GET", "{orders:certs}:lock:x"); got != "another" {
		t.Errorf("the other's lock is %v", got)
	}
}

// A wait for a lock ends with its context, also while Redis hangs.
func TestLockEndsWithItsContext(t *testing.T) {
	server := redistest.Start(t)
	a := open(t, server.URL(), nil)
	testkit.Must(t, a.Store(t.Context(), "k", []byte("v"))) // it is connected
	server.Pause()
	defer server.Continue()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock: %v", err)
	}
}

// A full Redis refuses, and nothing is half stored.
func TestFullRedis(t *testing.T) {
	server := redistest.Start(t)
	a := open(t, server.URL(), nil)
	testkit.Must(t, a.Store(t.Context(), "k", []byte("v")))
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	if err := a.Store(t.Context(), "k", []byte("new")); err == nil {
		t.Fatal("a full Redis took a value")
	}
	if got, err := a.Load(t.Context(), "k"); err != nil || string(got) != "v" {
		t.Errorf("got %q, %v", got, err)
	}
}
