package app

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"relay/ingest/listen"
	"relay/outbox"
	"relay/relay/backlog"
	"relay/relay/deliver"
)

// reapEvery is how often finished deliveries past their retention are removed.
const reapEvery = time.Minute

// backlogTimeout bounds one look at the backlog.
const backlogTimeout = 10 * time.Second

// part is work that ends with a context of its own.
type part struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
}

func newPart(ctx context.Context) *part {
	p := new(part)
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

func (p *part) do(f func(ctx context.Context)) { p.all.Go(func() { f(p.ctx) }) }

// stop returns when all of it has ended.
func (p *part) stop() {
	p.cancel()
	p.all.Wait()
}

// parts are what Run has under way, in the order in which a stop ends them.
type parts struct {
	making  *part          // of new deliveries
	work    *part          // deliveries, and what the outbox needs
	servers sync.WaitGroup // they end with their listeners
	telling *part          // Relay's own events
	tracing *part

	fatal chan error // of a part that failed for good
}

// Run answers and delivers until ctx ends or a part fails permanently, then stops in order and
// closes everything. It returns nil after a stop that was asked for, and may be called once.
//
// The order of a stop: with Stop.Drain everything goes on until no delivery is pending, but no
// longer than that; then deliveries are no longer claimed; attempts under way finish, or are
// handed back after the grace; ingest stays open meanwhile (and for Stop.Linger since its
// last request), because an app that got the same signal may still send events; then listeners
// and outbox close.
func (a *App) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.close()) }()
	p := a.start(context.WithoutCancel(ctx))
	a.logReady()
	call(a.o.Hooks.Ready)

	select {
	case <-ctx.Done():
	case <-a.store.Broken():
	case err = <-p.fatal:
	}
	stop := Stop{By: "error"}
	if ctx.Err() != nil {
		stop.By = "context"
	}
	errors.As(context.Cause(ctx), &stop)
	return a.stop(p, stop, err)
}

// start begins all parts.
func (a *App) start(ctx context.Context) *parts {
	work := newPart(ctx)
	p := &parts{
		work: work, making: newPart(work.ctx), telling: newPart(ctx), tracing: newPart(ctx),
		fatal: make(chan error, len(a.servers)+4),
	}
	a.answer(p)
	p.telling.do(a.events.run)
	if a.o.Hooks.Alive != nil && a.o.Hooks.AliveEvery > 0 {
		p.telling.do(a.sayAlive)
	}
	if a.tracer != nil {
		p.tracing.do(a.tracer.Run)
	}
	work.do(func(ctx context.Context) {
		if err := a.deliverer.Run(ctx); err != nil {
			p.fatal <- fmt.Errorf("deliver: %w", err)
		}
	})
	if a.jobs != nil {
		p.making.do(a.jobs.Run)
	}
	a.keepUp(work)
	return p
}

// answer begins to answer requests.
func (a *App) answer(p *parts) {
	for _, s := range a.servers {
		p.servers.Go(func() {
			if err := s.http.Serve(s.ln); !errors.Is(err, listen.ErrServerClosed) {
				p.fatal <- fmt.Errorf("serve %s on %s: %w", s.name, s.ln.Addr(), err)
			}
		})
	}
	p.servers.Go(func() {
		if err := a.front.Serve(); !errors.Is(err, listen.ErrServerClosed) {
			p.fatal <- err
		}
	})
}

// keepUp begins what goes on beside deliveries.
func (a *App) keepUp(work *part) {
	work.do(func(ctx context.Context) { every(ctx, reapEvery, func() { a.reap(ctx) }) })
	work.do(func(ctx context.Context) { every(ctx, relieveEvery, func() { a.relieve(ctx) }) })
	work.do(func(ctx context.Context) { every(ctx, lookEvery, func() { a.look(ctx) }) })
	work.do(func(ctx context.Context) { every(ctx, backlog.Every, func() { a.noteBacklog(ctx) }) })
	work.do(a.watchFleet)
	work.do(a.alerts.Run)
	work.do(a.revoked.Follow)
	if a.registry != nil {
		work.do(func(ctx context.Context) { _ = a.registry.Follow(ctx) }) // it ends with work, or with the outbox
	}
	work.do(func(context.Context) { debug.FreeOSMemory() }) // the time for reading the files
	if a.o.Load != nil && a.o.Watch {
		work.do(a.watchFiles)
	}
}

