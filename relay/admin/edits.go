package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/audit"
	"relay/relay/jobs"
)

// Edits is the part of the outbox with which an operator changes what is stored.
type Edits interface {
	outbox.Editor
	outbox.Journal
}

// DeliveryChanged is a delivery after a change.
type DeliveryChanged struct {
	Delivery
	Unchanged bool `json:"unchanged,omitempty"` // it was so already
}

// Redelivery is a new delivery of an event.
type Redelivery struct {
	ID           string `json:"id"`
	RedeliveryOf string `json:"redelivery_of"`
	Endpoint     string `json:"endpoint"`

	// Warning says that the endpoint takes no events of this type by itself.
	Warning string `json:"warning,omitempty"`
}

// RedeliveryRequest says where to send an event again.
type RedeliveryRequest struct {
	To string `json:"to,omitempty"` // endpoint; that of the delivery by default
}

// Erasure is an event whose data was erased.
type Erasure struct {
	ID        string    `json:"id"`
	Erased    time.Time `json:"erased"`              // when
	Unchanged bool      `json:"unchanged,omitempty"` // it was so already
}

func (a *api) editRoutes() []route {
	delivery := []problem.Code{problem.DeliveryNotFound, problem.OtherKind}
	codes := func(more ...problem.Code) []problem.Code { return append(more, delivery...) }
	return []route{{
		id: "retryDelivery", method: "POST", path: "/v1/deliveries/{id}/retry", verb: "relay retry ID", summary: "Make a pending delivery due now",
		about:  "Limits, breaker and pause of its endpoint still hold.",
		answer: DeliveryChanged{}, codes: codes(problem.DeliveryOver), handle: a.retryOne,
	}, {
		id: "discardDelivery", method: "POST", path: "/v1/deliveries/{id}/discard", verb: "relay discard ID", summary: "End a pending delivery without an attempt",
		answer: DeliveryChanged{}, codes: codes(problem.DeliveryOver, problem.AttemptUnderWay), handle: a.discardOne,
	}, {
		id: "redeliverDelivery", method: "POST", path: "/v1/deliveries/{id}/redeliver", verb: "relay redeliver ID", summary: "Send an event again, as a new delivery with its whole schedule",
		about: "The old delivery stays as it is. The body is optional.",
		body:  RedeliveryRequest{}, status: http.StatusAccepted, answer: Redelivery{},
		codes:  codes(problem.DeliveryPending, problem.EventErased, problem.EndpointRemoved, problem.OtherTenant, problem.EndpointNotFound, problem.OutboxFull, problem.InvalidJSON, problem.InvalidParameter, problem.UnknownParameter, problem.BodyTooLarge),
		handle: a.redeliverOne,
	}, {
		id: "eraseEvent", method: "DELETE", path: "/v1/events/{id}/data", verb: "relay erase ID", summary: "Erase the data of an event for good",
		about:  "Payload, indexed fields, and requests and answers of its attempts are gone; records and counts stay.",
		params: []param{{name: "force", about: "`true` erases although a delivery is pending, which is then discarded", example: "true"}},
		answer: Erasure{}, codes: []problem.Code{problem.EventNotFound, problem.OtherKind, problem.DeliveryPending, problem.InvalidParameter, problem.UnknownParameter}, handle: a.eraseOne,
	}}
}

// changing is a context for a change, which is made even if the client goes away.
func changing(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), changeTimeout)
}

func (a *api) retryOne(w http.ResponseWriter, r *http.Request) {
	a.changeOne(w, r, outbox.Change{Action: outbox.Retry})
}

func (a *api) discardOne(w http.ResponseWriter, r *http.Request) {
	a.changeOne(w, r, outbox.Change{Action: outbox.Discard, Code: jobs.CodeDiscarded})
}

// changeOne changes the delivery of the path, and answers it.
func (a *api) changeOne(w http.ResponseWriter, r *http.Request, c outbox.Change) {
	ctx, cancel := changing(r)
	defer cancel()
	c.Delivery = r.PathValue("id")
	before, err := a.deliveryNow(ctx, c.Delivery)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	edited, err := a.edit(ctx, c)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	after, err := a.deliveryNow(ctx, c.Delivery)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if !edited.Repeated {
		a.audited(r, audit.Entry{Verb: string(c.Action), What: "delivery " + c.Delivery, Count: new(int64(1)), Before: audit.State(shortly(before)), After: audit.State(shortly(after))})
	}
	out := DeliveryChanged{Delivery: *after, Unchanged: edited.Repeated}
	answer(w, http.StatusOK, out)
}

// shortly is what the audit tells of a delivery.
func shortly(d *Delivery) any {
	return struct {
		Endpoint    string    `json:"endpoint"`
		State       string    `json:"state"`
		Attempts    int       `json:"attempts"`
		NextAttempt time.Time `json:"next_attempt,omitzero"`
	}{d.Endpoint, d.State, d.Attempts, d.NextAttempt}
}

// deliveryNow is a delivery as lists show it.
func (a *api) deliveryNow(ctx context.Context, id string) (*Delivery, error) {
	record, err := a.Records.LookupDelivery(ctx, id)
	if err != nil {
		return nil, a.noDelivery(ctx, id, err)
	}
	item := itemOf(&record.Event, &record.Deliveries[0])
	l := a.lookout(ctx)
	now := l.delivery(&item)
	return &now, l.err
}

