package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/audit"
	"relay/relay/query"
)

// AuditList is a page of what operators changed, newest first.
type AuditList struct {
	Items []AuditEntry `json:"items"`
	Next  *string      `json:"next"` // cursor of the next page, null after the last one
}

// AuditEntry is a change that an operator made.
type AuditEntry struct {
	N      uint64          `json:"n"` // from 1, without gaps
	Time   time.Time       `json:"time"`
	Who    string          `json:"who"`              // "uid 1000" of a process at the Unix socket, "admin token", or "local" where no token is needed
	Verb   string          `json:"verb"`             // as on the command line
	What   string          `json:"what"`             // endpoint, delivery, event or job that was changed
	Count  *Total          `json:"count,omitempty"`  // of deliveries or events; of a job at its begin those that match, at its end those that it changed
	Before json.RawMessage `json:"before,omitempty"` // as far as it is known; no secrets
	After  json.RawMessage `json:"after,omitempty"`
}

func (a *api) auditRoutes() []route {
	return []route{{
		id: "listAudit", method: "GET", path: "/v1/audit", verb: "relay audit", summary: "List what operators changed, newest first",
		about: "At least the last 100,000 changes are kept. A job has an entry for its begin and one for its end. With a filter an answer looks through 10,000 changes; `next` goes on behind them.",
		params: append(pageParams(),
			param{name: "who", about: "a part of who made the change, in any case", example: "support"},
			param{name: "verb", about: "what was done, or its first word; may be given more than once", example: "pause"},
			param{name: "what", about: "a part of what was changed, in any case", example: "endpoint billing"},
			param{name: "since", about: "a time, or a duration back from now", example: "24h"},
			param{name: "until", about: "a time, or a duration back from now", example: "2h"}),
		answer: AuditList{}, codes: []problem.Code{problem.InvalidParameter, problem.UnknownParameter, problem.InvalidCursor}, handle: a.listAudit,
	}}
}

// auditFilter is what the caller asks for in the audit.
type auditFilter struct {
	who, what    string // in small letters
	verbs        []string
	since, until time.Time
}

// auditFilterOf reads the filter, and takes it out of the parameters.
func auditFilterOf(q url.Values, now time.Time) (f auditFilter, err error) {
	for _, name := range []string{"who", "verb", "what", "since", "until"} {
		values := q[name]
		q.Del(name)
		for i, v := range values {
			switch {
			case v == "":
				return f, refusal(problem.InvalidParameter, name, name+" is empty: give a value, or leave it out")
			case i > 0 && name != "verb":
				return f, refusal(problem.InvalidParameter, name, name+" may be given once")
			}
			switch name {
			case "who":
				f.who = strings.ToLower(v)
			case "what":
				f.what = strings.ToLower(v)
			case "verb":
				f.verbs = append(f.verbs, v)
			case "since":
				f.since, err = query.Moment(name, v, now)
			case "until":
				f.until, err = query.Moment(name, v, now)
			}
			if err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

// fits returns what tells whether an entry is asked for; nil if all are.
func (f *auditFilter) fits() func(*audit.Entry) bool {
	if f.who == "" && f.what == "" && f.verbs == nil && f.until.IsZero() {
		return nil
	}
	return func(e *audit.Entry) bool {
		is := func(verb string) bool { return e.Verb == verb || strings.HasPrefix(e.Verb, verb+" ") }
		return strings.Contains(strings.ToLower(e.Who), f.who) && strings.Contains(strings.ToLower(e.What), f.what) &&
			(f.verbs == nil || slices.ContainsFunc(f.verbs, is)) && (f.until.IsZero() || e.Time.Before(f.until))
	}
}

// pageParams are those of lists without a filter.
func pageParams() []param {
	return []param{
		{name: "limit", about: "items of a page, 1 to 100; 20 by default", example: "50"},
		{name: "cursor", about: "`next` of the page before", example: ""},
	}
}

func (a *api) listAudit(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filter, err := auditFilterOf(q, time.Now())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	limit, cursor, err := pageOf(q, "who", "verb", "what", "since", "until")
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	var before uint64
	if cursor != "" {
		if before, err = strconv.ParseUint(cursor, 10, 63); err != nil || before == 0 {
			a.refuse(w, r, outbox.ErrCursor)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	entries, next, err := audit.Find(ctx, a.Edits, audit.Search{Before: before, Limit: limit, Since: filter.since, Fits: filter.fits()})
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	list := AuditList{Items: []AuditEntry{}}
	for i := range entries {
		e := &entries[i]
		list.Items = append(list.Items, AuditEntry{N: e.N, Time: e.Time, Who: e.Who, Verb: e.Verb, What: e.What, Count: countOf(e), Before: e.Before, After: e.After})
	}
	if next > 0 {
		list.Next = new(strconv.FormatUint(next, 10))
	}
	answer(w, http.StatusOK, list)
}

// countOf is what an entry counted, nil for nothing.
func countOf(e *audit.Entry) *Total {
	if e.Count == nil {
		return nil
	}
	return &Total{N: *e.Count, AtLeast: e.AtLeast}
}

// pageOf reads limit and cursor. others are the other parameters that the list has, which were taken out.
func pageOf(q url.Values, others ...string) (limit int, cursor string, err error) {
	limit = 20
	for name, values := range q {
		switch {
		case name != "limit" && name != "cursor":
			return 0, "", refusal(problem.UnknownParameter, name, "there is no parameter "+shorten(name)+" here. There are "+strings.Join(append(others, "limit"), ", ")+" and cursor")
		case len(values) != 1:
			return 0, "", refusal(problem.InvalidParameter, name, name+" may be given once")
		case name == "cursor":
			cursor = values[0]
		default:
			if limit, err = strconv.Atoi(values[0]); err != nil || limit < 1 || limit > outbox.MaxPage {
				return 0, "", refusal(problem.InvalidParameter, name, "limit is "+shorten(values[0])+"; it is a number from 1 to 100")
			}
		}
	}
	return limit, cursor, nil
}

// audited writes a change to the log and the audit.
func (a *api) audited(r *http.Request, e audit.Entry) {
	line := a.Log.Info().Str("by", Who(r))
	if e.Count != nil && !e.AtLeast {
		line = line.Int64("done", *e.Count)
	}
	line.Msg("asked to " + e.Verb + " " + e.What)
	a.audit(r, e)
}

// audit writes a change to the audit. The change was made: that an outbox does not take the entry is told in the log.
func (a *api) audit(r *http.Request, e audit.Entry) {
	if a.Edits == nil {
		return
	}
	e.Who = Who(r)
	ctx, cancel := changing(r)
	defer cancel()
	if err := audit.Write(ctx, a.Edits, e); err != nil {
		a.Log.Warn().Str("by", e.Who).Err(err).Msg("a change is not in the audit: " + e.Verb + " " + e.What)
	}
}
