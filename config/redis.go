package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Redis is the configuration of a shared outbox. URL, Sentinel and Cluster exclude each other;
// one of them is set.
type Redis struct {
	URL      Secret // redis://, rediss:// or unix://; it may hold a password
	Sentinel *Sentinel
	Cluster  []string // host:port of some nodes

	Username string // overrides the URL's; "" = the URL's
	Password Secret // the same
	Database int    // overrides the URL's; -1 = the URL's
	TLS      *TLS   // nil: none, or with rediss:// the system's authorities

	Namespace string // what the names of all keys begin with
	Shards    int
	Replicas  int           // that must have a commit; 0 without durability "replicated"
	Timeout   time.Duration // how long to wait for them
	Spool     string        // folder for what is accepted while Redis is away; "" for none
}

// Sentinel names a master that Sentinels watch.
type Sentinel struct {
	Master   string
	Addrs    []string // host:port
	Username string   // of the Sentinels themselves
	Password Secret
}

// TLS has PEM, by path or as content, and the server's name; all may be empty.
type TLS struct {
	CA, Cert, Key Secret
	ServerName    string
}

// Where is the place, with *** for passwords.
func (r Redis) Where() string {
	switch {
	case r.Sentinel != nil:
		return fmt.Sprintf("master %s of the sentinels %s", r.Sentinel.Master, strings.Join(r.Sentinel.Addrs, ", "))
	case len(r.Cluster) > 0:
		return "cluster " + strings.Join(r.Cluster, ", ")
	}
	u, err := parseRedisURL(r.URL.Reveal())
	if err != nil {
		return "" // a zero Redis
	}
	user, password := u.User.Username(), r.Password.Reveal()
	if inURL, ok := u.User.Password(); ok && password == "" {
		password = inURL
	}
	if r.Username != "" {
		user = r.Username
	}
	where := u.Scheme + "://" + login(user, password) + u.Host + u.Path
	database := u.Query().Get("db")
	if r.Database >= 0 {
		database = strconv.Itoa(r.Database)
	}
	switch {
	case u.Scheme == "unix" && database != "":
		where += "?db=" + database
	case u.Scheme != "unix" && r.Database >= 0:
		where = strings.TrimSuffix(where, u.Path) + "/" + database
	}
	return where
}

// login is "user:***@", or "" without a user.
func login(user, password string) string {
	if password != "" {
		return url.User(user).String() + ":***@"
	}
	if user != "" {
		return url.User(user).String() + "@"
	}
	return ""
}

// String has everything but the passwords.
func (r Redis) String() string {
	if r.Namespace == "" {
		return "" // the outbox is not in Redis
	}
	s := fmt.Sprintf("%s namespace=%s shards=%d", r.Where(), r.Namespace, r.Shards)
	if r.Replicas > 0 {
		s += fmt.Sprintf(" replicas=%d timeout=%v", r.Replicas, r.Timeout)
	}
	if r.Spool != "" {
		s += " spool=" + r.Spool
	}
	if r.TLS != nil {
		s += fmt.Sprintf(" tls=%+v", *r.TLS)
	}
	if r.URL.Reveal() == "" {
		s += fmt.Sprintf(" username=%s password=%v", r.Username, r.Password)
	}
	if r.Sentinel != nil {
		s += fmt.Sprintf(" sentinel_username=%s sentinel_password=%v", r.Sentinel.Username, r.Sentinel.Password)
	}
	return s
}

// DefaultRedisURL is the address of Redis if the file has none.
const DefaultRedisURL = "redis://127.0.0.1:6379"

