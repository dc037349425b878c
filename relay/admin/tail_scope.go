package admin

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"relay/outbox"
	"relay/policy"
	"relay/relay/query"
)

// scope is which attempts a reader gets. Labels of endpoints and their tenants are those of the configuration that runs: an
// endpoint that comes to fit later is followed from its first attempt on, and of one that no longer fits nothing more comes.
type scope struct {
	a     *api
	ctx   context.Context // of the request, for its access
	query *query.Query    // as it was asked, of all that there is
	now   atomic.Pointer[scoped]
}

// scoped is the filter under one policy.
type scoped struct {
	policy *policy.Policy
	filter outbox.Filter
}

// newScope returns an error if the query cannot be judged for each attempt.
func (a *api) newScope(ctx context.Context, q *query.Query) (*scope, error) {
	s := &scope{a: a, ctx: ctx, query: q}
	first, err := s.under(a.Policy())
	if err != nil {
		return nil, err
	}
	s.now.Store(first)
	return s, nil
}

// under makes the filter. It asks no outbox.
func (s *scope) under(p *policy.Policy) (*scoped, error) {
	q := s.query
	if access := AccessOf(s.ctx); access.bound() {
		q = q.Within(access.Tenants, access.seen(p))
	}
	filter, err := q.Filter(s.ctx, query.Surroundings{
		Held:     func(context.Context) ([]string, error) { return []string{}, nil }, // no attempt is made for them
		Labelled: p.Labelled,
	})
	if err != nil {
		return nil, fmt.Errorf("filter of a tail: %w", err)
	}
	return &scoped{p, filter}, nil
}

// current is the filter under the policy that runs. It may be called at the same time.
func (s *scope) current() *scoped {
	now := s.now.Load()
	p := s.a.Policy()
	if now.policy == p {
		return now
	}
	next, err := s.under(p)
	if err != nil { // only what is held can fail, and that is given
		next = &scoped{p, outbox.Filter{Endpoints: []string{}}}
	}
	s.now.Store(next)
	return next
}

// watched are the endpoints whose changes of the state are written; none if they are many.
func (s *scoped) watched() []string {
	if len(s.filter.Endpoints) > maxStates {
		return nil
	}
	return s.filter.Endpoints
}

// follows replaces the endpoints whose changes are written, after another configuration has begun to run. The removal of one
// that left is written first, but not to a bound token: the endpoint is no longer there for it.
func (t *tail) follows(now *scoped) error {
	if t.watching == now {
		return nil
	}
	t.watching = now
	if !AccessOf(t.scope.ctx).bound() {
		if err := t.changes(); err != nil {
			return err
		}
	}
	names := now.watched()
	for name := range t.states {
		if !slices.Contains(names, name) {
			delete(t.states, name)
		}
	}
	for _, name := range names {
		if _, known := t.states[name]; !known {
			t.states[name] = t.stateOf(name)
		}
	}
	return nil
}
