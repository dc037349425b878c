package redisstream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox/redisstream/redistest"
)

// connectTest connects and closes with the test.
func connectTest(t *testing.T, o Options) *conn {
	t.Helper()
	c, err := connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// at is the options of a test for a server.
func at(url string) Options {
	return Options{URL: url, Namespace: "relay", Shards: 1, Database: -1, Durability: Memory}
}

func nodeTest(t *testing.T, c *conn) *redis.Client {
	t.Helper()
	m, err := c.node(t.Context(), "{relay:0}:meta")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// await polls a condition.
func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ready(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not after 30 s: %s", what)
		}
	}
}

func TestOptionsShowNoPassword(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Database: -1}, "redis://127.0.0.1:6379/0"},
		{Options{URL: "redis://canary@h:1/2", Database: -1}, "redis://canary@h:1/2"}, // a user
		{Options{URL: "redis://me:canary1@h:1/2", Database: 3}, "redis://me@h:1/3"},
		{Options{URL: "rediss://:canary1@h", Database: -1}, "rediss://h:6379/0"},
		{Options{URL: "redis://me:canary1@h", Username: "you", Password: "canary1", Database: -1}, "redis://you@h:6379/0"},
		{Options{URL: "unix://me:canary1@/run/redis.sock?db=4", Database: -1}, "unix://me@/run/redis.sock?db=4"},
		{Options{URL: "redis://me:canary1%@h:p/x", Database: -1}, "a URL that cannot be read"},
		{Options{Sentinel: &Sentinel{Master: "m", Addrs: []string{"a:1", "b:2"}, Password: "canary1"}, Password: "canary1"}, `redis master "m" of the sentinels a:1, b:2`},
		{Options{Cluster: []string{"a:1", "b:2"}, Password: "canary1"}, "redis cluster a:1, b:2"},
	} {
		tt.o.Namespace = "orders"
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			got := fmt.Sprintf(verb, tt.o)
			if !strings.Contains(got, tt.want) || !strings.Contains(got, `namespace "orders"`) || strings.Contains(got, "canary1") {
				t.Errorf("%s: got %s, want %s", verb, got, tt.want)
			}
		}
	}
	if _, err := connect(at("redis://me:canary1%@h:p/x")); err == nil || strings.Contains(err.Error(), "canary1") {
		t.Errorf("a bad URL: %v", err)
	}
}

func TestConnect(t *testing.T) {
	s := redistest.Start(t, "--requirepass", "secret")
	for name, o := range map[string]Options{
		"unix": at(s.URL()),
		"tcp":  at(s.TCPURL()),
		"password beside the URL": func() Options {
			o := at("redis://:wrong@" + s.Addr() + "/9")
			o.Username, o.Password, o.Database = "default", "secret", 3
			return o
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			c := connectTest(t, o)
			info, err := nodeTest(t, c).ClientInfo(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			if info.Name != "relay:relay" || info.Resp != 2 || info.User != "default" {
				t.Errorf("got %+v", info)
			}
			if o.Database == 3 && info.DB != 3 {
				t.Errorf("database %d", info.DB)
			}
			c.refresh(t.Context()) // means nothing here
		})
	}
}

