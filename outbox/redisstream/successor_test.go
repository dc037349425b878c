package redisstream_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// childURL, in the environment, makes this test binary a Relay that claims one
// delivery and then does nothing more, until it is killed.
const childURL = "RELAY_TEST_CLAIM_AT"

// A Relay that was killed and starts again on the same machine need not wait for
// the end of the leases that it held: its successor knows that it is dead.
func TestSuccessorTakesOverAtOnce(t *testing.T) {
	if url := os.Getenv(childURL); url != "" {
		s := openStore(t, url)
		claim(t, s)
		fmt.Println("claimed")
		<-t.Context().Done()
	}
	server := redistest.Start(t)
	s := openStore(t, server.URL())
	_, err := s.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")}, Endpoints: []string{"a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	child := exec.Command(os.Args[0], "-test.run=^TestSuccessorTakesOverAtOnce$")
	child.Env = append(os.Environ(), childURL+"="+server.URL())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for said := bufio.NewScanner(out); said.Scan() && said.Text() != "claimed"; {
	}
	// While it lives no Relay that joins takes its claim.
	s = openStore(t, server.URL())
	claims, _ := server.MustDo(t, "XPENDING", "{relay:0}:q:a", "relay", "-", "+", "10").([]any)
	if len(claims) != 1 || claims[0].([]any)[2].(int64) > time.Minute.Milliseconds() {
		t.Errorf("claims %v, want the one of the living relay", claims)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed

	s = openStore(t, server.URL())
	defer s.Close()
	if c := claim(t, s); c.EventID != "evt_1" || c.Attempts != 0 {
		t.Errorf("claimed %+v", c.Delivery)
	}
}

func openStore(t *testing.T, url string) *redisstream.Store {
	t.Helper()
	s, err := redisstream.Open(t.Context(), redisstream.Options{URL: url, Database: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// claim claims one delivery with a lease that no test outlives.
func claim(t *testing.T, s *redisstream.Store) outbox.Claim {
	t.Helper()
	claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return claims[0]
}
