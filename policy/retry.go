package policy

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"relay/config"
)

// RetryOn says which attempts that did not deliver are tried again; the others
// are final. The zero value retries nothing.
type RetryOn struct {
	Network bool // no answer came: name, connection, TLS, egress
	Timeout bool // no answer came in time

	statuses [600/64 + 1]uint64 // a bit for each status
}

// ParseRetryOn reads the list of the file: "network", "timeout", a status
// "300" to "599" or a class "3xx", "4xx", "5xx".
func ParseRetryOn(list []string) (RetryOn, error) {
	var on RetryOn
	for _, s := range list {
		if err := on.add(s); err != nil {
			return RetryOn{}, err
		}
	}
	return on, nil
}

// Status tells whether an answer with this HTTP status is tried again.
func (o RetryOn) Status(code int) bool {
	return code >= 0 && code < 600 && o.statuses[code/64]&(1<<(code%64)) != 0
}

// List is what the file could say: network, timeout, then whole classes and single
// statuses by number.
func (o RetryOn) List() []string {
	var list []string
	if o.Network {
		list = append(list, "network")
	}
	if o.Timeout {
		list = append(list, "timeout")
	}
	for class := 3; class <= 5; class++ {
		var some []string
		for code := class * 100; code < class*100+100; code++ {
			if o.Status(code) {
				some = append(some, strconv.Itoa(code))
			}
		}
		if len(some) == 100 {
			some = []string{strconv.Itoa(class) + "xx"}
		}
		list = append(list, some...)
	}
	return list
}

func (o *RetryOn) add(s string) error {
	switch s {
	case "network":
		o.Network = true
		return nil
	case "timeout":
		o.Timeout = true
		return nil
	}
	// 1xx are no answers and 2xx have delivered.
	first, last := 0, -1
	if len(s) == 3 && s[0] >= '3' && s[0] <= '5' {
		if s[1:] == "xx" {
			first = int(s[0]-'0') * 100
			last = first + 99
		} else if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			first, last = int(n), int(n)
		}
	}
	if last < 0 {
		return fmt.Errorf(`%q is not "network", "timeout", a status "300" to "599" or a class "3xx", "4xx", "5xx".%s`,
			s, config.Suggest(s, []string{"network", "timeout"}))
	}
	for code := first; code <= last; code++ {
		o.statuses[code/64] |= 1 << (code % 64)
	}
	return nil
}

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
	on            RetryOn
	maxRetryAfter time.Duration
}

func defaultRetry() retry {
	on, err := ParseRetryOn([]string{"network", "timeout", "408", "409", "425", "429", "5xx"})
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
		r.on = RetryOn{}
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
	return Retry{Schedule: schedule, Jitter: r.jitter, On: r.on, MaxRetryAfter: r.maxRetryAfter}
}
