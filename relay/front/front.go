// Package front serves hosts over HTTPS and HTTP and hands their requests on to an app: a reverse
// proxy that brings certificates, turns Relay-Event headers of answers into events, and publishes
// what receivers need.
//
// A request that comes in is never forwarded as bytes. net/http parses it and writes a new one,
// so what is ambiguous in it ends here.
//
// Read in this order: Front (a configuration and its listeners), site.go (one host), proxy.go
// (one request), events.go, certificates.go.
package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/ingest"
	"relay/ingest/listen"
	"relay/internal/throttle"
)

// Options of a Front. Ingest, Listen and WellKnown must be given.
type Options struct {
	Ingest    *ingest.Ingest                                               // takes events
	OnRequest func()                                                       // called for each request to ingest; may be nil
	Admin     http.Handler                                                 // for fronts that serve it; guards itself
	WellKnown func() Documents                                             // of the present configuration
	Listen    func(ctx context.Context, addr string) (net.Listener, error) // on TCP
	Certs     CertOptions                                                  // for ACME
	MaxConns  int                                                          // of each listener; 0 = 1,024
	Observe   Observer                                                     // may be nil
	Log       zerolog.Logger
}

// Observer counts what metrics show.
type Observer interface {
	FrontRequest(host string, status int)
	FrontEvents(n int, accepted bool)
}

// Front serves the hosts of one configuration, which Prepare and Apply replace while it runs.
// Its methods may be called at the same time, but only one Prepare with its Apply.
type Front struct {
	o       Options
	lines   throttle.Lines // by host and kind
	buffers bufferPool
	cache   atomic.Pointer[certmagic.Cache] // nil until a CA is needed
	storage certmagic.Storage               // the same
	tables  atomic.Pointer[tables]
	ctx     context.Context // ends with Shutdown: all streams end
	end     context.CancelFunc

	mu        sync.Mutex
	listeners map[string]*listener // by kind and address
	upstreams map[upstreamKey]*upstream
	running   sync.WaitGroup
	serving   bool
	failed    chan error // the first error of a listener
	down      chan struct{}
	downOnce  sync.Once
}

// listener is one address.
type listener struct {
	kind, addr string
	ln         net.Listener
	server     *listen.Server
}

func (l *listener) key() string { return l.kind + " " + l.addr }

// tables are the hosts of each listener, by its key.
type tables struct {
	byListener map[string]hosts
	sites      []*site
	certs      *certificates
}

// New makes a Front without hosts.
func New(o Options) *Front {
	f := &Front{o: o, lines: throttle.Lines{Every: 10 * time.Second}, listeners: map[string]*listener{}, upstreams: map[upstreamKey]*upstream{},
		failed: make(chan error, 1), down: make(chan struct{})}
	f.o.Log = o.Log.With().Str("component", "front").Logger()
	f.ctx, f.end = context.WithCancel(context.Background())
	f.tables.Store(&tables{certs: &certificates{f: f}})
	return f
}

// Next is a configuration that is ready: Apply puts it in force, Discard drops it.
type Next struct {
	f      *Front
	tables *tables
	opened []*listener
}

// Prepare does all that can fail of a new configuration: it opens the listeners that are new.
// Fronts that did not change keep their state.
func (f *Front) Prepare(ctx context.Context, fronts []config.Front, acme config.ACME) (*Next, error) {
	old := f.tables.Load()
	n := &Next{f: f, tables: &tables{byListener: map[string]hosts{}}}
	for i := range fronts {
		c := &fronts[i]
		s := old.site(c)
		if s == nil {
			s = f.newSite(c)
		}
		n.tables.sites = append(n.tables.sites, s)
		for kind, addrs := range map[string][]string{"https": c.HTTPS, "http": c.HTTP} {
			for _, addr := range addrs {
				if err := n.listen(ctx, kind, addr); err != nil {
					n.Discard()
					return nil, fmt.Errorf("open front %s: %w", c.Host, err)
				}
				n.tables.byListener[kind+" "+addr] = append(n.tables.byListener[kind+" "+addr], s)
			}
		}
	}
	certs, err := f.newCertificates(old.certs, n, fronts, acme)
	if err != nil {
		n.Discard()
		return nil, err
	}
	n.tables.certs = certs
	return n, nil
}

// listen opens an address unless it is open.
func (n *Next) listen(ctx context.Context, kind, addr string) error {
	f := n.f
	l := &listener{kind: kind, addr: addr}
	f.mu.Lock()
	_, open := f.listeners[l.key()]
	f.mu.Unlock()
	for _, o := range n.opened {
		open = open || o.key() == l.key()
	}
	if open {
		return nil
	}
	ln, err := f.o.Listen(ctx, addr)
	if err != nil {
		return err
	}
	l.ln = ln
	l.server = f.newServer(l)
	n.opened = append(n.opened, l)
	return nil
}

