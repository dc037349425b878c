package app

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"relay/relay/admin"
)

// A link that was taken back stays so after a reload, and at a Relay that starts later.
func TestRevokedLinksStayRevoked(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, strings.Replace(p.text(), `http = ""`, "http = \"\"\n  link_key = [\"0123456789abcdef0123456789abcdef\"]", 1))
	a := p.start(false)
	v := visit(t, p.dir)
	var one, two admin.Link
	for _, link := range []*admin.Link{&one, &two} {
		text, err := json.Marshal(v.call(http.StatusCreated, "POST", "/v1/links", `{"tenant":"acme","may":["read"]}`))
		if err != nil || json.Unmarshal(text, link) != nil {
			t.Fatal(err)
		}
	}
	v.call(http.StatusOK, "DELETE", "/v1/links/"+one.ID, "")
	check := func(when string, links admin.Links) {
		t.Helper()
		if links.End(one.Token, time.Now()) != admin.LinkRevoked || links.Access(two.Token, time.Now()) == nil {
			t.Errorf("%s: %q, %q", when, links.End(one.Token, time.Now()), links.End(two.Token, time.Now()))
		}
	}
	check("at once", a.live.Load().tokens.Links)
	p.write(p.file, strings.Replace(p.text(), `http = ""`, "http = \"\"\n  link_key = [\"another-key-of-32-characters-000\", \"0123456789abcdef0123456789abcdef\"]", 1))
	if _, err := a.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	check("after a reload", a.live.Load().tokens.Links)
	later := admin.NewRevoked(a.store, a.o.Log)
	links := admin.Links{Keys: a.live.Load().tokens.Links.Keys, Revoked: later}
	if end := links.End(two.Token, time.Now()); end != admin.LinkUnsure {
		t.Errorf("before it has read: %q", end)
	}
	if err := later.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("at a Relay that starts later", links)
}
