package policy

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"relay/outbox"
)

// tenanted is a policy of endpoints for all tenants and of endpoints for some.
func tenanted(t *rapid.T) *Policy {
	var endpoints []*Endpoint
	for i := range rapid.IntRange(0, 12).Draw(t, "endpoints") {
		pattern := rapid.SampledFrom([]string{"**", "invoice.*", "invoice.paid", "!invoice.paid"}).Draw(t, "pattern")
		m, err := NewMatcher([]string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		e := &Endpoint{Name: fmt.Sprint("e", i), Enabled: true, Events: m}
		if tenants := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, "tenants"); len(tenants) > 0 {
			e.Filter = &Filter{Tenants: tenants}
		}
		endpoints = append(endpoints, e)
	}
	return New(endpoints)
}

// An event gets the endpoints that asking each one of them gives, in the order of the file.
func TestRouteByTenant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := tenanted(t)
		for range 2 { // the second time from the cache
			for _, tenant := range []string{"", "a", "b", "c", "d"} {
				for _, eventType := range []string{"invoice.paid", "invoice.sent", "other"} {
					event := &outbox.Event{ID: "evt_1", Type: eventType, Tenant: tenant}
					var want []string
					for _, e := range p.Endpoints {
						if !e.Events.Match(eventType) {
							continue
						}
						if want == nil {
							want = []string{}
						}
						if e.Filter == nil || e.Filter.Decide(e.Name, ViewOf(event)).Gets {
							want = append(want, e.Name)
						}
					}
					got, terms := p.Route(event)
					if diff := cmp.Diff(want, got); diff != "" || terms != nil {
						t.Fatalf("%s of tenant %q: -want +got:\n%s terms %v", eventType, tenant, diff, terms)
					}
				}
			}
		}
	})
}

// Tenants that no endpoint names take no room in the cache.
func TestRoutesOfUnknownTenants(t *testing.T) {
	p := New([]*Endpoint{{Name: "all"}})
	for i := range 1000 {
		p.Route(&outbox.Event{Type: "a", Tenant: fmt.Sprint("t", i)})
	}
	if n := p.router.routes.Len(); n != 1 {
		t.Errorf("%d routes", n)
	}
}

func BenchmarkRouteOfTenants(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		var endpoints []*Endpoint
		for i := range n {
			endpoints = append(endpoints, &Endpoint{Name: fmt.Sprint("e", i), Filter: &Filter{Tenants: []string{fmt.Sprint("t", i)}}})
		}
		p := New(endpoints)
		events := make([]outbox.Event, n)
		for i := range events {
			events[i] = outbox.Event{ID: "evt_1", Type: "invoice.paid", Tenant: fmt.Sprint("t", i)}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if names, _ := p.Route(&events[i%n]); len(names) != 1 {
					b.Fatal(names)
				}
			}
		})
	}
}
