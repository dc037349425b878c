package admin

import (
	"net/http"

	"relay/ingest/problem"
	"relay/relay/query"
)

// route is an entry of the table of all routes. The handler of New, the document of /openapi.json
// and the tables of the docs are made of it, and the test of verbs reads it.
type route struct {
	id      string // unique, in camel case: the operationId of the document
	method  string
	path    string // as in patterns of http.ServeMux
	verb    string // of the command line that does the same, with its arguments; "" for none
	summary string // one sentence without a full stop
	about   string // more of them; optional

	filter  query.Use // the query string is a filter of this use; 0 if it is none
	params  []param   // of the query string; parameters of others are ignored where filter is 0
	body    any       // zero value of the body's type; nil for none
	filters bool      // the body is a filter, too: query.Bulk

	status  int            // of success; 0 = 200
	answer  any            // zero value of the answer's type; nil for no body
	media   string         // of the answer; "" = application/json
	example string         // of the answer, where media is another
	others  map[int]any    // further answers that are no problems, by status
	codes   []problem.Code // of its own; every route has commonCodes, too

	right Right // that a token needs; "" for none
	also  Right // that is enough for a part of it, which the handler knows; "" for none
	whole bool  // it is about the whole: a token that is bound to tenants or endpoints has no access

	handle http.HandlerFunc
}

// param is a parameter of a query string that is no part of a filter.
type param struct {
	name    string
	about   string
	example string
}

// commonCodes are the problems of every route.
func commonCodes() []problem.Code {
	return []problem.Code{
		problem.NotFound, problem.MethodNotAllowed, problem.Unauthorized, problem.MissingHost, problem.UnknownHost, problem.CrossOrigin,
		problem.TooManyHeaders, problem.OutboxUnavailable, problem.InternalError,
	}
}

// table lists the routes. Those whose part is missing in Options are left out, unless all are asked for.
func (a *api) table() []route {
	all, rights := a.routes(), rightsOf()
	for i := range all {
		power, ok := rights[all[i].id]
		if !ok {
			power.right, power.whole = Operate, true
		}
		all[i].right, all[i].whole, all[i].also = power.right, power.whole, alsoEnough()[all[i].id]
	}
	return all
}

func (a *api) routes() []route {
	all := a.healthRoutes()
	all = append(all, a.endpointRoutes()...)
	if a.Records != nil {
		all = append(all, a.recordRoutes()...)
		all = append(all, a.statRoutes()...)
	}
	if a.Registry != nil {
		all = append(all, a.madeRoutes()...)
	}
	if a.Alerts != nil {
		all = append(all, a.alertRoutes()...)
	}
	all = append(all, a.tailRoutes()...)
	if a.Edits != nil {
		all = append(all, a.editRoutes()...)
		all = append(all, a.jobRoutes()...)
		all = append(all, a.testRoutes()...)
		all = append(all, a.auditRoutes()...)
	}
	all = append(all, a.runningRoutes()...)
	all = append(all, a.typeRoutes()...)
	all = append(all, a.accessRoutes()...)
	all = append(all, a.linkRoutes()...)
	if a.Reload != nil {
		all = append(all, a.reloadRoutes()...)
	}
	return append(all, a.documentRoutes()...)
}

func (a *api) healthRoutes() []route {
	all := []route{{
		id: "getHealth", method: "GET", path: "/healthz", verb: "relay health", summary: "Tell that the process runs",
		about:  "It never depends on the outbox or on receivers, and needs no token.",
		answer: Status{}, handle: a.healthz,
	}, {
		id: "getReadiness", method: "GET", path: "/readyz", verb: "relay health", summary: "Tell whether an accept would succeed now",
		about:  "Without a token, or with one that may not read the whole, it tells nothing else and no reason.",
		answer: Status{}, others: map[int]any{http.StatusServiceUnavailable: Status{}}, handle: a.readyz,
	}}
	if a.Metrics != nil {
		all = append(all, route{
			id: "getMetrics", method: "GET", path: "/metrics", summary: "Metrics in Prometheus' text format",
			media: "text/plain", answer: "", handle: a.Metrics.ServeHTTP,
		})
	}
	return all
}

