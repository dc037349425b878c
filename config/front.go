package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Front is one host that this Relay serves.
type Front struct {
	Host     string // in lower case; "*.example.com" for one label, "*" for all others
	Upstream Upstream
	Paths    []FrontPath // the longest one that matches wins
	HTTPS    []string    // host:port
	HTTP     []string    // host:port; with HTTPS, only for redirects and ACME
	TLS      *FrontTLS   // nil: certificates by ACME, where HTTPS is set

	Serve     []string // "admin", "ingest"
	Token     Secret   // of ingest here
	WellKnown []string // "jwks", "webhooks"
	Addresses []string // that webhooks come from, to publish

	Events           FrontEvents
	MaxBody          int64 // bytes of a request; 0 = no limit
	StreamCloseDelay time.Duration
	TrustedProxies   []netip.Prefix
	ConnectTimeout   time.Duration // to the upstream
	ResponseTimeout  time.Duration // from the end of the request to the answer's header
	IdleTimeout      time.Duration // without progress of a body
	AccessLog        bool
	ErrorPage        string // HTML, "" for problem+json
}

// FrontPath sends a part of a host to another upstream.
type FrontPath struct {
	Pattern  string // "/exact" or "/prefix/*"
	Upstream Upstream
}

// FrontEvents says what becomes of Relay-Event headers.
type FrontEvents struct {
	Enabled   bool
	OnRefused string // "fail" or "pass"
	MaxData   int64  // bytes of an answer's body that becomes data
}

// FrontTLS is a certificate from files.
type FrontTLS struct {
	Cert       []byte // PEM, with its chain
	Key        Secret // PEM
	MinVersion string // "1.2" or "1.3"
}

// Upstream is where requests go on. The zero value is none.
type Upstream struct {
	Scheme string // "http", "https", "h2c" or "unix"
	Addr   string // host:port, or the path of a socket
}

// String is the address as the file has it.
func (u Upstream) String() string {
	if u.Scheme == "" {
		return ""
	}
	return u.Scheme + "://" + u.Addr
}

// ACME says how certificates are obtained (RFC 8555).
type ACME struct {
	CA         string // URL of the directory
	Roots      []byte // PEM: authorities of the CA's own server; nil = the system's
	Email      string
	Challenges []string // "http-01", "tls-alpn-01"
	KeyID      Secret   // of external account binding
	HMAC       Secret
	Ask        string // URL that decides on hosts of "*" and "*.…"; "" = none are obtained
}

// DefaultCA is the directory of Let's Encrypt.
const DefaultCA = "https://acme-v02.api.letsencrypt.org/directory"

func defaultACME() ACME {
	return ACME{CA: DefaultCA, Challenges: []string{"http-01", "tls-alpn-01"}}
}

func defaultFront(host string) Front {
	return Front{
		Host: host, HTTPS: []string{":443"}, HTTP: []string{":80"},
		WellKnown: []string{"jwks", "webhooks"},
		Events:    FrontEvents{Enabled: true, OnRefused: "fail", MaxData: 256 * KiB},
		MaxBody:   GiB, StreamCloseDelay: 5 * time.Minute,
		ConnectTimeout: 5 * time.Second, ResponseTimeout: time.Minute, IdleTimeout: time.Minute,
	}
}

// ServesAdmin tells whether Serve lists the admin.
func (f *Front) ServesAdmin() bool { return slices.Contains(f.Serve, "admin") }

// ServesIngest tells whether Serve lists ingest.
func (f *Front) ServesIngest() bool { return slices.Contains(f.Serve, "ingest") }

// ByACME tells whether the front's certificates come from the CA.
func (f *Front) ByACME() bool { return len(f.HTTPS) > 0 && f.TLS == nil }

// IsPattern tells whether the front serves more than one host.
func (f *Front) IsPattern() bool { return strings.HasPrefix(f.Host, "*") }

func (f *Front) upstreams() []Upstream {
	var all []Upstream
	for _, p := range f.Paths {
		all = append(all, p.Upstream)
	}
	return all
}

