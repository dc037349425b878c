package app

import (
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/listen"
	"relay/ingest/problem"
	"relay/internal/throttle"
	"relay/relay/admin"
	"relay/relay/page"
)

// people is the page for people on a listener of the operator.
type people struct {
	http.Handler
	serves func(*http.Request) bool
}

// warnRefused is how often refused tokens are logged.
const warnRefused = 10 * time.Second

// refusals logs tokens that a listener of the operator refuses: the first, then one line every 10 seconds with the
// number of the others. A line never has the token.
type refusals struct {
	log   zerolog.Logger
	lines throttle.Lines
}

func newRefusals(log zerolog.Logger) *refusals {
	return &refusals{log: log, lines: throttle.Lines{Every: warnRefused}}
}

// tell logs a request that shows a wrong token.
func (f *refusals) tell(r *http.Request) {
	repeats, ok := f.lines.Allow("token")
	if !ok {
		return
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = "local" // by a Unix socket
	}
	f.log.Warn().Str("client", client).Str("code", string(problem.Unauthorized)).Int("repeats", repeats).Msg("token refused")
}

// people makes the page for a listener, over the API's own handler. A link of another site may lead to it, as
// it shows nothing that a program of that site could read.
func (a *App) people(g listen.Guard, open bool, api http.Handler, refused func(*http.Request)) people {
	p := page.New(page.Options{
		API:     api,
		Tokens:  func() *admin.Tokens { return a.live.Load().tokens },
		Open:    open,
		OneTime: a.o.OneTime,
		Refused: refused,
		Look: func() page.Look {
			now := a.live.Load().config.Admin.Page
			return page.Look{Title: now.Title, Accent: now.Accent, DocsURL: now.DocsURL}
		},
		Version: a.o.Version,
	})
	g.Visits = true
	return people{g.Wrap(p), p.Serves}
}
