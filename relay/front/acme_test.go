package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/config"
	"relay/internal/testkit"
	"relay/internal/testkit/pebble"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
	"relay/relay/certstore"
)

// withCA is a stage whose certificates come from a CA, kept in a folder.
func withCA(t *testing.T, ca *pebble.CA, dir string) *stage {
	s := newStage(t)
	s.acme = config.ACME{CA: ca.Directory, Roots: ca.Roots, Email: "ops@example.com", Challenges: []string{"http-01", "tls-alpn-01"}}
	s.options.Certs = CertOptions{Storage: func() (Storage, error) { return certstore.Files(dir), nil }, Renew: 200 * time.Millisecond}
	return s
}

// storageIn is a folder for a stage. What is under way at a CA when the test ends may still write to it.
func storageIn(t *testing.T) string {
	dir, err := os.MkdirTemp("", "relay-certificates-")
	testkit.Must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for err := os.RemoveAll(dir); err != nil; err = os.RemoveAll(dir) {
			if !testkit.Wait(ctx, 50*time.Millisecond) {
				t.Errorf("remove folder: %v", err)
				return
			}
		}
	})
	return dir
}

// acmeFront is a front without a certificate of its own.
func (s *stage) acmeFront(name string) config.Front {
	c := s.frontTo(app(s.t, echo))
	c.Host, c.TLS = name, nil
	return c
}

// reach lets the CA reach this front.
func (s *stage) reach(ca *pebble.CA) {
	ca.HTTP.To(s.addr("http"))
	ca.TLS.To(s.addr("https"))
}

