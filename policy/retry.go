package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"relay/config"
	"relay/internal/sorting"
)

// Limits of the file's retry blocks.
const (
	minDelay    = time.Millisecond
	maxDelay    = 30 * config.Day
	maxDelays   = 100
	maxAttempts = 100
	maxAge      = 365 * config.Day
)

// explicit is the strategy of a schedule in full.
const explicit = "explicit"

// retry is the retry block without a label, and the blocks with one.
type retry struct {
	steps
	on            Outcomes
	maxRetryAfter time.Duration
	classes       []retryClass
}

// retryClass is a block like retry "429". Attributes that it leaves out are those of the merged
// block without a label.
type retryClass struct {
	name string
	of   Outcomes
	steps
}

// steps are the attributes for delays as written; zero values are not written.
type steps struct {
	strategy    string // explicit, "exponential", "linear", "fixed"
	schedule    []time.Duration
	initial     time.Duration
	max         time.Duration
	multiplier  float64
	maxAttempts int // including the first
	jitter      *float64
	maxAge      *time.Duration
}

// strategyAttempts is how many attempts a strategy makes by default.
const strategyAttempts = 10

func defaultRetry() retry {
	on, err := ParseOutcomes([]string{network, timeout, "408", "409", "425", "429", "5xx"})
	if err != nil {
		panic(err)
	}
	const h = time.Hour
	return retry{
		steps: steps{
			strategy:   explicit,
			schedule:   []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h},
			initial:    5 * time.Second,
			max:        24 * h,
			multiplier: 2,
			jitter:     new(0.1),
			maxAge:     new(time.Duration(0)),
		},
		on:            on,
		maxRetryAfter: 24 * h,
	}
}

// read applies the retry blocks of a policy or an endpoint. plain is nil if there is none.
func (r *retry) read(b *config.Block) {
	plain, labelled := b.OneAndLabelled("retry")
	if plain != nil {
		plain.Duration("max_retry_after", &r.maxRetryAfter, 0, maxDelay)
		readOutcomes(plain, "on", &r.on)
		r.steps = readSteps(plain, r.steps)
	}
	for _, l := range labelled {
		r.readClass(l)
	}
}

func (r *retry) readClass(b *config.Block) {
	c := retryClass{name: b.Name}
	if err := c.of.add(b.Name); err != nil {
		b.Fail(b.Label(), "Invalid retry", err.Error())
	}
	r.classes = slices.Clone(r.classes) // others may share the inherited classes
	i := slices.IndexFunc(r.classes, func(c retryClass) bool { return c.name == b.Name })
	if i < 0 {
		i = len(r.classes)
		r.classes = append(r.classes, c)
	}
	b.Refuse("Misplaced argument", "%q belongs in the retry block without a label: it is about all outcomes. "+
		"Move it there; the outcomes of this label are retried anyway.", "on", "max_retry_after")
	r.classes[i].steps = readSteps(b, r.classes[i].steps)
}

// readOutcomes replaces a list.
func readOutcomes(b *config.Block, name string, to *Outcomes) bool {
	items, ok := b.List(name)
	if !ok {
		return false
	}
	*to = Outcomes{}
	for _, item := range items {
		if err := to.add(item.Value); err != nil {
			b.Fail(item.Place, "Invalid "+name, err.Error())
		}
	}
	return true
}

// valueOr is *p, or none if p is nil.
func valueOr[T any](p *T, none T) T {
	if p == nil {
		return none
	}
	return *p
}

// readSteps reads the delays of a retry block, over those that it inherits.
func readSteps(b *config.Block, inherited steps) steps {
	var s steps
	scheduled := s.readSchedule(b)
	b.String("strategy", &s.strategy, config.OneOf(explicit, "exponential", "linear", "fixed"))
	switch {
	case scheduled && s.strategy != explicit:
		b.Invalid("strategy", "the block has a schedule already. Keep one of them.")
	case !scheduled && s.strategy == explicit:
		b.Require("schedule", `the delays of strategy = "explicit": schedule = ["5s", "1m"]`)
		s.strategy = ""
	}
	initial := b.Duration("initial", &s.initial, minDelay, maxDelay)
	most := b.Duration("max", &s.max, minDelay, maxDelay)
	multiplier := b.Float("multiplier", &s.multiplier, 1, 100)
	b.Int("max_attempts", &s.maxAttempts, 1, maxAttempts)
	if f := valueOr(inherited.jitter, -1); b.Float("jitter", &f, 0, 1) {
		s.jitter = &f
	}
	if d := valueOr(inherited.maxAge, -1); readNever(b, "max_age", &d, time.Second) {
		s.maxAge = &d
	}
	b.Done()

	s = s.over(inherited)
	strategic := s.strategy != "" && s.strategy != explicit
	for name, set := range map[string]bool{"initial": initial, "max": most, "multiplier": multiplier} {
		if set && !strategic {
			b.Invalid(name, `it goes with a strategy. Add strategy = "exponential", or write the delays out in schedule.`)
		}
	}
	if multiplier && strategic && s.strategy != "exponential" {
		b.Invalid("multiplier", `only strategy = "exponential" has a multiplier.`)
	}
	return s
}

