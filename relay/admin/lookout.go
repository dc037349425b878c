package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
	"relay/relay/query"
)

// lookout is the state of endpoints while a request is answered. It asks for each one when it is needed.
type lookout struct {
	a          *api
	ctx        context.Context
	policy     *policy.Policy
	generation int64
	known      map[string]standing // of endpoints
	fleet      *view               // of endpoints in no file of this Relay; nil until one is asked for

	asks    bool            // whether the outbox is asked for origins: deliveries that others repeat
	origins map[string]bool // whether they are there for the request, by id
	looks   int             // at origins that are left
	wait    time.Duration   // for a look, 0 for as long as the request may take
	err     error           // of the first look that failed; what tells origins is then not whole
}

func (a *api) lookout(ctx context.Context) *lookout {
	l := &lookout{
		a: a, ctx: ctx, policy: a.Policy(), known: map[string]standing{},
		asks: AccessOf(ctx).bound(), origins: map[string]bool{}, looks: outbox.MaxPage,
	}
	if a.Config != nil {
		l.generation = a.Config().Generation
	}
	return l
}

// origin is the id of the delivery that this one repeats, "" if there is none for the request. Lists tell it to one that sees
// all deliveries without asking the outbox: it may be no longer kept.
func (l *lookout) origin(i *outbox.Item) string {
	if i.Origin == "" || l.asks && !l.isThere(i.Origin) {
		return ""
	}
	return i.Origin
}

// isThere tells whether asking for a delivery would answer it. Beyond looks, and after a look that failed, it says no.
func (l *lookout) isThere(id string) bool {
	known, ok := l.origins[id]
	if ok || l.looks <= 0 || l.err != nil || l.a.Records == nil {
		return known
	}
	l.looks--
	ctx := l.ctx
	if l.wait > 0 {
		within, cancel := context.WithTimeout(ctx, l.wait)
		defer cancel()
		ctx = within
	}
	r, err := l.a.Records.LookupDelivery(ctx, id)
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		l.err = err
		return false
	}
	l.origins[id] = err == nil && AccessOf(l.ctx).seesDelivery(l.policy, r.Deliveries[0].Endpoint, r.Event.Tenant)
	return l.origins[id]
}

// standing is what of an endpoint matters to its deliveries.
type standing struct {
	state  string
	status deliver.Status
}

// waits is what a pending delivery waits for beside its time, "" for nothing.
func (s *standing) waits(due, now time.Time) string {
	switch cause := s.status.Waiting; {
	case !takes(s.state):
		return s.state
	case cause == deliver.WaitBreaker && s.status.OpenUntil.After(due), cause == deliver.WaitRetryAfter && s.status.HeldUntil.After(due), !due.After(now):
		return cause
	}
	return ""
}

// comes is when the next attempt of a delivery may begin at the earliest: its time, or the end of what the endpoint waits for
// where that is later.
func (s *standing) comes(due time.Time) time.Time {
	until := time.Time{}
	switch {
	case !takes(s.state): // nobody knows when that ends
	case s.status.Waiting == deliver.WaitBreaker:
		until = s.status.OpenUntil
	case s.status.Waiting == deliver.WaitRetryAfter:
		until = s.status.HeldUntil
	}
	if until.After(due) {
		return until
	}
	return due
}

// of is how an endpoint stands now.
func (l *lookout) of(name string) standing {
	known, ok := l.known[name]
	if ok {
		return known
	}
	v := &view{policy: l.policy, status: map[string]deliver.Status{}}
	if s, ok := l.a.Deliverer.StatusOf(name); ok {
		v.status[name] = s
	}
	if l.policy.Endpoint(name) == nil {
		l.ask()
		v.fleet, v.isFleet = l.fleet.fleet, l.fleet.isFleet
	}
	known = standing{v.state(name), v.status[name]}
	l.known[name] = known
	return known
}

// ask asks the fleet, once.
func (l *lookout) ask() {
	if l.fleet == nil {
		l.fleet = new(view)
		l.fleet.fleet, l.fleet.isFleet = l.a.fleet(l.ctx)
	}
}

// Surroundings are those of queries of jobs.
func Surroundings(o Options) query.Surroundings { return newAPI(o).surroundings() }

// surroundings are those of queries.
func (a *api) surroundings() query.Surroundings {
	return query.Surroundings{
		Held: func(ctx context.Context) ([]string, error) {
			v, err := a.look(ctx)
			if err == nil {
				err = a.wholeFleet(ctx, v)
			}
			if err != nil {
				return nil, err
			}
			var names []string
			for _, name := range v.names() {
				if !takes(v.state(name)) {
					names = append(names, name)
				}
			}
			return names, nil
		},
		Labelled: func(name, value string) []string { return a.Policy().Labelled(name, value) },
	}
}

