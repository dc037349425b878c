// Package page is the operator's web page: what the admin API knows and does, for people. It is a
// client of the API's own handler in the same process (api.go), so that rights, filters, audit and
// refusals are the same, and it never reads the outbox.
//
// Links and forms work without JavaScript: GET shows, POST acts and answers 303 to a GET. Every
// word comes from the catalogue in texts, in three languages.
//
// Read in this order: page.go (routes), session.go (who it is), call.go (one request), api.go,
// render.go, then the screens, one file each.
package page

import (
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"relay/relay/admin"
)

// Options of the page. API must be given.
type Options struct {
	API     http.Handler         // admin.New: it takes the access of a request from its context
	Tokens  func() *admin.Tokens // that log in; nil: nobody can
	Open    bool                 // a request without a session has the whole power, as at a Unix socket
	Look    func() Look          // optional
	Now     func() time.Time     // optional
	Version string

	OneTime *admin.OneTime // links that log in once; nil: there are none

	Refused func(*http.Request) // gets each login with a token that is none, or no more; optional
}

// Look is what an operator chooses for the page.
type Look struct {
	Title  string // beside the product's name in the head of the page; "" for none
	Accent string // #rrggbb of links and buttons; "" for the page's own

	DocsURL string // of the platform's own page about its webhooks; "" for none
}

// Page is the handler.
type Page struct {
	Options
	mux     *http.ServeMux
	assets  *assets
	texts   *catalogue
	screens *screens

	acts  *acts
	shown *lru.Cache[string, any] // answers that are shown once, by their mark

	exports *admin.Crowd
	sharing sharing
}

// remembered bounds what is kept of forms.
const remembered = 1024

// New makes the page.
func New(o Options) *Page {
	if o.Look == nil {
		o.Look = func() Look { return Look{} }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Refused == nil {
		o.Refused = func(*http.Request) {}
	}
	if o.Tokens == nil {
		o.Tokens = func() *admin.Tokens { return &admin.Tokens{} }
	}
	texts := &catalogue{}
	p := &Page{
		Options: o, mux: http.NewServeMux(), assets: &assets{}, exports: admin.NewCrowd(maxExports),
		texts: texts, screens: &screens{now: o.Now, parse: parseMarkup, read: map[string]executor{}},
	}
	p.acts = newActs(remembered)
	p.shown, _ = lru.New[string, any](remembered) // the only error is a size that is not positive
	for _, r := range p.routes() {
		p.mux.Handle(r.pattern, p.handler(r))
	}
	return p
}

// route is an address of the page.
type route struct {
	pattern string // as in patterns of http.ServeMux
	public  bool   // no session is needed
	whole   bool   // it is about the whole: to a session that is bound it is not there
	do      func(*call) error
}

// routes lists the addresses of the page.
func (p *Page) routes() []route {
	all := []route{
		{pattern: "GET /assets/{name}", public: true, do: p.asset},
		{pattern: "GET /favicon.ico", public: true, do: p.asset},
		{pattern: "GET /login", public: true, do: p.showLogin},
		{pattern: "POST /login", public: true, do: p.login},
		{pattern: "POST /logout", public: true, do: p.logout},
		{pattern: "GET /enter/{token}", public: true, do: p.showEnter},
		{pattern: "POST /enter/{token}", public: true, do: p.enter},
		{pattern: "GET /search", do: (*call).search},
		{pattern: "GET /live", do: (*call).live},
		{pattern: "GET /guide", do: (*call).guide},
		{pattern: "GET /{$}", do: (*call).overview},
	}
	all = append(all, deliveryRoutes()...)
	all = append(all, endpointRoutes()...)
	all = append(all, eventRoutes()...)
	all = append(all, typeRoutes()...)
	all = append(all, alertRoutes()...)
	all = append(all, jobRoutes()...)
	all = append(all, configRoutes()...)
	all = append(all, auditRoutes()...)
	all = append(all, linkRoutes()...)
	return all
}

// Serves tells whether a request is one of the page's own: to one of its addresses, or by a browser that
// shows what comes.
func (p *Page) Serves(r *http.Request) bool {
	if path := r.URL.Path; path == "/healthz" || path == "/readyz" || path == "/metrics" || path == "/openapi.json" || strings.HasPrefix(path, "/v1/") {
		return false
	}
	if _, pattern := p.mux.Handler(r); pattern != "" {
		return true
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// csp is the content security policy: nothing inline, nothing from elsewhere, in no frame.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if _, pattern := p.mux.Handler(r); pattern == "" {
		p.handler(route{do: (*call).lost}).ServeHTTP(w, r)
		return
	}
	p.mux.ServeHTTP(w, r)
}

// handler gives a request its session and language, and shows its errors as a screen.
func (p *Page) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := p.newCall(w, r)
		if c.language() {
			return
		}
		if !rt.public && !c.known {
			c.askLogin()
			return
		}
		do := rt.do
		if rt.whole && !c.whole() {
			do = (*call).lost // for this request alone: others share rt
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		}
		if err := do(c); err != nil {
			c.fail(err)
		}
	})
}
