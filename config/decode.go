package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"relay/internal/access"
)

// decode reads the blocks of this package over the defaults.
func decode(root *Block, c Config) Config {
	d := decoder{root: root, config: c, bound: map[string]listener{}}
	d.config.drawn = map[string]bool{}
	for _, name := range root.Drawn() {
		d.config.drawn[name] = true
	}
	d.secretsKey()
	d.ingest(root.One("ingest"))
	d.outbox(root.Blocks("outbox", true))
	d.admin(root.One("admin"))
	d.acme(root.One("acme"))
	d.fronts(root.Unique(root.Blocks("front", true)))
	d.retention(root.One("retention"))
	d.log(root.One("log"))
	d.metrics(root.One("metrics"))
	d.trace(root.One("trace"))
	root.Blocks("policy", true) // package policy decodes these
	root.Blocks("signature", true)
	root.Blocks("event_type", true)
	root.Blocks("body", true)
	root.One("runtime")
	root.Blocks("alert", true)
	if len(root.Blocks("endpoint", true)) == 0 {
		root.file.warn("there is no endpoint block: events are accepted and go nowhere")
	}
	root.Done()
	return d.config
}

type decoder struct {
	root   *Block
	config Config
	bound  map[string]listener // by address
}

// listener is an address that is taken. The zero Place is for the defaults.
type listener struct {
	what  string
	place Place
}

// maxKeys bounds secrets_key: the present key, and old ones that values may be sealed with.
const maxKeys = 8

func (d *decoder) secretsKey() {
	const name = "secrets_key"
	d.root.onceAtTop(name)
	d.config.SecretsKey = d.root.keys(name)
}

func (d *decoder) ingest(b *Block) {
	var unix, http []*Block
	if b != nil {
		unix, http = b.Blocks("unix", true), b.Blocks("http", true)
		b.Size("max_body", &d.config.Ingest.MaxBody, KiB, 64*MiB)
		b.Bool("strict", &d.config.Ingest.Strict)
		d.config.Ingest.Index = b.Index("index")
		b.Done()
	}
	in := &d.config.Ingest
	if len(unix)+len(http) == 0 {
		for _, u := range in.Unix {
			if err := checkSocket(u.Path); err != nil {
				d.root.Fail(Place{}, "Invalid default socket", fmt.Sprintf(`%s: %v. Write ingest { unix "…" {} } or set $STATE_DIRECTORY.`, u.Path, err))
			}
			d.bind("ingest unix", unixKey(u.Path), Place{})
		}
		for _, h := range in.HTTP {
			d.bind("ingest http", httpKey(h.Addr), Place{})
		}
		return
	}
	in.Unix, in.HTTP = nil, nil
	for _, l := range unix {
		u := Unix{Path: l.Name, Mode: defaultMode}
		if err := checkSocket(u.Path); err != nil {
			l.Fail(l.Label(), "Invalid socket path", err.Error())
		}
		l.mode("mode", &u.Mode)
		l.Done()
		in.Unix = append(in.Unix, u)
		d.bind("ingest unix", unixKey(u.Path), l.Label())
	}
	for _, l := range http {
		h := HTTP{Addr: l.Name}
		l.Secret("token", &h.Token, checkToken)
		l.Strings("hosts", &h.Hosts, checkBareHost)
		l.Done()
		if err := checkAddress(h.Addr); err != nil {
			l.Fail(l.Label(), "Invalid address", err.Error())
			continue
		}
		l.requireToken(h.Addr, h.Token, l.Label())
		in.HTTP = append(in.HTTP, h)
		d.bind("ingest http", httpKey(h.Addr), l.Label())
	}
}

// bind reports an address that is used twice.
func (d *decoder) bind(what, key string, at Place) {
	if strings.HasSuffix(key, ":0") {
		return // a free port
	}
	first, taken := d.bound[key]
	if !taken {
		d.bound[key] = listener{what, at}
		return
	}
	if at == (Place{}) {
		first, at = listener{what, at}, first.place
	}
	where := "by default"
	if first.place != (Place{}) {
		where = "at " + first.place.String()
	}
	d.root.Fail(at, "Duplicate listener", fmt.Sprintf("%s uses the same address %s.", first.what, where))
}

// Limits of an outbox's max_size.
const (
	minOutbox = 16 * MiB
	maxOutbox = 1024 * TiB
)

func (d *decoder) outbox(blocks []*Block) {
	for i, b := range blocks {
		if i > 0 {
			b.Fail(b.Place(), "Duplicate outbox", fmt.Sprintf("Relay keeps one outbox, and one stands already at %s.", blocks[0].Place()))
		}
		if err := OneOf("sqlite", "redis")(b.Name); err != nil {
			b.Fail(b.Label(), "Unknown outbox engine", err.Error())
			continue
		}
		o := &d.config.Outbox
		if b.Name == "redis" {
			*o = b.redis(o.MaxSize)
			continue
		}
		b.String("path", &o.Path, checkPath)
		b.String("durability", &o.Durability, OneOf("fsync", "relaxed"))
		b.Size("max_size", &o.MaxSize, minOutbox, maxOutbox)
		b.foreign("redis", "url", "namespace", "shards", "username", "password", "database", "replicated", "tls", "sentinel", "cluster", "spool")
		b.Done()
	}
}

