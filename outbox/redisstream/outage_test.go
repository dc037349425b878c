package redisstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// Fault F12: Redis is down when the store opens. It says so at once, and works as
// soon as Redis does.
func TestRedisDownAtStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	s := openTest(t, at(server.TCPURL()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Health(ctx); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("Health: %v, want ErrUnavailable", err)
	}
	err := mustRefuse(t, s, "early", outbox.ErrUnavailable, 10*time.Second)
	if !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("Accept: %v, want to hear that redis cannot be reached", err)
	}
	got := make(chan []outbox.Claim, 1)
	go func() {
		claims, _ := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute})
		got <- claims
	}()
	server.Start()
	await(t, "the store accepts", func() bool {
		_, err := s.Accept(t.Context(), one("late", "a"))
		return err == nil
	})
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("Health: %v", err)
	}
	if claims := <-got; len(claims) != 1 || claims[0].EventID != "late" {
		t.Errorf("claimed %+v", claims)
	}
}

// Fault F13: kill -9 of Redis, which comes back with its append-only file. Under
// everysec Redis may answer up to 2 s before it writes, while its disk is slow, so
// only the level "fsync" promises that nothing is lost.
func TestKillRedisUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendfsync", "always")
	o := at(server.URL())
	o.Durability = Fsync
	s := openTest(t, o)
	x := startTraffic(t, s)
	rounds := faults(t, 4)
	for range rounds {
		x.more(50 + rand.Int64N(100))
		server.Restart()
	}
	x.more(100)
	x.finish(s, o, rounds*underWay)
}

// Fault F14: all is deleted under load. The loss is told once, and what is accepted
// afterwards arrives.
func TestKillDataUnderLoad(t *testing.T) {
	t.Parallel()
	const epoch = `"code":"outbox_epoch_changed"`
	server := redistest.Start(t)
	var log testkit.Log
	o := at(server.URL())
	o.Log = zerolog.New(&log)
	s := openTest(t, o)
	x := startTraffic(t, s)
	x.more(100)
	x.lose(func() { server.MustDo(t, "FLUSHALL") })
	x.more(100)
	if n := log.Count(epoch); n != 1 {
		t.Errorf("%d lines with %s after FLUSHALL, want 1", n, epoch)
	}
	x.lose(server.Wipe)
	server.Start()
	x.more(100)
	if n := log.Count(epoch); n != 2 {
		t.Errorf("%d lines with %s after Redis came back empty, want 2", n, epoch)
	}
	x.finish(s, o, 2*underWay)
}

// A settlement of a claim in an outbox that was emptied meanwhile counts for nothing in the
// new one, before the heartbeat has noticed it, and after.
func TestSettleAfterFlush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	for _, id := range []string{"e1", "e2"} {
		acceptOne(t, s, id, "a")
	}
	claims := claimSome(t, s, "a", 2, time.Minute)
	before, err := s.shards[0].session()
	if err != nil {
		t.Fatal(err)
	}
	server.MustDo(t, "FLUSHALL")
	deliver(t, s, claims[0])
	await(t, "the store has joined the new outbox", func() bool {
		now, err := s.shards[0].session()
		return err == nil && now.outbox != before.outbox
	})
	deliver(t, s, claims[1])
	acceptOne(t, s, "e3", "a")
	if c := countsOf(t, s, "a"); c.Accepted != 1 || c.Pending != 1 || c.Delivered != 0 {
		t.Errorf("counts %+v, want one that is pending", c)
	}
	deliver(t, s, claimSome(t, s, "a", 1, time.Minute)...)
}

// A replica that becomes master may not have the last accepts: a settlement of what it does not have counts for
// nothing, beside others of its group too.
func TestSettleAfterFailover(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	acceptOne(t, s, "kept", "a")
	claims := claimSome(t, s, "a", 1, time.Minute)
	var before []string
	for _, v := range server.MustDo(t, "HGETALL", s.shards[0].counts).([]any) {
		before = append(before, v.(string))
	}
	acceptOne(t, s, "lost", "a")
	claims = append(claims, claimSome(t, s, "a", 1, time.Minute)...)
	queue := s.shards[0].backlog("a")
	last := server.MustDo(t, "XREVRANGE", queue, "+", "-", "COUNT", "1").([]any)[0].([]any)[0].(string)
	server.MustDo(t, "XACK", queue, "relay", last)
	server.MustDo(t, "XDEL", queue, last)
	server.MustDo(t, "DEL", s.shards[0].event("lost"))
	server.MustDo(t, append([]string{"HSET", s.shards[0].counts}, before...)...)
	deliver(t, s, claims...)
	if c := countsOf(t, s, "a"); c.Accepted != 1 || c.Delivered != 1 || c.Pending != 0 {
		t.Errorf("counts %+v, want one that is delivered", c)
	}
	if kept := server.MustDo(t, "EXISTS", s.shards[0].event("lost")); kept != int64(0) {
		t.Error("a record of an event is there that never was")
	}
}

