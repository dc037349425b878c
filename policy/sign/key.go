package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxSecrets is how many secrets an endpoint may have at the same time: enough
// for a rotation that starts before the last one has ended.
const MaxSecrets = 3

// Prefixes of secrets in Standard Webhooks.
const (
	prefixShared  = "whsec_" // HMAC, 24 to 64 bytes
	prefixPrivate = "whsk_"  // Ed25519, seed (32 bytes) or private key (64 bytes)
	prefixPublic  = "whpk_"  // Ed25519, 32 bytes
)

// SecretError says which secret cannot be used and why. It contains no part of the secret.
type SecretError struct {
	Index  int // in the list that was given; 0 when the list is empty
	Reason string
}

func (e *SecretError) Error() string { return fmt.Sprintf("secrets[%d]: %s", e.Index, e.Reason) }

// key keeps its bytes in closures, which printing cannot reach.
type key struct {
	algorithm string
	id        string            // public: tells receivers which key it was
	public    ed25519.PublicKey // of ed25519
	summer    func() summer
	verify    func(content, signature []byte) bool
}

// same reports whether k and o make the same signatures.
func (k *key) same(o *key) bool { return k.algorithm == o.algorithm && k.id == o.id }

// side of the exchange that keys are for.
type side int

const (
	sender   side = iota // needs private keys
	receiver             // needs only public keys
)

// keys reads the secrets of one side. Errors: *SecretError.
func (s *Scheme) keys(secrets []string, of side) ([]*key, error) {
	if len(secrets) == 0 {
		return nil, &SecretError{0, "there is none, at least one is needed"}
	}
	if len(secrets) > MaxSecrets {
		return nil, &SecretError{MaxSecrets, fmt.Sprintf("at most %d are used at the same time, remove the oldest", MaxSecrets)}
	}
	var keys []*key
	for i, secret := range secrets {
		k, err := s.key(secret, of)
		if err != nil {
			return nil, &SecretError{i, err.Error()}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (s *Scheme) key(secret string, of side) (*key, error) {
	if secret == "" {
		return nil, errors.New("it is empty")
	}
	algorithm, shortest, longest := s.spec.Algorithm, 16, 128
	// Without a prefix, a receiver's 32 bytes are the public key. They must not be tried as a
	// seed too: otherwise anybody with the public key could sign.
	public := of == receiver
	if s.spec.Secret == secretWhsec {
		prefix, err := s.prefix(secret, of)
		if err != nil {
			return nil, err
		}
		secret = secret[len(prefix):]
		public = prefix == prefixPublic
		shortest, longest = 24, 64
		switch {
		case algorithm != "":
		case prefix == prefixShared:
			algorithm = hmacSHA256
		default:
			algorithm = algoEd25519
		}
	}
	b, err := s.secretBytes(secret)
	if err != nil {
		return nil, err
	}
	if algorithm == algoEd25519 {
		return ed25519Key(b, public)
	}
	n, unit := len(b), "bytes"
	if s.spec.Secret == secretRaw {
		n, unit = utf8.RuneCount(b), "characters" // what people count
	}
	if n < shortest || n > longest {
		return nil, fmt.Errorf("it has %d %s, it must have %d to %d", n, unit, shortest, longest)
	}
	return hmacKey(algorithm, b), nil
}

// prefix finds the secret's prefix among those for the scheme's algorithm.
func (s *Scheme) prefix(secret string, of side) (string, error) {
	var fit []string
	if s.spec.Algorithm != algoEd25519 {
		fit = append(fit, prefixShared)
	}
	if s.spec.Algorithm == "" || s.spec.Algorithm == algoEd25519 {
		fit = append(fit, prefixPrivate)
		if of == receiver {
			fit = append(fit, prefixPublic)
		}
	}
	i := slices.IndexFunc(fit, func(prefix string) bool { return strings.HasPrefix(secret, prefix) })
	switch {
	case i >= 0:
		return fit[i], nil
	case strings.HasPrefix(secret, prefixPublic) && slices.Contains(fit, prefixPrivate):
		return "", errors.New("it is a public key (whpk_), signing needs the private one (whsk_)")
	}
	return "", fmt.Errorf("it must start with %s", strings.Join(fit, " or "))
}

// secretBytes decodes a secret. The decoders' errors are left out, because they quote their
// input.
func (s *Scheme) secretBytes(secret string) ([]byte, error) {
	switch s.spec.Secret {
	case secretRaw:
		return []byte(secret), nil
	case secretHex:
		b, err := hex.DecodeString(secret)
		if err != nil {
			return nil, errors.New("it is not hex")
		}
		return b, nil
	}
	b, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return nil, errors.New("it is not base64 (RFC 4648 section 4, with padding)")
	}
	return b, nil
}

func hmacKey(algorithm string, secret []byte) *key {
	newHash := sha256.New
	switch algorithm {
	case hmacSHA1:
		newHash = sha1.New
	case hmacSHA512:
		newHash = sha512.New
	}
	newMAC := func() hash.Hash { return hmac.New(newHash, secret) }
	k := &key{
		algorithm: algorithm,
		summer:    func() summer { return newMAC() },
		verify: func(content, signature []byte) bool {
			mac := newMAC()
			mac.Write(content)
			return hmac.Equal(mac.Sum(nil), signature)
		},
	}
	k.id = sharedKeyID(newMAC())
	return k
}

// sharedKeyID is an id of a shared secret that reveals no more than a signature does: 72 bits of
// a MAC, in 12 characters.
func sharedKeyID(mac hash.Hash) string {
	_, _ = mac.Write([]byte("relay: the id of this key")) // never fails
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:9])
}

