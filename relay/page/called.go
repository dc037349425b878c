package page

import (
	"cmp"
	"net/url"
	"strings"

	"relay/relay/admin"
)

// madeName begins names of endpoints that Relay made, which tell nobody anything.
const madeName = "ep_"

// called is what an endpoint is called: its name, or to who is bound to some tenants its description, where Relay made its name.
func (c *call) called(name string) string {
	if c.whole() || !strings.HasPrefix(name, madeName) {
		return name
	}
	if c.descriptions == nil {
		c.descriptions = map[string]string{}
		var list admin.EndpointList
		if err := c.get("/v1/endpoints", url.Values{"limit": {"100"}}, &list); err == nil { // else they go by their names
			for i := range list.Endpoints {
				c.descriptions[list.Endpoints[i].Name] = list.Endpoints[i].Description
			}
		}
	}
	return cmp.Or(c.descriptions[name], name)
}

// calledOf is called for an endpoint that is known.
func (c *call) calledOf(e *admin.Endpoint) string {
	if c.whole() || !strings.HasPrefix(e.Name, madeName) {
		return e.Name
	}
	return cmp.Or(e.Description, e.Name)
}

// Called is what an endpoint is called.
func (f *frame) Called(name string) string { return f.c.called(name) }
