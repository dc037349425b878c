package main

import (
	"fmt"
	"strconv"
	"strings"

	"relay/config"
	"relay/policy"
)

// explainedClass is what follows attempts of one kind.
type explainedClass struct {
	After    string  `json:"after"` // as labelled in the file
	DelaysMS []int64 `json:"delays_ms"`
	Jitter   float64 `json:"jitter"`
	MaxAgeMS int64   `json:"max_age_ms"` // 0 for no bound
}

type explainedLimits struct {
	Concurrency      int               `json:"concurrency"`
	FleetConcurrency int               `json:"fleet_concurrency"` // 0 for no bound
	FreshShare       float64           `json:"fresh_share"`
	RateLimit        *explainedRate    `json:"rate_limit,omitempty"`
	ObeyRateHeaders  bool              `json:"obey_rate_headers"`
	Breaker          *explainedBreaker `json:"breaker,omitempty"`
	Batch            *explainedBatch   `json:"batch,omitempty"`
	Disable          explainedDisable  `json:"disable"`
	TLS              *explainedTLS     `json:"tls,omitempty"` // of an https:// URL
}

type explainedRate struct {
	Limit int   `json:"limit"`
	PerMS int64 `json:"per_ms"`
	Burst int   `json:"burst"`
}

type explainedBreaker struct {
	FailureRatio float64  `json:"failure_ratio"`
	MinAttempts  int      `json:"min_attempts"`
	WindowMS     int64    `json:"window_ms"`
	OpenMS       int64    `json:"open_ms"`
	MaxOpenMS    int64    `json:"max_open_ms"`
	Jitter       float64  `json:"jitter"`
	Probes       int      `json:"probes"`
	On           []string `json:"on"`
}

type explainedBatch struct {
	MaxEvents int    `json:"max_events"`
	MaxWaitMS int64  `json:"max_wait_ms"`
	MaxBytes  int64  `json:"max_bytes"`
	Format    string `json:"format"`
	OnRefused string `json:"on_refused"`
}

type explainedDisable struct {
	OnGone         bool  `json:"on_gone"`
	AfterFailingMS int64 `json:"after_failing_ms"` // 0 for never
}

type explainedTLS struct {
	MinVersion string `json:"min_version"`
	CA         string `json:"ca,omitempty"`          // short hash of the file; none for the system's authorities
	Client     string `json:"client,omitempty"`      // certificate
	ServerName string `json:"server_name,omitempty"` // none for the URL's host
}

func explainClasses(r *policy.Retry) []explainedClass {
	all := []explainedClass{}
	for _, c := range r.Classes {
		out := explainedClass{After: c.Name, DelaysMS: []int64{}, Jitter: c.Jitter, MaxAgeMS: c.MaxAge.Milliseconds()}
		for _, d := range c.Schedule {
			out.DelaysMS = append(out.DelaysMS, d.Milliseconds())
		}
		all = append(all, out)
	}
	return all
}

func explainLimits(e *policy.Endpoint) explainedLimits {
	out := explainedLimits{
		Concurrency: e.Concurrency, FleetConcurrency: e.FleetConcurrency, FreshShare: e.FreshShare, ObeyRateHeaders: e.ObeyRateHeaders,
		Disable: explainedDisable{e.Disable.OnGone && !e.Retry.On.Status(410), e.Disable.AfterFailing.Milliseconds()},
	}
	if r := e.RateLimit; r != nil {
		out.RateLimit = &explainedRate{r.N, r.Per.Milliseconds(), r.Burst}
	}
	if r := e.Breaker; r != nil {
		out.Breaker = &explainedBreaker{
			r.FailureRatio, r.MinAttempts, r.Window.Milliseconds(), r.Open.Milliseconds(), r.MaxOpen.Milliseconds(), r.Jitter, r.Probes, r.On.List(),
		}
	}
	if b := e.Batch; b != nil {
		out.Batch = &explainedBatch{b.MaxEvents, b.MaxWait.Milliseconds(), b.MaxBytes, b.Format(), b.OnRefused()}
	}
	if e.URL.Scheme == "https" {
		out.TLS = &explainedTLS{e.TLS.Version(), e.TLS.CA, e.TLS.Client(), e.TLS.ServerName}
	}
	return out
}

func classText(c explainedClass) string {
	if len(c.DelaysMS) == 0 {
		return "no more attempts"
	}
	var delays []string
	for _, d := range c.DelaysMS {
		delays = append(delays, ms(d))
	}
	return fmt.Sprintf("%s after attempt 1, 2, …; jitter %s%s", strings.Join(delays, " "), share(c.Jitter), ageText(c.MaxAgeMS))
}

func ageText(n int64) string {
	if n == 0 {
		return ""
	}
	return "; none later than " + ms(n) + " after the accept"
}

func concurrencyText(l explainedLimits) string {
	text := count(l.Concurrency, "attempt") + " at the same time, for each Relay"
	if l.FleetConcurrency > 0 {
		text += fmt.Sprintf("; %d for all Relays together", l.FleetConcurrency)
	}
	return text + fmt.Sprintf("; %s of them for the newest events while older ones wait", share(l.FreshShare))
}

func rateText(l explainedLimits) string {
	text := "none"
	if r := l.RateLimit; r != nil {
		text = fmt.Sprintf("%s per %s, bursts of %d, for all Relays together", count(r.Limit, "attempt"), ms(r.PerMS), r.Burst)
	}
	if l.ObeyRateHeaders {
		text += "; and what RateLimit and X-RateLimit-* headers of answers say"
	}
	return text
}

func batchText(b *explainedBatch) string {
	text := fmt.Sprintf("up to %s or %s in one request (%s), waits %s for more; when it is refused ",
		count(b.MaxEvents, "event"), config.FormatSize(b.MaxBytes), b.Format, ms(b.MaxWaitMS))
	if b.OnRefused == "retry" {
		return text + "it is retried"
	}
	return text + "each goes alone"
}

func breakerText(b *explainedBreaker) string {
	if b == nil {
		return "none"
	}
	return fmt.Sprintf("opens when %s of at least %s in %s fail (%s); for %s, with each failed probe longer, up to %s; closes after %s",
		share(b.FailureRatio), count(b.MinAttempts, "attempt"), ms(b.WindowMS), strings.Join(b.On, " "), ms(b.OpenMS), ms(b.MaxOpenMS),
		count(b.Probes, "good probe"))
}

func disableText(d explainedDisable) string {
	var when []string
	if d.OnGone {
		when = append(when, "at an answer 410")
	}
	if d.AfterFailingMS > 0 {
		when = append(when, "after "+ms(d.AfterFailingMS)+" without an attempt that went well")
	}
	if len(when) == 0 {
		return "never"
	}
	return strings.Join(when, ", ")
}

func tlsText(t *explainedTLS) string {
	if t == nil {
		return "none: the URL begins with http://"
	}
	text := t.MinVersion + " or newer; authorities of "
	if t.CA == "" {
		text += "the system"
	} else {
		text += "a file of its own (" + t.CA + ")"
	}
	if t.Client != "" {
		text += "; client certificate " + t.Client
	}
	if t.ServerName != "" {
		text += "; the receiver's certificate is for " + t.ServerName
	}
	return text
}

// share is a part of 1 in percent.
func share(f float64) string { return strconv.FormatFloat(f*100, 'g', 4, 64) + " %" }
