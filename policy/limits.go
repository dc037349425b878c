package policy

import (
	"time"

	"relay/config"
)

// maxLimit bounds the counts of a rate_limit block.
const maxLimit = 1_000_000

// rateLimit is a rate_limit block as it is written.
type rateLimit struct {
	on    bool
	limit int // 0: not written
	per   time.Duration
	burst int // 0: not written
}

// read applies a block. A block that is written is on, unless it says enabled = false.
func (r *rateLimit) read(b *config.Block) {
	r.on = true
	b.Bool("enabled", &r.on)
	b.Int("limit", &r.limit, 1, maxLimit)
	b.Duration("per", &r.per, time.Millisecond, maxDelay)
	b.Int("burst", &r.burst, 1, maxLimit)
	if r.on && r.limit == 0 {
		b.Require("limit", "a limit, like limit = 50, or enabled = false")
	}
	b.Done()
}

// spell sets the default burst: the tokens of one second, rounded up.
func (r *rateLimit) spell() *RateLimit {
	if !r.on {
		return nil
	}
	burst := r.burst
	if burst == 0 {
		burst = int(min((time.Duration(r.limit)*time.Second+r.per-1)/r.per, maxLimit))
	}
	return &RateLimit{N: r.limit, Per: r.per, Burst: burst}
}

// breaker is a breaker block as it is written.
type breaker struct {
	on bool
	Breaker
}

func defaultBreaker() breaker {
	on, err := ParseOutcomes([]string{network, timeout, "429", "5xx"})
	if err != nil {
		panic(err)
	}
	return breaker{true, Breaker{
		FailureRatio: 0.5, MinAttempts: 20, Window: time.Minute,
		Open: 30 * time.Second, MaxOpen: 10 * time.Minute, Jitter: 0.1, Probes: 1, On: on,
	}}
}

// read applies a block. A block that is written is on, unless it says enabled = false.
func (r *breaker) read(b *config.Block) {
	r.on = true
	b.Bool("enabled", &r.on)
	b.Float("failure_ratio", &r.FailureRatio, 0.01, 1)
	b.Int("min_attempts", &r.MinAttempts, 1, 100_000)
	b.Duration("window", &r.Window, time.Second, config.Day)
	open := b.Duration("open", &r.Open, 100*time.Millisecond, maxDelay)
	most := b.Duration("max_open", &r.MaxOpen, 100*time.Millisecond, maxDelay)
	if (open || most) && r.Open > r.MaxOpen {
		wrong := "open"
		if most {
			wrong = "max_open"
		}
		b.Invalid(wrong, "max_open cannot be less than open. Write both.")
	}
	b.Float("jitter", &r.Jitter, 0, 1)
	b.Int("probes", &r.Probes, 1, 100)
	if readOutcomes(b, "on", &r.On) && r.On == (Outcomes{}) {
		b.Invalid("on", "nothing in it counts as a failure. For no breaker write enabled = false.")
	}
	b.Done()
}

func (r *breaker) spell() *Breaker {
	if !r.on {
		return nil
	}
	return new(r.Breaker)
}

func defaultDisable() Disable { return Disable{OnGone: true, AfterFailing: 5 * config.Day} }

func (d *Disable) read(b *config.Block) {
	b.Bool("on_gone", &d.OnGone)
	readNever(b, "after_failing", &d.AfterFailing, time.Minute)
	b.Done()
}
