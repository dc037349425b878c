// Package sign makes and checks the signatures of requests. A Scheme says what
// is signed, how, and which headers carry it: Standard Webhooks is built in, any
// other is data (Spec). A Signer is a scheme with an endpoint's secrets; during a
// rotation all of them sign. A Verifier is the receiver's side.
//
// Secrets go in as strings and never come out: not in an error, not when a
// Signer or Verifier is printed.
package sign

import (
	"bytes"
	"fmt"
	"hash"
	"io"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Message is one request to sign. The comments name the template variables.
type Message struct {
	EventID    string // id
	EventType  string // type
	DeliveryID string // delivery
	Endpoint   string // endpoint
	Method     string // method
	URL        string // url
	Attempt    int    // attempt, from 1

	// Time of the attempt, so that each one is freshly signed (promise P10):
	// timestamp (Unix seconds), timestamp_ms (Unix milliseconds) and
	// timestamp_rfc3339 (UTC, whole seconds).
	Time time.Time

	Body []byte // body: the exact bytes that are sent
}

// Header is a line of the request.
type Header struct {
	Name, Value string
}

// Signer signs for one endpoint. Its methods may be called at the same time.
type Signer struct {
	scheme *Scheme
	keys   []*key
	masked bool      // Hidden stands for each signature
	works  sync.Pool // of *work
}

// work is the memory that one Sign needs, kept for the next.
type work struct {
	sums       []summer // one for each key
	buf        []byte   // text on its way to a sum or a header
	sum        []byte
	signatures []byte   // encoded, one after the other
	values     [][]byte // what ${signature} stands for: slices of signatures
}

// summer turns content into one key's signature. An HMAC of the standard library
// is one, and its Reset does not work through the key again.
type summer interface {
	io.Writer
	Reset()
	Sum(dst []byte) []byte
}

var _ summer = hash.Hash(nil)

// NewSigner reads the secrets, the newest first, at most MaxSecrets. Errors:
// *SecretError.
func NewSigner(s *Scheme, secrets []string) (*Signer, error) {
	keys, err := s.keys(secrets, sender)
	if err != nil {
		return nil, err
	}
	return newSigner(s, keys), nil
}

func newSigner(s *Scheme, keys []*key) *Signer {
	signer := &Signer{scheme: s, keys: keys}
	signer.works.New = func() any {
		w := new(work)
		for _, k := range keys {
			w.sums = append(w.sums, k.summer())
		}
		return w
	}
	return signer
}

// Sign appends the scheme's headers to dst. A name may come several times: add
// the lines, do not set them. With several secrets all of them sign, the newest
// first. A scheme with room for a list (standard) puts the signatures into one
// value; any other sends each line that has a signature once for each secret, so
// that a receiver which reads only the first one checks with the newest. Receivers
// that join repeated lines see ", " between them (RFC 9110 section 5.3).
func (s *Signer) Sign(dst []Header, m *Message) []Header {
	w := s.works.Get().(*work)
	defer s.works.Put(w)

	s.sum(w, m)
	for _, h := range s.scheme.spec.Headers {
		values := w.values
		if !h.Value.uses("signature") {
			values = values[:1]
		}
		for _, signature := range values {
			w.buf = h.Value.append(w.buf[:0], m, signature)
			dst = append(dst, Header{h.Name, string(w.buf)})
		}
	}
	return dst
}

// sum leaves in w.values what ${signature} stands for, once for each line.
func (s *Signer) sum(w *work, m *Message) {
	w.signatures, w.values = w.signatures[:0], w.values[:0]
	start := 0
	for i, k := range s.keys {
		w.signatures = append(w.signatures, k.version...)
		if s.masked {
			w.signatures = append(w.signatures, Hidden...)
		} else {
			sum := w.sums[i]
			sum.Reset()
			w.buf = s.scheme.spec.Signed.write(sum, m, w.buf)
			w.sum = sum.Sum(w.sum[:0])
			w.signatures = encode(w.signatures, s.scheme.spec.Encoding, w.sum)
		}
		if s.scheme.separator != "" && i+1 < len(s.keys) {
			w.signatures = append(w.signatures, s.scheme.separator...)
			continue
		}
		w.values = append(w.values, w.signatures[start:])
		start = len(w.signatures)
	}
}

// Names of the headers that Sign writes.
func (s *Signer) Names() []string {
	var names []string
	for _, h := range s.scheme.spec.Headers {
		names = append(names, h.Name)
	}
	return names
}

// Equal tells whether t signs everything as s does: by the same scheme, with the same
// secrets in the same order.
func (s *Signer) Equal(t *Signer) bool {
	return reflect.DeepEqual(s.scheme.spec, t.scheme.spec) &&
		slices.EqualFunc(s.keys, t.keys, func(a, b *key) bool { return a.version == b.version && bytes.Equal(a.trace(), b.trace()) })
}

// Format prints the signer without its keys, whatever the verb.
func (s *Signer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s signer, %d secrets [redacted]", s.scheme.Name(), len(s.keys))
}
