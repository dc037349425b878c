package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/audit"
	"relay/relay/jobs"
	"relay/relay/query"
)

// BulkRequest is what routes for many deliveries take beside a filter.
type BulkRequest struct {
	DryRun bool    `json:"dry_run,omitempty"` // only count what matches
	Rate   float64 `json:"rate,omitempty"`    // deliveries per second, at most; 0.01 to 100,000, no bound by default
	To     string  `json:"to,omitempty"`      // of redeliveries: endpoint that gets them, that of each delivery by default
	Force  bool    `json:"force,omitempty"`   // of erasures: discard what is pending
}

// BulkAnswer tells how many deliveries match.
type BulkAnswer struct {
	ID      string              `json:"id,omitempty"` // of the job: GET /v1/jobs/{id} shows its progress; left out for a dry run
	Matched Total               `json:"matched"`
	Resent  *Total              `json:"resent,omitempty"` // of redeliveries: those that match and whose event was sent again since to the same endpoint
	DryRun  bool                `json:"dry_run,omitempty"`
	Filter  map[string][]string `json:"filter"` // as it was understood, with times for durations

	// Warning names endpoints that are paused or disabled, of a retry, or says that the endpoint of a redelivery takes
	// other events by itself.
	Warning string `json:"warning,omitempty"`
}

// JobList is a page of jobs, newest first.
type JobList struct {
	Items []Job   `json:"items"`
	Next  *string `json:"next"` // cursor of the next page, null after the last one
	Total *Total  `json:"total,omitempty"`
}

// Job is work on all deliveries that a filter matches.
type Job struct {
	ID     string `json:"id"`
	Action string `json:"action"` // redeliver, retry, discard or erase
	State  string `json:"state"`  // waiting, running, done, cancelled or failed

	Filter map[string][]string `json:"filter"` // with times for durations
	To     string              `json:"to,omitempty"`
	Rate   float64             `json:"rate,omitempty"`
	Force  bool                `json:"force,omitempty"`

	Matched Total            `json:"matched"` // deliveries, when the job was made
	Seen    int64            `json:"seen"`    // done and skipped so far
	Done    int64            `json:"done"`    // deliveries, or events of an erasure, that were changed
	Skipped map[string]int64 `json:"skipped"` // those that were not, by reason: their state, not_found, erased, under_way, endpoint_removed, already, repeat, on_its_way, delivered_since, error
	Error   string           `json:"error,omitempty"`

	Who         string    `json:"who"`
	CancelledBy string    `json:"cancelled_by,omitempty"`
	Relay       string    `json:"relay,omitempty" bound:"-"` // that works on it, or did so last
	Created     time.Time `json:"created"`
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
}

// jobOf converts a job.
func jobOf(j *jobs.Job) Job {
	out := Job{
		ID: j.ID, Action: string(j.Action), State: string(j.State), Filter: j.Filter, To: j.To, Rate: j.Rate, Force: j.Force,
		Matched: Total{N: j.Matched, AtLeast: !j.Exact}, Seen: j.Seen(), Done: j.Done, Skipped: j.Skipped, Error: j.Error,
		Who: j.Who, CancelledBy: j.CancelledBy, Relay: j.Relay, Created: j.Created, Started: j.Started, Ended: j.Ended,
	}
	if out.Skipped == nil {
		out.Skipped = map[string]int64{}
	}
	return out
}

// bulk is an action on many deliveries.
type bulk struct {
	action outbox.Action
	states []string // that it can change, besides those that it takes by default; nil for all
	usual  []string // states that are meant where the filter names none
}

