package redisstream_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// Fault F20: a replica takes the master's place under load, in turn because it died
// and because it was stopped; the old master comes back as a replica each time. Two outboxes
// share the servers. What "memory" loses is only told; "replicated" must lose nothing.
func TestKillSentinelMaster(t *testing.T) {
	t.Parallel()
	f := redistest.StartSentinel(t, 2)
	options := func(namespace, durability string) redisstream.Options {
		return redisstream.Options{
			Sentinel: &redisstream.Sentinel{Master: f.Name(), Addrs: f.Sentinels()}, Database: -1,
			Namespace: namespace, Durability: durability, Replicas: 1, ReplicaTimeout: time.Second,
		}
	}
	loads := []*load{
		startLoad(t, options("m", redisstream.Memory)),
		startLoad(t, options("r", redisstream.Replicated)),
	}
	readonly := 0
	for round := range soakRounds(t, 2) {
		for _, l := range loads {
			l.progress()
			l.forgetRefusals()
		}
		old, began := f.Master(), time.Now()
		fault := "kill -9"
		if round%2 == 0 {
			old.Kill()
		} else {
			fault = "SIGTERM"
			old.Stop()
		}
		master := f.WaitFailover(old)
		replaced := time.Since(began)
		for _, l := range loads {
			l.progress()
		}
		works := time.Since(began)
		old.Restart()
		soon(t, "the old master to be a replica in sync", func() error { return follows(old) })
		for _, l := range loads {
			l.progress()
		}
		// A client that held on to a replica would be told so on and on.
		readonly = max(readonly, refusals(t, old, "READONLY"), refusals(t, master, "READONLY"))
		t.Logf("%s: another master after %s, both outboxes work after %s; longest refused: memory %s, replicated %s",
			fault, replaced.Round(time.Millisecond), works.Round(time.Millisecond), loads[0].refused(), loads[1].refused())
	}
	if readonly > 500 {
		t.Errorf("a server answered READONLY %d times since its start: somebody does not let go of it", readonly)
	}
	t.Logf("at most %d answers READONLY of one server", readonly)

	for _, l := range loads {
		l.stop()
	}
	loads[0].finish()
	if tally := loads[1].finish(); tally.Lost > 0 {
		t.Errorf("durability replicated lost deliveries: %s", strings.Join(tally.Losses, "\n"))
	}
}

// An operator's SENTINEL FAILOVER leaves the old master alive: for about a second it takes
// writes that are then thrown away, and confirms them by the replicas that are left to
// it. Only a commit that waits for all replicas is safe from that.
func TestKillSentinelByOperator(t *testing.T) {
	t.Parallel()
	f := redistest.StartSentinel(t, 2)
	l := startLoad(t, redisstream.Options{
		Sentinel: &redisstream.Sentinel{Master: f.Name(), Addrs: f.Sentinels()}, Database: -1,
		Namespace: "o", Durability: redisstream.Replicated, Replicas: 2, ReplicaTimeout: time.Second,
	})
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: f.Sentinels()[0]})
	defer sentinel.Close()
	for range soakRounds(t, 1) {
		l.progress()
		l.forgetRefusals()
		old, began := f.Master(), time.Now()
		soon(t, "a sentinel to begin a failover", func() error { return sentinel.Failover(t.Context(), f.Name()).Err() })
		f.WaitFailover(old)
		replaced := time.Since(began)
		soon(t, "the old master to be a replica in sync", func() error { return follows(old) })
		l.progress()
		t.Logf("another master after %s, the outbox works after %s; longest refused %s; old master answered READONLY %d times",
			replaced.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), l.refused(), refusals(t, old, "READONLY"))
	}
	if tally := l.finish(); tally.Lost > 0 {
		t.Errorf("lost deliveries: %s", strings.Join(tally.Losses, "\n"))
	}
}

// follows is nil when the server is a replica in sync with its master.
func follows(s *redistest.Server) error {
	info, err := s.Do("INFO", "replication")
	if text := fmt.Sprint(info); err == nil && !(strings.Contains(text, "role:slave") && strings.Contains(text, "master_link_status:up")) {
		err = fmt.Errorf("%s is no replica in sync yet", s.Addr())
	}
	return err
}

// soakRounds is how often a test breaks something: few times in a push, many in a
// soak.
func soakRounds(t *testing.T, few int) int {
	t.Helper()
	s := os.Getenv("RELAY_SOAK_ROUNDS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("RELAY_SOAK_ROUNDS: %v", err)
	}
	return min(n, 20) // a round takes seconds
}

// refusals is how often a server has answered with an error of that name since it
// started.
func refusals(t *testing.T, s *redistest.Server, name string) int {
	t.Helper()
	info, err := s.Do("INFO", "errorstats")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(fmt.Sprint(info), "errorstat_"+name+":count=")
	digits, _, _ := strings.Cut(after, "\r")
	n, _ := strconv.Atoi(digits)
	return n
}

// soon waits until there is no error.
func soon(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // a Sentinel that was kept from running waits 30 s (TILT)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !testkit.Wait(t.Context(), 10*time.Millisecond) {
			t.Fatalf("wait for %s: %v", what, err)
		}
	}
}

// load uses an outbox as a Relay does and keeps a ledger. Each event is for two
// endpoints: the deliveries of "now" are made at once, some at the second attempt,
// those of "later" by finish, so that there is something to lose.
type load struct {
	t         *testing.T
	name      string
	store     *redisstream.Store
	ledger    *outboxtest.Ledger
	stop      context.CancelFunc
	producers sync.WaitGroup
	workers   sync.WaitGroup
	stopWork  context.CancelFunc

	mu      sync.Mutex
	acks    [loadProducers]int
	refuse  map[string]int // refusals by what they say
	longest time.Duration  // from the first try of an event to its acknowledgement
}

