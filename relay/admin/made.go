package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/audit"
	"relay/relay/deliver"
	"relay/relay/registry"
)

// Registry keeps the endpoints made at run time: see package registry.
type Registry interface {
	Get(name string) (registry.Endpoint, error)
	List() []registry.Endpoint
	Text(name string) (string, error)
	Create(ctx context.Context, object json.RawMessage) (registry.Endpoint, error)
	Replace(ctx context.Context, name string, match uint64, object json.RawMessage) (registry.Endpoint, error)
	Patch(ctx context.Context, name string, match uint64, patch json.RawMessage) (registry.Endpoint, error)
	Delete(ctx context.Context, name string, match uint64) error
	Secrets(name string) (registry.Secrets, error)
	Rotate(ctx context.Context, name, secret string, overlap time.Duration) (registry.Secrets, error)
	Stores() bool // secrets
}

// Made is what an endpoint has that was made at run time.
type Made struct {
	Revision string          `json:"revision"` // changes with each change; for If-Match
	Settings json.RawMessage `json:"settings"` // as they were given, without secrets: values of headers and the query of the URL are ***
	Secrets  int             `json:"secrets"`  // how many sign now
	Created  time.Time       `json:"created"`
	Updated  time.Time       `json:"updated"`
	Flaws    []Flaw          `json:"flaws,omitempty"` // why it is not in force: its deliveries are held
}

// Flaw is a problem of an endpoint's settings.
type Flaw struct {
	Pointer string `json:"pointer"` // into the settings (RFC 6901); "" for the whole
	Detail  string `json:"detail"`
}

// Settings are those of an endpoint made at run time: named like the attributes and blocks of an endpoint in the
// file, with name and secret, which are made if they are absent.
type Settings map[string]any

// Exported is an endpoint as a file has it.
type Exported struct {
	HCL string `json:"hcl"` // without secrets
}

// Rotation asks for a new secret.
type Rotation struct {
	Secret  string `json:"secret,omitempty"`  // made if it is absent
	Overlap string `json:"overlap,omitempty"` // how long the old ones sign along: a duration up to 7d; 24h by default
}

const maxSettings = 64 << 10

func madeOf(e registry.Endpoint) *Made {
	m := &Made{Revision: revision(e.Revision), Settings: registry.Shown(e.Spec), Secrets: e.Secrets, Created: e.Created, Updated: e.Updated}
	for _, f := range e.Flaws {
		m.Flaws = append(m.Flaws, Flaw(f))
	}
	return m
}

func revision(n uint64) string { return strconv.FormatUint(n, 10) }

func (a *api) madeRoutes() []route {
	changes := []problem.Code{problem.InvalidEndpoint, problem.EndpointInFile, problem.EndpointNotFound, problem.Changed, problem.RuntimeOff,
		problem.QuotaReached, problem.NoSecretsKey, problem.OutboxFull, problem.BodyTooLarge, problem.InvalidBody}
	match := "If-Match with the endpoint's revision refuses the change if somebody else made one meanwhile."
	return []route{{
		id: "createEndpoint", method: "POST", path: "/v1/endpoints", verb: "relay endpoints add", summary: "Make an endpoint",
		about: "It is in force here with the answer, and at all Relays of the outbox within a second. Without a secret one is made.",
		body:  Settings{}, status: http.StatusCreated, answer: Endpoint{}, codes: append(changes, problem.EndpointExists), handle: a.createEndpoint,
	}, {
		id: "patchEndpoint", method: "PATCH", path: "/v1/endpoints/{name}", verb: "relay endpoints set NAME", summary: "Change an endpoint made at run time",
		about: "The body is a JSON merge patch (RFC 7396): null takes a setting away. Another URL enables an endpoint that Relay itself disabled. " + match,
		body:  Settings{}, answer: Endpoint{}, codes: changes, handle: a.changeMade(Registry.Patch),
	}, {
		id: "putEndpoint", method: "PUT", path: "/v1/endpoints/{name}", verb: "relay endpoints set NAME --replace", summary: "Replace the settings of an endpoint made at run time",
		about: "Its secrets stay. Another URL enables an endpoint that Relay itself disabled. " + match,
		body:  Settings{}, answer: Endpoint{}, codes: changes, handle: a.changeMade(Registry.Replace),
	}, {
		id: "deleteEndpoint", method: "DELETE", path: "/v1/endpoints/{name}", verb: "relay endpoints rm NAME", summary: "Delete an endpoint made at run time",
		about:  "It is refused while deliveries are pending, unless forced: they are held then. " + match,
		params: []param{{"force", "true: although deliveries are pending", "true"}},
		status: http.StatusNoContent, codes: append(changes, problem.HasPending, problem.InvalidParameter, problem.UnknownParameter), handle: a.deleteEndpoint,
	}, {
		id: "exportEndpoint", method: "GET", path: "/v1/endpoints/{name}/hcl", verb: "relay endpoints export NAME", summary: "Show an endpoint made at run time as a file has it, without secrets",
		answer: Exported{}, codes: []problem.Code{problem.EndpointInFile, problem.EndpointNotFound, problem.InvalidEndpoint}, handle: a.exportEndpoint,
	}, {
		id: "getSecret", method: "GET", path: "/v1/endpoints/{name}/secret", verb: "relay secret show NAME", summary: "Read the secrets of an endpoint made at run time",
		about:  "The newest first. It is written into the audit.",
		answer: registry.Secrets{}, codes: []problem.Code{problem.EndpointInFile, problem.EndpointNotFound, problem.NoSecretsKey}, handle: a.showSecret,
	}, {
		id: "rotateSecret", method: "POST", path: "/v1/endpoints/{name}/secret/rotate", verb: "relay secret rotate NAME", summary: "Give an endpoint made at run time a new secret",
		about: "The old ones sign along for the overlap.",
		body:  Rotation{}, answer: registry.Secrets{}, codes: append(changes, problem.InvalidParameter, problem.UnknownParameter, problem.InvalidJSON, problem.InvalidBody), handle: a.rotateSecret,
	}}
}

