package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy"
)

// Errors of changes, beside config.Flaws and those of the store.
var (
	ErrUnknown = errors.New("there is no such endpoint made at run time")
	ErrFixed   = errors.New("the file has the endpoint of this name: change it there")
	ErrExists  = errors.New("an endpoint of this name is there already")
	ErrChanged = errors.New("the endpoint was changed meanwhile: read it again")
	ErrOff     = errors.New("the file says runtime { enabled = false }")
	ErrQuota   = errors.New("there are as many endpoints made at run time as the file allows")
)

// Endpoint is one made at run time, for people and programs.
type Endpoint struct {
	Name     string
	Revision uint64
	Spec     json.RawMessage // as it was given, without its secrets
	Lost     []string        // members of Spec that are not there, because the key that opens them is lost
	Secrets  int             // that sign now
	Created  time.Time
	Updated  time.Time
	Flaws    config.Flaws // why it is not in force; nil if it is
}

// find returns an entry. The caller holds mu.
func (r *Registry) find(name string) (*entry, error) {
	if r.fixed(name) {
		return nil, ErrFixed
	}
	e := r.entries[name]
	if e == nil {
		return nil, ErrUnknown
	}
	return e, nil
}

func (r *Registry) isFixed(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fixed(name)
}

func (r *Registry) compiler() *policy.Compiler {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Compiler()
}

func (r *Registry) view(name string, e *entry) Endpoint {
	return Endpoint{
		Name: name, Revision: e.revision, Spec: e.stored.Spec, Lost: slices.Sorted(maps.Keys(e.stored.Sealed)), Secrets: len(e.stored.current(r.o.Now())),
		Created: e.stored.Created, Updated: e.stored.Updated, Flaws: e.flaws,
	}
}

// Get returns an endpoint. Errors: ErrUnknown, ErrFixed.
func (r *Registry) Get(name string) (Endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.find(name)
	if err != nil {
		return Endpoint{}, err
	}
	return r.view(name, e), nil
}

// List returns all endpoints by name, also those that are not in force.
func (r *Registry) List() []Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Endpoint, 0, len(r.entries))
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		all = append(all, r.view(name, r.entries[name]))
	}
	return all
}

// Create makes an endpoint of a JSON object. Its members name and secret may be given; both are
// made if they are absent. Errors: config.Flaws, ErrFixed, ErrExists, ErrOff, ErrQuota, ErrNoKey, and those of
// the store.
func (r *Registry) Create(ctx context.Context, object json.RawMessage) (Endpoint, error) {
	members, err := membersOf(object)
	if err != nil {
		return Endpoint{}, err
	}
	name := "ep_" + strings.ToLower(rand.Text()[:20])
	secret := ""
	if err := errors.Join(takeText(members, "name", &name), takeText(members, "secret", &secret)); err != nil {
		return Endpoint{}, err
	}
	if _, ok := members["secrets"]; ok {
		return Endpoint{}, config.Flaws{{Pointer: "/secrets", Detail: "give one, as secret; others come by rotation"}}
	}
	now := r.o.Now().UTC().Truncate(time.Millisecond)
	s := stored{Created: now, Updated: now}
	if s.Spec, err = json.Marshal(members); err != nil {
		return Endpoint{}, err
	}
	if secret == "" && signs(members) {
		secret = makeSecret()
	}
	if r.isFixed(name) {
		return Endpoint{}, ErrFixed
	}
	if secret != "" {
		sealed, err := r.store(name, secret)
		if err != nil {
			return Endpoint{}, err
		}
		s.Secrets = []storedSecret{sealed}
	}
	if err := r.put(ctx, version{name: name}, &s); err != nil {
		if errors.Is(err, outbox.ErrConflict) {
			return Endpoint{}, ErrExists
		}
		return Endpoint{}, err
	}
	return r.Get(name)
}