// Fault F23: the scripts are forgotten, again and again.
func TestKillScriptsUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	x := startTraffic(t, s)
	for range faults(t, 20) {
		x.more(10)
		server.MustDo(t, "SCRIPT", "FLUSH")
	}
	x.finish(s, at(server.URL()), 0)
}

// Fault F15 under load: replies of whatever commands get lost.
func TestKillRepliesUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	x := startTraffic(t, s)
	rounds := faults(t, 20)
	for n := range rounds {
		x.more(rand.Int64N(40))
		proxy.DropReplies(1)
		await(t, "the reply is lost", func() bool { return proxy.Dropped() > n })
	}
	x.more(10)
	// Lost answers to claims cost nothing but time; only a settlement that comes after
	// its lease repeats an attempt.
	x.finish(s, at(server.URL()), underWay)
}

// Fault F15: the reply to an accept is lost. It is executed again, and the answer is
// the first receipt.
func TestLostReplyToAccept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	byKey := one("keyed", "a", "b")
	byKey.Key, byKey.Fingerprint = "k", [32]byte{1}
	generated := one("evt_1", "a", "b")
	generated.Entries[0].Fingerprint = outbox.Fingerprint{}
	for _, b := range []outbox.Batch{one("chosen", "a", "b"), byKey, generated} {
		id := b.Entries[0].Event.ID
		before := proxy.Dropped()
		proxy.DropReplyTo("e:" + id)
		receipts, err := s.Accept(t.Context(), b)
		if err != nil || receipts[0] != (outbox.Receipt{ID: id, Deliveries: 2}) {
			t.Errorf("Accept %s: %+v, %v, want the first receipt", id, receipts, err)
		}
		if proxy.Dropped() != before+1 {
			t.Errorf("no reply was lost")
		}
	}
	if c := countsOf(t, s, "a"); c.Accepted != 3 || c.Pending != 3 {
		t.Errorf("counts %+v, want 3 accepted", c)
	}
	deliver(t, s, claimSome(t, s, "a", 3, time.Minute)...)
	nothing(t, s, "a", 100*time.Millisecond)
}

// Fault F15: the reply to a claim is lost, and to an accept that leased its
// deliveries at once. They come again long before the lease ends.
func TestLostReplyToClaim(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	server.MustDo(t, "SCRIPT", "LOAD", s.scripts.claim.text) // else what is lost is the answer that it is not known
	acceptOne(t, s, "claimed", "a")
	proxy.DropReplyTo(s.scripts.claim.sha)
	began := time.Now()
	var both sync.WaitGroup
	both.Go(func() {
		if claims := claimSome(t, s, "a", 1, time.Hour); claims[0].EventID != "claimed" || claims[0].Attempts != 0 {
			t.Errorf("claimed %+v", claims)
		}
		t.Logf("a claim whose reply was lost came again after %s", time.Since(began))
	})
	both.Go(func() {
		claims := make(chan []outbox.Claim, 1)
		go func() { claims <- claimSome(t, s, "b", 1, time.Hour) }()
		await(t, "a claim waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.endpoints["b"] != nil && s.endpoints["b"].wait.ready != nil && s.endpoints["b"].fetching == 0
		})
		proxy.DropReplyTo("e:leased")
		acceptOne(t, s, "leased", "b")
		if c := <-claims; c[0].EventID != "leased" {
			t.Errorf("claimed %+v", c)
		}
		t.Logf("a delivery leased by an accept whose reply was lost came after %s", time.Since(began))
	})
	both.Wait()
	if proxy.Dropped() != 2 {
		t.Errorf("%d replies lost, want 2", proxy.Dropped())
	}
}

