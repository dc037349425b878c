package front

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox"
)

// answer is an upstream that answers with a status, headers and a body.
func answer(t *testing.T, status int, body string, header ...string) string {
	return app(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			if header[i] == "Content-Type" {
				w.Header().Del(header[i])
			}
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestEvents(t *testing.T) {
	zipped := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	brotlied := func(text string) string {
		var b bytes.Buffer
		w := brotli.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	many := func(n int) (h []string) {
		for i := range n {
			h = append(h, "Relay-Event", fmt.Sprintf("a.n%d", i), "Relay-Event-Data", "1")
		}
		return h
	}
	for name, tt := range map[string]struct {
		status int
		body   string
		header []string
		want   []string // events; nil: none
		refuse string   // code of the problem, "" for the answer as it is
	}{
		"body":                    {201, `{"id":7}`, []string{"Relay-Event", "order.created"}, []string{`order.created - "" "" {"id":7}`}, ""},
		"all headers":             {200, `[1]`, []string{"Relay-Event", "a.b", "Relay-Event-Data", `{"n": 1}`, "Relay-Event-Id", "o-7", "Relay-Event-Key", "k 1", "Relay-Event-Tenant", "acme"}, []string{`a.b o-7 "k 1" "acme" {"n": 1}`}, ""},
		"none":                    {200, `{}`, nil, nil, ""},
		"not a 2xx":               {422, `{}`, []string{"Relay-Event", "a.b"}, nil, ""},
		"a redirect":              {303, `{}`, []string{"Relay-Event", "a.b"}, nil, ""},
		"no content":              {204, ``, []string{"Relay-Event", "a.b"}, []string{`a.b - "" "" null`}, ""},
		"empty body":              {200, ``, []string{"Relay-Event", "a.b"}, []string{`a.b - "" "" null`}, ""},
		"other JSON":              {200, `1`, []string{"Relay-Event", "a.b", "Content-Type", "application/vnd.api+json; charset=utf-8"}, []string{`a.b - "" "" 1`}, ""},
		"gzip":                    {200, zipped(`{"z":1}`), []string{"Relay-Event", "a.b", "Content-Encoding", "gzip"}, []string{`a.b - "" "" {"z":1}`}, ""},
		"brotli":                  {200, brotlied(`{"z":1}`), []string{"Relay-Event", "a.b", "Content-Encoding", "br"}, []string{`a.b - "" "" {"z":1}`}, ""},
		"several":                 {200, `{}`, []string{"Relay-Event", "a.b", "Relay-Event", "a.c", "Relay-Event-Data", "1", "Relay-Event-Data", "2", "Relay-Event-Key", "k"}, []string{`a.b - "k" "" 1`, `a.c - "k" "" 2`}, ""},
		"a list":                  {200, `{}`, []string{"Relay-Event", "a.b, a.c", "Relay-Event-Id", "1, 2"}, []string{`a.b 1 "" "" {}`, `a.c 2 "" "" {}`}, ""},
		"some with data":          {200, `{}`, []string{"Relay-Event", "a.b", "Relay-Event", "a.c", "Relay-Event-Data", "1", "Relay-Event-Data", ""}, []string{`a.b - "" "" 1`, `a.c - "" "" {}`}, ""},
		"a page with data":        {200, `<p>`, []string{"Relay-Event", "a.b", "Relay-Event-Data", "1", "Content-Type", "text/html"}, []string{`a.b - "" "" 1`}, ""},
		"as many as may be":       {200, `{}`, many(maxEvents), make([]string, maxEvents), ""},
		"too many":                {200, `{}`, many(maxEvents + 1), nil, "event_invalid"},
		"a page":                  {200, `<p>`, []string{"Relay-Event", "a.b", "Content-Type", "text/html"}, nil, "event_invalid"},
		"a stream":                {200, "data: 1\n\n", []string{"Relay-Event", "a.b", "Content-Type", "text/event-stream"}, nil, "event_invalid"},
		"body is not JSON":        {200, `{`, []string{"Relay-Event", "a.b"}, nil, "event_invalid"},
		"data is not JSON":        {200, `{}`, []string{"Relay-Event", "a.b", "Relay-Event-Data", "{"}, nil, "event_invalid"},
		"the same key twice":      {200, `{"a":1,"a":2}`, []string{"Relay-Event", "a.b"}, nil, "event_invalid"},
		"bad type":                {200, `{}`, []string{"Relay-Event", "a b"}, nil, "event_invalid"},
		"Relay's own type":        {200, `{}`, []string{"Relay-Event", "relay.endpoint.disabled"}, nil, "event_invalid"},
		"empty type":              {200, `{}`, []string{"Relay-Event", ""}, nil, "event_invalid"},
		"bad id":                  {200, `{}`, []string{"Relay-Event", "a.b", "Relay-Event-Id", "a.b"}, nil, "event_invalid"},
		"one id for two":          {200, `{}`, []string{"Relay-Event", "a.b, a.c", "Relay-Event-Id", "1"}, nil, "event_invalid"},
		"one of two is bad":       {200, `{}`, []string{"Relay-Event", "a.b, a..c"}, nil, "event_invalid"},
		"two data for three":      {200, `{}`, []string{"Relay-Event", "a, b, c", "Relay-Event-Data", "1", "Relay-Event-Data", "2"}, nil, "event_invalid"},
		"too long":                {200, `"` + strings.Repeat("x", 256<<10) + `"`, []string{"Relay-Event", "a.b"}, nil, "event_invalid"},
		"too long when unpacked":  {200, zipped(`"` + strings.Repeat("x", 256<<10) + `"`), []string{"Relay-Event", "a.b", "Content-Encoding", "gzip"}, nil, "event_invalid"},
		"a coding nobody knows":   {200, `{}`, []string{"Relay-Event", "a.b", "Content-Encoding", "zstd"}, nil, "event_invalid"},
		"not what coding it says": {200, `{}`, []string{"Relay-Event", "a.b", "Content-Encoding", "gzip"}, nil, "event_invalid"},
	} {
		for _, refused := range []string{"fail", "pass"} {
			t.Run(name+", "+refused, func(t *testing.T) {
				s := newStage(t)
				c := s.frontTo(answer(t, tt.status, tt.body, tt.header...))
				c.Events.OnRefused = refused
				s.open(c)
				res, body := s.do(request(t, "POST", "https://"+host+"/", "x"))
				for name := range res.Header {
					if strings.HasPrefix(name, "Relay-") {
						t.Errorf("%s leaks to the client", name)
					}
				}
				if got := s.events(); len(got) != len(tt.want) || len(got) > 0 && tt.want[0] != "" && cmp.Diff(tt.want, got) != "" {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if tt.refuse != "" && s.log.Count("events of an answer were not accepted") != 1 {
					t.Errorf("the log has no line: %s", s.log)
				}
				if tt.refuse != "" && refused == "fail" {
					if res.StatusCode != 502 || !strings.Contains(body, tt.refuse) {
						t.Errorf("got %d %s", res.StatusCode, body)
					}
					return
				}
				if res.StatusCode != tt.status || body != tt.body {
					t.Errorf("the answer became %d %.100q", res.StatusCode, body)
				}
			})
		}
	}
}

// Nothing of an answer goes out before its event is kept.
func TestEventComesFirst(t *testing.T) {
	s := newStage(t)
	s.open(s.frontTo(answer(t, 201, `{"id":1}`, "Relay-Event", "a.b")))
	entered, go_ := make(chan struct{}), make(chan struct{})
	s.outbox.Before("Accept", func(context.Context) error {
		close(entered)
		<-go_
		return nil
	})
	done := make(chan *http.Response, 1)
	go func() {
		res, err := s.client(false).Do(request(t, "POST", "https://"+host+"/", "x"))
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	<-entered
	select {
	case <-done:
		t.Fatal("the answer went out before the event was accepted")
	case <-time.After(20 * time.Millisecond):
	}
	close(go_)
	res := <-done
	if body := bodyOf(t, res); body != `{"id":1}` || len(s.events()) != 1 {
		t.Errorf("%s, events %q", body, s.events())
	}
}

func TestOutboxRefusesEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		on     string
		status int
	}{
		"full, fail": {outbox.ErrFull, "fail", 503},
		"full, pass": {outbox.ErrFull, "pass", 201},
		"away, fail": {errors.New("connection refused"), "fail", 503},
		"away, pass": {errors.New("connection refused"), "pass", 201},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c := s.frontTo(answer(t, 201, `{"id":1}`, "Relay-Event", "a.b"))
			c.Events.OnRefused = tt.on
			s.open(c)
			s.outbox.Fail("Accept", tt.err, 1)
			res, body := s.do(request(t, "POST", "https://"+host+"/", "x"))
			if res.StatusCode != tt.status || tt.on == "fail" && (!strings.Contains(body, "event_refused") || res.Header.Get("Retry-After") == "") || tt.on == "pass" && body != `{"id":1}` {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if s.log.Count("events of an answer were not accepted") != 1 {
				t.Errorf("the log has no line: %s", s.log)
			}
		})
	}
}

func TestEventsOff(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(answer(t, 201, `{}`, "Relay-Event", "a.b"))
	c.Events.Enabled = false
	s.open(c)
	res, _ := s.do(request(t, "POST", "https://"+host+"/", "x"))
	if res.Header.Get("Relay-Event") != "" || len(s.events()) > 0 {
		t.Errorf("events %q, header %v", s.events(), res.Header)
	}
}

// A client that leaves does not take the event of what it asked for with it.
func TestEventOfAClientThatLeft(t *testing.T) {
	started, left := make(chan struct{}), make(chan struct{})
	to := app(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(started)
		<-left
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Relay-Event", "order.created")
		_, _ = io.WriteString(w, `{}`)
	})
	s := newStage(t)
	s.open(s.frontTo(to))
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-started
		leave()
	}()
	if _, err := s.client(false).Do(request(t, "POST", "https://"+host+"/", "x").WithContext(ctx)); err == nil {
		t.Fatal("the client did not leave")
	}
	close(left)
	testkit.Until(t, "the event", func() bool { return len(s.events()) == 1 })
}

