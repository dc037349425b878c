package front

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"relay/config"
)

// authoritySettings are all that an authority depends on.
type authoritySettings struct {
	acme              config.ACME
	httpHost, tlsHost string // of the first listeners of each kind, which the CA is sent to
	httpPort, tlsPort int    // 0 = none
}

// reachable notes where the CA can reach a front.
func (s *authoritySettings) reachable(n *Next, f *config.Front) {
	if host, port := n.at("http", f.HTTP); s.httpPort == 0 {
		s.httpHost, s.httpPort = host, port
	}
	if host, port := n.at("https", f.HTTPS); s.tlsPort == 0 {
		s.tlsHost, s.tlsPort = host, port
	}
}

// at is where the first of the addresses listens, which is open.
func (n *Next) at(kind string, addrs []string) (host string, port int) {
	for _, addr := range addrs {
		at := n.f.Addr(kind, addr)
		for _, l := range n.opened {
			if l.kind == kind && l.addr == addr {
				at = l.ln.Addr()
			}
		}
		if tcp, ok := at.(*net.TCPAddr); ok {
			host, _, _ = net.SplitHostPort(addr)
			return host, tcp.Port
		}
	}
	return "", 0
}

// authority is a CA with the account there, and the certificates that come from it.
type authority struct {
	f        *Front
	settings authoritySettings
	magic    *certmagic.Config // of named hosts
	demand   *certmagic.Config // of patterns, whose hosts are asked about
	issuer   *certmagic.ACMEIssuer
	ask      *http.Client

	ctx    context.Context
	end    context.CancelFunc
	work   sync.WaitGroup
	mu     sync.Mutex
	leaves map[string]context.CancelFunc // of the hosts that are managed
}

// Limits of asking whether a host may have a certificate.
const askTimeout = 2 * time.Second

func (f *Front) newAuthority(s authoritySettings) (*authority, error) {
	storage, err := f.certStorage()
	if err != nil {
		return nil, err
	}
	a := &authority{f: f, settings: s, leaves: map[string]context.CancelFunc{}}
	a.ctx, a.end = context.WithCancel(context.Background())
	a.ask = &http.Client{Timeout: askTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	log := zapTo(f.o.Log)
	a.magic = certmagic.New(f.cache.Load(), certmagic.Config{Storage: storage, Logger: log, OnEvent: a.note})
	a.issuer = certmagic.NewACMEIssuer(a.magic, s.template(log))
	a.magic.Issuers = []certmagic.Issuer{&fenced{a.issuer, storage}}
	a.demand = certmagic.New(f.cache.Load(), certmagic.Config{
		Storage: storage, Logger: log, OnEvent: a.note, Issuers: a.magic.Issuers,
		OnDemand: &certmagic.OnDemandConfig{DecisionFunc: a.decide},
	})
	return a, nil
}

// certStorage opens the storage and the cache, the first time that a CA is needed.
func (f *Front) certStorage() (certmagic.Storage, error) {
	if f.storage != nil {
		return f.storage, nil
	}
	if f.o.Certs.Storage == nil {
		return nil, errors.New("there is no place for certificates")
	}
	storage, err := f.o.Certs.Storage()
	if err != nil {
		return nil, err
	}
	f.storage = storage
	f.cache.Store(f.newCache())
	return storage, nil
}

// newCache makes the cache, whose goroutine renews what is in it.
func (f *Front) newCache() *certmagic.Cache {
	return certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(cert certmagic.Certificate) (*certmagic.Config, error) {
			c := f.tables.Load().certs
			switch {
			case c == nil || c.authority == nil:
				return nil, errNoHost
			case slices.ContainsFunc(cert.Names, func(name string) bool { return slices.Contains(c.names, name) }):
				return c.authority.magic, nil
			}
			return c.authority.demand, nil
		},
		RenewCheckInterval: f.o.Certs.Renew,
		Logger:             zapTo(f.o.Log),
	})
}

// template is what the file says of the CA.
func (s *authoritySettings) template(log zapLogger) certmagic.ACMEIssuer {
	t := certmagic.ACMEIssuer{
		CA: s.acme.CA, Email: s.acme.Email, Agreed: true, Logger: log,
		AltHTTPPort: s.httpPort, AltTLSALPNPort: s.tlsPort, ListenHost: s.httpHost,
		DisableHTTPChallenge:    !slices.Contains(s.acme.Challenges, "http-01") || s.httpPort == 0,
		DisableTLSALPNChallenge: !slices.Contains(s.acme.Challenges, "tls-alpn-01"),
	}
	switch { // certmagic looks whether somebody listens, and knows one host for both
	case t.DisableHTTPChallenge:
		t.ListenHost = s.tlsHost
	case s.httpHost != s.tlsHost:
		t.DisableTLSALPNChallenge = true
	}
	if len(s.acme.Roots) > 0 {
		t.TrustedRoots = x509.NewCertPool()
		t.TrustedRoots.AppendCertsFromPEM(s.acme.Roots)
	}
	if id := s.acme.KeyID.Reveal(); id != "" {
		t.ExternalAccount = &acme.EAB{KeyID: id, MACKey: s.acme.HMAC.Reveal()}
	}
	return t
}

