package redisstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Levels of a Finding.
const (
	levelRefuse = "refuse" // Relay does not start on such a server
	levelWarn   = "warn"   // it does, but an operator should know
	levelOK     = "ok"
)

// Finding is one thing that was seen of a server.
type Finding struct {
	Level string // "refuse", "warn" or "ok"
	What  string
	Next  string // what to do; "" when nothing is; no figures, so that it tells which finding it is

	Danger bool // with it accepted events may be lost, or none are accepted
}

// Findings say whether a server, or each master of a Cluster, is fit for the
// promised durability.
type Findings struct {
	List []Finding

	confirm confirm
	replica bool // a server is the replica of another one
}

// confirm says what must follow a script, on its connection, before its commit is
// as durable as promised. The zero value: nothing, the reply is enough.
type confirm struct {
	waitAOF      bool // WAITAOF 1 0
	waitReplicas int  // WAIT n
	timeout      time.Duration
}

// Refusal is nil, or tells all that makes the server unfit.
func (f Findings) Refusal() error {
	var why []string
	for _, one := range f.List {
		if one.Level == levelRefuse {
			why = append(why, one.What+": "+one.Next)
		}
	}
	if why == nil {
		return nil
	}
	return errors.New(strings.Join(why, "; "))
}

func (f *Findings) add(level, what, next string) {
	f.List = append(f.List, Finding{Level: level, What: what, Next: next, Danger: level == levelRefuse})
}

