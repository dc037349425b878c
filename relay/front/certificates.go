package front

import (
	"crypto/tls"
	"errors"
	"net/http"
	"slices"

	"relay/config"
)

// CertOptions say where certificates are kept.
type CertOptions struct{}

// certificates obtains and renews the certificates of one configuration.
type certificates struct{}

func (f *Front) newCertificates(_ *certificates, _ *Next, _ []config.Front, _ config.ACME) (*certificates, error) {
	return &certificates{}, nil
}

func (c *certificates) apply(*certificates) {}
func (c *certificates) start()              {}
func (c *certificates) stop()               {}

func (c *certificates) answer(http.ResponseWriter, *http.Request) bool { return false }

func (f *Front) tlsConfig(l *listener) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			t := f.tables.Load()
			all := t.byListener[l.key()]
			s := all.find(hostName(hello.ServerName))
			if s == nil && hello.ServerName == "" && len(all) > 0 {
				s = all[0]
			}
			if s == nil || s.cert == nil {
				return nil, errors.New("no certificate for this name")
			}
			if s.c.TLS.MinVersion == "1.3" && !slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
				return nil, errors.New("this host speaks TLS 1.3 only")
			}
			return s.cert, nil
		},
	}
}
