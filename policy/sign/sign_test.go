package sign

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	official "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestVectors signs what others have published.
func TestVectors(t *testing.T) {
	body := func(algorithm, secret string) Spec {
		return Spec{Algorithm: algorithm, Secret: secret, Signed: template("${body}"), Headers: []HeaderSpec{{"S", template("${signature}")}}}
	}
	github := body("hmac-sha256", "raw")
	github.Headers = []HeaderSpec{{"X-Hub-Signature-256", template("sha256=${signature}")}}
	twenty := strings.Repeat("0b", 20)
	tests := []struct {
		name, secret, id string
		at               int64
		body             string
		scheme           *Scheme
		want             []Header
	}{
		{"Standard Webhooks libraries", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, `{"test": 2432232314}`, Standard(), []Header{
			{"webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"},
			{"webhook-timestamp", "1614265330"},
			{"webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
		}},
		{"GitHub documentation", "It's a Secret to Everybody", "", 0, "Hello, World!", mustNew(t, github), []Header{
			{"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
		}},
		{"RFC 2202 SHA-1 case 1", twenty, "", 0, "Hi There", mustNew(t, body("hmac-sha1", "hex")), []Header{
			{"S", "b617318655057264e28bc0b6fb378c8ef146be00"},
		}},
		{"RFC 4231 SHA-256 case 1", twenty, "", 0, "Hi There", mustNew(t, body("hmac-sha256", "hex")), []Header{
			{"S", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		}},
		{"RFC 4231 SHA-512 case 1", twenty, "", 0, "Hi There", mustNew(t, body("hmac-sha512", "hex")), []Header{
			{"S", "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		}},
		{"RFC 8032 Ed25519 test 2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "", 0, "\x72", mustNew(t, body("ed25519", "hex")), []Header{
			{"S", "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &Message{EventID: tt.id, Time: time.Unix(tt.at, 0), Body: []byte(tt.body)}
			got := mustSigner(t, tt.scheme, tt.secret).Sign(nil, m)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSignEveryForm signs with each algorithm, encoding and form of secret, and
// compares with the standard library.
func TestSignEveryForm(t *testing.T) {
	raw := []byte(rawSecret)
	hashes := map[string]func() hash.Hash{"hmac-sha1": sha1.New, "hmac-sha256": sha256.New, "hmac-sha512": sha512.New}
	secrets := map[string]func([]byte) string{
		"raw":    func(b []byte) string { return string(b) },
		"base64": base64.StdEncoding.EncodeToString,
		"hex":    hex.EncodeToString,
		"whsec":  func(b []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(b) },
	}
	encodings := map[string]func([]byte) string{"hex": hex.EncodeToString, "base64": base64.StdEncoding.EncodeToString}
	content := []byte("1614265330." + string(message().Body))

	check := func(t *testing.T, spec Spec, secret, public, want string) {
		scheme := mustNew(t, spec)
		got := mustSigner(t, scheme, secret).Sign(nil, message())
		if diff := cmp.Diff([]Header{{"X-Acme-Signature", "sha256=" + want}, {"X-Acme-Timestamp", "1614265330"}}, got); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
		if err := mustVerifier(t, scheme, public).Verify(header(got).Values, received(), 0); err == nil {
			t.Error("no tolerance, but 123 ms after the timestamp it is good")
		}
		if err := mustVerifier(t, scheme, public).Verify(header(got).Values, received(), time.Second); err != nil {
			t.Error(err)
		}
		if err := mustSigner(t, scheme, secret).Verifier().Verify(header(got).Values, received(), time.Second); err != nil {
			t.Errorf("the signer's own verifier: %v", err)
		}
	}
	for encoding, encoded := range encodings {
		for form, secret := range secrets {
			for algorithm, newHash := range hashes {
				t.Run(fmt.Sprintf("%s %s %s", algorithm, encoding, form), func(t *testing.T) {
					spec := acmeSpec()
					spec.Algorithm, spec.Encoding, spec.Secret = algorithm, encoding, form
					mac := hmac.New(newHash, raw)
					mac.Write(content)
					check(t, spec, secret(raw), secret(raw), encoded(mac.Sum(nil)))
				})
			}
			if form == "raw" {
				continue
			}
			t.Run(fmt.Sprintf("ed25519 %s %s", encoding, form), func(t *testing.T) {
				spec := acmeSpec()
				spec.Algorithm, spec.Encoding, spec.Secret = "ed25519", encoding, form
				k := private(1)
				want := encoded(ed25519.Sign(k, content))
				seed, whole, public := secret(k.Seed()), secret(k), secret(k.Public().(ed25519.PublicKey))
				if form == "whsec" {
					seed, whole, public = "whsk_"+base64.StdEncoding.EncodeToString(k.Seed()), whsk(1), whpk(1)
				}
				check(t, spec, seed, public, want)
				check(t, spec, whole, whole, want)
			})
		}
	}
}

// Each variable has one meaning, in what is signed and in headers.
func TestVariables(t *testing.T) {
	for variable, want := range map[string]string{
		"id": "evt_1", "type": "invoice.paid", "delivery": "dlv_1", "attempt": "2", "endpoint": "billing",
		"timestamp": "1614265330", "timestamp_ms": "1614265330123", "timestamp_rfc3339": "2021-02-25T15:02:10Z",
		"method": "POST", "url": "https://billing.example.com/hooks?a=1", "host": "billing.example.com", "path": "/hooks?a=1",
		"content_type": "application/json", "algorithm": "hmac-sha256", "key_number": "1", "key_id": "BE9Lq-7_Hjc9",
		"body_sha256":        "40993c639ffb5f13a0a2ef5c93c965f10b405f2b87a379272381da2dbc158dfa",
		"body_sha256_base64": "QJk8Y5/7XxOgou9ck8ll8QtAXyuHo3knI4HaLbwVjfo=",
		"body_sha512":        "6368d586cf35c13d010e702f7f3893ca83acbfb08e27e767f694062058a092272f4f23d923c7b77937a3721cb876898222e10d73db2d1bb7f5532e2b99d2d6b2",
		"body_sha512_base64": "Y2jVhs81wT0BDnAvfziTyoOsv7COJ+dn9pQGIFigkicvTyPZI8e3eTejchy4domCIuENc9stG7f1Uy4rmdLWsg==",
	} {
		t.Run(variable, func(t *testing.T) {
			scheme := mustNew(t, Spec{
				Signed:  Template{{Variable: variable}, {Variable: "body"}},
				Headers: []HeaderSpec{{"S", template("${signature}")}, {"V", Template{{Literal: "<"}, {Variable: variable}, {Literal: ">"}}}},
			})
			mac := hmac.New(sha256.New, []byte(rawSecret))
			mac.Write([]byte(want + string(message().Body)))
			m := message()
			m.Time = m.Time.In(time.FixedZone("elsewhere", 3600))
			got := mustSigner(t, scheme, rawSecret).Sign(nil, m)
			if diff := cmp.Diff([]Header{{"S", hex.EncodeToString(mac.Sum(nil))}, {"V", "<" + want + ">"}}, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			if err := mustVerifier(t, scheme, rawSecret).Verify(header(got).Values, received(), time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	if got := len(variables()); got != 20 {
		t.Errorf("there are %d variables, this test knows 20", got)
	}
}

// TestOfficialLibrary exchanges requests with the library of Standard Webhooks in
// both directions. Its clock is the real one.
func TestOfficialLibrary(t *testing.T) {
	theirs, err := official.NewWebhook(whsec(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"", "{}", "\x00\xff\n", strings.Repeat("x", 1<<18)} {
		t.Run(fmt.Sprintf("%d bytes", len(body)), func(t *testing.T) {
			m := &Message{EventID: "evt_1", Time: time.Now(), Body: []byte(body)}
			// An older secret and an Ed25519 key sign along.
			lines := mustSigner(t, Standard(), whsk(1), whsec(2), whsec(1)).Sign(nil, m)
			if err := theirs.Verify(m.Body, header(lines)); err != nil {
				t.Errorf("their Verify: %v", err)
			}

			signature, err := theirs.Sign(m.EventID, m.Time, m.Body)
			if err != nil {
				t.Fatal(err)
			}
			h := header([]Header{{"webhook-id", m.EventID}, {"webhook-timestamp", fmt.Sprint(m.Time.Unix())}, {"webhook-signature", signature}})
			if err := mustVerifier(t, Standard(), whsec(1)).Verify(h.Values, &Message{Time: m.Time, Body: m.Body}, 5*time.Minute); err != nil {
				t.Errorf("our Verify: %v", err)
			}
		})
	}
}

// Version 1a of Standard Webhooks: Ed25519 over id.timestamp.body, base64.
func TestStandardEd25519(t *testing.T) {
	m := message()
	lines := header(mustSigner(t, Standard(), whsk(1)).Sign(nil, m))
	text, ok := strings.CutPrefix(lines.Get("webhook-signature"), "v1a,")
	if !ok {
		t.Fatalf("got %q, want v1a,…", lines.Get("webhook-signature"))
	}
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	content := fmt.Sprintf("%s.%d.%s", m.EventID, m.Time.Unix(), m.Body)
	if !ed25519.Verify(private(1).Public().(ed25519.PublicKey), []byte(content), signature) {
		t.Error("crypto/ed25519 does not accept the signature")
	}
	for _, secret := range []string{whpk(1), whsk(1)} {
		if err := mustVerifier(t, Standard(), secret).Verify(lines.Values, received(), time.Minute); err != nil {
			t.Errorf("%.5s: %v", secret, err)
		}
	}
}

// During a rotation all secrets sign, the newest first (safety rule S14).
func TestRotation(t *testing.T) {
	acme := mustNew(t, acmeSpec())
	for _, tt := range []struct {
		name            string
		scheme          *Scheme
		signature       string
		lines           int
		newest, old, no string
	}{
		{"standard", Standard(), "webhook-signature", 1, whsec(1), whsec(2), whsec(3)},
		{"standard, to Ed25519", Standard(), "webhook-signature", 1, whsk(1), whsec(2), whsk(3)},
		{"custom", acme, "X-Acme-Signature", 2, rawSecret + "1", rawSecret + "2", rawSecret + "3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both := header(mustSigner(t, tt.scheme, tt.newest, tt.old).Sign(nil, message()))
			alone := header(mustSigner(t, tt.scheme, tt.newest).Sign(nil, message()))
			if got := both.Values(tt.signature); len(got) != tt.lines {
				t.Errorf("got %d lines, want %d", len(got), tt.lines)
			}
			if !strings.HasPrefix(both.Get(tt.signature), alone.Get(tt.signature)) {
				t.Errorf("got %q, want the newest first: %q", both.Get(tt.signature), alone.Get(tt.signature))
			}
			for name, lines := range both {
				if name != http.CanonicalHeaderKey(tt.signature) && len(lines) != 1 {
					t.Errorf("%s is there %d times", name, len(lines))
				}
			}
			for _, secret := range []string{tt.newest, tt.old} {
				if err := mustVerifier(t, tt.scheme, tt.no, secret).Verify(both.Values, received(), time.Minute); err != nil {
					t.Error(err)
				}
			}
			if err := mustVerifier(t, tt.scheme, tt.no).Verify(both.Values, received(), time.Minute); err == nil {
				t.Error("a secret that did not sign verifies")
			}
			if err := mustVerifier(t, tt.scheme, tt.old).Verify(alone.Values, received(), time.Minute); err == nil {
				t.Error("the old secret verifies after it was dropped")
			}
		})
	}
}

// Promise P10: every attempt is freshly signed; the id stays (promise P3).
func TestSignIsFresh(t *testing.T) {
	s := mustSigner(t, Standard(), whsec(1))
	m := message()
	first := header(s.Sign(nil, m))
	m.Time = m.Time.Add(time.Hour)
	second := header(s.Sign(nil, m))
	if first.Get("webhook-id") != second.Get("webhook-id") {
		t.Error("the id changed")
	}
	if second.Get("webhook-timestamp") != "1614268930" {
		t.Errorf("got timestamp %s", second.Get("webhook-timestamp"))
	}
	if first.Get("webhook-signature") == second.Get("webhook-signature") {
		t.Error("the signature did not change")
	}
}

func TestSignAppends(t *testing.T) {
	s := mustSigner(t, Standard(), whsec(1))
	got := s.Sign([]Header{{"X-Env", "prod"}}, message())
	var names []string
	for _, h := range got {
		names = append(names, h.Name)
	}
	if diff := cmp.Diff(append([]string{"X-Env"}, s.Names()...), names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// One Signer serves all workers of an endpoint: their memory must not mix.
func TestSignAtTheSameTime(t *testing.T) {
	s := mustSigner(t, Standard(), whsec(1), whsk(1))
	v := mustVerifier(t, Standard(), whpk(1))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 20 {
				m := message()
				m.EventID = fmt.Sprintf("evt_%d_%d", worker, n)
				m.Body = []byte(strings.Repeat(m.EventID, 1+n*worker))
				lines := header(s.Sign(nil, m))
				if err := v.Verify(lines.Values, &Message{Time: sent, Body: m.Body}, time.Minute); err != nil {
					t.Errorf("%s: %v", m.EventID, err)
				}
			}
		})
	}
	wg.Wait()
}
