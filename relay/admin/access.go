package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/jobs"
	"relay/relay/query"
)

// Right is what a token may do.
type Right string

// The rights.
const (
	Read      Right = "read"      // see deliveries, endpoints and statistics
	Payload   Right = "payload"   // see what events and answers hold
	Secrets   Right = "secrets"   // see secrets of endpoints made at run time
	Test      Right = "test"      // send test events
	Redeliver Right = "redeliver" // retry and redeliver
	Endpoints Right = "endpoints" // make and change endpoints at run time, and enable them again where Relay disabled them
	Operate   Right = "operate"   // all else that changes: pause, discard, erase, reload; and what is about the process
)

// Rights lists all rights.
func Rights() []Right { return []Right{Read, Payload, Secrets, Test, Redeliver, Endpoints, Operate} }

// Access is the power of a request. nil is the whole power.
type Access struct {
	Name      string // for the audit
	May       []Right
	Tenants   []string // whose deliveries and endpoints alone are there; nil for all
	Endpoints []string // which alone are there; nil for all

	Expires time.Time // of a link; zero for none
	For     string    // who a link was made for, for the audit; "" if that was not said
}

type accessKey struct{}

// WithAccess gives a request the access of the token, link or session that it shows; nil is the whole power. A
// request at a listener that needs no token, and shows none, goes without.
func WithAccess(ctx context.Context, a *Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// AccessOf is the access of a request; nil is the whole power.
func AccessOf(ctx context.Context) *Access {
	a, _ := ctx.Value(accessKey{}).(*Access)
	return a
}

type holdsKey struct{}

// WithHolds gives a request a function that tells whether its access still holds, for answers that go on for long.
// Without one it does.
func WithHolds(ctx context.Context, holds func() bool) context.Context {
	return context.WithValue(ctx, holdsKey{}, holds)
}

// holds tells whether the access of a request still holds.
func holds(ctx context.Context) bool {
	f, _ := ctx.Value(holdsKey{}).(func() bool)
	return f == nil || f()
}

// Same tells whether two accesses see and may do the same. A reload makes new ones.
func (a *Access) Same(b *Access) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && slices.Equal(a.May, b.May) && sameList(a.Tenants, b.Tenants) && sameList(a.Endpoints, b.Endpoints)
}

// sameList compares lists of which nil stands for all.
func sameList(a, b []string) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }

// Has tells whether the access has a right.
func (a *Access) Has(right Right) bool { return a == nil || slices.Contains(a.May, right) }

// bound tells whether the access is to some tenants or endpoints alone.
func (a *Access) bound() bool { return a != nil && (a.Tenants != nil || a.Endpoints != nil) }

// sees tells whether an endpoint is there for the access. An endpoint that also gets events of other tenants is
// not.
func (a *Access) sees(e *policy.Endpoint, name string) bool {
	if !a.bound() {
		return true
	}
	if a.Endpoints != nil && !slices.Contains(a.Endpoints, name) {
		return false
	}
	if a.Tenants == nil {
		return true
	}
	if e == nil || e.Filter == nil || len(e.Filter.Tenants) == 0 {
		return false
	}
	for _, tenant := range e.Filter.Tenants {
		if !slices.Contains(a.Tenants, tenant) {
			return false
		}
	}
	return true
}

// seen are the endpoints that are there for the access, nil for all.
func (a *Access) seen(p *policy.Policy) []string {
	if !a.bound() {
		return nil
	}
	if a.Tenants == nil {
		return a.Endpoints
	}
	names := []string{}
	for _, e := range p.Endpoints {
		if a.sees(e, e.Name) {
			names = append(names, e.Name)
		}
	}
	return names
}

// seesDelivery tells whether a delivery is there for the access.
func (a *Access) seesDelivery(p *policy.Policy, endpoint, tenant string) bool {
	return a.sees(p.Endpoint(endpoint), endpoint) && (!a.bound() || a.Tenants == nil || slices.Contains(a.Tenants, tenant))
}

// mayFind refuses a filter that asks for fields of the data without the right to see them, because answers would tell whether a
// guess is right.
func mayFind(ctx context.Context, q *query.Query) error {
	if AccessOf(ctx).Has(Payload) {
		return nil
	}
	for name := range q.Values() {
		if strings.HasPrefix(name, "data.") {
			return refusal(problem.Forbidden, name, fmt.Sprintf("this token has no right %q, which a filter by fields of the data needs", Payload))
		}
	}
	return nil
}

