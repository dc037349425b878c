package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/audit"
	"relay/relay/deliver"
	"relay/relay/gate"
	"relay/relay/registry"
)

// The states of an endpoint that is in no file of this Relay.
const (
	removed   = string(gate.StateRemoved)
	elsewhere = string(gate.StateElsewhere)
	invalid   = "invalid" // made at run time, and not in force
)

// EndpointList is the answer of GET /v1/endpoints.
type EndpointList struct {
	Endpoints []Endpoint `json:"endpoints"`
	Total     int        `json:"total"` // that fit the query, on all pages

	Summary *EndpointSummary `json:"summary"`

	Runtime *policy.Choices `json:"runtime,omitempty"` // what endpoints made at run time may be, for a token with the right endpoints
}

// Endpoint is an endpoint for operators. It contains no secret: neither user and query of the URL
// nor headers.
type Endpoint struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	URL         string            `json:"url,omitempty"`
	State       string            `json:"state"`                    // active, paused, disabled, removed, elsewhere; invalid for one made at run time that is not in force
	Reason      string            `json:"reason,omitempty"`         // of the state, for people
	Code        string            `json:"code,omitempty"`           // of the state: operator, gone, failing; consent if an active one lacks it
	Since       time.Time         `json:"since,omitzero"`           // of the state, if known
	Paused      bool              `json:"paused,omitempty"`         // beside another state that is shown: it needs resume, too
	Enabled     bool              `json:"enabled"`                  // by the file
	Events      string            `json:"events,omitempty"`         // patterns, or "all"
	Tenants     []string          `json:"tenants,omitempty"`        // whose events alone it gets; all if there are none
	Concurrency int               `json:"concurrency,omitempty"`    // attempts at the same time, of each Relay
	Hash        string            `json:"hash,omitempty" bound:"-"` // changes with the settings
	Deliveries  Deliveries        `json:"deliveries"`

	Made *Made `json:"made,omitempty"` // of one that was made at run time

	// As the answering Relay sees it now.
	Waiting   string     `json:"waiting,omitempty"`   // why nothing is claimed, one of deliver.WaitCauses
	Breaker   string     `json:"breaker,omitempty"`   // closed, open, half_open
	OpenUntil time.Time  `json:"open_until,omitzero"` // of an open breaker: the next probe is not before
	HeldUntil time.Time  `json:"held_until,omitzero"` // by Retry-After: no attempt begins before
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
	InFlight  int        `json:"in_flight"`         // attempts under way
	Failing   *Failing   `json:"failing,omitempty"` // of an active one: at least 3 attempts over 10 s or more, and none delivered since

	Stats  *EndpointStats `json:"stats,omitempty"`  // in the answer for one endpoint, and in lists that ask for stats
	Recent []Delivery     `json:"recent,omitempty"` // the newest 10 deliveries, in the answer for one endpoint

	// Ended lists the causes that resume, enable or a change of the URL ended: paused, disabled, retry_after, breaker.
	Ended []string `json:"ended,omitempty"`

	// By outcome, since the start of the answering Relay.
	Attempts map[deliver.Outcome]int64 `json:"attempts,omitempty"`

	// With a fleet: the hash at each Relay that has the endpoint, by number, and whether
	// all Relays have the same. Left out when unknown.
	Relays map[int64]string `json:"relays,omitempty" bound:"-"`
	Agrees *bool            `json:"agrees,omitempty" bound:"-"`
}

