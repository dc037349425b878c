package app

import (
	"net/http"

	"relay/ingest/listen"
	"relay/relay/admin"
	"relay/relay/page"
)

// people is the page for people on a listener of the operator.
type people struct {
	http.Handler
	serves func(*http.Request) bool
}

// people makes the page for a listener, over the API's own handler. A link of another site may lead to it, as
// it shows nothing that a program of that site could read.
func (a *App) people(g listen.Guard, api http.Handler, open bool) people {
	p := page.New(page.Options{
		API:    api,
		Tokens: func() *admin.Tokens { return a.live.Load().tokens },
		Open:   open,
		Look: func() page.Look {
			now := a.live.Load().config.Admin.Page
			return page.Look{Title: now.Title, Accent: now.Accent}
		},
		Version: a.o.Version,
	})
	g.Visits = true
	return people{g.Wrap(p), p.Serves}
}
