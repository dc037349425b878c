package app

import (
	"errors"
	"path/filepath"
	"time"

	"relay/ingest"
	"relay/ingest/problem"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/deliver"
	"relay/relay/explain"
)

// running describes the configuration that runs.
func (a *App) running() admin.Running {
	now := a.live.Load()
	out := admin.Running{
		Config: a.configStatus(), Problems: []string{}, Files: []string{},
		EventTypes: len(now.policy.Types), LastChange: now.change,
	}
	for _, e := range now.policy.Endpoints {
		if !e.Made {
			out.Endpoints++
		}
	}
	for _, path := range now.files {
		if whole, err := filepath.Abs(path); err == nil {
			path = whole
		}
		out.Files = append(out.Files, path)
	}
	if e := a.refused.Load(); e != nil {
		out.Problems = e.Problems
	}
	return out
}

// explain says who would get an event now.
func (a *App) explain(event []byte, endpoint string) (explain.Explanation, error) {
	p, c := a.live.Load().policy, a.o.Config
	endpoints := p.Endpoints
	if endpoint != "" {
		e := p.Endpoint(endpoint)
		if e == nil {
			return explain.Explanation{}, deliver.ErrNoEndpoint
		}
		endpoints = []*policy.Endpoint{e}
	}
	entry, err := ingest.ParseEvent(event, ingest.Options{Route: p.Route, Type: p.Type, MaxBody: c.Ingest.MaxBody, Strict: c.Ingest.Strict})
	if e, ok := errors.AsType[*ingest.EventError](err); ok {
		refusal := problem.New(problem.Code(e.Code), e.Detail)
		refusal.Field, refusal.Pointer = e.Field, e.Pointer
		if e.Offset >= 0 {
			refusal.Offset = &e.Offset
		}
		return explain.Explanation{}, admin.Refusal(refusal)
	}
	if err != nil {
		return explain.Explanation{}, admin.Refusal(problem.New(problem.InvalidEvent, err.Error()))
	}
	return explain.For(&entry, endpoints, explain.Options{Version: a.o.Version, Own: a.own, Now: time.Now().UTC()}), nil
}
