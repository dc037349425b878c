package sign

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func builtin(tb testing.TB, name string) *Scheme {
	tb.Helper()
	s, ok := Builtin(name)
	if !ok {
		tb.Fatalf("no scheme %q", name)
	}
	return s
}

// request is the header that deliver sends: what s writes, Content-Type and webhook-id.
func request(s *Signer, m *Message) http.Header {
	h := header(append(s.Sign(nil, m), Header{"Content-Type", m.ContentType}))
	h.Set("webhook-id", m.EventID)
	return h
}

// What the platforms have published.
func TestBuiltinVectors(t *testing.T) {
	const slackBody = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
		"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands" +
		"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	for _, tt := range []struct {
		name, scheme, secret, id string
		at                       int64
		body                     string
		header, want             string
	}{
		{"GitHub documentation", "github", "It's a Secret to Everybody", "", 0, "Hello, World!",
			"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
		{"Slack documentation", "slack", "8f742231b10e8888abcd99yyyzzz85a5", "", 1531420618, slackBody,
			"X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"},
		{"Svix libraries", "svix", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, `{"test": 2432232314}`,
			"svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &Message{EventID: tt.id, Time: time.Unix(tt.at, 0), Body: []byte(tt.body)}
			h := header(mustSigner(t, builtin(t, tt.scheme), tt.secret).Sign(nil, m))
			if got := h.Get(tt.header); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Every line of every scheme, with two secrets.
func TestBuiltinHeaders(t *testing.T) {
	line := func(name, value string) Header { return Header{name, value} }
	const components = `("@method" "@target-uri" "content-digest" "content-type" "webhook-id")`
	params := func(k *key) string {
		return components + `;created=1614265330;keyid="` + k.id + `";alg="` + k.algorithm + `"`
	}
	rfc9421 := builtin(t, "rfc9421")
	keys, err := rfc9421.keys([]string{whsk(1), whsec(2)}, sender)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]Header{
		"standard":    {line("webhook-id", "evt_1"), line("webhook-timestamp", "1614265330"), line("webhook-signature", "v1a,… v1,…")},
		"svix":        {line("svix-id", "evt_1"), line("svix-timestamp", "1614265330"), line("svix-signature", "v1a,… v1,…")},
		"github":      {line("X-GitHub-Event", "invoice.paid"), line("X-GitHub-Delivery", "evt_1"), line("X-Hub-Signature-256", "sha256=…")},
		"github-sha1": {line("X-Hub-Signature", "sha1=…")},
		"stripe":      {line("Stripe-Signature", "t=1614265330,v1=…,v1=…")},
		"slack":       {line("X-Slack-Request-Timestamp", "1614265330"), line("X-Slack-Signature", "v0=…")},
		"shopify": {line("X-Shopify-Topic", "invoice.paid"), line("X-Shopify-Event-Id", "evt_1"), line("X-Shopify-Webhook-Id", "evt_1"),
			line("X-Shopify-Hmac-Sha256", "…")},
		"rfc9421": {line("Content-Digest", "sha-256=:QJk8Y5/7XxOgou9ck8ll8QtAXyuHo3knI4HaLbwVjfo=:"),
			line("Signature-Input", "sig1="+params(keys[0])), line("Signature-Input", "sig2="+params(keys[1])),
			line("Signature", "sig1=:…:"), line("Signature", "sig2=:…:")},
	} {
		t.Run(name, func(t *testing.T) {
			got := mustSigner(t, builtin(t, name), whsk(1), whsec(2)).Masked().Sign(nil, message())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

// Where a scheme has room for several signatures all secrets sign, else the newest.
func TestBuiltinRotation(t *testing.T) {
	room := map[string]bool{"standard": true, "svix": true, "stripe": true, "rfc9421": true}
	for _, name := range BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			scheme := builtin(t, name)
			signer := mustSigner(t, scheme, whsec(1), whsec(2))
			if want := map[bool]int{true: 2, false: 1}[room[name]]; signer.Signing() != want || signer.Secrets() != 2 {
				t.Errorf("%d of %d sign, want %d of 2", signer.Signing(), signer.Secrets(), want)
			}
			lines := request(signer, message())
			verify := func(secret string) error {
				return mustVerifier(t, scheme, secret).Verify(lines.Values, received(), time.Minute)
			}
			if err := verify(whsec(1)); err != nil {
				t.Errorf("the newest: %v", err)
			}
			if err := verify(whsec(2)); (err == nil) != room[name] {
				t.Errorf("the older one: %v", err)
			}
			if verify(whsec(3)) == nil {
				t.Error("a secret that did not sign verifies")
			}
			for name, values := range lines {
				if n := len(values); n > 1 && name != "Signature" && name != "Signature-Input" {
					t.Errorf("%s is there %d times", name, n)
				}
			}
		})
	}
}

// RFC 9421 appendix B.2.5 and B.2.6: the bases of those examples, written as
// templates, have the published signatures.
func TestRFC9421Vectors(t *testing.T) {
	for _, tt := range []struct{ name, algorithm, secret, params, base, want string }{
		{
			"B.2.5", hmacSHA256, "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
			`("date" "@authority" "content-type");created=${timestamp};keyid="test-shared-secret"`,
			"\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@authority\": ${host}\n\"content-type\": ${content_type}\n",
			"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
		},
		{
			"B.2.6", algoEd25519, "n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=",
			`("date" "@method" "@path" "@authority" "content-type" "content-length");created=${timestamp};keyid="test-key-ed25519"`,
			"\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": ${method}\n\"@path\": /foo\n\"@authority\": ${host}\n" +
				"\"content-type\": ${content_type}\n\"content-length\": 18\n",
			"wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Not made by New: these examples leave the body unsigned.
			scheme := &Scheme{spec: Spec{
				Algorithm: tt.algorithm, Encoding: encodingBase64, Secret: secretBase64, Rotation: rotationAll,
				Signed:  template(tt.base + `"@signature-params": ` + tt.params),
				Headers: []HeaderSpec{{"Signature-Input", template("sig=" + tt.params)}, {"Signature", template("sig=:${signature}:")}},
			}}
			m := &Message{Method: "POST", URL: "https://example.com/foo?param=Value&Pet=dog", ContentType: "application/json",
				Time: time.Unix(1618884473, 0), Body: []byte(`{"hello": "world"}`)}
			h := header(mustSigner(t, scheme, tt.secret).Sign(nil, m))
			if got := h.Get("Signature"); got != "sig=:"+tt.want+":" {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// The base of rfc9421, built here once more by the words of RFC 9421 section 2.5.
func TestRFC9421Base(t *testing.T) {
	m := message()
	h := request(mustSigner(t, builtin(t, "rfc9421"), whsk(1)), m)
	params, _ := strings.CutPrefix(h.Get("Signature-Input"), "sig1=")
	component := func(name, value string) string { return fmt.Sprintf("%q: %s\n", name, value) }
	base := component("@method", m.Method) + component("@target-uri", m.URL) + component("content-digest", h.Get("Content-Digest")) +
		component("content-type", h.Get("Content-Type")) + component("webhook-id", h.Get("webhook-id")) + `"@signature-params": ` + params
	text := strings.TrimSuffix(strings.TrimPrefix(h.Get("Signature"), "sig1=:"), ":")
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(private(1).Public().(ed25519.PublicKey), []byte(base), signature) {
		t.Errorf("the signature is not one of\n%s", base)
	}
}

// A request whose Signature and Signature-Input do not belong together is bad.
func TestRFC9421VerifyErrors(t *testing.T) {
	scheme := builtin(t, "rfc9421")
	for _, tt := range []struct {
		name   string
		change func(http.Header)
		want   string // "" = good
	}{
		{"nothing", func(http.Header) {}, ""},
		{"second only", func(h http.Header) {
			h["Signature"], h["Signature-Input"] = h["Signature"][1:], h["Signature-Input"][1:]
		}, ""},
		{"labels changed over", func(h http.Header) {
			s := h["Signature"]
			s[0], s[1] = s[1], s[0]
		}, "header Signature-Input contradicts"},
		{"one line less", func(h http.Header) { h["Signature"] = h["Signature"][1:] }, "header Signature has 1 lines where another has 2"},
		{"other key id", func(h http.Header) {
			for i, line := range h["Signature-Input"] {
				h["Signature-Input"][i] = strings.Replace(line, `keyid="`, `keyid="x`, 1)
			}
		}, "no signature matches"},
		{"other algorithm", func(h http.Header) {
			for i, line := range h["Signature-Input"] {
				h["Signature-Input"][i] = strings.Replace(line, `alg="`, `alg="x`, 1)
			}
		}, "no signature matches"},
		{"other digest", func(h http.Header) { h.Set("Content-Digest", "sha-256=:AAAA:") }, "header Content-Digest contradicts the request"},
		{"other type", func(h http.Header) { h.Set("Content-Type", "text/plain") }, "no signature matches"},
		{"other id", func(h http.Header) { h.Set("webhook-id", "evt_2") }, "no signature matches"},
		{"fewer components", func(h http.Header) {
			for i, line := range h["Signature-Input"] {
				h["Signature-Input"][i] = strings.Replace(line, ` "webhook-id"`, "", 1)
			}
		}, "header Signature-Input is not of the form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := request(mustSigner(t, scheme, whsk(1), whsec(2)), message())
			tt.change(h)
			at := received()
			at.ContentType = ""
			err := mustVerifier(t, scheme, whpk(1), whsec(2)).Verify(h.Values, at, time.Minute)
			if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %q", got, tt.want)
			}
		})
	}
}

// Random bodies and random built-in schemes: what is signed verifies at the other end,
// and not with another body, URL, or key.
func TestBuiltinRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(BuiltinNames()).Draw(t, "scheme")
		scheme, _ := Builtin(name)
		secrets := rapid.SampledFrom([][]string{{whsec(1)}, {whsk(1)}, {whsec(1), whsk(2)}, {whsk(1), whsec(2), whsec(3)}}).Draw(t, "secrets")
		m := message()
		m.Body = rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "body")
		signer, err := NewSigner(scheme, secrets)
		if err != nil {
			t.Fatal(err)
		}
		h := request(signer, m)
		verify := func(v *Verifier, m Message) error { return v.Verify(h.Values, &m, time.Minute) }
		at := *received()
		at.Body = m.Body
		if err := verify(signer.Verifier(), at); err != nil {
			t.Fatal(err)
		}
		other, err := NewVerifier(scheme, []string{whsec(9)})
		if err != nil {
			t.Fatal(err)
		}
		if verify(other, at) == nil {
			t.Error("another key verifies")
		}
		at.Body = append([]byte{'x'}, m.Body...)
		if verify(signer.Verifier(), at) == nil {
			t.Error("another body verifies")
		}
	})
}

// RFC 8037 appendix A.2 and A.3.
func TestPublicKeys(t *testing.T) {
	s := mustSigner(t, Standard(), "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", whsec(1), whsk(1))
	want := JWK{"OKP", "Ed25519", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "sig", "EdDSA"}
	got := s.PublicKeys()
	if len(got) != 2 || got[0] != want {
		t.Fatalf("got %+v, want %+v and one more", got, want)
	}
	if got[1].Prefixed() != whpk(1) {
		t.Errorf("got %s, want %s", got[1].Prefixed(), whpk(1))
	}
}