// stop ends all parts in their order. It returns the error of a part that failed, before or meanwhile.
func (a *App) stop(p *parts, stop Stop, err error) error {
	drains := stop.Drain > 0 && a.broken() == nil && err == nil
	a.draining.Store(drains) // before anybody hears of the stop: who then hurries means the drain
	a.o.Log.Info().Str("by", stop.By).Msg("stopping")
	call(a.o.Hooks.Stopping)
	p.making.cancel()
	if drains {
		err = a.drain(stop.Drain, p.fatal)
	}
	a.endReloads()
	a.request.Store(time.Now().UnixNano()) // idle time counts from here
	deadline := time.Now().Add(a.o.Grace)
	if a.broken() != nil {
		a.deliverer.Abort() // no attempt can be recorded any more
	}
	p.work.stop()
	p.making.stop()
	a.linger(stop.Linger, deadline)
	close(a.closing)
	a.shutdown(deadline)
	p.servers.Wait() // an operator may have changed an endpoint up to now
	p.telling.stop()
	p.tracing.stop()
	a.logStopped()
	return errors.Join(a.broken(), err)
}

// endReloads waits for a reload under way, and has later ones refused: what they would open, nobody would close.
func (a *App) endReloads() {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.stopping.Store(true)
}

// sayAlive tells that the Relay works, as long as the deliverer answers.
func (a *App) sayAlive(ctx context.Context) {
	every(ctx, a.o.Hooks.AliveEvery, func() {
		a.deliverer.Status() // it does not return if a lock is never freed
		a.o.Hooks.Alive()
	})
}

// drainEvery is how often a drain looks whether deliveries are left.
const drainEvery = 100 * time.Millisecond

// drain waits until no delivery is pending that this Relay makes, for d, or until Hurry or Abort.
// With other Relays at the outbox there is nothing to wait for: they go on. It returns the error
// of a part that failed meanwhile.
func (a *App) drain(d time.Duration, fatal <-chan error) error {
	defer a.draining.Store(false)
	over := time.NewTimer(d)
	defer over.Stop()
	look := time.NewTicker(drainEvery)
	defer look.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		left, _, err := a.waiting(ctx)
		spooled, others := a.spooled(ctx), a.others(ctx)
		cancel()
		left += spooled
		if err == nil && left == 0 || others && spooled == 0 {
			return nil
		}
		select {
		case <-look.C:
		case <-over.C:
			a.o.Log.Warn().Int64("pending", left).Str("next", "they are made when a Relay opens this outbox again; give --drain more time to make them now").
				Msg("the time for a drain is over: deliveries are left")
			return nil
		case <-a.hurried:
			return nil
		case <-a.aborted:
			return nil
		case <-a.store.Broken():
			return nil
		case err := <-fatal:
			return err
		}
	}
}

// spooled counts the requests that wait in the spool, if there is one.
func (a *App) spooled(ctx context.Context) int64 {
	store, ok := a.store.(outbox.Spooling)
	if !ok {
		return 0
	}
	s, err := store.Spool(ctx)
	if err != nil {
		return 0 // a broken spool ends the process
	}
	return s.Waiting
}

// others tells whether other Relays deliver from the outbox.
func (a *App) others(ctx context.Context) bool {
	shared, ok := a.store.(outbox.Fleet)
	if !ok {
		return false
	}
	relays, err := shared.Relays(ctx)
	return err == nil && slices.ContainsFunc(relays, func(r outbox.Relay) bool { return !r.Self })
}

// broken says why the outbox cannot go on, nil while it can.
func (a *App) broken() error {
	select {
	case <-a.store.Broken():
		return fmt.Errorf("outbox: %w", a.store.Health(context.Background()))
	default:
		return nil
	}
}

// linger waits until ingest has been idle for d, the deadline, or Abort.
func (a *App) linger(d time.Duration, deadline time.Time) {
	for {
		idle := time.Unix(0, a.request.Load()).Add(d)
		wait := min(time.Until(idle), time.Until(deadline))
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-a.aborted:
			return
		}
	}
}

// shutdown lets requests under way finish, until the deadline but at least one
// second, or until Abort.
func (a *App) shutdown(deadline time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), max(time.Second, time.Until(deadline)))
	defer cancel()
	go func() {
		select {
		case <-a.aborted:
			cancel()
		case <-ctx.Done():
		}
	}()
	var wg sync.WaitGroup
	for _, s := range a.servers {
		wg.Go(func() {
			if s.http.Shutdown(ctx) != nil {
				s.http.Close()
			}
		})
	}
	wg.Go(func() {
		if a.front.Shutdown(ctx) != nil {
			_ = a.front.Close()
		}
	})
	wg.Wait()
}