// redis reads outbox "redis".
func (b *Block) redis(maxSize int64) Outbox {
	o := Outbox{Engine: "redis", Durability: "memory", MaxSize: maxSize, Redis: Redis{Database: -1, Namespace: "relay", Shards: 1}}
	r := &o.Redis
	b.String("durability", &o.Durability, OneOf("memory", "fsync", "replicated"))
	b.Size("max_size", &o.MaxSize, minOutbox, maxOutbox)
	b.String("namespace", &r.Namespace, checkNamespace)
	b.Int("shards", &r.Shards, 1, 64)
	b.String("spool", &r.Spool, optional(checkPath))

	before := len(*b.problems)
	hasURL := b.Secret("url", &r.URL, checkRedisURL) || len(*b.problems) > before
	badURL := hasURL && r.URL.Reveal() == ""
	sentinel, cluster := b.One("sentinel"), b.One("cluster")
	b.username(&r.Username)
	b.Secret("password", &r.Password, anything)
	b.Int("database", &r.Database, 0, 1<<20)
	if sentinel != nil {
		r.Sentinel = sentinel.sentinel()
	}
	if cluster != nil {
		r.Cluster = cluster.addrs(`cluster { addrs = ["10.0.0.5:6379"] }`)
		cluster.Done()
		if r.Database > 0 {
			b.Invalid("database", "a cluster has only database 0. Remove it, and tell outboxes apart by namespace.")
		}
	}
	switch {
	case hasURL && sentinel != nil:
		b.Fail(sentinel.Place(), "Conflicting blocks", "url and sentinel exclude each other: the Sentinels say where Redis is. Remove url.")
	case hasURL && cluster != nil:
		b.Fail(cluster.Place(), "Conflicting blocks", "url and cluster exclude each other. Write the host and port of url into addrs, and remove url.")
	case sentinel != nil && cluster != nil:
		b.Fail(cluster.Place(), "Conflicting blocks", "sentinel and cluster exclude each other: a cluster has no Sentinels. Remove one.")
	case !hasURL && sentinel == nil && cluster == nil:
		r.URL = NewSecret(DefaultRedisURL)
	}
	if t := b.One("tls"); t != nil {
		r.TLS = t.tls()
		if sentinel == nil && cluster == nil && !badURL && !strings.HasPrefix(r.URL.Reveal(), "rediss:") {
			b.Fail(t.Place(), "Unused tls", `a tls block needs a url that begins with rediss://. Write url = "rediss://…", or remove the block.`)
		}
	}
	b.replicated(o.Durability, r)
	b.foreign("sqlite", "path")
	b.Done()
	return o
}

func (b *Block) replicated(durability string, r *Redis) {
	c := b.One("replicated")
	switch {
	case c == nil && durability == "replicated":
		b.Fail(b.At("durability"), "Missing replicated", `the level "replicated" needs to know how many replicas must have a commit: replicated { replicas = 1 }`)
	case c == nil:
		return
	case durability != "replicated":
		b.Fail(c.Place(), "Unused replicated", `this block is for durability = "replicated". Write that, or remove the block.`)
	}
	if c == nil {
		return
	}
	r.Replicas, r.Timeout = 1, time.Second
	c.Int("replicas", &r.Replicas, 1, 16)
	c.Duration("timeout", &r.Timeout, 10*time.Millisecond, 5*time.Second)
	c.Done()
}

func (b *Block) sentinel() *Sentinel {
	s := &Sentinel{Addrs: b.addrs(`sentinel { master = "mymaster"  addrs = ["10.0.0.5:26379"] }`)}
	before := len(*b.problems)
	b.String("master", &s.Master, func(s string) error {
		if s == "" || strings.ContainsAny(s, " \t\r\n") {
			return errors.New("write the master's name as in the Sentinels' configuration")
		}
		return nil
	})
	if s.Master == "" && len(*b.problems) == before {
		b.Fail(b.Place(), "Missing master", `a sentinel block needs the master's name: master = "mymaster".`)
	}
	b.username(&s.Username)
	b.Secret("password", &s.Password, anything)
	b.Done()
	return s
}