func (a *api) jobRoutes() []route {
	var all []route
	for _, b := range []struct {
		bulk
		id, path, summary, about string
	}{
		{bulk{outbox.Retry, []string{"pending", "held"}, []string{"pending", "held"}}, "retryDeliveries", "/v1/retries", "Make all pending deliveries of a filter due now",
			"Limits, breaker and pause of their endpoints still hold."},
		{bulk{outbox.Redeliver, []string{"failed", "delivered", "success", "discarded"}, []string{"failed"}}, "redeliverDeliveries", "/v1/redeliveries", "Send the events of all deliveries of a filter again",
			"Without `state` those that failed. An event is sent again once to an endpoint, however many of its deliveries match, never faster than the limits of the endpoint. It is not sent where another delivery of it to the endpoint is pending (`on_its_way`), " +
				"nor, unless `state` has `delivered`, where a later one was delivered (`delivered_since`); at the endpoint of `to` any other one counts as later."},
		{bulk{outbox.Discard, []string{"pending", "held"}, []string{"pending", "held"}}, "discardDeliveries", "/v1/discards", "End all pending deliveries of a filter without an attempt", ""},
		{bulk{outbox.Erase, nil, nil}, "eraseEvents", "/v1/erasures", "Erase the data of the events of all deliveries of a filter for good",
			"Events without a delivery are erased one by one, by their id."},
	} {
		all = append(all, route{
			id: b.id, method: "POST", path: b.path, verb: "relay " + string(b.action) + " …", summary: b.summary,
			about: strings.TrimSpace(b.about + " A job does it, which survives restarts: 202 with its id. Deliveries that are accepted later are not part of it."),
			body:  BulkRequest{}, filters: true, status: http.StatusAccepted, answer: BulkAnswer{}, others: map[int]any{http.StatusOK: BulkAnswer{}},
			codes:  filterCodes(problem.EmptyFilter, problem.NothingMatched, problem.TooManyJobs, problem.OtherTenant, problem.EndpointNotFound, problem.EmptyBody, problem.InvalidJSON, problem.InvalidBody, problem.BodyTooLarge),
			handle: func(w http.ResponseWriter, r *http.Request) { a.startJob(w, r, b.bulk) },
		})
	}
	return append(all, route{
		id: "listJobs", method: "GET", path: "/v1/jobs", verb: "relay jobs", summary: "List jobs, newest first",
		about:  "Jobs that have ended are kept for 30 days, and 1,000 of them.",
		params: pageParams(), answer: JobList{}, codes: []problem.Code{problem.InvalidParameter, problem.UnknownParameter, problem.InvalidCursor}, handle: a.listJobs,
	}, route{
		id: "getJob", method: "GET", path: "/v1/jobs/{id}", verb: "relay jobs ID", summary: "Show one job with its progress",
		answer: Job{}, codes: []problem.Code{problem.JobNotFound, problem.OtherKind}, handle: a.showJob,
	}, route{
		id: "cancelJob", method: "POST", path: "/v1/jobs/{id}/cancel", verb: "relay jobs cancel ID", summary: "End a job: changes that it made stay",
		about:  "A job that is being worked on stops within a second or two, and is still running in the answer.",
		answer: Job{}, codes: []problem.Code{problem.JobNotFound, problem.OtherKind, problem.JobEnded}, handle: a.cancelJob,
	})
}

func (a *api) startJob(w http.ResponseWriter, r *http.Request, b bulk) {
	ctx, cancel := changing(r)
	defer cancel()
	out, err := a.start(ctx, w, r, b)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	status := http.StatusAccepted
	if out.DryRun {
		status = http.StatusOK
	}
	answer(w, status, out)
}

