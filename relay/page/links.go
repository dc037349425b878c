package page

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"relay/ingest/problem"
	"relay/relay/admin"
)

// linkRoutes are the screens of links for tenants.
func linkRoutes() []route {
	return []route{
		{pattern: "GET /links", whole: true, do: (*call).showLinks},
		{pattern: "POST /links", whole: true, do: (*call).makeLink},
		{pattern: "POST /links/revoke", whole: true, do: (*call).revokeLinks},
	}
}

// The longest texts of a link that the API takes. What is longer is told with its field: the API may tell only that the
// body is too large.
const (
	maxFor    = 100 // characters
	maxTenant = 255 // bytes
)

// linkForm is the data of the screen.
type linkForm struct {
	Tenant  string
	For     string
	May     []string
	TTL     string
	Rights  []string // that the session has, and so can give
	TTLs    []string
	NoKey   bool // the file has no link_key
	Problem *refusal

	Back *takenBack // what was typed to take links back, with what is wrong with it
	Made *madeLink  // shown once
	Gone bool       // it was shown before
}

// madeLink is a link with its address.
type madeLink struct {
	admin.Link
	URL string
}

func (c *call) linkForm() *linkForm {
	f := &linkForm{May: []string{"read", "payload"}, TTL: "24h", TTLs: []string{"15m", "1h", "24h", "7d", "30d"}}
	for _, right := range admin.Rights() {
		if right != admin.Operate && c.may(right) {
			f.Rights = append(f.Rights, string(right))
		}
	}
	return f
}

// Gives tells whether a right is ticked.
func (f *linkForm) Gives(right string) bool { return slices.Contains(f.May, right) }

// forLinks refuses sessions that can make none.
func (c *call) forLinks() error {
	if !c.whole() {
		return &refusal{Status: http.StatusForbidden, Code: string(problem.Forbidden), Detail: c.t("links.bound"), Own: true}
	}
	return c.needs(admin.Operate)
}

func (c *call) showLinks() error {
	if err := c.forLinks(); err != nil {
		return err
	}
	f := c.linkForm()
	f.Tenant = c.r.URL.Query().Get("tenant")
	if mark := c.r.URL.Query().Get("made"); mark != "" {
		kept, _ := c.p.shown.Get(mark)
		made, is := kept.(*madeLink)
		f.Made, f.Gone = made, !is
		c.p.shown.Remove(mark)
	}
	c.show(http.StatusOK, "links", c.t("layout.links"), f)
	return nil
}

// makeLink makes a link and goes on to where it is shown once, so that neither reload nor Back makes another.
func (c *call) makeLink() error {
	err := c.act(func() (step, error) {
		if err := c.forLinks(); err != nil {
			return step{}, err
		}
		form := c.r.PostForm
		ask := admin.LinkRequest{Tenant: strings.TrimSpace(form.Get("tenant")), For: strings.TrimSpace(form.Get("for")), May: form["may"], TTL: form.Get("ttl")}
		if ask.May == nil {
			return step{}, &refusal{Status: http.StatusBadRequest, Code: string(problem.InvalidParameter), Field: "may", Detail: c.t("links.no_rights"), Own: true}
		}
		if utf8.RuneCountInString(ask.For) > maxFor {
			return step{}, &refusal{Status: http.StatusBadRequest, Code: string(problem.InvalidParameter), Field: "for", Detail: c.t("links.for.long", maxFor), Own: true}
		}
		if len(ask.Tenant) > maxTenant {
			return step{}, &refusal{Status: http.StatusBadRequest, Code: string(problem.InvalidParameter), Field: "tenant", Detail: c.t("links.tenant.long", maxTenant), Own: true}
		}
		made := &madeLink{}
		if err := c.send(http.MethodPost, "/v1/links", ask, &made.Link); err != nil {
			return step{}, err
		}
		made.URL = c.origin() + escaped("/enter/%s", made.Token)
		mark := newMark()
		c.p.shown.Add(mark, made)
		return step{to: "/links?made=" + mark}, nil
	})
	return c.formAgain(err, func(r *refusal) error {
		f := c.linkForm()
		f.Tenant, f.For = c.r.PostForm.Get("tenant"), c.r.PostForm.Get("for")
		f.May, f.TTL, f.Problem = c.r.PostForm["may"], c.r.PostForm.Get("ttl"), r
		f.NoKey = r.Code == string(problem.NoLinkKey)
		c.show(r.Status, "links", c.t("layout.links"), f)
		return nil
	})
}

// takenBack is the form that takes links back.
type takenBack struct {
	Tenant, For string
	Problem     *refusal
}

// revokeLinks takes one link back, by its id, or those of a tenant. It goes on to the audit, which shows the links that there were:
// none where the tenant was misspelt, for links are stored nowhere.
func (c *call) revokeLinks() error {
	err := c.act(func() (step, error) {
		if err := c.forLinks(); err != nil {
			return step{}, err
		}
		form := c.r.PostForm
		if id := form.Get("id"); id != "" {
			return step{"/audit?verb=link", "link_revoked"}, c.send(http.MethodDelete, escaped("/v1/links/%s", id), nil, nil)
		}
		tenant := strings.TrimSpace(form.Get("tenant"))
		q := url.Values{"tenant": {tenant}}
		if who := strings.TrimSpace(form.Get("for")); who != "" {
			q.Set("for", who)
		}
		return step{"/audit?" + url.Values{"verb": {"link"}, "what": {"tenant " + tenant}}.Encode(), "links_revoked"}, c.ask(http.MethodDelete, "/v1/links", q, nil, nil)
	})
	return c.formAgain(err, func(r *refusal) error {
		f := c.linkForm()
		f.Back = &takenBack{c.r.PostForm.Get("tenant"), c.r.PostForm.Get("for"), r}
		c.show(r.Status, "links", c.t("layout.links"), f)
		return nil
	})
}

// Method offers methods to templates.
func (f *linkForm) Method(name string) any {
	if name == "Gives" {
		return f.Gives
	}
	return nil
}