// admit tells why a new or changed endpoint cannot be stored, nil if it can.
func (r *Registry) admit(name string, s *stored) error {
	runtime := r.compiler().Runtime
	if !runtime.Enabled {
		return ErrOff
	}
	spec, err := r.withSecrets(name, s)
	if err != nil {
		return err
	}
	e, err := r.compiler().Compile(name, spec)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[name] == nil && len(r.entries) >= runtime.MaxEndpoints {
		return fmt.Errorf("%w: max_endpoints = %d", ErrQuota, runtime.MaxEndpoints)
	}
	if runtime.PerTenant == 0 || e.Filter == nil {
		return nil
	}
	for _, tenant := range e.Filter.Tenants {
		n := 1
		for other, x := range r.entries {
			if other != name && x.compiled != nil && x.compiled.Filter != nil && slices.Contains(x.compiled.Filter.Tenants, tenant) {
				n++
			}
		}
		if n > runtime.PerTenant {
			return fmt.Errorf("%w: per_tenant = %d, of tenant %q", ErrQuota, runtime.PerTenant, tenant)
		}
	}
	return nil
}

// version is the endpoint that a change begins with.
type version struct {
	name     string
	revision uint64 // 0 for none yet
	held     bool   // it is not in force
}

// put writes an endpoint that may be stored, and puts it into force.
func (r *Registry) put(ctx context.Context, v version, s *stored) error {
	if err := r.write(ctx, v, s); err != nil {
		return err
	}
	r.settled(ctx)
	return nil
}

// write is put without waiting for the end. One change is judged and written at a time, because two that are judged
// at the same time would not count each other for a quota.
func (r *Registry) write(ctx context.Context, v version, s *stored) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// What was lost with a key can come back one by one.
	if err := r.admit(v.name, s); err != nil && !(v.held && errors.Is(err, ErrLostKey)) {
		return err
	}
	sealed, err := r.seal(v.name, *s)
	if err != nil {
		return err
	}
	body, err := json.Marshal(sealed)
	if err != nil {
		return err
	}
	d, err := r.o.Store.PutDocument(ctx, outbox.Document{Kind: Kind, Name: v.name, Revision: v.revision, Body: body})
	if err == nil {
		r.take([]outbox.Document{d}, 0)
	}
	return err
}

// update changes what is stored of an endpoint. match is the revision that the caller knows, 0 for any. An endpoint
// that somebody else changes at the same time is read again.
func (r *Registry) update(ctx context.Context, name string, match uint64, change func(*stored) error) error {
	for range 10 {
		r.mu.Lock()
		e, err := r.find(name)
		if err != nil {
			r.mu.Unlock()
			return err
		}
		v, s := version{name, e.revision, e.compiled == nil}, e.stored
		r.mu.Unlock()
		if match != 0 && match != v.revision {
			return ErrChanged
		}
		if err := change(&s); err != nil {
			return err
		}
		s.Updated = r.o.Now().UTC().Truncate(time.Millisecond)
		err = r.put(ctx, v, &s)
		if !errors.Is(err, outbox.ErrConflict) {
			return err
		}
		if err := r.read(ctx); err != nil {
			return err
		}
	}
	return ErrChanged
}

// Patch changes an endpoint by a JSON merge patch (RFC 7396). match is the revision that the
// caller knows, 0 for any. Errors: config.Flaws, ErrUnknown, ErrFixed, ErrChanged, ErrOff, ErrQuota, ErrLostKey, and
// those of the store.
func (r *Registry) Patch(ctx context.Context, name string, match uint64, patch json.RawMessage) (Endpoint, error) {
	members, err := membersOf(patch)
	if err != nil {
		return Endpoint{}, err
	}
	if err := refuseSecrets(members, name); err != nil {
		return Endpoint{}, err
	}
	err = r.update(ctx, name, match, func(s *stored) (err error) {
		for key := range members {
			s.given(key)
		}
		s.Spec, err = merge(s.Spec, patch)
		return err
	})
	if err != nil {
		return Endpoint{}, err
	}
	return r.Get(name)
}

// Replace gives an endpoint other settings; its secrets stay. Arguments and errors are those of Patch.
func (r *Registry) Replace(ctx context.Context, name string, match uint64, object json.RawMessage) (Endpoint, error) {
	members, err := membersOf(object)
	if err != nil {
		return Endpoint{}, err
	}
	if err := refuseSecrets(members, name); err != nil {
		return Endpoint{}, err
	}
	delete(members, "name")
	spec, err := json.Marshal(members)
	if err != nil {
		return Endpoint{}, err
	}
	err = r.update(ctx, name, match, func(s *stored) error {
		s.Spec, s.Sealed = spec, nil
		return nil
	})
	if err != nil {
		return Endpoint{}, err
	}
	return r.Get(name)
}

