package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"testing"
	"time"
)

const rawSecret = "correct horse battery staple"

// sent is when the requests of these tests are signed.
var sent = time.Unix(1614265330, 123_000_000)

// whsec, whsk and whpk are the n-th keys of these tests.
func whsec(n byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32))
}

func private(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func whsk(n byte) string { return "whsk_" + base64.StdEncoding.EncodeToString(private(n)) }

func whpk(n byte) string {
	return "whpk_" + base64.StdEncoding.EncodeToString(private(n).Public().(ed25519.PublicKey))
}

// acmeSpec is the block of the documentation: every default left out.
func acmeSpec() Spec {
	return Spec{
		Name:   "acme",
		Signed: template("${timestamp}.${body}"),
		Headers: []HeaderSpec{
			{"X-Acme-Signature", template("sha256=${signature}")},
			{"X-Acme-Timestamp", template("${timestamp}")},
		},
	}
}

func message() *Message {
	return &Message{
		EventID: "evt_1", EventType: "invoice.paid", DeliveryID: "dlv_1", Endpoint: "billing",
		Method: "POST", URL: "https://billing.example.com/hooks?a=1", Attempt: 2, ContentType: "application/json",
		Time: sent, Body: []byte(`{"id":"evt_1"}`),
	}
}

// received is what the receiver knows of message by itself.
func received() *Message {
	m := message()
	return &Message{Method: m.Method, URL: m.URL, ContentType: m.ContentType, Body: m.Body, Time: m.Time}
}

func header(lines []Header) http.Header {
	h := make(http.Header)
	for _, l := range lines {
		h.Add(l.Name, l.Value)
	}
	return h
}

func mustNew(tb testing.TB, s Spec) *Scheme {
	tb.Helper()
	scheme, err := New(s)
	if err != nil {
		tb.Fatal(err)
	}
	return scheme
}

func mustSigner(tb testing.TB, s *Scheme, secrets ...string) *Signer {
	tb.Helper()
	signer, err := NewSigner(s, secrets)
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

func mustVerifier(tb testing.TB, s *Scheme, secrets ...string) *Verifier {
	tb.Helper()
	verifier, err := NewVerifier(s, secrets)
	if err != nil {
		tb.Fatal(err)
	}
	return verifier
}
