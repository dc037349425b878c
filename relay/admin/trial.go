package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/audit"
	"relay/relay/deliver"
)

// TestRequest is the event of a test.
type TestRequest struct {
	Type string          `json:"type,omitempty"` // relay.test by default
	Data json.RawMessage `json:"data,omitempty"` // any JSON
}

// TestResult is how a test of an endpoint ended.
type TestResult struct {
	ID       string   `json:"id,omitempty"` // of the delivery, by which it is found later; left out if it was not stored
	Event    EventRef `json:"event"`
	Endpoint string   `json:"endpoint"`
	State    string   `json:"state"` // delivered or failed
	Attempt

	Unrecorded string `json:"unrecorded,omitempty"` // why the test could not be stored
}

const (
	testType   = "relay.test"
	maxTests   = 16 // at a time, by Crowd
	testMargin = 30 * time.Second
	maxDepth   = 64 // of a test's data
)

func (a *api) testRoutes() []route {
	return []route{{
		id: "testEndpoint", method: "POST", path: "/v1/endpoints/{name}/test", verb: "relay test NAME", summary: "Send a test event to an endpoint now",
		about: "One real attempt, signed as all others, past rate limit, breaker and pause; it counts for no breaker and no statistics, and is kept in the history as manual. The body is optional. " +
			"Its request has the header Relay-Delivery: " + deliver.TestDelivery + ".",
		body: TestRequest{}, answer: TestResult{},
		codes:  []problem.Code{problem.EndpointNotFound, problem.InvalidType, problem.InvalidJSON, problem.InvalidBody, problem.TooDeep, problem.BodyTooLarge, problem.InvalidParameter, problem.UnknownParameter, problem.Overloaded},
		handle: a.test,
	}}
}

func (a *api) test(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	endpoint := a.Policy().Endpoint(name)
	if endpoint == nil {
		a.refuse(w, r, a.noTest(r, name))
		return
	}
	event, err := a.testEvent(w, r, name)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if f := endpoint.Filter; f != nil && len(f.Tenants) > 0 {
		event.Tenant = f.Tenants[0] // who may see the endpoint may see the test
	}
	leave, ok := a.tests.Enter(AccessOf(r.Context()))
	if !ok {
		a.refuse(w, r, refusal(problem.Overloaded, "", "as many tests are under way as may be at a time: ask again when one has ended"))
		return
	}
	defer leave()
	// The server's own bound would cut the answer of a slow receiver off.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(endpoint.Timeout.Total + testMargin)) // a recorder of tests has none
	res, err := a.Test(endpoint, event)
	if err != nil {
		a.refuse(w, r, a.notTested(r, err))
		return
	}
	out := a.tested(r, event, &res)
	if !AccessOf(r.Context()).Has(Payload) {
		out.hide()
	}
	answer(w, http.StatusOK, out)
}

// notTested says why a test was not made.
func (a *api) notTested(r *http.Request, err error) error {
	why := a.Hush(err.Error())
	if AccessOf(r.Context()).bound() {
		why = elseAsk
	}
	return refusal(problem.OutboxUnavailable, "", why+": nothing was sent, or the answer did not come in time")
}

// noTest says why an endpoint cannot be tested here.
func (a *api) noTest(r *http.Request, name string) error {
	is, err := a.lookout(r.Context()).exists(name)
	switch {
	case err != nil:
		return err
	case is:
		return refusal(problem.EndpointNotFound, "name", "the endpoint is in the file of another Relay only: ask that one")
	}
	return deliver.ErrNoEndpoint
}

// testEvent is the event that the body asks for.
func (a *api) testEvent(w http.ResponseWriter, r *http.Request, endpoint string) (*outbox.Event, error) {
	members, err := readObject(w, r, testBody, "type", "data")
	if err != nil {
		return nil, err
	}
	kind, err := textOf(members, "type")
	if err != nil {
		return nil, err
	}
	if kind == "" {
		kind = testType
	}
	if err := policy.ValidType(kind); err != nil {
		return nil, refusal(problem.InvalidType, "type", err.Error())
	}
	data := []byte(members["data"])
	if data == nil {
		data = fmt.Appendf(nil, `{"message":%s,"endpoint":%s}`, audit.State("This is a test of "+a.name()+"."), audit.State(endpoint))
	}
	if depth(data) > maxDepth {
		return nil, refusal(problem.TooDeep, "data", fmt.Sprintf("data is nested more than %d levels deep", maxDepth))
	}
	return &outbox.Event{
		ID: "evt_" + uuid.Must(uuid.NewV7()).String(), Type: kind, Time: a.now().UTC().Truncate(time.Microsecond), Data: data, Via: "relay",
	}, nil
}

// name is who sends the events, for those who get them.
func (a *api) name() string {
	if a.Title != nil {
		if title := a.Title(); title != "" {
			return title
		}
	}
	return "Relay"
}

// depth is how deeply JSON is nested.
func depth(text []byte) (most int) {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := d.ReadToken(); err != nil {
			return most
		}
		most = max(most, d.StackDepth())
	}
}

// tested stores a test, and returns the answer.
func (a *api) tested(r *http.Request, event *outbox.Event, res *deliver.Result) TestResult {
	ctx, cancel := changing(r)
	defer cancel()
	event.Relay = res.Attempt.Relay
	out := TestResult{
		Event:    EventRef{ID: event.ID, Type: event.Type, Tenant: event.Tenant, Time: event.Time},
		Endpoint: res.Endpoint, State: string(res.State), Attempt: attempt(&res.Attempt, true),
	}
	id, err := a.Edits.Record(ctx, *event, res.Endpoint, outbox.Settlement{Attempt: res.Attempt, State: res.State})
	if err != nil {
		out.Unrecorded = a.Hush(err.Error())
		a.Log.Warn().Str("endpoint", res.Endpoint).Err(err).Msg("a test is not in the history")
	}
	out.ID = id
	a.Deliverer.Tell(testedItem(id, event, res))
	a.audited(r, audit.Entry{Verb: "test", What: "endpoint " + res.Endpoint, Count: new(int64(1)), After: audit.State(struct {
		ID     string `json:"id,omitempty"`
		State  string `json:"state"`
		Status int    `json:"status,omitempty"`
		Code   string `json:"code,omitempty"`
	}{id, out.State, out.Status, out.Code})})
	return out
}

// testedItem is the delivery of a test, for readers of /v1/tail.
func testedItem(id string, e *outbox.Event, res *deliver.Result) *outbox.Item {
	end := res.Attempt.Started.Add(res.Attempt.Took)
	return &outbox.Item{
		Delivery: outbox.Delivery{
			ID: id, EventID: e.ID, Endpoint: res.Endpoint, State: res.State, Attempts: 1, Created: res.Attempt.Started, Finished: end, Code: res.Attempt.Code, Manual: true,
		},
		Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time, Last: &res.Attempt, Error: res.Attempt.Error,
	}
}
