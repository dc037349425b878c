package redisstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// told has one line for each finding: "refuse …".
func told(f Findings) string {
	var b strings.Builder
	for _, one := range f.List {
		fmt.Fprintf(&b, "%s %s\n", one.Level, one.What)
	}
	return b.String()
}

func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server []string
		o      Options
		want   string // a line each
		next   string // of the refusal
	}{
		{name: "good", server: []string{"--maxmemory", "50mb"}, want: "ok Redis 7.0.15\n"},
		{name: "no limit", want: "ok Redis 7.0.15\nwarn maxmemory is not set: Redis grows until the system kills it\n"},
		{
			name: "evicts all", server: []string{"--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"},
			want: "ok Redis 7.0.15\nrefuse maxmemory-policy allkeys-lru deletes any key when memory is short: accepted events would be lost\n",
			next: "noeviction",
		},
		{
			name: "evicts what expires", server: []string{"--maxmemory", "50mb", "--maxmemory-policy", "volatile-ttl"},
			want: "ok Redis 7.0.15\nwarn maxmemory-policy volatile-ttl: when memory is short, idempotency keys are forgotten early and a repeat makes a second event\n",
		},
		{
			name: "no AOF", server: []string{"--maxmemory", "50mb", "--appendonly", "no"},
			want: "ok Redis 7.0.15\nwarn appendonly is no: when Redis restarts, all since its last snapshot is lost\n",
		},
		{
			name: "fsync without AOF", server: []string{"--maxmemory", "50mb", "--appendonly", "no"}, o: Options{Durability: Fsync},
			want: "ok Redis 7.0.15\nrefuse durability \"fsync\" needs the append-only file, and appendonly is no\n", next: "appendonly yes",
		},
		{
			name: "fsync under always", server: []string{"--maxmemory", "50mb", "--appendfsync", "always"}, o: Options{Durability: Fsync},
			want: "ok Redis 7.0.15\nok every commit is on the disk before Redis answers: appendfsync always\n",
		},
		{
			name: "fsync with rewrites that hold it back", server: []string{"--maxmemory", "50mb", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "yes"}, o: Options{Durability: Fsync},
			want: "ok Redis 7.0.15\nrefuse no-appendfsync-on-rewrite is yes: while the append-only file is rewritten, nothing is written to the disk\n",
			next: "no-appendfsync-on-rewrite no",
		},
		{
			name: "replicas missing", server: []string{"--maxmemory", "50mb"}, o: Options{Durability: Replicated, Replicas: 2},
			want: "ok Redis 7.0.15\nwarn 0 of the 2 replicas that a commit waits for are connected\n" +
				"ok min-replicas-to-write is 0: a master that is cut off goes on taking writes, which a failover then undoes\n",
		},
		{
			name: "a replica", server: []string{"--maxmemory", "50mb", "--replicaof", "127.0.0.1 1"},
			want: "ok Redis 7.0.15\nrefuse the server is a replica, which takes no writes\n", next: "127.0.0.1:1",
		},
		{
			name: "a cluster", server: []string{"--maxmemory", "50mb", "--cluster-enabled", "yes"},
			want: "ok Redis 7.0.15\nrefuse the server is in cluster mode\n", next: "cluster { addrs",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var args []string
			for _, arg := range tt.server {
				args = append(args, strings.Fields(arg)...) // replicaof takes two words
			}
			s := redistest.Start(t, args...)
			o := at(s.URL())
			o.Replicas, o.ReplicaTimeout = tt.o.Replicas, time.Second
			if tt.o.Durability != "" {
				o.Durability = tt.o.Durability
			}
			f, err := Probe(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			version := f.List[0].What // of the machine that runs the tests
			if diff := cmp.Diff(strings.ReplaceAll(tt.want, "Redis 7.0.15", version), told(f)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			switch err := f.Refusal(); {
			case (err != nil) != strings.Contains(tt.want, "refuse "):
				t.Errorf("refusal: %v", err)
			case err != nil && !strings.Contains(err.Error(), tt.next):
				t.Errorf("refusal %v does not say %q", err, tt.next)
			}
			if o.Durability == Replicated && f.confirm != (confirm{waitReplicas: 2, timeout: time.Second}) {
				t.Errorf("confirm %+v", f.confirm)
			}
			if left := s.MustDo(t, "DBSIZE"); left != int64(0) {
				t.Errorf("%v keys are left", left)
			}
		})
	}
}

