package deliver

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
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/relay/deliver/delivertest"
)

// Fault F34: a receiver that wants to negotiate TLS anew in the middle, as only TLS 1.2
// allows, gets no.
func TestRenegotiation(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		w := newWorld(t)
		a := newAuthority(t)
		w.o.roots = a.pool()
		s := &renegotiator{config: a.issue("billing.test", time.Now().Add(time.Hour))}
		s.config.MaxVersion, s.config.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		s.config.KeyLogWriter = &s.keys
		e := w.named(delivertest.NewEndpoint())
		e.URL.Scheme, e.HTTP2 = "https", http2
		var serving sync.WaitGroup
		w.o.dialNet = func(context.Context, string, string) (net.Conn, error) {
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
