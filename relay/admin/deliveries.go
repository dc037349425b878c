package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/query"
)

func (a *api) recordRoutes() []route {
	return []route{{
		id: "listDeliveries", method: "GET", path: "/v1/deliveries", verb: "relay deliveries", summary: "Find deliveries",
		about:  "A page holds fewer items than `limit`, or none, and still has a `next`, where finding more would take longer than 2 s.",
		filter: query.Lists, answer: DeliveryList{}, codes: filterCodes(problem.InvalidCursor), handle: a.listDeliveries,
	}, {
		id: "getDelivery", method: "GET", path: "/v1/deliveries/{id}", verb: "relay deliveries ID", summary: "Show one delivery with its payload and all attempts",
		answer: DeliveryWhole{}, codes: []problem.Code{problem.DeliveryNotFound, problem.OtherKind}, handle: a.showDelivery,
	}, {
		id: "getEvent", method: "GET", path: "/v1/events/{id}", verb: "relay events ID", summary: "Show one event with its data and deliveries",
		answer: EventWhole{}, codes: []problem.Code{problem.EventNotFound, problem.OtherKind}, handle: a.showEvent,
	}}
}

// filterCodes are the refusals of a filter.
func filterCodes(more ...problem.Code) []problem.Code {
	return append(more, problem.InvalidParameter, problem.UnknownParameter, problem.NotIndexed)
}

func (a *api) listDeliveries(w http.ResponseWriter, r *http.Request) {
	list, err := a.findDeliveries(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, list)
}

func (a *api) findDeliveries(r *http.Request) (*DeliveryList, error) {
	q, err := a.parse(r, query.Lists)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	ask, err := q.Page(ctx, a.surroundings())
	if err != nil {
		return nil, err
	}
	page, err := a.page(ctx, ask)
	if err != nil {
		return nil, err
	}
	list := &DeliveryList{Items: []Delivery{}}
	l := a.lookout(ctx)
	for i := range page.Items {
		list.Items = append(list.Items, l.delivery(&page.Items[i]))
	}
	if l.err != nil {
		return nil, l.err
	}
	if page.Next != "" {
		list.Next = new(q.Next(page.Next))
	}
	switch {
	case !q.Total:
	case page.Next == "" && q.Cursor == "" && q.Offset == 0:
		list.Total = &Total{N: int64(len(list.Items))}
	default:
		total, err := a.count(ctx, ask.Filter)
		if err != nil {
			return nil, err
		}
		list.Total = &total
	}
	return list, nil
}

func (a *api) showDelivery(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	id := r.PathValue("id")
	record, err := a.Records.LookupDelivery(ctx, id)
	if err != nil {
		a.refuse(w, r, a.noDelivery(ctx, id, err))
		return
	}
	l := a.lookout(ctx)
	out := l.whole(record)
	out.RedeliveredAs, err = a.repeats(ctx, record)
	if err = cmp.Or(l.err, err); err != nil {
		a.refuse(w, r, err)
		return
	}
	if !AccessOf(r.Context()).Has(Payload) {
		out.hide()
	}
	answer(w, http.StatusOK, out)
}

// repeats lists the deliveries that repeat one, as far as they are there for the request.
func (a *api) repeats(ctx context.Context, r *outbox.Record) ([]string, error) {
	q := outbox.Query{Filter: outbox.Filter{Event: r.Event.ID, Manual: new(true)}, Oldest: true, Limit: outbox.MaxPage}
	page, err := a.page(ctx, q)
	access, p := AccessOf(ctx), a.Policy()
	var ids []string
	for i := range page.Items {
		if d := &page.Items[i]; d.Origin == r.Deliveries[0].ID && access.seesDelivery(p, d.Endpoint, d.Tenant) {
			ids = append(ids, d.ID)
		}
	}
	return ids, err
}

func (a *api) showEvent(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	id := r.PathValue("id")
	record, err := a.Records.Lookup(ctx, id)
	if err != nil {
		a.refuse(w, r, noEvent(id, err))
		return
	}
	access, p := AccessOf(r.Context()), a.Policy()
	all := len(record.Deliveries)
	record.Deliveries = slices.DeleteFunc(record.Deliveries, func(d outbox.DeliveryRecord) bool {
		return !access.seesDelivery(p, d.Endpoint, record.Event.Tenant)
	})
	out := a.lookout(ctx).event(record)
	out.Unwanted = all == 0
	if !access.Has(Payload) {
		out.Data, out.Indexed, out.LeftOut = nil, nil, true
	}
	answer(w, http.StatusOK, out)
}

// noDelivery says why there is no delivery of an id, and where to look instead.
func (a *api) noDelivery(ctx context.Context, id string, err error) error {
	if !errors.Is(err, outbox.ErrNotFound) {
		return err
	}
	shown := shorten(id)
	switch {
	case strings.HasPrefix(id, "bat_"):
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the webhook-id of a batch, which several deliveries share: find them with GET /v1/deliveries, by endpoint and attempted_since", shown))
	case strings.HasPrefix(id, "job_"):
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the id of a job: GET /v1/jobs/{id} has it", shown))
	}
	if _, err := a.Records.Lookup(ctx, id); err == nil || strings.HasPrefix(id, "evt_") {
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the id of an event: GET /v1/events/{id} has it, with its deliveries", shown))
	}
	return refusal(problem.DeliveryNotFound, "id", fmt.Sprintf("there is no delivery %s: it may have been removed by retention. GET /v1/deliveries lists those that there are", shown))
}

// noEvent says why there is no event of an id, and where to look instead.
func noEvent(id string, err error) error {
	if !errors.Is(err, outbox.ErrNotFound) {
		return err
	}
	shown := shorten(id)
	switch {
	case strings.HasPrefix(id, "dlv_"):
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the id of a delivery: GET /v1/deliveries/{id} has it, and names its event", shown))
	case strings.HasPrefix(id, "bat_"):
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the webhook-id of a batch, which several deliveries share: find them with GET /v1/deliveries, by endpoint and attempted_since", shown))
	case strings.HasPrefix(id, "job_"):
		return refusal(problem.OtherKind, "id", fmt.Sprintf("%s is the id of a job: GET /v1/jobs/{id} has it", shown))
	}
	return refusal(problem.EventNotFound, "id", fmt.Sprintf("there is no event %s: it was not accepted here, or was removed by retention", shown))
}

// shorten bounds what the caller gave.
func shorten(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	b, _ := json.Marshal(s) // a text always can be written
	return string(b)
}
