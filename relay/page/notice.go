package page

import (
	"net/http"
	"strings"
	"time"
)

// step is what follows a form that acted.
type step struct {
	to  string // address to go on to
	did string // what was done, told there once: a key of the catalogue behind "did."; "" for nothing
}

// A notice is in a cookie until it is shown, so that no address can make the page say what was not done, and a reload does
// not say it again. The cookie goes to the path alone that the form goes on to, and any Relay of a fleet can show it.
const (
	noticeFor  = time.Minute
	noticeName = "_did" // behind the name of the session's cookie
)

// goOn goes on to where a form leads.
func (c *call) goOn(s step) {
	if path, _, _ := strings.Cut(s.to, "?"); s.did != "" {
		c.setCookie(cookieOf(c.r)+noticeName, path, s.did+":"+path, noticeFor)
	}
	c.redirect(s.to)
}

// notice is what a form did that led here, and whether it tells of a failure; "" for nothing. It is told once.
func (c *call) notice() (text string, bad bool) {
	cookie, err := c.r.Cookie(cookieOf(c.r) + noticeName)
	if err != nil || c.part() || c.mark != "" || c.r.Method != http.MethodGet {
		return "", false
	}
	here := c.r.URL.EscapedPath()
	what, path, _ := strings.Cut(cookie.Value, ":")
	if path != here || !c.p.texts.has("did."+what) {
		return "", false
	}
	c.setCookie(cookieOf(c.r)+noticeName, here, "", 0)
	return c.t("did." + what), strings.HasSuffix(what, ".failed")
}