// note logs what happens to certificates.
func (a *authority) note(_ context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	switch event {
	case "cert_obtained":
		text := "certificate obtained"
		if renewal, _ := data["renewal"].(bool); renewal {
			text = "certificate renewed"
		}
		a.f.o.Log.Info().Str("host", host).Msg(text)
	case "cert_failed":
		err, _ := data["error"].(error)
		a.f.o.Log.Warn().Str("host", host).Err(err).Msg("no certificate from the CA; it is asked again")
	}
	return nil
}

// decide asks the file's URL whether a host may have a certificate.
func (a *authority) decide(ctx context.Context, name string) error {
	if config.CheckHost(name) != nil || net.ParseIP(name) != nil || a.settings.acme.Ask == "" {
		return errNoHost
	}
	to, err := url.Parse(a.settings.acme.Ask)
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("domain", name)
	to.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return err
	}
	res, err := a.ask.Do(r)
	if err != nil {
		return fmt.Errorf("ask whether %s may have a certificate: %w", name, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s may have no certificate: the answer to ask is %s", name, strconv.Itoa(res.StatusCode))
	}
	return nil
}

// manage obtains the certificate of a host, unless that is under way. From then on the cache
// renews it.
func (a *authority) manage(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaves[name] != nil || a.ctx.Err() != nil {
		return
	}
	ctx, leave := context.WithCancel(a.ctx)
	a.leaves[name] = leave
	a.work.Go(func() { a.obtain(ctx, name) })
}

func (a *authority) leave(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if leave := a.leaves[name]; leave != nil {
		leave()
		delete(a.leaves, name)
	}
}

// stop ends all work and waits for it.
func (a *authority) stop() {
	a.mu.Lock()
	a.end()
	a.mu.Unlock()
	a.work.Wait()
	a.ask.CloseIdleConnections()
}

// Waits between tries for which certmagic has none of its own, such as when the storage is away.
const (
	firstWait = time.Second
	mostWait  = time.Minute
)

// obtain brings the certificate of a host into the cache, from the storage or the CA. It tries
// until ctx ends: neither an outage of the CA nor one of the storage is a reason to give up.
func (a *authority) obtain(ctx context.Context, name string) {
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, mostWait) {
		err := a.magic.ObtainCertAsync(ctx, name) // nothing, if there is one
		if err == nil && a.cache(ctx, name) {
			return
		}
		if ctx.Err() != nil {
			return
		}
		if repeats, ok := a.f.lines.Allow(name + " certificate"); ok {
			a.f.o.Log.Warn().Str("host", name).Err(err).Int("repeats", repeats).Msg("there is no certificate for the host yet")
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// cache has certmagic load, and from then on renew, what is in the storage.
func (a *authority) cache(ctx context.Context, name string) bool {
	if err := a.magic.ManageAsync(ctx, []string{name}); err != nil {
		return false
	}
	for range 50 { // it loads in a goroutine of its own
		if len(a.f.cache.Load().AllMatchingCertificates(name)) > 0 {
			return true
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
	return false
}

// fenced is the CA for work under a lock of the storage. When the lock is lost, another Relay may
// do the same work, so this one ends.
type fenced struct {
	*certmagic.ACMEIssuer
	storage certmagic.Storage
}

// losable is a storage whose locks can be lost.
type losable interface {
	OnLost(lock string, do func()) (stop func())
}

// Issue implements certmagic.Issuer.
func (i *fenced) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	storage, ok := i.storage.(losable)
	if !ok || len(csr.DNSNames) == 0 {
		return i.ACMEIssuer.Issue(ctx, csr)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := storage.OnLost("issue_cert_"+csr.DNSNames[0], func() { cancel(errLockLost) })
	defer stop()
	cert, err := i.ACMEIssuer.Issue(ctx, csr)
	if err != nil && errors.Is(context.Cause(ctx), errLockLost) {
		err = errLockLost
	}
	return cert, err
}

var errLockLost = errors.New("the lock in the storage was lost, and another Relay may obtain the certificate")
