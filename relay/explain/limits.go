package explain

import "relay/policy"

// Class is the schedule after attempts of one kind.
type Class struct {
	After    string  `json:"after"` // as labelled in the file
	DelaysMS []int64 `json:"delays_ms"`
	Jitter   float64 `json:"jitter"`
	MaxAgeMS int64   `json:"max_age_ms"` // 0 for unlimited
}

// Limits are what bounds the attempts of an endpoint.
type Limits struct {
	Concurrency      int      `json:"concurrency"`
	FleetConcurrency int      `json:"fleet_concurrency"` // 0 for unlimited
	FreshShare       float64  `json:"fresh_share"`
	RateLimit        *Rate    `json:"rate_limit,omitempty"`
	ObeyRateHeaders  bool     `json:"obey_rate_headers"`
	ConnectionAgeMS  int64    `json:"connection_max_age_ms"`
	Breaker          *Breaker `json:"breaker,omitempty"`
	Batch            *Batch   `json:"batch,omitempty"`
	Disable          Disable  `json:"disable"`
	TLS              *TLS     `json:"tls,omitempty"` // of an https:// URL
}

// Rate is a rate_limit.
type Rate struct {
	Limit int   `json:"limit"`
	PerMS int64 `json:"per_ms"`
	Burst int   `json:"burst"`
}

// Breaker is a breaker block.
type Breaker struct {
	FailureRatio float64  `json:"failure_ratio"`
	MinAttempts  int      `json:"min_attempts"`
	WindowMS     int64    `json:"window_ms"`
	OpenMS       int64    `json:"open_ms"`
	MaxOpenMS    int64    `json:"max_open_ms"`
	Jitter       float64  `json:"jitter"`
	Probes       int      `json:"probes"`
	On           []string `json:"on"`
}

// Batch is a batch block.
type Batch struct {
	MaxEvents int    `json:"max_events"`
	MaxWaitMS int64  `json:"max_wait_ms"`
	MaxBytes  int64  `json:"max_bytes"`
	Format    string `json:"format"`
	OnRefused string `json:"on_refused"`
}

// Disable is a disable block.
type Disable struct {
	OnGone         bool  `json:"on_gone"`
	AfterFailingMS int64 `json:"after_failing_ms"` // 0 for never
}

// TLS is a tls block.
type TLS struct {
	MinVersion string `json:"min_version"`
	CA         string `json:"ca,omitempty"`          // short hash of the file; none for the system's authorities
	Client     string `json:"client,omitempty"`      // certificate
	ServerName string `json:"server_name,omitempty"` // none for the URL's host
}

func classes(r *policy.Retry) []Class {
	all := []Class{}
	for _, c := range r.Classes {
		out := Class{After: c.Name, DelaysMS: []int64{}, Jitter: c.Jitter, MaxAgeMS: c.MaxAge.Milliseconds()}
		for _, d := range c.Schedule {
			out.DelaysMS = append(out.DelaysMS, d.Milliseconds())
		}
		all = append(all, out)
	}
	return all
}

func limits(e *policy.Endpoint) Limits {
	out := Limits{
		Concurrency: e.Concurrency, FleetConcurrency: e.FleetConcurrency, FreshShare: e.FreshShare, ObeyRateHeaders: e.ObeyRateHeaders,
		ConnectionAgeMS: e.ConnectionMaxAge.Milliseconds(),
		Disable:         Disable{e.Disable.OnGone && !e.Retry.On.Status(410), e.Disable.AfterFailing.Milliseconds()},
	}
	if r := e.RateLimit; r != nil {
		out.RateLimit = &Rate{r.N, r.Per.Milliseconds(), r.Burst}
	}
	if r := e.Breaker; r != nil {
		out.Breaker = &Breaker{
			r.FailureRatio, r.MinAttempts, r.Window.Milliseconds(), r.Open.Milliseconds(), r.MaxOpen.Milliseconds(), r.Jitter, r.Probes, r.On.List(),
		}
	}
	if b := e.Batch; b != nil {
		out.Batch = &Batch{b.MaxEvents, b.MaxWait.Milliseconds(), b.MaxBytes, b.Format(), b.OnRefused()}
	}
	if e.URL.Scheme == "https" {
		out.TLS = &TLS{e.TLS.Version(), e.TLS.CA, e.TLS.Client(), e.TLS.ServerName}
	}
	return out
}
