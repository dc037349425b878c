package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/listen"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
	"relay/relay/deliver/delivertest"
)

// tailing is a server in memory, with the limits of every admin listener.
type tailing struct {
	t      *testing.T
	gates  *gates
	client *http.Client
	stop   chan struct{}
	server *listen.Server
	policy atomic.Pointer[policy.Policy] // that runs
	access *Access                       // of all requests
}

func newTailing(t *testing.T) *tailing {
	t.Helper()
	p := decodePolicy(t, "endpoint \"billing\" {\n url = \"https://b.example.com\"\n sign = [\"none\"]\n labels = { project = \"web\" }\n}\nendpoint \"mail\" {\n url = \"https://m.example.com\"\n sign = [\"none\"]\n}")
	x := &tailing{t: t, gates: gatesOf(p), stop: make(chan struct{})}
	network := delivertest.NewNetwork()
	l, err := network.Listen("admin.test:80")
	if err != nil {
		t.Fatal(err)
	}
	x.policy.Store(p)
	h := New(Options{Outbox: box{}, Policy: x.policy.Load, Deliverer: x.gates, Stopping: x.stop})
	x.server = listen.NewServer(listen.ServerOptions{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(WithAccess(r.Context(), x.access)))
		}),
		Log: zerolog.Nop(),
	})
	served := make(chan error, 1)
	go func() { served <- x.server.Serve(l) }()
	x.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return network.Dial(ctx, "tcp", "admin.test:80")
	}}}
	t.Cleanup(func() {
		x.client.CloseIdleConnections()
		x.server.Close()
		<-served
	})
	return x
}

// reading is an open stream.
type reading struct {
	*bufio.Reader
	close func()
}

func (x *tailing) read(query string) reading {
	x.t.Helper()
	resp, err := x.client.Get("http://admin.test/v1/tail" + query)
	if err != nil {
		x.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		x.t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	r := reading{bufio.NewReader(resp.Body), func() { resp.Body.Close() }}
	x.t.Cleanup(r.close)
	return r
}

// next is the next event, or a comment with the name ":"; "" at the end.
func (r reading) next() (name, data string) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", ""
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			return name, data
		case strings.HasPrefix(line, ":"):
			name = ":"
		case strings.HasPrefix(line, "event: "):
			name = strings.TrimPrefix(line, "event: ")
		case strings.HasPrefix(line, "data: "):
			data = strings.TrimPrefix(line, "data: ")
		}
	}
}

// event skips comments.
func (r reading) event() (name, data string) {
	for {
		if name, data = r.next(); name != ":" {
			return name, data
		}
	}
}

// attemptOf is one that ended for the n-th event.
func attemptOf(n int, endpoint, eventType string) *outbox.Item {
	return &outbox.Item{
		Delivery: outbox.Delivery{ID: fmt.Sprintf("dlv_%d", n), EventID: fmt.Sprintf("evt_%d", n), Endpoint: endpoint, State: outbox.Delivered, Attempts: 1, Finished: time.Now()},
		Type:     eventType, Tenant: "acme", Time: time.Now(), Last: &outbox.Attempt{N: 1, Status: 200, Outcome: "delivered", Started: time.Now(), Took: time.Millisecond, Body: []byte("canary")},
	}
}

// A stream goes on for longer than any other request may take, and has each attempt.
func TestTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		r := x.read("")
		for range 40 { // ten minutes
			if name, _ := r.next(); name != ":" {
				t.Fatalf("event %q", name)
			}
		}
		x.gates.tell(attemptOf(7, "billing", "invoice.paid"))
		name, data := r.next()
		var got AttemptEnded
		if err := json.Unmarshal([]byte(data), &got); err != nil || name != "attempt" {
			t.Fatalf("%s %s (%v)", name, data, err)
		}
		if got.ID != "dlv_7" || got.Outcome != "delivered" || got.Event.Type != "invoice.paid" || got.State != "delivered" || got.Last.Status != 200 || got.MaxAttempts != 10 {
			t.Errorf("%+v", got)
		}
		if strings.Contains(data, "canary") {
			t.Errorf("the stream has bodies: %s", data)
		}
		r.close()
		synctest.Wait()
		if n := x.gates.tell(attemptOf(8, "billing", "x")); n != 0 {
			t.Errorf("%d listen to nobody's account", n)
		}
	})
}

