package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// sharedOutbox is the block of the file for the server.
func sharedOutbox(server *redistest.Server) string {
	return fmt.Sprintf("outbox \"redis\" {\n url = %q\n namespace = \"fleet\"\n}", server.URL())
}

// newMember is a process of a fleet. Its attempts are short, and so are its leases: a
// member that dies is replaced when they end.
func newMember(t *testing.T, server *redistest.Server, receiver string, endpoints ...string) *process {
	t.Helper()
	p := &process{t: t, dir: testkit.Dir(t), endpoints: endpoints}
	p.configure(sharedOutbox(server), "1s", receiver)
	return p
}

// openShared opens the outbox of the fleet beside it.
func openShared(t *testing.T, server *redistest.Server) *redisstream.Store {
	t.Helper()
	store, err := redisstream.Open(t.Context(), redisstream.Options{URL: server.URL(), Database: -1, Namespace: "fleet", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close outbox: %v", err)
		}
	})
	return store
}

// Promises P1, P2, P3 and P7, and fault F25: of five Relays that share an outbox one after
// the other is killed under load and started again, but for the last. Apps that get no 202 repeat the event with
// its id at another Relay.
func TestKillFleetUnderLoad(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	ledger := outboxtest.NewLedger()
	var last atomic.Int64 // when the last request came
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if !wait(r.Context(), rand.N(40*time.Millisecond)) {
			return // the Relay died: it has no answer
		}
		last.Store(time.Now().UnixNano())
		if err := ledger.Received(r.Header.Get("webhook-id"), strings.Trim(r.URL.Path, "/")); err != nil {
			t.Error(err)
		}
	}))
	defer receiver.Close()
	store := openShared(t, server)

	fleet, clients := make([]*process, 5), make([]*http.Client, 5)
	for i := range fleet {
		fleet[i] = newMember(t, server, receiver.URL, "a", "b")
		clients[i] = fleet[i].client()
		fleet[i].start()
	}
	for _, p := range fleet {
		p.await()
	}
	ctx, stopProducers := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	var accepted atomic.Int64
	for n := range 6 {
		producers.Go(func() {
			for i := 0; wait(ctx, 5*time.Millisecond); i++ {
				id := fmt.Sprintf("p%d-%d", n, i)
				for !post(clients[rand.IntN(len(clients))], id) {
					if !wait(ctx, 5*time.Millisecond) {
						return
					}
				}
				if err := ledger.Accepted(id, "a", "b"); err != nil {
					t.Error(err)
				}
				accepted.Add(1)
			}
		})
	}
	kills := rounds(t, 5)
	for range kills - 1 {
		wait(ctx, 1500*time.Millisecond)
		p := fleet[rand.IntN(len(fleet))]
		p.kill()
		p.start() // on the same machine, so it gets the leases at once
	}
	wait(ctx, 1500*time.Millisecond)
	testkit.Until(t, "a load that is worth it", func() bool { return accepted.Load() >= int64(50*kills) })
	fleet[0].kill()
	killed := time.Now()
	stopProducers()
	producers.Wait()

	// What the last one had claimed comes when its leases end: nobody starts it again.
	testkit.Until(t, "everything to arrive", func() bool {
		counts, err := store.Counts(t.Context())
		return err == nil && counts["a"].Pending+counts["b"].Pending == 0
	})
	for _, p := range fleet[1:] {
		p.await()
		if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
			t.Errorf("exit code %d after an interrupt, want 0", code)
		}
	}
	tally, err := ledger.Check(t.Context(), store.Lookup)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills: %s; all arrived %s after the last", kills, tally, time.Unix(0, last.Load()).Sub(killed).Round(time.Millisecond))
	if tally.Lost+tally.Pending+tally.Failed+tally.Discarded > 0 {
		t.Errorf("not everything arrived: %s\n%s", tally, strings.Join(tally.Losses, "\n"))
	}
	if most := kills * (2*crashConcurrency + settleBacklog); tally.Duplicates > most {
		t.Errorf("%d duplicates, at most %d can have been under way at %d kills", tally.Duplicates, most, kills)
	}
	if tally.Acknowledged < 100*kills {
		t.Errorf("only %d deliveries acknowledged: no load", tally.Acknowledged)
	}
}

