package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"relay/outbox"
	"relay/policy"
)

// The states of an endpoint, as the Relay that answers sees it.
const (
	active   = "active"
	disabled = "disabled" // enabled = false: its deliveries are held
	removed  = "removed"  // only the outbox knows it: its deliveries are held
	// Only the files of other Relays have it: they deliver.
	elsewhere = "elsewhere"
)

// EndpointList is the answer of GET /v1/endpoints.
type EndpointList struct {
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is what an operator sees of one. It holds no secret: of the URL neither
// user nor query, of headers nothing.
type Endpoint struct {
	Name        string     `json:"name"`
	URL         string     `json:"url,omitempty"`
	State       string     `json:"state"` // active, disabled, removed, elsewhere
	Enabled     bool       `json:"enabled"`
	Events      string     `json:"events,omitempty"`      // patterns, or "all"
	Concurrency int        `json:"concurrency,omitempty"` // attempts at the same time, of each Relay
	Hash        string     `json:"hash,omitempty"`        // differs when the settings do
	Deliveries  Deliveries `json:"deliveries"`

	// With a fleet: the hash at each Relay that has the endpoint, by number, and whether
	// all Relays have the same. Left out when unknown.
	Relays map[int64]string `json:"relays,omitempty"`
	Agrees *bool            `json:"agrees,omitempty"`
}

// Deliveries of an endpoint since the outbox was made:
//
//	Accepted = Pending + Held + Delivered + Failed + Discarded
type Deliveries struct {
	Accepted  int64  `json:"accepted"`
	Pending   int64  `json:"pending"` // due now or later
	Held      int64  `json:"held"`    // not over, and nobody delivers them
	Delivered int64  `json:"delivered"`
	Failed    int64  `json:"failed"`
	Discarded int64  `json:"discarded"`
	OldestMS  *int64 `json:"oldest_ms,omitempty"` // age of the oldest that is not over, in milliseconds
}

func (a *api) listEndpoints(w http.ResponseWriter, r *http.Request) {
	v, err := a.look(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	list := EndpointList{Endpoints: []Endpoint{}}
	for _, name := range v.names() {
		list.Endpoints = append(list.Endpoints, v.endpoint(name))
	}
	answer(w, http.StatusOK, list)
}

func (a *api) showEndpoint(w http.ResponseWriter, r *http.Request) {
	v, err := a.look(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	name := r.PathValue("name")
	if !slices.Contains(v.names(), name) {
		refuse(w, errNoEndpoint)
		return
	}
	answer(w, http.StatusOK, v.endpoint(name))
}

// view is all that is known of the endpoints at one moment.
type view struct {
	policy  *policy.Policy
	counts  map[string]outbox.Counts
	fleet   Fleet
	isFleet bool
	now     time.Time
}

func (a *api) look(ctx context.Context) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, countsTimeout)
	defer cancel()
	counts, err := a.Outbox.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("count deliveries: %w", err)
	}
	v := &view{policy: a.Policy(), counts: counts, now: time.Now()}
	v.fleet, v.isFleet = a.fleet(ctx)
	return v, nil
}

// names lists the endpoints of the file in its order, then the others.
func (v *view) names() []string {
	var names []string
	for _, e := range v.policy.Endpoints {
		names = append(names, e.Name)
	}
	others := map[string]bool{}
	for name := range v.counts {
		others[name] = true
	}
	for _, r := range v.fleet.Relays {
		for name := range r.Endpoints {
			others[name] = true
		}
	}
	for _, name := range names {
		delete(others, name)
	}
	return append(names, slices.Sorted(maps.Keys(others))...)
}

func (v *view) endpoint(name string) Endpoint {
	out := Endpoint{Name: name, State: removed}
	if v.isFleet {
		out.Relays = map[int64]string{}
		for _, r := range v.fleet.Relays {
			if hash, has := r.Endpoints[name]; has {
				out.Relays[r.Number] = hash
			}
		}
		if len(out.Relays) > 0 {
			_, differ := v.fleet.Disagreements[name]
			out.State, out.Agrees = elsewhere, new(!differ)
		}
	}
	if e := v.policy.Endpoint(name); e != nil {
		out.State = disabled
		if e.Enabled {
			out.State = active
		}
		url := *e.URL
		url.User, url.RawQuery, url.ForceQuery = nil, "", false // they may hold a credential
		out.URL, out.Enabled, out.Events = url.String(), e.Enabled, e.Events.String()
		out.Concurrency, out.Hash = e.Concurrency, e.Hash()
	}
	c := v.counts[name]
	out.Deliveries = Deliveries{Accepted: c.Accepted, Delivered: c.Delivered, Failed: c.Failed, Discarded: c.Discarded}
	if out.State == active || out.State == elsewhere {
		out.Deliveries.Pending = c.Pending
	} else {
		out.Deliveries.Held = c.Pending
	}
	if !c.Oldest.IsZero() {
		age := max(0, v.now.Sub(c.Oldest)) // the clock of a shared outbox is another one
		out.Deliveries.OldestMS = new(age.Milliseconds())
	}
	return out
}

// errNoEndpoint: no file and no delivery names it.
var errNoEndpoint = errors.New("no endpoint has this name: GET /v1/endpoints lists them")

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Type   string `json:"type"` // a name, not an address to fetch
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"` // part of the API: never reused or changed
	Detail string `json:"detail"`

	Diagnostics []string `json:"diagnostics,omitempty"` // of a reload that was refused: all of its problems
}

// refuse says why a route under /v1 does not answer.
func refuse(w http.ResponseWriter, err error) {
	p := problem{Title: "Relay met an error of its own", Status: http.StatusInternalServerError, Code: "internal_error", Detail: err.Error()}
	refused, isReload := errors.AsType[*ReloadError](err)
	switch {
	case isReload && refused.Code == NeedsRestart:
		p.Title, p.Status, p.Code, p.Diagnostics = "The change needs a restart", http.StatusConflict, NeedsRestart, refused.Problems
	case isReload:
		p.Title, p.Status, p.Code, p.Diagnostics = "The configuration has errors", http.StatusUnprocessableEntity, InvalidConfig, refused.Problems
	case errors.Is(err, errNoEndpoint):
		p.Title, p.Status, p.Code = "There is no such endpoint", http.StatusNotFound, "endpoint_not_found"
	case errors.Is(err, outbox.ErrUnavailable), errors.Is(err, outbox.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		p.Title, p.Status, p.Code = "The outbox is unavailable", http.StatusServiceUnavailable, "outbox_unavailable"
		w.Header().Set("Retry-After", "2")
	}
	p.Type = "urn:relay:problem:" + p.Code
	write(w, p.Status, "application/problem+json", p)
}
