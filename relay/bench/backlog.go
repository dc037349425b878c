package bench

import (
	"context"
	"fmt"
	"os"
	"time"
)

// ahead is how many single events are sent to an empty outbox, and again behind the backlog, to compare how
// fast they are accepted; fewer if the backlog is small. fresh is how many another endpoint gets then, at freshRate a second.
const (
	ahead     = 20_000
	fresh     = 2_000
	freshRate = 200
)

// backlogRun is a run with a backlog.
type backlogRun struct {
	*Options
	Workload
	name     string // for its progress
	receiver *receiver
	relay    *processes
	sent     int64

	few, beside, all int // events of each comparison, beside the backlog, and of the backlog with what was sent before it
}

// backlog measures what a backlog costs: events for an endpoint that takes nothing, how fast single events are
// accepted before and behind them, how long those for the endpoint beside it are on their way, a start after a kill,
// and the delivery of them all.
func (o *Options) backlog(ctx context.Context, w Workload, round int) (Round, error) {
	dir, err := os.MkdirTemp("", "relay-bench-")
	if err != nil {
		return Round{}, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	b := &backlogRun{Options: o, Workload: w, name: fmt.Sprintf("%s on %s, round %d", w.Name, o.Outbox, round+1), few: min(ahead, max(1, w.Events/10))}
	b.beside = min(fresh, b.few)
	warm := max(1, b.few/10)
	b.all = w.Events + 2*b.few + warm
	if b.receiver, err = openReceiver(b.both().Endpoints, b.all+b.beside); err != nil {
		return Round{}, err
	}
	defer b.receiver.close()
	if b.relay, err = o.start(ctx, dir, b.both(), b.receiver); err != nil {
		return Round{}, err
	}
	defer b.relay.stop()

	if _, err := b.accept(ctx, "warming up", warm, 1); err != nil {
		return Round{}, err
	}
	out, err := b.fill(ctx)
	if err != nil {
		return Round{}, err
	}
	err = b.deliver(ctx, &out)
	return out, err
}

// both is the workload with an endpoint for fresh events.
func (b *backlogRun) both() Workload {
	w := b.Workload
	w.Endpoints++
	return w
}

// accept sends events for the endpoint that takes nothing.
func (b *backlogRun) accept(ctx context.Context, what string, events, batch int) (perSecond float64, err error) {
	l := b.load(b.Workload, b.relay)
	l.first, l.events, l.batch = b.sent, events, batch
	b.sent += int64(events)
	if err := l.sendAll(ctx, b.step(b.name+": "+what, events)); err != nil {
		return 0, b.relay.blame(err)
	}
	return float64(events) / l.took().Seconds(), nil
}

// fill makes the backlog, and measures what is accepted before, behind and beside it.
func (b *backlogRun) fill(ctx context.Context) (Round, error) {
	empty, err := b.accept(ctx, "empty", b.few, 1)
	if err != nil {
		return Round{}, err
	}
	if _, err := b.accept(ctx, "filling", b.Events, b.Batch); err != nil {
		return Round{}, err
	}
	if err := b.relay.awaitRewrite(ctx); err != nil {
		return Round{}, err
	}
	behind, err := b.accept(ctx, "behind the backlog", b.few, 1)
	if err != nil {
		return Round{}, err
	}
	l := b.load(b.Workload, b.relay)
	l.group, l.first, l.events, l.batch, l.rate = 1, b.sent, b.beside, 1, freshRate
	if err := l.run(ctx, b.receiver, b.step(b.name+": beside the backlog", b.beside)); err != nil {
		return Round{}, b.relay.blame(err)
	}
	latencies := b.receiver.latencies() // nothing else has arrived
	return Round{
		Accepted: empty, P50: quantile(latencies, 0.50), P99: quantile(latencies, 0.99),
		Backlog: &Backlog{Pending: b.all, AcceptRatio: behind / empty},
	}, nil
}

// deliver kills Relay, starts it again, and has all delivered.
func (b *backlogRun) deliver(ctx context.Context, out *Round) error {
	held, err := b.relay.usage()
	if err != nil {
		return err
	}
	b.relay.kill()
	began := time.Now()
	b.receiver.start(began) // before the first delivery can come
	if err := b.relay.startRelay(ctx, b.Relay, configuration(b.relay.socket, b.both(), b.receiver, false)); err != nil {
		return err
	}
	out.Backlog.Start = time.Since(began)
	own := ownCPU()
	if err := b.receiver.await(ctx, b.all+b.beside, b.step(b.name+": delivering", b.all+b.beside)); err != nil {
		return b.relay.blame(err)
	}
	own = ownCPU() - own
	after, err := b.relay.usage()
	if err != nil {
		return err
	}
	out.Backlog.HeldRSS, out.Backlog.RedisBytes = held.now, held.redisNow
	out.Delivered = float64(b.all) / b.receiver.took().Seconds()
	out.RelayCPU = perDelivery(after.relay, b.all) // of the second process
	out.RedisCPU, out.HarnessCPU = perDelivery(after.redis-held.redis, b.all), perDelivery(own, b.all)
	out.RSS, out.RestRSS, out.Duplicates = max(held.rss, after.rss), held.now, b.receiver.duplicates()
	return nil
}
