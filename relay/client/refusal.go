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
		return fmt.Errorf("answered %d %s: what listens on %s:%s takes no events, is it Relay's ingest?", code, http.StatusText(code), t.Network, t.Addr)
	}
	where := ""
	if p.Line > 0 {
		where += fmt.Sprintf(" (line %d of them)", p.Line)
	}
	if p.Offset != nil {
		where += fmt.Sprintf(" (byte %d)", *p.Offset)
	}
	return fmt.Errorf("refused: %d %s: %s%s", code, p.Code, cmp.Or(p.Detail, p.Title), where)
}

// AdminRefusal turns an answer of the admin listener that is not 2xx into an error.
func (t Target) AdminRefusal(code int, answer []byte) error {
	var p problem.Problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("answered %d %s: what listens on %s:%s is not Relay's admin listener, or that of an older version", code, http.StatusText(code), t.Network, t.Addr)
	}
	next := ""
	switch p.Code {
	case problem.Unauthorized:
		next = "; the token in the admin block must be that of the Relay that runs"
	case problem.EndpointNotFound:
		return errors.New("no endpoint has this name: relay endpoints lists them")
	case problem.DisabledInFile:
		return errors.New("the file says enabled = false: change it there, and run relay reload")
	}
	return fmt.Errorf("refused: %d %s: %s%s", code, p.Code, cmp.Or(p.Detail, p.Title), next)
}
