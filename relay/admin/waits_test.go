package admin

import (
	"testing"
	"time"

	"relay/relay/deliver"
)

// A pending delivery waits for what its endpoint waits for, if its time has come, or if that ends after it. A held one waits for
// the state of its endpoint to change.
func TestWhatADeliveryWaitsFor(t *testing.T) {
	now := time.Unix(1e9, 0)
	past, soon, late := now.Add(-time.Second), now.Add(time.Minute), now.Add(time.Hour)
	for _, c := range []struct {
		name string
		at   standing
		due  time.Time
		want string
		next time.Time
	}{
		{"nothing", standing{"active", deliver.Status{}}, past, "", past},
		{"a rate limit", standing{"active", deliver.Status{Waiting: deliver.WaitLimit}}, past, "limit", past},
		{"a rate limit, not yet", standing{"active", deliver.Status{Waiting: deliver.WaitLimit}}, soon, "", soon},
		{"a breaker", standing{"active", deliver.Status{Waiting: deliver.WaitBreaker, OpenUntil: soon}}, past, "breaker", soon},
		{"a breaker that opens later", standing{"active", deliver.Status{Waiting: deliver.WaitBreaker, OpenUntil: late}}, soon, "breaker", late},
		{"a breaker that opens before", standing{"active", deliver.Status{Waiting: deliver.WaitBreaker, OpenUntil: soon}}, late, "", late},
		{"the receiver", standing{"active", deliver.Status{Waiting: deliver.WaitRetryAfter, HeldUntil: late}}, soon, "retry_after", late},
		{"an operator", standing{"paused", deliver.Status{Waiting: deliver.WaitPaused}}, late, "paused", late},
		{"a file", standing{"removed", deliver.Status{}}, past, "removed", past},
		{"another Relay", standing{"elsewhere", deliver.Status{}}, past, "", past},
	} {
		if got := c.at.waits(c.due, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := c.at.comes(c.due); !got.Equal(c.next) {
			t.Errorf("%s: the next attempt at %s, want %s", c.name, got, c.next)
		}
	}
}

// Lists and single deliveries tell what a delivery waits for, and until when that is known.
func TestDeliveriesTellWhatTheyWaitFor(t *testing.T) {
	s := newSequel(t)
	g := s.options.Deliverer.(*gates)
	g.status[1].Waiting, g.status[1].OpenUntil = deliver.WaitBreaker, time.Now().Add(time.Hour)
	for endpoint, want := range map[string]string{"archive": "paused", "again": "breaker"} {
		got := ask[DeliveryWhole](t, s, "/v1/deliveries/"+s.ids[endpoint])
		if got.Waits != want {
			t.Errorf("%s waits for %q, want %q", endpoint, got.Waits, want)
		}
		if open := g.status[1].OpenUntil; endpoint == "again" && !got.NextAttempt.Equal(open) {
			t.Errorf("its next attempt is at %s, and the breaker is open until %s", got.NextAttempt, open)
		}
	}
	waits := map[string]string{}
	for _, d := range ask[DeliveryList](t, s, "/v1/deliveries").Items {
		waits[d.ID] = d.Waits
	}
	if waits[s.ids["archive"]] != "paused" || waits[s.ids["again"]] != "breaker" || waits[s.ids["search"]] != "" {
		t.Errorf("%v", waits)
	}
}