// A body that does not end is given up as data, and the client still gets it.
func TestBodyThatIsAStream(t *testing.T) {
	end := make(chan struct{})
	to := app(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Relay-Event", "a.b")
		_, _ = io.WriteString(w, `[1,`)
		_ = http.NewResponseController(w).Flush()
		<-end
		_, _ = io.WriteString(w, `2]`)
	})
	s := newStage(t)
	c := s.frontTo(to)
	c.Events.OnRefused = "pass"
	s.open(c)
	res, err := s.client(false).Do(request(t, "POST", "https://"+host+"/", "x"))
	testkit.Must(t, err)
	close(end)
	if body := bodyOf(t, res); body != "[1,2]" || len(s.events()) > 0 {
		t.Errorf("got %s, events %q", body, s.events())
	}
	if s.log.Count("did not come whole") != 1 {
		t.Errorf("the log says %s", s.log)
	}
}

// An app may compress for the client only as Relay can read.
func TestAcceptEncoding(t *testing.T) {
	for asked, want := range map[string]string{
		"gzip, deflate, br, zstd": "gzip, deflate, br", "zstd": "identity", "gzip;q=0.5, *": "gzip;q=0.5", "": "",
	} {
		h := http.Header{}
		if asked != "" {
			h.Set("Accept-Encoding", asked)
		}
		if readable(h); h.Get("Accept-Encoding") != want {
			t.Errorf("%s: %q, want %q", asked, h.Get("Accept-Encoding"), want)
		}
	}
}
