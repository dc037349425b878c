package deliver

import (
	"context"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/gate"
)

func TestBackoff(t *testing.T) {
	r := &policy.Steps{Schedule: []time.Duration{10 * time.Second, time.Hour}, Jitter: 0.1}
	for _, c := range []struct {
		name   string
		n      int
		random float64
		want   time.Duration
		ok     bool
	}{
		{"middle", 1, 0.5, 10 * time.Second, true},
		{"least", 1, 0, 9 * time.Second, true},
		{"most", 1, 1, 11 * time.Second, true},
		{"second step", 2, 0.5, time.Hour, true},
		{"after the last step", 3, 0.5, 0, false},
		{"far beyond", 1 << 40, 0.5, 0, false},
	} {
		if got, ok := backoff(r, c.n, c.random); got != c.want || ok != c.ok {
			t.Errorf("%s: backoff = %s, %t, want %s, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestBackoffStaysWithinJitter(t *testing.T) {
	for _, jitter := range []float64{0, 0.1, 0.5, 1} {
		r := &policy.Steps{Schedule: []time.Duration{time.Hour}, Jitter: jitter}
		low, high := time.Duration(float64(time.Hour)*(1-jitter)), time.Duration(float64(time.Hour)*(1+jitter))
		for i := range 1000 {
			got, _ := backoff(r, 1, float64(i)/1000)
			if got < low || got > high {
				t.Fatalf("jitter %v: backoff = %s, want %s to %s", jitter, got, low, high)
			}
		}
	}
}

// A long Retry-After is the gate's affair alone, so that the end of its hold lets the delivery
// go; max_age counts it all the same.
func TestNextDelay(t *testing.T) {
	end := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	rule := policy.Retry{Steps: policy.Steps{Schedule: []time.Duration{10 * time.Second}}, MaxRetryAfter: time.Hour}
	for _, c := range []struct {
		name              string
		asked, age        time.Duration
		attempts          int
		alone             bool
		wantDue, wantNext time.Duration
		ok                bool
	}{
		{name: "by the schedule", wantDue: 10 * time.Second, wantNext: 10 * time.Second, ok: true},
		{name: "asked for less", asked: 5 * time.Second, wantDue: 10 * time.Second, wantNext: 10 * time.Second, ok: true},
		{name: "asked for more", asked: time.Minute, wantDue: 10 * time.Second, wantNext: time.Minute, ok: true},
		{name: "asked for more than may be", asked: 24 * time.Hour, wantDue: 10 * time.Second, wantNext: time.Hour, ok: true},
		{name: "too old then", asked: time.Minute, age: 50 * time.Second, wantDue: 10 * time.Second, wantNext: time.Minute},
		{name: "old, not too old", asked: time.Minute, age: time.Minute, wantDue: 10 * time.Second, wantNext: time.Minute, ok: true},
		{name: "after the last step", asked: time.Minute, attempts: 1, wantNext: time.Minute},
		{name: "alone", asked: time.Minute, attempts: 1, alone: true, ok: true},
	} {
		rule.MaxAge = c.age
		claim := outbox.Claim{Delivery: outbox.Delivery{Created: end, Attempts: c.attempts}}
		due, next, ok := nextDelay(&rule, &claim, &gate.Attempt{Status: 503, RetryAfter: c.asked}, &judgement{alone: c.alone}, end, 0.5)
		if due != c.wantDue || next != c.wantNext || ok != c.ok {
			t.Errorf("%s: due after %v, tried after %v, %t; want %v, %v, %t", c.name, due, next, ok, c.wantDue, c.wantNext, c.ok)
		}
	}
	rule.Schedule[0], rule.MaxAge = 0, 0
	claim := outbox.Claim{Delivery: outbox.Delivery{Created: end}}
	due, _, _ := nextDelay(&rule, &claim, &gate.Attempt{Status: 503, RetryAfter: time.Second}, &judgement{}, end, 0.5)
	if due != time.Second {
		t.Errorf("due after %v: other Relays do not hear of a short hold", due)
	}
}

// contractEndpoint is one of examples/contracts as it is, but for where it is.
func contractEndpoint(t *testing.T, w *world, file, name string, receiver *delivertest.Endpoint) *policy.Endpoint {
	t.Helper()
	f, err := config.Load([]string{"../../examples/contracts/" + file + ".hcl"}, func(string) (string, bool) {
		return "https://in.test/" + secret, true // for URLs and secrets
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	e, here := p.Endpoint(name), w.inMemory(name, receiver)
	e.URL, e.Egress = here.URL, here.Egress
	return e
}

// The schedules of the contracts, to the second, whatever the receiver says; and what ends at once.
func TestContractSchedules(t *testing.T) {
	hang := delivertest.Step{Fault: delivertest.Hang}
	later := delivertest.Step{Status: 503, Header: map[string]string{"Retry-After": "7200"}}
	const s, m = time.Second, time.Minute
	for _, c := range []struct {
		file, endpoint string
		step           delivertest.Step
		gaps           []time.Duration // between the end of an attempt and the next one
		took           time.Duration   // each attempt
		jitter         float64
	}{
		{"saas-alerts", "saas-alerts", delivertest.Step{Status: 500}, []time.Duration{10 * s, 20 * s, 40 * s}, 0, 0.1},
		{"saas-alerts", "saas-alerts", hang, []time.Duration{10 * s, 20 * s, 40 * s}, 5 * s, 0.1},
		{"saas-alerts", "saas-alerts", delivertest.Step{Delay: 4 * s}, nil, 4 * s, 0},
		{"group-manager", "group-manager", delivertest.Step{Status: 500}, []time.Duration{m, 5 * m, 30 * m}, 0, 0},
		{"group-manager", "group-manager", delivertest.Step{Status: 302}, []time.Duration{m, 5 * m, 30 * m}, 0, 0},
		{"group-manager", "group-manager", delivertest.Step{Status: 410}, []time.Duration{m, 5 * m, 30 * m}, 0, 0},
		{"group-manager", "group-manager", later, []time.Duration{m, 5 * m, 30 * m}, 0, 0},
		{"group-manager", "group-manager", delivertest.Step{Fault: delivertest.Close}, []time.Duration{m, 5 * m, 30 * m}, 0, 0},
		{"group-manager", "group-manager", hang, []time.Duration{m, 5 * m, 30 * m}, 30 * s, 0},
		{"group-manager", "group-manager", delivertest.Step{Delay: 29 * s}, nil, 29 * s, 0},
		{"developer-platform", "wh-builds", delivertest.Step{Status: 500}, []time.Duration{s, 2 * s}, 0, 0},
		{"developer-platform", "wh-builds", later, []time.Duration{m, m}, 0, 0},
		{"developer-platform", "wh-builds", hang, []time.Duration{s, 2 * s}, 30 * s, 0},
		{"developer-platform", "wh-builds", delivertest.Step{Fault: delivertest.Close}, []time.Duration{s, 2 * s}, 0, 0},
		{"developer-platform", "wh-builds", delivertest.Step{Status: 429}, nil, 0, 0},
		{"developer-platform", "wh-linear", delivertest.Step{Status: 502}, []time.Duration{s, 2 * s}, 0, 0},
		{"developer-platform", "wh-linear", delivertest.Step{Status: 500}, nil, 0, 0},
		{"developer-platform", "wh-linear", hang, nil, 30 * s, 0},
		{"developer-platform", "wh-fixed", delivertest.Step{Status: 502}, []time.Duration{s, s}, 0, 0},
		{"api-monetization", "quota-notice", delivertest.Step{Status: 500}, []time.Duration{5 * m, 5 * m, 5 * m}, 0, 0},
		{"api-monetization", "quota-notice", later, []time.Duration{5 * m, 5 * m, 5 * m}, 0, 0},
		{"api-monetization", "quota-notice", delivertest.Step{Delay: 2 * s, Status: 500}, []time.Duration{5 * m, 5 * m, 5 * m}, 2 * s, 0},
		{"api-monetization", "quota-notice", hang, nil, 3 * s, 0},
		{"api-monetization", "quota-notice", delivertest.Step{Status: 429}, nil, 0, 0},
		{"good-practice", "practice", delivertest.Step{Status: 500},
			[]time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 320 * s, 640 * s, 1280 * s, 2560 * s, 60 * m}, 0, 0.1},
	} {
		t.Run(c.endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(c.step)
				e := contractEndpoint(t, w, c.file, c.endpoint, receiver)
				w.start(e)
				id := w.acceptAs(t, c.endpoint, contractData)
				w.await(len(c.gaps) + 1)
				time.Sleep(72 * time.Hour) // nothing more comes
				results := w.await(1)
				if len(results) != len(c.gaps)+1 {
					t.Fatalf("%d attempts, want %d", len(results), len(c.gaps)+1)
				}
				for i, r := range results {
					if r.Attempt.Took.Round(time.Second) != c.took {
						t.Errorf("attempt %d took %s, want %s", i+1, r.Attempt.Took, c.took)
					}
					if i == 0 {
						continue
					}
					want := c.gaps[i-1]
					before := results[i-1].Attempt
					slack := time.Duration(c.jitter*float64(want)) + 100*time.Millisecond
					if gap := r.Attempt.Started.Sub(before.Started.Add(before.Took)); (gap - want).Abs() > slack {
						t.Errorf("attempt %d began %s after the one before, want %s ± %s", i+1, gap, want, slack)
					}
				}
				want := outbox.Failed
				if c.step.Status == 0 && c.step.Fault == delivertest.None {
					want = outbox.Delivered
				}
				if d := w.delivery(id); d.State != want {
					t.Errorf("delivery is %s, want %s", d.State, want)
				}
			})
		})
	}
}

const contractData = `{"organization":"a","developer":"b","products":[],"rate_plan":"c","quota":1,"percent_used":80,"reason":"d"}`

// acceptAs brings one event with this data.
func (w *world) acceptAs(t *testing.T, endpoint, data string) string {
	t.Helper()
	id := "evt_" + endpoint
	entry := outbox.Entry{Event: outbox.Event{ID: id, Type: "a", Time: time.Now(), Data: []byte(data)}, Endpoints: []string{endpoint}}
	if _, err := w.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{entry}}); err != nil {
		t.Fatal(err)
	}
	return id
}