// Fault F15: the reply to a settlement is lost. One attempt is recorded.
func TestLostReplyToSettle(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	server.MustDo(t, "SCRIPT", "LOAD", s.scripts.settle.text) // else what is lost is the answer that it is not known
	acceptOne(t, s, "e", "a")
	for n, want := range []outbox.State{outbox.Pending, outbox.Pending, outbox.Delivered} {
		c := claimSome(t, s, "a", 1, time.Minute)[0]
		proxy.DropReplyTo(s.scripts.settle.sha)
		o := done(c)
		if want == outbox.Pending {
			o = retry(c, 10*time.Millisecond)
		}
		if err := s.Settle(t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
		r, err := s.Lookup(t.Context(), "e")
		if err != nil {
			t.Fatal(err)
		}
		if d := r.Deliveries[0]; d.State != want || len(d.Attempts) != n+1 {
			t.Errorf("delivery is %s after %d attempts, want %s after %d", d.State, len(d.Attempts), want, n+1)
		}
	}
	if c := countsOf(t, s, "a"); c.Accepted != 1 || c.Delivered != 1 || proxy.Dropped() != 3 {
		t.Errorf("counts %+v with %d replies lost", c, proxy.Dropped())
	}
}

// Fault F15: the reply to the read of the bell is lost. What another Relay accepted
// is claimed all the same.
func TestLostReplyToBell(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s, other := openTest(t, at(proxy.URL())), openTest(t, at(server.URL()))
	proxy.DropReplyTo("xread")
	got := make(chan []outbox.Claim, 1)
	go func() { got <- claimSome(t, s, "a", 1, time.Minute) }()
	await(t, "the read of the bell is lost", func() bool {
		_, err := other.Accept(t.Context(), one("e", "z")) // rings
		return err == nil && proxy.Dropped() == 1
	})
	acceptOne(t, other, "rung", "a")
	if claims := <-got; claims[0].EventID != "rung" {
		t.Errorf("claimed %+v", claims)
	}
}

// Fault F16: Redis is stopped for seconds. Callers hear of it within their deadline,
// nothing piles up, and all goes on by itself.
func TestRedisHangs(t *testing.T) {
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	acceptOne(t, s, "before", "a")
	before := runtime.NumGoroutine()
	server.Pause()
	stopped := time.Now()
	for time.Since(stopped) < 5*time.Second {
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := s.Accept(ctx, one("hung", "a"))
				if !errors.Is(err, outbox.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Accept: %v", err)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("Accept took %s with a deadline of 500 ms", took)
				}
			})
		}
		callers.Wait()
	}
	await(t, "the outage is noticed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := s.Accept(ctx, one("hung", "a"))
		return errors.Is(err, outbox.ErrUnavailable)
	})
	t.Logf("told as unavailable after %s", time.Since(stopped).Round(100*time.Millisecond))
	if now := runtime.NumGoroutine(); now > before+20 {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	server.Continue()
	await(t, "the store accepts", func() bool {
		_, err := s.Accept(t.Context(), one("hung", "a"))
		return err == nil
	})
	deliver(t, s, claimSome(t, s, "a", 2, time.Minute)...)
	if c := countsOf(t, s, "a"); c.Accepted != 2 || c.Delivered != 2 {
		t.Errorf("counts %+v, want 2 events: before, and hung once", c)
	}
}

// Close must not wait for a Redis that hangs longer than it says, however many
// calls are under way.
func TestCloseWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, err := Open(t.Context(), at(server.URL()))
	if err != nil {
		t.Fatal(err)
	}
	acceptOne(t, s, "e", "a")
	c := claimSome(t, s, "a", 1, time.Minute)[0]
	server.Pause()
	if err := s.Settle(t.Context(), c, done(c)); err != nil {
		t.Fatal(err)
	}
	var claims sync.WaitGroup
	for n := range 50 {
		claims.Go(func() {
			_, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: fmt.Sprintf("e%d", n), Max: 1, Lease: time.Minute})
			if !errors.Is(err, outbox.ErrClosed) {
				t.Errorf("Claim: %v, want ErrClosed", err)
			}
		})
	}
	await(t, "the claims are under way", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.endpoints) == 51
	})
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	claims.Wait()
	took := time.Since(began)
	t.Logf("Close took %s", took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("Close took %s, it gives up after %s", took, flushTimeout)
	}
}
