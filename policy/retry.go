package policy

import (
	"fmt"
	"math"
	"time"

	"relay/config"
)

// Limits of the file's retry block.
const (
	minDelay    = time.Millisecond
	maxDelay    = 30 * config.Day
	maxDelays   = 100
	maxAttempts = 100
)

// retry is a retry block as it is written: a schedule or a strategy.
type retry struct {
	schedule    []time.Duration // used when strategy is ""
	strategy    string          // "exponential", "linear", "fixed"
	initial     time.Duration
	max         time.Duration
	multiplier  float64
	maxAttempts int // the first one counts

	jitter        float64
	on            Outcomes
	maxRetryAfter time.Duration
}

func defaultRetry() retry {
	on, err := ParseOutcomes([]string{"network", "timeout", "408", "409", "425", "429", "5xx"})
	if err != nil {
		panic(err)
	}
	const h = time.Hour
	return retry{
		schedule:      []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h},
		initial:       5 * time.Second,
		max:           24 * h,
		multiplier:    2,
		maxAttempts:   10,
		jitter:        0.1,
		on:            on,
		maxRetryAfter: 24 * h,
	}
}

// read takes over what a retry block says. A schedule takes the place of an
// inherited strategy, and a strategy that of an inherited schedule.
func (r *retry) read(b *config.Block) {
	defer b.Done()
	b.Float("jitter", &r.jitter, 0, 1)
	b.Duration("max_retry_after", &r.maxRetryAfter, 0, maxDelay)
	if items, ok := b.List("on"); ok {
		r.on = Outcomes{}
		for _, item := range items {
			if err := r.on.add(item.Value); err != nil {
				b.Fail(item.Place, "Invalid on", err.Error())
			}
		}
	}

	scheduled := r.readSchedule(b)
	if b.String("strategy", &r.strategy, config.OneOf("exponential", "linear", "fixed")) && scheduled {
		b.Invalid("strategy", "the block has a schedule already. Keep one of them.")
	}
	set := map[string]bool{
		"initial":      b.Duration("initial", &r.initial, minDelay, maxDelay),
		"max":          b.Duration("max", &r.max, minDelay, maxDelay),
		"multiplier":   b.Float("multiplier", &r.multiplier, 1, 100),
		"max_attempts": b.Int("max_attempts", &r.maxAttempts, 1, maxAttempts),
	}
	for _, name := range []string{"initial", "max", "multiplier", "max_attempts"} {
		if set[name] && r.strategy == "" {
			b.Invalid(name, `it goes with a strategy. Add strategy = "exponential", or write the delays out in schedule.`)
		} else if name == "multiplier" && set[name] && r.strategy != "exponential" {
			b.Invalid(name, `only strategy = "exponential" has a multiplier.`)
		}
	}
}

func (r *retry) readSchedule(b *config.Block) bool {
	items, ok := b.List("schedule")
	if !ok {
		return false
	}
	switch {
	case len(items) == 0:
		b.Invalid("schedule", `it is empty. For no retries write strategy = "fixed" and max_attempts = 1.`)
	case len(items) > maxDelays:
		b.Invalid("schedule", fmt.Sprintf("it has %d delays, at most %d are possible.", len(items), maxDelays))
	}
	r.strategy, r.schedule = "", nil
	for _, item := range items {
		d, err := config.DurationBetween(item.Value, minDelay, maxDelay)
		if err != nil {
			b.Fail(item.Place, "Invalid schedule", err.Error())
		}
		r.schedule = append(r.schedule, d)
	}
	return true
}

// spell writes a strategy out as a schedule: exponential waits initial ×
// multiplier^(n-1) after attempt n, linear initial × n, fixed initial; none more
// than max.
func (r *retry) spell() Retry {
	schedule := r.schedule
	if r.strategy != "" {
		schedule = nil
		for n := 1; n < r.maxAttempts; n++ {
			factor := 1.0
			switch r.strategy {
			case "exponential":
				factor = math.Pow(r.multiplier, float64(n-1))
			case "linear":
				factor = float64(n)
			}
			delay := min(float64(r.initial)*factor, float64(r.max))
			schedule = append(schedule, time.Duration(delay))
		}
	}
	return Retry{Steps: Steps{Schedule: schedule, Jitter: r.jitter}, On: r.on, MaxRetryAfter: r.maxRetryAfter}
}