// refuseMade is refuse for errors of a Registry.
func (a *api) refuseMade(w http.ResponseWriter, r *http.Request, err error) {
	if flaws, ok := errors.AsType[config.Flaws](err); ok {
		p := problem.New(problem.InvalidEndpoint, flaws[0].Error())
		p.Pointer = flaws[0].Pointer
		for _, f := range flaws {
			p.Diagnostics = append(p.Diagnostics, f.Error())
		}
		p.Write(w)
		return
	}
	for _, known := range []struct {
		err  error
		code problem.Code
	}{
		{registry.ErrUnknown, problem.EndpointNotFound},
		{registry.ErrFixed, problem.EndpointInFile},
		{registry.ErrExists, problem.EndpointExists},
		{registry.ErrChanged, problem.Changed},
		{registry.ErrOff, problem.RuntimeOff},
		{registry.ErrQuota, problem.QuotaReached},
		{registry.ErrNoKey, problem.NoSecretsKey},
		{registry.ErrLostKey, problem.NoSecretsKey},
		{registry.ErrTooManySecrets, problem.QuotaReached},
		{registry.ErrOverlap, problem.InvalidParameter},
		{outbox.ErrFull, problem.OutboxFull},
	} {
		if errors.Is(err, known.err) {
			problem.New(known.code, err.Error()).Write(w)
			return
		}
	}
	a.refuse(w, r, err)
}

// matching is the revision of If-Match, 0 for none; false if the request was refused.
func matching(w http.ResponseWriter, r *http.Request) (uint64, bool) {
	text := r.Header.Get("If-Match")
	if text == "" || text == "*" {
		return 0, true
	}
	n, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 64)
	if err != nil || n == 0 {
		problem.New(problem.Changed, "If-Match is no revision of an endpoint: read the endpoint again").Write(w)
		return 0, false
	}
	return n, true
}

func (a *api) createEndpoint(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, maxSettings)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	ctx, cancel := changing(r)
	defer cancel()
	body, err = AccessOf(r.Context()).bind(r.Method, body)
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	if err := a.unusedName(ctx, AccessOf(r.Context()), body); err != nil {
		a.refuse(w, r, err)
		return
	}
	made, err := a.Registry.Create(ctx, body)
	if AccessOf(r.Context()).bound() && (errors.Is(err, registry.ErrFixed) || errors.Is(err, registry.ErrExists)) {
		err = nameTaken() // whose it is, and whether it is in force, is not for the caller
	}
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	a.noteMade(r, "asked to make an endpoint", audit.Entry{Verb: "endpoints add", What: made.Name, After: recorded(made)})
	w.Header().Set("Location", "/v1/endpoints/"+made.Name)
	a.answerMade(w, r, http.StatusCreated, made, nil)
}

