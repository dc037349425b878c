package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"relay/config"
)

// writePEM makes files in the current folder: a CA, a client certificate with its key,
// another key, one that is open to all, a certificate that has expired, and files that are
// something else.
func writePEM(t testing.TB) {
	t.Helper()
	write := func(name string, mode os.FileMode, kind string, der []byte) {
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
			t.Fatal(err)
		}
	}
	make := func(name string, end time.Time) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
			NotBefore: end.AddDate(-10, 0, 0), NotAfter: end,
			IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", 0o644, "CERTIFICATE", der)
		write(name+"-key.pem", 0o600, "PRIVATE KEY", private)
		return private
	}
	end := time.Date(2199, 1, 2, 0, 0, 0, 0, time.UTC)
	make("ca", end)
	make("other", end)
	private := make("client", end)
	make("expired", time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC))
	write("open-key.pem", 0o644, "PRIVATE KEY", private)
	if err := os.WriteFile("text.pem", []byte("canary: this is no PEM\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("large.pem", []byte(strings.Repeat("canary\n", 200_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("folder.pem", 0o700); err != nil {
		t.Fatal(err)
	}
}

// What PEM files hold is part of the configuration: a reload sees new content, and an
// endpoint with it is another one. The key leaves no trace in what may be shown.
func TestPEMFilesAreRead(t *testing.T) {
	t.Chdir(t.TempDir())
	writePEM(t)
	decode := func() (*config.File, *Endpoint) {
		t.Helper()
		f, err := config.Parse("relay.hcl", []byte(`endpoint "a" {
  url  = "https://example.com/"
  sign = ["none"]
  tls {
    ca   = "ca.pem"
    cert = "client.pem"
    key  = "client-key.pem"
  }
}`), testEnv)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		return f, p.Endpoints[0]
	}
	file, first := decode()
	if got := strings.Join(file.Reads(), " "); got != "ca.pem client-key.pem client.pem" {
		t.Errorf("reads %s", got)
	}
	if first.TLS.Roots == nil || first.TLS.Certificate == nil || len(file.Warnings) > 0 {
		t.Errorf("tls is %+v, warnings %q", first.TLS, file.Warnings)
	}
	again, same := decode()
	if again.Digest() != file.Digest() || !same.Equal(first) || same.TLS.Digest != first.TLS.Digest {
		t.Error("the same files are another configuration")
	}
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename("other.pem", "ca.pem")
	file, ca := decode()
	if file.Digest() == again.Digest() || ca.Equal(first) || ca.TLS.Digest == first.TLS.Digest || ca.Hash() == first.Hash() {
		t.Error("another ca makes no difference")
	}
	rename("expired.pem", "client.pem")
	rename("expired-key.pem", "client-key.pem")
	file, client := decode()
	if file.Digest() == again.Digest() || client.Equal(ca) || client.TLS.Digest == ca.TLS.Digest || client.Hash() == ca.Hash() {
		t.Error("another client certificate makes no difference")
	}
	if len(file.Warnings) != 1 || !strings.Contains(file.Warnings[0], "relay.hcl:6,12-24: ") || !strings.Contains(file.Warnings[0], "expired on 2020-01-02") {
		t.Errorf("warnings %q", file.Warnings)
	}

	if err := os.Remove("ca.pem"); err != nil {
		t.Fatal(err)
	}
	f, err := config.Parse("relay.hcl", []byte(`endpoint "a" {
  tls { ca = "ca.pem" }
}`), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(f); err == nil || strings.Join(f.Reads(), " ") != "ca.pem" {
		t.Errorf("a file that is missing and may come: %v, reads %q", err, f.Reads())
	}
}

// ca, cert and key take the content of PEM files, too, and then nothing of it is shown.
func TestTLSContent(t *testing.T) {
	t.Chdir(t.TempDir())
	writePEM(t)
	pemOf := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	env := func(name string) (string, bool) {
		file, ok := map[string]string{"CA": "ca.pem", "KEY": "client-key.pem", "OTHER": "ca.pem"}[name]
		if !ok {
			return "", false
		}
		return pemOf(file), true
	}
	decode := func(key string) (*Endpoint, error) {
		f, err := config.Parse("relay.hcl", []byte(`endpoint "a" {
  url  = "https://example.com/"
  sign = ["none"]
  tls {
    ca   = env("CA")
    cert = file("client.pem")
    key  = `+key+`
  }
}`), env)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Decode(f)
		if err != nil {
			return nil, err
		}
		return p.Endpoints[0], nil
	}
	e, err := decode(`env("KEY")`)
	if err != nil {
		t.Fatal(err)
	}
	if e.TLS.Roots == nil || e.TLS.Certificate == nil {
		t.Error("the content is not used")
	}
	for _, s := range e.settings() {
		if strings.HasPrefix(s.Name, "tls.c") && s.Value != Hidden {
			t.Errorf("%s is shown as %s", s.Name, s.Value)
		}
	}
	if _, err := decode(`env("OTHER")`); err == nil || strings.Contains(err.Error(), "MII") || strings.Contains(err.Error(), "BEGIN CERT") {
		t.Errorf("a certificate as key: %v", err)
	}
}
