package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	Until  time.Time `json:"until,omitzero"` // when it stops to sign; zero for the newest
}

// Errors of secrets.
var (
	ErrNoKey   = errors.New("secrets are stored sealed, and the file has no secrets_key. Add one, or runtime { secrets = \"plain\" }")
	ErrLostKey = errors.New("the secret is sealed with a key that secrets_key no longer has, or is damaged. Add that key again behind the new one, or rotate the secret")

	// ErrLostHeaders is an ErrLostKey.
	ErrLostHeaders = fmt.Errorf("%w. Its headers are lost with it: give them again by a PATCH, or null", ErrLostKey)
)

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

// sealHeaders takes the headers out of the spec and seals them. Errors: ErrNoKey.
func (r *Registry) sealHeaders(name string, s stored) (stored, error) {
	if s.lost {
		return s, nil // they stay as they are
	}
	members, err := membersOf(s.Spec)
	if err != nil || len(members["headers"]) == 0 || string(members["headers"]) == "null" || string(members["headers"]) == "{}" {
		return s, nil
	}
	if r.o.Keys == nil {
		if !r.compiler().Runtime.PlainSecrets {
			return s, ErrNoKey
		}
		return s, nil
	}
	s.Headers = r.o.Keys.Seal(members["headers"], place(name)+"/headers")
	delete(members, "headers")
	s.Spec, err = json.Marshal(members)
	return s, err
}

// unsealHeaders puts the headers back into the spec.
func (r *Registry) unsealHeaders(name string, s *stored) {
	if s.Headers == nil {
		return
	}
	headers, err := r.o.Keys.Open(s.Headers, place(name)+"/headers")
	members, bad := membersOf(s.Spec)
	if err != nil || bad != nil {
		s.lost = true
		return
	}
	members["headers"] = headers
	if spec, err := json.Marshal(members); err == nil {
		s.Spec, s.Headers = spec, nil
	}
}

// given says that the headers are known, because a change gave them.
func (s *stored) given() { s.Headers, s.lost = nil, false }

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
	if s.lost {
		return nil, ErrLostHeaders
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
		all.Secrets = append(all.Secrets, Secret{text, x.Until})
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

// untilNextEnd is how long no secret ends.
func (r *Registry) untilNextEnd() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, next := r.o.Now(), time.Hour
	for _, e := range r.entries {
		for _, x := range e.stored.Secrets {
			if !x.Until.IsZero() && now.Before(x.Until) {
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
