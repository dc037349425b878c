package admin

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/ingest/problem"
	"relay/internal/sorting"
)

// selection is the query of GET /v1/endpoints.
type selection struct {
	access                 *Access
	states, tenants, words []string
	labels                 map[string]string
	made                   *bool
	sort                   string
	limit, offset          int
	stats                  time.Duration // that statistics go back; 0 for none
}

// maxEndpoints is the largest limit.
const maxEndpoints = 1000

// sorts are the orders, by name, of which the first is that of the file.
func sorts() map[string]func(a, b *Endpoint) int {
	return map[string]func(a, b *Endpoint) int{
		"":      nil,
		"name":  func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) },
		"state": func(a, b *Endpoint) int { return cmp.Or(cmp.Compare(a.State, b.State), cmp.Compare(a.Name, b.Name)) },
		"pending": func(a, b *Endpoint) int {
			return cmp.Or(cmp.Compare(b.backlog(), a.backlog()), cmp.Compare(a.Name, b.Name))
		},
		"failed": func(a, b *Endpoint) int {
			return cmp.Or(cmp.Compare(b.Deliveries.Failed, a.Deliveries.Failed), cmp.Compare(a.Name, b.Name))
		},
		"attention": byAttention,
		"created":   func(a, b *Endpoint) int { return cmp.Or(b.created().Compare(a.created()), cmp.Compare(a.Name, b.Name)) },
	}
}

func selectionParams() []param {
	return []param{
		{"state", "active, paused, disabled, removed, elsewhere, invalid; repeatable", "paused"},
		{"label.NAME", "endpoints with this value of a label", "label.project=checkout"},
		{"tenant", "endpoints for this tenant; repeatable", "acme"},
		{"made", "true: made at run time; false: of the file", "true"},
		{"q", "a part of name, URL or description, in any case", "billing"},
		{"sort", "name, state, pending, failed (most first), created (newest first), attention (those that need a person, then the largest backlog); the order of the file by default", "pending"},
		{"limit", "1 to 1000; all by default", "100"},
		{"stats", "`24h`, `7d`: each endpoint has statistics of this time; with at most 100 endpoints on a page", "24h"},
		{"offset", "how many to leave out first", "100"},
	}
}

func selectionOf(q url.Values) (*selection, error) {
	s := &selection{labels: map[string]string{}}
	for key, values := range q {
		last := values[len(values)-1]
		var err error
		switch name, label := strings.CutPrefix(key, "label."); {
		case label:
			s.labels[name] = last
		case key == "state":
			s.states = values
		case key == "tenant":
			s.tenants = values
		case key == "q":
			s.words = strings.Fields(strings.ToLower(last))
		case key == "made":
			var made bool
			if made, err = strconv.ParseBool(last); err == nil {
				s.made = &made
			}
		case key == "sort":
			if _, ok := sorts()[last]; !ok {
				err = fmt.Errorf("there is no such order")
			}
			s.sort = last
		case key == "limit":
			s.limit, err = between(last, 1, maxEndpoints)
		case key == "stats":
			var ok bool
			if s.stats, ok = statsBack(last); !ok {
				err = fmt.Errorf("it is no number of hours or days")
			}
		case key == "offset":
			s.offset, err = between(last, 0, 1<<30)
		default:
			p := problem.New(problem.UnknownParameter, "the parameters are state, label.NAME, tenant, made, q, sort, limit, offset and stats")
			p.Field = key
			return nil, refused{p}
		}
		if err != nil {
			p := problem.New(problem.InvalidParameter, key+": "+explainParam(key))
			p.Field = key
			return nil, refused{p}
		}
	}
	if s.stats > 0 && (s.limit == 0 || s.limit > maxWithStats) {
		s.limit = maxWithStats
	}
	for _, state := range s.states {
		if !slices.Contains([]string{"active", "paused", "disabled", removed, elsewhere, invalid}, state) {
			p := problem.New(problem.InvalidParameter, "state: "+explainParam("state"))
			p.Field = "state"
			return nil, refused{p}
		}
	}
	return s, nil
}

func explainParam(name string) string {
	for _, p := range selectionParams() {
		if p.name == name {
			return p.about
		}
	}
	return ""
}

func between(text string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && (n < lo || n > hi) {
		err = strconv.ErrRange
	}
	return n, err
}

// list is the page of the endpoints that fit.
func (s *selection) list(v *view) EndpointList {
	all := []Endpoint{}
	for _, name := range v.names() {
		if !s.access.sees(v.policy.Endpoint(name), name) {
			continue
		}
		if e := v.brief(name); s.fits(v, &e) {
			all = append(all, e)
		}
	}
	if order := sorts()[s.sort]; order != nil {
		sorting.By(all, func(a, b Endpoint) int { return order(&a, &b) })
	}
	list := EndpointList{Endpoints: all[min(s.offset, len(all)):], Total: len(all), Summary: summaryOf(all)}
	if s.limit > 0 {
		list.Endpoints = list.Endpoints[:min(s.limit, len(list.Endpoints))]
	}
	for i := range list.Endpoints {
		v.addHash(&list.Endpoints[i])
	}
	return list
}

func (s *selection) fits(v *view, e *Endpoint) bool {
	for name, value := range s.labels {
		if e.Labels[name] != value {
			return false
		}
	}
	if len(s.tenants) > 0 {
		p := v.policy.Endpoint(e.Name)
		if p == nil || p.Filter == nil || !slices.ContainsFunc(s.tenants, func(t string) bool { return slices.Contains(p.Filter.Tenants, t) }) {
			return false
		}
	}
	text := strings.ToLower(e.Name + " " + e.URL + " " + e.Description)
	for _, word := range s.words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return (len(s.states) == 0 || slices.Contains(s.states, e.State)) && (s.made == nil || *s.made == (e.Made != nil))
}
