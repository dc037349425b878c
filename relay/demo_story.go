package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"relay/relay/client"
)

// How the story of "relay demo --page" goes on.
const (
	storyBurst = 60                     // events at once at the start, so that there is something to see
	storyPace  = 400 * time.Millisecond // between events, about
	storyTurn  = 30 * time.Second       // how long the warehouse is down, and up
	storySick  = "c-13"                 // customer that the CRM refuses
)

// serveReceivers plays all receivers at ln until stop.
func serveReceivers(ctx context.Context, ln net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := receivers{began: time.Now()}
	srv := &http.Server{
		Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, // ends the answers that are slow
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // until Close
	}()
	return func() { cancel(); srv.Close(); <-done }
}

// receivers answers as the receivers of the story do.
type receivers struct{ began time.Time }

func (s receivers) serve(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Data struct{ Customer string }
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return // the client has gone
	}
	_ = json.Unmarshal(body, &event) // what it lacks stays empty
	status, took, text := s.answer(r.URL.Path, event.Data.Customer)
	if !wait(r.Context(), took) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Request-Id", fmt.Sprintf("req-%08x", rand.Uint32()))
	if status == http.StatusServiceUnavailable {
		h.Set("Server", "warehouse/4.2")
	}
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// answer is what a path answers now, and how long it takes.
func (s receivers) answer(path, customer string) (status int, took time.Duration, text string) {
	between := func(least, most int) time.Duration {
		return time.Duration(least+rand.IntN(most-least)) * time.Millisecond
	}
	down := int(time.Since(s.began)/storyTurn)%2 == 0
	switch {
	case path == "/warehouse" && down:
		return http.StatusServiceUnavailable, between(3, 20), `{"error":"stock is being counted","until":"the next half hour"}`
	case path == "/crm" && customer == storySick:
		return http.StatusUnprocessableEntity, between(10, 40), `{"error":"unknown customer","customer":"` + storySick + `","help":"create the customer first"}`
	case path == "/analytics":
		return http.StatusAccepted, between(600, 1900), `{"queued":true}`
	}
	return http.StatusOK, between(8, 60), `{"received":true}`
}

// sendStory sends events until ctx ends. Relay repeats what receivers refuse; the story repeats
// what Relay does not take.
func sendStory(ctx context.Context, to client.Target) {
	s := newStory(uint64(time.Now().UnixNano()))
	for {
		body, _ := json.Marshal(s.next()) // texts and numbers always can
		for {
			code, _, err := to.Do(client.Request{Method: http.MethodPost, Path: "/v1/events", Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
			if err == nil && code == http.StatusAccepted {
				break
			}
			if !wait(ctx, 100*time.Millisecond) {
				return
			}
		}
		pace := time.Duration(0)
		if s.n > storyBurst {
			pace = storyPace/2 + time.Duration(s.random.Int64N(int64(storyPace)))
		}
		if !wait(ctx, pace) {
			return
		}
	}
}

// story makes events of a shop: orders that are paid, shipped and billed, and devices that report.
type story struct {
	random *rand.Rand
	n      int
	sales  int
	open   []sale // that go on
}

type sale struct {
	number, customer, tenant, currency string
	amount, step                       int
}

// saying is an event as the app sends it.
type saying struct {
	ID     string         `json:"id"`
	Type   string         `json:"type"`
	Tenant string         `json:"tenant,omitempty"`
	Key    string         `json:"key,omitempty"`
	Data   map[string]any `json:"data"`
}

func newStory(seed uint64) *story { return &story{random: rand.New(rand.NewPCG(seed, 1))} }

func (s *story) next() saying {
	s.n++
	e := saying{ID: fmt.Sprintf("evt_demo_%06d", s.n)}
	switch chance := s.random.IntN(20); { // most orders come to their end
	case chance < 4:
		s.device(&e)
	case chance < 7 || len(s.open) == 0:
		s.sell(&e)
	default:
		s.goOn(&e)
	}
	return e
}

func (s *story) device(e *saying) {
	device := fmt.Sprint([]string{"cam-", "door-", "scale-"}[s.random.IntN(3)], 1+s.random.IntN(9))
	e.Type, e.Key, e.Data = "device.reading", device, map[string]any{"device": device, "celsius": float64(150+s.random.IntN(120)) / 10, "battery": 20 + s.random.IntN(80)}
	if s.random.IntN(8) == 0 {
		e.Type, e.Data = "device.offline", map[string]any{"device": device, "last_seen": time.Now().Add(-5 * time.Minute).UTC().Format(time.RFC3339)}
	}
}

func (s *story) sell(e *saying) {
	o := sale{
		number: fmt.Sprintf("SO-%d", 10400+s.n), customer: fmt.Sprint("c-", 1+(8+s.sales)%13), amount: 100 * (9 + s.random.IntN(400)),
		tenant: append(demoTenants(), "")[s.random.IntN(3)], currency: []string{"EUR", "TWD", "USD"}[s.random.IntN(3)],
	}
	s.sales++
	s.open = append(s.open, o)
	var lines []map[string]any
	for range 1 + s.random.IntN(3) {
		lines = append(lines, map[string]any{"sku": []string{"NUT-M8", "BOLT-M8X40", "GASKET-22", "SPRING-3"}[s.random.IntN(4)], "quantity": 10 * (1 + s.random.IntN(30))})
	}
	o.fill(e, "order.created")
	e.Data["lines"] = lines
}

// goOn takes an order one step further.
func (s *story) goOn(e *saying) {
	i := s.random.IntN(len(s.open))
	o := &s.open[i]
	steps := []string{"order.paid", "invoice.created", "order.shipped", "invoice.paid"}
	o.fill(e, steps[o.step])
	if o.step++; o.step == len(steps) {
		s.open = append(s.open[:i], s.open[i+1:]...)
	}
}

func (o *sale) fill(e *saying, event string) {
	e.Type, e.Tenant, e.Key = event, o.tenant, o.number
	e.Data = map[string]any{"order": o.number, "customer": o.customer, "amount": o.amount, "currency": o.currency}
	switch event {
	case "invoice.created", "invoice.paid":
		e.Data["invoice"] = "IN-" + o.number[3:]
	case "order.shipped":
		e.Data["carrier"], e.Data["parcels"] = "Post", 1+o.amount/20000
	}
}
