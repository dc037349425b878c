package deliver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/relay/deliver/delivertest"
	"relay/relay/post"
)

// Promise P13: the steps of a stop.
func TestStop(t *testing.T) {
	slow := delivertest.Step{Delay: 5 * time.Second}
	for _, c := range []struct {
		name       string
		grace      time.Duration
		abort      time.Duration // after the stop
		took       time.Duration
		state      outbox.State
		unfinished int
	}{
		{"attempts finish", 20 * time.Second, 0, 4 * time.Second, outbox.Delivered, 0},
		{"grace ends", 2 * time.Second, 0, 2 * time.Second, outbox.Pending, 1},
		{"aborted", 20 * time.Second, time.Second, time.Second, outbox.Pending, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.o.Grace = c.grace
				receiver := delivertest.NewEndpoint(slow)
				w.start(w.inMemory("billing", receiver))
				id := w.accept(1, "billing")[0]
				time.Sleep(time.Second)
				if c.abort > 0 {
					time.AfterFunc(c.abort, w.d.Abort)
				}
				time.AfterFunc(time.Millisecond, func() { w.accept(1, "billing") })
				start := time.Now()
				if err := w.stop(); err != nil {
					t.Errorf("run: %v", err)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("stop took %s, want %s", took, c.took)
				}
				if n := len(receiver.Requests()); n != 1 {
					t.Errorf("%d requests: work was claimed while stopping", n)
				}
				if got := w.d.Unfinished(); got != c.unfinished {
					t.Errorf("%d attempts cut short, want %d", got, c.unfinished)
				}
				d := w.delivery(id)
				if d.State != c.state || (c.state == outbox.Pending && d.Attempts != nil) {
					t.Errorf("delivery is %s with %d attempts, want %s", d.State, len(d.Attempts), c.state)
				}
				if c.state == outbox.Pending {
					// What was cut short is claimable at once.
					claims, err := w.store.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 1, Lease: time.Minute})
					if err != nil || claims[0].EventID != id || claims[0].Attempts != 0 {
						t.Errorf("claim after the stop: %v, %v", claims, err)
					}
				}
			})
		})
	}
}

// lateAnswer is a sender whose answer comes with the end of the attempt.
type lateAnswer struct{ discard }

func (lateAnswer) Send(ctx context.Context, _ post.Request) (post.Answer, *post.Failure) {
	<-ctx.Done()
	return post.Answer{Status: 200}, nil
}

// An answer that is here when the stop cuts attempts short still counts.
func TestStopKeepsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Source = &watched{Mem: w.store}
		w.o.Grace = time.Second
		w.start(w.inMemory("billing", delivertest.NewEndpoint()))
		r := w.d.runners["billing"]
		r.now.conns.once.Do(func() { r.now.conns.out = lateAnswer{} })
		id := w.accept(1, "billing")[0]
		synctest.Wait()
		w.stop()
		if d := w.delivery(id); d.State != outbox.Delivered || w.d.Unfinished() != 0 {
			t.Errorf("delivery is %s and %d attempts were cut short", d.State, w.d.Unfinished())
		}
	})
}

// Claims that a Source brings after the stop are handed back, not begun.
func TestStopHandsLateClaimsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := &watched{Mem: w.store, deaf: true}
		w.o.Source = source
		receiver := delivertest.NewEndpoint()
		w.start(w.inMemory("billing", receiver))
		synctest.Wait()
		time.AfterFunc(time.Second, func() { w.accept(1, "billing") })
		w.stop()
		if source.peak != 1 || source.open != 0 || len(receiver.Requests()) != 0 {
			t.Errorf("of %d claims %d are left, after %d requests", source.peak, source.open, len(receiver.Requests()))
		}
	})
}

// counted is a connection that knows whether it was closed.
type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func TestStopClosesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		var open atomic.Int64
		w.o.network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := w.net.Dial(ctx, network, address)
			open.Add(1)
			return &counted{Conn: c, open: &open}, err
		}
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		if open.Load() != 1 {
			t.Fatalf("%d connections are kept, want 1", open.Load())
		}
		w.stop()
		synctest.Wait()
		if open.Load() != 0 {
			t.Errorf("%d connections are open after the stop", open.Load())
		}
	})
}

// A stop cuts an attempt short that is stuck in writing.
func TestStopEndsWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Grace = time.Second
		e := w.inMemory("billing", delivertest.NewEndpoint())
		w.o.network.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			time.AfterFunc(time.Minute, func() { theirs.Close() })
			return ours, nil
		}
		w.start(e)
		id := w.acceptSized(1 << 20)
		synctest.Wait()
		start := time.Now()
		w.stop()
		if took := time.Since(start); took != time.Second || w.d.Unfinished() != 1 || w.delivery(id).State != outbox.Pending {
			t.Errorf("stop took %s, %d attempts were cut short, delivery is %s", took, w.d.Unfinished(), w.delivery(id).State)
		}
	})
}
