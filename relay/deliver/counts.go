package deliver

import (
	"math"
	"sync/atomic"
	"time"

	"relay/outbox"
)

// counts adds up an endpoint's attempts since the process started.
type counts struct {
	flying   atomic.Int64
	outcomes [4]atomic.Int64 // in the order of allOutcomes
	seen     atomic.Pointer[durations]
}

// durations are histograms of an endpoint's attempts. They are made by its first attempt, because
// many of ten thousand endpoints have none.
type durations struct{ late, took histogram }

func (c *counts) durations() *durations {
	if c.seen.Load() == nil {
		c.seen.CompareAndSwap(nil, new(durations))
	}
	return c.seen.Load()
}

func allOutcomes() [4]Outcome { return [...]Outcome{Delivered, Retry, Refused, Gone} }

// begin counts an attempt that begins now.
func (c *counts) begin(now time.Time, claims []outbox.Claim) {
	c.flying.Add(1)
	for i := range claims {
		c.durations().late.add(max(0, now.Sub(claims[i].Due)))
	}
}

// end counts the end of an attempt, and returns how many others are under way.
func (c *counts) end() int { return int(c.flying.Add(-1)) }

// record counts the record of an attempt.
func (c *counts) record(o Outcome, took time.Duration) {
	for i, known := range allOutcomes() {
		if o == known {
			c.outcomes[i].Add(1)
		}
	}
	c.durations().took.add(took)
}

// histogram counts durations. Its bounds are the powers of two from 1/2048 s (about half a
// millisecond) to 2048 s.
type histogram struct {
	counts [histogramBounds + 1]atomic.Uint64 // the last one counts durations above all bounds
	sum    atomic.Int64                       // in nanoseconds
}

const (
	histogramBounds = 23
	leastPower      = -11
)

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > 0 {
		_, power := math.Frexp(d.Seconds()) // below 2^power and at least half of it
		i = min(max(power-leastPower, 0), histogramBounds)
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// read returns what was counted. bounds are those of bounds(), which histograms share.
func (h *histogram) read(bounds []float64) Histogram {
	out := Histogram{Bounds: bounds, Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load()).Seconds()}
	for i := range h.counts {
		out.Counts[i] = h.counts[i].Load()
	}
	return out
}

// bounds are the upper ends of a histogram's buckets, in seconds.
func bounds() []float64 {
	all := make([]float64, histogramBounds)
	for i := range all {
		all[i] = math.Ldexp(1, leastPower+i)
	}
	return all
}