func TestTailIsFiltered(t *testing.T) {
	for query, want := range map[string]string{
		"?endpoint=billing":               "1 3",
		"?type=invoice.*":                 "1 2",
		"?label.project=web":              "1 3",
		"?tenant=acme&status=2xx":         "1 2 3",
		"?tenant=globex":                  "",
		"?state=delivered&event=evt_2":    "2",
		"?state=held":                     "",
		"?state=pending":                  "",
		"?manual=true":                    "",
		"?attempts=0&endpoint=mail":       "",
		"?endpoint=billing&endpoint=mail": "1 2 3",
	} {
		synctest.Test(t, func(t *testing.T) {
			x := newTailing(t)
			r := x.read(query)
			r.next()
			x.gates.tell(attemptOf(1, "billing", "invoice.paid"))
			x.gates.tell(attemptOf(2, "mail", "invoice.sent"))
			x.gates.tell(attemptOf(3, "billing", "customer.created"))
			go func() {
				time.Sleep(time.Minute)
				close(x.stop)
			}()
			var got []string
			for {
				name, data := r.event()
				if name == "end" {
					break
				}
				var a AttemptEnded
				if err := json.Unmarshal([]byte(data), &a); err != nil {
					t.Fatalf("%s %s: %v", name, data, err)
				}
				got = append(got, strings.TrimPrefix(a.ID, "dlv_"))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %v, want %s", query, got, want)
			}
		})
	}
}

// A slow reader holds up nobody: it loses attempts, and is told how many.
func TestTailSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		r := x.read("")
		r.next()
		const all = 5000
		for i := range all { // the pipe takes nothing, as the reader does not read
			x.gates.tell(attemptOf(i, "billing", "invoice.paid"))
		}
		go func() {
			time.Sleep(time.Minute)
			close(x.stop)
		}()
		attempts, lost := 0, 0
		for {
			name, data := r.event()
			if name == "end" {
				break
			}
			var l Lost
			if err := json.Unmarshal([]byte(data), &l); err != nil {
				t.Fatalf("%s %s: %v", name, data, err)
			}
			if name == "attempt" {
				attempts++
			}
			lost += int(l.Lost)
		}
		if attempts+lost != all || attempts < tailRoom || lost == 0 {
			t.Errorf("%d attempts and %d lost of %d", attempts, lost, all)
		}
	})
}

// A rate bounds what a reader gets in a second, and the reader gets the number of the others.
func TestTailRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		r := x.read("?rate=3")
		r.next()
		for second := range 2 {
			for i := range 10 {
				x.gates.tell(attemptOf(10*second+i, "billing", "invoice.paid"))
			}
			time.Sleep(time.Second)
		}
		x.gates.tell(attemptOf(20, "billing", "invoice.paid"))
		attempts, lost := 0, 0
		for attempts < 7 {
			name, data := r.event()
			var l Lost
			if err := json.Unmarshal([]byte(data), &l); err != nil {
				t.Fatalf("%s %s: %v", name, data, err)
			}
			if name == "attempt" {
				attempts++
			}
			lost += int(l.Lost)
		}
		if lost != 14 {
			t.Errorf("%d attempts and %d lost, not 7 and 14", attempts, lost)
		}
		close(x.stop)
	})
}

// A stop ends streams, also that of a reader that takes nothing.
func TestTailEndsWithRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		good, stuck := x.read(""), x.read("")
		good.next()
		stuck.next()
		for i := range 100 {
			x.gates.tell(attemptOf(i, "billing", "invoice.paid"))
		}
		done := make(chan error, 1)
		start := time.Now()
		close(x.stop)
		go func() { done <- x.server.Shutdown(context.Background()) }()
		for {
			if name, _ := good.event(); name == "end" {
				break
			}
		}
		if err := <-done; err != nil || time.Since(start) > 5*time.Second {
			t.Errorf("shutdown after %v: %v", time.Since(start), err)
		}
	})
}

func TestTailsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		var open []reading
		for range maxTails {
			r := x.read("")
			r.next()
			open = append(open, r)
		}
		ask := func() int {
			resp, err := x.client.Get("http://admin.test/v1/tail")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		if got := ask(); got != 503 {
			t.Errorf("one too many: %d", got)
		}
		open[0].close()
		synctest.Wait()
		if got := ask(); got != 200 {
			t.Errorf("in place of one that has gone: %d", got)
		}
		close(x.stop)
	})
}

