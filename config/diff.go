package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Setting is one setting of a file, for comparing and printing.
type Setting struct {
	Name  string
	Value string // as one would write it; of a secret what may be shown
	// Hidden is compared and never shown.
	Hidden Secret
}

// Change is a setting that differs between two files.
type Change struct {
	Name string `json:"name"`
	Old  string `json:"old"` // "" where it was not there
	New  string `json:"new"` // "" where it is no more
	// Unseen is set if a hidden value differs.
	Unseen bool `json:"unseen,omitempty"`
}

// Compare lists the differences between two lists of settings, with unique names in each: those
// of the new list in its order, then the removed ones.
func Compare(old, new []Setting) []Change {
	var changes []Change
	find := func(in []Setting, name string) (Setting, bool) {
		i := slices.IndexFunc(in, func(s Setting) bool { return s.Name == name })
		if i < 0 {
			return Setting{}, false
		}
		return in[i], true
	}
	for _, n := range new {
		o, _ := find(old, n.Name)
		if o.Value != n.Value {
			changes = append(changes, Change{Name: n.Name, Old: o.Value, New: n.Value})
		} else if !o.Hidden.Equal(n.Hidden) {
			changes = append(changes, Change{Name: n.Name, Old: o.Value, New: n.Value, Unseen: true})
		}
	}
	for _, o := range old {
		if _, ok := find(new, o.Name); !ok {
			changes = append(changes, Change{Name: o.Name, Old: o.Value})
		}
	}
	return changes
}

// Diff lists the differences in the blocks of this package, with names like "ingest.max_body" and
// without secrets.
func Diff(old, new Config) []Change { return Compare(old.settings(), new.settings()) }

// NeedRestart names the blocks that differ and cannot change while a Relay runs, because their
// files or sockets are open. A reload applies the others.
func NeedRestart(old, new Config) []string {
	blocks := []string{}
	for _, block := range []struct {
		name     string
		old, new any
	}{
		{"ingest", old.Ingest, new.Ingest},
		{"outbox", old.Outbox, new.Outbox},
		{"admin", old.Admin.fixed(), new.Admin.fixed()},
		{"log", old.Log, new.Log},
		{"trace", old.Trace, new.Trace},
		{"secrets_key", old.SecretsKey, new.SecretsKey},
	} {
		if !reflect.DeepEqual(block.old, block.new) {
			blocks = append(blocks, block.name)
		}
	}
	return blocks
}

// fixed is what only a restart replaces.
func (a Admin) fixed() Admin {
	a.Access, a.LinkKey, a.Page = nil, nil, Page{}
	return a
}

// settings are all settings. Values that must not be shown are hidden.
func (c Config) settings() []Setting {
	all := c.allSettings()
	for i, s := range all {
		if c.hides(s.Name) && s.Value != "set" {
			all[i].Value, all[i].Hidden = Hidden, NewSecret(s.Value+"\n"+s.Hidden.Reveal())
		}
	}
	return all
}

func (c Config) allSettings() []Setting {
	var all []Setting
	add := func(name, value string) {
		if value != "" {
			all = append(all, Setting{Name: name, Value: value})
		}
	}
	secret := func(name string, s Secret) {
		if s.Reveal() != "" {
			all = append(all, Setting{Name: name, Value: "set", Hidden: s})
		}
	}
	for i, k := range c.SecretsKey {
		secret(fmt.Sprintf("secrets_key %d", i+1), k)
	}
	for _, u := range c.Ingest.Unix {
		add("ingest.unix "+u.Path, fmt.Sprintf("mode %04o", u.Mode))
	}
	for _, h := range c.Ingest.HTTP {
		add("ingest.http "+h.Addr, "listens")
		add("ingest.http "+h.Addr+" hosts", strings.Join(h.Hosts, " "))
		secret("ingest.http "+h.Addr+" token", h.Token)
	}
	add("ingest.max_body", FormatSize(c.Ingest.MaxBody))
	add("ingest.strict", strconv.FormatBool(c.Ingest.Strict))
	add("ingest.index", strings.Join(c.Ingest.Index, " "))

	o := c.Outbox
	add("outbox", o.Engine)
	add("outbox.durability", o.Durability)
	add("outbox.max_size", FormatSize(o.MaxSize))
	if o.Engine == "redis" {
		all = append(all, o.Redis.settings()...)
	} else {
		add("outbox.path", o.Path)
	}

	add("admin.http", c.Admin.HTTP)
	add("admin.unix", c.Admin.Unix)
	add("admin.hosts", strings.Join(c.Admin.Hosts, " "))
	secret("admin.token", c.Admin.Token)
	for _, x := range c.Admin.Access {
		name := "admin.access " + x.Name
		secret(name+" token", x.Token)
		add(name+" may", strings.Join(x.May, " "))
		add(name+" tenants", strings.Join(x.Tenants, " "))
		add(name+" endpoints", strings.Join(x.Endpoints, " "))
	}
	for i, k := range c.Admin.LinkKey {
		secret(fmt.Sprintf("admin.link_key %d", i+1), k)
	}
	all = append(all, c.Admin.Page.settings()...)
	add("retention.delivered", FormatDuration(c.Retention.Delivered))
	add("retention.failed", FormatDuration(c.Retention.Failed))
	add("log.level", c.Log.Level)
	add("log.format", c.Log.Format)
	add("metrics.per_endpoint", c.Metrics.PerEndpoint)
	all = append(all, c.Trace.settings()...)
	if len(c.Fronts) > 0 {
		all = append(all, c.ACME.settings()...)
	}
	for i := range c.Fronts {
		all = append(all, c.Fronts[i].settings()...)
	}
	return all
}

// shownPEM is a path; content is not shown.
func shownPEM(s Secret) string {
	if isPEM(s.Reveal()) {
		return "PEM"
	}
	return s.Reveal()
}

func (r Redis) settings() []Setting {
	var all []Setting
	add := func(name, value string, hidden Secret) {
		if value != "" {
			all = append(all, Setting{Name: "outbox." + name, Value: value, Hidden: hidden})
		}
	}
	set := func(s Secret) string {
		if s.Reveal() == "" {
			return ""
		}
		return "set"
	}
	add("server", r.Where(), r.URL)
	add("username", r.Username, Secret{})
	add("password", set(r.Password), r.Password)
	if r.Database >= 0 {
		add("database", strconv.Itoa(r.Database), Secret{})
	}
	if s := r.Sentinel; s != nil {
		add("sentinel.username", s.Username, Secret{})
		add("sentinel.password", set(s.Password), s.Password)
	}
	if t := r.TLS; t != nil {
		add("tls", "on", Secret{})
		add("tls.ca", shownPEM(t.CA), t.CA)
		add("tls.cert", shownPEM(t.Cert), t.Cert)
		add("tls.key", shownPEM(t.Key), t.Key)
		add("tls.server_name", t.ServerName, Secret{})
	}
	add("namespace", r.Namespace, Secret{})
	add("shards", strconv.Itoa(r.Shards), Secret{})
	add("spool", r.Spool, Secret{})
	add("replicated.replicas", strconv.Itoa(r.Replicas), Secret{})
	add("replicated.timeout", FormatDuration(r.Timeout), Secret{})
	return all
}
