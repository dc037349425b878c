// Package certstore keeps certificates, their private keys and the accounts of their CA, for
// package front: in a folder, or in the Redis of a shared outbox, where a fleet shares them.
package certstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"

	"relay/internal/seal"
)

// Files keeps everything below a folder, which is made with mode 0700, its files with 0600.
func Files(dir string) certmagic.Storage { return &certmagic.FileStorage{Path: dir} }

// Redis is a certmagic.Storage, Locker, TryLocker and LockLeaseRenewer. Its methods may be called
// at the same time.
//
// All keys have one hash tag, so that a Cluster keeps them together. The index is a sorted set in
// the order of its members: a listing reads a range of it and scans nothing.
type Redis struct {
	o      Options
	index  string // sorted set of all keys, every score 0
	values string // hash
	times  string // hash: seconds since 1970, and length of the value
	locks  string // prefix

	held leases
}

// Options of a Redis. Client and Namespace must be given.
type Options struct {
	Client    redis.UniversalClient
	Namespace string
	Keys      *seal.Keys    // nil: values are stored as they are
	Lease     time.Duration // of a lock whose owner died; 0 = 30 s
}

const (
	defaultLease = 30 * time.Second
	timeout      = 5 * time.Second // of one command
)

// OpenRedis connects with the first command.
func OpenRedis(o Options) *Redis {
	if o.Lease == 0 {
		o.Lease = defaultLease
	}
	prefix := "{" + o.Namespace + ":certs}:"
	return &Redis{o: o, index: prefix + "index", values: prefix + "values", times: prefix + "times", locks: prefix + "lock:"}
}

// Close gives all locks back and closes the connections.
func (r *Redis) Close() error {
	r.held.closeAll(r)
	return r.o.Client.Close()
}

//go:embed lua/store.lua
var storeLua string

//go:embed lua/delete.lua
var deleteLua string

//go:embed lua/lock.lua
var lockLua string

//go:embed lua/unlock.lua
var unlockLua string

func (r *Redis) run(ctx context.Context, lua string, keys []string, args ...any) (int64, error) {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n, err := redis.NewScript(lua).Run(within, r.o.Client, keys, args...).Int64()
	return n, ended(ctx, err)
}

// ended is an error of a call, which is the context's if that has ended: a connection tells the deadline as a timeout of its
// own, and sometimes a moment before the context does.
func ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return err
}

// Store implements certmagic.Storage.
func (r *Redis) Store(ctx context.Context, key string, value []byte) error {
	stored := value
	if r.o.Keys != nil {
		stored = r.o.Keys.Seal(value, r.place(key))
	}
	if _, err := r.run(ctx, storeLua, []string{r.index, r.values, r.times}, key, stored, len(value)); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// place is what a sealed value is bound to.
func (r *Redis) place(key string) string { return r.values + " " + key }

// Load implements certmagic.Storage. A value that was stored before there were keys is read as it
// is.
func (r *Redis) Load(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stored, err := r.o.Client.HGet(ctx, r.values, key).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, fmt.Errorf("load %s: %w", key, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("load %s: %w", key, err)
	case !seal.IsSealed(stored):
		return stored, nil
	}
	value, err := r.o.Keys.Open(stored, r.place(key))
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	return value, nil
}

// Delete implements certmagic.Storage.
func (r *Redis) Delete(ctx context.Context, key string) error {
	if _, err := r.run(ctx, deleteLua, []string{r.index, r.values, r.times}, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Exists implements certmagic.Storage. It is false while Redis does not answer.
func (r *Redis) Exists(ctx context.Context, key string) bool {
	_, err := r.Stat(ctx, key)
	return err == nil
}

// below returns the keys below a path, in order; most bounds their number, 0 for all.
func (r *Redis) below(ctx context.Context, prefix string, most int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	by := redis.ZRangeArgs{Key: r.index, Start: "-", Stop: "+", ByLex: true, Count: most}
	if prefix != "" {
		by.Start, by.Stop = "["+prefix+"/", "("+prefix+"0" // 0 comes after the slash
	}
	return r.o.Client.ZRangeArgs(ctx, by).Result()
}

// List implements certmagic.Storage, with the folders on the way, as FileStorage does.
func (r *Redis) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	prefix = strings.Trim(prefix, "/")
	keys, err := r.below(ctx, prefix, 0)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("list %s: %w", prefix, fs.ErrNotExist)
	}
	var all []string
	for _, key := range keys {
		at := prefix
		for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(key, prefix), "/"), "/") {
			at = path.Join(at, part)
			all = append(all, at)
			if !recursive {
				break
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Stat implements certmagic.Storage.
func (r *Redis) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info := certmagic.KeyInfo{Key: key}
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	text, err := r.o.Client.HGet(within, r.times, key).Result()
	switch {
	case err == nil:
		seconds, size, _ := strings.Cut(text, " ")
		at, _ := strconv.ParseInt(seconds, 10, 64)
		info.Modified, info.IsTerminal = time.Unix(at, 0), true
		info.Size, _ = strconv.ParseInt(size, 10, 64)
		return info, nil
	case !errors.Is(err, redis.Nil):
		return info, fmt.Errorf("stat %s: %w", key, err)
	}
	keys, err := r.below(ctx, key, 1)
	switch {
	case err != nil:
		return info, fmt.Errorf("stat %s: %w", key, err)
	case len(keys) == 0:
		return info, fmt.Errorf("stat %s: %w", key, fs.ErrNotExist)
	}
	return info, nil
}