// Delete removes an endpoint. Its pending deliveries are held. Errors: ErrUnknown, ErrFixed, ErrChanged,
// and those of the store.
func (r *Registry) Delete(ctx context.Context, name string, match uint64) error {
	r.mu.Lock()
	e, err := r.find(name)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if match != 0 && match != e.revision {
		return ErrChanged
	}
	d, err := r.o.Store.PutDocument(ctx, outbox.Document{Kind: Kind, Name: name, Revision: e.revision})
	switch {
	case errors.Is(err, outbox.ErrConflict):
		return errors.Join(ErrChanged, r.read(ctx))
	case err != nil:
		return err
	}
	r.take([]outbox.Document{d}, 0)
	r.settled(ctx)
	return nil
}

// refuseSecrets refuses members that a change must not have.
func refuseSecrets(members map[string]json.RawMessage, name string) error {
	var flaws config.Flaws
	for _, key := range []string{"secret", "secrets"} {
		if _, ok := members[key]; ok {
			flaws = append(flaws, config.Flaw{Pointer: "/" + key, Detail: "a secret is changed by rotation: POST /v1/endpoints/" + name + "/secret/rotate"})
		}
	}
	flaws = append(flaws, masks(members)...)
	var other string
	if json.Unmarshal(members["name"], &other) == nil && other != name {
		flaws = append(flaws, config.Flaw{Pointer: "/name", Detail: "a name cannot be changed: make another endpoint"})
	}
	if len(flaws) > 0 {
		return flaws
	}
	return nil
}

// masks are values that answers show in place of others, and that nobody means.
func masks(members map[string]json.RawMessage) (flaws config.Flaws) {
	const detail = "*** stands for a value that is not shown: give the value itself, or leave it as it is by a PATCH without it"
	var url string
	if json.Unmarshal(members["url"], &url) == nil && strings.Contains(url, policy.Hidden) {
		flaws = append(flaws, config.Flaw{Pointer: "/url", Detail: detail})
	}
	var headers map[string]any
	_ = json.Unmarshal(members["headers"], &headers) // what is wrong is said later
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if headers[name] == policy.Hidden {
			flaws = append(flaws, config.Flaw{Pointer: "/headers/" + config.EscapePointer(name), Detail: detail})
		}
	}
	var tls struct{ Key string }
	if json.Unmarshal(members["tls"], &tls) == nil && tls.Key == policy.Hidden {
		flaws = append(flaws, config.Flaw{Pointer: "/tls/key", Detail: detail})
	}
	return flaws
}

// membersOf reads an object.
func membersOf(object json.RawMessage) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil || members == nil {
		return nil, config.Flaws{{Detail: "write a JSON object: {…}"}}
	}
	return members, nil
}

// takeText takes a text out of the members, if it is there.
func takeText(members map[string]json.RawMessage, key string, to *string) error {
	v, ok := members[key]
	delete(members, key)
	if !ok || string(v) == "null" {
		return nil
	}
	if json.Unmarshal(v, to) != nil {
		return config.Flaws{{Pointer: "/" + key, Detail: "write a text"}}
	}
	return nil
}

// signs tells whether an endpoint has a signature that needs a secret.
func signs(members map[string]json.RawMessage) bool {
	var names []string
	_ = json.Unmarshal(members["sign"], &names) // what is wrong is said later
	return !slices.Equal(names, []string{"none"})
}

// merge applies a JSON merge patch (RFC 7396 section 2). Values that it leaves keep their bytes.
func merge(target, patch json.RawMessage) (json.RawMessage, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(patch), []byte("{")) {
		return patch, nil
	}
	into, from := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if bytes.HasPrefix(bytes.TrimSpace(target), []byte("{")) {
		if err := json.Unmarshal(target, &into); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(patch, &from); err != nil {
		return nil, err
	}
	for key, v := range from {
		if string(v) == "null" {
			delete(into, key)
			continue
		}
		merged, err := merge(into[key], v)
		if err != nil {
			return nil, err
		}
		into[key] = merged
	}
	return json.Marshal(into)
}
