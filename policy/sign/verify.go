package sign

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxSignatures bounds how many signatures of one request are tried, because each one costs CPU
// time and anybody may send a request.
const maxSignatures = 16

// Verifier checks requests as a receiver does. Its methods may be called at the
// same time.
type Verifier struct {
	scheme *Scheme
	keys   []*key
}

// NewVerifier reads the secrets as the receiver has them, at most MaxSecrets: the shared secret,
// or of Ed25519 the public key. A private Ed25519 key works, too, if its prefix (whsk_) or its 64
// bytes identify it; a base64 or hex seed of 32 bytes does not. Errors: *SecretError.
func NewVerifier(s *Scheme, secrets []string) (*Verifier, error) {
	keys, err := s.keys(secrets, receiver)
	if err != nil {
		return nil, err
	}
	return &Verifier{s, keys}, nil
}

// Verifier returns a Verifier of s's signatures, for callers that have the sender's secrets.
func (s *Signer) Verifier() *Verifier { return &Verifier{s.scheme, s.keys} }

// Verify checks a request whose header lines get returns, without regard to the case of the name,
// as http.Header.Values does. m has the values that the receiver knows by itself: Body, Method,
// URL, and Time by its own clock. Values in the headers (the id, the time of the attempt, …) are
// taken from them; ContentType and, where the scheme does not send it, EventID are those of
// Content-Type and webhook-id if m has none. m must have any other value that is signed but in no
// header.
//
// A request is valid if any of its signatures is one of any of the secrets and, if a header has
// the time, that time is at most tolerance away from m.Time (Standard Webhooks: 5 minutes). The
// error says what is wrong and contains no secret.
func (v *Verifier) Verify(get func(name string) []string, m *Message, tolerance time.Duration) error {
	said := *m // m with the values of the headers
	said.Time = time.Time{}
	said.ContentType = cmp.Or(said.ContentType, first(get("Content-Type")))
	said.EventID = cmp.Or(said.EventID, first(get("webhook-id")))
	signed, err := v.read(get, &values{Message: &said})
	if err != nil {
		return err
	}
	if v.scheme.timed {
		switch age := m.Time.Sub(said.Time); {
		case age > tolerance:
			return fmt.Errorf("timestamp is %s old, at most %s is accepted", age.Round(time.Second), tolerance)
		case age < -tolerance:
			return fmt.Errorf("timestamp is %s ahead, at most %s is accepted", (-age).Round(time.Second), tolerance)
		}
	}
	count := 0
	for _, s := range signed {
		count += len(v.split(string(s.signature)))
	}
	if count > maxSignatures {
		return fmt.Errorf("there are %d signatures, at most %d are tried", count, maxSignatures)
	}
	is := values{Message: &said}
	for _, is.keyed = range signed {
		content := v.scheme.spec.Signed.append(nil, &is)
		for _, signature := range v.split(string(is.signature)) {
			if slices.ContainsFunc(v.keys, func(k *key) bool { return v.made(k, &is.keyed, content, signature) }) {
				return nil
			}
		}
	}
	return errors.New("no signature matches")
}

// read parses the headers into is.Message and, line by line, the values of one key.
func (v *Verifier) read(get func(name string) []string, is *values) ([]keyed, error) {
	type line struct {
		HeaderSpec
		text string
		of   int // index of lines
	}
	var all []line
	var keys []keyed
	for _, h := range v.scheme.spec.Headers {
		texts := get(h.Name)
		switch perKey := h.Value.perKey(); {
		case len(texts) == 0:
			return nil, fmt.Errorf("header %s is missing", h.Name)
		case perKey && keys == nil:
			keys = make([]keyed, len(texts))
		case perKey && len(texts) != len(keys):
			return nil, fmt.Errorf("header %s has %d lines where another has %d", h.Name, len(texts), len(keys))
		case !perKey && len(texts) > 1:
			return nil, fmt.Errorf("header %s is there %d times", h.Name, len(texts))
		}
		for i, text := range texts {
			if h.Value.perKey() {
				is.keyed = keys[i]
			}
			if err := h.Value.read(text, is); err != nil {
				return nil, fmt.Errorf("header %s %w", h.Name, err)
			}
			if h.Value.perKey() {
				keys[i] = is.keyed
			}
			all = append(all, line{h, text, i})
		}
	}
	// The lines are written again and compared, so that headers cannot contradict each other and
	// each number has one form.
	for _, l := range all {
		is.keyed = keys[l.of]
		if string(l.Value.append(nil, is)) != l.text {
			return nil, fmt.Errorf("header %s %w", l.Name, errContradicts)
		}
	}
	return keys, nil
}

// made reports whether k made the signature and is the key that the request names.
func (v *Verifier) made(k *key, said *keyed, content []byte, text string) bool {
	if said.id != "" && said.id != k.id || said.algorithm != "" && said.algorithm != k.algorithm {
		return false
	}
	text, ok := strings.CutPrefix(text, v.scheme.spec.Versions[k.algorithm])
	if !ok {
		return false
	}
	signature, ok := decode(v.scheme.spec.Encoding, text)
	return ok && k.verify(content, signature)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// split returns the signatures in the value of ${signature}.
func (v *Verifier) split(signatures string) []string {
	if v.scheme.spec.Separator == "" {
		return []string{signatures}
	}
	return strings.Split(signatures, v.scheme.spec.Separator)
}

// Format prints the verifier without its keys, whatever the verb.
func (v *Verifier) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s verifier, %d secrets [redacted]", v.scheme.Name(), len(v.keys))
}
