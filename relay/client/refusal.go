package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"relay/ingest/problem"
)

// IngestRefusal turns an answer of ingest that accepts nothing into an error.
func (t Target) IngestRefusal(code int, answer []byte) error {
	var p problem.Problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("answered %d %s: what listens on %s takes no events, is it Relay's ingest?", code, http.StatusText(code), t)
	}
	where := ""
	if p.Line > 0 {
		where += fmt.Sprintf(" (line %d of them)", p.Line)
	}
	if p.Offset != nil {
		where += fmt.Sprintf(" (byte %d)", *p.Offset)
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
