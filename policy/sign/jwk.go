package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
)

// JWK is a public Ed25519 key as JSON (RFC 8037).
type JWK struct {
	KeyType   string `json:"kty"` // OKP
	Curve     string `json:"crv"` // Ed25519
	X         string `json:"x"`   // 32 bytes in base64url
	KeyID     string `json:"kid"` // thumbprint (RFC 7638); key_id of a Template
	Use       string `json:"use"` // sig
	Algorithm string `json:"alg"` // EdDSA
}

// JWKS is a set of keys (RFC 7517 section 5).
type JWKS struct {
	Keys []JWK `json:"keys"`
}

// PublicKeys are the keys for verifying s's signatures, the newest first. Shared secrets have
// none.
func (s *Signer) PublicKeys() []JWK {
	var keys []JWK
	for _, k := range s.keys {
		if k.public != nil {
			keys = append(keys, JWK{"OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(k.public), k.id, "sig", "EdDSA"})
		}
	}
	return keys
}

// Prefixed is the key as Standard Webhooks writes it, and a Verifier takes it: whpk_
// and base64.
func (k JWK) Prefixed() string {
	b, _ := base64.RawURLEncoding.DecodeString(k.X) // PublicKeys wrote it
	return prefixPublic + base64.StdEncoding.EncodeToString(b)
}

// thumbprint is the SHA-256 of the key's required members in the order of their
// names (RFC 7638 section 3, RFC 8037 appendix A.3).
func thumbprint(public ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
