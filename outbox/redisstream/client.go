package redisstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/rs/zerolog"
)

// Options of an outbox in Redis. Printed with any verb they show no password.
type Options struct {
	// Where Redis is: a URL, a Sentinel or a Cluster. None of them means
	// redis://127.0.0.1:6379.
	URL      string // redis://[user[:password]@]host:port/db, rediss://…, unix:///path?db=0
	Sentinel *Sentinel
	Cluster  []string // host:port of some of its nodes

	Username, Password string    // win over the URL's
	Database           int       // wins over the URL's; -1 = as the URL says
	TLS                *TLSFiles // switches TLS on; rediss:// does without

	Namespace      string        // what the names of all keys begin with
	Shards         int           // 1 to 64
	Durability     string        // "memory", "fsync" or "replicated"
	Replicas       int           // that must have a commit, for "replicated"
	ReplicaTimeout time.Duration // how long to wait for them
	MaxSize        int64         // bytes
	Log            zerolog.Logger
	Endpoints      map[string]string // by name: what this Relay does with each
	Version        string            // of this Relay
	Patience       time.Duration     // how long an Accept waits for Redis at most; 0 for 10 s

	measured bool // WAITAOF of these servers is known to tell the truth

	segment int // events from which on a segment of the history is made; 0 for segmentEvents
}

// Sentinel names a master that Sentinels watch. TLS, when it is on, is used with
// the Sentinels too.
type Sentinel struct {
	Master             string
	Addrs              []string // host:port of the Sentinels
	Username, Password string   // of the Sentinels themselves
}

// TLSFiles are paths of PEM files, or what is in such. All may be empty.
type TLSFiles struct {
	CA         string // who signed the server's certificate; "" = the system's authorities
	Cert, Key  string // of this client
	ServerName string // in the server's certificate; "" = the host that is dialled
}

// String tells where the outbox is, without any password.
func (o Options) String() string {
	return fmt.Sprintf("%s, namespace %q", o.where(), o.Namespace)
}

// GoString keeps %#v from showing a password.
func (o Options) GoString() string { return o.String() }

func (o Options) where() string {
	if o.Sentinel != nil {
		return fmt.Sprintf("redis master %q of the sentinels %s", o.Sentinel.Master, strings.Join(o.Sentinel.Addrs, ", "))
	}
	if len(o.Cluster) > 0 {
		return "redis cluster " + strings.Join(o.Cluster, ", ")
	}
	to, err := o.target()
	if err != nil {
		return "redis at a URL that cannot be read"
	}
	u := url.URL{Scheme: "redis", Host: to.Addr, Path: fmt.Sprintf("/%d", to.DB)}
	if to.TLSConfig != nil {
		u.Scheme = "rediss"
	}
	if to.Network == "unix" {
		u = url.URL{Scheme: "unix", Path: to.Addr, RawQuery: fmt.Sprintf("db=%d", to.DB)}
	}
	if to.Username != "" {
		u.User = url.User(to.Username)
	}
	return u.String()
}

// target is the one server of the URL, with what wins over it.
func (o Options) target() (*redis.Options, error) {
	raw := o.URL
	if raw == "" {
		raw = defaultURL
	}
	to, err := redis.ParseURL(raw)
	if err != nil {
		// Its own words quote the URL, with the password.
		return nil, errors.New("parse redis url: write it like redis://user:password@127.0.0.1:6379/0, rediss://… or unix:///path; percent-encode special characters of the password")
	}
	if o.Username != "" {
		to.Username = o.Username
	}
	if o.Password != "" {
		to.Password = o.Password
	}
	if o.Database >= 0 {
		to.DB = o.Database
	}
	return to, nil
}

const (
	defaultURL = "redis://127.0.0.1:6379"

	dialTimeout = 2 * time.Second
	ioTimeout   = 5 * time.Second // a blocking read has its block + 10 s, which go-redis sets

	// Group commits come on 8 connections at most; the others are for claims,
	// lookups and health.
	dataConns  = 16
	dataBuffer = 256 << 10 // a group of accepts in few system calls

	// Each shard has one blocking read under way.
	spareBlockingConns = 2
	blockingBuffer     = 32 << 10
)

// conn is the connection to a server, to the master that Sentinels name, or to a
// Cluster. Nothing in it repeats or redirects a command: a script that may have
// run is run again by our own decision only.
type conn struct {
	data, reads redis.UniversalClient
}

// connect prepares the clients. It reads the TLS files and does no other I/O:
// connections are made by the first commands.
func connect(o Options) (*conn, error) {
	// The logger of go-redis is one for the process and writes to standard error.
	// All that it would say comes back as errors too, and those we do log.
	redis.SetLogger(mute{})

	data, err := o.client()
	if err != nil {
		return nil, err
	}
	data.ReadTimeout = max(ioTimeout, o.ReplicaTimeout+2*time.Second) // WAIT keeps a reply back
	data.PoolSize, data.ReadBufferSize, data.WriteBufferSize = dataConns, dataBuffer, dataBuffer
	reads, err := o.client()
	if err != nil {
		return nil, err
	}
	reads.PoolSize, reads.ReadBufferSize, reads.WriteBufferSize = o.blockingConns(), blockingBuffer, blockingBuffer
	return &conn{data: redis.NewUniversalClient(data), reads: redis.NewUniversalClient(reads)}, nil
}