// narrow leaves of a query what is there for the request.
func (a *api) narrow(ctx context.Context, q *query.Query) *query.Query {
	access := AccessOf(ctx)
	if !access.bound() {
		return q
	}
	return q.Within(access.Tenants, access.seen(a.Policy()))
}

// allowed lets a route's requests through that have its right. What is bound to tenants or endpoints is refused
// where the route is about the whole, and finds nothing at the ids of others.
func (a *api) allowed(r *route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		access := AccessOf(req.Context())
		if access.bound() {
			w = boundWriter{w}
		}
		switch {
		case access == nil, r.right == "":
		case !access.Has(r.right) && (r.also == "" || !access.Has(r.also)):
			a.refuse(w, req, refusal(problem.Forbidden, "", fmt.Sprintf("this token has no right %q; it may %s", r.right, listed(access.May))))
			return
		case access.bound() && r.whole:
			a.refuse(w, req, refusal(problem.Forbidden, "", "this token is bound to tenants or endpoints, and this is about the whole"))
			return
		case access.bound():
			if err := a.reachable(req, access); err != nil {
				a.refuse(w, req, err)
				return
			}
		}
		r.handle(w, req)
	}
}

func listed(rights []Right) string {
	if len(rights) == 0 {
		return "nothing"
	}
	var all []string
	for _, r := range rights {
		all = append(all, string(r))
	}
	return strings.Join(all, ", ")
}

// reachable tells whether what the path names is there for the access; else the error is the one for what does not
// exist.
func (a *api) reachable(r *http.Request, access *Access) error {
	p := a.Policy()
	if name := r.PathValue("name"); name != "" && !access.sees(p.Endpoint(name), name) {
		return refusal(problem.EndpointNotFound, "", "no endpoint has this name: GET /v1/endpoints lists them")
	}
	id := r.PathValue("id")
	if id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/v1/deliveries/"):
		record, err := a.Records.LookupDelivery(ctx, id)
		if err != nil {
			return a.noDelivery(ctx, id, err)
		}
		if !access.seesDelivery(p, record.Deliveries[0].Endpoint, record.Event.Tenant) {
			return a.noDelivery(ctx, id, outbox.ErrNotFound)
		}
	case strings.HasPrefix(path, "/v1/events/"):
		record, err := a.Records.Lookup(ctx, id)
		if err != nil {
			return noEvent(id, err)
		}
		// What is erased is erased for all who have a delivery of the event.
		erases := r.Method == http.MethodDelete && access.Endpoints != nil
		foreign := func(d outbox.DeliveryRecord) bool { return !access.seesDelivery(p, d.Endpoint, record.Event.Tenant) }
		if !access.seesEvent(p, record) || erases && slices.ContainsFunc(record.Deliveries, foreign) {
			return noEvent(id, outbox.ErrNotFound)
		}
	case strings.HasPrefix(path, "/v1/jobs/"):
		job, err := a.Jobs.Get(ctx, id)
		if err != nil {
			return noJob(id, err)
		}
		if !access.seesJob(&job) {
			return noJob(id, outbox.ErrNotFound)
		}
	}
	return nil
}

// seesEvent tells whether an event is there for the access: it is one of its tenants, and has a delivery to one of its
// endpoints.
func (a *Access) seesEvent(p *policy.Policy, r *outbox.Record) bool {
	if !a.bound() {
		return true
	}
	if a.Tenants != nil && !slices.Contains(a.Tenants, r.Event.Tenant) {
		return false
	}
	return a.Endpoints == nil || slices.ContainsFunc(r.Deliveries, func(d outbox.DeliveryRecord) bool { return a.seesDelivery(p, d.Endpoint, r.Event.Tenant) })
}

// seesJob tells whether a job is there for the access: it started it.
func (a *Access) seesJob(j *jobs.Job) bool { return !a.bound() || j.Who == a.who() }

// hide takes out what needs the right payload.
func (d *DeliveryWhole) hide() {
	d.Payload, d.LeftOut = nil, true
	if d.Request != nil {
		d.Request.Body = nil
	}
	for i := range d.History {
		d.History[i].hide()
	}
}

