package deliver

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Listeners hear of each attempt, as the outbox has it then.
func TestListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 503}))
		e = but(e, func(e *policy.Endpoint) { e.Retry.Schedule = []time.Duration{time.Minute} })
		w.start(e)
		var mu sync.Mutex
		var heard, more []outbox.Item
		stop := w.d.Listen(func(i *outbox.Item) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, *i)
		})
		stopMore := w.d.Listen(func(i *outbox.Item) { more = append(more, *i) })
		id := w.accept(1, "billing")[0]
		w.await(1)
		stopMore()
		w.await(2)
		stop()
		if w.d.listeners.Load() != nil {
			t.Error("without listeners there is a list")
		}
		w.accept(1, "billing")
		w.await(3)
		mu.Lock()
		defer mu.Unlock()
		if len(heard) != 2 || len(more) != 1 {
			t.Fatalf("heard %d and %d attempts, want 2 and 1", len(heard), len(more))
		}
		d := w.delivery(id)
		first, last := heard[0], heard[1]
		if first.State != outbox.Pending || first.Attempts != 1 || first.Code != "http_503" || first.Last.Status != 503 || first.Due.IsZero() || !first.Last.Next.Equal(first.Due) || !first.Finished.IsZero() {
			t.Errorf("first is %+v", first)
		}
		ignored := []cmp.Option{cmpopts.IgnoreFields(outbox.Delivery{}, "Due", "Created", "Finished"), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(d.Delivery, last.Delivery, ignored...); diff != "" {
			t.Errorf("delivery (-outbox +heard):\n%s", diff)
		}
		if diff := cmp.Diff(d.Attempts[1], *last.Last, append(ignored, cmpopts.EquateApproxTime(time.Microsecond))...); diff != "" {
			t.Errorf("attempt (-outbox +heard):\n%s", diff)
		}
		if last.Type != "invoice.paid" || last.Finished.IsZero() {
			t.Errorf("last is %+v", last)
		}
		w.stop()
	})
}
