package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestSecretsRefused(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), n)) }
	other := append(bytes.Clone(private(1)[:32]), private(2)[32:]...)
	tests := []struct {
		name, algorithm, form string // no form: the standard scheme
		secrets               []string
		index                 int
		reason                string // part of it
	}{
		{"none", "", "", nil, 0, "there is none"},
		{"too many", "", "", []string{whsec(1), whsec(2), whsec(3), whsec(4)}, 3, "at most 3"},
		{"empty", "", "", []string{whsec(1), ""}, 1, "it is empty"},
		{"no prefix", "", "", []string{b64(32)}, 0, "must start with whsec_ or whsk_"},
		{"wrong prefix", "", "", []string{"whsek_" + b64(32)}, 0, "must start with whsec_ or whsk_"},
		{"public", "", "", []string{whpk(1)}, 0, "it is a public key (whpk_), signing needs the private one (whsk_)"},
		{"not base64", "", "", []string{"whsec_" + strings.Repeat("?", 32)}, 0, "it is not base64"},
		{"URL base64", "", "", []string{"whsec_" + strings.Repeat("-_", 16)}, 0, "it is not base64"},
		{"prefix only", "", "", []string{"whsec_"}, 0, "it has 0 bytes, it must have 24 to 64"},
		{"23 bytes", "", "", []string{"whsec_" + b64(23)}, 0, "it has 23 bytes, it must have 24 to 64"},
		{"65 bytes", "", "", []string{"whsec_" + b64(65)}, 0, "it has 65 bytes, it must have 24 to 64"},
		{"31 bytes of Ed25519", "", "", []string{"whsk_" + b64(31)}, 0, "it has 31 bytes, an Ed25519 key has 32"},
		{"halves", "", "", []string{"whsk_" + base64.StdEncoding.EncodeToString(other)}, 0, "public half does not belong"},
		{"whsk for HMAC", "hmac-sha512", "whsec", []string{whsk(1)}, 0, "must start with whsec_"},
		{"whpk for HMAC", "hmac-sha512", "whsec", []string{whpk(1)}, 0, "must start with whsec_"},
		{"whsec for Ed25519", "ed25519", "whsec", []string{whsec(1)}, 0, "must start with whsk_"},
		{"whpk for Ed25519", "ed25519", "whsec", []string{whpk(1)}, 0, "it is a public key"},
		{"short raw", "", "raw", []string{strings.Repeat("é", 15)}, 0, "it has 15 characters, it must have 16 to 128"},
		{"long raw", "", "raw", []string{strings.Repeat("x", 129)}, 0, "it has 129 characters, it must have 16 to 128"},
		{"short base64", "", "base64", []string{b64(15)}, 0, "it has 15 bytes, it must have 16 to 128"},
		{"long base64", "", "base64", []string{b64(129)}, 0, "it has 129 bytes, it must have 16 to 128"},
		{"not hex", "", "hex", []string{strings.Repeat("xy", 16)}, 0, "it is not hex"},
		{"odd hex", "", "hex", []string{strings.Repeat("a", 33)}, 0, "it is not hex"},
		{"short hex", "", "hex", []string{strings.Repeat("ab", 15)}, 0, "it has 15 bytes"},
		{"33 bytes of Ed25519", "ed25519", "hex", []string{strings.Repeat("ab", 33)}, 0, "an Ed25519 key has 32"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewSigner(secretScheme(t, tt.algorithm, tt.form), tt.secrets)
			e, ok := errors.AsType[*SecretError](err)
			if !ok {
				t.Fatalf("got %v, want a *SecretError", err)
			}
			if e.Index != tt.index || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("got secrets[%d]: %q, want secrets[%d]: %q", e.Index, e.Reason, tt.index, tt.reason)
			}
			for _, secret := range tt.secrets {
				for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err)} {
					// No piece of the secret, but for the prefix.
					for piece := range pieces(secret) {
						if strings.Contains(text, piece) {
							t.Errorf("%q holds %q of the secret", text, piece)
						}
					}
				}
			}
		})
	}
}

