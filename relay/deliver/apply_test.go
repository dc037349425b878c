package deliver

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

// apply replaces the policy.
func (w *world) apply(endpoints ...*policy.Endpoint) {
	w.d.Apply(&policy.Policy{Endpoints: endpoints})
}

// but is a copy of an endpoint with one difference.
func but(e *policy.Endpoint, change func(*policy.Endpoint)) *policy.Endpoint {
	c := *e
	u := *e.URL
	c.URL = &u
	change(&c)
	return &c
}

// An endpoint that is as before keeps its connections, and so does one whose change has
// nothing to do with them; all else gets new ones.
func TestApplyAndConnections(t *testing.T) {
	same := func(*policy.Endpoint) {}
	for _, c := range []struct {
		name   string
		change func(*policy.Endpoint)
		conns  int
	}{
		{"nothing", same, 1},
		{"headers", func(e *policy.Endpoint) {
			e.Headers = []policy.Header{{Name: "X-Env", Value: config.NewSecret("prod")}}
		}, 1},
		{"schedule", func(e *policy.Endpoint) { e.Retry.Schedule = e.Retry.Schedule[:1] }, 1},
		{"concurrency", func(e *policy.Endpoint) { e.Concurrency = 1 }, 1},
		{"path", func(e *policy.Endpoint) { e.URL.Path = "/other" }, 2},
		{"timeout", func(e *policy.Endpoint) { e.Timeout.Connect = time.Second }, 2},
		{"egress", func(e *policy.Endpoint) { e.Egress.Ports = []uint16{80} }, 2},
		{"http2", func(e *policy.Endpoint) { e.HTTP2 = true }, 2},
		{"disabled for a moment", nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint()
				e := w.inMemory("billing", receiver)
				w.start(e)
				w.accept(1, "billing")
				w.await(1)
				if c.change == nil {
					w.apply(but(e, func(e *policy.Endpoint) { e.Enabled = false }))
					c.change = same
				}
				w.apply(but(e, c.change))
				w.accept(1, "billing")
				w.await(2)
				if n := receiver.Conns(); n != c.conns {
					t.Errorf("%d connections, want %d", n, c.conns)
				}
			})
		})
	}
}

// Fault F39: attempts under way end as they began, the next one is made as the new
// policy says, and attempts that were made count.
func TestApplyInTheMiddleOfRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before := delivertest.NewEndpoint(delivertest.Step{Delay: 2 * time.Second, Status: 503})
		after := delivertest.NewEndpoint(delivertest.Step{Status: 503}, delivertest.Step{Status: 503}, delivertest.Step{})
		old, other := w.inMemory("billing", before), w.inMemory("moved", after)
		old.Retry.Jitter = 0
		w.start(old)
		id := w.accept(1, "billing")[0]
		time.Sleep(time.Second) // the attempt is under way
		w.apply(but(old, func(e *policy.Endpoint) {
			e.URL = other.URL
			e.Retry.Schedule = []time.Duration{time.Hour, time.Minute, time.Second}
		}))
		start := time.Now()
		results := w.await(4)
		if n := len(before.Requests()); n != 1 || results[0].Attempt.Status != 503 {
			t.Errorf("the first attempt had %d requests, status %d", n, results[0].Attempt.Status)
		}
		// 1 s is left of the first attempt, 5 s are the old schedule's.
		if took := time.Since(start); took != (1+5+60+1)*time.Second {
			t.Errorf("it took %s", took)
		}
		for i, r := range after.Requests() {
			if r.Attempt != i+2 || r.Event != id {
				t.Errorf("request %d is attempt %d of %s", i, r.Attempt, r.Event)
			}
		}
		if d := w.delivery(id); d.State != outbox.Delivered || len(d.Attempts) != 4 {
			t.Errorf("delivery is %s after %d attempts", d.State, len(d.Attempts))
		}
	})
}

// A new secret signs the next attempt.
func TestApplyNewSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		receiver.Verifier = verifier(t)
		e := w.inMemory("billing", receiver)
		other, err := sign.NewSigner(sign.Standard(), []string{"whsec_" + "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="})
		if err != nil {
			t.Fatal(err)
		}
		rotated := but(e, func(e *policy.Endpoint) { e.Signers = []*sign.Signer{other} })
		w.start(rotated)
		w.accept(1, "billing")
		w.await(1)
		w.apply(e)
		w.accept(1, "billing")
		w.await(2)
		r := receiver.Requests()
		if r[0].Err == nil || r[1].Err != nil {
			t.Errorf("signatures: before %v, after %v", r[0].Err, r[1].Err)
		}
	})
}