func TestBadTail(t *testing.T) {
	o := Options{Outbox: box{}, Policy: running()}
	for query, code := range map[string]string{"since=1h": "unknown_parameter", "state=x": "invalid_parameter", "cursor=1": "unknown_parameter", "limit=1": "unknown_parameter"} {
		if p := refusedAt(t, o, "/v1/tail?"+query, 400); string(p.Code) != code {
			t.Errorf("%s: %+v", query, p)
		}
	}
}

// streamed is an answer that can be read while it is written.
type streamed struct {
	http.ResponseWriter
	body testkit.Log
}

func (s *streamed) Write(p []byte) (int, error) { return s.body.Write(p) }

func (s *streamed) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// A stream ends within about a second once its token is gone or its link is over, and writes nothing after that.
func TestTailEndsWithItsAccess(t *testing.T) {
	for name, token := range map[string]string{"token": "the-token-of-support", "link": "", "link that is taken back": ""} {
		t.Run(name, func(t *testing.T) {
			life := 30 * time.Second
			if strings.Contains(name, "back") {
				life = time.Hour
			}
			synctest.Test(t, func(t *testing.T) {
				tokens := &Tokens{Others: map[string]*Access{"the-token-of-support": {Name: "support", May: []Right{Read}}}, Links: Links{Keys: []string{"0123456789abcdef0123456789abcdef"}, Revoked: NewRevoked(outboxtest.NewMem(outboxtest.MemOptions{}), zerolog.Nop())}}
				testkit.Must(t, tokens.Links.Revoked.Load(t.Context()))
				if token == "" {
					token = tokens.Links.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: time.Now().Add(life).Unix()})
				}
				p := decodePolicy(t, "endpoint \"billing\" {\n url = \"https://b.example.com\"\n sign = [\"none\"]\n tenants = [\"acme\"]\n}")
				g := gatesOf(p)
				h := Authorize(func() *Tokens { return tokens }, false, nil, New(Options{Outbox: box{}, Policy: running(p.Endpoints...), Deliverer: g}))
				r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/tail", nil)
				r.Header.Set("Authorization", "Bearer "+token)
				w, ended := &streamed{ResponseWriter: httptest.NewRecorder()}, make(chan struct{})
				go func() {
					defer close(ended)
					h.ServeHTTP(w, r)
				}()
				time.Sleep(29*time.Second + 500*time.Millisecond)
				g.tell(attemptOf(1, "billing", "invoice.paid"))
				synctest.Wait()
				if !strings.Contains(w.body.String(), "dlv_1") {
					t.Fatal(w.body.String())
				}
				switch name {
				case "token":
					tokens = &Tokens{}
				case "link":
					time.Sleep(600 * time.Millisecond)
				default:
					if _, err := tokens.Links.Revoked.revoke(t.Context(), which{Tenant: "acme"}, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				g.tell(attemptOf(2, "billing", "invoice.paid"))
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
				select {
				case <-ended:
				default:
					t.Error("it goes on")
				}
				if strings.Contains(w.body.String(), "dlv_2") {
					t.Error("it has an attempt that ended after the access")
				}
			})
		})
	}
}

// A reader of few endpoints hears of changes of their states, and of no others.
func TestTailOfStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		r := x.read("?endpoint=billing")
		if name, _ := r.next(); name != ":" {
			t.Fatalf("it begins with %q", name)
		}
		for _, change := range []func(s *deliver.Status){
			func(s *deliver.Status) { s.State = deliver.Paused },
			func(s *deliver.Status) { s.State = deliver.Active },
			func(s *deliver.Status) { s.Breaker = deliver.BreakerOpen },
			func(s *deliver.Status) { s.Failing = &deliver.Trouble{} },
		} {
			time.Sleep(5 * time.Second)
			x.gates.mu.Lock()
			for i := range x.gates.status {
				if x.gates.status[i].Endpoint == "billing" {
					change(&x.gates.status[i])
				} else {
					x.gates.status[i].State = deliver.Paused
				}
			}
			want := fmt.Sprintf(`{"endpoint":"billing","state":%q}`, x.gates.status[0].State)
			x.gates.mu.Unlock()
			at := time.Now()
			name, data := r.event()
			if name != "endpoint" || data != want || time.Since(at) > tailCheck {
				t.Errorf("%s %s after %s, want %s", name, data, time.Since(at), want)
			}
		}
		r.close()
		close(x.stop)
		synctest.Wait()
	})
}