const (
	loadProducers = 6
	loadLease     = 3 * time.Second
)

func startLoad(t *testing.T, o redisstream.Options) *load {
	t.Helper()
	o.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	store, err := redisstream.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, name: o.Namespace + " (" + o.Durability + ")", store: store, ledger: outboxtest.NewLedger(), refuse: map[string]int{}}
	var posting, working context.Context
	posting, l.stop = context.WithCancel(context.Background())
	working, l.stopWork = context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.stop()
		l.producers.Wait()
		l.stopWork()
		l.workers.Wait()
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	for n := range loadProducers {
		l.producers.Go(func() { l.produce(posting, n) })
	}
	l.workers.Go(func() { l.deliver(working, "now") })
	l.workers.Go(func() { l.deliver(working, "now") })
	return l
}

// produce accepts one event after the other, each until it is acknowledged.
func (l *load) produce(ctx context.Context, n int) {
	for i := 0; testkit.Wait(ctx, 40*time.Millisecond); i++ {
		e := outbox.Event{ID: fmt.Sprintf("p%d-%d", n, i), Type: "load.test", Data: []byte(strconv.Itoa(i) + strings.Repeat(" ", 300))}
		b := outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"now", "later"}, Fingerprint: sha256.Sum256(e.Data)}}}
		first := time.Now()
		for {
			_, err := l.store.Accept(ctx, b)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			if !errors.Is(err, outbox.ErrUnavailable) {
				l.t.Errorf("%s: accept: %v, want ErrUnavailable", l.name, err)
				return
			}
			l.mu.Lock()
			l.refuse[err.Error()]++
			l.mu.Unlock()
			if !testkit.Wait(ctx, 20*time.Millisecond) {
				return
			}
		}
		if err := l.ledger.Accepted(e.ID, "now", "later"); err != nil {
			l.t.Error(err)
		}
		l.mu.Lock()
		l.acks[n]++
		l.longest = max(l.longest, time.Since(first))
		l.mu.Unlock()
	}
}

// deliver claims and settles until ctx ends. Every eighth delivery fails at its first
// attempt.
func (l *load) deliver(ctx context.Context, endpoint string) {
	for {
		claims, err := l.store.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 32, Lease: loadLease})
		if ctx.Err() != nil {
			_ = l.store.Release(context.Background(), claims...)
			return
		}
		if err != nil {
			l.t.Errorf("%s: claim: %v, want an outage to be waited out", l.name, err)
			return
		}
		for _, c := range claims {
			a := outbox.Attempt{N: c.Attempts + 1, Started: time.Now(), Status: 200, Outcome: "delivered"}
			s := outbox.Settlement{Attempt: a, State: outbox.Delivered}
			if c.Attempts == 0 && strings.HasSuffix(c.EventID, "7") {
				s.Attempt.Status, s.Attempt.Outcome, s.Attempt.Code = 503, "retry", "http_503"
				s.State, s.Due = outbox.Pending, time.Now().Add(100*time.Millisecond)
			} else if err := l.ledger.Received(c.EventID, endpoint); err != nil {
				l.t.Error(err)
			}
			if err := l.store.Settle(ctx, c, s); err != nil && !errors.Is(err, outbox.ErrLeaseLost) && !errors.Is(err, outbox.ErrUnavailable) && ctx.Err() == nil {
				l.t.Errorf("%s: settle: %v", l.name, err)
			}
		}
	}
}

// progress waits until every producer got 20 events acknowledged from now on, which
// go to all shards.
func (l *load) progress() {
	l.t.Helper()
	l.mu.Lock()
	before := l.acks
	l.mu.Unlock()
	soon(l.t, l.name+" to accept again", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for n := range l.acks {
			if l.acks[n] < before[n]+20 {
				return fmt.Errorf("producer %d has %d events acknowledged, %d before; refusals %v", n, l.acks[n], before[n], l.refuse)
			}
		}
		return nil
	})
}

// refused is the longest that an event waited for its acknowledgement, since
// forgetRefusals.
func (l *load) refused() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.longest.Round(time.Millisecond)
}

func (l *load) forgetRefusals() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = 0
}

// finish ends the load, makes all deliveries that are left, and checks the ledger.
func (l *load) finish() outboxtest.Tally {
	l.t.Helper()
	l.stop()
	l.producers.Wait()
	working, stop := context.WithCancel(l.t.Context())
	l.workers.Go(func() { l.deliver(working, "later") })
	soon(l.t, l.name+" to have nothing pending", func() error {
		counts, err := l.store.Counts(l.t.Context())
		if err == nil && counts["now"].Pending+counts["later"].Pending > 0 {
			err = fmt.Errorf("counts %+v", counts)
		}
		return err
	})
	stop()
	l.stopWork()
	l.workers.Wait()
	tally, err := l.ledger.Check(l.t.Context(), l.store.Lookup)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%s: %s", l.name, tally)
	if err := outboxtest.CheckBooks(l.t.Context(), l.store); err != nil {
		l.t.Errorf("%s: %v", l.name, err)
	}
	for more := true; more; {
		if _, more, err = l.store.Reap(l.t.Context(), outbox.Retention{}); err != nil {
			l.t.Fatalf("%s: reap: %v", l.name, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for what, n := range l.refuse {
		l.t.Logf("%s: refused %d times: %s", l.name, n, what)
	}
	if tally.Pending+tally.Failed+tally.Discarded > 0 {
		l.t.Errorf("%s: not everything arrived: %s", l.name, tally)
	}
	return tally
}
