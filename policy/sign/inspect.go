package sign

import (
	"reflect"
	"slices"
)

// Hidden replaces the signature of a masked Signer.
const Hidden = "…"

// Masked returns a Signer that writes the same headers as s with Hidden in place of each
// signature. It is for showing a request, and uses no key.
func (s *Signer) Masked() *Signer {
	m := newSigner(s.scheme, s.keys)
	m.masked = true
	return m
}

// Scheme is s's scheme.
func (s *Signer) Scheme() *Scheme { return s.scheme }

// Secrets is how many secrets s has.
func (s *Signer) Secrets() int { return len(s.keys) }

// Signing is how many secrets sign: one, if the scheme has no room for several.
func (s *Signer) Signing() int { return len(s.signing()) }

// SameSecrets tells whether s and t sign with the same secrets in the same order. known is false
// if they cannot be compared, because their schemes derive keys in different ways.
func (s *Signer) SameSecrets(t *Signer) (same, known bool) {
	if s.scheme.spec.Algorithm != t.scheme.spec.Algorithm || s.scheme.spec.Secret != t.scheme.spec.Secret {
		return false, false
	}
	return slices.EqualFunc(s.keys, t.keys, (*key).same), true
}

// Equal tells whether s and t sign every request in the same way, given the same keys.
func (s *Scheme) Equal(t *Scheme) bool {
	return reflect.DeepEqual(s.spec, t.spec)
}
