package policy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relay/config"
)

// tlsBlock holds tls blocks. The files that they name are read during decoding, so that an
// unusable one is an error of the configuration.
type tlsBlock struct {
	TLS
	last *config.Block // the one that was read last; nil if the policy or endpoint has none
}

func (t *tlsBlock) read(b *config.Block) {
	if ca, ok := b.PEM("ca", false); ok {
		t.Roots = x509.NewCertPool()
		if !t.Roots.AppendCertsFromPEM(ca) {
			b.Invalid("ca", "there is no certificate in it. It needs a part that begins with -----BEGIN CERTIFICATE-----.")
		}
		t.CA = fingerprint(ca)
	}
	cert, hasCert := b.PEM("cert", false)
	key, hasKey := b.PEM("key", true)
	switch {
	case hasCert && hasKey:
		t.readPair(b, cert, key)
	case hasCert:
		b.Require("key", `key = "….pem", too: cert and key belong together`)
	case hasKey:
		b.Require("cert", `cert = "….pem", too: cert and key belong together`)
	}
	version := t.Version()
	if b.String("min_version", &version, config.OneOf("1.2", "1.3")) {
		t.MinVersion = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[version]
	}
	b.String("server_name", &t.ServerName, func(s string) error {
		if config.CheckHost(s) != nil {
			return errors.New(`write a host name, like "hooks.example.com"`)
		}
		return nil
	})
	b.Done()
}

func (t *tlsBlock) readPair(b *config.Block, cert, key []byte) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // its text may quote them
		b.Invalid("cert", "cert and key cannot be used together. "+whyNoPair(cert, key))
		return
	}
	t.Certificate = &pair
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		b.WarnOnce("cert", string(pair.Leaf.Raw), fmt.Sprintf("the client certificate %q expired on %s: receivers will turn it away", b.At("cert").Quote(pair.Leaf.Subject.String()), end.UTC().Format(time.DateOnly)))
	}
}

// whyNoPair says what is wrong with a client certificate, without quoting it.
func whyNoPair(cert, key []byte) string {
	certs, keys := pemTypes(cert), pemTypes(key)
	isKey := func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }
	switch {
	case !slices.Contains(certs, "CERTIFICATE"):
		return "cert needs a part that begins with -----BEGIN CERTIFICATE-----."
	case slices.Contains(keys, "ENCRYPTED PRIVATE KEY"):
		return "key has a password: write it without one, like openssl pkey -in key.pem -out plain.pem."
	case !slices.ContainsFunc(keys, isKey):
		return "key needs a part that begins with -----BEGIN PRIVATE KEY-----."
	}
	return "key is not the private key of the certificate, or one of them is damaged."
}

func pemTypes(data []byte) (types []string) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		types = append(types, block.Type)
	}
	return types
}

// spell sets the values that depend on others.
func (t *tlsBlock) spell() TLS {
	t.Digest = fingerprint(fmt.Appendf(nil, "%s\n%s\n%x\n%s", t.CA, t.Client(), t.MinVersion, t.ServerName))
	return t.TLS
}

// Version is MinVersion as the file writes it, "" for an http:// URL.
func (t *TLS) Version() string {
	return map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}[t.MinVersion]
}

// Client names the client certificate, "" for none. It needs no part of the key, because a
// certificate has one key.
func (t *TLS) Client() string {
	if t.Certificate == nil {
		return ""
	}
	leaf, chain := t.Certificate.Leaf, []byte(nil)
	for _, der := range t.Certificate.Certificate {
		chain = append(chain, der...)
	}
	return fmt.Sprintf("%q until %s, sha256 %s", leaf.Subject, leaf.NotAfter.UTC().Format(time.DateOnly), fingerprint(chain))
}

// fingerprint is a short hash of public data.
func fingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:6])
}