func (a *api) endpointRoutes() []route {
	all := []route{{
		id: "listEndpoints", method: "GET", path: "/v1/endpoints", verb: "relay endpoints", summary: "List all endpoints",
		about:  "Those of the file in its order, then the others by name. All parameters must hold.",
		params: selectionParams(),
		answer: EndpointList{}, handle: a.listEndpoints,
	}, {
		id: "getEndpoint", method: "GET", path: "/v1/endpoints/{name}", verb: "relay endpoints NAME", summary: "Show one endpoint",
		answer: Endpoint{}, codes: []problem.Code{problem.EndpointNotFound}, handle: a.showEndpoint,
	}}
	for _, c := range []struct {
		verb, summary, about string
		handle               http.HandlerFunc
		codes                []problem.Code
	}{
		{"pause", "Pause an endpoint: its deliveries are held", "", a.change(Deliverer.Pause), nil},
		{"resume", "Resume an endpoint: end its pause, Retry-After and open breaker", "", a.change(Deliverer.Resume), nil},
		{
			"enable", "Enable an endpoint that was disabled",
			" A token with the right `endpoints` and without `operate` enables an endpoint made at run time that Relay itself disabled.",
			a.enable(), []problem.Code{problem.DisabledInFile},
		},
		{"disable", "Disable an endpoint: its deliveries are held until it is enabled", "", a.change(Deliverer.Disable), nil},
	} {
		all = append(all, route{
			id: c.verb + "Endpoint", method: "POST", path: "/v1/endpoints/{name}/" + c.verb, verb: "relay " + c.verb + " NAME", summary: c.summary,
			about:  "It is no error if the endpoint is in that state already." + c.about,
			answer: Endpoint{}, codes: append(c.codes, problem.EndpointNotFound), handle: c.handle,
		})
	}
	return all
}

func (a *api) reloadRoutes() []route {
	return []route{{
		id: "reload", method: "POST", path: "/v1/reload", verb: "relay reload", summary: "Read the files again: all is taken over, or nothing",
		answer: Reloaded{}, codes: []problem.Code{problem.InvalidConfig, problem.NeedsRestart, problem.Overloaded}, handle: a.reload,
	}}
}

// New returns the handler of the admin routes: those of table. What is at no route is refused
// like all else, with application/problem+json and a stable code.
func New(o Options) http.Handler {
	a := newAPI(o)
	mux := http.NewServeMux()
	for _, r := range a.table() {
		mux.HandleFunc(r.method+" "+r.path, a.allowed(&r))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, pattern := mux.Handler(r); pattern == "" {
			refuseUnrouted(w, r, handler)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func newAPI(o Options) *api {
	if o.Hush == nil {
		o.Hush = func(text string) string { return text }
	}
	return &api{Options: o, tails: NewCrowd(maxTails), tests: NewCrowd(maxTests)}
}

// refuseUnrouted refuses a request that fits no route. handler is the mux's own refusal, which knows the
// methods of the path.
func refuseUnrouted(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	var mine headerOnly
	handler.ServeHTTP(&mine, r)
	switch allow := mine.Header().Get("Allow"); {
	case mine.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", allow)
		problem.New(problem.MethodNotAllowed, "this path has "+allow).Write(w)
	case mine.status >= 300 && mine.status < 400:
		handler.ServeHTTP(w, r) // to the same path, in its clean form
	default:
		problem.New(problem.NotFound, "GET /openapi.json lists the routes").Write(w)
	}
}

// headerOnly is an answer of which the body does not matter.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header {
	if h.header == nil {
		h.header = http.Header{}
	}
	return h.header
}

func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
