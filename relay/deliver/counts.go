package deliver

import (
	"math"
	"sync/atomic"
	"time"

	"relay/outbox"
)

// counts is what an endpoint's attempts came to since the process started.
type counts struct {
	flying   atomic.Int64
	outcomes [4]atomic.Int64 // in the order of allOutcomes
	late     histogram
	took     histogram
}

func allOutcomes() [4]Outcome { return [...]Outcome{Delivered, Retry, Refused, Gone} }

// begin counts an attempt that begins now.
func (c *counts) begin(now time.Time, claims []outbox.Claim) {
	c.flying.Add(1)
	for i := range claims {
		c.late.add(max(0, now.Sub(claims[i].Due)))
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
	c.took.add(took)
}

// histogram counts durations. Its bounds are the powers of two from 1/2048 s (about half a
// millisecond) to 2048 s.
type histogram struct {
	counts [histogramBounds + 1]atomic.Uint64 // the last one is of what is longer than all bounds
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

func (h *histogram) read() Histogram {
	out := Histogram{Sum: time.Duration(h.sum.Load()).Seconds()}
	for i := range h.counts {
		if i < histogramBounds {
			out.Bounds = append(out.Bounds, math.Ldexp(1, leastPower+i))
		}
		out.Counts = append(out.Counts, h.counts[i].Load())
	}
	return out
}
