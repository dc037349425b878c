// Package bench measures Relay on this machine: it starts a Relay as a process of its own, loads
// it, receives and verifies the deliveries, and compares the figures with the limit of the
// machine, which is the same POSTs sent without a Relay.
//
// Read in this order: bench.go (what a run is), backlog.go (the run with a backlog), load.go (senders),
// receiver.go, relay.go (the processes), report.go (the figures).
package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// Workload is one kind of load.
type Workload struct {
	Name      string
	Events    int     // in one round
	Batch     int     // events of one request, as NDJSON; 1 is a single event
	Fan       int     // endpoints that get each event
	Endpoints int     // endpoints of the file, at least Fan; an event goes to Fan of them, in turn
	Busy      int     // so many of the endpoints get the events; 0 for all
	Rate      float64 // events a second; 0 is as fast as they are accepted
	Held      bool    // the first endpoint takes nothing until it has all events, and Relay was killed
}

// busy is how many endpoints get events.
func (w *Workload) busy() int { return cmp.Or(w.Busy, w.Endpoints) }

// Workloads are the kinds of load that relay bench knows, by name.
func Workloads() []Workload {
	return []Workload{
		{Name: "single", Events: 40_000, Batch: 1, Fan: 1, Endpoints: 1},
		{Name: "batch", Events: 60_000, Batch: 100, Fan: 1, Endpoints: 1},
		{Name: "fan-out", Events: 6_000, Batch: 1, Fan: 10, Endpoints: 10},
		{Name: "endpoints", Events: 40_000, Batch: 1, Fan: 1, Endpoints: 100},
		{Name: "sparse", Events: 40_000, Batch: 1, Fan: 1, Endpoints: 10_000, Busy: 100},
		{Name: "backlog", Events: 1_000_000, Batch: 100, Fan: 1, Endpoints: 1, Held: true},
		{Name: "rate", Events: 3_000, Batch: 1, Fan: 1, Endpoints: 1, Rate: 200},
	}
}

// Options of a run. Relay, Workloads, Rounds and Senders must be given.
type Options struct {
	Relay     string // path of the binary
	Workloads []Workload
	Rounds    int    // of each workload; each measures the limit again
	Senders   int    // requests under way at one time
	Size      int    // bytes of an event's data
	Outbox    string // "sqlite" or "redis"
	Level     string // durability; "" for the engine's default
	Redis     string // path of redis-server, for the outbox "redis"; each round has a server of its own

	// Progress is called at the start of each step and from time to time during it. done and of
	// count deliveries.
	Progress func(step string, done, of int)
}

// limitPosts is the number of POSTs for measuring the limit. They are like those of the workload
// "single".
const limitPosts = 40_000

// Run measures all workloads, one round after the other, and returns a figure for each. A
// delivery that does not arrive, or a wrong signature, is an error, because figures of a run with
// losses would mean nothing.
func Run(ctx context.Context, o Options) ([]Figure, error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	figures := make([]Figure, len(o.Workloads))
	for i, w := range o.Workloads {
		figures[i] = Figure{Workload: w, Outbox: o.Outbox}
	}
	for round := range o.Rounds {
		limit, err := o.limit(ctx, round)
		if err != nil {
			return nil, fmt.Errorf("measure the limit: %w", err)
		}
		for i, w := range o.Workloads {
			measure := o.round
			if w.Held {
				measure = o.backlog
			}
			r, err := measure(ctx, w, round)
			if err != nil {
				return nil, fmt.Errorf("workload %s: %w", w.Name, err)
			}
			r.Limit = limit
			figures[i].Rounds = append(figures[i].Rounds, r)
		}
	}
	for i := range figures {
		figures[i].summarize()
	}
	return figures, nil
}

// limit sends the same POSTs straight to the receiver.
func (o *Options) limit(ctx context.Context, round int) (Limit, error) {
	r, err := openReceiver(1, limitPosts)
	if err != nil {
		return Limit{}, err
	}
	defer r.close()
	l := load{
		network: "tcp", addr: r.addr(), path: "/e0", events: limitPosts, batch: 1, fan: 1, endpoints: 1,
		senders: o.Senders, size: o.Size, secret: r.key,
	}
	before := ownCPU()
	err = l.run(ctx, r, o.step(fmt.Sprintf("limit, round %d", round+1), limitPosts))
	if err != nil {
		return Limit{}, err
	}
	took := r.took()
	return Limit{PerSecond: limitPosts / took.Seconds(), CPU: perDelivery(ownCPU()-before, limitPosts)}, nil
}

// round measures one workload once, on a Relay and an outbox of its own.
func (o *Options) round(ctx context.Context, w Workload, round int) (Round, error) {
	dir, err := os.MkdirTemp("", "relay-bench-")
	if err != nil {
		return Round{}, fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	deliveries := w.Events * w.Fan
	r, err := openReceiver(w.busy(), w.Events)
	if err != nil {
		return Round{}, err
	}
	defer r.close()
	relay, err := o.start(ctx, dir, w, r)
	if err != nil {
		return Round{}, err
	}
	defer relay.stop()

	if w.Busy > 0 && !wait(ctx, restBefore) {
		return Round{}, context.Cause(ctx)
	}
	l := o.load(w, relay)
	before, err := relay.usage()
	if err != nil {
		return Round{}, err
	}
	own := ownCPU()
	if err := l.run(ctx, r, o.step(fmt.Sprintf("%s on %s, round %d", w.Name, o.Outbox, round+1), deliveries)); err != nil {
		return Round{}, relay.blame(err)
	}
	own = ownCPU() - own
	after, err := relay.usage()
	if err != nil {
		return Round{}, err
	}
	took := r.took()
	latencies := r.latencies()
	return Round{
		Accepted:   float64(w.Events) / l.took().Seconds(),
		Delivered:  float64(deliveries) / took.Seconds(),
		RelayCPU:   perDelivery(after.relay-before.relay, deliveries),
		RedisCPU:   perDelivery(after.redis-before.redis, deliveries),
		HarnessCPU: perDelivery(own, deliveries),
		P50:        quantile(latencies, 0.50),
		P99:        quantile(latencies, 0.99),
		RSS:        after.rss,
		RestRSS:    before.now,
		Duplicates: r.duplicates(),
	}, nil
}

// restBefore is how long a Relay with many endpoints rests before its memory at rest is read.
const restBefore = 5 * time.Second

// load is that of a workload on a Relay.
func (o *Options) load(w Workload, relay *processes) *load {
	return &load{
		network: "unix", addr: relay.socket, path: "/v1/events", events: w.Events, batch: w.Batch, fan: w.Fan, endpoints: w.busy(),
		senders: o.Senders, size: o.Size, rate: w.Rate, envelope: true,
	}
}

func (o *Options) step(name string, of int) func(done int) {
	o.Progress(name, 0, of)
	return func(done int) { o.Progress(name, done, of) }
}

func perDelivery(cpu time.Duration, deliveries int) float64 {
	return float64(cpu.Microseconds()) / float64(deliveries)
}

// quantile of a sorted list; 0 for an empty one.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	default:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
}
