package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"relay/ingest/problem"
	"relay/relay/explain"
)

func (a *api) runningRoutes() []route {
	var all []route
	if a.Running != nil {
		all = append(all, route{
			id: "getConfig", method: "GET", path: "/v1/config", verb: "relay config", summary: "Show which configuration runs, and why the last reload was refused",
			answer: Running{}, handle: a.showConfig,
		})
	}
	if a.Explain != nil {
		all = append(all, route{
			id: "explain", method: "POST", path: "/v1/explain", verb: "relay explain EVENT.json", summary: "Say who would get an event, as which request, and when, by the file that runs",
			about:  "Nothing is sent, looked up or stored. Secrets and signatures are `***`.",
			params: []param{{"endpoint", "only the endpoint of this name", "billing"}},
			body:   EventToExplain{}, answer: explain.Explanation{},
			codes:  []problem.Code{problem.EndpointNotFound, problem.BodyTooLarge, problem.InvalidBody, problem.EmptyBody, problem.InvalidJSON, problem.InvalidEvent, problem.UnknownField, problem.MissingField, problem.InvalidType, problem.InvalidID, problem.InvalidTime, problem.InvalidTenant, problem.InvalidKey, problem.SchemaMismatch, problem.UnknownType},
			handle: a.explain,
		})
	}
	return all
}

// Running is the configuration that runs.
type Running struct {
	Config
	Problems []string `json:"problems"` // of the last reload, if it was refused: all of them, with file, line and column
	Files    []string `json:"files"`    // that the configuration was read from, in order

	Endpoints  int `json:"endpoints"`   // in the files
	EventTypes int `json:"event_types"` // in the files

	LastChange *Change `json:"last_change,omitempty"` // the last reload since the start that changed something
}

// EventToExplain is an event as POST /v1/events of ingest takes it.
type EventToExplain struct {
	Type   string `json:"type"`
	Data   any    `json:"data"`
	ID     string `json:"id,omitempty"`
	Time   string `json:"time,omitempty"` // RFC 3339
	Tenant string `json:"tenant,omitempty"`
	Key    string `json:"key,omitempty"`
}

func (a *api) showConfig(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, a.Running())
}

// explainBody bounds a body, in bytes; ingest's own limit comes on top.
const explainBody = 64 << 20

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, explainBody))
	if err != nil {
		code := problem.InvalidBody
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			code = problem.BodyTooLarge
		}
		a.refuse(w, r, refusal(code, "", fmt.Sprintf("the body is one event of at most %d MiB", explainBody>>20)))
		return
	}
	out, err := a.Explain(body, r.URL.Query().Get("endpoint"))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, out)
}

// Refusal is an error with its own problem, for functions in Options.
func Refusal(p *problem.Problem) error { return refused{p} }
