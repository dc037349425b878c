package page

import (
	"net/http"

	"relay/relay/page/show"
)

// onceView is the data of the screen of a link that logs in once.
type onceView struct {
	Code string
	As   string // who it logs in
	Who  string // who is logged in as another, "" for nobody
	Used bool
}

// showOnce opens a link that logs in once. A navigation that a person began uses it up at once. What else asks for it,
// as previews of chats, scanners of mail and browsers that fetch beforehand do, and browsers that do not say, get a button:
// only a POST uses the link up then. Who is logged in stays so, however often a used link is opened.
func (p *Page) showOnce(c *call, code string) error {
	token, known := p.OneTime.Look(code)
	access, holds := p.Tokens().Find(token)
	switch {
	case !known:
		p.Refused(c.r)
		c.showLate(token)
	case token == "":
		c.showUsed()
	case !holds: // a reload took the token away
		c.showLate(token)
	case c.opened() && !c.crossesSession() && !(c.session && !c.access.Same(access)) && p.OneTime.Use(code):
		c.begin(token)
		c.again("/")
	default:
		view := onceView{Code: code, As: show.Plain(c.nameOf(access))}
		if c.session && !c.access.Same(access) {
			view.Who = show.Plain(c.nameOf(c.access))
		}
		c.show(http.StatusOK, "once", c.t("once.title"), view)
	}
	return nil
}

// enterOnce uses a link up that logs in once.
func (p *Page) enterOnce(c *call, code string) error {
	token, known := p.OneTime.Look(code)
	switch {
	case known && !p.OneTime.Use(code):
		c.showUsed()
	case !c.begin(token):
		c.showLate(token)
	default:
		c.redirect("/")
	}
	return nil
}

func (c *call) showUsed() {
	c.show(http.StatusGone, "once", c.t("once.used"), onceView{Used: true})
}

// opened tells whether a person opened the address, as browsers say (https://www.w3.org/TR/fetch-metadata/). One that fetches
// an address before anybody opens it says so, too.
func (c *call) opened() bool {
	h := c.r.Header
	return c.r.Method == http.MethodGet && h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document" && h.Get("Sec-Fetch-User") == "?1" &&
		h.Get("Sec-Purpose") == "" && h.Get("Purpose") == ""
}