func (d *decoder) acme(b *Block) {
	a := &d.config.ACME
	*a = defaultACME()
	if b == nil {
		return
	}
	b.String("ca", &a.CA, checkCA)
	a.Roots, _ = b.PEM("ca_roots", false)
	b.String("email", &a.Email, checkEmail)
	b.Strings("challenges", &a.Challenges, OneOf("http-01", "tls-alpn-01"))
	if len(a.Challenges) == 0 {
		b.Invalid("challenges", `write at least one of "http-01" and "tls-alpn-01".`)
	}
	if eab := b.One("eab"); eab != nil {
		eab.Secret("key_id", &a.KeyID, notEmpty)
		eab.Secret("hmac", &a.HMAC, notEmpty)
		if b.file.observer == nil {
			eab.Require("key_id", `key_id = env("EAB_KEY_ID"), as the CA gave it`)
			eab.Require("hmac", `hmac = env("EAB_HMAC"), as the CA gave it`)
		}
		eab.Done()
	}
	if o := b.One("on_demand"); o != nil {
		o.String("ask", &a.Ask, checkAsk)
		if b.file.observer == nil {
			o.Require("ask", `ask = "http://127.0.0.1:3000/may-have-certificate", which answers 200 for a host that may have one`)
		}
		o.Done()
	}
	b.Done()
}

func (d *decoder) fronts(blocks []*Block) {
	kinds := map[string]string{}
	for _, b := range blocks {
		f := defaultFront(strings.ToLower(b.Name))
		if err := checkFrontHost(f.Host); err != nil {
			b.Fail(b.Label(), "Invalid host", err.Error())
		}
		b.front(&f)
		if b.file.observer == nil {
			d.frontFits(b, &f)
			d.bindFront(b, &f, kinds)
		}
		if slices.ContainsFunc(d.config.Fronts, func(g Front) bool { return g.Host == f.Host && b.Name != f.Host }) {
			b.Fail(b.Label(), "Duplicate front", "the host stands already in another front, with other letters. Remove one.")
		}
		d.config.Fronts = append(d.config.Fronts, f)
	}
}

// front reads the attributes of a block.
func (b *Block) front(f *Front) {
	b.upstream(&f.Upstream)
	b.Strings("https", &f.HTTPS, checkAddress)
	b.Strings("http", &f.HTTP, checkAddress)
	b.Strings("serve", &f.Serve, OneOf("admin", "ingest"))
	b.Secret("token", &f.Token, checkToken)
	b.Strings("well_known", &f.WellKnown, OneOf("jwks", "webhooks"))
	b.Strings("addresses", &f.Addresses, checkNetwork)
	b.Size("max_body", &f.MaxBody, 0, TiB)
	b.Duration("stream_close_delay", &f.StreamCloseDelay, 0, Day)
	var proxies []string
	if b.Strings("trusted_proxies", &proxies, checkNetwork) {
		for _, p := range proxies {
			f.TrustedProxies = append(f.TrustedProxies, parseNetwork(p))
		}
	}
	b.Bool("access_log", &f.AccessLog)
	f.ErrorPage = b.page("error_page")
	if t := b.One("timeout"); t != nil {
		t.Duration("connect", &f.ConnectTimeout, time.Millisecond, time.Minute)
		t.Duration("response", &f.ResponseTimeout, time.Millisecond, time.Hour)
		t.Duration("idle", &f.IdleTimeout, time.Second, time.Hour)
		t.Done()
	}
	if e := b.One("events"); e != nil {
		e.Bool("enabled", &f.Events.Enabled)
		e.String("on_refused", &f.Events.OnRefused, OneOf("fail", "pass"))
		e.Size("max_data", &f.Events.MaxData, KiB, 64*MiB)
		e.Done()
	}
	if t := b.One("tls"); t != nil {
		f.TLS = t.frontTLS()
	}
	for _, p := range b.Unique(b.Blocks("path", true)) {
		f.Paths = append(f.Paths, p.frontPath())
	}
	b.Done()
}

func (b *Block) upstream(to *Upstream) {
	var text string
	if b.String("upstream", &text, func(s string) error { _, err := parseUpstream(s); return err }) {
		*to, _ = parseUpstream(text)
	}
}

