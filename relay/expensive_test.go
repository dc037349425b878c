package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"relay/internal/testkit"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Events whose filters would read for minutes are accepted in about the time of their
// budget. Beside four of them a small event is accepted, and Relay stops when it is told to.
func TestExpensiveEventsHoldUpNobody(t *testing.T) {
	receiver := answering(t, func(http.ResponseWriter, *http.Request) {})
	p := newProcess(t, receiver, "plain")
	path := filepath.Join(p.dir, "relay.hcl")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file = fmt.Appendf(file, `
		endpoint "costly" {
		  url    = "%s/costly"
		  sign   = ["none"]
		  events = ["costly"]
		  when   = length([for t in event.data.l : t if can(regex("(x+x+)+y", event.data.s))]) > 0
		}
		event_type "patterned" {
		  schema = jsonencode({ properties = { l = { items = { allOf = [for i in range(0, 50) : { pattern = "(x+x+)+y${i}" }] } } } })
		}`, receiver)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.await()
	client := p.client()
	client.Timeout = time.Minute // before there were budgets, one of these took minutes
	accept := func(kind, data string) int {
		resp, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader(fmt.Sprintf(`{"type":%q,"data":%s}`, kind, data)))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	costly := fmt.Sprintf(`{"l":[%s"x"],"s":%q}`, strings.Repeat(`"x",`, 9000), strings.Repeat("x", 150_000))
	patterned := fmt.Sprintf(`{"l":[%s"x"]}`, strings.Repeat(fmt.Sprintf("%q,", strings.Repeat("x", 2000)), 100))

	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if status := accept("costly", costly); status != 202 && status != 503 {
				t.Errorf("a costly event is answered with %d", status)
			}
		})
		all.Go(func() {
			if status := accept("patterned", patterned); status != 422 && status != 503 {
				t.Errorf("an event with a costly schema is answered with %d", status)
			}
		})
	}
	if status := accept("small", "{}"); status != 202 {
		t.Errorf("a small event beside them is answered with %d", status)
	}
	all.Wait()
	testkit.Until(t, "a delivery that fails with too_expensive", func() bool { return strings.Contains(p.log.String(), `"too_expensive"`) })
	for range 4 {
		all.Go(func() {
			resp, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader(`{"type":"costly","data":`+costly+`}`))
			if err == nil {
				resp.Body.Close()
			}
		})
	}
	start := time.Now()
	if code := p.stop(syscall.SIGTERM); code != exitOK || time.Since(start) > time.Minute {
		t.Errorf("SIGTERM beside them: exit code %d after %s", code, time.Since(start))
	}
	all.Wait()
}
