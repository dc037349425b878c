package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"relay/ingest/problem"
	"relay/policy"
)

// goesTo refuses a redelivery to an endpoint that is not there, or that is for other tenants than the event's. It
// warns if the endpoint takes no events of that type by itself.
func (a *api) goesTo(ctx context.Context, r *http.Request, to string, old *Delivery) (warning string, err error) {
	if to != "" {
		if err := a.isThere(r, to); err != nil {
			return "", err
		}
	}
	if err := a.canGo(ctx, to, old.Endpoint); err != nil || to == "" {
		return "", err
	}
	e := a.Policy().Endpoint(to)
	tenants := tenantsOf(e)
	switch {
	case e == nil: // in the file of another Relay
		return "", nil
	case tenants != nil && old.Event.Tenant == "":
		return "", otherTenant(e, "and this event has no tenant")
	case tenants != nil && !slices.Contains(tenants, old.Event.Tenant):
		return "", otherTenant(e, "and this event is of "+shorten(old.Event.Tenant))
	case !e.Events.Match(old.Event.Type):
		warning = fmt.Sprintf("endpoint %s takes no events of type %s by its own events (%s)", to, old.Event.Type, e.Show("events", e.Events.String()))
	}
	return warning, nil
}

// jobGoesTo is goesTo for all deliveries of a filter, whose tenants it must name if the endpoint is for some alone.
func (a *api) jobGoesTo(ctx context.Context, r *http.Request, to string, filter url.Values) (warning string, err error) {
	if err := a.isThere(r, to); err != nil {
		return "", err
	}
	if err := a.canGo(ctx, to, ""); err != nil {
		return "", err
	}
	e := a.Policy().Endpoint(to)
	if tenants := tenantsOf(e); tenants != nil {
		asked := filter["tenant"]
		if len(asked) == 0 {
			return "", otherTenant(e, "so name tenant in the filter")
		}
		for _, t := range asked {
			if !slices.Contains(tenants, t) {
				return "", otherTenant(e, "and the filter names "+shorten(t))
			}
		}
	}
	if e != nil && !e.Events.All() {
		warning = fmt.Sprintf("endpoint %s takes %s by itself; this sends it all that the filter selects", to, e.Show("events", e.Events.String()))
	}
	return warning, nil
}

// tenantsOf are the tenants whose events alone an endpoint gets; nil for all.
func tenantsOf(e *policy.Endpoint) []string {
	if e == nil || e.Filter == nil || len(e.Filter.Tenants) == 0 {
		return nil
	}
	return e.Filter.Tenants
}

func otherTenant(e *policy.Endpoint, why string) error {
	shown := e.Show("tenants", strings.Join(tenantsOf(e), ", "))
	return refusal(problem.OtherTenant, "to", fmt.Sprintf("endpoint %s is for events of these tenants alone: %s; %s", e.Name, shown, why))
}