func (b *Block) frontPath() FrontPath {
	p := FrontPath{Pattern: b.Name}
	if err := checkPattern(b.Name); err != nil && b.file.observer == nil {
		b.Fail(b.Label(), "Invalid path", err.Error())
	}
	b.upstream(&p.Upstream)
	if b.file.observer == nil {
		b.Require("upstream", `upstream = "http://127.0.0.1:3001"`)
	}
	b.Done()
	return p
}

func (b *Block) frontTLS() *FrontTLS {
	t := &FrontTLS{MinVersion: "1.2"}
	cert, hasCert := b.PEM("cert", false)
	key, hasKey := b.PEM("key", true)
	b.String("min_version", &t.MinVersion, OneOf("1.2", "1.3"))
	b.Done()
	if b.file.observer != nil {
		return t
	}
	for _, name := range []string{"cert", "key"} {
		if b.attr(name) == nil {
			b.Require(name, fmt.Sprintf(`%s = "/etc/relay/tls.pem"; cert and key belong together`, name))
		}
	}
	if !hasCert || !hasKey {
		return t
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // its text may quote them
		b.Invalid("cert", "cert and key cannot be used together: write PEM files of a certificate, with its chain, and of its private key without a password.")
		return t
	}
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		b.WarnOnce("cert", string(pair.Leaf.Raw), fmt.Sprintf("the certificate expired on %s: clients will refuse it", end.UTC().Format(time.DateOnly)))
	}
	t.Cert, t.Key = cert, NewSecret(string(key))
	return t
}

// frontFits checks what one attribute needs of others.
func (d *decoder) frontFits(b *Block, f *Front) {
	if f.Upstream.Scheme == "" && len(f.Paths) == 0 && len(f.Serve) == 0 && b.attr("upstream") == nil {
		b.Fail(b.Place(), "Missing upstream", `a front needs upstream = "http://127.0.0.1:3000", path blocks, or serve = ["admin"].`)
	}
	if f.ServesAdmin() && (f.Upstream.Scheme != "" || len(f.Paths) > 0) {
		b.Invalid("serve", "the admin has all paths of its host. Give it a host of its own, without upstream and path.")
	}
	if f.ServesAdmin() && d.config.Admin.Token.Reveal() == "" && len(d.config.Admin.Access) == 0 {
		b.Fail(b.At("serve"), "Token required", `other machines can reach this host, so write admin { token = env("…") }.`)
	}
	if f.ServesIngest() && f.Token.Reveal() == "" && b.attr("token") == nil {
		b.Fail(b.At("serve"), "Token required", `other machines can reach this host, so ingest here needs token = env("…").`)
	}
	if len(f.HTTPS)+len(f.HTTP) == 0 {
		b.Invalid("https", "the front listens nowhere. Write an address into https or http.")
	}
	if f.TLS != nil && len(f.HTTPS) == 0 {
		b.Fail(b.At("https"), "Unused tls", "the front has certificates and no https address. Write one, or remove the tls block.")
	}
	if f.TLS != nil || b.hasBlock("tls") || len(f.HTTPS) == 0 {
		return
	}
	_, err := netip.ParseAddr(f.Host)
	switch a := d.config.ACME; {
	case err == nil:
		b.Fail(b.Label(), "No certificate", "certificates are obtained for names, not for addresses. Write tls { cert = …  key = … }.")
	case f.IsPattern() && a.Ask == "":
		b.Fail(b.Label(), "No certificate", `certificates for hosts of a pattern are obtained when they are asked for: write acme { on_demand { ask = "http://…" } } to decide which hosts may have one, or tls { cert = …  key = … }.`)
	case len(f.HTTP) == 0 && !slices.Contains(a.Challenges, "tls-alpn-01"):
		b.Fail(b.At("http"), "No challenge", `the challenge "http-01" needs an address in http. Write one, or acme { challenges = ["tls-alpn-01"] }.`)
	}
}

func (b *Block) hasBlock(kind string) bool {
	for _, c := range b.blocks {
		if c.Type == kind {
			return true
		}
	}
	return false
}

