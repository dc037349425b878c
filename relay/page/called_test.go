package page

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/relay/admin"
)

// A customer finds endpoints by the description that they gave, where Relay made the name; who sees all goes by names.
func TestEndpointsAreCalledByTheirDescription(t *testing.T) {
	const (
		delivery = `{"id":"dlv_1","event":{"id":"evt_1","type":"order.paid","time":"2026-01-02T11:00:00Z"},"endpoint":"ep_abc","state":"failed","code":"http_500","attempts":1,"created":"2026-01-02T11:00:00Z","last":{"n":1,"started":"2026-01-02T11:00:00Z","took_ms":3,"status":500}}`
		endpoint = `{"name":"ep_abc","description":"My <shop>","url":"https://a.example","state":"active","enabled":true,"events":"all","deliveries":{},"made":{"revision":"1","settings":{}}}`
	)
	p := compared(t, New(Options{Now: noon, API: fakeAPI(map[string]string{
		"GET /v1/deliveries": `{"items":[` + delivery + `]}`, "GET /v1/deliveries/dlv_1": delivery, "GET /v1/types": `{"types":[]}`, "GET /v1/audit": `{"items":[]}`,
		"GET /v1/endpoints": `{"total":1,"endpoints":[` + endpoint + `]}`, "GET /v1/endpoints/ep_abc": endpoint, "GET /v1/stats": statsAnswer,
		"GET /v1/jobs/job_1": `{"id":"job_1","action":"retry","state":"done","filter":{"endpoint":["ep_abc"]},"to":"ep_abc","matched":1,"seen":1,"done":1,"skipped":{},"who":"x","created":"2026-01-02T11:00:00Z"}`,
	}), Tokens: func() *admin.Tokens {
		return &admin.Tokens{Whole: "whole", Others: map[string]*admin.Access{"bound": {May: admin.Rights(), Tenants: []string{"acme"}}}}
	}}))
	show := func(token, path string) string {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		if p.ServeHTTP(w, r); w.Code != http.StatusOK && w.Code != http.StatusSeeOther {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	for _, path := range []string{"/", "/endpoints", "/endpoints/ep_abc", "/endpoints/ep_abc/edit", "/endpoints/ep_abc/delete", "/endpoints/ep_abc/test", "/deliveries", "/deliveries/dlv_1", "/jobs/job_1"} {
		if body := show("bound", path); !strings.Contains(body, ">My &lt;shop&gt;<") && !strings.Contains(body, "My &lt;shop&gt;</h1>") {
			t.Errorf("%s does not call it by its description: %s", path, body)
		}
		if body := show("bound", path); strings.Contains(body, " of ep_abc") || strings.Contains(body, " at ep_abc") {
			t.Errorf("%s calls it by its made name to who hears what is drawn: %s", path, body)
		}
		if body := show("whole", path); strings.Contains(body, `<a href="/endpoints/ep_abc">My`) {
			t.Errorf("%s calls it by its description to who sees all", path)
		}
	}
	if body := show("bound", "/jobs/job_1"); !strings.Contains(body, `<a href="/endpoints/ep_abc">My &lt;shop&gt;</a>`) {
		t.Errorf("a job is for an endpoint by its made name: %s", body)
	}
	if body := show("bound", "/deliveries"); !strings.Contains(body, `<option value="ep_abc" label="My &lt;shop&gt;">`) {
		t.Errorf("endpoints to filter by are named alone: %s", body)
	}
}
