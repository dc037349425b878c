package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// During an overlap old and new secret sign, afterwards the new one alone.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, newStore(), file, keysOf(t, keyA))
		w.create(`{"name":"acme","url":"https://acme.test/","secret":"0123456789abcdef","sign":["github"]}`)
		rotate := func(secret string, overlap time.Duration) []Secret {
			t.Helper()
			s, err := w.Rotate(t.Context(), "acme", secret, overlap)
			if err != nil {
				t.Fatal(err)
			}
			return s.Secrets
		}
		if s := rotate("second-second-16", time.Hour); len(s) != 2 || s[0].Secret != "second-second-16" || s[1].Until.IsZero() {
			t.Errorf("after a rotation: %+v", s)
		}
		if s := rotate("third-third-third", 2*time.Hour); len(s) != 3 || time.Until(s[2].Until) > time.Hour {
			t.Errorf("after a rotation during one: %+v", s)
		}
		told := w.changed.Load()
		time.Sleep(time.Hour + time.Second)
		if s, _ := w.Secrets("acme"); len(s.Secrets) != 2 || w.changed.Load() == told {
			t.Errorf("after the overlap: %+v", s)
		}
		time.Sleep(time.Hour)
		if s, _ := w.Secrets("acme"); len(s.Secrets) != 1 {
			t.Errorf("after both overlaps: %+v", s)
		}
		if s := rotate("", 0); len(s) != 1 || !strings.HasPrefix(s[0].Secret, "whsec_") {
			t.Errorf("without an overlap: %+v", s)
		}
		if _, err := w.Rotate(t.Context(), "acme", "short", 0); err == nil || !strings.Contains(err.Error(), "secrets") || strings.Contains(err.Error(), "short-") {
			t.Errorf("a short secret: %v", err)
		}
		if _, err := w.Rotate(t.Context(), "acme", "", 8*24*time.Hour); !errors.Is(err, ErrOverlap) {
			t.Errorf("a long overlap: %v", err)
		}
		for range 20 {
			if _, err := w.Rotate(t.Context(), "acme", "", time.Hour); err != nil {
				if !errors.Is(err, ErrTooManySecrets) {
					t.Error(err)
				}
				return
			}
		}
		t.Error("any number of secrets may sign")
	})
}

// A secret ends in time, too, when a change is being put into force at that moment, or another file.
func TestOverlapEndsAmidChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, newStore(), file, keysOf(t, keyA))
		w.create(`{"name":"acme","url":"https://acme.test/"}`)
		signing := func() int { return w.Made()[0].Signers[0].Secrets() }
		rotate := func() {
			t.Helper()
			if _, err := w.Rotate(t.Context(), "acme", "", time.Second); err != nil || signing() != 2 {
				t.Fatalf("%d sign, %v", signing(), err)
			}
		}
		rotate()
		w.takes.Store(int64(2 * time.Second))
		if _, err := w.Patch(t.Context(), "acme", 0, json.RawMessage(`{"description":"x"}`)); err != nil {
			t.Fatal(err)
		}
		w.takes.Store(0)
		time.Sleep(time.Second)
		if n := signing(); n != 1 {
			t.Errorf("%d secrets sign a second after the change", n)
		}
		rotate()
		_, use := w.Prepare(policyOf(t, file))
		time.Sleep(2 * time.Second)
		use()
		if n := signing(); n != 1 {
			t.Errorf("%d secrets sign after another file", n)
		}
	})
}

// Without the key of its secret an endpoint is not in force: nothing goes out unsigned.
func TestLostKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		open(t, store, file, keysOf(t, keyA)).create(`{"name":"acme","url":"https://acme.test/"}`)
		w := open(t, store.Join(), file, keysOf(t, keyB))
		e, err := w.Get("acme")
		if err != nil || len(w.Made()) != 0 || len(e.Flaws) != 1 || !strings.Contains(e.Flaws[0].Detail, "secrets_key") {
			t.Errorf("%+v, %v; in force: %v", e, err, w.names())
		}
		if _, err := w.Secrets("acme"); !errors.Is(err, ErrLostKey) {
			t.Errorf("Secrets: %v", err)
		}
		if _, err := w.Rotate(t.Context(), "acme", "", 0); err != nil {
			t.Error(err)
		}
		if e, _ := w.Get("acme"); len(w.Made()) != 0 || !strings.Contains(e.Flaws.Error(), "Lost with it: url.") {
			t.Errorf("after a rotation: %v, in force %v", e.Flaws, w.names())
		}
		if _, err := w.Patch(t.Context(), "acme", 0, json.RawMessage(`{"url":"https://acme.test/"}`)); err != nil || len(w.Made()) != 1 {
			t.Errorf("after its URL was given: %v, in force %v", err, w.names())
		}
	})
}

