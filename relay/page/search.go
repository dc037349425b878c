package page

// search goes to what an id, a type or a name of an endpoint is of.
func (c *call) search() error {
	c.redirect("/deliveries")
	return nil
}