// served is the certificate of a host, nil if there is none.
func (s *stage) served(name string) *x509.Certificate {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	c, err := tls.DialWithDialer(dialer, "tcp", s.addr("https"), &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint — what is served is looked at
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// awaitCertificate waits until a host has a certificate that the root vouches for.
func (s *stage) awaitCertificate(name string, root *x509.CertPool) *x509.Certificate {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	for {
		if c, err := tls.Dial("tcp", s.addr("https"), &tls.Config{ServerName: name, RootCAs: root}); err == nil {
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0]
		}
		if !testkit.Wait(ctx, 50*time.Millisecond) {
			s.t.Fatalf("no certificate for %s:\n%s", name, s.log)
		}
	}
}

// A certificate is obtained, served, kept for the next start, and kept from other users.
func TestCertificateIsObtained(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			ca := pebble.New(t, pebble.Options{})
			ca.Start()
			root, dir := ca.Root(), filepath.Join(storageIn(t), "certificates")
			s := withCA(t, ca, dir)
			s.acme.Challenges = []string{challenge}
			c := s.acmeFront(host)
			s.open(c)
			s.reach(ca)
			first := s.awaitCertificate(host, root)
			testkit.Until(t, "the line", func() bool { return s.log.Count(`"message":"certificate obtained"`) > 0 })
			if first.DNSNames[0] != host || s.log.Count(`"message":"certificate obtained"`) != 1 {
				t.Errorf("got %v; the log says\n%s", first.DNSNames, s.log)
			}
			seen := map[string]int{"http-01": ca.HTTP.Seen(), "tls-alpn-01": ca.TLS.Seen()}
			for kind, n := range seen {
				if (n > 0) != (kind == challenge) {
					t.Errorf("%s: %d connections came", kind, n)
				}
			}
			if all := s.f.Certificates(); len(all) != 1 || !all[0].Expires.Equal(first.NotAfter) {
				t.Errorf("certificates: %+v", all)
			}
			files := 0
			testkit.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				info, _ := d.Info()
				if files++; info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %v", path, info.Mode())
				}
				return err
			}))
			if files < 5 {
				t.Errorf("only %d files", files)
			}
			ca.Stop()
			again := withCA(t, ca, dir)
			again.open(again.acmeFront(host))
			if got := again.awaitCertificate(host, root); got.SerialNumber.Cmp(first.SerialNumber) != 0 {
				t.Error("another certificate is served after a restart")
			}
			for _, said := range []string{s.log.String(), again.log.String()} {
				if strings.Contains(said, "PRIVATE KEY") {
					t.Error("a key is logged")
				}
			}
		})
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	ca := pebble.New(t, pebble.Options{Validity: 12 * time.Second})
	ca.Start()
	root := ca.Root()
	s := withCA(t, ca, storageIn(t))
	s.open(s.acmeFront(host))
	s.reach(ca)
	first := s.awaitCertificate(host, root)
	testkit.Until(t, "another certificate", func() bool {
		now := s.served(host)
		return now != nil && now.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	testkit.Until(t, "the line", func() bool { return s.log.Count(`"message":"certificate renewed"`) > 0 })
}

// A CA that is away at the start keeps nothing else from working: files, plain hosts, and a
// certificate from the last run, even one that expired. It is asked again.
func TestCAIsAwayAtStart(t *testing.T) {
	t.Parallel() // it mostly waits
	ca := pebble.New(t, pebble.Options{Validity: time.Second})
	ca.Start()
	dir := storageIn(t)
	old := withCA(t, ca, dir)
	old.options.Certs.Renew = time.Hour
	old.open(old.acmeFront("old.example.com"))
	old.reach(ca)
	var expired *x509.Certificate
	testkit.Until(t, "the old certificate", func() bool { expired = old.served("old.example.com"); return expired != nil })
	ca.Stop()
	testkit.Until(t, "it to expire", func() bool { return time.Now().After(expired.NotAfter) })
	accounts, err := filepath.Glob(filepath.Join(dir, "acme", "*", "users"))
	testkit.Must(t, err)
	if len(accounts) != 1 {
		t.Fatalf("accounts in %q", accounts)
	}
	testkit.Must(t, os.RemoveAll(accounts[0])) // of lost accounts is another test

	s := withCA(t, ca, dir)
	files := s.frontTo(app(t, echo))
	s.open(files, s.acmeFront("new.example.com"), s.acmeFront("old.example.com"))
	s.reach(ca)
	if res, _ := s.do(request(t, "GET", "https://"+host+"/", "")); res.StatusCode != 200 {
		t.Errorf("a front with files: %d", res.StatusCode)
	}
	testkit.Until(t, "the expired certificate", func() bool {
		got := s.served("old.example.com")
		if got == nil || time.Now().Before(got.NotAfter) { // the CA may have renewed it before it was stopped
			return false
		}
		expired = got
		return true
	})
	if s.served("new.example.com") != nil {
		t.Error("a host without certificate is served")
	}
	testkit.Until(t, "a word about it", func() bool { return s.log.Count("new.example.com") > 0 && s.log.Count(`"level":"warn"`) > 0 })
	ca.Start()
	for name, before := range map[string]*x509.Certificate{"new.example.com": nil, "old.example.com": expired} {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		for {
			if got := s.served(name); got != nil && (before == nil || got.SerialNumber.Cmp(before.SerialNumber) != 0) {
				break
			}
			if !testkit.Wait(ctx, 100*time.Millisecond) {
				t.Errorf("no new certificate for %s:\n%s", name, s.log)
				break
			}
		}
		cancel()
	}
}

// A CA that has lost its accounts gives a new one when it is asked again.
func TestAccountsAreLost(t *testing.T) {
	t.Parallel() // it mostly waits
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	dir := storageIn(t)
	before := withCA(t, ca, dir)
	before.open(before.acmeFront("known.example.com"))
	before.reach(ca)
	before.awaitCertificate("known.example.com", ca.Root())
	ca.Stop()
	ca.Start()
	s := withCA(t, ca, dir)
	s.open(s.acmeFront("lost.example.com"))
	s.reach(ca)
	s.awaitCertificate("lost.example.com", ca.Root())
}

// full is a storage that takes nothing while it is full.
type full struct {
	Storage
	is atomic.Bool
}

func (f *full) Store(ctx context.Context, key string, value []byte) error {
	if f.is.Load() {
		return &os.PathError{Op: "write", Path: key, Err: syscall.ENOSPC}
	}
	return f.Storage.Store(ctx, key, value)
}

// With a full storage no order is made, which would count at the CA; when there is room the
// certificate comes.
func TestStorageIsFull(t *testing.T) {
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	s := withCA(t, ca, storageIn(t))
	storage := &full{Storage: certstore.Files(storageIn(t))}
	storage.is.Store(true)
	s.options.Certs.Storage = func() (Storage, error) { return storage, nil }
	files := s.frontTo(app(t, echo))
	s.open(files, s.acmeFront("new.example.com"))
	s.reach(ca)
	testkit.Until(t, "a word about it", func() bool { return s.log.Count("there is no certificate for the host yet") > 0 })
	if !strings.Contains(s.log.String(), "no space left on device") || strings.Contains(ca.Log(), "new-order") {
		t.Errorf("the log says\n%s\nthe CA says\n%s", s.log, ca.Log())
	}
	if res, _ := s.do(request(t, "GET", "https://"+host+"/", "")); res.StatusCode != 200 {
		t.Errorf("a front with files: %d", res.StatusCode)
	}
	storage.is.Store(false)
	s.awaitCertificate("new.example.com", ca.Root())
}

// Hosts of a pattern get a certificate when they are asked for, if the app says so.
func TestOnDemand(t *testing.T) {
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	var asked atomic.Int32
	ask := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Query().Get("domain") != "customer.example.net" || r.URL.Query().Get("k") != "v" {
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(ask.Close)
	s := withCA(t, ca, storageIn(t))
	s.acme.Ask = ask.URL + "/may?k=v"
	any := s.acmeFront("*")
	s.open(any)
	s.reach(ca)
	if s.served("evil.example.net") != nil || s.served("127.0.0.1") != nil {
		t.Error("a host that the app does not know gets a certificate")
	}
	if strings.Contains(ca.Log(), "evil") {
		t.Error("the CA was asked for it")
	}
	s.awaitCertificate("customer.example.net", ca.Root())
	ask.Close()
	if s.served("customer.example.net") == nil {
		t.Error("while the app is away, a certificate that is there is not served")
	}
	if s.served("other.example.net") != nil {
		t.Error("while the app is away, a new host gets a certificate")
	}
}

func TestExternalAccountBinding(t *testing.T) {
	const hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	ca := pebble.New(t, pebble.Options{MACKeys: map[string]string{"kid-1": hmac}})
	ca.Start()
	s := withCA(t, ca, storageIn(t))
	s.acme.KeyID, s.acme.HMAC = config.NewSecret("kid-1"), config.NewSecret(hmac)
	s.open(s.acmeFront(host))
	s.reach(ca)
	s.awaitCertificate(host, ca.Root())
	if strings.Contains(s.log.String(), hmac) {
		t.Error("the key is logged")
	}
}

// onRedis is a stage whose certificates are in Redis.
func onRedis(t *testing.T, ca *pebble.CA, server *redistest.Server) *stage {
	s := withCA(t, ca, "")
	s.options.Certs.Storage = func() (Storage, error) {
		client, err := redisstream.Connect(redisstream.Options{URL: server.URL(), Namespace: "orders", Database: -1})
		if err != nil {
			return nil, err
		}
		return certstore.OpenRedis(certstore.Options{Client: client, Namespace: "orders"}), nil
	}
	return s
}

// Two Relays on one Redis obtain a certificate once, whichever of them the CA asks.
func TestFleetObtainsOnce(t *testing.T) {
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	server := redistest.Start(t)
	a, b := onRedis(t, ca, server), onRedis(t, ca, server)
	front := a.acmeFront(host)
	a.open(front)
	ca.HTTP.To(a.addr("http")) // the CA always asks this one
	ca.TLS.To(a.addr("https"))
	b.open(front)
	root := ca.Root()
	one, two := a.awaitCertificate(host, root), b.awaitCertificate(host, root)
	if one.SerialNumber.Cmp(two.SerialNumber) != 0 || ca.Issued() != 1 {
		t.Errorf("%d certificates were made; the same is served: %v", ca.Issued(), one.SerialNumber.Cmp(two.SerialNumber) == 0)
	}
	if n := a.log.Count(`"message":"certificate obtained"`) + b.log.Count(`"message":"certificate obtained"`); n != 1 {
		t.Errorf("%d say that they obtained it", n)
	}
}

// The other Relay answers the challenge of the one that asked: they share what they need for it.
func TestChallengeIsAnsweredByTheOther(t *testing.T) {
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		ca := pebble.New(t, pebble.Options{})
		ca.Start()
		server := redistest.Start(t)
		asker, other := onRedis(t, ca, server), onRedis(t, ca, server)
		asker.acme.Challenges, other.acme.Challenges = []string{challenge}, []string{challenge}
		front := asker.acmeFront(host)
		idle := front
		idle.Host = "*" // it serves the host, and does not obtain it by itself
		other.acme.Ask = "http://127.0.0.1:1/"
		other.open(idle)
		other.reach(ca)
		asker.open(front)
		asker.awaitCertificate(host, ca.Root())
	}
}

// A Relay that dies while it obtains a certificate leaves the work to another.
func TestHolderDies(t *testing.T) {
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	server := redistest.Start(t)
	server.MustDo(t, "SET", "{orders:certs}:lock:issue_cert_"+host, "of a Relay that died", "PX", "1500")
	s := onRedis(t, ca, server)
	s.open(s.acmeFront(host))
	s.reach(ca)
	s.awaitCertificate(host, ca.Root())
	if ca.Issued() != 1 {
		t.Errorf("%d certificates were made", ca.Issued())
	}
}

// While Redis is away, what is in memory is served; at a start without it everything but the
// certificate works, and that comes later.
func TestRedisIsAway(t *testing.T) {
	ca := pebble.New(t, pebble.Options{})
	ca.Start()
	server := redistest.Start(t)
	s := onRedis(t, ca, server)
	s.open(s.acmeFront(host))
	s.reach(ca)
	s.awaitCertificate(host, ca.Root())
	server.Kill()
	if s.served(host) == nil {
		t.Error("the certificate in memory is not served")
	}
	late := onRedis(t, ca, server)
	files := late.frontTo(app(t, echo))
	named := late.acmeFront("late.example.com")
	late.open(files, named)
	late.reach(ca)
	if res, _ := late.do(request(t, "GET", "https://"+host+"/", "")); res.StatusCode != 200 {
		t.Errorf("a front with files: %d", res.StatusCode)
	}
	testkit.Until(t, "a word about it", func() bool { return late.log.Count("there is no certificate for the host yet") > 0 })
	server.Start()
	server.WaitReady()
	late.awaitCertificate("late.example.com", ca.Root())
}

// Work under a lock that was lost ends, so that no two Relays go on with the same.
func TestLostLockEndsTheWork(t *testing.T) {
	hang := make(chan struct{})
	entered := make(chan struct{}, 8)
	ca := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(ca.Close)
	t.Cleanup(func() { close(hang) })
	server := redistest.Start(t)
	s := newStage(t)
	client, err := redisstream.Connect(redisstream.Options{URL: server.URL(), Namespace: "orders", Database: -1})
	testkit.Must(t, err)
	storage := certstore.OpenRedis(certstore.Options{Client: client, Namespace: "orders", Lease: time.Second})
	s.options.Certs.Storage = func() (Storage, error) { return storage, nil }
	s.acme = config.ACME{CA: ca.URL, Challenges: []string{"http-01"}}
	s.open(s.acmeFront(host))
	<-entered
	server.MustDo(t, "SET", "{orders:certs}:lock:issue_cert_"+host, "another")
	testkit.Until(t, "the work to end", func() bool { return strings.Contains(s.log.String(), errLockLost.Error()) })
}

// A reload that takes a host away ends its renewal, one that changes the CA asks the new one.
func TestReloadOfAuthority(t *testing.T) {
	one, two := pebble.New(t, pebble.Options{}), pebble.New(t, pebble.Options{})
	one.Start()
	two.Start()
	s := withCA(t, one, storageIn(t))
	c := s.acmeFront(host)
	s.open(c)
	s.reach(one)
	s.reach(two)
	s.awaitCertificate(host, one.Root())
	s.acme.CA, s.acme.Roots = two.Directory, two.Roots
	s.apply(c)
	s.awaitCertificate(host, two.Root())
	other := c
	other.Host = "other.example.com"
	s.apply(other)
	s.awaitCertificate("other.example.com", two.Root())
	if s.served(host) != nil {
		t.Error("a host that went is served")
	}
	if errors.Is(s.f.ctx.Err(), context.Canceled) {
		t.Error("the front stopped")
	}
	if got := fmt.Sprint(s.f.Certificates()); !strings.Contains(got, "other.example.com") || strings.Contains(got, host) {
		t.Errorf("certificates: %s", got)
	}
}
