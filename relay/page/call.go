package page

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"relay/ingest/problem"
	"relay/relay/admin"
)

// maxForm bounds the body of a form, in bytes: an event to explain may be 1 MiB.
const maxForm = 2 << 20

// call is one request of the page.
type call struct {
	p *Page
	w http.ResponseWriter
	r *http.Request

	access  *admin.Access // nil for the whole power
	known   bool          // there is a session, or none is needed
	session bool          // that can be ended
	lang    string
	mark    string // stands for marks of forms, in an answer that is shared; else ""

	descriptions map[string]string // of endpoints, by name; nil until they are needed
}

func (p *Page) newCall(w http.ResponseWriter, r *http.Request) *call {
	c := &call{p: p, w: w, r: r}
	c.access, c.known, c.session = p.sessionOf(r)
	c.lang = languageOf(r)
	return c
}

// t is a text of the catalogue.
func (c *call) t(key string, args ...any) string { return c.words().text(key, args...) }

// may tells whether the session has a right.
func (c *call) may(right admin.Right) bool { return c.access.Has(right) }

// need refuses a request without a right, before it is shown a form that the API would refuse.
func (c *call) need(right admin.Right) error {
	if c.may(right) {
		return nil
	}
	if right == admin.Operate && !c.whole() { // it is the operator's alone: as what is not there
		return c.lost()
	}
	return &refusal{Status: http.StatusForbidden, Code: string(problem.Forbidden), Detail: c.t("error.right", right), Own: true}
}

// whole tells whether the session sees everything, not only what belongs to some tenants or endpoints.
func (c *call) whole() bool {
	return c.access == nil || c.access.Tenants == nil && c.access.Endpoints == nil
}

// seesTenants tells whether the session may see several tenants, so that it has to be said which one.
func (c *call) seesTenants() bool {
	return c.access == nil || c.access.Tenants == nil || len(c.access.Tenants) > 1
}

// nameOf is who an access is, for people.
func (c *call) nameOf(a *admin.Access) string {
	if a == nil {
		return c.t("layout.admin")
	}
	return cmp.Or(strings.Join(a.Tenants, ", "), a.Name)
}

// part tells whether the module of the page asks, for a part of what is shown.
func (c *call) part() bool { return c.r.Header.Get("Relay-Part") != "" }

func (c *call) redirect(to string) {
	http.Redirect(c.w, c.r, to, http.StatusSeeOther)
}

// language switches the language where the address asks for it, and tells whether it answered.
func (c *call) language() bool {
	q := c.r.URL.Query()
	if c.r.Method != http.MethodGet || !q.Has("lang") {
		return false
	}
	if want := q.Get("lang"); isLanguage(want) {
		http.SetCookie(c.w, &http.Cookie{Name: languageCookie, Value: want, Path: "/", SameSite: http.SameSiteLaxMode, MaxAge: 365 * 24 * 3600, HttpOnly: true, Secure: c.secure()})
	}
	q.Del("lang")
	to := url.URL{Path: c.r.URL.Path, RawQuery: q.Encode()}
	c.redirect(localPath(to.String()))
	return true
}

// parseForm reads the body of a form.
func (c *call) parseForm() error {
	if err := c.r.ParseForm(); err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return &refusal{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Detail: c.t("error.form.large", maxForm>>20), Own: true}
		}
		return &refusal{Status: http.StatusBadRequest, Code: "invalid_body", Detail: c.t("error.form.unread"), Own: true}
	}
	return nil
}

// act does what a form asks for, once: a form that is sent again, by a second click or by Back, goes
// on to where the first one did. The mark of a form is that of who acts: another's means nothing. do returns the
// address to go on to, and what was done, if it is told there (went).
func (c *call) act(do func() (step, error)) error {
	if err := c.parseForm(); err != nil {
		return err
	}
	mark := c.r.PostForm.Get("once")
	if mark == "" {
		mark = newMark()
	}
	key := mark + " " + c.r.URL.Path + " " + c.accessKey()
	a, fresh := c.p.acts.take(key)
	if fresh {
		// The second of two clicks ends the request of the first one, and must not end what that does.
		c.r = c.r.WithContext(context.WithoutCancel(c.r.Context()))
		c.p.acts.do(key, a, do)
	}
	select {
	case <-a.done:
	case <-c.r.Context().Done():
		return nil // the viewer has gone
	}
	if a.err != nil {
		return a.err
	}
	c.goOn(a.to)
	return nil
}

// fail shows an error as a screen, with the status of the API.
func (c *call) fail(err error) {
	r := c.refusalOf(err)
	if r.Status == http.StatusUnauthorized && c.r.Method == http.MethodGet && !c.part() {
		c.askLogin()
		return
	}
	if c.r.Method == http.MethodGet && (r.Status == http.StatusServiceUnavailable || r.Status == http.StatusBadGateway) {
		again := *r // others who asked for the same screen share r
		again.Again = localPath(c.r.URL.RequestURI())
		r = &again // no other screen does better now
	}
	c.show(r.Status, "error", c.titleOf(r), r)
}

func (c *call) titleOf(r *refusal) string {
	switch r.Status {
	case http.StatusNotFound:
		return c.t("error.not_found")
	case http.StatusForbidden, http.StatusUnauthorized:
		return c.t("error.forbidden")
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return c.t("error.unavailable")
	case http.StatusInternalServerError:
		return c.t("error.internal")
	}
	return c.t("error.refused")
}

func (c *call) lost() error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return &refusal{Status: http.StatusMethodNotAllowed, Code: string(problem.MethodNotAllowed)}
	}
	return &refusal{Status: http.StatusNotFound, Code: string(problem.NotFound)}
}

// newMark is a mark for a form, or for an answer that is shown once.
func newMark() string { return rand.Text() }
