package redisstream

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// A replica with other settings becomes the master: with those that may delete accepted events nothing is accepted until they
// are right, readiness says why, and what is in line is delivered.
func TestNewMasterIsInspected(t *testing.T) {
	t.Parallel()
	f := redistest.StartSentinel(t, 1, "--maxmemory", "50mb")
	var log testkit.Log
	s := openTest(t, Options{
		Sentinel: &Sentinel{Master: f.Name(), Addrs: f.Sentinels()}, Database: -1, Log: zerolog.New(&log),
	})
	acceptOne(t, s, "before", "a")
	if w := s.Warnings(); len(w) != 0 {
		t.Fatalf("warnings of a good server: %+v", w)
	}
	old := f.Master()
	for _, r := range f.Replicas() {
		r.MustDo(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	}
	await(t, "the master is known", func() bool {
		s.shards[0].mu.Lock()
		defer s.shards[0].mu.Unlock()
		return !s.shards[0].weighed.IsZero()
	})
	old.Kill()
	master := f.WaitFailover(old)

	await(t, "nothing is accepted", func() bool {
		_, err := s.Accept(t.Context(), one("refused", "a"))
		return errors.Is(err, outbox.ErrUnavailable) && strings.Contains(err.Error(), "allkeys-lru")
	})
	if err := s.Health(t.Context()); !errors.Is(err, outbox.ErrUnavailable) || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("Health: %v, want what is wrong and what to do", err)
	}
	if err := s.unfit(); !strings.HasSuffix(err.Error(), "redis may lose accepted events: "+s.Warnings()[0].What+": "+s.Warnings()[0].Next) {
		t.Errorf("%v, want what is wrong in full", err)
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0].What, "allkeys-lru") || w[0].Next == "" || !w[0].Danger {
		t.Errorf("warnings %+v", w)
	}
	for _, c := range claimSome(t, s, "a", int(countsOf(t, s, "a").Pending), time.Minute) {
		deliver(t, s, c)
	}

	master.MustDo(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	await(t, "events are accepted again", func() bool {
		_, err := s.Accept(t.Context(), one("after", "a"))
		return err == nil
	})
	if n := strings.Count(log.String(), `"code":"unfit"`); n != 1 {
		t.Errorf("the log has %d lines, want one:\n%s", n, log.String())
	}
	if err := s.Health(t.Context()); err != nil || len(s.Warnings()) != 0 {
		t.Errorf("afterwards: %v, %+v", err, s.Warnings())
	}
}

// Settings that change while the server runs are seen by the next look, and logged once.
func TestSettingsAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory", "50mb")
	var log testkit.Log
	o := at(server.URL())
	o.Log = zerolog.New(&log)
	s := openTest(t, o)
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
	for range 3 {
		if err := s.inspect(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0].What, "maxmemory is not set") {
		t.Errorf("warnings %+v", w)
	}
	if n := strings.Count(log.String(), "maxmemory is not set"); n != 1 {
		t.Errorf("the log has %d lines:\n%s", n, log.String())
	}
	server.MustDo(t, "REPLICAOF", "127.0.0.1", "1")
	if err := s.inspect(t.Context(), true); !errors.Is(err, errReplica) || s.unfit() != nil {
		t.Errorf("a master that is being replaced: %v, %v", err, s.unfit())
	}
}

// A server that stays unfit makes one line of the log, although each look measures it again.
func TestUnfitIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	s := &Store{log: zerolog.New(&log)}
	for i := range 3 {
		var found Findings
		judgeAOF(&found, time.Duration(i+1)*time.Millisecond, "everysec")
		s.inspectedAs(found)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// Dangers are what the start would refuse, too few replicas, and what became worse since the start: not what the operator has
// lived with since then, on whatever node of a Cluster it is.
func TestDangers(t *testing.T) {
	dangers := func(s *Store) (n int) {
		for _, w := range s.Warnings() {
			if w.Danger {
				n++
			}
		}
		return n
	}
	found := func(seen facts, o Options, at string) Findings {
		f := judge(seen, o)
		for i := range f.List {
			f.List[i].What = at + f.List[i].What
		}
		return f
	}
	memory := func(maxmemory, policy string) facts {
		return facts{info: map[string]string{"redis_version": "7.2.0", "maxmemory": maxmemory, "maxmemory_policy": policy, "aof_enabled": "1"}}
	}
	s := &Store{log: zerolog.Nop()}
	for _, step := range []struct {
		found Findings
		want  int
	}{
		{found(memory("0", "noeviction"), Options{Durability: Memory}, "n1: "), 0},
		{found(memory("0", "noeviction"), Options{Durability: Memory}, "n2: "), 0},
		{found(memory("0", "volatile-lru"), Options{Durability: Memory}, "n2: "), 1},
		{found(memory("0", "allkeys-lru"), Options{Durability: Memory}, "n2: "), 1},
		{found(memory("9", "noeviction"), Options{Durability: Replicated, Replicas: 2}, "n1: "), 1},
	} {
		if s.inspectedAs(step.found); dangers(s) != step.want {
			t.Errorf("%d dangers of %+v, want %d", dangers(s), s.Warnings(), step.want)
		}
	}
}

// A level that the settings no longer keep is refused, and one that needs other confirmations gets them.
func TestInspectFollowsTheLevel(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory", "50mb", "--appendfsync", "always")
	o := at(server.URL())
	o.Durability = Fsync
	s := openTest(t, o)
	for _, step := range []struct{ policy, want string }{{"no", "appendfsync is no"}, {"always", ""}, {"everysec", "appendfsync is everysec"}, {"always", ""}} {
		server.MustDo(t, "CONFIG", "SET", "appendfsync", step.policy)
		if err := s.inspect(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Accept(t.Context(), one("e"+step.policy, "a")); (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("appendfsync %s: %v, want %q", step.policy, err, step.want)
		}
	}
}
