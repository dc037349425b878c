// Package pebble runs Let's Encrypt's test authority (letsencrypt/pebble) as a process, with a
// name server of its own that says 127.0.0.1 for every host. It checks challenges as a public
// authority does.
package pebble

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
)

// Options of a CA.
type Options struct {
	Validity time.Duration     // of certificates; 0 = 90 days
	MACKeys  map[string]string // by key id: accounts need external binding
}

// CA is a running authority. It reaches hosts through HTTP and TLS, which forward to where a test
// says.
type CA struct {
	Directory string // its URL
	Roots     []byte // PEM: of its own server
	HTTP, TLS *Forwarder

	t          testing.TB
	dir        string
	management string
	dns        string
	client     *http.Client
	log        *testkit.Log
	process    *exec.Cmd
}

// New prepares a CA that does not run yet.
func New(t testing.TB, o Options) *CA {
	t.Helper()
	c := &CA{t: t, dir: t.TempDir(), HTTP: forward(t), TLS: forward(t), log: new(testkit.Log)}
	listen, management, dns := freeAddr(t), freeAddr(t), freeAddr(t)
	_, port, _ := net.SplitHostPort(listen)
	c.Directory, c.management, c.dns = "https://localhost:"+port+"/dir", management, dns
	cert, key := testkit.Certificate(t, "localhost")
	c.Roots = cert
	testkit.Must(t, os.WriteFile(filepath.Join(c.dir, "cert.pem"), cert, 0o600))
	testkit.Must(t, os.WriteFile(filepath.Join(c.dir, "key.pem"), key, 0o600))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}}}
	t.Cleanup(c.client.CloseIdleConnections)
	if o.Validity == 0 {
		o.Validity = 90 * 24 * time.Hour
	}
	settings := map[string]any{
		"listenAddress": listen, "managementListenAddress": management, "certificate": "cert.pem", "privateKey": "key.pem",
		"httpPort": c.HTTP.port(), "tlsPort": c.TLS.port(), "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles":                       map[string]any{"default": map[string]any{"description": "test", "validityPeriod": int(o.Validity.Seconds())}},
		"externalAccountBindingRequired": len(o.MACKeys) > 0, "externalAccountMACKeys": o.MACKeys,
	}
	text, err := json.Marshal(map[string]any{"pebble": settings})
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(filepath.Join(c.dir, "pebble.json"), text, 0o600))
	run(t, new(testkit.Log), c.dir, tool(t, "pebble-challtestsrv"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", dns,
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", freeAddr(t))
	testkit.Until(t, "the name server", func() bool {
		conn, err := net.Dial("tcp", dns)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return c
}

// Start starts the CA and waits until it answers. It ends with the test.
func (c *CA) Start() {
	c.t.Helper()
	c.process = run(c.t, c.log, c.dir, tool(c.t, "pebble"), "-config", "pebble.json", "-dnsserver", c.dns)
	testkit.Until(c.t, "the CA", func() bool {
		res, err := c.client.Get(c.Directory)
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == 200
	})
}

// Stop kills the CA. Its accounts and orders are gone.
func (c *CA) Stop() {
	_ = c.process.Process.Kill()
	_, _ = c.process.Process.Wait()
	c.client.CloseIdleConnections()
}

// Root is the authority that its certificates come from; each Start makes another.
func (c *CA) Root() *x509.CertPool {
	c.t.Helper()
	var res *http.Response
	testkit.Until(c.t, "the CA to tell its root", func() bool { // it listens there on its own time
		var err error
		res, err = c.client.Get("https://" + c.management + "/roots/0")
		return err == nil
	})
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	testkit.Must(c.t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		c.t.Fatalf("the CA has no root: %s", text)
	}
	return pool
}

// Issued is how many certificates it made.
func (c *CA) Issued() int { return c.log.Count("Issued certificate serial") }

// Log is what it says.
func (c *CA) Log() string { return c.log.String() }

// tool builds a program of .tools and returns its path.
func tool(t testing.TB, name string) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	testkit.Must(t, err)
	cmd := exec.Command("go", "tool", "-n", "-modfile="+filepath.Join(filepath.Dir(string(bytes.TrimSpace(mod))), ".tools", "go.mod"), name)
	var failed bytes.Buffer
	cmd.Stderr = &failed
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, failed.String())
	}
	return strings.TrimSpace(string(path))
}

// run starts a process that ends with the test.
func run(t testing.TB, log *testkit.Log, dir, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", filepath.Base(path), log)
		}
	})
	return cmd
}

// freeAddr is an address for a program that takes no port 0.
func freeAddr(t testing.TB) string { return testkit.Loopback(testkit.Port(t)) }

// Forwarder hands connections on to an address that a test can change.
type Forwarder struct {
	l    net.Listener
	mu   sync.Mutex
	to   string
	seen int
}

func forward(t testing.TB) *Forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	f := &Forwarder{l: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return f
}

func (f *Forwarder) port() int { return f.l.Addr().(*net.TCPAddr).Port }

// To sends what comes from now on to an address; "" refuses it.
func (f *Forwarder) To(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = addr
}

// Seen is how many connections came.
func (f *Forwarder) Seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *Forwarder) pass(c net.Conn) {
	defer c.Close()
	f.mu.Lock()
	to := f.to
	f.seen++
	f.mu.Unlock()
	if to == "" {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	deadline := time.Now().Add(time.Minute)
	_, _ = c.SetDeadline(deadline), out.SetDeadline(deadline)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, c)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, out)
	_ = c.Close()
	<-done
}

// String is for messages of tests.
func (c *CA) String() string { return fmt.Sprintf("CA at %s", c.Directory) }
