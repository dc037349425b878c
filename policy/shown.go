package policy

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"relay/config"
)

// Hidden replaces values that are not shown.
const Hidden = config.Hidden

// drawn names settings, like "retry.schedule" and its block "retry", of which env() or file()
// gave a part. They are neither shown nor logged, because results of env() and file() may be
// secret wherever they are used.
type drawn map[string]bool

// with adds the drawn attributes of a block.
func (d drawn) with(b *config.Block) drawn {
	// Most files draw only secrets, which are never shown anyway.
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

// has tells whether a setting, as Diff names it, uses env() or file().
func (d drawn) has(setting string) bool {
	block, _, _ := strings.Cut(setting, ".")
	switch block {
	case "retry", "rate_limit", "batch", "labels": // one line of several attributes, or several of one
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

// Hides reports whether a setting of the file is not shown: a name like "concurrency",
// "timeout.total" or, for any of its attributes, "breaker".
func (e *Endpoint) Hides(setting string) bool { return e.drawn.has(setting) }

// Show is the value of a setting, masked if it must not be shown.
func (e *Endpoint) Show(setting, value string) string {
	if e.Hides(setting) {
		return Hidden
	}
	return value
}

// Shown is e without the values that must not be shown, which are zero or "***". Secrets, headers
// and bodies are unchanged. It is for display; nothing is sent with it.
func (e *Endpoint) Shown() *Endpoint {
	s := *e
	s.URL = e.ShownURL()
	clean := func(setting string, drop func()) {
		if e.Hides(setting) {
			drop()
		}
	}
	clean("description", func() { s.Description = Hidden })
	clean("labels", func() { s.Labels = nil })
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
	clean("origin", func() { s.Origin = Hidden })
	return &s
}

// ShownURL is e's URL for display: its query, which may hold a credential, is ***; if env() or
// file() gave a part of the URL, all but the scheme is.
func (e *Endpoint) ShownURL() *url.URL {
	u := *e.URL
	if u.User != nil {
		u.User = url.User(Hidden)
	}
	if u.RawQuery != "" {
		u.RawQuery = Hidden
	}
	if e.drawn["url"] {
		u.Host = Hidden
		if len(u.Path) > 1 {
			u.Path, u.RawPath = "/"+Hidden, "/"+Hidden // String leaves * as it is
		}
	}
	return &u
}

// Hush removes the endpoint's host from a text if env() or file() gave a part of the URL, because
// network errors name the host.
func (e *Endpoint) Hush(text string) string {
	if !e.drawn["url"] && !e.drawn["tls"] {
		return text
	}
	var pairs []string
	if e.drawn["url"] {
		pairs = append(pairs, e.URL.Host, Hidden, e.URL.Hostname(), Hidden, e.RequestURL().Hostname(), Hidden)
	}
	if e.drawn["tls.server_name"] && e.TLS.ServerName != "" {
		pairs = append(pairs, e.TLS.ServerName, Hidden)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// settings are an endpoint's settings without its signatures. Values that must not be shown are
// Hidden.
func (e *Endpoint) settings() []config.Setting {
	all := e.allSettings()
	for i, s := range all {
		if e.drawn.has(s.Name) {
			all[i].Value, all[i].Hidden = Hidden, config.NewSecret(s.Value+"\n"+s.Hidden.Reveal())
		}
	}
	return all
}
