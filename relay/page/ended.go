package page

import (
	"net/http"

	"relay/relay/admin"
)

// endedView is the data of the screen for somebody whose access has ended.
type endedView struct {
	Link  bool          // it was by a link
	Why   admin.LinkEnd // of a link
	Form  bool          // a form was sent, which did nothing
	Login string        // address of the form for a token
}

// ended says why the session of a link does not hold; nil if there is none.
func (c *call) ended() *endedView {
	cookie, err := c.r.Cookie(cookieOf(c.r))
	if err != nil || !admin.IsLink(cookie.Value) {
		return nil
	}
	why := c.p.Tokens().Links.End(cookie.Value, c.p.Now())
	if why == admin.LinkHolds { // the request has a token of its own, which is wrong
		return nil
	}
	return &endedView{Link: true, Why: why}
}

// showEnded says that an access has ended, or that there is none. Who came by a link is not asked for a token.
func (c *call) showEnded(status int, v *endedView) {
	v.Login = c.loginAddress()
	title := c.t("ended.title")
	switch {
	case v.Why == admin.LinkCut:
		title = c.t("ended.title.cut")
	case !v.Link:
		title = c.t("error.refused")
	}
	c.show(status, "ended", title, v)
}

// showLate says that a link that was opened does not hold, or not any more.
func (c *call) showLate(token string) {
	why := admin.LinkUnknown
	if !admin.IsOneTime(token) && token != "" {
		why = c.p.Tokens().Links.End(token, c.p.Now())
	}
	c.showEnded(http.StatusForbidden, &endedView{Link: true, Why: why})
}
