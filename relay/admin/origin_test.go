package admin

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"relay/outbox"
)

// A delivery says which one it repeats while asking for that one answers it: not to a token that may not see it, and not
// after retention.
func TestRedeliveryOfIsThere(t *testing.T) {
	s := newSequel(t)
	edited, err := s.Edit(t.Context(), []outbox.Change{{Action: outbox.Redeliver, Delivery: s.ids["search"], Endpoint: "billing"}})
	if err != nil || edited[0].Err != nil {
		t.Fatal(err, edited)
	}
	other := edited[0].Delivery
	bound := &Access{Name: "billing", May: []Right{Read}, Endpoints: []string{"billing"}}
	read := func(a *Access, path string, to any) {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", path, nil)
		New(s.options).ServeHTTP(w, r.WithContext(WithAccess(r.Context(), a)))
		if err := json.Unmarshal(w.Body.Bytes(), to); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	shown := func(a *Access, want string) {
		t.Helper()
		var one DeliveryWhole
		var list DeliveryList
		var event EventWhole
		read(a, "/v1/deliveries/"+other, &one)
		read(a, "/v1/deliveries?manual=true&endpoint=billing", &list)
		read(a, "/v1/events/evt_1", &event)
		all := map[string]string{"delivery": one.RedeliveryOf, "event": "none", "list": "none"}
		for where, items := range map[string][]Delivery{"list": list.Items, "event": event.Deliveries} {
			for _, d := range items {
				if d.ID == other {
					all[where] = d.RedeliveryOf
				}
			}
		}
		for where, got := range all {
			if got != want {
				t.Errorf("%s shows redelivery_of %q to %v, want %q", where, got, a, want)
			}
		}
	}
	shown(nil, s.ids["search"])
	shown(bound, "")
	if _, _, err := s.Reap(t.Context(), outbox.Retention{Delivered: time.Hour, Failed: -time.Hour}); err != nil {
		t.Fatal(err)
	}
	if w := get(s.options, "GET", "/v1/deliveries/"+s.ids["search"]); w.Code != 404 {
		t.Fatalf("retention left the origin: %d", w.Code)
	}
	shown(nil, "")
}

// A stream says it of so many attempts in a second that nobody misses it, and asks the outbox no more than that.
func TestOriginsAreBounded(t *testing.T) {
	s := newSequel(t)
	l := newAPI(s.options).lookout(t.Context())
	l.looks = 1
	i := outbox.Item{Delivery: outbox.Delivery{Origin: s.ids["search"]}}
	for range 3 {
		if got := l.origin(&i); got != s.ids["search"] {
			t.Errorf("origin %q", got)
		}
	}
	i.Origin = s.ids["billing"]
	if got := l.origin(&i); got != "" || l.looks != 0 {
		t.Errorf("origin %q with %d looks left", got, l.looks)
	}
}
