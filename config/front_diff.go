package config

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settings are those of a front, with names like "front.upstream hooks.example.com".
func (f *Front) settings() []Setting {
	var all []Setting
	add := func(name, value string) {
		if value != "" {
			all = append(all, Setting{Name: "front." + name + " " + f.Host, Value: value})
		}
	}
	add("upstream", f.Upstream.String())
	for _, p := range f.Paths {
		all = append(all, Setting{Name: "front.path.upstream " + f.Host + p.Pattern, Value: p.Upstream.String()})
	}
	add("https", strings.Join(f.HTTPS, " "))
	add("http", strings.Join(f.HTTP, " "))
	add("serve", strings.Join(f.Serve, " "))
	if f.Token.Reveal() != "" {
		all = append(all, Setting{Name: "front.token " + f.Host, Value: "set", Hidden: f.Token})
	}
	add("well_known", strings.Join(f.WellKnown, " "))
	add("addresses", strings.Join(f.Addresses, " "))
	add("max_body", FormatSize(f.MaxBody))
	add("stream_close_delay", FormatDuration(f.StreamCloseDelay))
	var proxies []string
	for _, p := range f.TrustedProxies {
		proxies = append(proxies, p.String())
	}
	add("trusted_proxies", strings.Join(proxies, " "))
	add("access_log", strconv.FormatBool(f.AccessLog))
	if f.ErrorPage != "" {
		all = append(all, Setting{Name: "front.error_page " + f.Host, Value: "set", Hidden: NewSecret(f.ErrorPage)})
	}
	add("timeout.connect", FormatDuration(f.ConnectTimeout))
	add("timeout.response", FormatDuration(f.ResponseTimeout))
	add("timeout.idle", FormatDuration(f.IdleTimeout))
	add("events.enabled", strconv.FormatBool(f.Events.Enabled))
	add("events.on_refused", f.Events.OnRefused)
	add("events.max_data", FormatSize(f.Events.MaxData))
	if t := f.TLS; t != nil {
		all = append(all, Setting{Name: "front.tls.cert " + f.Host, Value: t.shown(), Hidden: t.Key})
		add("tls.min_version", t.MinVersion)
	}
	return all
}

// shown names the certificate, which is public.
func (t *FrontTLS) shown() string {
	pair, err := tls.X509KeyPair(t.Cert, []byte(t.Key.Reveal()))
	if err != nil {
		return "" // of a file that is refused
	}
	sum := sha256.Sum256(pair.Leaf.Raw)
	return fmt.Sprintf("until %s, sha256 %s", pair.Leaf.NotAfter.UTC().Format(time.DateOnly), hex.EncodeToString(sum[:6]))
}

func (a ACME) settings() []Setting {
	all := []Setting{{Name: "acme.ca", Value: a.CA}, {Name: "acme.challenges", Value: strings.Join(a.Challenges, " ")}}
	add := func(name, value string, hidden Secret) {
		if value != "" {
			all = append(all, Setting{Name: "acme." + name, Value: value, Hidden: hidden})
		}
	}
	if len(a.Roots) > 0 {
		add("ca_roots", "set", NewSecret(string(a.Roots)))
	}
	add("email", a.Email, Secret{})
	if a.KeyID.Reveal() != "" {
		add("eab", "set", NewSecret(a.KeyID.Reveal()+"\n"+a.HMAC.Reveal()))
	}
	add("on_demand.ask", a.Ask, Secret{})
	return all
}