// Probe connects, looks at the server and closes the connections. It writes one
// key of the namespace, and only for the level "fsync", and deletes it. Errors:
// options that make no sense, outbox.ErrUnavailable, and context.Canceled.
func Probe(ctx context.Context, o Options) (found Findings, err error) {
	c, err := connect(o)
	if err != nil {
		return Findings{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return probe(ctx, c, o)
}

const (
	aofTimeout = 4 * time.Second // for one WAITAOF; less than ioTimeout
	aofPairs   = 3
	aofHonest  = time.Second // what the pairs take at least under everysec
)

// probe looks at every master. With a level that WAITAOF confirms it takes up to
// two seconds. A deadline of ctx that passes is outbox.ErrUnavailable here: it says
// how long the server may take.
func probe(ctx context.Context, c *conn, o Options) (Findings, error) {
	masters, err := c.masters(ctx)
	if err != nil && reply(err) == "no_cluster" {
		what, next := advice("no_cluster")
		return Findings{List: []Finding{{Level: levelRefuse, What: what, Next: next, Danger: true}}}, nil
	}
	if err != nil {
		return Findings{}, probeError(err)
	}
	slices.SortFunc(masters, func(a, b *redis.Client) int { return strings.Compare(a.Options().Addr, b.Options().Addr) })
	keys := map[*redis.Client]string{} // a key of ours on each master that has a shard
	for i := range max(1, o.Shards) {
		key := newKeys(o.Namespace, i).prefix + "probe"
		m, err := c.node(ctx, key)
		if err != nil {
			return Findings{}, probeError(err)
		}
		keys[m] = key
	}

	var all sync.WaitGroup
	found, errs := make([]Findings, len(masters)), make([]error, len(masters))
	for i, m := range masters {
		all.Go(func() { found[i], errs[i] = probeServer(ctx, m, keys[m], o) })
	}
	all.Wait()
	var sum Findings
	for i, f := range found {
		if errs[i] != nil {
			return Findings{}, probeError(errs[i])
		}
		for _, one := range f.List {
			if len(masters) > 1 {
				one.What = masters[i].Options().Addr + ": " + one.What
			}
			sum.List = append(sum.List, one)
		}
		sum.confirm.waitAOF = sum.confirm.waitAOF || f.confirm.waitAOF
		sum.replica = sum.replica || f.replica
	}
	if o.Durability == Replicated {
		sum.confirm.waitReplicas, sum.confirm.timeout = o.Replicas, o.ReplicaTimeout
	} else if sum.confirm.waitAOF {
		sum.confirm.timeout = aofTimeout
	}
	return sum, nil
}

func probeError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && isContext(err) {
		return timedOut(err)
	}
	return explain(err)
}

// facts are what a server tells of itself. What it may not tell stays empty.
type facts struct {
	info, config     map[string]string
	noInfo, noConfig bool // this user may not ask
}

func probeServer(ctx context.Context, m *redis.Client, key string, o Options) (Findings, error) {
	var seen facts
	text, err := m.Info(ctx).Result()
	if seen.noInfo = denied(err); err != nil && !seen.noInfo {
		return Findings{}, err
	}
	seen.info = parseInfo(text)
	get := redis.NewMapStringStringCmd(ctx, "config", "get", "append*", "no-appendfsync-on-rewrite", "min-replicas-to-write")
	if !tooOld(seen.info) { // an old one takes a single name
		err = m.Process(ctx, get)
		if seen.noConfig = denied(err); err != nil && !seen.noConfig {
			return Findings{}, err
		}
		seen.config = get.Val()
	}
	found := judge(seen, o)
	if !found.confirm.waitAOF || found.Refusal() != nil || key == "" || o.measured {
		return found, nil
	}
	took, err := measureAOF(ctx, m, key)
	if err != nil {
		return Findings{}, err
	}
	judgeAOF(&found, took, seen.config["appendfsync"])
	return found, nil
}

func denied(err error) bool {
	code := reply(err)
	return code == "no_permission" || code == "unknown_command"
}

// parseInfo reads the lines "name:value" of INFO.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// judge is all that can be said of a server without writing to it. confirm.waitAOF
// stands for "if its WAITAOF tells the truth".
func judge(seen facts, o Options) Findings {
	var f Findings
	if seen.noInfo {
		f.add(levelWarn, "the user may not run INFO, so version, role and memory policy were not checked",
			"allow it with ACL SETUSER … +info, or make sure of Redis 7.0 or Valkey 7.2, a master, and maxmemory-policy noeviction")
	}
	f.server(seen.info, o)
	f.memory(seen.info)
	f.persistence(seen, o)
	f.replication(seen, o)
	return f
}

func (f *Findings) server(info map[string]string, o Options) {
	name, version, tested := product(info)
	switch {
	case version == "": // INFO was denied
	case tooOld(info):
		f.add(levelRefuse, fmt.Sprintf("%s %s is too old", name, version), "relay needs Redis 7.0 or Valkey 7.2 or newer")
	case !tested:
		f.add(levelWarn, fmt.Sprintf("%s %s is not a server that Relay is tested with", name, version), "use Redis or Valkey, or test it well")
	default:
		f.add(levelOK, name+" "+version, "")
	}
	cluster := info["cluster_enabled"] == "1" || info["redis_mode"] == "cluster"
	switch {
	case info["redis_mode"] == "sentinel":
		f.add(levelRefuse, "this is a Sentinel, which keeps no data", "write sentinel { master = … addrs = […] } instead of url")
	case cluster && len(o.Cluster) == 0:
		f.add(levelRefuse, "the server is in cluster mode", "write cluster { addrs = […] } instead of url or sentinel")
	case !cluster && len(o.Cluster) > 0 && version != "":
		f.add(levelRefuse, "the server is not in cluster mode", "write url instead of the cluster block")
	}
	if info["role"] == "slave" {
		f.replica = true
		f.add(levelRefuse, "the server is a replica, which takes no writes",
			fmt.Sprintf("name its master, %s:%s, or write a sentinel block", info["master_host"], info["master_port"]))
	}
}

// product is a server's name and version, and whether Relay is tested with it. Forks
// tell a version of Redis beside their own.
func product(info map[string]string) (name, version string, tested bool) {
	for _, fork := range []struct{ name, field string }{{"Dragonfly", "dragonfly_version"}, {"Kvrocks", "kvrocks_version"}} {
		if v := info[fork.field]; v != "" {
			return fork.name, v, false
		}
	}
	if v := info["valkey_version"]; v != "" || info["server_name"] == "valkey" {
		return "Valkey", cmp.Or(v, info["redis_version"]), true
	}
	if _, ok := info["mvcc_depth"]; ok {
		return "KeyDB", info["redis_version"], false
	}
	if other := info["server_name"]; other != "" && other != "redis" {
		return other, info["redis_version"], false
	}
	return "Redis", info["redis_version"], true
}

// tooOld: the version of Redis that a fork tells is the one whose commands it has.
func tooOld(info map[string]string) bool {
	return info["redis_version"] != "" && !atLeast(info["redis_version"], 7, 0)
}

// atLeast compares the first two numbers of a version; what is no version is not.
func atLeast(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(second)
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}

func (f *Findings) memory(info map[string]string) {
	switch policy := info["maxmemory_policy"]; {
	case strings.HasPrefix(policy, "allkeys-"):
		f.add(levelRefuse, fmt.Sprintf("maxmemory-policy %s deletes any key when memory is short: accepted events would be lost", policy),
			"set maxmemory-policy noeviction, or give Relay a server of its own")
	case strings.HasPrefix(policy, "volatile-"):
		f.add(levelWarn, fmt.Sprintf("maxmemory-policy %s: when memory is short, idempotency keys are forgotten early and a repeat makes a second event", policy),
			"set maxmemory-policy noeviction")
	}
	if info["maxmemory"] == "0" {
		f.add(levelWarn, "maxmemory is not set: Redis grows until the system kills it", "set maxmemory well below the machine's memory")
	}
}

func (f *Findings) persistence(seen facts, o Options) {
	aof, policy := seen.info["aof_enabled"], seen.config["appendfsync"]
	if aof == "" {
		aof = map[string]string{"yes": "1", "no": "0"}[seen.config["appendonly"]]
	}
	if aof == "0" && o.Durability != Fsync {
		f.add(levelWarn, "appendonly is no: when Redis restarts, all since its last snapshot is lost", "set appendonly yes")
	}
	if o.Durability != Fsync {
		return
	}
	// WAITAOF is Redis 7.2's.
	waitAOF := atLeast(seen.info["redis_version"], 7, 2)
	switch {
	case aof == "0":
		f.add(levelRefuse, `durability "fsync" needs the append-only file, and appendonly is no`, `set appendonly yes, or durability = "memory"`)
	case seen.noConfig:
		f.confirm.waitAOF = waitAOF
		must := "appendfsync always and no-appendfsync-on-rewrite no"
		if waitAOF {
			must += ", or appendfsync everysec with a WAITAOF that waits for the disk"
		}
		f.add(levelWarn, `the user may not run CONFIG GET, so it was not checked that a commit is on the disk before it is confirmed`,
			"allow it with ACL SETUSER … +config|get, or make sure of "+must)
	case policy == "always" && seen.config["no-appendfsync-on-rewrite"] == "yes":
		f.add(levelRefuse, "no-appendfsync-on-rewrite is yes: while the append-only file is rewritten, nothing is written to the disk", "set no-appendfsync-on-rewrite no")
	case policy == "always":
		f.add(levelOK, "every commit is on the disk before Redis answers: appendfsync always", "")
	case policy == "everysec" && waitAOF:
		f.confirm.waitAOF = true
	case policy == "everysec":
		f.add(levelRefuse, "appendfsync is everysec, and this server has no WAITAOF to wait for the disk with", `set appendfsync always, use Redis 7.2 or newer, or durability = "memory"`)
	default:
		f.add(levelRefuse, fmt.Sprintf("appendfsync is %s: nobody knows when a commit is on the disk", policy), `set appendfsync always or everysec, or durability = "memory"`)
	}
}

func (f *Findings) replication(seen facts, o Options) {
	if o.Durability != Replicated || seen.noInfo {
		return
	}
	has, _ := strconv.Atoi(seen.info["connected_slaves"])
	if has < o.Replicas {
		f.add(levelWarn, fmt.Sprintf("%d of the %d replicas that a commit waits for are connected", has, o.Replicas),
			"until they are, no events are accepted; look at INFO replication")
		f.List[len(f.List)-1].Danger = true
	} else {
		f.add(levelOK, fmt.Sprintf("%d replicas are connected, a commit waits for %d", has, o.Replicas), "")
	}
	if seen.config["min-replicas-to-write"] == "0" {
		f.add(levelOK, "min-replicas-to-write is 0: a master that is cut off goes on taking writes, which a failover then undoes",
			fmt.Sprintf("think of min-replicas-to-write %d", o.Replicas))
	}
}

// measureAOF tells how long it takes to have writes confirmed on the disk, one
// after the other. 0 means that one was never confirmed.
func measureAOF(ctx context.Context, m *redis.Client, key string) (time.Duration, error) {
	// A script may write on a full server, too.
	const write = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)"
	defer m.Del(context.WithoutCancel(ctx), key)
	started := time.Now()
	for i := range aofPairs {
		p := m.Pipeline()
		wrote := p.Eval(ctx, write, []string{key}, i)
		waited := redis.NewIntSliceCmd(ctx, "waitaof", 1, 0, aofTimeout.Milliseconds())
		_ = p.Process(ctx, waited)
		_, _ = p.Exec(ctx) // each command has its own error
		if err := cmp.Or(wrote.Err(), waited.Err()); err != nil {
			return 0, err
		}
		if on := waited.Val(); len(on) == 0 || on[0] < 1 {
			return 0, nil
		}
		if time.Since(started) > aofHonest {
			break // nothing more to learn
		}
	}
	return time.Since(started), nil
}

// judgeAOF does not tell how long it took, so that the same finding has the same text. Under everysec Redis writes to the disk once a second, so an honest
// WAITAOF makes writes that follow each other wait for it.
func judgeAOF(f *Findings, took time.Duration, policy string) {
	switch {
	case took == 0:
		f.add(levelRefuse, "WAITAOF does not confirm a write within seconds", `look at the disk of Redis, or set appendfsync always`)
	case took > aofHonest:
		f.add(levelOK, "every commit waits until the disk has it: WAITAOF", "")
	case policy == "": // CONFIG was denied: with appendfsync always it is quick and right
	default:
		f.add(levelRefuse, fmt.Sprintf("WAITAOF confirms writes before they are on the disk: %d took less than %s, under appendfsync %s", aofPairs, aofHonest, policy),
			"this is a bug of the server (redis#13793): set appendfsync always, or use a version that has it mended")
	}
}
