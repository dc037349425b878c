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
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/policy"
)

// Source is the part of outbox.Store that delivering needs.
type Source interface {
	Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error)
	Settle(ctx context.Context, c outbox.Claim, s outbox.Settlement) error
	Release(ctx context.Context, claims ...outbox.Claim) error
}

// Options are the parts and settings of a Deliverer.
type Options struct {
	Source  Source
	Log     zerolog.Logger
	Version string                  // of User-Agent: Relay/<Version>
	Own     func() []netip.AddrPort // listeners of this process, never connected to; optional
	Grace   time.Duration           // for attempts under way when Run is to end; default 20 s
	Observe func(Result)            // called after each recorded attempt, from many goroutines; optional

	roots    *x509.CertPool // nil for the system's
	resolver *net.Resolver  // nil for the system's
	dialNet  func(ctx context.Context, network, address string) (net.Conn, error)
}

// Deliverer delivers to the endpoints of one policy.
type Deliverer struct {
	o          Options
	userAgent  string
	runners    []*runner
	drafts     sync.Pool // of *draft
	exchanges  sync.Pool // of *exchange
	aborted    chan struct{}
	abort      sync.Once
	unfinished atomic.Int64
}

// New prepares a Deliverer; nothing happens before Run. Endpoints that are not
// enabled get no runner: their deliveries stay where they are.
func New(o Options, p *policy.Policy) *Deliverer {
	if o.Grace == 0 {
		o.Grace = 20 * time.Second
	}
	d := &Deliverer{
		o:         o,
		userAgent: userAgent(o.Version),
		drafts:    sync.Pool{New: func() any { return new(draft) }},
		exchanges: sync.Pool{New: newExchange},
		aborted:   make(chan struct{}),
	}
	for _, e := range p.Endpoints {
		if e.Enabled {
			d.runners = append(d.runners, d.newRunner(e))
		}
	}
	return d
}

// Run delivers until ctx ends, then stops: it claims nothing more, lets attempts under
// way finish for up to Grace, cuts the rest short and hands their claims back. It
// returns nil then, or the error of a Claim after which the outbox cannot go on. It
// may be called once.
func (d *Deliverer) Run(ctx context.Context) error {
	claiming, stop := context.WithCancelCause(ctx)
	working, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	settling, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer stop(nil)
	defer cut(nil)
	defer giveUp()
	var work sync.WaitGroup // runners and their attempts
	for _, r := range d.runners {
		work.Go(func() {
			if err := r.run(claiming, working, settling, &work); err != nil {
				stop(err)
			}
		})
	}
	<-claiming.Done()

	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	grace := time.NewTimer(d.o.Grace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
	case <-d.aborted:
	}
	cut(errStopping)
	last := time.AfterFunc(settleTimeout, giveUp)
	defer last.Stop()
	<-done
	for _, r := range d.runners {
		r.close()
	}
	err := context.Cause(claiming)
	if errors.Is(err, context.Cause(ctx)) || errors.Is(err, outbox.ErrClosed) {
		return nil
	}
	return err
}

// Abort ends the grace of a stop at once.
func (d *Deliverer) Abort() { d.abort.Do(func() { close(d.aborted) }) }

// Unfinished returns how many attempts a stop cut short; their deliveries are
// made again after the next start.
func (d *Deliverer) Unfinished() int { return int(d.unfinished.Load()) }
