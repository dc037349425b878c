package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/internal/testkit/wallclock"
	"relay/outbox/redisstream/redistest"
	"relay/relay/gate"
)

// A Relay of a fleet whose clock is hours ahead, and is set by a day while it runs, holds nobody for
// longer than the receiver asked, tries again when it should, and takes nobody's number away. It says that
// its clock is wrong.
func TestFastClockInTheFleet(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	store := openShared(t, server)
	var wish atomic.Value // what the next request is answered: Retry-After, "-" for a plain 503
	wish.Store("")
	arrived := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("webhook-id")
		switch after := wish.Swap("").(string); after {
		case "":
		case "-":
			id += " 503"
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			id += " held"
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		arrived <- id
	}))
	defer receiver.Close()
	arrive := func(want string) {
		t.Helper()
		select {
		case id := <-arrived:
			if id != want {
				t.Fatalf("%q arrived, want %q", id, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q did not arrive within a minute", want)
		}
	}

	clock := wallclock.New(t)
	clock.Set(2 * time.Hour)
	program := wallclock.Build(t, t.TempDir(), "relay/relay")
	member := func(env ...string) (p *process, admin string, port int) {
		p = &process{t: t, dir: testkit.Dir(t), endpoints: []string{"a"}, program: program, env: env}
		p.configure(sharedOutbox(server), "5s", receiver.URL)
		port = testkit.Port(t)
		p.rewrite(`http = ""`, fmt.Sprintf(`http = "127.0.0.1:%d"`, port))
		p.rewrite(`schedule = ["100ms",`, "max_age = \"10m\"\n schedule = [\"2s\",")
		p.start()
		p.await()
		listens(t, port)
		return p, fmt.Sprintf("http://127.0.0.1:%d", port), port
	}
	fast, fastAdmin, _ := member(clock.Env())
	wish.Store("3")
	testkit.Until(t, "an event to be accepted", func() bool { return post(fast.client(), "e1") })
	arrive("e1 held")
	testkit.Until(t, "the hold to be noted", func() bool {
		notes, _, err := store.Notes(t.Context())
		if err != nil || len(notes) == 0 {
			return false
		}
		c, err := gate.ParseCondition(notes[0].Text)
		if err != nil || c.Hold == nil {
			return false
		}
		if left := time.Until(c.Hold.Until); left > 3*time.Second {
			t.Errorf("held for %v more, want 3 s", left)
		}
		return true
	})
	number := readiness(t, fastAdmin).self()
	right, rightAdmin, rightPort := member()
	if !post(right.client(), "e2") {
		t.Fatal("e2 was not accepted")
	}
	both := map[string]bool{}
	for range 2 {
		select {
		case id := <-arrived:
			both[id] = true
		case <-time.After(time.Minute):
			t.Fatalf("only %v arrived within a minute", both)
		}
	}
	if !both["e1"] || !both["e2"] {
		t.Errorf("%v arrived, want e1 and e2", both)
	}

	// One Relay is left, so it is the one that tries, and then its clock is set.
	if code := right.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
		t.Errorf("exit code %d after an interrupt, want 0", code)
	}
	for i, ahead := range []time.Duration{26 * time.Hour, -22 * time.Hour, 2 * time.Hour} {
		clock.Set(ahead)
		wish.Store("-")
		id := fmt.Sprint("step", i)
		if !post(fast.client(), id) {
			t.Fatalf("%s was not accepted", id)
		}
		arrive(id + " 503")
		arrive(id)
	}

	// Nobody is taken for dead: the two, and the outbox that this test opened.
	right.start()
	right.await()
	listens(t, rightPort)
	for _, url := range []string{fastAdmin, rightAdmin} {
		testkit.Until(t, "the fleet to be three", func() bool { return len(readiness(t, url).Relays) == 3 })
	}
	s := readiness(t, fastAdmin)
	if ahead := time.Duration(s.Outbox.ClockAheadMS) * time.Millisecond; (ahead - 2*time.Hour).Abs() > time.Minute {
		t.Errorf("the clock is %v ahead, by /readyz", ahead)
	}
	if body := get(t, fastAdmin+"/metrics"); !strings.Contains(body, "\nrelay_outbox_clock_ahead_seconds 7") && !strings.Contains(body, "\nrelay_outbox_clock_ahead_seconds 6") {
		t.Errorf("metrics lack the clock:\n%s", body)
	}
	if fast.log.Count(`"code":"clock_skew"`) == 0 || right.log.Count(`"code":"clock_skew"`) > 0 {
		t.Errorf("%d warnings of the clock that is wrong, %d of the other", fast.log.Count("clock_skew"), right.log.Count("clock_skew"))
	}
	if first := s.Relays[0].Number; s.self() != number || first != 1 {
		t.Errorf("this Relay has the number %d, it had %d; the first of the fleet has %d, it had 1: it was taken for dead", s.self(), number, first)
	}
}

// listens waits until a process listens at a port of this machine. That of the admin routes comes after that of events.
func listens(t *testing.T, port int) {
	t.Helper()
	testkit.Until(t, "a listener", func() bool {
		conn, err := net.Dial("tcp", testkit.Loopback(port))
		return err == nil && conn.Close() == nil
	})
}

type readyAnswer struct {
	Outbox struct {
		ClockAheadMS int64 `json:"clock_ahead_ms"`
	}
	Relays []struct {
		Number int64
		Self   bool
	}
}

// self is the number of the Relay that answered.
func (s readyAnswer) self() int64 {
	for _, r := range s.Relays {
		if r.Self {
			return r.Number
		}
	}
	return 0
}

func readiness(t *testing.T, url string) (s readyAnswer) {
	t.Helper()
	if err := json.Unmarshal([]byte(get(t, url+"/readyz")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
