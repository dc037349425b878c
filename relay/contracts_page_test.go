package main

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// browse asks for a screen of the page or sends a form, as a browser without JavaScript does. It follows where
// the form goes on to, and checks the status and what there is to read; a text that begins with ! must be missing.
func (c *contract) browse(path string, form url.Values, status int, texts ...string) string {
	c.t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://relay"+path, strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	browser := *c.clients["admin"]
	if browser.Jar, err = cookiejar.New(nil); err != nil { // a cookie says what an act did
		c.t.Fatal(err)
	}
	answer, err := browser.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		c.t.Fatalf("%s: %s, want %d: %s %v", path, answer.Status, status, body, err)
	}
	plain := html.UnescapeString(string(body))
	for _, text := range texts {
		text, missing := strings.CutPrefix(text, "!")
		if strings.Contains(plain, text) == missing {
			c.t.Errorf("%s has %q: %t, in %s", path, text, !missing, body)
		}
	}
	return plain
}

// fieldOf is the value of a field of a form.
func fieldOf(t *testing.T, page, name string) string {
	t.Helper()
	found := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("there is no field %s: %s", name, page)
	}
	return found[1]
}

// The page of contract B: an address and chosen events are saved, a button sends a test, and the log has send time,
// event type, status, response time and error.
func TestContractPageOfGroups(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, map[string][]int{"/page bad": {503}})
		c := startContract(t, "group-manager.hcl", "secrets_key = [\"0123456789abcdef0123456789abcdef\"]\n"+outbox, a, map[string]string{"GROUP_MANAGER_URL": r.url + "/b", "GROUP_MANAGER_SECRET": contractSecret})
		form := url.Values{
			"name": {"groups"}, "url": {"http://insecure.example.com"}, "events": {"message.received, member.joined"}, "sign": {"group-manager"}, "policy": {"group-manager"},
			"rest": {`{"body":"group-manager","retry":{"schedule":["` + shortDelay.String() + `"]}}`}, "enabled": {"on"},
		}
		c.browse("/endpoints", form, http.StatusUnprocessableEntity, "it must begin with https://", `value="message.received, member.joined"`)
		form.Set("url", r.url+"/page")
		c.browse("/endpoints", form, http.StatusOK, "The endpoint is made.")
		c.browse("/endpoints/groups/secret/rotate", url.Values{"secret": {contractSecret}, "overlap": {"0"}}, http.StatusOK, "Rotated")

		edit := c.browse("/endpoints/groups/edit", nil, http.StatusOK)
		form.Set("base", fieldOf(t, edit, "base"))
		form.Set("revision", fieldOf(t, edit, "revision"))
		form.Set("events", "message.received, file.uploaded")
		c.browse("/endpoints/groups/edit", form, http.StatusOK, "Saved.", "file.uploaded", "!member.joined")

		c.say(said{"good", "message.received", rich}, said{"bad", "file.uploaded", rich}, said{"other", "member.joined", rich})
		c.settled("groups", counts{Delivered: 1, Failed: 1})
		r.check(t, "/page good", 1, `{"event":"message.received","timestamp":"`+saidAtUTC+`","data":`+plain+`}`, func(h *hook) []string {
			return []string{relayAgent, "X-Webhook-Signature: sha256=" + mac(string(h.body))}
		})
		r.check(t, "/page other", 0, "", nil)

		c.browse("/deliveries?endpoint=groups&state=failed", nil, http.StatusOK, "1 delivery", "file.uploaded", "503", "<time datetime=", "!message.received")
		id := c.one("endpoint=groups&state=failed").ID
		c.browse("/deliveries/"+id, nil, http.StatusOK, "file.uploaded", "503", " ms", "the receiver answered 503")
		c.browse("/endpoints/groups/test", url.Values{"type": {"message.received"}}, http.StatusOK, "The test was delivered.", "200")
	})
}

// The page of contract D: list with search, read, create, edit, enable, disable, and delete that is refused or forced
// while deliveries are under way.
func TestContractPageOfNotices(t *testing.T) {
	a := newAuthority(t)
	onEngines(t, func(t *testing.T, outbox string) {
		r := newHookReceiver(t, a, nil)
		c := startContract(t, "api-monetization.hcl", outbox, a, map[string]string{"MONETIZATION_URL": r.url + "/d"})
		form := url.Values{"name": {"notice"}, "url": {r.url + "/page"}, "description": {"For the partner"}, "events": {"page.*"}, "sign": {"none"}, "policy": {"monetization"}, "enabled": {"on"}}
		c.browse("/endpoints", form, http.StatusOK, "The endpoint is made.")
		c.browse("/endpoints?q=partner", nil, http.StatusOK, "1 endpoint", "notice", "!quota-threshold")
		c.browse("/endpoints/notice", nil, http.StatusOK, "For the partner", r.url+"/page", "page.*")

		edit := c.browse("/endpoints/notice/edit", nil, http.StatusOK)
		form.Set("base", fieldOf(t, edit, "base"))
		form.Set("revision", fieldOf(t, edit, "revision"))
		form.Set("description", "For all partners")
		c.browse("/endpoints/notice/edit", form, http.StatusOK, "Saved.", "For all partners")

		c.browse("/endpoints/notice/disable", url.Values{}, http.StatusOK, "Disabled by an operator", "Enable")
		c.say(said{"one", "page.event", "{}"})
		c.settled("notice", counts{Held: 1})
		c.browse("/endpoints/notice/enable", url.Values{}, http.StatusOK, "Enabled.")
		c.settled("notice", counts{Delivered: 1})

		c.browse("/endpoints/notice/disable", url.Values{}, http.StatusOK)
		c.say(said{"two", "page.event", "{}"})
		c.settled("notice", counts{Held: 1, Delivered: 1})
		ask := c.browse("/endpoints/notice/delete", nil, http.StatusOK, "1 delivery has not ended")
		sure := url.Values{"revision": {fieldOf(t, ask, "revision")}}
		c.browse("/endpoints/notice/delete", sure, http.StatusConflict, "force=true deletes it")
		sure.Set("force", "true")
		c.browse("/endpoints/notice/delete", sure, http.StatusOK, "The endpoint is deleted.")
		c.browse("/endpoints/quota-notice/delete", nil, http.StatusConflict, "what the file has is changed there")
	})
}
