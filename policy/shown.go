package policy

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"relay/config"
)

// hidden stands for what is not shown.
const hidden = config.Hidden

// drawn names settings that env() or file() gave a part of: "retry.schedule", and "retry"
// for the block. Nothing of them is shown to people or logged, because an answer of env()
// and file() may be secret wherever it is used.
type drawn map[string]bool

// with adds what a block says.
func (d drawn) with(b *config.Block) drawn {
	// Most files draw nothing but secrets, which hide by themselves.
	names := slices.DeleteFunc(b.Drawn(), func(name string) bool { return slices.Contains(selfHidden(), name) })
	if len(names) == 0 {
		return d
	}
	d = maps.Clone(d)
	if d == nil {
		d = drawn{}
	}
	for _, name := range names {
		d[name] = true
		if block, _, inner := strings.Cut(name, "."); inner {
			d[block] = true
		}
	}
	return d
}

// selfHidden are settings that show no value, or an expression as it is written.
func selfHidden() []string {
	return []string{"secrets", "headers", "body", byWhen, "dedupe.by", "crossing.by", "crossing.value"}
}

// has tells whether a setting, as Diff names it, is made of what env() or file() gave.
func (d drawn) has(setting string) bool {
	block, _, _ := strings.Cut(setting, ".")
	switch block {
	case "retry", "rate_limit", "batch": // one line of several attributes
		return d[block]
	case "handshake":
		return d["handshake"] || d["origin"]
	}
	switch setting {
	case "crossing.reset_below": // the lowest threshold, where it is not written
		return d[setting] || d["crossing.at"]
	}
	return d[setting] || setting == "tls.cert" && d["tls.key"]
}

// Hides tells whether a setting of the file is not shown: a name like "concurrency",
// "timeout.total" or, for any of its attributes, "breaker".
func (e *Endpoint) Hides(setting string) bool { return e.drawn.has(setting) }

// Show is the value of a setting, fit to be shown.
func (e *Endpoint) Show(setting, value string) string {
	if e.Hides(setting) {
		return hidden
	}
	return value
}

// Shown is e without the values that are not shown: they are zero, or "***". It says
// nothing of secrets, headers and bodies. It is for people; nothing is sent by it.
func (e *Endpoint) Shown() *Endpoint {
	s := *e
	s.URL = e.ShownURL()
	clean := func(setting string, drop func()) {
		if e.Hides(setting) {
			drop()
		}
	}
	clean("description", func() { s.Description = hidden })
	clean("events", func() { s.Events = Matcher{} })
	clean("concurrency", func() { s.Concurrency = 0 })
	clean("fleet_concurrency", func() { s.FleetConcurrency = 0 })
	clean("fresh_share", func() { s.FreshShare = 0 })
	clean("timeout.connect", func() { s.Timeout.Connect = 0 })
	clean("timeout.total", func() { s.Timeout.Total = 0 })
	clean("connection_max_age", func() { s.ConnectionMaxAge = 0 })
	clean("budget", func() { s.Budget = Budget{} })
	clean("retry", func() { s.Retry = Retry{} })
	clean("rate_limit", func() { s.RateLimit = nil })
	clean("batch", func() { s.Batch = nil })
	clean("breaker", func() { s.Breaker = nil })
	clean("disable", func() { s.Disable = Disable{} })
	clean("egress", func() { s.Egress = Egress{} })
	clean("tls", func() { s.TLS = TLS{} })
	clean("origin", func() { s.Origin = hidden })
	return &s
}

// ShownURL is e's URL fit to be printed: a query, which may hold a credential, is ***, and so
// is all but the scheme where the URL is made with env() or file().
func (e *Endpoint) ShownURL() *url.URL {
	u := *e.URL
	if u.User != nil {
		u.User = url.User(hidden)
	}
	if u.RawQuery != "" {
		u.RawQuery = hidden
	}
	if e.drawn["url"] {
		u.Host = hidden
		if len(u.Path) > 1 {
			u.Path, u.RawPath = "/"+hidden, "/"+hidden // String leaves * as it is
		}
	}
	return &u
}

// Hush takes the endpoint's host out of a text where the URL is made with env() or
// file(): errors of the network name it.
func (e *Endpoint) Hush(text string) string {
	if !e.drawn["url"] && !e.drawn["tls"] {
		return text
	}
	var pairs []string
	if e.drawn["url"] {
		pairs = append(pairs, e.URL.Host, hidden, e.URL.Hostname(), hidden, e.RequestURL().Hostname(), hidden)
	}
	if e.drawn["tls.server_name"] && e.TLS.ServerName != "" {
		pairs = append(pairs, e.TLS.ServerName, hidden)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// settings are all of an endpoint's but what it signs with. Of those that are not shown
// the value is hidden.
func (e *Endpoint) settings() []config.Setting {
	all := e.allSettings()
	for i, s := range all {
		if e.drawn.has(s.Name) {
			all[i].Value, all[i].Hidden = hidden, config.NewSecret(s.Value+"\n"+s.Hidden.Reveal())
		}
	}
	return all
}
