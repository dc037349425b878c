package metrics

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/relay/deliver"
)

// crowd is fleet with endpoints made at run time, each as busy as "busy". The function deletes all but the
// first of them.
func crowd(n int) (o Options, remain func(n int)) {
	o = fleet()
	files, now, store, inFiles := o.Status(), n, o.Outbox.(*box), o.InFiles
	for i := range n {
		store.counts[fmt.Sprint("made-", i)] = outboxCounts(i)
	}
	isMade := func(name string) bool {
		i := n
		_, _ = fmt.Sscanf(name, "made-%d", &i)
		return i < now
	}
	o.Status = func() []deliver.Status {
		all := files
		for i := range now {
			s := files[0]
			s.Endpoint = fmt.Sprint("made-", i)
			all = append(all, s)
		}
		return all
	}
	o.Kind = func(name string) Kind {
		switch {
		case isMade(name):
			return Made
		case slices.Contains([]string{"busy", "held", "idle"}, name):
			return Own
		}
		return Other
	}
	o.InFiles = func(ctx context.Context) map[string]bool {
		names := inFiles(ctx)
		for i := range now {
			names[fmt.Sprint("made-", i)] = true
		}
		return names
	}
	return o, func(n int) { now = n }
}

func outboxCounts(i int) outbox.Counts {
	return outbox.Counts{Accepted: 9, Pending: 1, Failed: 2, Oldest: time.Now().Add(-time.Duration(i) * time.Second)}
}

// Endpoints made at run time are one series, however many there are, and take nothing from those of the
// file.
func TestMadeEndpointsAreOneSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		few := ours(scrape(t, New(fleet())))
		o, _ := crowd(10_000)
		lines := ours(scrape(t, New(o)))
		var made []string
		for _, line := range lines {
			if strings.Contains(line, `endpoint="(made)"`) {
				made = append(made, line)
			} else if !slices.Contains(few, line) {
				t.Errorf("beside the sum there is %s", line)
			}
		}
		want := strings.Split(`relay_deliver_attempts_total{endpoint="(made)",outcome="delivered"} 50000
relay_deliver_attempts_total{endpoint="(made)",outcome="retry"} 10000
relay_deliver_attempts_total{endpoint="(made)",outcome="refused"} 0
relay_deliver_attempts_total{endpoint="(made)",outcome="gone"} 0
relay_deliver_waiting{endpoint="(made)",cause="limit"} 0
relay_deliver_waiting{endpoint="(made)",cause="breaker"} 10000
relay_deliver_waiting{endpoint="(made)",cause="retry_after"} 0
relay_deliver_waiting{endpoint="(made)",cause="consent"} 0
relay_deliver_waiting{endpoint="(made)",cause="paused"} 0
relay_deliver_waiting{endpoint="(made)",cause="disabled"} 0
relay_deliver_waiting{endpoint="(made)",cause="slots"} 0
relay_deliver_breaker_state{endpoint="(made)",state="closed"} 0
relay_deliver_breaker_state{endpoint="(made)",state="open"} 10000
relay_deliver_breaker_state{endpoint="(made)",state="half_open"} 0
relay_deliver_in_flight{endpoint="(made)"} 20000
relay_deliver_late_seconds_total{endpoint="(made)"} 95000
relay_deliver_attempt_seconds_total{endpoint="(made)"} 95000
relay_deliver_late_seconds_bucket{endpoint="(made)",le="0.1"} 30000
relay_deliver_late_seconds_bucket{endpoint="(made)",le="1"} 50000
relay_deliver_late_seconds_bucket{endpoint="(made)",le="+Inf"} 60000
relay_deliver_late_seconds_sum{endpoint="(made)"} 95000
relay_deliver_late_seconds_count{endpoint="(made)"} 60000
relay_deliver_attempt_seconds_bucket{endpoint="(made)",le="0.1"} 30000
relay_deliver_attempt_seconds_bucket{endpoint="(made)",le="1"} 50000
relay_deliver_attempt_seconds_bucket{endpoint="(made)",le="+Inf"} 60000
relay_deliver_attempt_seconds_sum{endpoint="(made)"} 95000
relay_deliver_attempt_seconds_count{endpoint="(made)"} 60000
relay_deliver_pending{endpoint="(made)"} 10000
relay_deliver_held{endpoint="(made)"} 0
relay_deliver_failed_total{endpoint="(made)"} 20000`, "\n")
		if diff := cmp.Diff(want, made); diff != "" {
			t.Errorf("the sum (-want +got):\n%s", diff)
		}
	})
}

// Counters of the sum do not fall when endpoints are deleted, and grow with those that stay.
// Deleted ones have series of their own for what is in the outbox, or one for many of them.
func TestDeletedEndpointsLeaveTheSum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, remain := crowd(1000)
		m := New(o)
		scrape(t, m)
		counters := []string{
			`relay_deliver_attempts_total{endpoint="(made)",outcome="delivered"} 5000`,
			`relay_deliver_late_seconds_bucket{endpoint="(made)",le="1"} 5000`,
			`relay_deliver_late_seconds_sum{endpoint="(made)"} 9500`,
			`relay_deliver_attempt_seconds_total{endpoint="(made)"} 9500`,
			`relay_deliver_failed_total{endpoint="(made)"} 2000`,
		}
		for _, c := range []struct {
			n    int
			want []string
		}{
			{900, []string{`relay_deliver_failed_total{endpoint="made-999"} 2`, `relay_deliver_held{endpoint="made-999"} 1`, `relay_deliver_pending{endpoint="(made)"} 900`}},
			{500, []string{`relay_deliver_failed_total{endpoint="(other)"} 1000`, `relay_deliver_held{endpoint="(other)"} 502`, `relay_deliver_in_flight{endpoint="(made)"} 1000`}},
		} {
			remain(c.n)
			time.Sleep(lookEvery)
			lines := ours(scrape(t, m))
			for _, want := range append(c.want, counters...) {
				if !slices.Contains(lines, want) {
					t.Errorf("of %d endpoints: no line %s", c.n, want)
				}
			}
		}
		remain(502)
		if lines := ours(scrape(t, m)); !slices.Contains(lines, `relay_deliver_attempts_total{endpoint="(made)",outcome="delivered"} 5010`) {
			t.Errorf("two more endpoints, with 5 deliveries each, are not counted")
		}
	})
}
