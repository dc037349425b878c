package page

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"relay/relay/explain"
	"relay/relay/page/show"
)

// fact is a setting, and its value for people.
type fact struct{ Name, Value string }

// plan gathers what bounds attempts, for people; without the settings that the file hides.
type plan struct {
	c *call
	*explain.Plan
	facts []fact
}

// planFacts are the bounds of attempts.
func (c *call) planFacts(of *explain.Plan) []fact {
	p := plan{c: c, Plan: of}
	p.retries()
	p.limits()
	p.address()
	if len(p.Hidden) > 0 {
		p.facts = append(p.facts, fact{c.t("explain.fact.hidden"), strings.Join(p.Hidden, ", ")})
	}
	return p.facts
}

// hides tells whether the file hides a setting.
func (p *plan) hides(setting string) bool { return slices.Contains(p.Hidden, setting) }

func (p *plan) add(setting, value string) {
	if !p.hides(setting) {
		p.facts = append(p.facts, fact{p.c.t("explain.fact." + setting), value})
	}
}

// dur is a duration of milliseconds.
func (p *plan) dur(ms int64) string { return show.Lang(p.c.lang).Duration(float64(ms)) }

// retries are what is tried again, and when.
func (p *plan) retries() {
	if p.hides("retry") {
		return
	}
	c := p.c
	p.add("retry", cmp.Or(strings.Join(p.RetryOn, " "), c.t("explain.nothing")))
	for _, class := range p.Classes {
		var delays []string
		for _, ms := range class.DelaysMS {
			delays = append(delays, p.dur(ms))
		}
		p.facts = append(p.facts, fact{c.t("explain.class", class.After), cmp.Or(strings.Join(delays, ", "), c.t("explain.no_more"))})
	}
	if p.MaxAgeMS > 0 {
		p.add("max_age", c.t("explain.max_age", p.dur(p.MaxAgeMS)))
	}
	if p.MaxRetryAfterMS > 0 {
		p.add("retry_after", c.t("explain.retry_after", p.dur(p.MaxRetryAfterMS)))
	}
}

// limits are those of time and number.
func (p *plan) limits() {
	c := p.c
	p.add("timeout", c.t("explain.timeouts", p.dur(p.ConnectMS), p.dur(p.TotalMS)))
	p.add("concurrency", strconv.Itoa(p.Concurrency))
	if r := p.RateLimit; r != nil {
		p.add("rate_limit", c.t("explain.rate", strconv.Itoa(r.Limit), p.dur(r.PerMS), strconv.Itoa(r.Burst)))
	}
	if b := p.Breaker; b != nil {
		p.add("breaker", c.t("explain.breaker", show.Lang(c.lang).Percent(b.FailureRatio), p.dur(b.WindowMS), p.dur(b.OpenMS)))
	}
	if b := p.Batch; b != nil {
		p.add("batch", c.t("explain.batch", strconv.Itoa(b.MaxEvents), p.dur(b.MaxWaitMS)))
	}
	var when []string
	if p.Disable.OnGone {
		when = append(when, c.t("explain.on_gone"))
	}
	if p.Disable.AfterFailingMS > 0 {
		when = append(when, c.t("explain.after_failing", p.dur(p.Disable.AfterFailingMS)))
	}
	if len(when) > 0 {
		p.add("disable", strings.Join(when, ", "))
	}
}

// address is what is asked of the receiver's address and certificate.
func (p *plan) address() {
	if p.TLS != nil {
		p.add("tls", p.c.t("explain.tls", p.TLS.MinVersion))
	}
	verdict := p.c.t("explain.egress." + p.Egress.Verdict)
	if p.Egress.Why != "" {
		verdict += ": " + p.Egress.Why
	}
	p.add("egress", verdict)
}
