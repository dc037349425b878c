package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"relay/ingest/problem"
)

// Line is a line of a request of NDJSON.
type Line struct {
	Number int // in the input that it was taken from, from 1
	Start  int // byte of the request
}

// IngestRefusal turns an answer of ingest that accepts nothing into an error. lines are those of
// the request, so that the error names a place in the input.
func (t Target) IngestRefusal(code int, answer []byte, lines ...Line) error {
	var p problem.Problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("answered %d %s: what listens on %s takes no events, is it Relay's ingest?", code, http.StatusText(code), t)
	}
	where := ""
	if p.Offset != nil {
		where = fmt.Sprintf(" (byte %d)", *p.Offset)
	}
	at := p.Line - 1
	if at < 0 && p.Index != nil {
		at = *p.Index
	}
	if at >= 0 && at < len(lines) {
		where = fmt.Sprintf(" (line %d)", lines[at].Number)
		if p.Offset != nil {
			where = fmt.Sprintf(" (line %d, byte %d of it)", lines[at].Number, *p.Offset-lines[at].Start)
		}
	}
	if p.Code == problem.Unauthorized {
		where = "; give it with --token or $RELAY_TOKEN, or name the file of the Relay that runs with --config"
	}
	return fmt.Errorf("refused: %d %s: %s%s", code, p.Code, cmp.Or(p.Detail, p.Title), where)
}

// AdminRefusal turns an answer of the admin listener that is not 2xx into an error.
func (t Target) AdminRefusal(code int, answer []byte) error {
	var p problem.Problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("answered %d %s: what listens on %s is not Relay's admin listener, or that of an older version", code, http.StatusText(code), t)
	}
	next := ""
	switch p.Code {
	case problem.Unauthorized:
		next = "; set $RELAY_ADMIN_TOKEN to that of the Relay that runs, or name its file with --config"
	case problem.EndpointNotFound:
		return errors.New("no endpoint has this name: relay endpoints lists them")
	case problem.DisabledInFile:
		return errors.New("the file says enabled = false: change it there, and run relay reload")
	}
	return fmt.Errorf("refused: %d %s: %s%s", code, p.Code, cmp.Or(p.Detail, p.Title), next)
}
