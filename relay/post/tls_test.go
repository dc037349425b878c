package post

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Fault F34: each trouble with TLS has its code.
func TestTLS(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve func(a *delivertest.Authority) *tls.Config
		code  string
	}{
		{"good", func(a *delivertest.Authority) *tls.Config { return a.Issue("billing.test", time.Now().Add(time.Hour)) }, ""},
		{"TLS 1.2", func(a *delivertest.Authority) *tls.Config {
			s := a.Issue("billing.test", time.Now().Add(time.Hour))
			s.MaxVersion = tls.VersionTLS12
			return s
		}, ""},
		{"expired", func(a *delivertest.Authority) *tls.Config { return a.Issue("billing.test", time.Now().Add(-time.Hour)) }, "tls_expired"},
		{"wrong name", func(a *delivertest.Authority) *tls.Config { return a.Issue("crm.test", time.Now().Add(time.Hour)) }, "tls_wrong_name"},
		{"unknown authority", func(*delivertest.Authority) *tls.Config {
			return delivertest.NewAuthority(t).Issue("billing.test", time.Now().Add(time.Hour))
		}, "tls_unknown_authority"},
		{"TLS 1.1", func(a *delivertest.Authority) *tls.Config {
			s := a.Issue("billing.test", time.Now().Add(time.Hour))
			s.MinVersion, s.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
			return s
		}, "tls_failed"},
		{"wants a client certificate", func(a *delivertest.Authority) *tls.Config {
			s := a.Issue("billing.test", time.Now().Add(time.Hour))
			s.ClientAuth = tls.RequireAnyClientCert
			return s
		}, "tls_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothSecureSenders(t, func(t *testing.T, protocols ...string) {
				w := newWorld(t)
				a := delivertest.NewAuthority(t)
				w.o.Network.Roots = a.Pool()
				receiver := delivertest.NewEndpoint()
				receiver.TLS = c.serve(a)
				receiver.TLS.NextProtos = protocols
				e := w.named(receiver)
				e.HTTP2 = protocols[0] == "h2"
				w.start(e)
				w.accept(1, "billing")
				res := w.await(1)[0]
				w.stop()
				if res.Attempt.Code != c.code || (res.State == outbox.Delivered) != (c.code == "") {
					t.Errorf("code %q, state %s (%s), want %q", res.Attempt.Code, res.State, res.Attempt.Error, c.code)
				}
			})
		})
	}
}

// Fault F34: a port that answers something else than TLS, or nothing, or turns away.
func TestNoTLS(t *testing.T) {
	for name, c := range map[string]struct {
		say     string
		end     bool
		connect time.Duration
		code    string
		took    time.Duration
	}{
		"plain HTTP":                 {"HTTP/1.1 400 Bad Request\r\n\r\n", false, 5 * time.Second, "tls_failed", 0},
		"alert":                      {"\x15\x03\x03\x00\x02\x02\x28", false, 5 * time.Second, "tls_failed", 0},
		"end":                        {"", true, 5 * time.Second, "tls_failed", 0},
		"silence":                    {"", false, 5 * time.Second, "connect_timeout", 5 * time.Second},
		"silence in a record":        {"\x16\x03\x03\x40\x00\x02", false, 5 * time.Second, "connect_timeout", 5 * time.Second},
		"silence for the whole time": {"", false, time.Minute, "timeout", 15 * time.Second},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, http2 = %t", name, http2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					e := w.inMemory("billing", delivertest.NewEndpoint())
					e.URL.Scheme, e.HTTP2 = "https", http2
					e.Timeout.Connect = c.connect
					w.o.Network.Dial = func(_ context.Context, _, _ string) (net.Conn, error) {
						ours, theirs := net.Pipe()
						go func() {
							defer theirs.Close()
							buf := make([]byte, 4096)
							_, _ = theirs.Read(buf)
							_, _ = theirs.Write([]byte(c.say))
							for err := error(nil); err == nil && !c.end; {
								_, err = theirs.Read(buf)
							}
						}()
						return ours, nil
					}
					w.start(e)
					w.accept(1, "billing")
					if a := w.await(1)[0].Attempt; a.Code != c.code || a.Took != c.took {
						t.Errorf("code %q after %s (%s), want %q after %s", a.Code, a.Took, a.Error, c.code, c.took)
					}
				})
			})
		}
	}
}

