package page

import "net/http"

// overview is the first screen: what needs a person, then how well it goes.
func (c *call) overview() error {
	c.show(http.StatusOK, "overview", c.t("layout.overview"), nil)
	return nil
}