// Whatever may be a credential lies sealed, and comes back one by one after a key was lost.
func TestSealedSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		one := open(t, store, file, keysOf(t, keyA))
		one.create(`{"name":"acme","url":"https://acme.test/hooks/canary?key=canary","headers":{"Authorization":"Bearer canary"}}`)
		d, err := store.Document(t.Context(), Kind, "acme")
		if err != nil || strings.Contains(string(d.Body), "canary") || strings.Contains(string(d.Body), "acme.test") {
			t.Errorf("it lies open in the outbox: %v", err)
		}
		again := open(t, store.Join(), file, keysOf(t, keyB, keyA))
		if e := again.Made()[0]; len(e.Headers) != 1 || e.Headers[0].Value.Reveal() != "Bearer canary" || e.URL.RawQuery != "key=canary" {
			t.Errorf("after opening: %v", e)
		}
		if _, err := again.Patch(t.Context(), "acme", 0, json.RawMessage(`{"description":"x"}`)); err != nil || len(again.Made()[0].Headers) != 1 {
			t.Errorf("after a patch of something else: %v", err)
		}
		lost := open(t, store.Join(), file, keysOf(t, strings.Repeat("c", 32)))
		if len(lost.Made()) != 0 {
			t.Error("it is in force without its headers")
		}
		if _, err := lost.Rotate(t.Context(), "acme", "", time.Hour); err != nil {
			t.Error(err)
		}
		if e, _ := lost.Get("acme"); len(lost.Made()) != 0 || !strings.Contains(e.Flaws.Error(), "Lost with it: headers, url.") {
			t.Errorf("after the rotation: %v", e.Flaws)
		}
		if _, err := lost.Patch(t.Context(), "acme", 0, json.RawMessage(`{"url":"https://acme.test/"}`)); err != nil {
			t.Error(err)
		}
		if e, _ := lost.Get("acme"); len(lost.Made()) != 0 || !strings.Contains(e.Flaws.Error(), "Lost with it: headers.") {
			t.Errorf("without the headers that it had: %v", e.Flaws)
		}
		if _, err := lost.Patch(t.Context(), "acme", 0, json.RawMessage(`{"headers":{"Authorization":"Bearer new"}}`)); err != nil {
			t.Error(err)
		}
		if made := lost.Made(); len(made) != 1 || made[0].Headers[0].Value.Reveal() != "Bearer new" {
			t.Errorf("after headers were given: %v", made)
		}
	})
}

// Documents that were written when only headers were sealed are read; a change seals the rest.
func TestOnlyHeadersSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, keys := newStore(), keysOf(t, keyA)
		body, err := json.Marshal(map[string]any{
			"spec":    json.RawMessage(`{"url":"https://acme.test/canary","sign":["none"]}`),
			"headers": keys.Seal([]byte(`{"X-Key":"canary"}`), "endpoint/acme/headers"),
			"created": time.Now(), "updated": time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.PutDocument(t.Context(), outbox.Document{Kind: Kind, Name: "acme", Body: body}); err != nil {
			t.Fatal(err)
		}
		w := open(t, store.Join(), file, keys)
		if made := w.Made(); len(made) != 1 || made[0].URL.Path != "/canary" || made[0].Headers[0].Value.Reveal() != "canary" {
			t.Fatalf("in force: %v", made)
		}
		if _, err := w.Patch(t.Context(), "acme", 0, json.RawMessage(`{"description":"x"}`)); err != nil || len(w.Made()[0].Headers) != 1 {
			t.Error(err)
		}
		if d, err := store.Document(t.Context(), Kind, "acme"); err != nil || strings.Contains(string(d.Body), "canary") {
			t.Errorf("it lies open in the outbox after a change: %v", err)
		}
	})
}

// Without secrets_key nothing is stored that may be a credential, unless the file says so.
func TestNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, refused := range map[string]bool{
			`{"url":"https://a.test/hooks","sign":["none"]}`:                                false,
			`{"url":"https://a.test/hooks","sign":["none"],"headers":{}}`:                   false,
			`{"url":"https://a.test/hooks"}`:                                                true,
			`{"url":"https://a.test/hooks?key=a","sign":["none"]}`:                          true,
			`{"url":"https://a.test/hooks","sign":["none"],"headers":{"X-Key":"a"}}`:        true,
			`{"url":"https://a.test/hooks","sign":["none"],"tls":{"server_name":"a.test"}}`: false,
		} {
			bare := open(t, newStore(), `runtime { overrides = ["tls"] }`, nil)
			if _, err := bare.Create(t.Context(), json.RawMessage(text)); errors.Is(err, ErrNoKey) != refused || !refused && err != nil {
				t.Errorf("%s: %v", text, err)
			}
			plain := open(t, newStore(), "runtime {\n secrets = \"plain\"\n overrides = [\"tls\"]\n}", nil)
			plain.create(text)
		}
		if !credential("tls", json.RawMessage(`{"cert":"a","key":"b"}`)) {
			t.Error("a private key of TLS can be stored in clear")
		}
	})
}

// Of an Ed25519 key receivers get the public half, which has nothing of the key.
func TestPublicOf(t *testing.T) {
	seed := "whsk_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	for secret, want := range map[string]string{
		seed:            "whpk_iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=", // of the seed 01…01, by OpenSSL
		makeSecret():    "",
		"any text of":   "",
		"whsk_no base6": "",
	} {
		if got := publicOf(secret); got != want {
			t.Errorf("%s: %s", secret, got)
		}
	}
}
