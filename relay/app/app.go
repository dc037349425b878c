// Package app puts the parts together: it is the program without its command line, and the only
// package that knows all the others. A test can run it on port 0, as main does.
//
// Relays that share an outbox may have different files, for example while a fleet gets a new one.
// Then each Relay delivers by its own file, any Relay may claim a delivery, and the file of the
// Relay that accepted an event decides which endpoints get it. App warns of differences
// (fleet.go).
package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/ingest"
	"relay/ingest/listen"
	"relay/internal/trace"
	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/spool"
	"relay/outbox/sqlite"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/alert"
	"relay/relay/backlog"
	"relay/relay/deliver"
	"relay/relay/front"
	"relay/relay/jobs"
	"relay/relay/metrics"
	"relay/relay/registry"
)

// Options of an App.
type Options struct {
	Config  config.Config
	Policy  *policy.Policy
	Log     zerolog.Logger
	Version string        // for User-Agent and logs
	Grace   time.Duration // how long attempts under way may go on after a stop; 0 = 20 s

	// LogDropped counts the lines of Log that were lost; nil if none can be lost.
	LogDropped func() uint64

	// LockWait is how long Open waits in all for an outbox, sockets and ports that another
	// process has; 0 for not at all.
	LockWait time.Duration

	// Load reads the files of the start again, for Reload. With an error it may return a File,
	// which then lists the files that were read. nil if there are no files.
	Load func() (*config.File, *policy.Policy, error)

	// Hush is called with what removes values from log lines that must not be shown, when a reload
	// changes them; see config.Config.Hushes. nil if nothing is removed.
	Hush func(func(text string) string)

	File  *config.File // that Config and Policy were read from; nil if they were made
	Watch bool         // reload when the files change; else only Reload does

	// Given are sockets that a service manager opened; listeners of the file with the same
	// addresses take them. Open fails if one is left. nil for none.
	Given *listen.Given

	OneTime *admin.OneTime // codes of links that log in to the page once; nil for none

	Hooks Hooks
}

// Hooks are called as the life of an App goes on, to tell a service manager or another process.
// They must not block. Those that are nil are left out.
type Hooks struct {
	Ready     func() // requests are answered, which they are with a refusal while the outbox is away
	Reloading func() // the files are read again; Reloaded follows, with the error of a refusal
	Reloaded  func(error)
	Stopping  func()

	// Alive is called every AliveEvery while the deliverer answers.
	Alive      func()
	AliveEvery time.Duration
}

func call(hook func()) {
	if hook != nil {
		hook()
	}
}

// Stop, given as the cause of the context that ends Run, says how to stop.
type Stop struct {
	By     string        // the signal's name, for the log
	Linger time.Duration // ingest stays open until it was idle for this long, but no longer than the grace
	Drain  time.Duration // before that, deliveries go on until none is pending, but no longer than this
}

func (s Stop) Error() string { return "stopped by " + s.By }

// App is one Relay: listeners, outbox, deliverer.
type App struct {
	o         Options
	store     outbox.Operable
	deliverer *deliver.Deliverer
	registry  *registry.Registry // of endpoints made at run time
	revoked   *admin.Revoked     // links that were taken back
	complete  atomic.Bool        // these are in the policy that is live
	jobs      *jobs.Jobs
	alerts    *alert.Watcher
	backlogs  *backlog.History
	metrics   *metrics.Metrics
	events    *ownEvents
	tracer    *trace.Tracer // nil for none
	servers   []server
	front     *front.Front
	own       []netip.AddrPort
	shares    shares                  // of the process's limit of open files
	missing   atomic.Pointer[missing] // nil while all files are in their place
	teardown  []step
	started   time.Time
	waited    time.Duration // of LockWait
	request   atomic.Int64  // time of the last request to ingest, in Unix nanoseconds
	draining  atomic.Bool
	stopping  atomic.Bool
	hurried   chan struct{} // closed by Hurry: a drain ends
	hurry     sync.Once
	aborted   chan struct{} // closed by Abort
	closing   chan struct{} // closed when listeners close
	abort     sync.Once

	live    atomic.Pointer[live]
	refused atomic.Pointer[admin.ReloadError] // why the last reload was refused; nil if it was not

	reloading sync.Mutex // one reload at a time; guards the following fields
	seen      seen
	reads     []string // files that the configuration depends on
}

// server is a listener with its server.
type server struct {
	name string // "ingest" or "admin"
	ln   net.Listener
	http httpServer
}

// httpServer is the common part of ingest.Server and listen.Server.
type httpServer interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// step is a named part of the teardown.
type step struct {
	name string
	do   func() error
}

