package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"relay/config"
)

const (
	frontPatience = 3 * time.Second     // for a connection
	soon          = 14 * 24 * time.Hour // in which a certificate should be renewed
)

// ExamineFronts says which upstreams of fronts cannot be reached, and which certificates do not fit. running tells
// whether a Relay has the listeners: then the certificates that it shows are looked at, too.
func ExamineFronts(ctx context.Context, c config.Config, running bool) []Finding {
	var all []Finding
	seen := map[config.Upstream]bool{}
	for i := range c.Fronts {
		f := &c.Fronts[i]
		upstreams := []config.Upstream{f.Upstream}
		for _, p := range f.Paths {
			upstreams = append(upstreams, p.Upstream)
		}
		for _, u := range upstreams {
			if u == (config.Upstream{}) || seen[u] {
				continue
			}
			seen[u] = true
			if err := reach(ctx, u); err != nil {
				all = append(all, Finding{"warn", fmt.Sprintf("front %s: its upstream %s cannot be reached: %v", f.Host, u, err), "start the app, or mend upstream: until then requests get 502"})
			}
		}
		all = append(all, examineCertificate(ctx, f, running)...)
	}
	if len(all) == 0 && len(c.Fronts) > 0 {
		all = append(all, Finding{"ok", fmt.Sprintf("fronts: %d; their upstreams can be reached", len(c.Fronts)), ""})
	}
	return hush(c, all)
}

// reach connects to an upstream, and closes.
func reach(ctx context.Context, u config.Upstream) error {
	ctx, cancel := context.WithTimeout(ctx, frontPatience)
	defer cancel()
	var conn net.Conn
	var err error
	switch u.Scheme {
	case "unix":
		conn, err = new(net.Dialer).DialContext(ctx, "unix", u.Addr)
	case "https":
		conn, err = new(tls.Dialer).DialContext(ctx, "tcp", u.Addr)
	default:
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", u.Addr)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}

// examineCertificate looks at the certificate of the file, or at that of a running Relay.
func examineCertificate(ctx context.Context, f *config.Front, running bool) []Finding {
	var leaf *x509.Certificate
	var err error
	switch {
	case f.TLS != nil:
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(f.TLS.Cert, []byte(f.TLS.Key.Reveal())); err == nil {
			leaf = pair.Leaf
		}
	case !running || len(f.HTTPS) == 0 || strings.HasPrefix(f.Host, "*"): // asking for some name would have one obtained
		return nil
	default:
		leaf, err = shownCertificate(ctx, f)
	}
	if err != nil {
		return []Finding{{"warn", fmt.Sprintf("front %s shows no certificate: %v", f.Host, err), "see the log for why there is none; the CA must reach this host by its name"}}
	}
	now, until := time.Now(), leaf.NotAfter.UTC().Format(time.RFC3339)
	name := f.Host
	if rest, wild := strings.CutPrefix(name, "*."); wild {
		name = "any." + rest
	}
	switch {
	case now.After(leaf.NotAfter):
		return []Finding{{"refuse", fmt.Sprintf("front %s: its certificate ended at %s", f.Host, until), "renew it: clients refuse the connection"}}
	case now.Before(leaf.NotBefore):
		return []Finding{{"refuse", fmt.Sprintf("front %s: its certificate begins at %s", f.Host, leaf.NotBefore.UTC().Format(time.RFC3339)), "look at this machine's clock, or take the certificate from before"}}
	case name != "*" && leaf.VerifyHostname(name) != nil:
		return []Finding{{"refuse", fmt.Sprintf("front %s: its certificate is not for this host", f.Host), "get one for it: clients refuse the connection"}}
	case leaf.NotAfter.Sub(now) < soon:
		return []Finding{{"warn", fmt.Sprintf("front %s: its certificate ends at %s", f.Host, until), "renew it"}}
	}
	return nil
}

// shownCertificate is what a running Relay shows for the host.
func shownCertificate(ctx context.Context, f *config.Front) (*x509.Certificate, error) {
	host, port, err := net.SplitHostPort(f.HTTPS[0])
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	ctx, cancel := context.WithTimeout(ctx, frontPatience)
	defer cancel()
	// What is wrong with the certificate is said by examineCertificate.
	dialer := tls.Dialer{Config: &tls.Config{ServerName: f.Host, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(cmp.Or(host, "localhost"), port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if chain := conn.(*tls.Conn).ConnectionState().PeerCertificates; len(chain) > 0 {
		return chain[0], nil
	}
	return nil, errors.New("none was sent")
}
