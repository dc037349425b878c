package deliver

import (
	"errors"
	"time"

	"relay/outbox"
	"relay/policy"
)

// TestDelivery is the id in requests of Test, whose delivery is stored after the attempt.
const TestDelivery = "dlv_test"

// ErrStopping: Relay is stopping, or stopped amid the attempt.
var ErrStopping = errors.New("relay is stopping")

// Test makes one attempt for an event that is in no queue, at once: past rate limit, breaker, pause, consent and slots,
// and also for a disabled endpoint. It has connections of its own, so their phases are measured. It is made by
// the code of real attempts, with the same guard and the same bound of connections, but counts for no breaker and no metric, changes nothing of the
// endpoint, and is not stored. State is Delivered or Failed. It takes the endpoint's total time at most. Errors: ErrStopping.
func (d *Deliverer) Test(endpoint *policy.Endpoint, event *outbox.Event) (Result, error) {
	d.mu.Lock()
	if d.phase == ended {
		d.mu.Unlock()
		return Result{}, ErrStopping
	}
	d.work.Add(1) // while mu is held, so the end of Run waits for it
	d.mu.Unlock()
	defer d.work.Done()

	s := &setup{endpoint: endpoint, url: endpoint.RequestURL().String(), record: newRecorder(endpoint), conns: new(connections), claiming: d.claiming}
	defer s.conns.close()
	r := &runner{d: d, name: endpoint.Name}
	start := time.Now()
	began, self := d.at(start), d.o.Self()
	claims := []outbox.Claim{{
		Delivery: outbox.Delivery{ID: TestDelivery, EventID: event.ID, Endpoint: endpoint.Name, State: outbox.Pending, Due: began, Created: began, Manual: true},
		Event:    event,
	}}
	e := r.try(s, claims, nil, start)
	if e.failure != nil && d.working.Err() != nil {
		return Result{}, ErrStopping
	}
	res := Result{Endpoint: endpoint.Name, EventID: event.ID, EventType: event.Type, DeliveryID: TestDelivery, State: outbox.Failed, Attempt: s.recordOf(&e)}
	a, j := &res.Attempt, judge(endpoint, 1, &e)
	a.N, a.Started, a.Took, a.Relay, a.Generation = 1, began.UTC(), time.Since(start), self.Relay, self.Generation
	a.Outcome, a.Code, a.Error = string(j.outcome), j.code, j.text
	if j.outcome == Delivered {
		res.State = outbox.Delivered
	}
	return res, nil
}