func (d *decoder) admin(b *Block) {
	a := &d.config.Admin
	var http, unix Place
	if b != nil {
		b.Secret("token", &a.Token, checkToken)
		if n := len(a.Token.Reveal()); n > 0 && n < minAccessToken {
			b.Warn("token", fmt.Sprintf("it has the whole power, and fewer than %d characters can be guessed: make one with openssl rand -hex 32", minAccessToken))
		}
		b.Strings("hosts", &a.Hosts, checkBareHost)
		if b.String("http", &a.HTTP, optional(checkAddress)) {
			http = b.At("http")
		}
		if b.String("unix", &a.Unix, optional(checkSocket)) {
			unix = b.At("unix")
		}
		a.Access = readAccess(b, a.Token)
		a.LinkKey = b.keys("link_key")
		a.Page.read(b.One("page"))
		b.Done()
	}
	if a.HTTP != "" {
		d.root.requireToken(a.HTTP, a.Token, http)
		d.bind("admin http", httpKey(a.HTTP), http)
	}
	if a.Unix != "" {
		d.bind("admin unix", unixKey(a.Unix), unix)
	}
}

func (d *decoder) retention(b *Block) {
	if b == nil {
		return
	}
	const longest = 3650 * Day
	b.Duration("delivered", &d.config.Retention.Delivered, time.Minute, longest)
	b.Duration("failed", &d.config.Retention.Failed, time.Minute, longest)
	b.Done()
}

func (d *decoder) log(b *Block) {
	if b == nil {
		return
	}
	b.String("level", &d.config.Log.Level, OneOf("debug", "info", "warn", "error"))
	b.String("format", &d.config.Log.Format, OneOf("json", "console"))
	b.Done()
}

func (d *decoder) metrics(b *Block) {
	if b == nil {
		return
	}
	b.String("per_endpoint", &d.config.Metrics.PerEndpoint, OneOf("file", "all"))
	b.Done()
}

func (b *Block) mode(name string, to *fs.FileMode) {
	s := fmt.Sprintf("%04o", *to)
	if !b.String(name, &s) {
		return
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || len(s) < 3 {
		b.Invalid(name, `write the permissions in octal, like "0660".`)
		return
	}
	*to = fs.FileMode(n)
}

func (b *Block) requireToken(addr string, token Secret, at Place) {
	if token.Reveal() == "" && !isLoopback(addr) {
		b.Fail(at, "Token required", `other machines can reach this address, so it needs token = env("…"). Without a token listen on 127.0.0.1.`)
	}
}

// optional lets a check pass "", which stands for none.
func optional(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func checkPath(s string) error {
	if s == "" || strings.ContainsRune(s, 0) {
		return errors.New("write the path of a folder")
	}
	return nil
}

// checkSocket accepts a path that the address of a socket can hold. It refuses sockets in the
// abstract namespace, because they have no file mode: anyone could connect.
func checkSocket(s string) error {
	switch {
	case s == "" || strings.ContainsRune(s, 0):
		return errors.New("write the path of a socket")
	case strings.HasPrefix(s, "@"):
		return errors.New("sockets in the abstract namespace (@) have no permissions, write a path")
	case len(s) > access.MaxSocketPath:
		return fmt.Errorf("the path of a socket can have %d bytes, this one has %d", access.MaxSocketPath, len(s))
	}
	return nil
}

// checkAddress accepts IP:port, localhost:port, name:port and :port (all
// interfaces). Port 0 takes a free one.
func checkAddress(s string) error {
	form := errors.New(`write host:port, like "127.0.0.1:7070" or "[::1]:7070"`)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return form
	}
	if n, err := strconv.ParseUint(port, 10, 32); err != nil || n > 65535 {
		return errors.New("the port must be a number from 0 to 65535 (0 takes a free one)")
	}
	if host == "" {
		return nil
	}
	if CheckHost(host) != nil {
		return form
	}
	return nil
}

// checkBareHost is CheckHost where a host stands alone.
func checkBareHost(host string) error {
	err := CheckHost(host)
	if errors.Is(err, errNoHost) {
		err = fmt.Errorf("%w; write it without scheme and port", err)
	}
	return err
}

// CheckHost accepts an IP address or a DNS name, without a port (RFC 1123 section 2.1, and the
// underscore that some names have).
func CheckHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if len(host) > 253 {
		return errors.New("the host is longer than 253 characters")
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if !isHostLabel(l) {
			return errNoHost
		}
	}
	// Some resolvers read 127.1, 0x7f.1 and 2130706433 as addresses.
	last := labels[len(labels)-1]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.Trim(last, "0123456789") == "" {
		return ErrNoAddress
	}
	return nil
}

var errNoHost = errors.New("the host is neither a name in ASCII, whose parts neither begin nor end with -, nor an IP address")

// ErrNoAddress says that a host may be taken for an IP address, and how to write one.
var ErrNoAddress = errors.New("the host looks like an IP address but is not one; write it in full, like 192.0.2.10")

// isHostLabel tells whether s can stand between the dots of a host name: 1 to 63 letters,
// digits, underscores and hyphens, which are neither first nor last.
func isHostLabel(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return s != "" && len(s) <= 63 && strings.Trim(s, allowed) == "" && strings.Trim(s, "-") == s
}

// checkToken: a bearer token travels in a header (RFC 6750 section 2.1). "" means none.
func checkToken(s string) error {
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return errors.New("a token is printable ASCII without spaces")
		}
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func unixKey(path string) string { return "unix:" + filepath.Clean(path) }

func httpKey(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return "tcp:" + net.JoinHostPort(host, port)
}
