package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"relay/config"
	"relay/ingest/listen"
	"relay/outbox"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/jobs"
	"relay/relay/query"
)

func (a *App) adminOptions() admin.Options {
	options := admin.Options{
		Outbox: a.store, Deliverer: a.deliverer, Engine: a.o.Config.Outbox.Engine, Log: a.o.Log.With().Str("component", "admin").Logger(),
		Policy:  func() *policy.Policy { return a.live.Load().policy },
		Version: a.o.Version, Ready: a.ready, Fleet: a.fleetOf(), Config: a.configStatus,
		Reload: a.reloadRoute(), Metrics: a.metrics, Clock: a.clock(), Hush: a.o.Config.Hush,
		Indexed: a.indexed, Indexes: a.indexes, Running: a.running, Explain: a.explain, Stopping: a.closing,
	}
	options.Records = a.store
	if a.registry != nil {
		options.Registry = a.registry
	}
	options.Links = func() admin.Links { return a.live.Load().tokens.Links }
	options.Title = func() string { return a.live.Load().config.Admin.Page.Title }
	if a.jobs == nil {
		a.jobs = a.newJobs(a.store, admin.Surroundings(options))
	}
	options.Edits, options.Jobs, options.Test = a.store, a.jobs, a.deliverer.Test
	options.Alerts, options.Backlogs = a.alerts.Firing, a.backlogs.Hours
	return options
}

func (a *App) newJobs(store outbox.Operable, s query.Surroundings) *jobs.Jobs {
	_, shared := a.store.(outbox.Fleet)
	return jobs.New(jobs.Options{
		Outbox: store, Clock: a.clock(), Surroundings: s, Endpoints: a.filed,
		Relay: a.relayName(), Alone: !shared, Log: a.o.Log.With().Str("component", "jobs").Logger(),
	})
}

func (a *App) listenAdmin(ctx context.Context, c config.Admin) error {
	options := a.adminOptions()
	serve := func(ln net.Listener, g listen.Guard, open bool) {
		a.serve("admin", ln, listen.NewServer(listen.ServerOptions{
			Handler: a.guardAdmin(g, options, open),
			Log:     options.Log,
		}))
	}
	if c.Unix != "" {
		ln, err := a.unix(ctx, c.Unix, 0o600)
		if err != nil {
			return fmt.Errorf("open admin: %w", err)
		}
		serve(ln, listen.Guard{AnyHost: true}, true)
	}
	if c.HTTP != "" {
		ln, err := a.tcp(ctx, c.HTTP)
		if err != nil {
			return fmt.Errorf("open admin: %w", err)
		}
		serve(ln, listen.Guard{Hosts: c.Hosts}, c.Token.Reveal() == "")
	}
	return nil
}

// guardAdmin lets requests through that may come to the listener, each with the access of its token, and
// health probes without a token. open is for listeners where no token is needed.
func (a *App) guardAdmin(g listen.Guard, o admin.Options, open bool) http.Handler {
	api := admin.New(o)
	refused := newRefusals(o.Log)
	whole := g.Wrap(admin.Authorize(func() *admin.Tokens { return a.live.Load().tokens }, open, refused.tell, api))
	probes := g.Wrap(admin.Probes(o))
	people := a.people(g, open, api, refused.tell)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.live.Load().config.Admin.Page.Enabled && people.serves(r) {
			people.ServeHTTP(w, r)
			return
		}
		probe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		if probe && !a.live.Load().tokens.Let(r, open) {
			probes.ServeHTTP(w, r) // a verb may have lost its token
			return
		}
		whole.ServeHTTP(w, r)
	})
}

// openLinks reads which links were taken back.
func (a *App) openLinks(ctx context.Context, store outbox.Documents) error {
	a.revoked = admin.NewRevoked(store, a.o.Log.With().Str("component", "admin").Logger())
	switch err := a.revoked.Load(ctx); {
	case errors.Is(err, outbox.ErrUnavailable): // it is tried again, and no link holds until then
		a.o.Log.Warn().Str("component", "admin").Err(err).Msg("links that were taken back cannot be read now; no link is taken until they are")
	case err != nil:
		return err
	}
	now := *a.live.Load()
	now.tokens = a.tokensOf(a.o.Config.Admin)
	a.live.Store(&now)
	return nil
}

// tokensOf are the tokens of the admin listeners.
func (a *App) tokensOf(c config.Admin) *admin.Tokens {
	t := &admin.Tokens{Whole: c.Token.Reveal(), Others: map[string]*admin.Access{}, Links: admin.Links{Revoked: a.revoked}}
	for _, x := range c.Access {
		access := &admin.Access{Name: x.Name, Tenants: x.Tenants, Endpoints: x.Endpoints}
		for _, right := range x.May {
			access.May = append(access.May, admin.Right(right))
		}
		t.Others[x.Token.Reveal()] = access
	}
	for _, key := range c.LinkKey {
		t.Links.Keys = append(t.Links.Keys, key.Reveal())
	}
	return t
}

// indexed tells whether deliveries can be found by a path of the data.
func (a *App) indexed(path string) bool {
	return slices.Contains(a.indexes(), path)
}

// indexes are all paths of the data by which deliveries can be found.
func (a *App) indexes() []string {
	return admin.IndexesOf(a.o.Config.Ingest.Index, a.live.Load().policy)
}
