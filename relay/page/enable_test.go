package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"relay/relay/admin"
)

// disabledAPI has an endpoint made at run time that was disabled with a code, and a delivery that is held there.
func disabledAPI(code string, made bool) *counting {
	e := `{"name":"shop","state":"disabled","code":"` + code + `","since":"2026-01-02T11:00:00Z","enabled":true,"deliveries":{"held":12},"in_flight":0`
	if made {
		e += `,"made":{"revision":"7","secrets":1,"created":"2026-01-01T12:00:00Z","updated":"2026-01-02T11:30:00Z","settings":{"url":"https://example.com/"}}`
	}
	return &counting{answers: map[string]string{
		"/v1/endpoints/shop": e + "}", "/v1/endpoints": `{"endpoints":[` + e + `}],"total":1,"summary":{"attention":1},"runtime":{"enabled":true,"secrets":true}}`, "/v1/stats": `{"total":{},"rows":[]}`, "/v1/deliveries": `{"items":[]}`,
		"/v1/deliveries/dlv_1": `{"id":"dlv_1","event":{"id":"evt_1","type":"a","time":"2026-01-02T11:00:00Z"},"endpoint":"shop","state":"held","attempts":0,"created":"2026-01-02T11:00:00Z","history":[]}`,
	}}
}

// customer asks as a tenant with these rights.
func customer(t *testing.T, api http.Handler, lang, path string, rights ...admin.Right) string {
	t.Helper()
	tokens := &admin.Tokens{Others: map[string]*admin.Access{acmeToken: {Name: "acme", May: rights, Tenants: []string{"acme"}}}}
	p := compared(t, New(Options{API: api, Tokens: func() *admin.Tokens { return tokens }, Now: noon}))
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Authorization", "Bearer "+acmeToken)
	r.Header.Set("Accept-Language", lang)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// A customer enables its own endpoint again that Relay disabled, from all screens that show it, and no other.
func TestCustomerEnables(t *testing.T) {
	const button = `action="/endpoints/shop/enable"`
	for name, c := range map[string]struct {
		api    *counting
		rights []admin.Right
		may    bool
	}{
		"gone":              {disabledAPI("gone", true), []admin.Right{admin.Read, admin.Endpoints}, true},
		"failing":           {disabledAPI("failing", true), []admin.Right{admin.Read, admin.Endpoints}, true},
		"by an operator":    {disabledAPI("operator", true), []admin.Right{admin.Read, admin.Endpoints}, false},
		"of the file":       {disabledAPI("gone", false), []admin.Right{admin.Read, admin.Endpoints}, false},
		"without the right": {disabledAPI("gone", true), []admin.Right{admin.Read, admin.Redeliver}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/endpoints/shop", "/deliveries/dlv_1", "/"} {
				body := customer(t, c.api, "en", path, c.rights...)
				if strings.Contains(body, button) != c.may {
					t.Errorf("%s: the button is there: %v", path, !c.may)
				}
				if path != "/" && strings.Contains(body, "Enable and send 12 held deliveries") != c.may {
					t.Errorf("%s: it does not say how many are sent", path)
				}
				if asks := strings.Contains(body, "ask your provider") || strings.Contains(body, "ask them"); asks == c.may && path == "/endpoints/shop" {
					t.Errorf("%s says whom to ask: %v", path, c.may)
				}
			}
		})
	}
}

// The form says that its box is another thing than the state, and what another URL does; in all languages.
func TestFormOfADisabledEndpoint(t *testing.T) {
	for lang, words := range map[string][2]string{"en": {"Another URL enables it", "ask your provider"}, "zh-TW": {"換成另一個 URL", "請聯絡服務提供者"}, "zh-CN": {"换成另一个 URL", "请联系服务提供者"}} {
		own := customer(t, disabledAPI("gone", true), lang, "/endpoints/shop/edit", admin.Read, admin.Endpoints)
		operator := customer(t, disabledAPI("operator", true), lang, "/endpoints/shop/edit", admin.Read, admin.Endpoints)
		if !strings.Contains(own, words[0]) || !strings.Contains(own, "12") || strings.Contains(own, words[1]) {
			t.Errorf("%s: by Relay: %s", lang, own)
		}
		if strings.Contains(operator, words[0]) || !strings.Contains(operator, words[1]) {
			t.Errorf("%s: by an operator: %s", lang, operator)
		}
	}
}

// A change that enabled the endpoint says so.
func TestChangeThatEnables(t *testing.T) {
	for ended, want := range map[string]string{`,"ended":["disabled"]`: "The new URL enabled the endpoint again", "": "Saved. It"} {
		inner := disabledAPI("gone", true)
		api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPatch {
				inner.ServeHTTP(w, r)
				return
			}
			var patch map[string]any
			if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || patch["url"] != "https://example.com/ok" || r.Header.Get("If-Match") != `"7"` {
				t.Errorf("the patch is %v, %v", patch, err)
			}
			_, _ = w.Write([]byte(`{"name":"shop","state":"active","enabled":true` + ended + `}`))
		})
		p := New(Options{Open: true, API: api, Now: noon})
		form := url.Values{"base": {`{"url":"https://example.com/"}`}, "revision": {"7"}, "url": {"https://example.com/ok"}, "enabled": {"on"}}
		w := part(p, http.MethodPost, "/endpoints/shop/edit", "en", form)
		if w.Code != http.StatusSeeOther {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		r := httptest.NewRequest("GET", w.Header().Get("Location"), nil)
		for _, cookie := range w.Result().Cookies() {
			r.AddCookie(cookie)
		}
		got := httptest.NewRecorder()
		p.ServeHTTP(got, r)
		if !strings.Contains(got.Body.String(), want) {
			t.Errorf("%q is not told: %s", want, got.Body)
		}
	}
}

// The screens show that no attempt of an endpoint arrived, to its customer too, whatever has ended yet.
func TestEndpointFails(t *testing.T) {
	e := `{"name":"shop","state":"active","enabled":true,"deliveries":{"pending":3},"in_flight":0,"failing":{"since":"2026-01-02T11:00:00Z","last":"2026-01-02T11:59:00Z","code":"http_500","attempts":19}}`
	api := &counting{answers: map[string]string{
		"/v1/endpoints/shop": e, "/v1/endpoints": `{"endpoints":[` + e + `],"total":1,"summary":{"attention":1}}`, "/v1/stats": `{"total":{},"rows":[]}`, "/v1/deliveries": `{"items":[]}`,
	}}
	for lang, words := range map[string][3]string{"en": {"no attempt delivered", "ails", "delivered as they come"}, "zh-TW": {"沒有任何嘗試送達", "失敗中", "正常投遞"}, "zh-CN": {"没有任何尝试送达", "失败中", "正常投递"}} {
		for _, path := range []string{"/", "/endpoints", "/endpoints/shop"} {
			body := customer(t, api, lang, path, admin.Read)
			if path != "/endpoints" && !strings.Contains(body, words[0]) || !strings.Contains(body, words[1]) || strings.Contains(body, words[2]) || strings.Contains(body, "need nothing") {
				t.Errorf("%s in %s: %s", path, lang, body)
			}
		}
	}
}