// edit makes one change.
func (a *api) edit(ctx context.Context, c outbox.Change) (outbox.Edited, error) {
	all, err := a.Edits.Edit(ctx, []outbox.Change{c})
	if err != nil {
		return outbox.Edited{}, fmt.Errorf("%s: %w", c.Action, err)
	}
	return all[0], a.unedited(ctx, c, all[0].Err)
}

// unedited says why a change was not made, and what to do instead.
func (a *api) unedited(ctx context.Context, c outbox.Change, err error) error {
	state, isState := errors.AsType[*outbox.StateError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, outbox.ErrNotFound) && c.Action == outbox.Erase:
		return noEvent(c.Event, err)
	case errors.Is(err, outbox.ErrNotFound):
		return a.noDelivery(ctx, c.Delivery, err)
	case isState && c.Action == outbox.Redeliver:
		return refusal(problem.DeliveryPending, "id", "the delivery is still pending, so there is nothing to repeat: POST /v1/deliveries/{id}/retry makes it due now")
	case isState && c.Action == outbox.Erase:
		return refusal(problem.DeliveryPending, "force", "a delivery of the event is pending and needs its data: wait for it, or repeat with force=true, which discards it")
	case isState:
		return refusal(problem.DeliveryOver, "id", fmt.Sprintf("the delivery is %s: POST /v1/deliveries/{id}/redeliver sends its event again", state.State))
	case errors.Is(err, outbox.ErrClaimed):
		return refusal(problem.AttemptUnderWay, "id", "an attempt of the delivery is under way: ask again when it has ended, within the endpoint's total timeout")
	case errors.Is(err, outbox.ErrErased):
		return refusal(problem.EventErased, "id", "the data of the event was erased, so it cannot be sent again: the app has to send a new event")
	case errors.Is(err, outbox.ErrFull):
		return refusal(problem.OutboxFull, "", "there is no room for a new delivery: pending ones free room as they end")
	}
	return fmt.Errorf("%s: %w", c.Action, err)
}

func (a *api) redeliverOne(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changing(r)
	defer cancel()
	id := r.PathValue("id")
	var to string
	members, err := readObject(w, r, bulkBody, "to")
	if err == nil {
		to, err = textOf(members, "to")
	}
	var old *Delivery
	if err == nil {
		old, err = a.deliveryNow(ctx, id)
	}
	var warning string
	if err == nil {
		warning, err = a.goesTo(ctx, r, to, old)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	edited, err := a.edit(ctx, outbox.Change{Action: outbox.Redeliver, Delivery: id, Endpoint: to})
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	out := Redelivery{ID: edited.Delivery, RedeliveryOf: id, Endpoint: old.Endpoint, Warning: warning}
	if to != "" {
		out.Endpoint = to
	}
	a.audited(r, audit.Entry{Verb: string(outbox.Redeliver), What: "delivery " + id, Count: new(int64(1)), Before: audit.State(shortly(old)), After: audit.State(out)})
	answer(w, http.StatusAccepted, out)
}

// canGo refuses a redelivery to an endpoint that is in no file. to is what the operator asked for.
func (a *api) canGo(ctx context.Context, to, of string) error {
	name := of
	if to != "" {
		name = to
	}
	is, err := a.lookout(ctx).exists(name)
	switch {
	case err != nil:
		return err
	case !is && to != "":
		return refusal(problem.EndpointNotFound, "to", fmt.Sprintf("no endpoint has the name %s: GET /v1/endpoints lists them", shorten(to)))
	case !is:
		return refusal(problem.EndpointRemoved, "to", fmt.Sprintf("the endpoint %s is in no file any more: name another one in to, or put it into the file again", shorten(of)))
	}
	return nil
}

// exists tells whether an endpoint is in the file of a Relay, so that its deliveries are made or held.
func (l *lookout) exists(name string) (bool, error) {
	if l.policy.Endpoint(name) != nil {
		return true, nil
	}
	fleet, err := l.a.fleetOrError(l.ctx)
	if err != nil {
		return false, err
	}
	v := view{fleet: fleet}
	return len(v.hashes(name)) > 0, nil
}

func (a *api) eraseOne(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := changing(r)
	defer cancel()
	c := outbox.Change{Action: outbox.Erase, Event: r.PathValue("id"), Code: jobs.CodeErased}
	var edited outbox.Edited
	var err error
	if c.Force, err = forceOf(r); err == nil {
		edited, err = a.edit(ctx, c)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	record, err := a.Records.Lookup(ctx, c.Event)
	if err != nil {
		a.refuse(w, r, noEvent(c.Event, err))
		return
	}
	if !edited.Repeated {
		a.audited(r, audit.Entry{Verb: string(outbox.Erase), What: "event " + c.Event, Count: new(int64(1))})
	}
	answer(w, http.StatusOK, Erasure{ID: c.Event, Erased: record.Erased.UTC(), Unchanged: edited.Repeated})
}

// forceOf reads force, the only parameter of a route.
func forceOf(r *http.Request) (force bool, err error) {
	for name, values := range r.URL.Query() {
		switch {
		case name != "force":
			return false, refusal(problem.UnknownParameter, name, "there is no parameter "+shorten(name)+" here. There is force")
		case len(values) != 1 || values[0] != "true" && values[0] != "false":
			return false, refusal(problem.InvalidParameter, name, "force is true or false")
		}
		force = values[0] == "true"
	}
	return force, nil
}
