package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
)

// figures tells whether tests are to take their figures over a long time, on a machine that
// does nothing else; else they only check that all works.
func figures() bool { return os.Getenv("RELAY_FIGURES") != "" }

// engine is an outbox that a Relay of a test can have.
type engine struct {
	name string
	open func(t *testing.T, dir string) (block string)
}

func engines() []engine {
	return []engine{
		{"sqlite", func(_ *testing.T, dir string) string {
			return fmt.Sprintf("outbox \"sqlite\" {\n path = %q\n}", filepath.Join(dir, "outbox"))
		}},
		{"redis", func(t *testing.T, _ string) string { return sharedOutbox(redistest.Start(t)) }},
	}
}

// loaded is a Relay under load, and the receiver of its endpoints: the path is the
// endpoint's name, the type of an event is the name of the only endpoint that gets it.
type loaded struct {
	*process
	web   *httptest.Server
	posts *http.Client

	mu   sync.Mutex
	sent map[string]time.Time
	took map[string][]time.Duration // by endpoint, from the post to the receipt
}

// block is an endpoint of a file.
type block struct{ name, url, rules string }

// load starts a Relay with these endpoints; those without a URL are at the receiver.
func load(t *testing.T, e engine, blocks ...block) *loaded {
	t.Helper()
	l := &loaded{sent: map[string]time.Time{}, took: map[string][]time.Duration{}}
	l.web = httptest.NewServer(l)
	t.Cleanup(l.web.Close)
	l.process = &process{t: t, dir: testkit.Dir(t)}
	l.configure(e.open(t, l.dir), "15s", "")
	f, err := os.OpenFile(filepath.Join(l.dir, "relay.hcl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, b := range blocks {
		if b.url == "" {
			b.url = l.web.URL + "/" + b.name
		}
		fmt.Fprintf(f, "endpoint %q {\n url = %q\n secrets = [%q]\n events = [%q]\n %s\n}\n", b.name, b.url, testkit.Secret, b.name, b.rules)
	}
	l.start()
	l.await()
	l.posts = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.socket())
		},
	}}
	t.Cleanup(l.posts.CloseIdleConnections)
	return l
}

func (l *loaded) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	at, id := time.Now(), r.Header.Get("webhook-id")
	l.mu.Lock()
	defer l.mu.Unlock()
	if from, ok := l.sent[id]; ok {
		name := strings.TrimPrefix(r.URL.Path, "/")
		l.took[name] = append(l.took[name], at.Sub(from))
		delete(l.sent, id)
	}
}

// post hands over one event for an endpoint. It is measured.
func (l *loaded) post(endpoint, id string) {
	l.mu.Lock()
	l.sent[id] = time.Now()
	l.mu.Unlock()
	body := fmt.Sprintf(`{"id":%q,"type":%q,"data":{"pad":%q}}`, id, endpoint, strings.Repeat("x", 900))
	l.hand("application/json", body)
}

// hand posts a body that must be accepted.
func (l *loaded) hand(kind, body string) {
	resp, err := l.posts.Post("http://relay/v1/events", kind, strings.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusAccepted {
		l.t.Errorf("an event was answered %s, %v", resp.Status, err)
	}
}

// drip posts events to endpoints in turn at a steady pace, for that long, whatever the
// answers take.
func (l *loaded) drip(phase string, perSecond int, length time.Duration, endpoints ...string) {
	due := make(chan int, 4096)
	var posting sync.WaitGroup
	for range 16 {
		posting.Go(func() {
			for n := range due {
				l.post(endpoints[n%len(endpoints)], fmt.Sprintf("%s-%s-%d", phase, endpoints[0], n))
			}
		})
	}
	begin, every := time.Now(), time.Second/time.Duration(perSecond)
	for n := range int(length / every) {
		wait(l.t.Context(), time.Until(begin.Add(time.Duration(n)*every)))
		due <- n
	}
	close(due)
	posting.Wait()
}

// arrived waits until n events have come for those endpoints together, and returns what they took
// and forgets it.
func (l *loaded) arrived(n int, endpoints ...string) (took []time.Duration) {
	l.t.Helper()
	count := func() (sum int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, name := range endpoints {
			sum += len(l.took[name])
		}
		return sum
	}
	testkit.Until(l.t, fmt.Sprintf("%d events to arrive", n), func() bool { return count() >= n })
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range endpoints {
		took = append(took, l.took[name]...)
		delete(l.took, name)
	}
	slices.Sort(took)
	return took
}

// at is a quantile of sorted times.
func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}

// undelayed compares what one run took with another endpoint's trouble beside it and without.
// The medians are of one process within seconds, and the bound is far from what a busy
// machine does: deliveries that wait for the other endpoint take seconds.
func undelayed(t *testing.T, alone, beside []time.Duration) {
	t.Helper()
	const times, least = 10, 50 * time.Millisecond
	if before, now := at(alone, 0.5), at(beside, 0.5); now > times*max(before, least) {
		t.Errorf("half of the deliveries took over %s beside a bad neighbour, %s without", now, before)
	}
}

// memory is the resident memory of the process in MiB, 0 where the system does not tell.
func (p *process) memory() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var kib int
	_, line, _ := strings.Cut(string(b), "VmRSS:")
	_, _ = fmt.Sscan(line, &kib)
	return kib >> 10
}
