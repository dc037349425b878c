package page

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ofOperatorInAll are words for who runs Relay, in all languages.
var ofOperatorInAll = regexp.MustCompile(`(?i)\b(relay\.hcl|files?|hcl|tokens?|api|GET /v1\S*|egress|operators?|configurations?|verbs?|tenants?|relays?|retention|audit|run time|runtime|fleet|administrators?|secrets_key|link_key|rate_limit|content_type|tls\.\w+|timeout\.total|force=true)\b|設定檔|配置文件|權杖|令牌|操作者|操作人員|操作人员|稽核|审计|租戶|租户|維運|运维|叢集|集群|管理員|管理员`)

// notForCustomers begin keys of texts that no session that is bound is shown, and why is what follows.
func notForCustomers() []string {
	return []string{
		"alerts.", "config.", "audit.", "links.", "explain.", "did.reload", "layout.config", "layout.audit", "layout.admin", "overview.need.refused", "overview.need.differ", // screens and facts of the whole
		"login.", "once.", "ended.", "enter.", // before anybody is known; who came by a link is asked for no token
		"endpoints.empty.help", "endpoint.relays", "endpoint.hcl", "form.sealed.hcl", "form.sealed.plain", "fixed.yes", "overview.none.help", "attempt.generation", "event.relay", // within {{if .Whole}}, or left out by the API
	}
}

// No text that a session bound to a tenant can be shown has a word for who runs Relay.
func TestTextsForCustomers(t *testing.T) {
	texts := entries(t)
	for key, of := range texts {
		if strings.HasSuffix(key, yours) || slices.ContainsFunc(notForCustomers(), func(begins string) bool { return strings.HasPrefix(key, begins) }) {
			continue
		}
		if texts[key+yours] != nil {
			of = texts[key+yours]
		}
		for lang, text := range of {
			if found := ofOperatorInAll.FindString(text); found != "" {
				t.Errorf("%s in %s says %q to a customer: %s", key, lang, found, text)
			}
		}
	}
}

// What the API says about its settings is left out, and what anybody can understand stays.
func TestDetailsForCustomers(t *testing.T) {
	for said, want := range map[string]string{
		`no endpoint has the name "x". GET /v1/endpoints lists them`:                                                   "",
		`data.x is not indexed: write index = ["data.x"] into the block ingest or event_type of the file`:              "",
		`Invalid url. It must begin with https:// (or http:// where egress has allow_plaintext = true).`:               "Invalid url. It must begin with https://.",
		`10.1.2.3 is a private address; set egress { allow_private = ["10.1.2.3/32"] } if it is meant`:                 "10.1.2.3 is a private address.",
		`this token is bound to tenants or endpoints, and this is about the whole`:                                     "",
		`Invalid secrets. Endpoint "acme-run", signature "standard": it must start with whsec_ or whsk_.`:              `Invalid secrets. Endpoint "acme-run", signature "standard": it must start with whsec_ or whsk_.`,
		`deliveries of it are pending: 2. force=true deletes it and holds them; discard them before`:                   "",
		`limit is 0; it is a number (of rows) from 1 to 100`:                                                           "limit is 0; it is a number (of rows) from 1 to 100",
		`this token has no right "redeliver"; it may read`:                                                             "",
		`the name "orders" was used before: choose another one, so that deliveries of both are not taken for the same`: `the name "orders" was used before: choose another one, so that deliveries of both are not taken for the same`,
	} {
		if got := plainDetail(said); got != want {
			t.Errorf("%s: %q, want %q", said, got, want)
		}
	}
	r := &refusal{Detail: "GET /v1/types", Diagnostics: []string{"/url: Invalid url. The file says so.", "set egress"}}
	if r.forCustomer(); r.Detail != "" || !slices.Equal(r.Diagnostics, []string{"/url: ", ""}) {
		t.Errorf("%+v", r)
	}
}