// bindFront reports addresses that something else has. Fronts share theirs.
func (d *decoder) bindFront(b *Block, f *Front, kinds map[string]string) {
	for _, kind := range []string{"https", "http"} {
		addrs := f.HTTPS
		if kind == "http" {
			addrs = f.HTTP
		}
		for _, addr := range addrs {
			key := httpKey(addr)
			if strings.HasSuffix(key, ":0") {
				continue
			}
			switch kinds[key] {
			case "":
				kinds[key] = kind
				d.bind("front "+kind, key, b.At(kind))
			case kind:
			default:
				b.Fail(b.At(kind), "Duplicate listener", "an address is either of https or of http, over all fronts.")
			}
		}
	}
}

// page reads an HTML file, which is watched like the configuration.
func (b *Block) page(name string) string {
	var path string
	if !b.String(name, &path, checkFile) {
		return ""
	}
	data, _, err := b.file.reads.file(path, path, maxFile)
	if err != nil {
		if b.Draws(name) {
			err = errors.New("the file that env() or file() names cannot be read")
		}
		b.Invalid(name, err.Error())
		return ""
	}
	return string(data)
}

func checkFile(s string) error {
	if s == "" || strings.ContainsAny(s, "\x00\r\n") {
		return errors.New("write the path of a file")
	}
	return nil
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	return nil
}

func checkFrontHost(host string) error {
	if host == "*" {
		return nil
	}
	name, pattern := strings.CutPrefix(host, "*.")
	if err := CheckHost(name); err != nil {
		return fmt.Errorf(`write a host name like "hooks.example.com", "*.example.com" or "*", without scheme and port: %w`, err)
	}
	if _, err := netip.ParseAddr(name); err == nil && pattern {
		return errors.New("a pattern is of names, not of addresses")
	}
	return nil
}

func checkPattern(s string) error {
	body := strings.TrimSuffix(s, "*")
	switch {
	case !strings.HasPrefix(s, "/"), strings.ContainsAny(body, "*?#%\\\x00"), strings.Contains(body, "//"), strings.Contains(body, "/../"), strings.Contains(body, "/./"):
		return errors.New(`write a path like "/healthz", or "/api/*" for all below it`)
	case body != s && !strings.HasSuffix(body, "/"):
		return errors.New(`the star stands after a slash: "/api/*"`)
	}
	return nil
}

var errUpstream = errors.New(`write "http://127.0.0.1:3000", "https://…", "h2c://…" or "unix:///run/app.sock", without a path`)

func parseUpstream(s string) (Upstream, error) {
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Upstream{}, errUpstream
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return Upstream{}, errors.New("write the whole path of the socket: unix:///run/app.sock")
		}
		return Upstream{"unix", u.Path}, checkSocket(u.Path)
	case "http", "https", "h2c":
	default:
		return Upstream{}, errUpstream
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
		if port == "" {
			port = "80"
		}
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	if u.Path != "" && u.Path != "/" || u.Hostname() == "" || port == "0" || checkAddress(addr) != nil {
		return Upstream{}, errUpstream
	}
	return Upstream{u.Scheme, addr}, nil
}

// checkNetwork accepts an address or a range of addresses.
func checkNetwork(s string) error {
	if p := parseNetwork(s); !p.IsValid() || p != p.Masked() {
		return errors.New(`write an IP address or a range like "10.1.0.0/16"`)
	}
	return nil
}

func parseNetwork(s string) netip.Prefix {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
	}
	p, _ := netip.ParsePrefix(s)
	return p
}

// checkCA accepts the URL of a directory. Without TLS a CA may only be on this machine.
func checkCA(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.User != nil || u.Hostname() == "" || CheckHost(u.Hostname()) != nil:
		return errors.New("write the URL of the CA's directory, like " + DefaultCA)
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(net.JoinHostPort(u.Hostname(), "0")):
		return nil
	}
	return errors.New("the URL must begin with https://")
}

func checkEmail(s string) error {
	name, host, ok := strings.Cut(s, "@")
	if s != "" && (!ok || name == "" || CheckHost(host) != nil || strings.ContainsAny(s, " \t\r\n,;<>")) {
		return errors.New("write one address, like ops@example.com")
	}
	return nil
}

func checkAsk(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("write the URL to ask, http:// or https://; Relay adds ?domain=HOST")
	}
	return nil
}
