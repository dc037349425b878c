package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
	"relay/relay/admin"
)

// askAdmin asks a route until Relay answers, and reads the answer, which must have that status.
func askAdmin[T any](p *process, status int, method, path, body string) T {
	p.t.Helper()
	var v T
	testkit.Until(p.t, method+" "+path, func() bool {
		r, err := http.NewRequestWithContext(p.t.Context(), method, "http://relay"+path, strings.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		resp, err := p.clientOf(p.admin()).Do(r)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
			return false
		}
		if resp.StatusCode != status {
			p.t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
		}
		if err := json.Unmarshal(text, &v); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
		return true
	})
	return v
}

// outage is a receiver that refuses everything until it is mended.
type outage struct {
	mended  atomic.Bool
	refused atomic.Int64
	mu      sync.Mutex
	got     map[string]int // requests after that, by event
}

func (o *outage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !o.mended.Load() {
		o.refused.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got[r.Header.Get("webhook-id")]++
}

// A bulk redelivery is killed several times. It goes on by itself, sends each event again once and keeps its rate.
func TestKillAmidJob(t *testing.T) {
	t.Parallel() // it mostly waits
	t.Run("sqlite", func(t *testing.T) { testKillAmidJob(t, "") })
	t.Run("redis", func(t *testing.T) {
		testKillAmidJob(t, fmt.Sprintf("outbox \"redis\" {\n url = %q\n}", redistest.Start(t).URL()))
	})
}

func testKillAmidJob(t *testing.T, outbox string) {
	n, rate := 100, 40
	if os.Getenv("RELAY_SOAK_ROUNDS") != "" {
		n, rate = 100_000, 2000
	}
	o := &outage{got: map[string]int{}}
	receiver := httptest.NewServer(o)
	defer receiver.Close()
	p := newProcess(t, receiver.URL, "a")
	if outbox != "" {
		p.configure(outbox, "15s", receiver.URL)
	}
	p.start()
	p.await()
	p.acceptMany(n)
	for p.counts().Failed < int64(n) {
		if !wait(t.Context(), 50*time.Millisecond) {
			t.Fatal("not all deliveries failed")
		}
	}

	o.mended.Store(true)
	begin := time.Now()
	made := askAdmin[admin.BulkAnswer](p, 202, "POST", "/v1/redeliveries", fmt.Sprintf(`{"endpoint":"a","state":"failed","rate":%d}`, rate))
	job := func() admin.Job { return askAdmin[admin.Job](p, 200, "GET", "/v1/jobs/"+made.ID, "") }
	for kill := range 3 {
		testkit.Until(t, "progress", func() bool { return job().Seen >= int64(n*(kill+1)/5) })
		t.Logf("killed at %d of %d, resident %s", job().Seen, n, p.resident())
		p.kill()
		p.start()
	}
	done := job()
	for deadline := time.Now().Add(10 * time.Minute); done.State != "done"; done = job() {
		if time.Now().After(deadline) || done.State == "failed" {
			t.Fatalf("job: %+v", done)
		}
		wait(t.Context(), 50*time.Millisecond)
	}
	took := time.Since(begin)
	t.Logf("%d in %v, resident %s: %+v", n, took, p.resident(), done)
	if done.Done != int64(n) || len(done.Skipped) > 0 || done.Matched.N != int64(n) && !done.Matched.AtLeast {
		t.Errorf("job: %+v", done)
	}
	if least := time.Duration(float64(n) / float64(rate) * 0.9 * float64(time.Second)); took < least {
		t.Errorf("%d redeliveries in %v: the rate of %d/s was not kept", n, took, rate)
	}
	for p.counts().Pending > 0 {
		if !wait(t.Context(), 50*time.Millisecond) {
			t.Fatal("deliveries still wait")
		}
	}

	// Exactly one redelivery of each, and each event arrived.
	origins := map[string]int{}
	for path := "/v1/deliveries?manual=true&limit=100&total=false"; path != ""; {
		list := askAdmin[admin.DeliveryList](p, 200, "GET", path, "")
		for _, d := range list.Items {
			origins[d.RedeliveryOf]++
		}
		path = ""
		if list.Next != nil {
			path = "/v1/deliveries?manual=true&limit=100&total=false&cursor=" + *list.Next
		}
	}
	if len(origins) != n {
		t.Errorf("%d deliveries were redelivered, want %d", len(origins), n)
	}
	for id, times := range origins {
		if times != 1 {
			t.Errorf("%s was redelivered %d times", id, times)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.got) != n {
		t.Errorf("%d events arrived, want %d", len(o.got), n)
	}
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

// acceptMany sends n events.
func (p *process) acceptMany(n int) {
	p.t.Helper()
	for from := 0; from < n; from += 1000 {
		var body bytes.Buffer
		for i := from; i < min(from+1000, n); i++ {
			fmt.Fprintf(&body, "{\"type\":\"order.paid\",\"data\":{\"n\":%d}}\n", i)
		}
		resp, err := p.client().Post("http://relay/v1/events", "application/x-ndjson", &body)
		if err != nil {
			p.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			p.t.Fatalf("events: %d", resp.StatusCode)
		}
	}
}

// counts are those of endpoint a.
func (p *process) counts() admin.Deliveries {
	p.t.Helper()
	return askAdmin[admin.Endpoint](p, 200, "GET", "/v1/endpoints/a", "").Deliveries
}

// resident is the memory of the process, as Linux tells it.
func (p *process) resident() string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)) // elsewhere it is not told
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
