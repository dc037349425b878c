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

// backlog measures what a backlog costs: events for an endpoint that takes nothing, how fast single events are
// accepted before and behind them, how long those for the endpoint beside it are on their way, a start after a kill,
// and the delivery of them all.
func (o *Options) backlog(ctx context.Context, w Workload, round int) (Round, error) {
	dir, err := os.MkdirTemp("", "relay-bench-")
	if err != nil {
		return Round{}, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	few := min(ahead, max(1, w.Events/10))
	warm := max(1, few/10)
	all := w.Events + 2*few + warm
	beside := min(fresh, few)
	both := w
	both.Endpoints++ // for fresh events
	r, err := openReceiver(both.Endpoints, all+beside)
	if err != nil {
		return Round{}, err
	}
	defer r.close()
	relay, err := o.start(ctx, dir, both, r)
	if err != nil {
		return Round{}, err
	}
	defer relay.stop()

	name := fmt.Sprintf("%s on %s, round %d", w.Name, o.Outbox, round+1)
	sent := int64(0)
	accept := func(what string, events, batch int) (perSecond float64, err error) {
		l := o.load(w, relay)
		l.first, l.events, l.batch = sent, events, batch
		sent += int64(events)
		if err := l.sendAll(ctx, o.step(name+": "+what, events)); err != nil {
			return 0, relay.blame(err)
		}
		return float64(events) / l.took().Seconds(), nil
	}
	if _, err := accept("warming up", warm, 1); err != nil {
		return Round{}, err
	}
	empty, err := accept("empty", few, 1)
	if err != nil {
		return Round{}, err
	}
	if _, err := accept("filling", w.Events, w.Batch); err != nil {
		return Round{}, err
	}
	if err := relay.awaitRewrite(ctx); err != nil {
		return Round{}, err
	}
	behind, err := accept("behind the backlog", few, 1)
	if err != nil {
		return Round{}, err
	}
	l := o.load(w, relay)
	l.group, l.first, l.events, l.batch, l.rate = 1, sent, beside, 1, freshRate
	if err := l.run(ctx, r, o.step(name+": beside the backlog", beside)); err != nil {
		return Round{}, relay.blame(err)
	}
	latencies := r.latencies() // nothing else has arrived
	held, err := relay.usage()
	if err != nil {
		return Round{}, err
	}
	b := &Backlog{Pending: all, AcceptRatio: behind / empty, HeldRSS: held.now, RedisBytes: held.redisNow}

	relay.kill()
	began := time.Now()
	r.start(began) // before the first delivery can come
	if err := relay.startRelay(ctx, o.Relay, configuration(relay.socket, both, r, false)); err != nil {
		return Round{}, err
	}
	b.Start = time.Since(began)
	own := ownCPU()
	if err := r.await(ctx, all+beside, o.step(name+": delivering", all+beside)); err != nil {
		return Round{}, relay.blame(err)
	}
	own = ownCPU() - own
	after, err := relay.usage()
	if err != nil {
		return Round{}, err
	}
	return Round{
		Accepted:   empty,
		Delivered:  float64(all) / r.took().Seconds(),
		RelayCPU:   perDelivery(after.relay, all), // of the second process
		RedisCPU:   perDelivery(after.redis-held.redis, all),
		HarnessCPU: perDelivery(own, all),
		P50:        quantile(latencies, 0.50),
		P99:        quantile(latencies, 0.99),
		RSS:        max(held.rss, after.rss),
		RestRSS:    held.now,
		Duplicates: r.duplicates(),
		Backlog:    b,
	}, nil
}
