package page

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"relay/relay/admin"
)

// Types that are ticked and patterns that are typed are one list.
func TestTickedTypes(t *testing.T) {
	c := &call{p: New(Options{}), lang: "en"}
	f := &endpointForm{Types: []admin.EventType{{Type: "order.created"}, {Type: "order.paid"}}}
	f.show(settings{"events": []any{"order.paid", "invoice.*"}})
	if got := f.Typed.Get("events"); got != "invoice.*" || !slices.Equal(f.Typed["tick"], []string{"order.paid"}) {
		t.Errorf("typed %q, ticked %v", got, f.Typed["tick"])
	}
	for _, x := range []struct {
		typed  string
		ticked []string
		want   string
	}{
		{"", nil, "<nil>"}, {"", []string{"order.created", "order.paid"}, "[order.created order.paid]"}, {"invoice.*", []string{"order.created"}, "[invoice.* order.created]"},
		{"order.created", []string{"order.created"}, "[order.created]"},
	} {
		f := &endpointForm{Types: f.Types, Typed: url.Values{"events": {x.typed}, "tick": x.ticked}}
		if got := fmt.Sprint(f.settings(c)["events"]); got != x.want {
			t.Errorf("%q and %v: %s, want %s", x.typed, x.ticked, got, x.want)
		}
	}
}

// Lists are read with what people put between their items, and what nobody touched stays, also an item with a comma.
func TestTypedLists(t *testing.T) {
	c := &call{p: New(Options{}), lang: "en"}
	for _, x := range []struct {
		field, base, typed string
		want               []any
	}{
		{"events", "", "order.* t.flap", []any{"order.*", "t.flap"}},
		{"events", "", " order.*\r\nt.flap,\tinvoice.paid ", []any{"order.*", "t.flap", "invoice.paid"}},
		{"events", "", "order.*，t.flap、invoice.paid", []any{"order.*", "t.flap", "invoice.paid"}},
		{"sign", "", "standard github", []any{"standard", "github"}},
		{"tenants", "", "acme, big shop", []any{"acme", "big shop"}},
		{"tenants", `{"tenants":["Acme, Inc"]}`, "Acme, Inc", []any{"Acme, Inc"}},
		{"tenants", `{"tenants":["Acme, Inc"]}`, "Acme", []any{"Acme"}},
	} {
		f := &endpointForm{Base: x.base, Typed: url.Values{x.field: {x.typed}}}
		if got, _ := f.settings(c)[x.field].([]any); !slices.Equal(got, x.want) {
			t.Errorf("%s %q: %q, want %q", x.field, x.typed, got, x.want)
		}
	}
}

// A pattern that fits no type of the catalogue is told, and where there is no catalogue nothing is.
func TestUnknownTypes(t *testing.T) {
	types := []admin.EventType{{Type: "order.created"}, {Type: "invoice.paid"}}
	for events, want := range map[string]string{
		"all": "[]", "": "[]", "order.created": "[]", "order.*, invoice.paid": "[]", "**": "[]", "order.creatd, invoice.*": "[order.creatd]", "!order.gone": "[]", "order.created order.creatd !x": "[order.creatd]", "shop.*, x": "[shop.* x]",
	} {
		if got := fmt.Sprint(unknownTypes(events, types)); got != want {
			t.Errorf("%q: %s, want %s", events, got, want)
		}
		if got := unknownTypes(events, nil); got != nil {
			t.Errorf("%q without a catalogue: %v", events, got)
		}
	}
}

// The list of endpoints says for which tenants they are, where that is so of any, and to who sees several.
func TestTenantsInTheListOfEndpoints(t *testing.T) {
	for answer, want := range map[string]bool{
		`{"endpoints":[{"name":"a","state":"active","tenants":["acme","globex"]},{"name":"b","state":"active"}],"total":2}`: true,
		`{"endpoints":[{"name":"b","state":"active"}],"total":1}`:                                                           false,
	} {
		for _, access := range []*admin.Access{nil, {May: admin.Rights(), Tenants: []string{"acme"}}} {
			p := compared(t, New(Options{API: fakeAPI(map[string]string{"GET /v1/endpoints": answer, "GET /v1/stats": statsAnswer}), Now: noon, Tokens: func() *admin.Tokens {
				return &admin.Tokens{Whole: "whole", Others: map[string]*admin.Access{"bound": access}}
			}}))
			r := httptest.NewRequest(http.MethodGet, "/endpoints", nil)
			r.Header.Set("Authorization", map[bool]string{true: "Bearer whole", false: "Bearer bound"}[access == nil])
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if got := strings.Contains(w.Body.String(), "<th>Tenants</th>") && strings.Contains(w.Body.String(), "acme, globex"); w.Code != http.StatusOK || got != (want && access == nil) {
				t.Errorf("whole %v, %s: %d, a column: %v", access == nil, answer, w.Code, got)
			}
		}
	}
}