func (a *api) start(ctx context.Context, w http.ResponseWriter, r *http.Request, b bulk) (*BulkAnswer, error) {
	if access := AccessOf(r.Context()); b.action == outbox.Erase && access.bound() && access.Endpoints != nil {
		return nil, refusal(problem.Forbidden, "", "this token is bound to endpoints, and the data of an event is that of all its endpoints: erase events one by one")
	}
	body, err := readBody(w, r, bulkBody)
	if err != nil {
		return nil, err
	}
	names := []string{"dry_run", "rate"}
	switch b.action {
	case outbox.Redeliver:
		names = append(names, "to")
	case outbox.Erase:
		names = append(names, "force")
	}
	parser := a.parser()
	q, members, err := parser.Body(body, names...)
	if err != nil {
		return nil, err
	}
	options, err := bulkOptions(members)
	if err == nil {
		q, err = b.complete(q, parser)
	}
	if err == nil {
		err = mayFind(r.Context(), q)
	}
	if err == nil {
		err = a.areThere(r.Context(), q.Values()["endpoint"])
	}
	if err == nil {
		if q = a.narrow(r.Context(), q); q.Nothing() {
			err = nothingMatched()
		}
	}
	var warning string
	if err == nil && options.To != "" {
		warning, err = a.jobGoesTo(ctx, r, options.To, q.Values())
	}
	if err != nil {
		return nil, err
	}
	filter, err := a.Jobs.Prepare(q)
	if err != nil {
		return nil, err
	}
	out := &BulkAnswer{DryRun: options.DryRun, Filter: filter, Warning: warning}
	if err := a.matched(ctx, out, filter, b.action); err != nil || options.DryRun {
		return out, err
	}
	if err := a.roomForJob(ctx); err != nil {
		return nil, err
	}
	job, err := a.Jobs.Start(ctx, jobs.Job{
		Action: b.action, Filter: filter, To: options.To, Rate: options.Rate, Force: options.Force,
		Matched: out.Matched.N, Exact: !out.Matched.AtLeast, Who: owner(r),
	})
	if errors.Is(err, jobs.ErrTooMany) {
		return nil, refusal(problem.TooManyJobs, "", fmt.Sprintf("%d jobs are open: wait for one of them, or cancel it. GET /v1/jobs lists them", jobs.MaxOpen))
	}
	if err != nil {
		return nil, err
	}
	out.ID = job.ID
	a.audited(r, audit.Entry{Verb: string(b.action), What: "job " + job.ID, Count: &out.Matched.N, AtLeast: out.Matched.AtLeast, After: audit.State(struct {
		Filter url.Values `json:"filter"`
		BulkRequest
	}{filter, options})})
	return out, nil
}

// maxOfBound is how many open jobs an access has that is bound to tenants or endpoints, so that others find room.
const maxOfBound = jobs.MaxOpen / 10

// roomForJob refuses a job of a bound access that has many.
func (a *api) roomForJob(ctx context.Context) error {
	access := AccessOf(ctx)
	if !access.bound() {
		return nil
	}
	all, err := a.Jobs.List(ctx)
	if err != nil {
		return err
	}
	open := 0
	for i := range all {
		if access.seesJob(&all[i]) && !all[i].State.Over() {
			open++
		}
	}
	if open >= maxOfBound {
		return refusal(problem.TooManyJobs, "", fmt.Sprintf("%d jobs of this token are open: wait for one of them, or cancel it. GET /v1/jobs lists them", open))
	}
	return nil
}

// matched counts what a filter matches, which must be something.
func (a *api) matched(ctx context.Context, out *BulkAnswer, filter url.Values, action outbox.Action) error {
	f, err := a.Jobs.Filter(ctx, filter)
	if err != nil {
		return err
	}
	if out.Matched, err = a.count(ctx, f); err != nil {
		return err
	}
	if out.Matched.N == 0 && !out.Matched.AtLeast {
		return nothingMatched()
	}
	switch {
	case action == outbox.Retry:
		out.Warning, err = a.stayHeld(ctx, f)
	case action == outbox.Redeliver && f.Resent == nil:
		f.Resent = new(true)
		var resent Total
		resent, err = a.count(ctx, f)
		out.Resent = &resent
	}
	return err
}

func nothingMatched() error {
	return refusal(problem.NothingMatched, "", "no delivery matches this filter, so nothing was done: GET /v1/deliveries with the same filter shows none either. Leave out a condition")
}

// bulkOptions reads the members beside the filter.
func bulkOptions(members map[string]jsontext.Value) (o BulkRequest, err error) {
	if o.To, err = textOf(members, "to"); err != nil {
		return o, err
	}
	if o.DryRun, err = boolOf(members, "dry_run"); err != nil {
		return o, err
	}
	if o.Force, err = boolOf(members, "force"); err != nil {
		return o, err
	}
	if v, ok := members["rate"]; ok {
		o.Rate, err = strconv.ParseFloat(string(v), 64)
		if err != nil || v.Kind() != '0' || o.Rate < jobs.MinRate || o.Rate > jobs.MaxRate {
			return o, refusal(problem.InvalidParameter, "rate", "rate is deliveries per second: a number from 0.01 to 100000; leave it out for no bound")
		}
	}
	return o, nil
}