// addrs reads a list of servers that must not be empty.
func (b *Block) addrs(example string) []string {
	var addrs []string
	before := len(*b.problems)
	if b.Strings("addrs", &addrs, checkServer); len(addrs) == 0 && len(*b.problems) == before {
		b.Fail(b.Place(), "Missing addrs", "it needs at least one host:port: "+example)
	}
	return addrs
}

func (b *Block) tls() *TLS {
	t := &TLS{}
	b.pem("ca", &t.CA)
	b.pem("cert", &t.Cert)
	b.pem("key", &t.Key)
	b.String("server_name", &t.ServerName, checkBareHost)
	if (b.attr("cert") == nil) != (b.attr("key") == nil) {
		b.Fail(b.Place(), "Half a client certificate", "cert and key belong together. Write both or none.")
	}
	b.Done()
	return t
}

// foreign reports attributes and blocks that belong to the other engine.
func (b *Block) foreign(engine string, names ...string) {
	for _, name := range names {
		detail := fmt.Sprintf("%q belongs to outbox %q, and this is outbox %q. Remove it, or change the engine.", name, engine, b.Name)
		if a := b.attr(name); a != nil {
			b.Fail(Place{at: a.NameRange, show: a.NameRange}, "Argument of another engine", detail)
			b.askedAttrs = append(b.askedAttrs, name)
		}
		for _, c := range b.blocks {
			if c.Type == name {
				b.Fail(Place{at: c.TypeRange, show: c.TypeRange}, "Block of another engine", detail)
				b.askedBlocks = append(b.askedBlocks, name)
			}
		}
	}
}

// username reads a user name like a secret, because it comes from the same place as its password.
func (b *Block) username(to *string) {
	s := NewSecret(*to)
	b.Secret("username", &s, anything)
	*to = s.Reveal()
}

func anything(string) error { return nil }

func checkNamespace(s string) error {
	if len(s) < 1 || len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return errors.New("write 1 to 64 letters, digits, - and _")
	}
	return nil
}

// checkServer accepts host:port of a server to dial.
func checkServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "0" || checkAddress(s) != nil {
		return errors.New(`write host:port, like "10.0.0.5:6379"`)
	}
	return nil
}

func checkRedisURL(s string) error {
	_, err := parseRedisURL(s)
	return err
}

// parseRedisURL returns errors that quote nothing, because a URL that does not parse may have a
// password anywhere.
func parseRedisURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New(`write redis://user:password@host:6379/0, rediss://… or unix:///path. Percent-encode special characters of the password, or write it as password = …`)
	}
	switch {
	case u.Scheme == "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, errors.New("write the whole path of the socket: unix:///run/redis/redis.sock")
		}
		if err := checkSocket(u.Path); err != nil {
			return nil, err
		}
		query := u.Query()
		if db := query.Get("db"); query.Has("db") && !isDatabase(db) {
			return nil, errors.New("the database is a number: unix:///path?db=0")
		}
		if query.Del("db"); len(query) > 0 || u.Fragment != "" {
			return nil, errors.New(`nothing may follow the path of the socket but ?db=0. Percent-encode special characters of the password, or write it as password = …`)
		}
		return u, nil
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return nil, errors.New("the url must begin with redis://, rediss:// or unix://")
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("the url has no host: redis://host:6379/0")
	case u.Port() != "" && checkServer(net.JoinHostPort(u.Hostname(), u.Port())) != nil || CheckHost(u.Hostname()) != nil:
		return nil, errors.New("the host or port of the url is wrong: redis://host:6379/0")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New(`the url may have no ? and no #. Percent-encode special characters of the password, or write it as password = …`)
	case u.Path != "" && u.Path != "/" && !isDatabase(strings.TrimPrefix(u.Path, "/")):
		return nil, errors.New("after the port comes only the number of the database: redis://host:6379/0")
	}
	return u, nil
}

func isDatabase(s string) bool {
	n, err := strconv.ParseUint(s, 10, 31)
	return err == nil && strconv.FormatUint(n, 10) == s
}
