package sign

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxSignatures bounds how many signatures of one request are tried, as each one
// costs CPU time and the sender of a request may be anybody.
const maxSignatures = 16

// Verifier checks requests as a receiver does. Its methods may be called at the
// same time.
type Verifier struct {
	scheme *Scheme
	keys   []*key
}

// NewVerifier reads the secrets as the receiver has them, at most MaxSecrets: the
// shared secret, or of Ed25519 the public key. A private Ed25519 key does too if it
// is told from a public one, by its prefix (whsk_) or its 64 bytes; a base64 or hex
// seed of 32 bytes is not. Errors: *SecretError.
func NewVerifier(s *Scheme, secrets []string) (*Verifier, error) {
	keys, err := s.keys(secrets, receiver)
	if err != nil {
		return nil, err
	}
	return &Verifier{s, keys}, nil
}

// Verifier checks what s signs, for who has the sender's secrets at hand.
func (s *Signer) Verifier() *Verifier { return &Verifier{s.scheme, s.keys} }

// Verify checks a request whose header lines get returns, without regard to the
// case of the name, as http.Header.Values does. m is what the receiver knows by
// itself: Body, Method, URL, and Time, which is its own clock. What the headers
// carry (the id, the time of the attempt, …) is taken from them. If a scheme signs
// something that no header carries, m must have it.
//
// A request is good when any of its signatures is one that any of the secrets makes
// and, where a header carries the time, that time is at most tolerance away from
// m.Time (Standard Webhooks: 5 minutes). The error says what is wrong and holds
// nothing that is secret.
func (v *Verifier) Verify(get func(name string) []string, m *Message, tolerance time.Duration) error {
	said := *m // m with what the headers say
	said.Time = time.Time{}
	type line struct {
		HeaderSpec
		text, signature string
	}
	var lines []line
	for _, h := range v.scheme.spec.Headers {
		texts := get(h.Name)
		if len(texts) == 0 {
			return fmt.Errorf("header %s is missing", h.Name)
		}
		if len(texts) > 1 && !h.Value.uses("signature") {
			return fmt.Errorf("header %s is there %d times", h.Name, len(texts))
		}
		for _, text := range texts {
			signature, err := h.Value.read(text, &said)
			if err != nil {
				return fmt.Errorf("header %s %w", h.Name, err)
			}
			lines = append(lines, line{h, text, signature})
		}
	}
	var signatures []string
	for _, l := range lines {
		// Writing the line again shows whether headers contradict each other, and
		// leaves no second way to write the same number.
		if string(l.Value.append(nil, &said, []byte(l.signature))) != l.text {
			return fmt.Errorf("header %s contradicts the request or is not in its usual form", l.Name)
		}
		signatures = append(signatures, v.split(l.signature)...)
	}
	if v.scheme.timed {
		switch age := m.Time.Sub(said.Time); {
		case age > tolerance:
			return fmt.Errorf("timestamp is %s old, at most %s is accepted", age.Round(time.Second), tolerance)
		case age < -tolerance:
			return fmt.Errorf("timestamp is %s ahead, at most %s is accepted", (-age).Round(time.Second), tolerance)
		}
	}
	if len(signatures) > maxSignatures {
		return fmt.Errorf("there are %d signatures, at most %d are tried", len(signatures), maxSignatures)
	}
	content := v.scheme.spec.Signed.append(nil, &said, nil)
	for _, k := range v.keys {
		for _, text := range signatures {
			text, ok := strings.CutPrefix(text, k.version)
			if !ok {
				continue
			}
			if signature, ok := decode(v.scheme.spec.Encoding, text); ok && k.verify(content, signature) {
				return nil
			}
		}
	}
	return errors.New("no signature matches")
}

// split returns the signatures in what stands for ${signature}.
func (v *Verifier) split(text string) []string {
	switch {
	case text == "":
		return nil
	case v.scheme.separator == "":
		return []string{text}
	}
	return strings.Split(text, v.scheme.separator)
}

// Format prints the verifier without its keys, whatever the verb.
func (v *Verifier) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s verifier, %d secrets [redacted]", v.scheme.Name(), len(v.keys))
}
