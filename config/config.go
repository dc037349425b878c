// Package config says how this process runs: where it listens, where it keeps its outbox, what it
// logs. It does not know events, endpoints and engines. Package policy decodes the rest of the
// same file: endpoints and how events are delivered to them.
//
// Read in this order: File (find, load, parse), Block (how attributes are read and problems are
// collected), decode.go (the blocks of this package).
package config

import (
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is the part of a file that is about the process. The zero value is not valid: start from
// Default.
type Config struct {
	Ingest    Ingest
	Outbox    Outbox
	Admin     Admin
	Retention Retention
	Log       Log
	Metrics   Metrics
	Trace     Trace
	Fronts    []Front
	ACME      ACME

	// SecretsKey seals what is stored and must stay secret: the first one seals, all of them open.
	SecretsKey []Secret

	drawn map[string]bool // attributes that env() or file() gave a part of: "outbox.url"
}

// Show is the value of a setting, as Diff names it, or Hidden if env() or file() gave a part of
// it.
func (c Config) Show(setting, value string) string {
	if value != "" && c.hides(setting) {
		return Hidden
	}
	return value
}

func (c Config) hides(setting string) bool {
	name, _, _ := strings.Cut(setting, " ") // of a listener
	switch name {
	case "outbox.server": // of all that says where it is
		for _, part := range []string{"url", "username", "database", "sentinel.master", "sentinel.addrs", "cluster.addrs"} {
			if c.drawn["outbox."+part] {
				return true
			}
		}
	case "front.upstream":
		if c.drawn["front.path.upstream"] {
			return true
		}
	case "front.http":
		if c.drawn["front.https"] {
			return true
		}
	case "ingest.unix":
		name = "ingest.unix.mode"
	case "ingest.http":
		name = "ingest.http.hosts"
	}
	return c.drawn[name]
}

// minHush is the least length of a value that Hush looks for, because shorter ones occur in many
// texts by chance.
const minHush = 4

// Hush removes places (paths, hosts, addresses) that env() or file() gave from an error of the
// system or of a library.
func (c Config) Hush(text string) string {
	if hush := c.Hushes(); hush != nil {
		return hush(text)
	}
	return text
}

// Hushes is Hush for many texts, nil if env() and file() gave no place.
func (c Config) Hushes() func(text string) string {
	var hushed, pairs []string
	for setting, values := range c.places() {
		for _, v := range values {
			if c.hides(setting) && len(v) >= minHush && !isLoopback(net.JoinHostPort(v, "0")) {
				hushed = append(hushed, v)
			}
		}
	}
	if len(hushed) == 0 {
		return nil
	}
	slices.SortFunc(hushed, func(a, b string) int { return len(b) - len(a) }) // a host comes after its address
	for _, v := range hushed {
		pairs = append(pairs, v, Hidden)
	}
	return strings.NewReplacer(pairs...).Replace
}

// places are the values that errors can name, by setting.
func (c Config) places() map[string][]string {
	r := c.Outbox.Redis
	server := slices.Clone(r.Cluster)
	if s := r.Sentinel; s != nil {
		server = slices.Concat(server, s.Addrs, []string{s.Master})
	}
	if u, err := parseRedisURL(r.URL.Reveal()); err == nil {
		server = append(server, u.Host)
		if u.Scheme == "unix" {
			server = append(server, u.Path)
		}
	}
	for _, addr := range server {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			server = append(server, host)
		}
	}
	host, _, _ := net.SplitHostPort(c.Admin.HTTP)
	all := map[string][]string{
		"outbox.path":   {c.Outbox.Path},
		"outbox.spool":  {r.Spool},
		"outbox.server": server,
		"admin.unix":    {c.Admin.Unix},
		"admin.http":    {c.Admin.HTTP, host},
	}
	for _, f := range c.Fronts {
		for _, u := range append([]Upstream{f.Upstream}, f.upstreams()...) {
			host, _, _ := net.SplitHostPort(u.Addr)
			all["front.upstream"] = append(all["front.upstream"], u.Addr, host)
		}
		for _, addr := range slices.Concat(f.HTTPS, f.HTTP) {
			host, _, _ := net.SplitHostPort(addr)
			all["front.http"] = append(all["front.http"], addr, host)
		}
	}
	for setting, address := range map[string]string{"acme.ca": c.ACME.CA, "acme.on_demand.ask": c.ACME.Ask, "trace.otlp": c.Trace.OTLP} {
		if u, err := url.Parse(address); err == nil {
			all[setting] = append(all[setting], address, u.Host, u.Hostname())
		}
	}
	all["acme.email"] = []string{c.ACME.Email}
	if t := r.TLS; t != nil {
		all["outbox.tls.server_name"] = []string{t.ServerName}
	}
	return all
}