func (a *Attempt) hide() {
	if a.Response != nil {
		a.Response.Body, a.Response.Headers = "", []Header{}
	}
}

// who is the name of the access in the audit.
func (a *Access) who() string { return "token " + a.Name }

// isThere refuses an endpoint that is not there for the request. It is asked before all else that tells whether there is
// such an endpoint, so that names of others cannot be guessed.
func (a *api) isThere(r *http.Request, name string) error {
	if AccessOf(r.Context()).sees(a.Policy().Endpoint(name), name) {
		return nil
	}
	return refusal(problem.EndpointNotFound, "to", "no endpoint has this name: GET /v1/endpoints lists them")
}

// rightsOf gives each route its right, by its operationId. A test holds that no route is without.
func rightsOf() map[string]struct {
	right Right
	whole bool
} {
	type power = struct {
		right Right
		whole bool
	}
	return map[string]power{
		"getHealth": {}, "getReadiness": {}, "getDocument": {}, "getAccess": {},
		"listTypes":     {Read, false},
		"getMetrics":    {Read, true},
		"listEndpoints": {Read, false}, "getEndpoint": {Read, false},
		"pauseEndpoint": {Operate, false}, "resumeEndpoint": {Operate, false}, "enableEndpoint": {Operate, false}, "disableEndpoint": {Operate, false},
		"createEndpoint": {Endpoints, false}, "patchEndpoint": {Endpoints, false}, "putEndpoint": {Endpoints, false}, "deleteEndpoint": {Endpoints, false},
		"exportEndpoint": {Endpoints, false}, "getSecret": {Secrets, false}, "rotateSecret": {Secrets, false},
		"testEndpoint":   {Test, false},
		"listDeliveries": {Read, false}, "getDelivery": {Read, false}, "getEvent": {Read, false}, "getStatistics": {Read, false}, "tail": {Read, false},
		"retryDelivery": {Redeliver, false}, "redeliverDelivery": {Redeliver, false}, "discardDelivery": {Operate, false}, "eraseEvent": {Operate, false},
		"retryDeliveries": {Redeliver, false}, "redeliverDeliveries": {Redeliver, false}, "discardDeliveries": {Operate, false}, "eraseEvents": {Operate, false},
		"listJobs": {Read, false}, "getJob": {Read, false}, "cancelJob": {Redeliver, false},
		"listAudit": {Operate, true}, "listAlerts": {Read, true}, "getConfig": {Read, true}, "explain": {Payload, true}, "reload": {Operate, true}, "createLink": {Operate, true}, "revokeLink": {Operate, true}, "revokeLinks": {Operate, true},
	}
}

// alsoEnough are rights that are enough for a part of a route, by its operationId.
func alsoEnough() map[string]Right { return map[string]Right{"enableEndpoint": Endpoints} }

// bind keeps the settings of an endpoint within the access: it gets events of its tenants alone, and one of its
// names. Errors: config.Flaws.
func (a *Access) bind(method string, settings json.RawMessage) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if !a.bound() || json.Unmarshal(settings, &members) != nil || members == nil {
		return settings, nil // what is wrong is said later
	}
	if name := ""; a.Endpoints != nil && method == http.MethodPost {
		if json.Unmarshal(members["name"], &name) != nil || !slices.Contains(a.Endpoints, name) {
			return nil, config.Flaws{{Pointer: "/name", Detail: "this token is bound to endpoints: give the name of one of them"}}
		}
	}
	if a.Tenants == nil {
		return settings, nil
	}
	text, given := members["tenants"]
	if !given && method == http.MethodPatch {
		return settings, nil
	}
	var tenants []string
	if given && (json.Unmarshal(text, &tenants) != nil || len(tenants) == 0 || slices.ContainsFunc(tenants, func(t string) bool { return !slices.Contains(a.Tenants, t) })) {
		return nil, config.Flaws{{Pointer: "/tenants", Detail: "this token is bound to tenants: name some of them, or leave tenants out"}}
	}
	if given {
		return settings, nil
	}
	list, err := json.Marshal(a.Tenants)
	if err != nil {
		return nil, err
	}
	members["tenants"] = list
	return json.Marshal(members)
}
