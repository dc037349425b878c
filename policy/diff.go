package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/config"
	"relay/policy/sign"
)

// Kinds of a Change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Change is the difference that another policy makes for one endpoint.
type Change struct {
	Endpoint string          `json:"endpoint"`
	Kind     string          `json:"kind"`
	Settings []config.Change `json:"settings,omitempty"` // of one that is changed
}

// Diff lists the endpoints that differ: those of the new policy in its order, then the removed
// ones. The order of lists that have none does not matter. Secrets are compared, but never in the
// result.
func Diff(old, new *Policy) []Change {
	var changes []Change
	for _, e := range new.Endpoints {
		before := old.Endpoint(e.Name)
		if before == nil {
			changes = append(changes, Change{Endpoint: e.Name, Kind: Added})
			continue
		}
		if before == e {
			continue
		}
		settings := config.Compare(before.settings(), e.settings())
		if (before.Breaker == nil) != (e.Breaker == nil) { // this says it all
			settings = slices.DeleteFunc(settings, func(c config.Change) bool { return strings.HasPrefix(c.Name, "breaker.") })
		}
		if settings = append(settings, diffSigners(before.Signers, e.Signers)...); len(settings) > 0 {
			changes = append(changes, Change{Endpoint: e.Name, Kind: Changed, Settings: settings})
		}
	}
	for _, e := range old.Endpoints {
		if new.Endpoint(e.Name) == nil {
			changes = append(changes, Change{Endpoint: e.Name, Kind: Removed})
		}
	}
	return changes
}