// Open opens the outbox and all listeners; no request is answered and nothing is delivered before
// Run. On an error everything that was opened is closed again.
func Open(ctx context.Context, o Options) (*App, error) {
	if o.Grace == 0 {
		o.Grace = 20 * time.Second
	}
	a := &App{o: o, started: time.Now(), hurried: make(chan struct{}), aborted: make(chan struct{}), closing: make(chan struct{})}
	first := &live{
		policy: o.Policy, hash: o.Policy.Hash(), config: o.Config, generation: 1, at: a.started,
		documents: documentsOf(o.Policy), tokens: a.tokensOf(o.Config.Admin),
	}
	if o.File != nil {
		first.files, first.digest = o.File.Paths, o.File.Digest()
	}
	a.live.Store(first)
	a.shares = shareFiles(limitOfFiles(), o.Config)
	a.noteFiles(o.File, nil)
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// openStore opens the engine that the file names.
func openStore(ctx context.Context, o Options) (outbox.Operable, error) {
	log := o.Log.With().Str("component", "outbox").Logger()
	c := o.Config.Outbox
	if c.Engine == "redis" {
		r := redisOptions(c)
		r.Log, r.Version = log, o.Version
		if o.Policy != nil {
			r.Endpoints = o.Policy.Hashes()
		}
		if c.Redis.Spool != "" {
			r.Patience = spool.Patience
		}
		shared, err := redisstream.Open(ctx, r)
		if err != nil || c.Redis.Spool == "" {
			return shared, err
		}
		store, err := spool.Open(ctx, shared, spool.Options{Dir: c.Redis.Spool, MaxSize: c.MaxSize, Mirror: []string{registry.Kind, admin.LinkKind}, Log: log})
		if err != nil {
			return nil, errors.Join(err, shared.Close())
		}
		return store, nil
	}
	return sqlite.Open(ctx, sqlite.Options{Dir: c.Path, Durability: c.Durability, MaxSize: c.MaxSize, Log: log})
}

// Counts opens the outbox, which no Relay may be using, and adds up the counts of its endpoints.
func Counts(ctx context.Context, c config.Config) (total outbox.Counts, err error) {
	store, err := openStore(ctx, Options{Config: c, Log: zerolog.Nop()})
	if err != nil {
		return total, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	counts, err := store.Counts(ctx)
	for _, n := range counts {
		total.Accepted += n.Accepted
		total.Pending += n.Pending
		total.Delivered += n.Delivered
		total.Failed += n.Failed
		total.Discarded += n.Discarded
	}
	return total, err
}

func (a *App) open(ctx context.Context) error {
	c := a.o.Config
	store, err := patiently(ctx, a, func() (outbox.Operable, error) { return openStore(ctx, a.o) })
	if err != nil {
		return err
	}
	a.store = store
	a.onClose("outbox", store.Close)

	if err := a.openRegistry(ctx, store); err != nil {
		return err
	}
	if err := a.openLinks(ctx, store); err != nil {
		return err
	}
	now := func() *policy.Policy { return a.live.Load().policy }
	a.tracer = newTracer(a.o)
	a.metrics = a.newMetrics()
	a.events = newOwnEvents(store.Accept, now, a.metrics.OwnEventsDropped, a.o.Log.With().Str("component", "deliver").Logger())
	in := ingest.New(ingest.Options{
		Outbox: &telling{
			Appender: a.metrics.Count(store),
			raise:    a.events.raise,
			lost:     a.lostOutbox,
		},
		Route: func(e *outbox.Event) ([]string, []outbox.Term) { return now().Route(e) },
		Trace: a.tracer, KeepTrace: func() bool { return now().PropagatesTrace() },
		Type:    func(name string) (*policy.EventType, bool) { return a.live.Load().policy.Type(name) },
		Strict:  c.Ingest.Strict,
		Index:   c.Ingest.Index,
		Self:    a.relayName(),
		MaxBody: c.Ingest.MaxBody,
		Log:     a.o.Log,
	})
	limiter, _ := store.(outbox.Limiter) // of an engine that Relays share
	a.deliverer = deliver.New(deliver.Options{
		Source:   store,
		Limiter:  limiter,
		Clock:    a.clock(),
		Log:      a.o.Log.With().Str("component", "deliver").Logger(),
		Version:  a.o.Version,
		Own:      func() []netip.AddrPort { return a.own },
		MaxConns: a.shares.outgoing,
		Grace:    a.o.Grace,
		Self:     a.self(),
		Raise:    a.events.raise,
		Trace:    a.tracer,
	}, a.o.Policy)
	a.alerts = a.newAlerts(store)
	a.backlogs = backlog.New(store, a.clock())
	a.o.Policy = nil // live keeps it until a reload replaces it
	a.onClose("sockets that nothing uses", a.o.Given.Close)
	if err := a.listenIngest(ctx, c.Ingest, in); err != nil {
		return err
	}
	if err := a.listenAdmin(ctx, c.Admin); err != nil {
		return err
	}
	if err := a.openFront(ctx, in); err != nil {
		return err
	}
	return a.o.Given.Left()
}

// unix listens on the socket at path, which a service manager may have opened.
func (a *App) unix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if ln := a.o.Given.Unix(path); ln != nil {
		return ln, nil
	}
	return patiently(ctx, a, func() (net.Listener, error) { return listen.Unix(ctx, path, mode) })
}

// tcp listens on host:port, which a service manager may have opened.
func (a *App) tcp(ctx context.Context, addr string) (net.Listener, error) {
	if ln := a.o.Given.TCP(addr); ln != nil {
		return ln, nil
	}
	return patiently(ctx, a, func() (net.Listener, error) { return listen.TCP(ctx, addr) })
}

func (a *App) listenIngest(ctx context.Context, c config.Ingest, in *ingest.Ingest) error {
	serve := func(ln net.Listener, g listen.Guard) {
		a.serve("ingest", ln, ingest.NewServer(ingest.ServerOptions{
			Ingest:    in,
			Guard:     g,
			MaxConns:  a.shares.ingest,
			OnRequest: func() { a.request.Store(time.Now().UnixNano()) }, // for App.linger
			Log:       a.o.Log.With().Str("component", "ingest").Logger(),
		}))
	}
	for _, u := range c.Unix {
		ln, err := a.unix(ctx, u.Path, u.Mode)
		if err != nil {
			return fmt.Errorf("open ingest: %w", err)
		}
		serve(ln, listen.Guard{AnyHost: true})
	}
	for _, h := range c.HTTP {
		ln, err := a.tcp(ctx, h.Addr)
		if err != nil {
			return fmt.Errorf("open ingest: %w", err)
		}
		serve(ln, listen.Guard{Token: h.Token.Reveal(), Hosts: h.Hosts})
	}
	return nil
}

// clock is the outbox's own, nil if it has none.
func (a *App) clock() outbox.Clock {
	c, _ := a.store.(outbox.Clock)
	return c
}

// newMetrics asks the deliverer only during a scrape.
func (a *App) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Options{
		Version: a.o.Version,
		Outbox:  a.store,
		Status:  func() []deliver.Status { return a.deliverer.Status() },
		Firing:  a.firing,
		InFiles: func(ctx context.Context) map[string]bool {
			names, _ := a.filed(ctx) // an unknown fleet counts as none, as in the admin's answers
			return names
		},
		Kind:         a.kindOf,
		TraceDropped: a.tracer.Dropped,
		Certificates: a.certificates,
		LogDropped: func() uint64 {
			if a.o.LogDropped == nil {
				return 0
			}
			return a.o.LogDropped()
		},
		Clock: a.clock(),
		Config: func() metrics.Config {
			now := a.live.Load()
			return metrics.Config{Generation: now.generation, Hash: now.hash, LoadedAt: now.at, Refused: a.refused.Load() != nil}
		},
	})
}

