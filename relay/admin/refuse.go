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

// refuse says why a route under /v1 does not answer.
func refuse(w http.ResponseWriter, err error) { problemOf(err).Write(w) }

// problemOf is the refusal for an error.
func problemOf(err error) *problem.Problem {
	if e, ok := errors.AsType[refused](err); ok {
		return e.Problem
	}
	if e, ok := errors.AsType[*query.Error](err); ok {
		return e.Problem()
	}
	if e, ok := errors.AsType[*ReloadError](err); ok {
		p := problem.New(e.Code, e.Error())
		p.Diagnostics = e.Problems
		return p
	}
	code, detail := problem.InternalError, err.Error()
	switch {
	case errors.Is(err, deliver.ErrNoEndpoint):
		code = problem.EndpointNotFound
		detail += ": GET /v1/endpoints lists them"
	case errors.Is(err, deliver.ErrInFile):
		code = problem.DisabledInFile
	case errors.Is(err, outbox.ErrCursor):
		code, detail = problem.InvalidCursor, outbox.ErrCursor.Error() // without the place of the outbox
		detail += ": ask for the first page again, without it"
	case errors.Is(err, outbox.ErrUnavailable), errors.Is(err, outbox.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		code = problem.OutboxUnavailable
	}
	p := problem.New(code, detail)
	if code == problem.InvalidCursor {
		p.Field = "cursor"
	}
	return p
}
