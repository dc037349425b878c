package admin

import (
	"context"
	"errors"
	"net/http"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/deliver"
	"relay/relay/query"
)

// refused is a problem as an error.
type refused struct{ *problem.Problem }

func (e refused) Error() string { return e.Detail }

// refusal is an error that refuse answers as it is. field names what the caller gave; "" for nothing of it.
func refusal(code problem.Code, field, detail string) error {
	p := problem.New(code, detail)
	p.Field = field
	return refused{p}
}

// refuse says why a route under /v1 does not answer. What went wrong inside is for operators: it names machines and files.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p, inside := problemOf(err)
	switch {
	case inside && AccessOf(r.Context()).bound():
		if p.Code == problem.InternalError { // an outbox that is away is in the log already
			a.Log.Error().Str("by", Who(r)).Str("code", string(p.Code)).Str("error", a.Hush(p.Detail)).Msg("a request was not answered")
		}
		p.Detail = "ask again later; who operates this Relay can see why"
	case inside:
		p.Detail = a.Hush(p.Detail)
	}
	p.Write(w)
}

// problemOf is the refusal for an error. inside tells that its detail is that of an error of the outbox or of Relay.
func problemOf(err error) (p *problem.Problem, inside bool) {
	if e, ok := errors.AsType[refused](err); ok {
		return e.Problem, false
	}
	if e, ok := errors.AsType[*query.Error](err); ok {
		return e.Problem(), false
	}
	if e, ok := errors.AsType[*ReloadError](err); ok {
		p = problem.New(e.Code, e.Error())
		p.Diagnostics = e.Problems
		return p, false
	}
	code, detail := problem.InternalError, err.Error()
	switch {
	case errors.Is(err, deliver.ErrNoEndpoint):
		code = problem.EndpointNotFound
		detail += ": GET /v1/endpoints lists them"
	case errors.Is(err, deliver.ErrByOperator):
		code = problem.Forbidden
	case errors.Is(err, deliver.ErrInFile):
		code = problem.DisabledInFile
	case errors.Is(err, outbox.ErrCursor):
		code, detail = problem.InvalidCursor, outbox.ErrCursor.Error() // without the place of the outbox
		detail += ": ask for the first page again, without it"
	case errors.Is(err, outbox.ErrUnavailable), errors.Is(err, outbox.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		code = problem.OutboxUnavailable
	}
	p = problem.New(code, detail)
	if code == problem.InvalidCursor {
		p.Field = "cursor"
	}
	return p, code == problem.OutboxUnavailable || code == problem.InternalError
}
