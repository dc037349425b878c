package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
	"relay/outbox/sqlite"
)

// Promise P9, as figures: by how much the worst window had more attempts than the rate allows,
// at their start and at the receiver, for one Relay and for five. At most the burst is
// right at the start; receivers see some of one moment's attempts with those of the next.
func TestLimitWindows(t *testing.T) {
	length := time.Second
	if figures() {
		length = 20 * time.Second
	}
	for _, c := range []struct{ perSecond, burst int }{{100, 50}, {1000, 100}, {10, 1}} {
		rules := fmt.Sprintf("rate_limit {\n limit = %d\n burst = %d\n}", c.perSecond, c.burst)
		events := c.burst + int(length.Seconds()*float64(c.perSecond))
		t.Run(fmt.Sprintf("alone %d per s, burst %d", c.perSecond, c.burst), func(t *testing.T) {
			receiver := &arrivals{}
			web := httptest.NewServer(receiver)
			defer web.Close()
			p := &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}, rules: rules}
			p.configure(fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", p.outbox()), "5s", web.URL)
			p.start()
			p.await()
			windows(t, []*process{p}, receiver, c.perSecond, c.burst, events, func() outbox.Engine {
				stopFleet(t, []*process{p})
				store, err := sqlite.Open(t.Context(), sqlite.Options{Dir: p.outbox(), Log: zerolog.Nop()})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = store.Close() })
				return store
			})
		})
		if !figures() && c.perSecond < 1000 {
			continue // TestFleetKeepsOneLimit is like it
		}
		t.Run(fmt.Sprintf("fleet %d per s, burst %d", c.perSecond, c.burst), func(t *testing.T) {
			server := redistest.Start(t)
			receiver := &arrivals{}
			web := httptest.NewServer(receiver)
			defer web.Close()
			fleet := newFleet(t, 5, server, web.URL, rules)
			windows(t, fleet, receiver, c.perSecond, c.burst, events, func() outbox.Engine {
				stopFleet(t, fleet)
				return openShared(t, server)
			})
		})
	}
}

// windows posts events to the Relays at once, waits for all to arrive and logs the worst
// windows. store stops the Relays and opens their outbox.
func windows(t *testing.T, fleet []*process, receiver *arrivals, perSecond, burst, events int, store func() outbox.Engine) {
	t.Helper()
	bodies := make([]strings.Builder, len(fleet))
	for i := range events {
		fmt.Fprintf(&bodies[i%len(fleet)], "{\"id\":\"e%d\",\"type\":\"a.b\",\"data\":{}}\n", i)
	}
	begin := time.Now()
	for i, p := range fleet {
		for lines := strings.SplitAfter(bodies[i].String(), "\n"); len(lines) > 1; {
			n := min(len(lines), 500)
			resp, err := p.client().Post("http://relay/v1/events", "application/x-ndjson", strings.NewReader(strings.Join(lines[:n], "")))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				t.Fatalf("events were answered %s", resp.Status)
			}
			lines = lines[n:]
		}
	}
	testkit.Until(t, "all events", func() bool { return receiver.count() >= events })
	took := time.Since(begin)
	arrived, at := receiver.most(float64(perSecond))
	if n := receiver.count(); n != events {
		t.Errorf("%d requests for %d events", n, events)
	}
	var began arrivals
	after := store()
	for i := range events {
		r, err := after.Lookup(t.Context(), fmt.Sprint("e", i))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range r.Deliveries[0].Attempts {
			began.at = append(began.at, a.Started)
		}
	}
	if len(began.at) != events {
		t.Errorf("%d attempts for %d events", len(began.at), events)
	}
	start, from := began.most(float64(perSecond))
	t.Logf("%d attempts in %s, %.0f/s; surplus of the worst window over %d/s, of %d allowed: at their start %.1f in %s, at the receiver %.1f in %s",
		events, took.Round(time.Millisecond), float64(events-burst)/took.Seconds(), perSecond, burst,
		start, from.Round(time.Millisecond), arrived, at.Round(time.Millisecond))
}
