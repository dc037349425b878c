package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream/redistest"
)

// newSpooled is a Relay whose outbox is in Redis, with a spool.
func newSpooled(t *testing.T, server *redistest.Server, receiver string, endpoints ...string) *process {
	t.Helper()
	p := &process{t: t, dir: testkit.Dir(t), endpoints: endpoints}
	block := strings.TrimSuffix(sharedOutbox(server), "}") + fmt.Sprintf(" spool = %q\n}", filepath.Join(p.dir, "spool"))
	p.configure(block, "1s", receiver)
	return p
}

// spool is what /readyz says about the spool.
func (p *process) spool() (s struct {
	Used             bool
	Waiting, Refused int64
	Reason           string
}) {
	p.t.Helper()
	_, body := p.ask(http.MethodGet, "/readyz")
	answer := struct{ Outbox struct{ Spool any } }{}
	answer.Outbox.Spool = &s
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		p.t.Fatalf("read %q: %v", body, err)
	}
	return s
}

// emptied waits until nothing is in the spool.
func (p *process) emptied() {
	p.t.Helper()
	testkit.Until(p.t, "the spool to be empty", func() bool { return !p.spool().Used })
}

// While Redis is away events are accepted, and everybody who asks hears where they are.
func TestSpoolIsTold(t *testing.T) {
	t.Parallel()
	receiver, arrived := counting(0)
	defer receiver.Close()
	server := redistest.StartKept(t)
	p := newSpooled(t, server, receiver.URL, "a")
	p.start()
	p.await()
	server.Kill()
	resp, err := p.client().Post("http://relay/v1/events", "application/json", strings.NewReader(`{"type":"crash.test","id":"e","data":1}`))
	testkit.Must(t, err)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	testkit.Must(t, err)
	if resp.StatusCode != http.StatusAccepted || string(body) != `{"id":"e","deliveries":1,"durability":"spooled"}`+"\n" {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	testkit.Until(t, "the reason", func() bool { return strings.Contains(p.spool().Reason, "redis cannot be reached") })
	if s := p.spool(); !s.Used || s.Waiting != 1 {
		t.Errorf("/readyz says %+v", s)
	}
	out, code := relay(t, "health", "--config", filepath.Join(p.dir, "relay.hcl"))
	if code != exitOK || !strings.HasPrefix(out, "ready\nthe spool takes the events: requests in it 1, outbox is unavailable: redis cannot be reached") {
		t.Errorf("relay health: code %d, %s", code, out)
	}
	if n := p.metric("relay_outbox_spool_pending"); n != 1 {
		t.Errorf("the metric says %v wait", n)
	}
	server.Start()
	testkit.Until(t, "the event", func() bool { return arrived.Load() == 1 })
	p.emptied()
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

// Fault F12: Relay starts while Redis is down, takes events, and they arrive when it comes.
func TestSpoolAtStart(t *testing.T) {
	t.Parallel()
	var arrived sync.Map // by event: a kill may repeat one
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived.Store(r.Header.Get("webhook-id"), true)
	}))
	defer receiver.Close()
	came := func(id string) func() bool {
		return func() bool {
			_, ok := arrived.Load(id)
			return ok
		}
	}
	server := redistest.StartKept(t)
	p := newSpooled(t, server, receiver.URL, "a")
	p.start()
	p.await()
	if !post(p.client(), "before") {
		t.Fatal("the event was not accepted")
	}
	testkit.Until(t, "the event before", came("before"))
	p.kill() // it has seen Redis once, so it knows what was made there at run time
	server.Kill()
	p.start()
	p.await()
	testkit.Until(t, "Relay to be ready", func() bool {
		code, _ := p.ask(http.MethodGet, "/readyz")
		return code == http.StatusOK
	})
	if !post(p.client(), "early") {
		t.Fatalf("the event was not accepted:\n%s", p.log)
	}
	p.kill() // what it took is on the disk
	p.start()
	server.Start()
	testkit.Until(t, "the event", came("early"))
}

// Promises P1, P2 and P7 while Redis is killed, hangs, and comes back empty under load, and Relay
// is killed while it empties the spool: no event is lost, and none is twice.
func TestSpoolLedger(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.StartKept(t)
	ledger := outboxtest.NewLedger()
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := ledger.Received(r.Header.Get("webhook-id"), strings.Trim(r.URL.Path, "/")); err != nil {
			t.Error(err)
		}
	}))
	defer receiver.Close()
	p := newSpooled(t, server, receiver.URL, "a", "b")
	p.start()
	p.await()

	var accepted, began atomic.Int64
	load := func() (stop func()) {
		over := make(chan struct{})
		var producers sync.WaitGroup
		for range 6 {
			producers.Go(func() {
				client := p.client()
				for wait(t.Context(), 3*time.Millisecond) {
					select {
					case <-over:
						return
					default:
					}
					id := fmt.Sprintf("e%d", began.Add(1))
					for !post(client, id) { // to its end, so that the count is exact
						if !wait(t.Context(), 5*time.Millisecond) {
							return
						}
					}
					accepted.Add(1)
					if err := ledger.Accepted(id, "a", "b"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		return func() { close(over); producers.Wait() }
	}
	pause := func(d time.Duration) { wait(t.Context(), d) }
	store := openShared(t, server)
	settled := func() {
		t.Helper()
		p.emptied()
		testkit.Until(t, "everything to arrive", func() bool {
			counts, err := store.Counts(t.Context())
			return err == nil && counts["a"].Pending+counts["b"].Pending == 0
		})
	}

	stop := load()
	pause(300 * time.Millisecond)
	stop()
	settled()
	before := accepted.Load()

	// Redis comes back empty: what it had is delivered, the rest is in the spool.
	server.Wipe()
	stop = load()
	pause(500 * time.Millisecond)
	server.Start()
	pause(500 * time.Millisecond)
	for range rounds(t, 4) {
		server.Kill()
		testkit.Until(t, "the spool to take events", func() bool { return p.spool().Waiting > 0 }) // a short outage is waited out
		pause(500 * time.Millisecond)
		server.Start()
		server.WaitReady()
		pause(rand.N(100 * time.Millisecond))
		p.kill() // while it empties the spool
		p.start()
		p.await()
		pause(300 * time.Millisecond)
	}
	server.Pause() // it hangs
	pause(4 * time.Second)
	server.Continue()
	pause(300 * time.Millisecond)
	testkit.Until(t, "a load that is worth it", func() bool { return accepted.Load() >= 500 })
	stop()
	settled()

	counts, err := store.Counts(t.Context())
	testkit.Must(t, err)
	for _, name := range p.endpoints {
		if got, want := counts[name].Accepted, accepted.Load()-before; got != want {
			t.Errorf("endpoint %s has %d deliveries for %d events", name, got, want)
		}
	}
	if s := p.spool(); s.Refused != 0 {
		t.Errorf("%d requests were refused at the move", s.Refused)
	}
	if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	tally, err := ledger.Check(t.Context(), store.Lookup)
	testkit.Must(t, err)
	t.Log(tally)
	if tally.Lost+tally.Pending+tally.Failed+tally.Discarded > 0 {
		t.Errorf("not everything arrived: %s\n%s", tally, strings.Join(tally.Losses, "\n"))
	}
	if tally.Acknowledged < 1000 {
		t.Errorf("%d deliveries: no load", tally.Acknowledged)
	}
}