func TestSecretsAccepted(t *testing.T) {
	zeros := func(n int) []byte { return make([]byte, n) }
	b64, asHex := base64.StdEncoding.EncodeToString, hex.EncodeToString
	tests := []struct{ name, algorithm, form, secret string }{
		{"24 bytes", "", "", "whsec_" + b64(zeros(24))},
		{"64 bytes", "", "", "whsec_" + b64(zeros(64))},
		{"Ed25519 seed", "", "", "whsk_" + b64(zeros(32))},
		{"Ed25519 private key", "", "", whsk(1)},
		{"16 characters", "", "raw", strings.Repeat("é", 16)},
		{"128 characters", "", "raw", strings.Repeat("é", 128)},
		{"any bytes", "", "raw", strings.Repeat("\xff\x00", 8)},
		{"16 bytes", "", "base64", b64(zeros(16))},
		{"128 bytes", "", "base64", b64(zeros(128))},
		{"16 bytes of hex", "", "hex", asHex(zeros(16))},
		{"upper case hex", "", "hex", strings.Repeat("AB", 16)},
		{"line break of a file", "", "base64", b64(zeros(16)) + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mustSigner(t, secretScheme(t, tt.algorithm, tt.form), tt.secret)
		})
	}
}

// A receiver without a prefix to go by takes 32 bytes for the public key and never
// for a seed: with it, anybody who knows the public key could sign.
func TestPublicKeyIsNoSeed(t *testing.T) {
	scheme := secretScheme(t, "ed25519", "hex")
	public := hex.EncodeToString(private(1)[32:])
	forged := header(mustSigner(t, scheme, public).Sign(nil, message()))
	if err := mustVerifier(t, scheme, public).Verify(forged.Values, received(), 0); err == nil {
		t.Error("a signature made from the public key verifies")
	}
}

// Safety rule S15: keys are in no printed form of a value that holds them.
func TestKeysAreNotPrinted(t *testing.T) {
	custom := secretScheme(t, "", "raw")
	values := map[string]any{
		"standard signer":   mustSigner(t, Standard(), whsec('Q'), whsk('Q')),
		"standard verifier": mustVerifier(t, Standard(), whsec('Q'), whsk('Q')),
		"custom signer":     mustSigner(t, custom, strings.Repeat("Q", 32)),
		"custom verifier":   mustVerifier(t, custom, strings.Repeat("Q", 32)),
	}
	canaries := []string{
		strings.Repeat("Q", 8),
		strings.Repeat("81 ", 8), strings.Repeat("81, ", 8), strings.Repeat("0x51, ", 8),
		strings.Repeat("51", 8), strings.Repeat("UVFR", 4),
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			if s, ok := v.(*Signer); ok {
				s.Sign(nil, message()) // fills the pool
			}
			holder := struct{ Value, Hidden any }{v, v}
			asJSON, err := json.Marshal(holder)
			if err != nil {
				t.Fatal(err)
			}
			texts := []string{string(asJSON)}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				texts = append(texts, fmt.Sprintf(verb, v), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, []any{v}))
			}
			for _, text := range texts {
				for _, canary := range canaries {
					if strings.Contains(text, canary) {
						t.Errorf("%q holds key bytes", text)
					}
				}
			}
			if got := fmt.Sprint(v); !strings.Contains(got, "[redacted]") {
				t.Errorf("got %q", got)
			}
		})
	}
}

// secretScheme signs the body alone; no form is the standard scheme.
func secretScheme(t *testing.T, algorithm, form string) *Scheme {
	if form == "" {
		return Standard()
	}
	return mustNew(t, Spec{Algorithm: algorithm, Secret: form, Signed: template("${body}"), Headers: []HeaderSpec{{"S", template("${signature}")}}})
}

// pieces yields every four bytes that follow a secret's prefix.
func pieces(secret string) func(func(string) bool) {
	if i := strings.Index(secret, "_"); i >= 0 {
		secret = secret[i+1:]
	}
	return func(yield func(string) bool) {
		for i := 0; i+4 <= len(secret); i++ {
			if !yield(secret[i : i+4]) {
				return
			}
		}
	}
}
