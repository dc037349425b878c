package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"relay/internal/seal"
	"relay/policy/sign"
)

// storedSecret is a secret of an endpoint: sealed, or plain where the file allows that.
type storedSecret struct {
	Sealed []byte    `json:"sealed,omitempty"`
	Plain  string    `json:"plain,omitempty"`
	Until  time.Time `json:"until,omitzero"` // of one that was rotated out: it signs no longer
}

// Overlaps of a rotation.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 7 * 24 * time.Hour
)

// Secrets of an endpoint, the newest first.
type Secrets struct {
	Secrets []Secret `json:"secrets"`
}

// Secret is one of them.
type Secret struct {
	Secret string    `json:"secret"`
	Public string    `json:"public,omitempty"` // of an Ed25519 key (whsk_): what receivers verify with (whpk_)
	Until  time.Time `json:"until,omitzero"`   // when it stops to sign; zero for the newest
}

// publicOf is the public half of a secret that is an Ed25519 key, "" for any other.
func publicOf(secret string) string {
	signer, err := sign.NewSigner(sign.Standard(), []string{secret})
	if err != nil {
		return ""
	}
	for _, key := range signer.PublicKeys() {
		return key.Prefixed()
	}
	return ""
}

// Errors of secrets.
var (
	ErrNoKey = errors.New("secrets, headers, a private key of TLS and the query of a URL are stored sealed, and the file has no secrets_key. " +
		"Add one, or runtime { secrets = \"plain\" }")
	ErrLostKey = errors.New("the secret is sealed with a key that secrets_key no longer has, or is damaged. Add that key again behind the new one, or rotate the secret")
)

// lostSettings is an ErrLostKey that names what is lost beside the secret.
func lostSettings(sealed map[string][]byte) error {
	names := strings.Join(slices.Sorted(maps.Keys(sealed)), ", ")
	return fmt.Errorf("%w. Lost with it: %s. Give that again by a PATCH", ErrLostKey, names)
}

