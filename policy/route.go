package policy

import (
	lru "github.com/hashicorp/golang-lru/v2"

	"relay/outbox"
)

// router finds the endpoints of an event. Endpoints with tenants are found by tenant, so that an
// event of one tenant costs the same whatever the number of other tenants.
type router struct {
	all      []*Endpoint
	open     []int            // positions in all of endpoints for all tenants
	byTenant map[string][]int // and of the others

	// The app chooses types and tenants, so the caches are bounded.
	types  *lru.Cache[string, []string] // names by event type, of all tenants
	routes *lru.Cache[routeKey, *route]
}

// routeKey has the tenant "" for all tenants without endpoints of their own.
type routeKey struct{ eventType, tenant string }

// route is the endpoints for events of one type and tenant, before filters.
type route struct {
	names    []string    // nil if no endpoint of any tenant has a pattern for the type
	filtered []*Endpoint // of names; nil if none of them has a filter
}

func (r *router) set(endpoints []*Endpoint) {
	r.all, r.byTenant = endpoints, map[string][]int{}
	longest := 0
	for i, e := range endpoints {
		if e.Filter == nil || len(e.Filter.Tenants) == 0 {
			r.open = append(r.open, i)
			continue
		}
		for _, tenant := range e.Filter.Tenants {
			r.byTenant[tenant] = append(r.byTenant[tenant], i)
			longest = max(longest, len(r.byTenant[tenant]))
		}
	}
	r.types = cacheOf[string, []string](len(endpoints), 4096)
	r.routes = cacheOf[routeKey, *route](len(r.open)+longest, 16384)
}

// cacheOf makes a cache for at most so many entries, and about a million names in all where each
// entry has n.
func cacheOf[K comparable, V any](n, most int) *lru.Cache[K, V] {
	cache, err := lru.New[K, V](min(max(1_000_000/max(n, 1), 64), most))
	if err != nil {
		panic(err) // only for a size under 1
	}
	return cache
}

// matching names the endpoints of all tenants whose patterns match the type.
func (r *router) matching(eventType string) []string {
	if names, ok := r.types.Get(eventType); ok {
		return names
	}
	var names []string
	for _, e := range r.all {
		if e.Events.Match(eventType) {
			names = append(names, e.Name)
		}
	}
	r.types.Add(eventType, names)
	return names
}

func (r *router) route(eventType, tenant string) *route {
	own := r.byTenant[tenant]
	if len(own) == 0 {
		tenant = ""
	}
	key := routeKey{eventType, tenant}
	if found, ok := r.routes.Get(key); ok {
		return found
	}
	found := r.find(eventType, own)
	r.routes.Add(key, found)
	return found
}

// find merges the endpoints for all tenants with those of one, in the order of the file.
func (r *router) find(eventType string, own []int) *route {
	found, filtered := &route{}, false
	var matched []*Endpoint
	for open := r.open; len(open)+len(own) > 0; {
		next := &open
		if len(open) == 0 || len(own) > 0 && own[0] < open[0] {
			next = &own
		}
		e := r.all[(*next)[0]]
		*next = (*next)[1:]
		if e.Events.Match(eventType) {
			found.names, matched = append(found.names, e.Name), append(matched, e)
			filtered = filtered || e.Filter != nil
		}
	}
	if filtered {
		found.filtered = matched
	}
	if found.names == nil && len(r.matching(eventType)) > 0 {
		found.names = []string{}
	}
	return found
}

// Match names the endpoints whose patterns match the event type, before filters, in the order of
// the file. Disabled ones are among them, because their deliveries are held. The answer is
// shared: read only.
func (p *Policy) Match(eventType string) []string { return p.router.matching(eventType) }

// Route names the endpoints that get an event, in the order of the file. names is nil if no
// endpoint's patterns match its type, and empty if the filters of all that match leave it
// out. terms are nil or one for each of the names; one with CodeBusy says that the event
// cannot be routed at this time. The answer is shared: read only.
func (p *Policy) Route(e *outbox.Event) (names []string, terms []outbox.Term) {
	r := p.router.route(e.Type, e.Tenant)
	if r.filtered == nil {
		return r.names, nil
	}
	m := &metered{View: *ViewOf(e), meter: Meter{Most: mostFilters}}
	m.Meter = &m.meter
	return r.filter(&m.View)
}

// ViewOf is an event for filters and bodies. It shares the event's data.
func ViewOf(e *outbox.Event) *View {
	return &View{ID: e.ID, Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time, Data: e.Data}
}

// metered is a View with its Meter, in one piece of memory.
type metered struct {
	View
	meter Meter
}

func (r *route) filter(v *View) (names []string, terms []outbox.Term) {
	names = make([]string, 0, len(r.filtered))
	for _, e := range r.filtered {
		d := e.Filter.Decide(e.Name, v)
		if !d.Gets {
			continue
		}
		if d.Term != (outbox.Term{}) && terms == nil {
			terms = make([]outbox.Term, len(names), len(r.filtered))
		}
		names = append(names, e.Name)
		if terms != nil {
			terms = append(terms, d.Term)
		}
	}
	return names, terms
}
