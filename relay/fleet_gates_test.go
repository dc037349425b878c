package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
	"relay/relay/admin"
)

// newFleet starts n Relays that share the server's outbox and one endpoint "a".
func newFleet(t *testing.T, n int, server *redistest.Server, receiver, rules string) []*process {
	t.Helper()
	fleet := make([]*process, n)
	for i := range fleet {
		fleet[i] = &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}, rules: rules}
		fleet[i].configure(sharedOutbox(server), "5s", receiver)
		fleet[i].start()
	}
	for _, p := range fleet {
		p.await()
	}
	return fleet
}

// arrivals is a receiver that notes when requests come.
type arrivals struct {
	mu     sync.Mutex
	at     []time.Time
	busy   int
	peak   int
	status func() int // optional
	delay  time.Duration
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.at = append(a.at, time.Now())
	a.busy++
	a.peak = max(a.peak, a.busy)
	status := http.StatusOK
	if a.status != nil {
		status = a.status()
	}
	a.mu.Unlock()
	wait(r.Context(), a.delay)
	a.mu.Lock()
	a.busy--
	a.mu.Unlock()
	w.WriteHeader(status)
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at)
}

// most is how many requests came in the worst window, measured against what a limit
// allows: the surplus over perSecond × window, and that window.
func (a *arrivals) most(perSecond float64) (surplus float64, window time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := slices.SortedFunc(slices.Values(a.at), time.Time.Compare)
	// Of all windows that end with a request, the worst begins where requests were most
	// behind the rate.
	least, from := 0.0, time.Time{}
	for i, t := range at {
		behind := float64(i) - perSecond*t.Sub(at[0]).Seconds()
		if i == 0 || behind < least {
			least, from = behind, t
		}
		if over := behind - least + 1; over > surplus {
			surplus, window = over, t.Sub(from)
		}
	}
	return surplus, window
}

// Promise P9: five Relays with one outbox keep one rate limit between them. The receiver sees
// requests a little later than they began, some more than others, so it may see some of one moment's with
// those of the next.
func TestFleetKeepsOneLimit(t *testing.T) {
	server := redistest.Start(t)
	receiver := &arrivals{}
	web := httptest.NewServer(receiver)
	defer web.Close()
	const perSecond, burst, events = 100, 50, 450
	fleet := newFleet(t, 5, server, web.URL, fmt.Sprintf("rate_limit {\n limit = %d\n burst = %d\n}", perSecond, burst))
	begin := time.Now()
	for i := range events {
		if !post(fleet[i%5].client(), fmt.Sprintf("e%d", i)) {
			t.Fatalf("event %d was not accepted", i)
		}
	}
	testkit.Until(t, "all events", func() bool { return receiver.count() == events })
	took := time.Since(begin)
	surplus, window := receiver.most(perSecond)
	t.Logf("%d requests in %s; the worst window of %s had %.1f more than the rate, the burst is %d", events, took.Round(time.Millisecond), window.Round(time.Millisecond), surplus, burst)
	if late := float64(perSecond); surplus > burst+late { // a machine that stalls for a second; five limits would let through hundreds
		t.Errorf("a window of %s had %.1f requests more than %d/s, the burst is %d", window, surplus, perSecond, burst)
	}
	if n := receiver.count(); n != events {
		t.Errorf("%d requests for %d events", n, events)
	}
	stopFleet(t, fleet)
}

func stopFleet(t *testing.T, fleet []*process) {
	t.Helper()
	for _, p := range fleet {
		if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
			t.Errorf("exit code %d after an interrupt, want 0", code)
		}
	}
}

// Promise P9: when the breaker has opened for one of five Relays it is open for all, and
// after its time one probe goes out, not five.
func TestFleetSendsOneProbe(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	var down = true
	receiver := &arrivals{delay: 300 * time.Millisecond}
	receiver.status = func() int {
		if down {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	web := httptest.NewServer(receiver)
	defer web.Close()
	fleet := newFleet(t, 5, server, web.URL, `
		breaker {
		  min_attempts = 5
		  window       = "1m"
		  open         = "3s"
		  jitter       = 0
		}`)
	accept := func(from, to int) {
		for i := from; i < to; i++ {
			if !post(fleet[i%5].client(), fmt.Sprintf("e%d", i)) {
				t.Fatalf("event %d was not accepted", i)
			}
		}
	}
	accept(0, 200)
	var opened int // requests that had come when all five knew that the breaker is open, and none was under way
	testkit.Until(t, "the breaker to open", func() bool {
		for _, p := range fleet {
			if e := askAdmin[admin.Endpoint](p, 200, "GET", "/v1/endpoints/a", ""); e.Waiting != "breaker" || e.InFlight > 0 { // one may be on its way
				return false
			}
		}
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		opened, receiver.peak = len(receiver.at), 0
		return receiver.busy == 0
	})
	const soon = 1500 * time.Millisecond // before the next probe
	testkit.Until(t, "a probe, and time for others", func() bool {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return len(receiver.at) > opened && time.Since(receiver.at[opened]) > soon
	})
	receiver.mu.Lock()
	down = false
	if receiver.peak > 1 {
		t.Errorf("%d probes at the same time", receiver.peak)
	}
	if probes := receiver.at[opened:]; len(probes) > 1 && probes[1].Sub(probes[0]) < soon {
		t.Errorf("probes at %v, want one of the whole fleet", probes)
	}
	receiver.mu.Unlock()
	testkit.Until(t, "what waited", func() bool { return receiver.count() >= opened+1+200 })
	store := openShared(t, server)
	testkit.Until(t, "all to be delivered", func() bool {
		counts, err := store.Counts(t.Context())
		return err == nil && counts["a"].Delivered == 200
	})
	stopFleet(t, fleet)
}

// A fleet holds no more attempts at the same time than fleet_concurrency.
func TestFleetConcurrency(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	receiver := &arrivals{delay: 50 * time.Millisecond}
	web := httptest.NewServer(receiver)
	defer web.Close()
	fleet := newFleet(t, 5, server, web.URL, "fleet_concurrency = 3")
	for i := range 60 {
		if !post(fleet[i%5].client(), fmt.Sprintf("e%d", i)) {
			t.Fatalf("event %d was not accepted", i)
		}
	}
	testkit.Until(t, "all events", func() bool { return receiver.count() == 60 })
	stopFleet(t, fleet)
	if receiver.peak > 3 {
		t.Errorf("%d attempts at the same time, want at most 3", receiver.peak)
	}
}
