package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/ingest/problem"
)

// Every code that the API can answer with has a sentence in every language; in English it is the title of the code.
func TestEveryRefusalHasASentence(t *testing.T) {
	texts := &catalogue{}
	for _, code := range problem.Codes() {
		key := "refusal." + string(code)
		if got, want := texts.text("en", key), code.About().Title+"."; got != want {
			t.Errorf("%s in English is %q, want %q", code, got, want)
		}
		for _, lang := range languages()[1:] {
			if text := texts.text(lang, key); text == key || !strings.HasSuffix(text, "。") {
				t.Errorf("%s in %s is %q", code, lang, text)
			}
		}
	}
}

// A refusal is told in the language of the viewer, with what the API says beneath.
func TestRefusalsAreTold(t *testing.T) {
	const detail = "limit is <0>; it is a number from 1 to 100"
	for lang, want := range map[string]string{"en": "<p>A parameter is not valid.</p>", "zh-TW": "<p>參數無效。</p>", "zh-CN": "<p>参数无效。</p>"} {
		p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			problem.New(problem.InvalidParameter, detail).Write(w)
		})}))
		for _, path := range []string{"/deliveries?limit=0", "/endpoints?limit=0", "/deliveries/dlv_1", "/deliveries/bulk?action=retry&limit=0"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Accept-Language", lang)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if text := w.Body.String(); w.Code != http.StatusBadRequest || !strings.Contains(text, want) || !strings.Contains(text, `<p class="small">limit is &lt;0&gt;; it is a number from 1 to 100</p>`) {
				t.Errorf("%s in %s: %d %s", path, lang, w.Code, text)
			}
		}
	}
}
