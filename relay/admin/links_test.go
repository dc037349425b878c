package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A link says whom it was made for, and the audit who used it; all links of a tenant have the same jobs.
func TestLinkForSomebody(t *testing.T) {
	h := newHouse(t)
	ask := func(body string) Link {
		t.Helper()
		var link Link
		w := h.as(nil, "POST", "/v1/links", body)
		if err := json.Unmarshal(w.Body.Bytes(), &link); err != nil || w.Code != http.StatusCreated {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return link
	}
	link := ask(`{"tenant":"acme","may":["read","redeliver","test"],"for":"Ann, ticket 17"}`)
	if link.For != "Ann, ticket 17" || link.Path != "/enter/"+link.Token || link.Warning != "" {
		t.Errorf("%+v", link)
	}
	ann := h.o.Links().Access(link.Token, time.Now())
	if w := h.as(ann, "POST", "/v1/redeliveries", `{"state":"failed","until":"0s"}`); w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	h.as(ann, "POST", "/v1/endpoints/of-acme/test", "")
	if log := h.as(nil, "GET", "/v1/audit?who=Ann", "").Body.String(); !strings.Contains(log, `"who":"token link of acme for Ann, ticket 17","verb":"test"`) {
		t.Errorf("the audit has %s", log)
	}
	other := h.o.Links().Access(ask(`{"tenant":"acme","may":["read"],"for":"Bob"}`).Token, time.Now())
	if jobs := h.as(other, "GET", "/v1/jobs", "").Body.String(); !strings.Contains(jobs, `"who":"token link of acme"`) {
		t.Errorf("jobs of another link of the tenant: %s", jobs)
	}
	if got := ask(`{"tenant":"amce"}`).Warning; !strings.Contains(got, "amce") {
		t.Errorf("of a tenant without endpoints: %q", got)
	}
}
