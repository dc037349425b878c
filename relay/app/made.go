package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"relay/config"
	"relay/internal/seal"
	"relay/outbox"
	"relay/policy"
	"relay/relay/registry"
)

// mostMisfits bounds how many endpoints made at run time a refused reload names.
const mostMisfits = 20

// openRegistry reads the endpoints made at run time.
func (a *App) openRegistry(ctx context.Context, store outbox.Documents) error {
	keys, err := sealKeys(a.o.Config)
	if err != nil {
		return err
	}
	a.registry = registry.New(registry.Options{
		Store:   store,
		Keys:    keys,
		File:    a.o.Policy,
		Changed: a.remade,
		Log:     a.o.Log.With().Str("component", "registry").Logger(),
	})
	switch err := a.registry.Load(ctx); {
	case errors.Is(err, outbox.ErrUnavailable): // the registry tries again, and nothing is accepted until then
		a.o.Log.Warn().Str("component", "registry").Err(err).Msg("endpoints made at run time cannot be read now; nothing is accepted until they are")
	case err != nil:
		return err
	default:
		a.complete.Store(true)
	}
	now := *a.live.Load()
	now.policy = a.o.Policy.With(a.registry.Made())
	a.live.Store(&now)
	a.o.Policy = now.policy
	return nil
}

// sealKeys are the keys of secrets_key, nil for none.
func sealKeys(c config.Config) (*seal.Keys, error) {
	var texts []string
	for _, key := range c.SecretsKey {
		texts = append(texts, key.Reveal())
	}
	return seal.New(texts)
}

// remade puts the endpoints made at run time into force.
func (a *App) remade() {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	now := *a.live.Load()
	now.policy = now.policy.With(a.registry.Made())
	a.live.Store(&now)
	a.deliverer.Apply(now.policy)
	if a.registry.Loaded() {
		a.complete.Store(true)
	}
}

// madeFor compiles the endpoints made at run time for another file. misfits says which of them are in force
// and would not be; if there are none, use makes the policy of both. The caller holds reloading.
func (a *App) madeFor(p *policy.Policy) (use func() *policy.Policy, misfits []string) {
	if a.registry == nil {
		return func() *policy.Policy { return p }, nil
	}
	errs, take := a.registry.Prepare(p)
	for _, name := range slices.Sorted(maps.Keys(errs)) {
		if len(misfits) == mostMisfits {
			misfits = append(misfits, fmt.Sprintf("and %d other endpoints made at run time", len(errs)-mostMisfits))
			break
		}
		misfits = append(misfits, fmt.Sprintf("endpoint %q, made at run time, does not fit this file: %v. Change or delete it first", name, errs[name][0]))
	}
	return func() *policy.Policy {
		take()
		return p.With(a.registry.Made())
	}, misfits
}
