package page

import "net/http"

// guide goes on to the platform's own page about its webhooks. The page itself links to nothing but itself.
func (c *call) guide() error {
	to := c.p.Look().DocsURL
	if to == "" {
		return c.lost()
	}
	http.Redirect(c.w, c.r, to, http.StatusFound)
	return nil
}