// What comes of everysec depends on the server: none to wait with, one that is
// honest, one that is not.
func TestProbeFsyncUnderEverysec(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "50mb")
	o := at(s.URL())
	o.Durability = Fsync
	f, err := Probe(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	waits := atLeast(parseInfo(info(s))["redis_version"], 7, 2)
	last := f.List[len(f.List)-1]
	switch {
	case !waits && strings.Contains(last.What, "no WAITAOF") && f.Refusal() != nil:
	case waits && strings.HasPrefix(last.What, "WAITAOF confirms writes before they are on the disk") && f.Refusal() != nil:
	case waits && strings.HasPrefix(last.What, "every commit waits") && f.Refusal() == nil && f.confirm == (confirm{waitAOF: true, timeout: aofTimeout}):
	default:
		t.Errorf("got %s, confirm %+v", told(f), f.confirm)
	}
	t.Logf("%s: %s", f.List[0].What, last.What)
}

func TestProbeWithoutRights(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "50mb")
	s.MustDo(t, "ACL", "SETUSER", "app", "on", ">canary", "~*", "+@all", "-config", "-info")
	o := user(s, "app", "canary")
	f, err := Probe(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := told(f); !strings.HasPrefix(got, "warn the user may not run INFO") || f.Refusal() != nil {
		t.Errorf("got %s", got)
	}
	s.MustDo(t, "ACL", "SETUSER", "app", "+info")
	o.Durability = Fsync
	if f, err = Probe(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := told(f); !strings.Contains(got, "warn the user may not run CONFIG GET") || f.Refusal() != nil {
		t.Errorf("got %s", got)
	}
}

func TestProbeUnreachable(t *testing.T) {
	s := redistest.Start(t)
	s.MustDo(t, "ACL", "SETUSER", "app", "on", ">canary1", "~*", "+@all")
	_, err := Probe(t.Context(), user(s, "app", "canary2"))
	if !errors.Is(err, outbox.ErrUnavailable) || !strings.Contains(err.Error(), "user or password") || strings.Contains(err.Error(), "canary") {
		t.Errorf("wrong password: %v", err)
	}
	o := at("")
	o.Cluster = []string{s.Addr()}
	if f, err := Probe(t.Context(), o); err != nil || f.Refusal() == nil || !strings.Contains(f.Refusal().Error(), "not in cluster mode") {
		t.Errorf("no cluster: %v, %v", f, err)
	}
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Probe(ctx, at(s.URL())); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("a server that hangs: %v", err)
	}
	s.Continue()
	s.Kill()
	if _, err := Probe(t.Context(), at(s.URL())); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("a server that is down: %v", err)
	}
	if _, err := Probe(t.Context(), at("redis://:canary1%@x")); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a bad URL: %v", err)
	}
}