// every calls do once per d, until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// reap removes finished deliveries past their retention.
func (a *App) reap(ctx context.Context) {
	log := a.o.Log.With().Str("component", "outbox").Logger()
	retention := a.live.Load().config.Retention
	r := outbox.Retention{Delivered: retention.Delivered, Failed: retention.Failed}
	total := 0
	for more := true; more; {
		var n int
		var err error
		if n, more, err = a.store.Reap(ctx, r); err != nil {
			// A broken outbox ends Run by itself; other errors are tried again next time.
			if ctx.Err() == nil {
				log.Warn().Err(err).Msg("retention")
			}
			break
		}
		total += n
	}
	if total > 0 {
		log.Info().Int("removed", total).Msg("retention")
	}
}

// noteBacklog remembers how many deliveries are not over. What the outbox does not take now, a later look finds again.
func (a *App) noteBacklog(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, backlogTimeout)
	defer cancel()
	if err := a.backlogs.Look(limited); err != nil && ctx.Err() == nil {
		a.o.Log.Debug().Err(err).Str("component", "outbox").Msg("the backlog is not remembered now; tried again")
	}
}

const (
	relieveEvery = 5 * time.Second
	relieveFrom  = 0.75 // of the room in the outbox
	relieveTo    = 0.70
)

// relieve makes room before events are refused: while the outbox is nearly full, it removes
// delivered deliveries before their retention ends, oldest first. Pending and failed ones stay.
func (a *App) relieve(ctx context.Context) {
	if removed := a.makeRoom(ctx); removed > 0 {
		a.o.Log.Warn().Str("component", "outbox").Int("removed", removed).
			Msg("the outbox or its disk is nearly full: delivered events went before their retention. Shorten retention.delivered, raise max_size, or free space on the disk")
	}
}

// makeRoom returns how many deliveries it removed. If the outbox does not answer, the next call
// tries again.
func (a *App) makeRoom(ctx context.Context) (removed int) {
	fill, err := a.store.Fill(ctx)
	if err != nil || fill < relieveFrom {
		return 0
	}
	for fill > relieveTo {
		n, more, err := a.store.Reap(ctx, outbox.Retention{Failed: a.live.Load().config.Retention.Failed})
		removed += n
		if err != nil || !more {
			return removed
		}
		if fill, err = a.store.Fill(ctx); err != nil {
			return removed
		}
	}
	return removed
}

func (a *App) logReady() {
	e := a.o.Log.Info().Str("version", a.o.Version).
		Str("outbox", a.o.Config.Where()).Str("durability", a.o.Config.Show("outbox.durability", a.store.Durability())).
		Int("endpoints", len(a.live.Load().policy.Endpoints)).Dur("took", time.Since(a.started))
	for _, name := range []string{"ingest", "admin"} {
		var addrs []string
		for _, addr := range a.Addrs(name) {
			shown := addr.String()
			if name == "admin" {
				setting := map[string]string{"unix": "admin.unix", "tcp": "admin.http"}[addr.Network()]
				shown = a.o.Config.Show(setting, shown)
			}
			addrs = append(addrs, addr.Network()+":"+shown)
		}
		e = e.Strs(name, addrs)
	}
	if len(a.o.Config.Fronts) > 0 {
		e = e.Strs("front", a.frontAddrs())
	}
	e.Msg("ready")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.store.Health(ctx); err != nil {
		a.o.Log.Warn().Err(err).Msg("no events are accepted yet")
	}
	a.warnHeld(ctx)
	a.warnFewFiles()
}

func (a *App) warnHeld(ctx context.Context) {
	if _, held, _ := a.waiting(ctx); held > 0 {
		a.o.Log.Warn().Int64("held", held).Msg("deliveries are held for endpoints that are paused, disabled or no longer in the file")
	}
}

// logStopped logs how many deliveries remain for the next start.
func (a *App) logStopped() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pending, held, _ := a.waiting(ctx)
	a.o.Log.Info().Int64("pending", pending).Int64("held", held).Int("unfinished", a.deliverer.Unfinished()).Msg("stopped")
}

// waiting counts the deliveries that are not over: those of endpoints that take deliveries as
// pending, the others as held. A broken outbox has logged why it does not answer.
func (a *App) waiting(ctx context.Context) (pending, held int64, err error) {
	counts, err := a.store.Counts(ctx)
	if err != nil {
		return 0, 0, err
	}
	p := a.live.Load().policy
	active := map[string]bool{}
	for _, s := range a.deliverer.Status() {
		active[s.Endpoint] = s.State == deliver.Active && p.Endpoint(s.Endpoint) != nil
	}
	for name, c := range counts {
		if active[name] {
			pending += c.Pending
		} else {
			held += c.Pending
		}
	}
	return pending, held, nil
}