// allSettings are an endpoint's settings without its signatures.
func (e *Endpoint) allSettings() []config.Setting {
	var all []config.Setting
	add := func(name, value string) { all = append(all, config.Setting{Name: name, Value: value}) }
	all = append(all, config.Setting{Name: "url", Value: e.ShownURL().String(), Hidden: config.NewSecret(e.URL.String())})
	add("enabled", strconv.FormatBool(e.Enabled))
	if e.Made {
		add("made", "at run time")
	}
	add("events", sorted(strings.Fields(e.Events.String())))
	all = append(all, e.Filter.settings()...)
	if e.Description != "" {
		add("description", strconv.Quote(e.Description))
	}
	all = append(all, e.labelSettings()...)
	for _, h := range e.Headers {
		all = append(all, config.Setting{Name: "headers." + h.ShownName(), Value: Hidden, Hidden: h.Value})
	}
	all = append(all, e.Body.settings()...)
	add("concurrency", strconv.Itoa(e.Concurrency))
	add("http2", strconv.FormatBool(e.HTTP2))
	add("propagate_trace", strconv.FormatBool(e.PropagateTrace))
	add("connection_max_age", config.FormatDuration(e.ConnectionMaxAge))
	if e.Handshake {
		add("handshake", e.Origin)
	}
	add("timeout.connect", config.FormatDuration(e.Timeout.Connect))
	add("timeout.total", config.FormatDuration(e.Timeout.Total))
	add("budget.filter", config.FormatDuration(e.Budget.Filter))
	add("budget.body", config.FormatDuration(e.Budget.Body))
	add("fleet_concurrency", count(e.FleetConcurrency))
	add("fresh_share", decimal(e.FreshShare))
	add("obey_rate_headers", strconv.FormatBool(e.ObeyRateHeaders))
	add("retry.schedule", e.Retry.Steps.delays())
	add("retry.jitter", decimal(e.Retry.Jitter))
	add("retry.max_age", orNone(e.Retry.MaxAge))
	add("retry.on", strings.Join(e.Retry.On.List(), " "))
	add("retry.max_retry_after", config.FormatDuration(e.Retry.MaxRetryAfter))
	for _, c := range e.Retry.Classes {
		add("retry."+c.Name, c.text())
	}
	if r := e.RateLimit; r != nil {
		add("rate_limit", fmt.Sprintf("%d per %s, burst %d", r.N, config.FormatDuration(r.Per), r.Burst))
	}
	if r := e.Breaker; r != nil {
		add("breaker", "on")
		add("breaker.failure_ratio", decimal(r.FailureRatio))
		add("breaker.min_attempts", strconv.Itoa(r.MinAttempts))
		add("breaker.window", config.FormatDuration(r.Window))
		add("breaker.open", config.FormatDuration(r.Open))
		add("breaker.max_open", config.FormatDuration(r.MaxOpen))
		add("breaker.jitter", decimal(r.Jitter))
		add("breaker.probes", strconv.Itoa(r.Probes))
		add("breaker.on", strings.Join(r.On.List(), " "))
	}
	if e.Batch != nil {
		add("batch", e.Batch.String())
	}
	add("disable.on_gone", strconv.FormatBool(e.Disable.OnGone))
	add("disable.after_failing", orNone(e.Disable.AfterFailing))
	var private, ports []string
	for _, p := range e.Egress.AllowPrivate {
		private = append(private, p.String())
	}
	for _, p := range e.Egress.Ports {
		ports = append(ports, strconv.Itoa(int(p)))
	}
	add("egress.allow_private", sorted(private))
	add("egress.allow_plaintext", strconv.FormatBool(e.Egress.AllowPlaintext))
	add("egress.ports", sorted(ports))
	add("tls.ca", e.TLS.CA)
	add("tls.cert", e.TLS.Client())
	add("tls.min_version", e.TLS.Version())
	add("tls.server_name", e.TLS.ServerName)
	return all
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// count formats a number; 0 is unlimited.
func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// orNone formats a duration; 0 is never.
func orNone(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return config.FormatDuration(d)
}

// text is the settings of a class in one line.
func (s *Steps) text() string {
	text := s.delays()
	if text == "" {
		text = "no more attempts"
	}
	text += ", jitter " + decimal(s.Jitter)
	if s.MaxAge > 0 {
		text += ", max_age " + config.FormatDuration(s.MaxAge)
	}
	return text
}

func (s *Steps) delays() string {
	var delays []string
	for _, d := range s.Schedule {
		delays = append(delays, config.FormatDuration(d))
	}
	return strings.Join(delays, " ")
}

// sorted joins values whose order in the file has no meaning.
func sorted(list []string) string {
	slices.Sort(list)
	return strings.Join(list, " ")
}

// diffSigners compares the schemes by name and content, and the secrets. If no scheme is in both,
// equal numbers of secrets count as equal, because each scheme derives its keys differently and
// they cannot be compared.
func diffSigners(old, new []*sign.Signer) []config.Change {
	var changes []config.Change
	was, is := schemes(old), schemes(new)
	if was != is {
		changes = append(changes, config.Change{Name: "sign", Old: was, New: is})
	}
	same := secretCount(old) == secretCount(new)
	for _, n := range new {
		for _, o := range old {
			if o.Scheme().Name() != n.Scheme().Name() {
				continue
			}
			if !o.Scheme().Equal(n.Scheme()) {
				name := "signature." + n.Scheme().Name()
				changes = append(changes, config.Change{Name: name, Unseen: true})
			}
			if equal, known := o.SameSecrets(n); known && !equal {
				same = false
			}
		}
	}
	if !same && len(old) > 0 && len(new) > 0 {
		changes = append(changes, config.Change{Name: "secrets", Old: strconv.Itoa(secretCount(old)), New: strconv.Itoa(secretCount(new)), Unseen: true})
	}
	return changes
}

// schemes is the file's attribute sign.
func schemes(signers []*sign.Signer) string {
	if len(signers) == 0 {
		return unsigned
	}
	var names []string
	for _, s := range signers {
		names = append(names, s.Scheme().Name())
	}
	return strings.Join(names, " ")
}

// secretCount is of the first signer: all of them have the same secrets.
func secretCount(signers []*sign.Signer) int {
	if len(signers) == 0 {
		return 0
	}
	return signers[0].Secrets()
}