// Where is the place of the outbox, without secrets.
func (c Config) Where() string {
	o := c.Outbox
	if o.Engine == "redis" {
		return fmt.Sprintf("%s, namespace %s", c.Show("outbox.server", o.Redis.Where()), c.Show("outbox.namespace", o.Redis.Namespace))
	}
	return c.Show("outbox.path", o.Path)
}

// Listeners are the addresses, host:port, on which this Relay listens.
func (c Config) Listeners() []string {
	var all []string
	if c.Admin.HTTP != "" {
		all = append(all, c.Admin.HTTP)
	}
	for _, h := range c.Ingest.HTTP {
		all = append(all, h.Addr)
	}
	return all
}

// Ingest is the configuration of ingest.
type Ingest struct {
	Unix    []Unix
	HTTP    []HTTP
	MaxBody int64 // bytes of one request body
	Strict  bool  // refuse events of types that no event_type declares, and those that no endpoint wants

	Index []string // paths of fields of every event's data by which deliveries can be found
}

// Unix is a listener on a Unix socket.
type Unix struct {
	Path string
	Mode fs.FileMode // of the socket; the directory's mode decides who can connect
}

// HTTP is a listener on TCP.
type HTTP struct {
	Addr  string   // host:port
	Token Secret   // bearer token; must be set when Addr is not loopback
	Hosts []string // further Host header values that are answered, beside IP literals and localhost
}

// Outbox says which engine keeps the deliveries.
type Outbox struct {
	Engine     string // "sqlite" or "redis"
	Path       string // of sqlite: directory, mode 0700
	Durability string // of sqlite "fsync" or "relaxed", of redis "memory", "fsync" or "replicated"
	MaxSize    int64  // bytes
	Redis      Redis  // of redis
}

// Admin is the operator's listener; empty addresses mean none.
type Admin struct {
	HTTP  string
	Unix  string
	Token Secret // the whole power
	Hosts []string

	// A reload replaces these.
	Access  []Access
	LinkKey []Secret // signs links to tenants; the first one signs, all verify
	Page    Page
}

// Access is a token with some rights.
type Access struct {
	Name      string
	Token     Secret
	May       []string // rights, one of AccessRights
	Tenants   []string // whose deliveries and endpoints alone it sees; nil for all
	Endpoints []string // which alone it sees; nil for all
}

// AccessRights are the rights that an Access can have.
func AccessRights() []string {
	return []string{"read", "payload", "secrets", "test", "redeliver", "endpoints", "operate"}
}

// Retention says how long finished deliveries are kept.
type Retention struct {
	Delivered time.Duration
	Failed    time.Duration
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // json, console, "" = console on a terminal
}

// Metrics says what the metrics tell.
type Metrics struct {
	PerEndpoint string // which endpoints have series of their own: file, all
}

// Default is the configuration of a file without any block of this package. The outbox and the
// socket are in the state directory that env names: the first of $STATE_DIRECTORY (systemd), else
// $XDG_STATE_HOME/relay, else ./relay-data.
func Default(env func(string) (string, bool)) Config {
	state := stateDir(env)
	return Config{
		Ingest: Ingest{
			Unix:    []Unix{{Path: filepath.Join(state, "relay.sock"), Mode: defaultMode}},
			HTTP:    []HTTP{{Addr: "127.0.0.1:7070"}},
			MaxBody: 256 * KiB,
		},
		Outbox:    Outbox{Engine: "sqlite", Path: state, Durability: "fsync", MaxSize: 4 * GiB},
		Admin:     Admin{HTTP: "127.0.0.1:7071", Page: Page{Enabled: true}},
		Retention: Retention{Delivered: 72 * time.Hour, Failed: 30 * Day},
		Log:       Log{Level: "info"},
		Metrics:   Metrics{PerEndpoint: "file"},
		Trace:     defaultTrace(),
		ACME:      defaultACME(),
	}
}

// defaultMode lets the app's group write to the socket.
const defaultMode fs.FileMode = 0o660

func stateDir(env func(string) (string, bool)) string {
	if dirs, _ := env("STATE_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":") // systemd joins several with a colon
		return first
	}
	// The XDG base directory specification says to ignore a relative path.
	if dir, _ := env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "relay")
	}
	return "relay-data"
}
