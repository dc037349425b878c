// Package sign makes and checks the signatures of requests. A Scheme says what
// is signed, how, and which headers carry it, as data (Spec); those of known platforms
// are built in (Builtin). A Signer is a scheme with an endpoint's secrets; during a
// rotation all of them sign where the scheme has room for it. A Verifier is the
// receiver's side.
//
// Secrets go in as strings and never come out: not in an error, not when a
// Signer or Verifier is printed.
package sign

import (
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"
)

// Message is one request to sign. The comments name the template variables.
type Message struct {
	EventID     string // id
	EventType   string // type
	DeliveryID  string // delivery
	Endpoint    string // endpoint
	Method      string // method
	URL         string // url: absolute; host (with the port, where one is written) and path (with the query) are its parts
	ContentType string // content_type: of the body, the value of the header
	Attempt     int    // attempt, from 1

	// Time of the attempt, so that each one is freshly signed (promise P10):
	// timestamp (Unix seconds), timestamp_ms (Unix milliseconds) and
	// timestamp_rfc3339 (UTC, whole seconds).
	Time time.Time

	// Body: the exact bytes that are sent. body_sha256, body_sha512 (hex),
	// body_sha256_base64 and body_sha512_base64 are its digests.
	Body []byte // body
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
	buf        []byte   // text before it is summed, or the values of all headers
	ends       []int    // of each value in buf
	sum        []byte
	signatures []byte // encoded, one after the other
	values     values
	lines      []keyed // one for each line of a header that is per key
}

// summer turns content into one key's signature. The standard library's HMAC is one; its Reset
// does not process the key again.
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
		for _, k := range signer.signing() {
			w.sums = append(w.sums, k.summer())
		}
		return w
	}
	return signer
}

// signing are the keys that sign: all, or the newest if the scheme has no room for several.
func (s *Signer) signing() []*key {
	if s.scheme.spec.Rotation == rotationNewest {
		return s.keys[:1]
	}
	return s.keys
}

// Sign appends the scheme's headers to dst. A name may come several times: add the lines, do not
// set them. With several secrets all of them sign, the newest first, unless the scheme says that
// only the newest does. A scheme with a separator puts the signatures into one value; any other
// sends each line that differs by key once for each secret, so that a receiver that reads only
// the first line verifies with the newest. Receivers that join repeated lines see ", " between
// them (RFC 9110 section 5.3).
func (s *Signer) Sign(dst []Header, m *Message) []Header {
	w := s.works.Get().(*work)
	defer s.works.Put(w)

	v := &w.values
	v.Message, v.sha256, v.sha512 = m, v.sha256[:0], v.sha512[:0]
	s.sum(w)
	first := len(dst)
	w.buf, w.ends = w.buf[:0], w.ends[:0]
	for _, h := range s.scheme.spec.Headers {
		lines := w.lines
		if !h.Value.perKey() {
			lines = lines[:1]
		}
		for _, line := range lines {
			v.keyed = line
			w.buf = h.Value.append(w.buf, v)
			w.ends = append(w.ends, len(w.buf))
			dst = append(dst, Header{Name: h.Name})
		}
	}
	v.Message = nil
	all, start := string(w.buf), 0 // one object for all values
	for i, end := range w.ends {
		dst[first+i].Value = all[start:end]
		start = end
	}
	return dst
}

// sum signs with each key and puts the values of the key's variables into w.lines.
func (s *Signer) sum(w *work) {
	spec := &s.scheme.spec
	w.signatures, w.lines = w.signatures[:0], w.lines[:0]
	start := 0
	keys := s.signing()
	for i, k := range keys {
		w.values.keyed = keyed{algorithm: k.algorithm, id: k.id, number: i + 1}
		w.signatures = append(w.signatures, spec.Versions[k.algorithm]...)
		if s.masked {
			w.signatures = append(w.signatures, Hidden...)
		} else {
			sum := w.sums[i]
			sum.Reset()
			w.buf = spec.Signed.write(sum, &w.values, w.buf)
			w.sum = sum.Sum(w.sum[:0])
			w.signatures = encode(w.signatures, spec.Encoding, w.sum)
		}
		if spec.Separator != "" && i+1 < len(keys) {
			w.signatures = append(w.signatures, spec.Separator...)
			continue
		}
		w.values.signature = w.signatures[start:]
		w.lines = append(w.lines, w.values.keyed)
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

// Carriers are the names of the headers that carry a signature.
func (s *Signer) Carriers() []string {
	var names []string
	for _, h := range s.scheme.spec.Headers {
		if h.Value.uses("signature") {
			names = append(names, h.Name)
		}
	}
	return names
}

// Equal tells whether t signs every message as s does: by the same scheme, with the same secrets
// in the same order.
func (s *Signer) Equal(t *Signer) bool {
	return s.scheme.Equal(t.scheme) && slices.EqualFunc(s.keys, t.keys, (*key).same)
}

// Format prints the signer without its keys, whatever the verb.
func (s *Signer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s signer, %d secrets [redacted]", s.scheme.Name(), len(s.keys))
}
