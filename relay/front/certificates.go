package front

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"

	"relay/config"
)

// Storage keeps certificates, keys and accounts.
type Storage = certmagic.Storage

// CertOptions say where certificates are kept. Storage is needed only by fronts that obtain
// theirs by ACME.
type CertOptions struct {
	Storage func() (Storage, error) // opened once
	Renew   time.Duration           // between looks for what is due; 0 = 10 min
}

// certificates are those that one configuration needs from a CA.
type certificates struct {
	f         *Front
	names     []string   // hosts, obtained before anybody asks
	authority *authority // nil if none are needed
}

func (f *Front) newCertificates(old *certificates, n *Next, fronts []config.Front, acme config.ACME) (*certificates, error) {
	c := &certificates{f: f}
	s := authoritySettings{acme: acme}
	needed := false
	for i := range fronts {
		front := &fronts[i]
		if !front.ByACME() {
			continue
		}
		needed = true
		if !front.IsPattern() {
			c.names = append(c.names, front.Host)
		}
		s.reachable(n, front)
	}
	if !needed {
		return c, nil
	}
	if old != nil && old.authority != nil && reflect.DeepEqual(old.authority.settings, s) {
		c.authority = old.authority
		return c, nil
	}
	var err error
	if c.authority, err = f.newAuthority(s); err != nil {
		return nil, fmt.Errorf("open certificates: %w", err)
	}
	return c, nil
}

// apply ends what the old configuration needed and this one does not.
func (c *certificates) apply(old *certificates) {
	if old == nil || old.authority == nil {
		return
	}
	var gone []certmagic.SubjectIssuer
	for _, name := range old.names {
		if old.authority != c.authority || !slices.Contains(c.names, name) {
			old.authority.leave(name)
			gone = append(gone, certmagic.SubjectIssuer{Subject: name})
		}
	}
	c.f.cache.Load().RemoveManaged(gone)
	if old.authority != c.authority {
		old.authority.stop()
	}
}

// start obtains and renews, until stop.
func (c *certificates) start() {
	if c.authority == nil {
		return
	}
	for _, name := range c.names {
		c.authority.manage(name)
	}
}

func (c *certificates) stop() {
	if c != nil && c.authority != nil {
		c.authority.stop()
	}
}

// answer answers the CA's HTTP challenge (RFC 8555, section 8.3). It returns false for all other
// requests.
func (c *certificates) answer(w http.ResponseWriter, r *http.Request) bool {
	return c != nil && c.authority != nil && certmagic.LooksLikeHTTPChallenge(r) && c.authority.issuer.HandleHTTPChallenge(w, r)
}

var (
	errNoHost   = errors.New("no front serves this host here")
	errOnlyTLS3 = errors.New("this host speaks TLS 1.3 only")
)

// tlsConfig chooses the certificate by the name that the client asks for.
func (f *Front) tlsConfig(l *listener) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			t := f.tables.Load()
			if a := t.certs.authority; a != nil && isChallenge(hello) {
				return a.magic.GetCertificate(hello)
			}
			all := t.byListener[l.key()]
			s := all.find(hostName(hello.ServerName))
			if s == nil && hello.ServerName == "" && len(all) > 0 {
				s = all[0]
			}
			if s == nil {
				return nil, errNoHost
			}
			return s.certificate(t.certs.authority, hello)
		},
	}
}

// isChallenge tells whether the CA asks for its TLS-ALPN challenge (RFC 8737).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

func (s *site) certificate(a *authority, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	switch {
	case s.cert != nil && s.c.TLS.MinVersion == "1.3" && !slices.Contains(hello.SupportedVersions, tls.VersionTLS13):
		return nil, errOnlyTLS3
	case s.cert != nil:
		return s.cert, nil
	case a == nil:
		return nil, errNoHost
	case s.c.IsPattern():
		return a.demand.GetCertificate(hello)
	case hello.ServerName == "":
		named := *hello
		named.ServerName = s.c.Host
		return a.magic.GetCertificate(&named)
	}
	return a.magic.GetCertificate(hello)
}

// Certificate is what metrics and alerts need to know of one.
type Certificate struct {
	Host    string
	Expires time.Time // zero: there is none yet
}

// Certificates are those of all fronts with TLS; of patterns only what is in files.
func (f *Front) Certificates() []Certificate {
	t := f.tables.Load()
	var all []Certificate
	for _, s := range t.sites {
		c := Certificate{Host: s.c.Host}
		switch {
		case s.cert != nil:
			c.Expires = s.cert.Leaf.NotAfter
		case !s.c.ByACME() || s.c.IsPattern():
			continue
		default:
			for _, held := range f.cache.Load().AllMatchingCertificates(s.c.Host) {
				if held.Leaf != nil && held.Leaf.NotAfter.After(c.Expires) {
					c.Expires = held.Leaf.NotAfter
				}
			}
		}
		all = append(all, c)
	}
	return all
}