// secured is a receiver with TLS, its endpoint, and two authorities, of which the
// system knows the first.
type secured struct {
	system, own *delivertest.Authority
	server      *tls.Config
	endpoint    *policy.Endpoint
}

// good makes a certificate of an authority for a name.
func good(a *delivertest.Authority, name string) []tls.Certificate {
	return a.Issue(name, time.Now().Add(time.Hour)).Certificates
}

// askClient makes the receiver ask for a certificate of the own authority.
func (s *secured) askClient(version uint16) {
	s.server.ClientAuth, s.server.ClientCAs, s.server.MaxVersion = tls.RequireAndVerifyClientCert, s.own.Pool(), version
}

func (s *secured) bring(c []tls.Certificate) { s.endpoint.TLS.Certificate = &c[0] }

// S9: authorities, a client's certificate, the least version and the name are each
// endpoint's own.
func TestTLSOfAnEndpoint(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(s *secured)
		code string
		sni  string // "" for the URL's
	}{
		{"system's authority", func(*secured) {}, "", ""},
		{"own authority", func(s *secured) {
			s.server.Certificates, s.endpoint.TLS.Roots = good(s.own, "billing.test"), s.own.Pool()
		}, "", ""},
		{"own authority, unknown to the endpoint", func(s *secured) { s.server.Certificates = good(s.own, "billing.test") }, "tls_unknown_authority", ""},
		{"system's authority where own ones are given", func(s *secured) { s.endpoint.TLS.Roots = s.own.Pool() }, "tls_unknown_authority", ""},

		{"client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13); s.bring(good(s.own, "relay")) }, "", ""},
		{"client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12); s.bring(good(s.own, "relay")) }, "", ""},
		{"no client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13) }, "tls_failed", ""},
		{"no client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12) }, "tls_failed", ""},
		{"another's client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13); s.bring(good(s.system, "relay")) }, "tls_failed", ""},
		{"another's client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12); s.bring(good(s.system, "relay")) }, "tls_failed", ""},
		{"client certificate nobody asks for", func(s *secured) { s.bring(good(s.own, "relay")) }, "", ""},

		{"TLS 1.2 by default", func(s *secured) { s.server.MaxVersion = tls.VersionTLS12 }, "", ""},
		{"TLS 1.3 wanted, 1.2 there", func(s *secured) {
			s.server.MaxVersion, s.endpoint.TLS.MinVersion = tls.VersionTLS12, tls.VersionTLS13
		}, "tls_failed", ""},
		{"TLS 1.3 wanted and there", func(s *secured) { s.endpoint.TLS.MinVersion = tls.VersionTLS13 }, "", ""},
		{"TLS 1.1 is too little, for any receiver", func(s *secured) {
			s.server.MinVersion, s.server.MaxVersion, s.endpoint.TLS.MinVersion = tls.VersionTLS11, tls.VersionTLS11, tls.VersionTLS11
		}, "tls_failed", ""},

		{"server name", func(s *secured) {
			s.server.Certificates, s.endpoint.TLS.ServerName = good(s.system, "internal.test"), "internal.test"
		}, "", "internal.test"},
		{"server name that the certificate has not", func(s *secured) { s.endpoint.TLS.ServerName = "internal.test" }, "tls_wrong_name", "internal.test"},
		{"certificate for another name", func(s *secured) { s.server.Certificates = good(s.system, "internal.test") }, "tls_wrong_name", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothSecureSenders(t, func(t *testing.T, protocols ...string) {
				w := newWorld(t)
				step := delivertest.Step{}
				if protocols[0] == "http/1.1" {
					step.Header = map[string]string{"Connection": "close"} // the second attempt resumes a session
				}
				receiver := delivertest.NewEndpoint(step)
				s := &secured{system: delivertest.NewAuthority(t), own: delivertest.NewAuthority(t), endpoint: new(policy.Endpoint)}
				s.server = &tls.Config{Certificates: good(s.system, "billing.test"), NextProtos: protocols}
				c.set(s)
				var asked names
				s.server.GetConfigForClient = asked.note
				receiver.TLS = s.server
				e := w.named(receiver)
				e.HTTP2, e.TLS = protocols[0] == "h2", s.endpoint.TLS
				e.Concurrency = 1
				w.o.Network.Roots = s.system.Pool()
				w.start(e)
				w.accept(1, "billing")
				w.await(1)
				w.accept(1, "billing")
				results := w.await(2)
				w.stop()
				for _, r := range results {
					if r.Attempt.Code != c.code || (r.State == outbox.Delivered) != (c.code == "") {
						t.Errorf("code %q, state %s (%s), want %q", r.Attempt.Code, r.State, r.Attempt.Error, c.code)
					}
				}
				if c.sni == "" {
					c.sni = "billing.test"
				}
				if got := asked.list(); len(got) == 0 || slices.ContainsFunc(got, func(n string) bool { return n != c.sni }) {
					t.Errorf("asked for %q, want %q", got, c.sni)
				}
				if n := len(receiver.Requests()); c.code != "" && n != 0 {
					t.Errorf("%d requests were taken", n)
				}
			})
		})
	}
}

// names are those that clients ask for.
type names struct {
	mu  sync.Mutex
	all []string
}

func (n *names) note(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, hello.ServerName)
	return nil, nil
}

func (n *names) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// Fault F34: a receiver that wants to negotiate TLS again in the middle, as only TLS 1.2
// allows, gets no.
func TestRenegotiation(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		w := newWorld(t)
		a := delivertest.NewAuthority(t)
		w.o.Network.Roots = a.Pool()
		s := &renegotiator{config: a.Issue("billing.test", time.Now().Add(time.Hour))}
		s.config.MaxVersion, s.config.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		s.config.KeyLogWriter = &s.keys
		e := w.named(delivertest.NewEndpoint())
		e.URL.Scheme, e.HTTP2 = "https", http2
		var serving sync.WaitGroup
		w.o.Network.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := delivertest.Pipe()
			serving.Go(func() { s.serve(t, theirs) })
			return ours, nil
		}
		w.start(e)
		w.accept(1, "billing")
		r := w.await(1)[0]
		w.stop()
		serving.Wait()
		if r.Attempt.Code != "tls_failed" || !strings.Contains(r.Attempt.Error, "no renegotiation") {
			t.Errorf("http2 = %t: code %q (%s), want tls_failed", http2, r.Attempt.Code, r.Attempt.Error)
		}
	}
}

// renegotiator asks for a new handshake after it read a request. crypto/tls cannot do
// that, so the record with the question is made here.
type renegotiator struct {
	config *tls.Config
	keys   bytes.Buffer // CLIENT_RANDOM <random> <master secret>
}

// overheard keeps what the server writes.
type overheard struct {
	net.Conn
	written bytes.Buffer
}

func (c *overheard) Write(b []byte) (int, error) {
	c.written.Write(b)
	return c.Conn.Write(b)
}

func (s *renegotiator) serve(t *testing.T, c net.Conn) {
	defer c.Close()
	wire := &overheard{Conn: c}
	secure := tls.Server(wire, s.config)
	r, err := http.ReadRequest(bufio.NewReader(secure))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	if err != nil {
		t.Errorf("read request: %v", err)
		return
	}
	fields := strings.Fields(s.keys.String())
	clientRandom, _ := hex.DecodeString(fields[1])
	master, _ := hex.DecodeString(fields[2])
	serverRandom := wire.written.Bytes()[5+4+2:][:32] // after the heads of record and message, and the version
	keys := expand(master, "key expansion", append(bytes.Clone(serverRandom), clientRandom...), 2*16+2*4)
	block, err := aes.NewCipher(keys[16:32])
	if err != nil {
		t.Error(err)
		return
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Error(err)
		return
	}
	number := binary.BigEndian.AppendUint64(nil, 1) // of the record: the first was Finished
	helloRequest := []byte{0, 0, 0, 0}
	record := append([]byte{22, 3, 3, 0, byte(8 + len(helloRequest) + 16)}, number...)
	nonce := append(bytes.Clone(keys[36:40]), number...)
	record = seal.Seal(record, nonce, helloRequest, append(bytes.Clone(number), 22, 3, 3, 0, byte(len(helloRequest))))
	_, _ = c.Write(record)
	_, _ = io.Copy(io.Discard, c)
}

// expand is the PRF of RFC 5246 section 5.
func expand(secret []byte, label string, seed []byte, n int) (out []byte) {
	sum := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	seed = append([]byte(label), seed...)
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:n]
}