// Contract D: 3 s to connect, and no second try.
func TestContractConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := contractEndpoint(t, w, "api-monetization", "quota-notice", delivertest.NewEndpoint())
		w.o.network.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, os.ErrDeadlineExceeded
		}
		w.start(e)
		id := w.acceptAs(t, e.Name, contractData)
		r := w.await(1)[0]
		if took := r.Attempt.Took.Round(time.Second); took != 3*time.Second || !slices.Contains([]string{policy.CodeTimeout, policy.CodeConnectTimeout}, r.Attempt.Code) {
			t.Errorf("took %s, code %q", took, r.Attempt.Code)
		}
		if d := w.delivery(id); d.State != outbox.Failed {
			t.Errorf("delivery is %s, want failed", d.State)
		}
	})
}

// dueTimes is an outbox that notes the due times of settlements.
type dueTimes struct {
	*outboxtest.Mem
	due chan time.Time
}

func (o *dueTimes) Settle(ctx context.Context, c outbox.Claim, s outbox.Settlement) error {
	o.due <- s.Due
	return o.Mem.Settle(ctx, c, s)
}

// Due times reach the outbox with a monotonic reading. A wall clock that is set between the
// attempt and its settlement would move them otherwise. There is no such reading in a bubble.
func TestDueTimeIsMonotonic(t *testing.T) {
	w := newWorld(t)
	source := &dueTimes{w.store, make(chan time.Time, 1)}
	w.o.Source = source
	e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 503}))
	w.start(e)
	w.accept(1, "billing")
	if due := <-source.due; due == due.Round(0) {
		t.Errorf("the due time %v has no monotonic reading", due)
	}
}