// Failing is a time in which no attempt delivered. It is kept over restarts, and told to all Relays of a fleet, once it lasts
// for 10 s.
type Failing struct {
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`     // attempt that this Relay knows of
	Code     string    `json:"code"`     // of it
	Attempts int       `json:"attempts"` // at least so many
}

// RateLimit is the token bucket of sends.
type RateLimit struct {
	PerSecond float64 `json:"per_second"`
	Tokens    float64 `json:"tokens"` // in it now, as far as the answering Relay knows
}

// Deliveries of an endpoint since the outbox was made:
//
//	Accepted = Pending + Held + Delivered + Failed + Discarded
type Deliveries struct {
	Accepted  int64  `json:"accepted"`
	Pending   int64  `json:"pending"` // due now or later
	Held      int64  `json:"held"`    // pending, at an endpoint that takes none
	Delivered int64  `json:"delivered"`
	Failed    int64  `json:"failed"`
	Discarded int64  `json:"discarded"`
	OldestMS  *int64 `json:"oldest_ms,omitempty"` // age of the oldest that is not over, in milliseconds
}

func (a *api) listEndpoints(w http.ResponseWriter, r *http.Request) {
	v, err := a.look(r.Context())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	s, err := selectionOf(r.URL.Query())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	s.access = AccessOf(r.Context())
	list := s.list(v)
	if s.stats > 0 {
		if err := a.addStats(r, &list, s.stats); err != nil {
			a.refuse(w, r, err)
			return
		}
	}
	if c := v.policy.Compiler(); c != nil && s.access.Has(Endpoints) {
		list.Runtime = new(c.Choices())
		list.Runtime.Secrets = a.Registry != nil && a.Registry.Stores()
	}
	answer(w, http.StatusOK, list)
}

func (a *api) showEndpoint(w http.ResponseWriter, r *http.Request) {
	e, err := a.findEndpoint(r)
	if err == nil {
		err = a.addHistory(r.Context(), e)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, e)
}

// answerEndpoint answers the endpoint of the path, and the causes that the request ended.
func (a *api) answerEndpoint(w http.ResponseWriter, r *http.Request, ended []string) {
	e, err := a.findEndpoint(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	e.Ended = ended
	answer(w, http.StatusOK, e)
}

// findEndpoint is the endpoint of the path. Errors: deliver.ErrNoEndpoint, the outbox's.
func (a *api) findEndpoint(r *http.Request) (*Endpoint, error) {
	name := r.PathValue("name")
	v, err := a.lookFor(r.Context(), name)
	if err != nil {
		return nil, err
	}
	if !v.knows(name) {
		if err := a.wholeFleet(r.Context(), v); err != nil {
			return nil, err
		}
	}
	if !v.knows(name) {
		return nil, deliver.ErrNoEndpoint
	}
	return new(v.endpoint(name)), nil
}

// change is a method that changes an endpoint's state.
type change func(d Deliverer, ctx context.Context, endpoint, by string) (deliver.Status, error)

// enable is the route that enables. Without the right operate it ends Relay's own decision about an endpoint made at run time,
// and no other.
func (a *api) enable() http.HandlerFunc {
	all, again := a.change(Deliverer.Enable), a.change(Deliverer.EnableAgain)
	return func(w http.ResponseWriter, r *http.Request) {
		switch access := AccessOf(r.Context()); {
		case access.Has(Operate):
			all(w, r)
		case a.isMade(r.PathValue("name")):
			again(w, r)
		default:
			a.refuse(w, r, refusal(problem.Forbidden, "", fmt.Sprintf("this token has no right %q: with %q it enables endpoints made at run time alone", Operate, Endpoints)))
		}
	}
}

// isMade tells whether an endpoint was made at run time.
func (a *api) isMade(name string) bool {
	if a.Registry == nil {
		return false
	}
	_, err := a.Registry.Get(name)
	return err == nil
}

// change is the route of such a method.
func (a *api) change(do change) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// The change is made even if the client goes away.
		ctx, cancel := changing(r)
		defer cancel()
		before, _ := a.Deliverer.StatusOf(r.PathValue("name"))
		status, err := do(a.Deliverer, ctx, r.PathValue("name"), "an operator")
		if errors.Is(err, deliver.ErrInFile) && a.isMade(r.PathValue("name")) {
			err = refusal(problem.DisabledInFile, "", "the settings of the endpoint have enabled = false: change them")
		}
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		verb := path.Base(r.URL.Path)
		line := "asked to " + verb + " an endpoint"
		if len(status.Ended) > 0 {
			line += ": ended " + strings.Join(status.Ended, ", ")
		}
		a.Log.Info().Str("by", Who(r)).Str("endpoint", status.Endpoint).Str("state", string(status.State)).Msg(line)
		a.audit(r, audit.Entry{Verb: verb, What: "endpoint " + status.Endpoint, Before: stateOf(&before), After: stateOf(&status)})
		a.answerEndpoint(w, r, status.Ended)
	}
}

// stateOf is what the audit tells of an endpoint.
func stateOf(s *deliver.Status) json.RawMessage {
	return audit.State(struct {
		State  deliver.State `json:"state"`
		Paused bool          `json:"paused,omitempty"` // and disabled, too
		Ended  []string      `json:"ended,omitempty"`
	}{s.State, s.PausedToo, s.Ended})
}

// view is a snapshot of all endpoints.
type view struct {
	policy  *policy.Policy
	status  map[string]deliver.Status
	counts  map[string]outbox.Counts
	made    map[string]registry.Endpoint
	fleet   Fleet
	isFleet bool
	now     time.Time
}

func (a *api) look(ctx context.Context) (*view, error) {
	return a.lookAt(ctx, func(v *view) {
		for _, s := range a.Deliverer.Status() {
			v.status[s.Endpoint] = s
		}
		if a.Registry != nil {
			for _, e := range a.Registry.List() {
				v.made[e.Name] = e
			}
		}
	})
}

// lookFor is look for an answer about one endpoint, which must not cost what all of them do.
func (a *api) lookFor(ctx context.Context, name string) (*view, error) {
	return a.lookAt(ctx, func(v *view) {
		if s, ok := a.Deliverer.StatusOf(name); ok {
			v.status[name] = s
		}
		if a.Registry == nil {
			return
		}
		if e, err := a.Registry.Get(name); err == nil {
			v.made[name] = e
		}
	})
}

// lookAt makes a view of what collect adds to it.
func (a *api) lookAt(ctx context.Context, collect func(*view)) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, countsTimeout)
	defer cancel()
	counts, err := a.Outbox.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("count deliveries: %w", err)
	}
	v := &view{policy: a.Policy(), status: map[string]deliver.Status{}, counts: counts, made: map[string]registry.Endpoint{}, now: time.Now()}
	collect(v)
	v.fleet, v.isFleet = a.fleet(ctx)
	return v, nil
}

// wholeFleet asks for the fleet again, if it is not known.
func (a *api) wholeFleet(ctx context.Context, v *view) (err error) {
	if !v.isFleet {
		v.fleet, err = a.fleetOrError(ctx)
		v.isFleet = a.Fleet != nil && err == nil
	}
	return err
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
	for name := range v.status {
		others[name] = true
	}
	for name := range v.made {
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

func (v *view) knows(name string) bool {
	_, counted := v.counts[name]
	_, remembered := v.status[name]
	_, made := v.made[name]
	return counted || remembered || made || v.policy.Endpoint(name) != nil || len(v.hashes(name)) > 0
}

// hashes are those of the endpoint's settings at each Relay of the fleet that has it.
func (v *view) hashes(name string) map[int64]string {
	at := map[int64]string{}
	for _, r := range v.fleet.Relays {
		if hash, has := r.Endpoints[name]; has {
			at[r.Number] = hash
		}
	}
	return at
}

// state is that of an endpoint.
func (v *view) state(name string) string {
	state := removed
	switch {
	case v.policy.Endpoint(name) != nil:
		state = string(deliver.Active)
	case v.made[name].Flaws != nil:
		return invalid
	case v.isFleet && len(v.hashes(name)) > 0:
		state = elsewhere
	default:
		return state // even if it was paused before
	}
	if s := v.status[name].State; s != "" && s != deliver.Active {
		state = string(s)
	}
	return state
}

func (v *view) endpoint(name string) Endpoint {
	out := v.brief(name)
	v.addHash(&out)
	return out
}

// addHash adds the hash of an endpoint, which costs more than all the rest of it.
func (v *view) addHash(out *Endpoint) {
	if e := v.policy.Endpoint(out.Name); e != nil {
		out.Hash = e.Hash()
	}
}

// brief is an endpoint without its hash.
func (v *view) brief(name string) Endpoint {
	out := Endpoint{Name: name, State: v.state(name)}
	if v.isFleet {
		out.Relays = v.hashes(name)
		if len(out.Relays) > 0 {
			_, differ := v.fleet.Disagreements[name]
			out.Agrees = new(!differ)
		}
	}
	if e := v.policy.Endpoint(name); e != nil {
		url := e.ShownURL()
		url.User, url.RawQuery, url.ForceQuery = nil, "", false // they may hold a credential
		out.URL, out.Enabled, out.Events = url.String(), e.Enabled, e.Show("events", e.Events.String())
		shown := e.Shown()
		out.Description, out.Concurrency = shown.Description, shown.Concurrency
		if e.Filter != nil && !e.Hides("tenants") {
			out.Tenants = e.Filter.Tenants
		}
		for _, l := range shown.Labels {
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[l.Name] = l.Value
		}
	}
	out.describe(v.status[name])
	if e, ok := v.made[name]; ok && (v.policy.Endpoint(name) == nil || v.policy.Endpoint(name).Made) {
		if out.Made = madeOf(e); out.State == invalid {
			out.Reason = e.Flaws[0].Error()
		}
	}
	c := v.counts[name]
	out.Deliveries = Deliveries{Accepted: c.Accepted, Delivered: c.Delivered, Failed: c.Failed, Discarded: c.Discarded}
	if takes(out.State) {
		out.Deliveries.Pending = c.Pending
	} else {
		out.Deliveries.Held = c.Pending
	}
	if !c.Oldest.IsZero() {
		age := max(0, v.now.Sub(c.Oldest)) // a shared outbox has a clock of its own
		out.Deliveries.OldestMS = new(age.Milliseconds())
	}
	return out
}

// takes tells whether deliveries of an endpoint in this state are made; else they are held.
func takes(state string) bool { return state == string(deliver.Active) || state == elsewhere }

// describe adds the deliverer's status.
func (out *Endpoint) describe(s deliver.Status) {
	out.Reason, out.Code, out.Since, out.Paused = s.Reason, s.Code, s.Since, s.PausedToo
	out.Waiting, out.Breaker, out.OpenUntil, out.HeldUntil = s.Waiting, s.Breaker, s.OpenUntil, s.HeldUntil
	if s.Limit > 0 {
		out.RateLimit = &RateLimit{PerSecond: s.Limit, Tokens: s.Tokens}
	}
	out.InFlight, out.Attempts = s.InFlight, s.Attempts
	if f := s.Failing; f != nil {
		out.Failing = &Failing{f.Since, f.Last, f.Code, f.Attempts}
	}
}

// backlog is how many deliveries are not over.
func (e *Endpoint) backlog() int64 { return e.Deliveries.Pending + e.Deliveries.Held }

// created is when it was made at run time, zero if it was not.
func (e *Endpoint) created() time.Time {
	if e.Made == nil {
		return time.Time{}
	}
	return e.Made.Created
}