// Discard closes what Prepare opened.
func (n *Next) Discard() {
	for _, l := range n.opened {
		_ = l.ln.Close() // nothing came in
	}
}

// Apply puts the configuration in force. Requests under way end as they began; streams of fronts
// that changed or went end after their stream_close_delay.
func (n *Next) Apply() {
	f := n.f
	old := f.swap(n)
	n.tables.certs.apply(old.certs)
	f.mu.Lock()
	serving := f.serving
	f.mu.Unlock()
	if serving {
		n.tables.certs.start()
	}
	for _, s := range old.sites {
		if n.tables.site(s.c) != s {
			s.retire()
		}
	}
}

// swap puts the tables and listeners in force.
func (f *Front) swap(n *Next) (old *tables) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old = f.tables.Swap(n.tables)
	for _, l := range n.opened {
		f.listeners[l.key()] = l
		if f.serving {
			f.start(l)
		}
	}
	for key, l := range f.listeners {
		if _, used := n.tables.byListener[key]; !used {
			delete(f.listeners, key)
			f.running.Go(func() { f.drain(l, old.longestDelay()) })
		}
	}
	f.forgetUpstreams(n.tables.sites)
	return old
}

// site is the site of exactly this configuration, or nil.
func (t *tables) site(c *config.Front) *site {
	for _, s := range t.sites {
		if s.is(c) {
			return s
		}
	}
	return nil
}

func (t *tables) longestDelay() time.Duration {
	longest := time.Second
	for _, s := range t.sites {
		longest = max(longest, s.c.StreamCloseDelay)
	}
	return longest
}

// Serve answers requests until Shutdown or Close, then returns listen.ErrServerClosed; or until a
// listener fails.
func (f *Front) Serve() error {
	f.mu.Lock()
	f.serving = true
	for _, l := range f.listeners {
		f.start(l)
	}
	certs := f.tables.Load().certs
	f.mu.Unlock()
	certs.start()
	select {
	case err := <-f.failed:
		return err
	case <-f.down:
	}
	f.running.Wait()
	return listen.ErrServerClosed
}

// start serves a listener. The caller holds mu.
func (f *Front) start(l *listener) {
	serve := l.server.Serve
	if l.kind == "https" {
		serve = l.server.ServeTLS
	}
	f.running.Go(func() {
		if err := serve(l.ln); !errors.Is(err, listen.ErrServerClosed) {
			select {
			case f.failed <- fmt.Errorf("serve front on %s: %w", l.addr, err):
			default:
			}
		}
	})
}

// drain closes a listener that is no longer used, and its connections when they are done.
func (f *Front) drain(l *listener, delay time.Duration) {
	ctx, cancel := context.WithTimeout(f.ctx, delay)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close() // its requests had their time
	}
	_ = l.ln.Close() // if it was never served
}

// Shutdown stops listening, ends streams, and waits until other requests are answered. If ctx
// ends before that, it returns ctx's error, and the caller must call Close.
func (f *Front) Shutdown(ctx context.Context) error {
	f.end()
	all := f.all()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, l := range all {
		wg.Go(func() { errs[i] = l.server.Shutdown(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.closed()
	return nil
}

// Close closes all listeners and connections.
func (f *Front) Close() error {
	f.end()
	for _, l := range f.all() {
		_ = l.server.Close()
		_ = l.ln.Close() // the server knows it only while it serves
	}
	f.closed()
	return nil
}

// closed ends what has no connections.
func (f *Front) closed() {
	f.downOnce.Do(func() {
		f.tables.Load().certs.stop()
		if cache := f.cache.Load(); cache != nil {
			cache.Stop()
		}
		if c, ok := f.storage.(io.Closer); ok {
			_ = c.Close() // its locks end by themselves
		}
		f.mu.Lock()
		for _, u := range f.upstreams {
			u.transport.CloseIdleConnections()
		}
		f.mu.Unlock()
		close(f.down)
	})
}

func (f *Front) all() []*listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*listener
	for _, l := range f.listeners {
		all = append(all, l)
	}
	return all
}

// Addr is where the front listens for "https" or "http" at an address of the file; it tells the
// port that a 0 there became. nil if it does not.
func (f *Front) Addr(kind, addr string) net.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.listeners[kind+" "+addr]; l != nil {
		return l.ln.Addr()
	}
	return nil
}
