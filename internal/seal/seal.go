// Package seal encrypts values before they are stored where others may read them: in a shared
// outbox, a backup, a replica. XChaCha20-Poly1305, with the id of its key in each sealed value,
// so that keys can be rotated.
package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// MinKey is the least length of a key, in bytes. A key is a text with the strength of 32 random
// bytes in hexadecimal or base64.
const MinKey = 32

const (
	magic    = "relay1" // the first bytes of every sealed value
	idSize   = 8
	headSize = len(magic) + idSize
)

// Errors of Open. None of them quotes a value or key.
var (
	ErrNotSealed = errors.New("the value is not sealed")
	ErrKey       = errors.New("the value is sealed with a key that secrets_key does not list")
	ErrDamaged   = errors.New("the sealed value is damaged, or belongs to another place")
)

// Keys seal with the first key and open with all. Its methods may be called at the same time.
type Keys struct{ all []key }

type key struct {
	id   [idSize]byte
	aead cipher.AEAD
}

// New derives keys (HKDF with SHA-256, RFC 5869) from texts of at least MinKey bytes. The error
// tells the number of a key that is too short. No texts give nil.
func New(texts []string) (*Keys, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	k := &Keys{}
	for i, text := range texts {
		if len(text) < MinKey {
			return nil, fmt.Errorf("key %d has %d bytes, and needs at least %d", i+1, len(text), MinKey)
		}
		one, err := derive(text)
		if err != nil {
			return nil, fmt.Errorf("derive key %d: %w", i+1, err)
		}
		k.all = append(k.all, one)
	}
	return k, nil
}

func derive(text string) (k key, err error) {
	id, err := hkdf.Key(sha256.New, []byte(text), nil, "relay key id", idSize)
	if err != nil {
		return k, err
	}
	secret, err := hkdf.Key(sha256.New, []byte(text), nil, "relay secrets", chacha20poly1305.KeySize)
	if err != nil {
		return k, err
	}
	k.id = [idSize]byte(id)
	k.aead, err = chacha20poly1305.NewX(secret)
	return k, err
}

// Seal encrypts a value with the first key. place names where the value is stored; Open needs the
// same place, so that a value that was moved does not open.
func (k *Keys) Seal(value []byte, place string) []byte {
	one := k.all[0]
	out := make([]byte, 0, headSize+chacha20poly1305.NonceSizeX+len(value)+one.aead.Overhead())
	out = append(append(out, magic...), one.id[:]...)
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce) // it never fails
	return one.aead.Seal(append(out, nonce...), nonce, value, additional(out, place))
}

// additional is what is authenticated beside the value: the head and the place.
func additional(head []byte, place string) []byte {
	return append(bytes.Clone(head[:headSize]), place...)
}

// Open decrypts a sealed value. Errors: ErrNotSealed, ErrKey, ErrDamaged.
func (k *Keys) Open(sealed []byte, place string) ([]byte, error) {
	if !IsSealed(sealed) {
		return nil, ErrNotSealed
	}
	if k == nil {
		return nil, ErrKey
	}
	id, rest := sealed[len(magic):headSize], sealed[headSize:]
	for _, one := range k.all {
		if !bytes.Equal(one.id[:], id) {
			continue
		}
		nonce, text := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
		value, err := one.aead.Open(nil, nonce, text, additional(sealed, place))
		if err != nil {
			return nil, ErrDamaged
		}
		return value, nil
	}
	return nil, ErrKey
}

// Fresh reports whether a sealed value is sealed with the first key; one that is not should be
// sealed again before its key is removed.
func (k *Keys) Fresh(sealed []byte) bool {
	return k != nil && IsSealed(sealed) && bytes.Equal(sealed[len(magic):headSize], k.all[0].id[:])
}

// IsSealed reports whether a value has the form of a sealed one.
func IsSealed(value []byte) bool {
	return bytes.HasPrefix(value, []byte(magic)) && len(value) >= headSize+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead
}