// Servers that cannot be started here.
func TestJudge(t *testing.T) {
	redis := func(pairs ...string) map[string]string {
		m := map[string]string{"redis_version": "7.2.4", "redis_mode": "standalone", "role": "master", "maxmemory": "1", "maxmemory_policy": "noeviction", "aof_enabled": "1"}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	everysec := map[string]string{"appendfsync": "everysec", "no-appendfsync-on-rewrite": "no"}
	for _, tt := range []struct {
		name    string
		seen    facts
		o       Options
		want    string
		waitAOF bool
	}{
		{name: "old", seen: facts{info: redis("redis_version", "6.2.14")}, want: "refuse Redis 6.2.14 is too old\n"},
		{name: "no version", seen: facts{info: redis("redis_version", "x")}, want: "refuse Redis x is too old\n"},
		{name: "new", seen: facts{info: redis("redis_version", "10.1.0")}, want: "ok Redis 10.1.0\n"},
		{name: "Valkey", seen: facts{info: redis("server_name", "valkey", "valkey_version", "8.1.1")}, want: "ok Valkey 8.1.1\n"},
		{name: "first Valkey", seen: facts{info: redis("server_name", "valkey")}, want: "ok Valkey 7.2.4\n"},
		{name: "Dragonfly", seen: facts{info: redis("dragonfly_version", "df-v1.30.0")}, want: "warn Dragonfly df-v1.30.0 is not a server that Relay is tested with\n"},
		{name: "Kvrocks", seen: facts{info: redis("kvrocks_version", "2.11.0")}, want: "warn Kvrocks 2.11.0 is not a server that Relay is tested with\n"},
		{name: "KeyDB", seen: facts{info: redis("redis_version", "6.3.4", "mvcc_depth", "0")}, want: "refuse KeyDB 6.3.4 is too old\n"},
		{name: "another", seen: facts{info: redis("server_name", "other")}, want: "warn other 7.2.4 is not a server that Relay is tested with\n"},
		{name: "Sentinel", seen: facts{info: map[string]string{"redis_version": "7.2.4", "redis_mode": "sentinel"}}, want: "ok Redis 7.2.4\nrefuse this is a Sentinel, which keeps no data\n"},
		{name: "cluster block for a single server", seen: facts{info: redis()}, o: Options{Cluster: []string{"a:1"}}, want: "ok Redis 7.2.4\nrefuse the server is not in cluster mode\n"},
		{name: "fsync, to be measured", seen: facts{info: redis(), config: everysec}, o: Options{Durability: Fsync}, want: "ok Redis 7.2.4\n", waitAOF: true},
		{
			name: "fsync, CONFIG denied", seen: facts{info: redis(), noConfig: true}, o: Options{Durability: Fsync}, waitAOF: true,
			want: "ok Redis 7.2.4\nwarn the user may not run CONFIG GET, so it was not checked that a commit is on the disk before it is confirmed\n",
		},
		{
			name: "fsync, never", seen: facts{info: redis(), config: map[string]string{"appendfsync": "no"}}, o: Options{Durability: Fsync},
			want: "ok Redis 7.2.4\nrefuse appendfsync is no: nobody knows when a commit is on the disk\n",
		},
		{
			name: "replicas there", seen: facts{info: redis("connected_slaves", "2"), config: map[string]string{"min-replicas-to-write": "1"}}, o: Options{Durability: Replicated, Replicas: 1},
			want: "ok Redis 7.2.4\nok 2 replicas are connected, a commit waits for 1\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := judge(tt.seen, tt.o)
			if diff := cmp.Diff(tt.want, told(f)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if f.confirm.waitAOF != tt.waitAOF {
				t.Errorf("waitAOF %t", f.confirm.waitAOF)
			}
		})
	}
}

func TestJudgeAOF(t *testing.T) {
	for _, tt := range []struct {
		took   time.Duration
		policy string
		want   string
	}{
		{1200 * time.Millisecond, "everysec", "ok every commit waits until the disk has it: WAITAOF\n"},
		{0, "everysec", "refuse WAITAOF does not confirm a write within seconds\n"},
		{3 * time.Millisecond, "everysec", "refuse WAITAOF confirms writes before they are on the disk: 3 took less than 1s, under appendfsync everysec\n"},
		{3 * time.Millisecond, "", ""},
	} {
		var f Findings
		if judgeAOF(&f, tt.took, tt.policy); told(f) != tt.want {
			t.Errorf("%v under %q: %s", tt.took, tt.policy, told(f))
		}
	}
}

// Under a server older than 7.2, WAITAOF is an error.
func TestMeasureAOF(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "1") // full from the start
	m := nodeTest(t, connectTest(t, at(s.URL())))
	took, err := measureAOF(t.Context(), m, "{relay:0}:probe")
	if err == nil && took == 0 {
		t.Error("an honest server does not confirm")
	}
	if err != nil && reply(err) != "unknown_command" {
		t.Error(err)
	}
	if left := s.MustDo(t, "DBSIZE"); left != int64(0) {
		t.Errorf("%v keys are left", left)
	}
}
