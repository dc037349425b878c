package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/config"
	"relay/policy"
)

// Everybody hears what they may do, whatever that is.
func TestMyself(t *testing.T) {
	h := newHouse(t)
	end := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		access *Access
		want   string
	}{
		{nil, `{"name":"admin token","may":["read","payload","secrets","test","redeliver","endpoints","operate"],"whole":true}`},
		{&Access{Name: "nothing"}, `{"name":"token nothing","may":[],"whole":true}`},
		{&Access{Name: "acme", May: []Right{Read}, Tenants: []string{"acme"}}, `{"name":"token acme","may":["read"],"whole":false,"tenants":["acme"]}`},
		{&Access{Name: "one", May: []Right{Read, Test}, Endpoints: []string{"billing"}}, `{"name":"token one","may":["read","test"],"whole":false,"endpoints":["billing"]}`},
		{&Access{Name: "link of acme", May: []Right{Read}, Tenants: []string{"acme"}, Expires: end}, `{"name":"token link of acme","may":["read"],"whole":false,"tenants":["acme"],"expires":"2027-01-02T03:04:05Z"}`},
	} {
		if w := h.as(c.access, "GET", "/v1/access", ""); w.Code != 200 || strings.TrimSpace(w.Body.String()) != c.want {
			t.Errorf("%d %s, want %s", w.Code, w.Body, c.want)
		}
	}
	links := h.o.Links()
	token := links.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: end.Unix()})
	if a := links.Access(token, end.Add(-time.Second)); a == nil || !a.Expires.Equal(end) {
		t.Errorf("a link's access is %+v", a)
	}
}

// The catalogue is there for every token that may read, one that is bound to a tenant included.
func TestTypes(t *testing.T) {
	h := newHouse(t)
	f, err := config.Parse("relay.hcl", []byte(`
event_type "invoice.paid" {
  description = "An invoice was paid."
  schema      = jsonencode({ type = "object", required = ["amount"], properties = { amount = { type = "integer", description = "in cents" } } })
  example     = jsonencode({ amount = 1200 })
}
event_type "order.made" {
  index = ["data.amount"]
}
`), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (list TypeList) {
		t.Helper()
		w := h.as(&Access{Name: "acme", May: []Right{Read}, Tenants: []string{"acme"}}, "GET", "/v1/types", "")
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 || strings.Contains(w.Body.String(), "null") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return list
	}
	if got := ask(); len(got.Types) != 0 {
		t.Errorf("types of a file that declares none: %+v", got)
	}
	h.o.Policy = func() *policy.Policy { return p }
	h.o.Indexes = func() []string { return IndexesOf([]string{"data.shop", "data.amount"}, p) }
	want := TypeList{Index: []string{"data.amount", "data.shop"}, Types: []EventType{
		{
			Type: "invoice.paid", Description: "An invoice was paid.",
			Fields:  []policy.Field{{Name: "amount", Type: "integer", Required: true, Description: "in cents"}},
			Example: json.RawMessage(`{"amount":1200}`),
			Schema:  json.RawMessage(`{"properties":{"amount":{"description":"in cents","type":"integer"}},"required":["amount"],"type":"object"}`),
		},
		{Type: "order.made", Fields: []policy.Field{}},
	}}
	if diff := cmp.Diff(want, ask()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w := h.as(&Access{Name: "ops", May: []Right{Operate}}, "GET", "/v1/types", ""); w.Code != 403 {
		t.Errorf("without the right read: %d %s", w.Code, w.Body)
	}
}
