package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/policy/sign"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func script(t *testing.T, text string) Script {
	t.Helper()
	s, err := ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rig is a sink served over real loopback TCP.
type rig struct {
	*Sink
	url    string
	client *http.Client
	came   chan Received // everything observed, for a few requests
}

func start(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{came: make(chan Received, 100), client: &http.Client{
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if o.Observe == nil {
		o.Observe = func(got Received) { r.came <- got }
	}
	r.Sink = New(o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, r.Sink) }()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

// post sends an event as Relay does and returns the answer.
func (r *rig) post(path, id string, headers ...sign.Header) (*http.Response, string, error) {
	body := fmt.Sprintf(`{"id":%q,"type":"invoice.paid","timestamp":"2026-11-21T10:00:00Z","data":{"n":1}}`, id)
	return r.send(path, body, append([]sign.Header{
		{Name: "webhook-id", Value: id},
		{Name: "Relay-Attempt", Value: "2"},
		{Name: "Relay-Delivery", Value: "dlv_1"},
	}, headers...)...)
}

func (r *rig) send(path, body string, headers ...sign.Header) (*http.Response, string, error) {
	req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for _, h := range headers {
		req.Header.Add(h.Name, h.Value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// statuses posts the ids in turn and lists the answers.
func (r *rig) statuses(t *testing.T, path string, ids ...string) string {
	t.Helper()
	var got []string
	for _, id := range ids {
		resp, _, err := r.post(path, id)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(resp.StatusCode))
	}
	return strings.Join(got, " ")
}

func TestReceived(t *testing.T) {
	r := start(t, Options{})
	resp, text, err := r.post("/hooks", "evt_1")
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || text != "200: answered by script\n" {
		t.Errorf("answered %d %q", resp.StatusCode, text)
	}
	got := <-r.came
	if got.Header.Get("Relay-Delivery") != "dlv_1" || time.Since(got.Time) > time.Minute {
		t.Errorf("header %v, time %v", got.Header, got.Time)
	}
	got.Header, got.Time = nil, time.Time{}
	want := Received{
		Path: "/hooks", EventID: "evt_1", EventType: "invoice.paid", DeliveryID: "dlv_1", Attempt: 2,
		Body:      []byte(`{"id":"evt_1","type":"invoice.paid","timestamp":"2026-11-21T10:00:00Z","data":{"n":1}}`),
		Signature: Unchecked, Answer: Answer{Status: 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReceivedFromOthers(t *testing.T) {
	for body, want := range map[string][2]string{
		`{"id":"a","type":"b"}`:   {"a", "b"},
		`{"id":17,"type":"b"}`:    {"", "b"},
		`{"id":"a","type":["b"]}`: {"a", ""},
		`{"text":"hello"}`:        {"", ""},
		`["id"]`:                  {"", ""},
		`text=hello`:              {"", ""},
		``:                        {"", ""},
	} {
		t.Run(body, func(t *testing.T) {
			r := start(t, Options{})
			resp, _, err := r.send("/", body, sign.Header{Name: "Relay-Attempt", Value: "-3"})
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("answered %v, %v", resp, err)
			}
			got := <-r.came
			if got.EventID != want[0] || got.EventType != want[1] || got.Attempt != 0 || got.Duplicate {
				t.Errorf("received %+v", got)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		script string
		status int // 0: none
		header http.Header
		err    error // that the client sees instead
	}{
		{script: "200", status: 200},
		{script: "204", status: 204},
		{script: "304", status: 304},
		{script: "307", status: 307},
		{script: "410", status: 410},
		{script: "599", status: 599},
		{script: "429:retry-after=30", status: 429, header: http.Header{"Retry-After": {"30"}}},
		{script: "503@1ms:retry-after=1000000000000", status: 503, header: http.Header{"Retry-After": {"1000000000000"}}},
		{script: "reset", err: syscall.ECONNRESET},
		{script: "reset@1ms", err: syscall.ECONNRESET},
		{script: "close", err: io.EOF},
	} {
		t.Run(tt.script, func(t *testing.T) {
			r := start(t, Options{Script: script(t, tt.script)})
			resp, text, err := r.post("/", "evt_1")
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.err == nil {
				if resp.StatusCode != tt.status || resp.Header.Get("Retry-After") != tt.header.Get("Retry-After") {
					t.Errorf("answered %s %v", resp.Status, resp.Header)
				}
				if noBody := tt.status == 204 || tt.status == 304; noBody != (text == "") {
					t.Errorf("body %q", text)
				}
			}
			if got := <-r.came; got.Answer.String() != tt.script {
				t.Errorf("observed %s", got.Answer)
			}
			kind := r.o.Script.answer(0).Kind()
			if diff := cmp.Diff(Totals{Received: 1, Events: 1, Answers: map[string]int64{kind: 1}}, r.Totals()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A hang, and a delay, end when the client goes away; the event was not
// answered, so the next request is no duplicate.
func TestClientGoesAway(t *testing.T) {
	for _, text := range []string{"hang,200", "200@24h,200"} {
		t.Run(text, func(t *testing.T) {
			came := make(chan Received, 2)
			s := New(Options{Script: script(t, text), Observe: func(r Received) { came <- r }})
			ended := make(chan struct{}, 2)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { ended <- struct{}{} }()
				s.ServeHTTP(w, r)
			}))
			defer srv.Close()

			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-came
				cancel()
			}()
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader(`{"id":"evt_1"}`))
			if _, err := srv.Client().Do(req); !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v", err)
			}
			<-ended

			resp, err := srv.Client().Post(srv.URL, "application/json", strings.NewReader(`{"id":"evt_1"}`))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := <-came; resp.StatusCode != 200 || got.Duplicate {
				t.Errorf("answered %d, duplicate %v", resp.StatusCode, got.Duplicate)
			}
		})
	}
}

func TestOtherMethods(t *testing.T) {
	r := start(t, Options{})
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		req, _ := http.NewRequest(method, r.url, nil)
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answered %d", method, resp.StatusCode)
		}
		if method == "GET" && !strings.Contains(string(text), "webhook receiver for testing") {
			t.Errorf("GET says %q", text)
		}
		if allow := resp.Header.Get("Allow"); (want == 405) != (allow == "GET, HEAD, POST") {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
	if got := r.Totals().Received; got != 0 {
		t.Errorf("received %d", got)
	}
}

func TestBodyTooLarge(t *testing.T) {
	r := start(t, Options{MaxBody: 20, Script: script(t, "503,200")})
	body := `{"id":"a","type":"b"}`
	resp, text, err := r.send("/", body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 413 || text != "413: body is larger than 20 bytes\n" {
		t.Errorf("answered %d %q", resp.StatusCode, text)
	}
	if got := <-r.came; got.Err == nil || string(got.Body) != body[:20] {
		t.Errorf("observed error %v, body %q", got.Err, got.Body)
	}
	resp, _, err = r.send("/", body[:20])
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("20 bytes: %v, %v; the refused request must not have taken a step", resp, err)
	}
}

func TestBodyBreaksOff(t *testing.T) {
	r := start(t, Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) {
		t.Errorf("answered %q", answer)
	}
	if got := <-r.came; !errors.Is(got.Err, io.ErrUnexpectedEOF) || string(got.Body) != "hello" {
		t.Errorf("observed error %v, body %q", got.Err, got.Body)
	}
}

func TestDuplicates(t *testing.T) {
	r := start(t, Options{Script: script(t, "503,200"), Scripts: map[string]Script{"/b": {}}})
	ask := func(path, id string, want bool) {
		t.Helper()
		if _, _, err := r.post(path, id); err != nil {
			t.Fatal(err)
		}
		if got := <-r.came; got.Duplicate != want {
			t.Errorf("%s at %s, answered %s: duplicate %v", id, path, got.Answer, got.Duplicate)
		}
	}
	ask("/a", "evt_1", false) // 503
	ask("/a", "evt_1", false) // 200
	ask("/a", "evt_1", true)
	ask("/a", "evt_1", true)
	ask("/a", "evt_2", false)
	ask("/b", "evt_1", false) // another endpoint
	ask("/b", "evt_1", true)
	ask("/b", "", false)
	ask("/b", "", false) // without an id nobody can tell
	want := Totals{Received: 9, Duplicates: 3, Events: 3, Answers: map[string]int64{"503": 1, "200": 8}}
	if diff := cmp.Diff(want, r.Totals()); diff != "" {
		t.Error(diff)
	}
}

func TestScripts(t *testing.T) {
	r := start(t, Options{
		Script:  script(t, "503x3,200"),
		Scripts: map[string]Script{"/own": script(t, "410,204")},
	})
	if got := r.statuses(t, "/a", "1", "2"); got != "503 503" {
		t.Errorf("/a answered %s", got)
	}
	if got := r.statuses(t, "/own", "1", "1", "2"); got != "410 204 204" {
		t.Errorf("/own answered %s", got)
	}
	if got := r.statuses(t, "/b", "1", "1", "2"); got != "503 200 200" {
		t.Errorf("/b answered %s; it shares the script with /a", got)
	}
}

func TestPerEvent(t *testing.T) {
	r := start(t, Options{
		PerEvent: true,
		Script:   script(t, "503x2,200"),
		Scripts:  map[string]Script{"/own": script(t, "410,204")},
	})
	if got := r.statuses(t, "/a", "1", "2", "1", "2", "1", "3", "2", "2"); got != "503 503 503 503 200 503 200 200" {
		t.Errorf("/a answered %s", got)
	}
	if got := r.statuses(t, "/own", "1", "2", "1"); got != "410 410 204" {
		t.Errorf("/own answered %s", got)
	}
	if got := r.statuses(t, "/a", "", "", ""); got != "503 503 200" {
		t.Errorf("without ids answered %s", got)
	}
}

// Memory is bounded: the event that was seen the longest ago is forgotten.
func TestRemember(t *testing.T) {
	r := start(t, Options{Remember: 2})
	r.statuses(t, "/", "1", "2", "1", "3", "1", "2")
	if got := r.events.Len(); got != 2 {
		t.Errorf("%d events remembered", got)
	}
	if got := r.Totals(); got.Duplicates != 2 || got.Events != 4 {
		t.Errorf("%d duplicates of %d events", got.Duplicates, got.Events)
	}
}

func TestTotals(t *testing.T) {
	const clients, each = 64, 20
	var mu sync.Mutex
	observed := 0
	r := start(t, Options{Script: script(t, "503x100,204"), Observe: func(Received) {
		mu.Lock()
		defer mu.Unlock()
		observed++
	}})
	before := r.Totals()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				if _, _, err := r.post("/", fmt.Sprintf("evt_%d_%d", c, i%10)); err != nil {
					t.Error(err)
				}
				r.Totals()
			}
		})
	}
	wg.Wait()
	got := r.Totals()
	if got.Duplicates < clients*each/2-100 || got.Duplicates > clients*each/2 {
		t.Errorf("%d duplicates", got.Duplicates)
	}
	got.Duplicates = 0
	want := Totals{Received: clients * each, Events: clients * 10, Answers: map[string]int64{"503": 100, "204": clients*each - 100}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(before.Answers) > 0 {
		t.Errorf("totals %+v changed after they were given", before)
	}
	if observed != clients*each {
		t.Errorf("observed %d", observed)
	}
}
