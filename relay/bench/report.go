package bench

import (
	"fmt"
	"time"
)

// Limit is what the harness does without a Relay: one POST for each delivery.
type Limit struct {
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us"` // microseconds for one POST, sender and receiver
}

// Round is the figures of one run. CPU is in microseconds for one delivery.
type Round struct {
	Limit      Limit         `json:"limit"`
	Accepted   float64       `json:"accepted_per_second"`
	Delivered  float64       `json:"delivered_per_second"`
	RelayCPU   float64       `json:"relay_cpu_us"`
	RedisCPU   float64       `json:"redis_cpu_us"` // 0 without Redis
	HarnessCPU float64       `json:"harness_cpu_us"`
	P50        time.Duration `json:"p50_ns"` // from sending to arrival; without a rate it tells the length of the queue
	P99        time.Duration `json:"p99_ns"`
	RSS        int64         `json:"rss_bytes"`
	RestRSS    int64         `json:"rest_rss_bytes"` // before the load
	Duplicates int           `json:"duplicates"`

	*Backlog `json:",omitempty"`
}

// Backlog is what only a round with a backlog has. CPU of such a round is that of the drain.
type Backlog struct {
	Pending     int           `json:"pending"`         // deliveries that wait
	AcceptRatio float64       `json:"accept_ratio"`    // accepts a second behind the backlog, to those of an empty outbox
	HeldRSS     int64         `json:"held_rss_bytes"`  // of Relay, with all of them pending
	RedisBytes  int64         `json:"redis_rss_bytes"` // of redis-server then; 0 without Redis
	Start       time.Duration `json:"start_ns"`        // from a start after a kill until events are accepted
}

// Figure is all rounds of a workload, and their medians.
type Figure struct {
	Workload `json:"workload"`
	Outbox   string  `json:"outbox"`
	Rounds   []Round `json:"rounds"`

	Delivered  float64       `json:"delivered_per_second"`
	Ratio      float64       `json:"ratio"`          // of delivered to the limit of the same round
	RelayNorm  float64       `json:"relay_norm_us"`  // RelayCPU on a quiet machine; see quietHarness
	RedisNorm  float64       `json:"redis_norm_us"`  // the same of Redis
	HarnessCPU float64       `json:"harness_cpu_us"` // for one delivery
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	RSS        int64         `json:"rss_bytes"`
	RestRSS    int64         `json:"rest_rss_bytes"`
}

// quietHarness is what the harness itself uses for one delivery on the quiet reference
// machine (2 cores, 2026), in microseconds. A host that is shared makes everything
// dearer by up to a third from one minute to the next, the harness and Relay alike: a
// figure times quietHarness / HarnessCPU of the same run holds to about 3 %.
func (w *Workload) quietHarness() float64 {
	switch {
	case w.Rate > 0:
		return 0 // mostly idle: there is nothing to normalise by
	case w.Batch > 1:
		return 18.2
	case w.Fan > 1:
		return 19.8
	default:
		return 29.0
	}
}

func (f *Figure) summarize() {
	of := func(get func(*Round) float64) float64 {
		var list []float64
		for i := range f.Rounds {
			list = append(list, get(&f.Rounds[i]))
		}
		return median(list)
	}
	quiet := f.quietHarness()
	norm := func(r *Round, cpu float64) float64 {
		if quiet == 0 || r.HarnessCPU == 0 {
			return cpu
		}
		return cpu * quiet / r.HarnessCPU
	}
	f.Delivered = of(func(r *Round) float64 { return r.Delivered })
	f.Ratio = of(func(r *Round) float64 { return r.Delivered / r.Limit.PerSecond })
	f.RelayNorm = of(func(r *Round) float64 { return norm(r, r.RelayCPU) })
	f.RedisNorm = of(func(r *Round) float64 { return norm(r, r.RedisCPU) })
	f.HarnessCPU = of(func(r *Round) float64 { return r.HarnessCPU })
	f.P50 = time.Duration(of(func(r *Round) float64 { return float64(r.P50) }))
	f.P99 = time.Duration(of(func(r *Round) float64 { return float64(r.P99) }))
	for _, r := range f.Rounds {
		f.RSS, f.RestRSS = max(f.RSS, r.RSS), max(f.RestRSS, r.RestRSS)
	}
}

// Backlog is the figure of a workload with a backlog in words, "" for others. DELIVERED/S of its row is the drain.
func (f *Figure) Backlog() string {
	if len(f.Rounds) == 0 || f.Rounds[0].Backlog == nil {
		return ""
	}
	var ratios, starts []float64
	var held, redis int64
	for _, r := range f.Rounds {
		ratios, starts = append(ratios, r.AcceptRatio), append(starts, float64(r.Start))
		held, redis = max(held, r.HeldRSS), max(redis, r.RedisBytes)
	}
	text := fmt.Sprintf("%s on %s: with %d pending, accepts %.2f x those of an empty outbox, Relay has %.0f MiB", f.Name, f.Outbox,
		f.Rounds[0].Pending, median(ratios), float64(held)/(1<<20))
	if redis > 0 {
		text += fmt.Sprintf(", Redis %.0f MiB", float64(redis)/(1<<20))
	}
	return text + fmt.Sprintf("; fresh events for another endpoint, %d/s, arrive after %s ms (p50 / p99); a start after a kill takes %.0f ms", freshRate, f.latency(), median(starts)/1e6)
}

// latency is the median and the 99th percentile, in milliseconds.
func (f *Figure) latency() string {
	return fmt.Sprintf("%.2f / %.2f", float64(f.P50)/1e6, float64(f.P99)/1e6)
}

// Row is the figure as cells of a table: see Header.
func (f *Figure) Row() []string {
	latency := "-" // as fast as possible it tells the length of the queue only
	if f.Rate > 0 {
		latency = f.latency()
	}
	ratio := fmt.Sprintf("%.2f", f.Ratio)
	if f.Rate > 0 {
		ratio = "-"
	}
	redis := "-"
	if f.RedisNorm > 0 {
		redis = fmt.Sprintf("%.1f", f.RedisNorm)
	}
	return []string{
		f.Name, f.Outbox, fmt.Sprintf("%.0f", f.Delivered), ratio,
		fmt.Sprintf("%.1f", f.RelayNorm), redis, latency, fmt.Sprintf("%.0f / %.0f", float64(f.RestRSS)/(1<<20), float64(f.RSS)/(1<<20)),
	}
}

// Header names the cells of Row.
func Header() []string {
	return []string{"WORKLOAD", "OUTBOX", "DELIVERED/S", "OF LIMIT", "RELAY µS", "REDIS µS", "P50 / P99 MS", "RSS MIB REST / MOST"}
}
