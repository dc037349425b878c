// Package deliver is the way out: it claims deliveries from the outbox, signs
// and posts them, and settles each with its attempt's record.
//
// Each endpoint has a runner with its own slots and connections, so none can
// slow another (promise P8). All state of retries is in the outbox: a delivery
// that waits costs nothing here. DESIGN.md has the picture, the codes and the
// trade-offs.
package deliver

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/trace"
	"relay/outbox"
	"relay/policy"
	"relay/relay/gate"
	"relay/relay/post"
)

// Source is the part of outbox.Store that delivering needs.
type Source interface {
	Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error)
	Settle(ctx context.Context, c outbox.Claim, s outbox.Settlement) error
	Release(ctx context.Context, claims ...outbox.Claim) error
	Withdraw(endpoint string)

	outbox.Notebook
}

// Options are the parts and settings of a Deliverer.
type Options struct {
	Source   Source
	Limiter  outbox.Limiter // of an outbox that Relays share: rate limits then hold for all of them
	Clock    outbox.Clock   // of an outbox that has its own; nil: this process's
	Log      zerolog.Logger
	Version  string                  // of User-Agent: Relay/<Version>
	Own      func() []netip.AddrPort // listeners of this process, never connected to; optional
	MaxConns int                     // connections to all receivers together; 0 for no bound
	Self     func() Self             // for the records of attempts; optional
	Trace    *trace.Tracer           // records attempts of events in traces that are sampled; nil for none
	Grace    time.Duration           // for attempts under way when Run is to end; default 20 s
	Raise    func(OwnEvent)          // tells of what happened to endpoints and deliveries; must not block; optional

	network post.Network // of tests
	observe func(Result) // of tests: called after each recorded attempt, from many goroutines
}

// Deliverer delivers to the endpoints of a policy, which Apply can replace by
// another one at any time.
type Deliverer struct {
	o          Options
	userAgent  string
	gates      *gate.Gates
	drafts     sync.Pool // of *draft
	client     *post.Client
	workers    workers
	aborted    chan struct{}
	abort      sync.Once
	unfinished atomic.Int64
	listeners  atomic.Pointer[[]*listener] // nil for none

	// A stop ends these contexts one after the other: first claims, then attempts, then waiting
	// for the outbox to take records.
	claiming, working, settling context.Context
	stop, cut                   context.CancelCauseFunc
	giveUp                      context.CancelFunc

	mu      sync.Mutex
	runners map[string]*runner // by endpoint
	enabled map[string]bool    // the endpoints of the policy; true if enabled
	phase   phase
	work    sync.WaitGroup // runners and their attempts; grows only while mu is held or one of them is running
}

// phase of a Deliverer's life.
type phase int

const (
	idle    phase = iota // before Run
	running              // runners work
	ended                // nothing more begins
)

// New prepares a Deliverer; nothing happens before Run. Endpoints that are not enabled get no
// runner, so their deliveries are held.
func New(o Options, p *policy.Policy) *Deliverer {
	if o.Grace == 0 {
		o.Grace = 20 * time.Second
	}
	if o.Self == nil {
		o.Self = func() Self { return Self{} }
	}
	d := &Deliverer{
		o:         o,
		userAgent: userAgent(o.Version),
		drafts:    sync.Pool{New: func() any { return new(draft) }},
		client:    post.NewClient(post.Options{Own: o.Own, MaxConns: o.MaxConns, Network: o.network}),
		workers:   workers{jobs: make(chan job)},
		aborted:   make(chan struct{}),
		runners:   map[string]*runner{},
	}
	d.gates = gate.New(gate.Options{
		Notes:   o.Source,
		Clock:   o.Clock,
		Relay:   rand.Text()[:12],
		Limiter: o.Limiter,
		Log:     o.Log,
		Raise:   d.raiseTransition,
	})
	d.claiming, d.stop = context.WithCancelCause(context.Background())
	d.working, d.cut = context.WithCancelCause(context.Background())
	d.settling, d.giveUp = context.WithCancel(context.Background())
	d.Apply(p)
	return d
}

// at converts a time of this process to the outbox's clock.
func (d *Deliverer) at(t time.Time) time.Time {
	if d.o.Clock == nil {
		return t
	}
	return d.o.Clock.At(t)
}

// Run delivers until ctx ends, then stops: it claims nothing more, lets attempts under
// way finish for up to Grace, cuts the rest short and hands their claims back. It
// returns nil then, or the error of a Claim after which the outbox cannot go on. It
// may be called once.
func (d *Deliverer) Run(ctx context.Context) error {
	unlink := context.AfterFunc(ctx, func() { d.stop(context.Cause(ctx)) })
	defer unlink()
	defer d.cut(nil)
	defer d.giveUp()
	var notes sync.WaitGroup
	notes.Go(func() {
		err := d.gates.Read(d.claiming)
		if err == nil { // paused endpoints are not known before
			d.enter(running)
			err = d.gates.Follow(d.claiming)
		}
		if err != nil {
			d.stop(err)
		}
	})
	<-d.claiming.Done()
	notes.Wait()
	d.enter(ended)

	done := make(chan struct{})
	go func() {
		d.work.Wait()
		close(done)
	}()
	grace := time.NewTimer(d.o.Grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
	case <-d.aborted:
	}
	d.cut(errStopping)
	last := time.AfterFunc(settleTimeout, d.giveUp)
	defer last.Stop()
	<-done
	for _, r := range d.runners {
		r.close()
	}
	err := context.Cause(d.claiming)
	if errors.Is(err, context.Cause(ctx)) || errors.Is(err, outbox.ErrClosed) {
		return nil
	}
	return err
}

// enter begins a phase. running starts the work of all endpoints; after ended none begins by itself.
func (d *Deliverer) enter(p phase) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.phase = p
	for _, r := range d.runners {
		if p == running {
			r.open()
		} else if r.sleep() {
			r.withdraw()
		}
	}
}

// Abort ends the grace of a stop at once.
func (d *Deliverer) Abort() { d.abort.Do(func() { close(d.aborted) }) }

// Unfinished returns how many attempts a stop cut short; their deliveries are
// made again after the next start.
func (d *Deliverer) Unfinished() int { return int(d.unfinished.Load()) }