// ed25519Key takes a seed (32 bytes), a private key (64 bytes: seed, then public
// key) or, with public, a public key (32 bytes); RFC 8032 section 5.1.5.
func ed25519Key(b []byte, public bool) (*key, error) {
	k := &key{algorithm: algoEd25519}
	var private ed25519.PrivateKey
	publicKey := ed25519.PublicKey(b)
	switch {
	case public && len(b) == ed25519.PublicKeySize:
	case len(b) == ed25519.SeedSize || len(b) == ed25519.PrivateKeySize:
		private = ed25519.NewKeyFromSeed(b[:ed25519.SeedSize])
		publicKey = private.Public().(ed25519.PublicKey)
		// Signing with a wrong public half would reveal the private one.
		if len(b) == ed25519.PrivateKeySize && !private.Equal(ed25519.PrivateKey(b)) {
			return nil, errors.New("its public half does not belong to its private half")
		}
		k.summer = func() summer { return &ed25519Summer{private: private} }
	default:
		return nil, fmt.Errorf("it has %d bytes, an Ed25519 key has 32 (seed or public key) or 64 (private key)", len(b))
	}
	k.public, k.id = publicKey, thumbprint(publicKey)
	k.verify = func(content, signature []byte) bool { return ed25519.Verify(publicKey, content, signature) }
	return k, nil
}

// ed25519Summer collects the content, which Ed25519 goes through twice.
type ed25519Summer struct {
	bytes.Buffer
	private ed25519.PrivateKey
}

func (e *ed25519Summer) Sum(dst []byte) []byte {
	return append(dst, ed25519.Sign(e.private, e.Bytes())...)
}

// encode appends the text of a signature.
func encode(dst []byte, encoding string, signature []byte) []byte {
	if encoding == encodingHex {
		return hex.AppendEncode(dst, signature)
	}
	return base64.StdEncoding.AppendEncode(dst, signature)
}

// decode accepts only the text that encode writes, so that no two texts are the same signature.
func decode(encoding, text string) (signature []byte, ok bool) {
	var err error
	if encoding == encodingHex {
		signature, err = hex.DecodeString(text)
	} else {
		signature, err = base64.StdEncoding.DecodeString(text)
	}
	return signature, err == nil && string(encode(nil, encoding, signature)) == text
}
