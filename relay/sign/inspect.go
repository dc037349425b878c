package sign

import (
	"bytes"
	"reflect"
)

// Hidden stands where a masked Signer leaves a signature out.
const Hidden = "…"

// Masked returns a Signer that writes the same headers as s with Hidden in place of
// each signature. It is for showing a request, and makes no use of a key.
func (s *Signer) Masked() *Signer {
	m := newSigner(s.scheme, s.keys)
	m.masked = true
	return m
}

// Scheme is what s signs by.
func (s *Signer) Scheme() *Scheme { return s.scheme }

// Secrets is how many secrets sign.
func (s *Signer) Secrets() int { return len(s.keys) }

// SameSecrets tells whether s and t sign with the same secrets in the same order.
// known is false when that cannot be told, because their schemes make keys of
// secrets in different ways.
func (s *Signer) SameSecrets(t *Signer) (same, known bool) {
	if s.scheme.spec.Algorithm != t.scheme.spec.Algorithm || s.scheme.spec.Secret != t.scheme.spec.Secret {
		return false, false
	}
	if len(s.keys) != len(t.keys) {
		return false, true
	}
	for i, k := range s.keys {
		if k.algorithm != t.keys[i].algorithm || !bytes.Equal(k.probe(), t.keys[i].probe()) {
			return false, true
		}
	}
	return true, true
}

// probe is the key's signature of a text that is always the same: two keys are one
// where they sign alike.
func (k *key) probe() []byte {
	sum := k.summer()
	_, _ = sum.Write([]byte("relay compares two keys")) // a hash takes all
	return sum.Sum(nil)
}

// Equal tells whether s and t sign every request in the same way, given the same keys.
func (s *Scheme) Equal(t *Scheme) bool {
	return reflect.DeepEqual(s.spec, t.spec)
}