// noteMade writes a change of an endpoint made at run time to the log and the audit. What is the
// endpoint's name.
func (a *api) noteMade(r *http.Request, line string, e audit.Entry) {
	a.Log.Info().Str("by", Who(r)).Str("endpoint", e.What).Msg(line)
	e.What = "endpoint " + e.What
	a.audit(r, e)
}

// recorded is what the audit tells of an endpoint made at run time.
// changed names settings that another one has in a way that is not shown.
func recorded(e registry.Endpoint, changed ...string) json.RawMessage {
	return audit.State(struct {
		Revision string          `json:"revision"`
		Secrets  int             `json:"secrets"`
		Settings json.RawMessage `json:"settings"`
		Changed  []string        `json:"changed,omitempty"`
	}{revision(e.Revision), e.Secrets, registry.Recorded(e.Spec), changed})
}

// secretsNow is what the audit tells of the secrets of an endpoint.
func (a *api) secretsNow(name string) json.RawMessage {
	e, err := a.Registry.Get(name)
	if err != nil {
		return nil // somebody deleted it meanwhile
	}
	return audit.State(struct {
		Revision string `json:"revision"`
		Secrets  int    `json:"secrets"`
	}{revision(e.Revision), e.Secrets})
}

// answerMade answers an endpoint made at run time, and the causes that the request ended.
func (a *api) answerMade(w http.ResponseWriter, r *http.Request, status int, made registry.Endpoint, ended []string) {
	v, err := a.lookFor(r.Context(), made.Name)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	w.Header().Set("ETag", `"`+revision(made.Revision)+`"`)
	e := v.endpoint(made.Name)
	e.Ended = ended
	answer(w, status, e)
}

// changeMade is the route of a method that changes an endpoint made at run time.
func (a *api) changeMade(do func(g Registry, ctx context.Context, name string, match uint64, object json.RawMessage) (registry.Endpoint, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		match, ok := matching(w, r)
		if !ok {
			return
		}
		body, err := readBody(w, r, maxSettings)
		if err != nil {
			a.refuse(w, r, err)
			return
		}
		ctx, cancel := changing(r)
		defer cancel()
		body, err = AccessOf(r.Context()).bind(r.Method, body)
		if err != nil {
			a.refuseMade(w, r, err)
			return
		}
		before, err := a.Registry.Get(r.PathValue("name"))
		if err != nil {
			a.refuseMade(w, r, err)
			return
		}
		if err := maskedStay(AccessOf(r.Context()), before, body); err != nil {
			a.refuseMade(w, r, err)
			return
		}
		was, _ := a.Deliverer.StatusOf(before.Name)
		made, err := do(a.Registry, ctx, before.Name, match, body)
		if err != nil {
			a.refuseMade(w, r, err)
			return
		}
		a.noteMade(r, "asked to change an endpoint", audit.Entry{Verb: "endpoints set", What: made.Name, Before: recorded(before), After: recorded(made, registry.Unseen(before.Spec, made.Spec)...)})
		a.answerMade(w, r, http.StatusOK, made, a.enabledBy(ctx, r, &was))
	}
}

// enabledBy ends Relay's own decision to disable an endpoint for good after a change that made it void, which another URL does:
// else the old URL would bring it back. It returns what ended.
func (a *api) enabledBy(ctx context.Context, r *http.Request, was *deliver.Status) (ended []string) {
	now, _ := a.Deliverer.StatusOf(was.Endpoint)
	if !disabledItself(was.State, was.Code) || disabledItself(now.State, now.Code) {
		return nil
	}
	// Without the write the decision is void while the endpoint has this URL.
	if status, err := a.Deliverer.EnableAgain(ctx, was.Endpoint, "an operator"); err == nil {
		now = status
	}
	if now.State == deliver.Disabled { // the settings disable it
		return nil
	}
	a.noteMade(r, "enabled an endpoint by a change of it", audit.Entry{Verb: "enable", What: was.Endpoint, Before: stateOf(was), After: stateOf(&now)})
	return []string{deliver.WaitDisabled}
}

// disabledItself tells whether Relay itself disabled an endpoint.
func disabledItself(state deliver.State, code string) bool {
	return state == deliver.Disabled && (code == deliver.ByGone || code == deliver.ByFailing)
}