// makeSecret makes a secret of 32 random bytes, as Standard Webhooks has them.
func makeSecret() string {
	key := make([]byte, 32)
	rand.Read(key) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// place of a sealed secret.
func place(name string) string { return Kind + "/" + name }

// Stores tells whether secrets can be stored: sealed, or as they are if the file says so. Otherwise changes that
// need one are refused by ErrNoKey.
func (r *Registry) Stores() bool { return r.o.Keys != nil || r.compiler().Runtime.PlainSecrets }

func (r *Registry) store(name, secret string) (storedSecret, error) {
	if r.o.Keys != nil {
		return storedSecret{Sealed: r.o.Keys.Seal([]byte(secret), place(name))}, nil
	}
	if r.compiler().Runtime.PlainSecrets {
		return storedSecret{Plain: secret}, nil
	}
	return storedSecret{}, ErrNoKey
}

func (r *Registry) open(name string, s storedSecret) (string, error) {
	if s.Sealed == nil {
		return s.Plain, nil
	}
	text, err := r.o.Keys.Open(s.Sealed, place(name))
	if errors.Is(err, seal.ErrKey) || errors.Is(err, seal.ErrDamaged) || errors.Is(err, seal.ErrNotSealed) {
		return "", ErrLostKey
	}
	return string(text), err
}

// private are the members of a spec that may be credentials: receivers know their callers by paths and queries, too.
var private = []string{"url", "headers", "tls"}

// seal takes what may be a credential out of the spec and seals it. Without a key a URL without a query stays as it is. Errors: ErrNoKey.
func (r *Registry) seal(name string, s stored) (stored, error) {
	members, err := membersOf(s.Spec)
	if err != nil {
		return s, nil //nolint:nilerr // it is one that cannot be read, of which only secrets change
	}
	s.Sealed = maps.Clone(s.Sealed) // what is lost stays
	for _, key := range private {
		value, ok := members[key]
		if !ok || string(value) == "null" || string(value) == "{}" {
			continue
		}
		if r.o.Keys == nil {
			if credential(key, value) && !r.compiler().Runtime.PlainSecrets {
				return s, ErrNoKey
			}
			continue
		}
		if s.Sealed == nil {
			s.Sealed = map[string][]byte{}
		}
		s.Sealed[key] = r.o.Keys.Seal(value, place(name)+"/"+key)
		delete(members, key)
	}
	s.Spec, err = json.Marshal(members)
	return s, err
}

// credential tells whether a private member must not be stored in clear.
func credential(key string, value json.RawMessage) bool {
	switch key {
	case "url":
		var text string
		return json.Unmarshal(value, &text) != nil || strings.Contains(text, "?")
	case "tls":
		var tls struct{ Key *string }
		return json.Unmarshal(value, &tls) != nil || tls.Key != nil
	}
	return true
}

// unseal puts what was sealed back into the spec. What cannot be opened stays in Sealed.
func (r *Registry) unseal(name string, s *stored) {
	if s.Headers != nil {
		s.Sealed, s.Headers = map[string][]byte{"headers": s.Headers}, nil
	}
	members, err := membersOf(s.Spec)
	if err != nil || len(s.Sealed) == 0 {
		return
	}
	for key, sealed := range s.Sealed {
		if value, err := r.o.Keys.Open(sealed, place(name)+"/"+key); err == nil {
			members[key] = value
			delete(s.Sealed, key)
		}
	}
	if spec, err := json.Marshal(members); err == nil {
		s.Spec = spec
	}
}

// given says that a member is known, because a change gave it.
func (s *stored) given(key string) {
	s.Sealed = maps.Clone(s.Sealed) // the entry that is in force has it, too
	delete(s.Sealed, key)
}

// current are the secrets that still sign.
func (s *stored) current(now time.Time) []storedSecret {
	return slices.DeleteFunc(slices.Clone(s.Secrets), func(x storedSecret) bool { return !x.Until.IsZero() && !now.Before(x.Until) })
}

// withSecrets is the spec with the secrets that sign now.
func (r *Registry) withSecrets(name string, s *stored) (json.RawMessage, error) {
	var texts []string
	for _, x := range s.current(r.o.Now()) {
		text, err := r.open(name, x)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	if len(s.Sealed) > 0 {
		return nil, lostSettings(s.Sealed)
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(s.Spec, &members); err != nil {
		return nil, errors.New("the stored endpoint cannot be read; delete it and make it again")
	}
	if len(texts) > 0 {
		list, err := json.Marshal(texts)
		if err != nil {
			return nil, err
		}
		members["secrets"] = list
	}
	return json.Marshal(members)
}

// Secrets returns the secrets of an endpoint that sign now. Errors: ErrUnknown, ErrFixed, ErrLostKey.
func (r *Registry) Secrets(name string) (Secrets, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.find(name)
	if err != nil {
		return Secrets{}, err
	}
	all := Secrets{Secrets: []Secret{}}
	for _, x := range e.stored.current(r.o.Now()) {
		text, err := r.open(name, x)
		if err != nil {
			return Secrets{}, err
		}
		all.Secrets = append(all.Secrets, Secret{text, publicOf(text), x.Until})
	}
	return all, nil
}

// Rotate gives an endpoint a new secret, made if secret is "". The old ones sign along for the overlap. Errors:
// those of Patch, ErrTooManySecrets, ErrOverlap.
func (r *Registry) Rotate(ctx context.Context, name, secret string, overlap time.Duration) (Secrets, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Secrets{}, ErrOverlap
	}
	if secret == "" {
		secret = makeSecret()
	}
	err := r.update(ctx, name, 0, func(s *stored) error {
		now := r.o.Now()
		fresh, err := r.store(name, secret)
		if err != nil {
			return err
		}
		old := slices.DeleteFunc(s.current(now), func(x storedSecret) bool {
			_, err := r.open(name, x)
			return err != nil // it signs nothing any more
		})
		for i := range old {
			if until := now.Add(overlap).UTC().Truncate(time.Millisecond); old[i].Until.IsZero() || old[i].Until.After(until) {
				old[i].Until = until
			}
		}
		s.Secrets = append([]storedSecret{fresh}, old...)
		if overlap == 0 {
			s.Secrets = s.Secrets[:1]
		}
		if len(s.Secrets) > sign.MaxSecrets {
			return ErrTooManySecrets
		}
		return nil
	})
	if err != nil {
		return Secrets{}, err
	}
	return r.Secrets(name)
}

// Errors of Rotate.
var (
	ErrTooManySecrets = fmt.Errorf("%d secrets sign already: rotate with a shorter overlap, or wait for the end of one", sign.MaxSecrets)
	ErrOverlap        = errors.New("the overlap is from 0 to 7 days")
)

// untilNextEnd is how long no secret ends that endOverlaps has not ended yet.
func (r *Registry) untilNextEnd() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, next := r.o.Now(), time.Hour
	for _, e := range r.entries {
		for _, x := range e.stored.Secrets {
			if !x.Until.IsZero() {
				next = min(next, x.Until.Sub(now))
			}
		}
	}
	return max(next, time.Millisecond)
}

// endOverlaps compiles endpoints again of which a secret has ended.
func (r *Registry) endOverlaps() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	for name, e := range r.entries {
		if left := e.stored.current(now); len(left) < len(e.stored.Secrets) {
			e.stored.Secrets = left
			r.compile(name, e)
		}
	}
}