func (s *steps) readSchedule(b *config.Block) bool {
	items, ok := b.List("schedule")
	if !ok {
		return false
	}
	switch {
	case len(items) == 0:
		b.Invalid("schedule", "it is empty. For no retries write max_attempts = 1 instead.")
	case len(items) > maxDelays:
		b.Invalid("schedule", fmt.Sprintf("it has %d delays, at most %d are possible.", len(items), maxDelays))
	}
	s.strategy = explicit
	for _, item := range items {
		d, err := config.DurationBetween(item.Value, minDelay, maxDelay)
		if err != nil {
			b.Fail(item.Place, "Invalid schedule", err.Error())
		}
		s.schedule = append(s.schedule, d)
	}
	return true
}

// readNever reads a duration of at least least, or 0 for never.
func readNever(b *config.Block, name string, to *time.Duration, least time.Duration) bool {
	if !b.Duration(name, to, 0, maxAge) {
		return false
	}
	if *to > 0 && *to < least {
		b.Invalid(name, fmt.Sprintf(`must be from %s to %s, or "0s" for never`, config.FormatDuration(least), config.FormatDuration(maxAge)))
	}
	return true
}

// over merges s over the inherited steps. A schedule replaces an inherited strategy and the
// number of attempts, which it determines; a strategy replaces an inherited schedule.
func (s steps) over(base steps) steps {
	if s.strategy != "" {
		base.strategy, base.schedule = s.strategy, s.schedule
	}
	if s.strategy == explicit {
		base.maxAttempts = 0
	}
	base.initial = cmp.Or(s.initial, base.initial)
	base.max = cmp.Or(s.max, base.max)
	base.multiplier = cmp.Or(s.multiplier, base.multiplier)
	base.maxAttempts = cmp.Or(s.maxAttempts, base.maxAttempts)
	base.jitter = cmp.Or(s.jitter, base.jitter)
	base.maxAge = cmp.Or(s.maxAge, base.maxAge)
	return base
}

// spell sets all defaults.
func (r *retry) spell() Retry {
	out := Retry{Steps: r.steps.spell(), On: r.on, MaxRetryAfter: r.maxRetryAfter}
	for _, c := range r.classes {
		out.On.union(c.of)
		out.Classes = append(out.Classes, RetryClass{Name: c.name, Of: c.of, Steps: c.over(r.steps).spell()})
	}
	sorting.By(out.Classes, func(a, b RetryClass) int {
		return cmp.Or(a.Of.size()-b.Of.size(), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// spell converts a strategy to a schedule: exponential waits initial × multiplier^(n-1) after
// attempt n, linear initial × n, fixed initial; none more than max. A schedule is cut to the
// number of attempts, or goes on with its last delay.
func (s steps) spell() Steps {
	schedule := s.schedule
	if s.strategy != explicit {
		schedule = s.strategySchedule()
	} else if n := len(schedule); s.maxAttempts > 0 && n > 0 {
		schedule = slices.Clone(schedule[:min(n, s.maxAttempts-1)])
		for len(schedule) < s.maxAttempts-1 {
			schedule = append(schedule, s.schedule[n-1])
		}
	}
	return Steps{Schedule: schedule, Jitter: *s.jitter, MaxAge: *s.maxAge}
}

func (s steps) strategySchedule() []time.Duration {
	var schedule []time.Duration
	for n := 1; n < cmp.Or(s.maxAttempts, strategyAttempts); n++ {
		factor := 1.0
		switch s.strategy {
		case "exponential":
			factor = math.Pow(s.multiplier, float64(n-1))
		case "linear":
			factor = float64(n)
		}
		delay := min(float64(s.initial)*factor, float64(s.max))
		schedule = append(schedule, time.Duration(delay))
	}
	return schedule
}