// Fault F38: what waits for an endpoint that is removed or disabled stays, and goes on
// when it comes back; what is under way finishes.
func TestApplyHoldsTheBacklog(t *testing.T) {
	for _, how := range []string{"removed", "disabled"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(delivertest.Step{Delay: 2 * time.Second}, delivertest.Step{})
				e := w.inMemory("billing", receiver)
				e.Concurrency = 1
				w.start(e)
				ids := w.accept(10, "billing")
				time.Sleep(time.Second)
				if how == "removed" {
					w.apply()
				} else {
					w.apply(but(e, func(e *policy.Endpoint) { e.Enabled = false }))
				}
				time.Sleep(time.Hour)
				if n := len(receiver.Requests()); n != 1 {
					t.Errorf("%d requests, want the one that was under way", n)
				}
				if d := w.delivery(ids[0]); d.State != outbox.Delivered {
					t.Errorf("what was under way is %s", d.State)
				}
				if c, _ := w.store.Counts(t.Context()); c["billing"].Pending != 9 {
					t.Errorf("counts are %+v, want 9 pending", c["billing"])
				}
				w.apply(e)
				w.await(10)
				if n := len(receiver.Requests()); n != 10 {
					t.Errorf("%d requests in the end, want 10", n)
				}
			})
		})
	}
}

// Runners and connections of endpoints that are gone are forgotten.
func TestApplyForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		for i := range 100 {
			w.apply(but(e, func(e *policy.Endpoint) { e.Name = fmt.Sprint("other", i) }))
			synctest.Wait()
		}
		w.apply(e)
		synctest.Wait()
		if n := len(w.d.runners); n > 2 {
			t.Errorf("%d runners are kept", n)
		}
		w.accept(1, "billing")
		w.await(2)
	})
}

// Connections that were replaced are closed: at once when idle, else with the attempt
// that is under way on them.
func TestApplyClosesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: time.Second}))
		var open atomic.Int64
		w.o.network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := w.net.Dial(ctx, network, address)
			open.Add(1)
			return &counted{Conn: c, open: &open}, err
		}
		other := but(e, func(e *policy.Endpoint) { e.URL.Path = "/2" })
		expect := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := open.Load(); n != want {
				t.Errorf("%d connections %s, want %d", n, when, want)
			}
		}
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		expect("after an attempt", 1)
		w.apply(other)
		expect("after the change", 0)
		w.accept(1, "billing")
		time.Sleep(time.Millisecond)
		w.apply(e)
		expect("with an attempt under way", 1)
		w.await(2)
		expect("after it", 0)
		w.accept(1, "billing")
		w.await(3)
		w.apply()
		expect("of a removed endpoint", 0)
	})
}

// Slots follow concurrency up and down; those above it are used to their end.
func TestApplyConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Minute})
		e := w.inMemory("billing", receiver)
		e.Timeout.Total = 5 * time.Minute
		sized := func(n int) *policy.Endpoint { return but(e, func(e *policy.Endpoint) { e.Concurrency = n }) }
		w.start(sized(4))
		w.accept(40, "billing")
		came := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			if n := len(receiver.Requests()); n != want {
				t.Errorf("%d requests came, want %d", n, want)
			}
		}
		came(time.Second, 4)
		w.apply(sized(6))
		came(time.Second, 6)
		w.apply(sized(1))
		came(57*time.Second, 6)
		came(10*time.Second, 7)
		came(50*time.Second, 7)
		w.apply(sized(8))
		came(time.Second, 14)
	})
}

// A claim that waits since before the reload has a lease for the old time limit: the
// attempts that follow need one for theirs.
func TestApplyLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: 9 * time.Minute}))
		w.start(e)
		synctest.Wait() // it waits in Claim
		w.apply(but(e, func(e *policy.Endpoint) { e.Timeout.Total = 10 * time.Minute }))
		id := w.accept(1, "billing")[0]
		w.await(1)
		if d := w.delivery(id); d.State != outbox.Delivered || len(d.Attempts) != 1 {
			t.Errorf("delivery is %s after %d attempts", d.State, len(d.Attempts))
		}
	})
}

func TestApplyBesideTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		other := but(e, func(e *policy.Endpoint) { e.URL.Path = "/2" })
		d := New(w.o, &policy.Policy{})
		d.Apply(&policy.Policy{Endpoints: []*policy.Endpoint{e}})
		d.Apply(&policy.Policy{Endpoints: []*policy.Endpoint{other}})
		ctx, stop := context.WithCancel(t.Context())
		w.ended = make(chan struct{})
		go func() {
			w.err = d.Run(ctx)
			close(w.ended)
		}()
		w.accept(1, "billing")
		w.await(1)
		stop()
		<-w.ended
		d.Apply(&policy.Policy{Endpoints: []*policy.Endpoint{e}}) // too late, and harmless
		synctest.Wait()
		if w.err != nil {
			t.Errorf("run: %v", w.err)
		}
	})
}

// Promise P12: a thousand reloads under load lose nothing and repeat nothing.
func TestReloadStorm(t *testing.T) {
	const reloads, producers, endpoints = 1000, 4, 4
	w := newWorld(t)
	ledger := outboxtest.NewLedger()
	receivers := map[string]*delivertest.Endpoint{}
	var all []*policy.Endpoint
	for i := range endpoints {
		name := fmt.Sprint("e", i)
		r := delivertest.NewEndpoint()
		r.Answer = func(req *delivertest.Request) delivertest.Step {
			if req.Attempt == 1 && req.Hash[0] < 8 {
				return delivertest.Step{Status: 503}
			}
			if err := ledger.Received(req.Event, name); err != nil {
				t.Error(err)
			}
			return delivertest.Step{}
		}
		receivers[name] = r
		e := w.inMemory(name, r)
		e.Retry.Schedule = []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, time.Second}
		all = append(all, e)
	}
	w.o.observe = nil
	w.start(all...)

	ctx, stop := context.WithCancel(t.Context())
	var producing sync.WaitGroup
	for p := range producers {
		producing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("evt_%d_%d", p, n)
				to := []string{fmt.Sprint("e", n%endpoints), fmt.Sprint("e", (n+1)%endpoints)}
				_, err := w.store.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{
					Event: outbox.Event{ID: id, Type: "a.b", Data: fmt.Append(nil, n)}, Endpoints: to,
				}}})
				if err != nil {
					continue // the end
				}
				if err := ledger.Accepted(id, to...); err != nil {
					t.Error(err)
				}
				// Load, but none that outgrows the receivers.
				for ctx.Err() == nil && n%64 == 63 && w.backlog() > 512 {
					testkit.Wait(ctx, time.Millisecond)
				}
			}
		})
	}
	for i := range reloads {
		next := make([]*policy.Endpoint, 0, endpoints)
		for j, e := range all {
			switch (i/3 + j) % 6 {
			case 0: // removed
			case 1:
				next = append(next, but(e, func(e *policy.Endpoint) { e.Enabled = false }))
			case 2:
				next = append(next, but(e, func(e *policy.Endpoint) { e.URL.Path = fmt.Sprint("/", i) }))
			case 3:
				next = append(next, but(e, func(e *policy.Endpoint) { e.Concurrency = 1 + i%16 }))
			case 4:
				next = append(next, but(e, func(e *policy.Endpoint) { e.Timeout.Total = time.Duration(10+i%50) * time.Second }))
			default:
				next = append(next, e)
			}
		}
		w.apply(next...)
		testkit.Wait(ctx, time.Duration(i%4)*time.Millisecond)
	}
	stop()
	producing.Wait()
	w.apply(all...)
	late := time.Now().Add(60 * time.Second)
	for w.backlog() > 0 {
		if time.Now().After(late) {
			t.Fatalf("%d deliveries are still pending", w.backlog())
		}
		testkit.Wait(t.Context(), 5*time.Millisecond)
	}
	if err := w.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
	tally, err := ledger.Check(t.Context(), w.store.Lookup)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(tally)
	if tally.Acknowledged < reloads || tally.Lost+tally.Duplicates+tally.Unpromised+tally.Failed > 0 || tally.Delivered != tally.Acknowledged {
		t.Errorf("after %d reloads: %s", reloads, tally)
	}
	for name, r := range receivers {
		if r.Peak() > 2*16 { // a receiver counts a request for a moment longer than we do
			t.Errorf("%d requests at a time at %s", r.Peak(), name)
		}
	}
}

// backlog is how many deliveries are not over.
func (w *world) backlog() (n int64) {
	counts, err := w.store.Counts(context.Background())
	if err != nil {
		return 0
	}
	for _, c := range counts {
		n += c.Pending
	}
	return n
}
