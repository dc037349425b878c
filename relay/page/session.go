package page

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"relay/relay/admin"
	"relay/relay/page/show"
)

// A session is a cookie. It holds no token of the file but a proof of one (admin.Tokens.Session), so
// it ends when a reload takes the token away, and holds over restarts and at every Relay of a fleet.
// Of a link it holds the link, which ends by itself, and says why.
const (
	sessionFor = 12 * time.Hour
	endedFor   = 30 * 24 * time.Hour // how long the cookie of a link stays after its end, to say so
	cookieName = "relay_session"
	hint       = "_hint" // behind the name: the cookie that says that there is a session
)

// cookieOf is the name of the session's cookie. Browsers do not keep cookies of several ports apart.
func cookieOf(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return cookieName + "_" + port
	}
	return cookieName
}

// sessionOf finds who makes a request: by a token, as programs do, by the session, or by an open
// listener. session tells whether it is one that can be ended.
func (p *Page) sessionOf(r *http.Request) (access *admin.Access, known, session bool) {
	tokens := p.Tokens()
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, sent, _ := strings.Cut(header, " ")
		access, known = tokens.Find(strings.TrimSpace(sent))
		return access, known && strings.EqualFold(scheme, "Bearer"), false
	}
	if cookie, err := r.Cookie(cookieOf(r)); err == nil {
		if access, known = tokens.AccessOfSession(cookie.Value, p.Now()); known {
			return access, true, true
		}
	}
	return nil, p.Open, false
}

// setCookie sets a cookie for a path and what is below it; "" as its value takes it away.
func (c *call) setCookie(name, path, value string, age time.Duration) {
	cookie := &http.Cookie{
		Name: name, Value: value, Path: path, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: c.secure(), MaxAge: int(age / time.Second),
	}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(c.w, cookie)
}

// askLogin sends a request without a session to the form, and back afterwards.
//
// A browser that comes from another site leaves out cookies that are SameSite=Strict. It gets a page that asks for
// the same address again, which then comes from this site.
func (c *call) askLogin() {
	if c.r.Method == http.MethodGet && c.fromElsewhere() {
		c.again(c.r.URL.RequestURI())
		return
	}
	end := c.ended()
	if end == nil && c.r.Method == http.MethodGet && !c.part() && c.r.Header.Get("Accept") != "text/event-stream" {
		c.redirect(c.loginAddress())
		return
	}
	if end == nil {
		end = &endedView{}
	}
	end.Form = c.r.Method != http.MethodGet && c.r.Method != http.MethodHead
	c.showEnded(http.StatusUnauthorized, end)
}

// loginAddress is that of the form, which leads back here.
func (c *call) loginAddress() string {
	to := url.URL{Path: "/login"}
	if back := c.r.URL.RequestURI(); back != "/" && c.r.Method == http.MethodGet {
		to.RawQuery = url.Values{"next": {back}}.Encode()
	}
	return to.String()
}

// fromElsewhere tells whether a page of another site led here.
func (c *call) fromElsewhere() bool {
	site := c.r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

// again answers a page that asks for an address of this site at once.
func (c *call) again(to string) {
	c.show(http.StatusOK, "again", "", localPath(to))
}

// localPath is an address of this site, "/" for any other.
func localPath(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") {
		return "/"
	}
	return to
}

// loginForm is the data of the screen.
type loginForm struct {
	Next  string
	Wrong bool
	Token string
	As    string // who a link logs in, while somebody else is
}

func (p *Page) showLogin(c *call) error {
	next := localPath(c.r.URL.Query().Get("next"))
	if c.known && !strings.HasPrefix(next, "/login") {
		c.redirect(next)
		return nil
	}
	c.show(http.StatusOK, "login", c.t("login.title"), loginForm{Next: next})
	return nil
}

func (p *Page) login(c *call) error {
	if err := c.parseForm(); err != nil {
		return err
	}
	next := localPath(c.r.PostForm.Get("next"))
	if !c.begin(strings.TrimSpace(c.r.PostForm.Get("token"))) {
		c.show(http.StatusForbidden, "login", c.t("login.title"), loginForm{Next: next, Wrong: true})
		return nil
	}
	c.redirect(next)
	return nil
}

// begin starts a session for a token, and tells whether it is one.
func (c *call) begin(token string) bool {
	now := c.p.Now()
	value, ok := c.p.Tokens().Session(token, now.Add(sessionFor))
	if ok {
		age := sessionFor
		if access, _ := c.p.Tokens().AccessOfSession(value, now); admin.IsLink(value) && access != nil {
			age = access.Expires.Sub(now) + endedFor
		}
		c.setCookie(cookieOf(c.r), "/", value, age)
		http.SetCookie(c.w, &http.Cookie{
			Name: cookieOf(c.r) + hint, Value: "1", Path: "/enter/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
			Secure: c.secure(), MaxAge: int(age / time.Second),
		})
	} else {
		c.p.Refused(c.r)
	}
	return ok
}

func (p *Page) logout(c *call) error {
	c.setCookie(cookieOf(c.r), "/", "", 0)
	http.SetCookie(c.w, &http.Cookie{Name: cookieOf(c.r) + hint, Path: "/enter/", MaxAge: -1})
	c.redirect("/login")
	return nil
}

// showEnter logs in by a link. Somebody who is logged in as another is asked first, so that no site
// changes who acts here.
func (p *Page) showEnter(c *call) error {
	token := c.entering()
	if admin.IsOneTime(token) {
		return p.showOnce(c, token)
	}
	value, ok := p.Tokens().Session(token, p.Now().Add(sessionFor))
	if !ok {
		p.Refused(c.r)
		c.showLate(token)
		return nil
	}
	if cookie, err := c.r.Cookie(cookieOf(c.r)); c.session && err == nil && cookie.Value != value || c.crossesSession() {
		access, _ := p.Tokens().AccessOfSession(value, p.Now())
		c.show(http.StatusOK, "enter", c.t("enter.title"), loginForm{Token: token, As: show.Plain(c.nameOf(access))})
		return nil
	}
	c.begin(token)
	c.again("/")
	return nil
}

// entering is the token or code in the address of a link.
func (c *call) entering() string {
	c.w.Header().Set("Referrer-Policy", "no-referrer")
	return c.r.PathValue("token")
}

// crossesSession tells whether the request comes from another site, and so without the cookie of a
// session that there may be. Its hint, which says that there is one, comes all the same.
func (c *call) crossesSession() bool {
	_, err := c.r.Cookie(cookieOf(c.r) + hint)
	return err == nil && c.fromElsewhere()
}

func (p *Page) enter(c *call) error {
	token := c.entering()
	if admin.IsOneTime(token) {
		return p.enterOnce(c, token)
	}
	if !c.begin(token) {
		c.showLate(token)
		return nil
	}
	c.redirect("/")
	return nil
}