// complete adds the states that are meant where the filter names none, and refuses those that the action cannot change.
func (b *bulk) complete(q *query.Query, parser query.Parser) (*query.Query, error) {
	if q.All() {
		return nil, refusal(problem.EmptyFilter, "", `the filter selects every delivery: name a condition, like endpoint, state or since; {"until":"0s"} selects all that there are`)
	}
	values := q.Values()
	if b.states == nil {
		return q, nil
	}
	for _, state := range values["state"] {
		if !slices.Contains(b.states, state) {
			return nil, refusal(problem.InvalidParameter, "state", b.other(state))
		}
	}
	if !values.Has("state") {
		values["state"] = b.usual
	}
	return parser.Values(values, query.Bulk)
}

// other says what to do with deliveries in a state that the action cannot change.
func (b *bulk) other(state string) string {
	if b.action == outbox.Redeliver {
		return fmt.Sprintf("deliveries that are %s cannot be sent again before they are over: POST /v1/retries makes them due now. state can be failed, delivered or discarded", state)
	}
	return fmt.Sprintf("deliveries that are %s are over: POST /v1/redeliveries sends their events again. state can be pending or held", state)
}

func (a *api) listJobs(w http.ResponseWriter, r *http.Request) {
	limit, cursor, err := pageOf(r.URL.Query())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	all, err := a.Jobs.List(ctx)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if access := AccessOf(r.Context()); access.bound() {
		all = slices.DeleteFunc(all, func(j jobs.Job) bool { return !access.seesJob(&j) })
	}
	list := JobList{Items: []Job{}, Total: &Total{N: int64(len(all))}}
	if cursor != "" {
		i := slices.IndexFunc(all, func(j jobs.Job) bool { return cmp.Compare(j.ID, cursor) < 0 })
		if !strings.HasPrefix(cursor, "job_") {
			a.refuse(w, r, outbox.ErrCursor)
			return
		}
		if i < 0 {
			i = len(all)
		}
		all = all[i:]
	}
	for i := range all[:min(limit, len(all))] {
		list.Items = append(list.Items, jobOf(&all[i]))
	}
	if len(all) > limit {
		list.Next = new(all[limit-1].ID)
	}
	answer(w, http.StatusOK, list)
}

func (a *api) showJob(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	job, err := a.Jobs.Get(ctx, r.PathValue("id"))
	if err != nil {
		a.refuse(w, r, noJob(r.PathValue("id"), err))
		return
	}
	answer(w, http.StatusOK, jobOf(&job))
}

func (a *api) cancelJob(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changing(r)
	defer cancel()
	id := r.PathValue("id")
	job, err := a.Jobs.Cancel(ctx, id, owner(r))
	switch {
	case errors.Is(err, jobs.ErrOver) && !job.State.Over():
		a.refuse(w, r, refusal(problem.JobEnded, "id", "the job was cancelled already, and ends within seconds: GET /v1/jobs/{id} shows by whom"))
		return
	case errors.Is(err, jobs.ErrOver):
		a.refuse(w, r, refusal(problem.JobEnded, "id", fmt.Sprintf("the job is %s since %s: GET /v1/jobs/{id} shows it", job.State, job.Ended.Format(time.RFC3339))))
		return
	case err != nil:
		a.refuse(w, r, noJob(id, err))
		return
	}
	e := audit.Entry{Verb: "cancel", What: "job " + id, Count: new(job.Done)}
	if job.State.Over() { // else it ends when the Relay that works on it has seen the wish, with an entry of its own
		e.After = audit.State(struct {
			State jobs.State `json:"state"`
		}{job.State})
	}
	a.audited(r, e)
	answer(w, http.StatusOK, jobOf(&job))
}

// noJob says why there is no job of an id, and where to look instead.
func noJob(id string, err error) error {
	if !errors.Is(err, outbox.ErrNotFound) {
		return err
	}
	switch {
	case strings.HasPrefix(id, "dlv_"):
		return refusal(problem.OtherKind, "id", shorten(id)+" is the id of a delivery: GET /v1/deliveries/{id} has it")
	case strings.HasPrefix(id, "evt_"):
		return refusal(problem.OtherKind, "id", shorten(id)+" is the id of an event: GET /v1/events/{id} has it")
	}
	return refusal(problem.JobNotFound, "id", "there is no job "+shorten(id)+": jobs that have ended are kept for 30 days. GET /v1/jobs lists them")
}