// parser reads queries of this moment.
func (a *api) parser() query.Parser {
	return query.Parser{Now: a.now(), Indexed: func(path string) bool { return a.Indexed == nil || a.Indexed(path) }}
}

// now is the time by the outbox's clock, which the times of deliveries are of.
func (a *api) now() time.Time {
	if a.Clock != nil {
		return a.Clock.At(time.Now())
	}
	return time.Now()
}

// parse reads the query string of a request, and narrows it to what is there for the request.
func (a *api) parse(r *http.Request, use query.Use) (*query.Query, error) {
	q, err := a.parseWhole(r, use)
	if err != nil {
		return nil, err
	}
	return a.narrow(r.Context(), q), nil
}

// parseWhole reads the query string of a request. What it finds has to be narrowed.
func (a *api) parseWhole(r *http.Request, use query.Use) (*query.Query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &query.Error{Code: problem.InvalidParameter, Detail: "the query string is not well-formed: % is written %25, and ; %3B"}
	}
	q, err := a.parser().Values(values, use)
	if err != nil {
		return nil, err
	}
	if err := mayFind(r.Context(), q); err != nil {
		return nil, err
	}
	if err := a.areThere(r.Context(), values["endpoint"]); err != nil {
		return nil, err
	}
	return q, nil
}

// areThere refuses names of endpoints that a filter asks for and that are in no file and have no deliveries, because
// otherwise a slip of the pen looks as if there were none.
func (a *api) areThere(ctx context.Context, names []string) error {
	access, p := AccessOf(ctx), a.Policy()
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		e := p.Endpoint(name)
		return e != nil && access.sees(e, name)
	})
	if len(missing) == 0 {
		return nil
	}
	v, err := a.look(ctx)
	if err == nil {
		err = a.wholeFleet(ctx, v)
	}
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(v.names(), func(name string) bool { return !access.sees(p.Endpoint(name), name) })
	for _, name := range missing {
		if !slices.Contains(all, name) {
			return refusal(problem.InvalidParameter, "endpoint", fmt.Sprintf("no endpoint has the name %s.%s GET /v1/endpoints lists them", shorten(name), config.Suggest(name, all)))
		}
	}
	return nil
}

// stayHeld says which endpoints of a filter take no deliveries now, "" if all that match are at others.
func (a *api) stayHeld(ctx context.Context, f outbox.Filter) (string, error) {
	held, err := a.surroundings().Held(ctx)
	if err != nil {
		return "", err
	}
	held = slices.DeleteFunc(held, func(name string) bool {
		return f.Endpoints != nil && !slices.Contains(f.Endpoints, name) || slices.Contains(f.Except, name)
	})
	if len(held) == 0 {
		return "", nil
	}
	f.Endpoints, f.Except = held, nil
	page, err := a.page(ctx, outbox.Query{Filter: f, Limit: 1}) // a count may end before it has found one
	if err != nil || len(page.Items) == 0 {
		return "", err
	}
	names := strings.Join(held[:min(len(held), maxNamed)], ", ")
	if more := len(held) - maxNamed; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("what waits at endpoints that are paused, disabled or removed stays held until they are resumed or enabled: %s", names), nil
}

// maxNamed bounds the endpoints that a text names.
const maxNamed = 5

const (
	pageTime  = 2 * time.Second        // for finding the items of a page
	countTime = 200 * time.Millisecond // for counting all of them
)

// page returns the items of a page. An engine may answer with fewer than there are, after a bounded
// amount of work; page asks it on until the page is full, or for pageTime.
func (a *api) page(ctx context.Context, q outbox.Query) (outbox.Page, error) {
	until := time.Now().Add(pageTime)
	page, err := a.Records.Deliveries(ctx, q)
	for err == nil && page.Next != "" && len(page.Items) < q.Limit && time.Now().Before(until) {
		rest := q
		rest.Cursor, rest.Offset, rest.Limit = page.Next, 0, q.Limit-len(page.Items)
		var more outbox.Page
		more, err = a.Records.Deliveries(ctx, rest)
		page.Items, page.Next = append(page.Items, more.Items...), more.Next
	}
	return page, err
}

// count counts deliveries for countTime.
func (a *api) count(ctx context.Context, f outbox.Filter) (Total, error) {
	ctx, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	n, exact, err := a.Records.Count(ctx, f)
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, outbox.ErrUnavailable) { // a timeout of the network claims to be one
		err = nil
	}
	return Total{N: n, AtLeast: !exact}, err
}