func (o Options) blockingConns() int { return max(1, o.Shards) + spareBlockingConns }

// Connections is how many connections a Store with these options may have open: to one
// server, with Sentinels to them as well, and to each address of a Cluster that is named.
func (o Options) Connections() int {
	n := (dataConns + o.blockingConns()) * max(1, len(o.Cluster))
	if o.Sentinel != nil {
		n += 2 * len(o.Sentinel.Addrs)
	}
	return n
}

// client is what both clients have in common.
func (o Options) client() (*redis.UniversalOptions, error) {
	u := &redis.UniversalOptions{
		ClientName: "relay:" + o.Namespace,
		// RESP2 is the cheaper one: with RESP3 each reply is searched for pushed
		// notices first, which we do not use.
		Protocol: 2,

		MaxRetries:    -1,
		MaxRedirects:  -1,
		DialerRetries: 1,

		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout,
		ReadTimeout:           ioTimeout,
		WriteTimeout:          ioTimeout,

		PipelinePoolSize:         -1, // nearly all we send are pipelines: one pool
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch {
	case o.Sentinel != nil:
		u.Addrs, u.MasterName = o.Sentinel.Addrs, o.Sentinel.Master
		u.SentinelUsername, u.SentinelPassword = o.Sentinel.Username, o.Sentinel.Password
		u.Username, u.Password, u.DB = o.Username, o.Password, max(0, o.Database)
	case len(o.Cluster) > 0:
		u.Addrs, u.IsClusterMode = o.Cluster, true
		u.Username, u.Password = o.Username, o.Password
	default:
		to, err := o.target()
		if err != nil {
			return nil, err
		}
		u.Addrs, u.Username, u.Password, u.DB = []string{to.Addr}, to.Username, to.Password, to.DB
		if to.TLSConfig != nil {
			u.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	if o.TLS != nil {
		var err error
		if u.TLSConfig, err = o.TLS.config(); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (f *TLSFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CA != "" {
		pem, err := readPEM(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read redis ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("read redis ca: it holds no PEM certificate")
		}
	}
	if f.Cert != "" || f.Key != "" {
		cert, err := readPEM(f.Cert)
		if err != nil {
			return nil, fmt.Errorf("read redis client certificate: %w", err)
		}
		key, err := readPEM(f.Key)
		if err != nil {
			return nil, fmt.Errorf("read redis client key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil { // it may quote them
			return nil, errors.New("read redis client certificate: cert and key are not PEM of one pair")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// readPEM reads the file, unless it is given the content. Its errors quote neither.
func readPEM(s string) ([]byte, error) {
	if strings.Contains(s, "-----BEGIN ") {
		return []byte(s), nil
	}
	data, err := os.ReadFile(s)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return data, err
}

// node is the client of the server that has the key: in a Cluster the master of
// its slot, else the one there is. A pipeline on it goes over one connection, so
// a script and the WAIT after it belong together. The errors are go-redis' own.
func (c *conn) node(ctx context.Context, key string) (*redis.Client, error) {
	return owner(ctx, c.data, key)
}

// blocking is node for reads that block; they have a pool of their own, so that
// they never keep a commit waiting for a connection.
func (c *conn) blocking(ctx context.Context, key string) (*redis.Client, error) {
	return owner(ctx, c.reads, key)
}

func owner(ctx context.Context, u redis.UniversalClient, key string) (*redis.Client, error) {
	if cluster, ok := u.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return u.(*redis.Client), nil
}

// masters are all servers that hold keys.
func (c *conn) masters(ctx context.Context) ([]*redis.Client, error) {
	cluster, ok := c.data.(*redis.ClusterClient)
	if !ok {
		return []*redis.Client{c.data.(*redis.Client)}, nil
	}
	var mu sync.Mutex
	var all []*redis.Client
	err := cluster.ForEachMaster(ctx, func(_ context.Context, m *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, m)
		return nil
	})
	return all, err
}

// refresh reads again who has which slot of a Cluster, after MOVED or ASK and
// after a master is gone. When nobody answers, what was known stays.
func (c *conn) refresh(ctx context.Context) {
	for _, u := range []redis.UniversalClient{c.data, c.reads} {
		if cluster, ok := u.(*redis.ClusterClient); ok {
			// It loads the state before it visits the masters.
			_ = cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
		}
	}
}

// Close closes all connections: reads that block end now, with an error.
func (c *conn) Close() error {
	if err := errors.Join(c.reads.Close(), c.data.Close()); err != nil {
		return fmt.Errorf("close redis connections: %w", err)
	}
	return nil
}

// mute is a logger of go-redis that says nothing.
type mute struct{}

func (mute) Printf(context.Context, string, ...any) {}