// Fault F12 and promise P13: Relay starts while Redis is down, says so, refuses
// events, and works when Redis comes. SIGTERM lets the attempt under way end.
func TestStartsBeforeRedis(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	store := openShared(t, server)
	server.Stop()
	began := make(chan string, 10)
	answer := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- r.Header.Get("webhook-id")
		<-answer
	}))
	defer receiver.Close()
	p := &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}}
	p.configure(sharedOutbox(server), "15s", receiver.URL)
	port := testkit.Port(t)
	p.rewrite(`http = ""`, fmt.Sprintf(`http = "127.0.0.1:%d"`, port))
	p.start()
	p.await()
	awaitLine(t, p.log, `"message":"ready"`)
	ready := func() int {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", port))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if code := ready(); code != http.StatusServiceUnavailable {
		t.Errorf("readyz says %d while Redis is down, want 503", code)
	}
	client := p.client()
	if post(client, "early") {
		t.Error("an event was accepted while Redis is down")
	}
	server.Start()
	testkit.Until(t, "readyz to say 200", func() bool { return ready() == http.StatusOK })
	testkit.Until(t, "an event to be accepted", func() bool { return post(client, "late") })
	<-began
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, p.log, `"message":"stopping"`)
	close(answer)
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	p.cmd = nil
	record, err := store.Lookup(t.Context(), "late")
	if err != nil {
		t.Fatal(err)
	}
	if d := record.Deliveries[0]; d.State != outbox.Delivered || len(d.Attempts) != 1 {
		t.Errorf("the delivery is %s after %d attempts, want delivered after 1", d.State, len(d.Attempts))
	}
}

// rewrite changes the configuration.
func (p *process) rewrite(from, to string) {
	p.t.Helper()
	file := p.dir + "/relay.hcl"
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(b), from, to, 1)), 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Two Relays with different files share an outbox: each makes the deliveries of the
// endpoints that its own file names, and what neither names waits.
func TestFleetOfTwoFiles(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	store := openShared(t, server)
	arrived := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.URL.Path }))
	defer receiver.Close()
	accept := func(id string) {
		e := outbox.Event{ID: id, Type: "fleet.test", Time: time.Now(), Data: []byte("1")}
		_, err := store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"a", "b", "nobodys"}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	pending := func() [3]int64 {
		counts, err := store.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return [3]int64{counts["a"].Pending, counts["b"].Pending, counts["nobodys"].Pending}
	}
	one, two := newMember(t, server, receiver.URL+"/one", "a"), newMember(t, server, receiver.URL+"/two", "b")
	one.start()
	accept("first")
	if path := <-arrived; path != "/one/a" {
		t.Errorf("got a request at %s, want /one/a", path)
	}
	testkit.Until(t, "the delivery to be recorded", func() bool { return pending() == [3]int64{0, 1, 1} })
	two.start()
	if path := <-arrived; path != "/two/b" {
		t.Errorf("got a request at %s, want /two/b", path)
	}
	accept("second")
	if got := map[string]bool{<-arrived: true, <-arrived: true}; !got["/one/a"] || !got["/two/b"] {
		t.Errorf("got requests at %v, want one at each", got)
	}
	testkit.Until(t, "the deliveries to be recorded", func() bool { return pending() == [3]int64{0, 0, 2} })
	for _, p := range []*process{one, two} {
		p.await()
		if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
			t.Errorf("exit code %d after an interrupt, want 0", code)
		}
	}
	if len(arrived) > 0 {
		t.Errorf("%d more requests, want none", len(arrived))
	}
}
