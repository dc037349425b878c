package app

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"relay/config"
	"relay/ingest"
	"relay/ingest/listen"
	"relay/internal/seal"
	"relay/outbox/redisstream"
	"relay/policy"
	"relay/relay/certstore"
	"relay/relay/front"
)

// openFront opens the listeners of the file's fronts. Without any it opens nothing, until a
// reload brings some.
func (a *App) openFront(ctx context.Context, in *ingest.Ingest) error {
	guard := listen.Guard{AnyHost: true} // the front chooses by host
	a.front = front.New(front.Options{
		Ingest:    in,
		OnRequest: func() { a.request.Store(time.Now().UnixNano()) },
		Admin:     a.guardAdmin(guard, a.adminOptions(), false),
		WellKnown: func() front.Documents { return a.live.Load().documents() },
		Listen:    a.tcp,
		Certs:     front.CertOptions{Storage: func() (front.Storage, error) { return certStorage(a.o.Config) }},
		MaxConns:  a.shares.front,
		Observe:   a.metrics,
		Log:       a.o.Log,
	})
	a.onClose("front", a.front.Close)
	next, err := a.front.Prepare(ctx, a.o.Config.Fronts, a.o.Config.ACME)
	if err != nil {
		return err
	}
	next.Apply()
	return nil
}

// certificates says when those of fronts end, by host.
func (a *App) certificates() map[string]time.Time {
	ends := map[string]time.Time{}
	for _, c := range a.front.Certificates() {
		ends[c.Host] = c.Expires
	}
	return ends
}

// certFolder is beside the database of an outbox in a folder.
const certFolder = "certificates"

// certStorage is where the outbox is.
func certStorage(c config.Config) (front.Storage, error) {
	if c.Outbox.Engine != "redis" {
		return certstore.Files(filepath.Join(c.Outbox.Path, certFolder)), nil
	}
	var texts []string
	for _, k := range c.SecretsKey {
		texts = append(texts, k.Reveal())
	}
	keys, err := seal.New(texts)
	if err != nil {
		return nil, fmt.Errorf("read secrets_key: %w", err)
	}
	client, err := redisstream.Connect(redisOptions(c.Outbox))
	if err != nil {
		return nil, err
	}
	return certstore.OpenRedis(certstore.Options{Client: client, Namespace: c.Outbox.Redis.Namespace, Keys: keys}), nil
}

// documentsOf makes what is published of a policy, once it is asked for.
func documentsOf(p *policy.Policy) func() front.Documents {
	return sync.OnceValue(func() front.Documents {
		d := front.Documents{Keys: p.PublicKeys(), Types: []front.TypeShown{}, Signs: []string{}}
		for _, t := range p.Types {
			shown := front.TypeShown{Type: t.Name, Description: t.Description, Example: t.Example}
			if t.Schema != nil {
				shown.Schema = t.Schema.Text()
			}
			d.Types = append(d.Types, shown)
		}
		for _, e := range p.Endpoints {
			for _, s := range e.Signers {
				d.Signs = append(d.Signs, s.Scheme().Name())
			}
		}
		slices.Sort(d.Signs)
		d.Signs = slices.Compact(d.Signs)
		return d
	})
}

// frontAddrs are where the fronts listen, for people.
func (a *App) frontAddrs() []string {
	var all []string
	for i := range a.o.Config.Fronts {
		f := &a.o.Config.Fronts[i]
		for kind, addrs := range map[string][]string{"https": f.HTTPS, "http": f.HTTP} {
			for _, addr := range addrs {
				if at := a.front.Addr(kind, addr); at != nil {
					all = append(all, fmt.Sprintf("%s:%s", kind, a.o.Config.Show("front.http", at.String())))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