// kindOf says which metrics an endpoint has.
func (a *App) kindOf(endpoint string) metrics.Kind {
	now := a.live.Load()
	switch e := now.policy.Endpoint(endpoint); {
	case e == nil:
		return metrics.Other
	case e.Made && now.config.Metrics.PerEndpoint != "all":
		return metrics.Made
	}
	return metrics.Own
}

// filed names the endpoints in the file of this Relay, or of any other Relay of the outbox. Their
// deliveries are made. With an error it has those of this Relay.
func (a *App) filed(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{}
	for _, e := range a.live.Load().policy.Endpoints {
		names[e.Name] = true
	}
	ask := a.fleetOf()
	if ask == nil {
		return names, nil
	}
	f, err := ask(ctx)
	for _, r := range f.Relays {
		for name := range r.Endpoints {
			names[name] = true
		}
	}
	return names, err
}

// ready is the process's part of readiness; admin asks the outbox, too.
func (a *App) ready() error {
	if a.stopping.Load() {
		return errors.New("stopping: deliveries are no longer made")
	}
	if m := a.missing.Load(); m != nil {
		return m
	}
	return nil
}

// serve notes a listener and its server for Run, and its address, which no endpoint may point at.
func (a *App) serve(name string, ln net.Listener, h httpServer) {
	a.servers = append(a.servers, server{name, ln, h})
	a.onClose(name+" "+ln.Addr().String(), func() error {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		a.own = append(a.own, tcp.AddrPort())
	}
}

// Addrs returns the addresses of the listeners for "ingest" or "admin", in the order of the
// file.
func (a *App) Addrs(name string) []net.Addr {
	var out []net.Addr
	for _, s := range a.servers {
		if s.name == name {
			out = append(out, s.ln.Addr())
		}
	}
	return out
}

// TakesEvents says why an event would be refused now, nil if it would be accepted.
func (a *App) TakesEvents(ctx context.Context) error {
	return errors.Join(a.ready(), a.store.Health(ctx))
}

// Hurry ends a drain, or, if none is under way, does what Abort does.
func (a *App) Hurry() {
	if a.draining.Load() {
		a.hurry.Do(func() { close(a.hurried) })
		return
	}
	a.Abort()
}

// Abort cuts a stop short: it ends attempts, releases their claims and waits for nothing else.
// The second signal calls it.
func (a *App) Abort() {
	a.abort.Do(func() {
		close(a.aborted)
		a.deliverer.Abort()
	})
}

func (a *App) onClose(name string, do func() error) {
	a.teardown = append(a.teardown, step{name, do})
}

// close runs the teardown, last opened first.
func (a *App) close() error {
	var errs []error
	for i := len(a.teardown) - 1; i >= 0; i-- {
		s := a.teardown[i]
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", s.name, err))
		}
	}
	a.teardown = nil
	return errors.Join(errs...)
}