func TestCloseEndsBlockedReads(t *testing.T) {
	s := redistest.Start(t)
	c := connectTest(t, at(s.URL()))
	ended := make(chan error, 1)
	go func() {
		client, err := c.blocking(context.Background(), "{relay:0}:bell")
		if err == nil {
			err = client.XRead(context.Background(), &redis.XReadArgs{Streams: []string{"{relay:0}:bell", "$"}, Block: time.Hour}).Err()
		}
		ended <- err
	}()
	await(t, "a client blocks", func() bool {
		list, _ := s.Do("INFO", "clients")
		text, _ := list.(string)
		return strings.Contains(text, "blocked_clients:1")
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if got := broken(err); err == nil || got != "closed" {
		t.Errorf("got %v, code %q", err, got)
	}
	if _, err := nodeTest(t, c).Ping(t.Context()).Result(); broken(err) != "closed" || uncertain(err) {
		t.Errorf("after Close: %v", err)
	}
}

// standIn is a server that answers OK to all but the command it is there for: to
// that it answers as told, or with "" closes the connection.
func standIn(t *testing.T, l net.Listener, command string, answer string) (got *atomic.Int64) {
	t.Helper()
	got = new(atomic.Int64)
	var all sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			head, err := in.ReadString('\n')
			if err != nil {
				return
			}
			n, _ := strconv.Atoi(strings.TrimSpace(head[1:]))
			var words []string
			for range n {
				_, _ = in.ReadString('\n') // the length: no word here has a line break
				word, err := in.ReadString('\n')
				if err != nil {
					return
				}
				words = append(words, strings.ToLower(strings.TrimSpace(word)))
			}
			reply := "+OK\r\n"
			if words[0] == "hello" {
				reply = "*2\r\n$5\r\nproto\r\n:2\r\n"
			}
			if words[0] == command {
				got.Add(1)
				if reply = answer; reply == "" {
					return
				}
			}
			if _, err := c.Write([]byte(reply)); err != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return got
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A script that is executed twice must be our own decision.
func TestNothingIsRepeated(t *testing.T) {
	for name, answer := range map[string]string{
		"connection lost": "", "loading": "-LOADING x\r\n", "readonly": "-READONLY x\r\n", "moved": "-MOVED 1 127.0.0.1:1\r\n", "max clients": "-ERR max number of clients reached\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t)
			got := standIn(t, l, "evalsha", answer)
			m := nodeTest(t, connectTest(t, at("redis://"+l.Addr().String())))
			err := m.EvalSha(t.Context(), "x", []string{"k"}).Err()
			if err == nil || uncertain(err) != (answer == "") || !retryable(err) {
				t.Errorf("alone: %v", err)
			}
			p := m.Pipeline()
			p.EvalSha(t.Context(), "x", []string{"k"})
			p.Do(t.Context(), "wait", 1, 0)
			if _, err := p.Exec(t.Context()); err == nil {
				t.Error("pipeline: no error")
			}
			if n := got.Load(); n != 2 {
				t.Errorf("sent %d times, want 2", n)
			}
		})
	}
}

func TestCluster(t *testing.T) {
	nodes := redistest.StartCluster(t, 2, 0, "--maxmemory", "50mb")
	ctx := t.Context()
	o := Options{Cluster: nodes.Addrs()[:1], Namespace: "relay", Shards: 4, Database: -1, Durability: Memory}
	c := connectTest(t, o)
	if all, err := c.masters(ctx); err != nil || len(all) != 2 {
		t.Fatalf("masters: %v, %v", all, err)
	}
	node := func(key string) *redis.Client {
		t.Helper()
		m, err := c.node(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for i := range o.Shards {
		key := newKeys(o.Namespace, i).meta
		m := node(key)
		if m.Options().Addr != nodes.Owner(nodes.Slot(key)).Addr() {
			t.Errorf("%s is not at %s", key, m.Options().Addr)
		}
		if b, err := c.blocking(ctx, key); err != nil || b == m || b.Options().Addr != m.Options().Addr {
			t.Errorf("blocking: %v, %v", b, err)
		}
	}
	f, err := Probe(ctx, o)
	if err != nil || f.Refusal() != nil || len(f.List) != 2 || !strings.HasPrefix(f.List[0].What, "127.0.0.1:") {
		t.Errorf("probe: %v, %v", f, err)
	}

	// While a slot moves: what is there is answered, what is not is elsewhere (ASK),
	// and what is half there cannot be (TRYAGAIN).
	const key, other = "{relay:0}:a", "{relay:0}:b"
	if err := node(key).MSet(ctx, other, "v").Err(); err != nil {
		t.Fatal(err)
	}
	slot := nodes.Slot(key)
	from := node(key)
	to := nodes.Node(0)
	if to.Addr() == from.Options().Addr {
		to = nodes.Node(1)
	}
	nodes.BeginMove(slot, to)
	err = from.Set(ctx, key, "v", 0).Err()
	pin(t, err, "ask")
	pin(t, from.MGet(ctx, key, other).Err(), "tryagain")
	nodes.FinishMove(slot, to)
	err = from.Set(ctx, key, "v", 0).Err()
	pin(t, err, "moved")
	if !isMoved(err) || uncertain(err) || !retryable(err) {
		t.Error("moved: wrong kind")
	}
	c.refresh(ctx)
	if m := node(key); m.Options().Addr != to.Addr() || m.Set(ctx, key, "v", 0).Err() != nil {
		t.Errorf("after refresh at %s, want %s", m.Options().Addr, to.Addr())
	}

	// With all down, what was known stays.
	nodes.Node(0).Kill()
	nodes.Node(1).Kill()
	c.refresh(ctx)
	pin(t, node(key).Get(ctx, key).Err(), "dial")
}

func TestSentinel(t *testing.T) {
	fleet := redistest.StartSentinel(t, 1, "--maxmemory", "50mb")
	o := Options{
		Sentinel: &Sentinel{Master: fleet.Name(), Addrs: fleet.Sentinels()}, Database: -1, Namespace: "relay", Shards: 1,
		Durability: Replicated, Replicas: 1, ReplicaTimeout: time.Second,
	}
	c := connectTest(t, o)
	m := nodeTest(t, c)
	if err := m.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	f, err := Probe(t.Context(), o)
	if err != nil || f.Refusal() != nil || !strings.Contains(told(f), "ok 1 replicas are connected") {
		t.Errorf("probe: %s, %v", told(f), err)
	}
	old := fleet.Master()
	old.Kill()
	if err := m.Set(t.Context(), "k", "v", 0).Err(); !retryable(err) {
		t.Errorf("a dead master: %v", err)
	}
	fleet.WaitFailover(old)
	// The client finds the new master by itself.
	await(t, "writes go on", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return m.Set(ctx, "k", "v", 0).Err() == nil
	})
	if m != nodeTest(t, c) {
		t.Error("another client")
	}

	o.Sentinel.Master = "nobody"
	err = nodeTest(t, connectTest(t, o)).Get(t.Context(), "k").Err()
	pin(t, err, "no_master")
	if isNil(err) || uncertain(err) || !retryable(err) {
		t.Error("no master: wrong kind")
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, pool := selfSigned(t, dir)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	l := tls.NewListener(listen(t), config)
	standIn(t, l, "", "")
	url := "rediss://" + l.Addr().String()
	ca, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")

	good := at(url)
	good.TLS = &TLSFiles{CA: ca, Cert: ca, Key: key, ServerName: "redis.test"}
	if err := nodeTest(t, connectTest(t, good)).Ping(t.Context()).Err(); err != nil {
		t.Errorf("good: %v", err)
	}
	for name, files := range map[string]*TLSFiles{
		"unknown authority":     nil,
		"wrong name":            {CA: ca, Cert: ca, Key: key},
		"no client certificate": {CA: ca, ServerName: "redis.test"},
	} {
		bad := at(url)
		bad.TLS = files
		err := nodeTest(t, connectTest(t, bad)).Ping(t.Context()).Err()
		if err == nil || name != "no client certificate" && broken(err) != "tls" {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, files := range map[string]TLSFiles{
		"no such file":          {CA: filepath.Join(dir, "missing")},
		"no PEM certificate":    {CA: empty},
		"client certificate":    {Cert: empty, Key: empty},
		"read redis client key": {Cert: ca},
		"holds no PEM":          {CA: "-----BEGIN CERTIFICATE-----\nsecret"},
	} {
		bad := at(url)
		bad.TLS = &files
		if _, err := connect(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// selfSigned writes cert.pem and key.pem of redis.test.
func selfSigned(t *testing.T, dir string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"redis.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, text := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pair, pool
}
