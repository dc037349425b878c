package page

import (
	"net/http"
	"strings"
	"testing"

	"relay/internal/packed"
)

// The screen of a secret says for each signature of the endpoint where it is and how it is computed, with code.
func TestHowToVerify(t *testing.T) {
	for settings, c := range map[string]struct {
		secret string
		want   []string
	}{
		`{"url":"https://a.example"}`:                          {"whsec_x", []string{"Signature: standard", "webhook-signature", "Python", "Node.js", ">Go<", "h.Get(", "!Signature: github"}},
		`{"url":"https://a.example","sign":["github","acme"]}`: {"a secret of their own", []string{"Signature: github", "X-Hub-Signature-256", "hashlib.sha256", "Signature: acme", "A scheme of the file", "!Signature: standard"}},
		`{"url":"https://a.example","sign":["rfc9421"]}`:       {"whsec_x", []string{"Signature-Input", "The algorithm is HMAC-SHA256", "hmac-sha256", "!Public key"}},
		`{"url":"https://b.example","sign":["rfc9421"]}`:       {"whsk_x", []string{"The algorithm is Ed25519", "createPublicKey", "whpk_x", "Public key", "!The receiver needs it"}},
		`{"url":"https://b.example","sign":["svix"]}`:          {"whsk_x", []string{"v1a,", "svix-signature", "whpk_x", "!<details id=\"verify"}},
		`{"url":"https://b.example","sign":["github"]}`:        {"whsk_x", []string{"X-Hub-Signature-256", "!whpk_x", "The receiver needs it"}},
		`{"url":"https://a.example","sign":["none"]}`:          {"whsec_x", []string{"!h-verify"}},
		`{"url":"https://b.example"}`:                          {"whsk_x", []string{"Signature: standard", "v1a,", "Ed25519PublicKey", "ed25519.Verify", "whpk_x", "!The receiver needs it", "!createHmac"}},
	} {
		public := ""
		if half, is := strings.CutPrefix(c.secret, "whsk_"); is {
			public = `,"public":"whpk_` + half + `"`
		}
		p := compared(t, New(Options{Open: true, Now: noon, API: fakeAPI(map[string]string{
			"GET /v1/endpoints/shop":        `{"name":"shop","state":"active","made":{"secrets":1,"revision":"1","settings":` + settings + `}}`,
			"GET /v1/endpoints/shop/secret": `{"secrets":[{"secret":"` + c.secret + `"` + public + `}]}`,
		})}))
		w := part(p, http.MethodGet, "/endpoints/shop/secret", "en", nil)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", settings, w.Code, w.Body)
		}
		has(t, settings, strings.ReplaceAll(w.Body.String(), "<code>", ""), c.want...)
		for _, lang := range []string{"zh-TW", "zh-CN"} {
			has(t, lang, part(p, http.MethodGet, "/endpoints/shop/secret", lang, nil).Body.String(), "!secret.verify", "!Signature: ")
		}
	}
}

// Each scheme that has code has a text, too.
func TestSamplesAreExplained(t *testing.T) {
	files := packed.Files(sampleArchive)
	if len(files) < 8 {
		t.Fatalf("%d samples", len(files))
	}
	texts := &catalogue{}
	for _, scheme := range explainedSchemes() {
		if !texts.has("secret.verify." + scheme) {
			t.Errorf("there is no text on %s", scheme)
		}
	}
	for file := range files {
		if scheme, _, _ := strings.Cut(file, "."); !texts.has("secret.verify." + scheme) {
			t.Errorf("there is no text on %s", scheme)
		}
	}
}
