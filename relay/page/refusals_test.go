package page

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
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

// A refusal is told in the language of the viewer, with what the API says beneath, in English and marked so.
func TestRefusalsAreTold(t *testing.T) {
	const detail = "limit is <0>; it is a number from 1 to 100"
	const said = "limit is &lt;0&gt;; it is a number from 1 to 100"
	for lang, want := range map[string]string{
		"en":    "<p>A parameter is not valid.</p><p class=\"small\">" + said + "</p>",
		"zh-TW": "<p>參數無效。</p><p class=\"small muted\">Relay 的原文回覆：</p><blockquote class=\"said\" lang=\"en\">" + said + "</blockquote>",
		"zh-CN": "<p>参数无效。</p><p class=\"small muted\">Relay 的原文答复：</p><blockquote class=\"said\" lang=\"en\">" + said + "</blockquote>",
	} {
		p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			problem.New(problem.InvalidParameter, detail).Write(w)
		})}))
		for _, path := range []string{"/deliveries?limit=0", "/endpoints?limit=0", "/deliveries/dlv_1", "/deliveries/bulk?action=retry&limit=0"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Accept-Language", lang)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if text := w.Body.String(); w.Code != http.StatusBadRequest || !strings.Contains(text, want) {
				t.Errorf("%s in %s: %d %s", path, lang, w.Code, text)
			}
		}
	}
}

// Advice on the commonest refusals is in the language of the viewer, and stands instead of the API's own words. That for a
// field is for that field alone.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		code              problem.Code
		field, lang, want string
	}{
		{problem.DeliveryNotFound, "id", "en", "<p>There is no such delivery.</p><p class=\"small\">It may have been removed some time after its end, or the id is not whole.</p>"},
		{problem.DeliveryNotFound, "id", "zh-TW", "<p>沒有這個投遞。</p><p class=\"small\">它可能在結束一段時間後已被移除，或 ID 不完整。</p>"},
		{problem.InvalidParameter, "since", "zh-CN", "<p>参数无效。</p><p class=\"small\">起始：请输入时间，例如 2026-01-31T12:00:00Z，或距今多久，例如 30m、2h、7d。</p>"},
		{problem.DeliveryPending, "id", "zh-TW", "尚無可重送者"},
		{problem.DeliveryPending, "force", "zh-TW", "它需要事件的資料"},
		{problem.InvalidParameter, "limit", "zh-TW", `<blockquote class="said" lang="en">its own words</blockquote>`},
		{problem.OtherTenant, "to", "en", `<p class="small">its own words</p>`},
	} {
		p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			refused := problem.New(c.code, "its own words")
			refused.Field = c.field
			refused.Write(w)
		})}))
		body := part(p, http.MethodGet, "/deliveries/dlv_1", c.lang, nil).Body.String()
		if !strings.Contains(body, c.want) || strings.Contains(body, "its own words") != strings.Contains(c.want, "its own words") {
			t.Errorf("%s %s in %s: %s", c.code, c.field, c.lang, body)
		}
	}
}

// All advice is for a code that there is, and for a field with a name.
func TestAdviceIsOfCodes(t *testing.T) {
	seen := 0
	for key := range entries(t) {
		rest, is := strings.CutPrefix(key, "advice.")
		code, _, _ := strings.Cut(rest, ".")
		if is && !slices.Contains(problem.Codes(), problem.Code(code)) {
			t.Errorf("%s: there is no code %s", key, code)
		}
		if is {
			seen++
		}
	}
	if seen < 20 {
		t.Errorf("found %d", seen)
	}
}

// What the page itself refuses is told in the language of the viewer alone; beside a field of a form there is a sentence of
// that language, and what the API says about it as a quotation.
func TestRefusalsInOneLanguage(t *testing.T) {
	p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(`{"endpoints":[],"total":0,"runtime":{"enabled":true,"secrets":true}}`))
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = w.Write([]byte(`{"code":"invalid_endpoint","diagnostics":["/url: Invalid url. It must begin with https://","It is wrong as a whole."]}`))
	})}))
	w := part(p, http.MethodPost, "/links", "zh-CN", url.Values{"tenant": {"acme"}})
	if body := w.Body.String(); w.Code != http.StatusBadRequest || strings.Contains(body, `lang="en"`) || !strings.Contains(body, `<p class="small">请勾选权限：至少 read。</p>`) {
		t.Errorf("refused by the page: %d %s", w.Code, body)
	}
	for lang, want := range map[string][]string{
		"zh-TW": {`<p>不接受此值。</p><blockquote class="said" lang="en">Invalid url. It must begin with https://</blockquote>`, `<p>不接受此值。</p><blockquote class="said" lang="en">It is wrong as a whole.</blockquote>`},
		"en":    {`<p>Invalid url. It must begin with https://</p></div>`, `<p>It is wrong as a whole.</p></div>`},
	} {
		w := part(p, http.MethodPost, "/endpoints", lang, url.Values{"url": {"ftp://x"}})
		for _, text := range want {
			if !strings.Contains(w.Body.String(), text) {
				t.Errorf("%s has no %s: %s", lang, text, w.Body)
			}
		}
	}
}

// An own secret that is refused is never shown again, and the form says so; all else that was typed stays.
func TestRefusedSecretIsNotKept(t *testing.T) {
	const typed = "whsec_canary-of-a-typed-secret"
	p := compared(t, New(Options{Open: true, API: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem.New(problem.InvalidEndpoint, "it must be longer").Write(w)
	})}))
	for _, secret := range []string{typed, ""} {
		w := part(p, http.MethodPost, "/endpoints/shop/secret/rotate", "en", url.Values{"secret": {secret}, "overlap": {"7d"}})
		body := w.Body.String()
		if strings.Contains(body, typed) || !strings.Contains(body, `value="7d" selected`) {
			t.Errorf("typed %q: %s", secret, body)
		}
		if says := strings.Contains(body, "The secret that you typed is not kept"); says != (secret != "") {
			t.Errorf("typed %q, it says that it is not kept: %v", secret, says)
		}
	}
}
