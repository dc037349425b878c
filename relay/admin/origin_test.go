package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/query"
)

// A delivery says which one it repeats while asking for that one answers it: not to a token that may not see it, and not
// after retention. A list asks the outbox for nothing of it but for a bound token, and then says if the outbox fails.
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
	shown := func(a *Access, want, inList string) {
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
			if where != "list" && got != want || where == "list" && got != inList {
				t.Errorf("%s shows redelivery_of %q to %v, want %q, in a list %q", where, got, a, want, inList)
			}
		}
	}
	origin := s.ids["search"]
	shown(nil, origin, origin)
	shown(bound, "", "")
	if _, _, err := s.Reap(t.Context(), outbox.Retention{Delivered: time.Hour, Failed: -time.Hour}); err != nil {
		t.Fatal(err)
	}
	if w := get(s.options, "GET", "/v1/deliveries/"+s.ids["search"]); w.Code != 404 {
		t.Fatalf("retention left the origin: %d", w.Code)
	}
	shown(nil, "", origin)

	s.options.Records = &lookups{Mem: s.Mem, err: outbox.ErrUnavailable}
	for a, want := range map[*Access]int{nil: 200, bound: 503} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/v1/deliveries?manual=true", nil)
		New(s.options).ServeHTTP(w, r.WithContext(WithAccess(r.Context(), a)))
		if w.Code != want {
			t.Errorf("a list for %v while look-ups fail: %d, want %d", a, w.Code, want)
		}
	}
}

// lookups is an outbox that finds deliveries by filter, and fails to by id.
type lookups struct {
	*outboxtest.Mem
	err   error
	asked int
	bound bool // whether all came with a deadline
}

func (s *lookups) LookupDelivery(ctx context.Context, _ string) (*outbox.Record, error) {
	_, s.bound = ctx.Deadline()
	s.asked++
	return nil, s.err
}

// A stream asks a failing outbox once in a second, for a short time, and tells the attempts all the same.
func TestTailBearsAFailingOutbox(t *testing.T) {
	s := newSequel(t)
	records := &lookups{Mem: s.Mem, err: outbox.ErrUnavailable}
	s.options.Records = records
	a := newAPI(s.options)
	ctx := WithAccess(t.Context(), &Access{Name: "billing", May: []Right{Read}, Endpoints: []string{"billing"}})
	q, err := a.parser().Values(url.Values{}, query.Tail)
	if err != nil {
		t.Fatal(err)
	}
	scope, err := a.newScope(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	reader := &tail{a: a, w: w, rc: http.NewResponseController(w), room: make(chan *outbox.Item, tailRoom), scope: scope, checked: time.Now(), origins: maxOrigins}
	i := &outbox.Item{Delivery: outbox.Delivery{ID: "dlv_2", Endpoint: "billing", Origin: "dlv_1"}, Last: &outbox.Attempt{N: 1}}
	for range 3 {
		reader.room <- i
		if err := reader.attempts(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(w.Body.String(), "event: attempt"); n != 6 || records.asked != 1 || !records.bound {
		t.Errorf("%d attempts told, %d look-ups, with a deadline: %v", n, records.asked, records.bound)
	}
}

// A stream says it of so many attempts in a second that nobody misses it, and asks the outbox no more than that.
func TestOriginsAreBounded(t *testing.T) {
	s := newSequel(t)
	l := newAPI(s.options).lookout(t.Context())
	l.looks, l.asks = 1, true
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
