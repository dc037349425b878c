package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/access"
	"relay/outbox/redisstream"
)

// Finding is one finding about an outbox.
type Finding struct {
	Level string `json:"level"` // "refuse": Relay would not start; "warn"; "ok"
	What  string `json:"what"`
	Next  string `json:"next,omitempty"` // what to do, unless all is well
}

// ProbeOutbox looks at the outbox that the file names, without opening it: at the folder of
// sqlite, where a file is made and removed, or at the server of redis. The error says why the
// outbox could not be probed.
func ProbeOutbox(ctx context.Context, whole config.Config) ([]Finding, error) {
	c := whole.Outbox
	if c.Engine != "redis" {
		return hush(whole, []Finding{probeFolder(c.Path)}), nil
	}
	found, err := redisstream.Probe(ctx, redisOptions(c))
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", whole.Show("outbox.server", c.Redis.Where()), err)
	}
	var all []Finding
	for _, f := range found.List {
		all = append(all, Finding{f.Level, f.What, f.Next})
	}
	if c.Redis.Spool != "" {
		all = append(all, probeFolder(c.Redis.Spool))
	}
	return hush(whole, all), nil
}

// hush removes values of the configuration that must not be shown.
func hush(c config.Config, all []Finding) []Finding {
	for i := range all {
		all[i].What, all[i].Next = c.Hush(all[i].What), c.Hush(all[i].Next)
	}
	return all
}

// redisOptions converts the file's settings to the engine's. Log, Endpoints and Version are the
// caller's.
func redisOptions(c config.Outbox) redisstream.Options {
	r := c.Redis
	o := redisstream.Options{
		URL: r.URL.Reveal(), Cluster: r.Cluster,
		Username: r.Username, Password: r.Password.Reveal(), Database: r.Database,
		Namespace: r.Namespace, Shards: r.Shards,
		Durability: c.Durability, Replicas: r.Replicas, ReplicaTimeout: r.Timeout,
		MaxSize: c.MaxSize, Log: zerolog.Nop(),
	}
	if s := r.Sentinel; s != nil {
		o.Sentinel = &redisstream.Sentinel{Master: s.Master, Addrs: s.Addrs, Username: s.Username, Password: s.Password.Reveal()}
	}
	if t := r.TLS; t != nil {
		o.TLS = &redisstream.TLSFiles{CA: t.CA.Reveal(), Cert: t.Cert.Reveal(), Key: t.Key.Reveal(), ServerName: t.ServerName}
	}
	return o
}

// probeFolder reports whether files can be made in the folder, or the folder itself.
func probeFolder(path string) Finding {
	where := path
	if whole, err := filepath.Abs(path); err == nil {
		where = whole
	}
	dir, info, err := where, fs.FileInfo(nil), error(nil)
	for {
		info, err = os.Stat(dir)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir) // relay serve makes the missing folders
	}
	if err != nil {
		return Finding{"refuse", fmt.Sprintf("the folder %s cannot be reached: %v", where, access.Explain(err, where)), "give the user that runs relay access to it"}
	}
	if !info.IsDir() {
		return Finding{"refuse", dir + " is not a folder", "change path in the outbox block, or move the file"}
	}
	f, err := os.CreateTemp(dir, ".relay-check-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	switch {
	case err != nil:
		return Finding{"refuse", fmt.Sprintf("the folder %s cannot be written: %v", dir, access.Explain(err, where)), "give the user that runs relay write access to it"}
	case dir != where:
		return Finding{"ok", fmt.Sprintf("the folder %s does not exist yet, and can be made", where), ""}
	}
	return Finding{"ok", fmt.Sprintf("the folder %s exists and can be written", where), ""}
}