func (a *api) deleteEndpoint(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	match, ok := matching(w, r)
	if !ok {
		return
	}
	force, err := forceOf(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	ctx, cancel := changing(r)
	defer cancel()
	before, err := a.Registry.Get(name)
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	counts, err := a.Outbox.Counts(ctx)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if n := counts[name].Pending; n > 0 && !force {
		problem.New(problem.HasPending, fmt.Sprintf("deliveries of it are pending: %d. force=true deletes it and holds them; discard them before, if they are not wanted", n)).Write(w)
		return
	}
	if err := a.Registry.Delete(ctx, name, match); err != nil {
		a.refuseMade(w, r, err)
		return
	}
	a.noteMade(r, "asked to delete an endpoint", audit.Entry{Verb: "endpoints rm", What: name, Before: recorded(before)})
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) exportEndpoint(w http.ResponseWriter, r *http.Request) {
	text, err := a.Registry.Text(r.PathValue("name"))
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	answer(w, http.StatusOK, Exported{text})
}

func (a *api) showSecret(w http.ResponseWriter, r *http.Request) {
	secrets, err := a.Registry.Secrets(r.PathValue("name"))
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	a.noteMade(r, "asked for the secrets of an endpoint", audit.Entry{Verb: "secret show", What: r.PathValue("name")})
	answer(w, http.StatusOK, secrets)
}

func (a *api) rotateSecret(w http.ResponseWriter, r *http.Request) {
	secret, overlap, err := rotationOf(w, r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	ctx, cancel := changing(r)
	defer cancel()
	name := r.PathValue("name")
	before := a.secretsNow(name)
	secrets, err := a.Registry.Rotate(ctx, name, secret, overlap)
	if err != nil {
		a.refuseMade(w, r, err)
		return
	}
	a.noteMade(r, "asked to rotate the secret of an endpoint", audit.Entry{Verb: "secret rotate", What: name, Before: before, After: a.secretsNow(name)})
	answer(w, http.StatusOK, secrets)
}

// rotationOf reads a Rotation.
func rotationOf(w http.ResponseWriter, r *http.Request) (secret string, overlap time.Duration, err error) {
	members, err := readObject(w, r, maxSettings, "secret", "overlap")
	if err == nil {
		secret, err = longTextOf(members, "secret", maxSettings)
	}
	var text string
	if err == nil {
		text, err = textOf(members, "overlap")
	}
	if err != nil {
		return "", 0, err
	}
	switch text {
	case "":
		return secret, registry.DefaultOverlap, nil
	case "0":
		return secret, 0, nil
	}
	if overlap, err = config.DurationBetween(text, 0, registry.MaxOverlap); err != nil {
		return "", 0, refusal(problem.InvalidParameter, "overlap", "overlap: "+err.Error())
	}
	return secret, overlap, nil
}

// unusedName refuses the name of an endpoint that is gone while deliveries of it are pending, because they would go to
// the new one. An access that is bound gets no name that is or was used: what is kept of it is another's.
func (a *api) unusedName(ctx context.Context, access *Access, settings json.RawMessage) error {
	var given struct{ Name string }
	if json.Unmarshal(settings, &given) != nil || given.Name == "" {
		return nil // what is wrong is said later
	}
	if a.Policy().Endpoint(given.Name) != nil && !access.bound() {
		return nil // said later
	}
	counts, err := a.Outbox.Counts(ctx)
	if err != nil {
		return err
	}
	switch c, used := counts[given.Name]; {
	case access.bound() && (used || a.Policy().Endpoint(given.Name) != nil):
		return nameTaken()
	case c.Pending > 0:
		return refusal(problem.HasPending, "name", fmt.Sprintf("deliveries of an earlier endpoint of this name are pending (%d), and would go to this one: discard them, or choose another name", c.Pending))
	}
	return nil
}

// nameTaken is the one refusal of a name that is not free, so that a bound token cannot ask for names of others.
func nameTaken() error {
	return refusal(problem.EndpointExists, "name", "this name is taken, or was: choose another")
}

// maskedStay refuses a change of the URL that would send headers elsewhere whose values the access may not see.
func maskedStay(access *Access, before registry.Endpoint, patch json.RawMessage) error {
	var had, given map[string]json.RawMessage
	if access.Has(Secrets) || json.Unmarshal(patch, &given) != nil || json.Unmarshal(before.Spec, &had) != nil {
		return nil
	}
	_, keeps := given["headers"]
	none := len(had["headers"]) == 0 || string(had["headers"]) == "{}"
	if given["url"] == nil || keeps || none && !slices.Contains(before.Lost, "headers") {
		return nil
	}
	return config.Flaws{{Pointer: "/url", Detail: "the endpoint has headers whose values this token may not see: give headers too, or null"}}
}
