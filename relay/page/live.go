package page

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"relay/relay/admin"
)

// liveRate is how many attempts in a second a viewer gets; it also gets the number of the others.
const liveRate = "5"

// live follows attempts as server-sent events with rows of the table of deliveries: GET /v1/tail, as HTML.
func (c *call) live() error {
	if c.r.Method != http.MethodGet {
		return nil // HEAD has no stream to end
	}
	q := c.r.URL.Query()
	known := q["needs"]
	q.Del("needs")
	for _, of := range []string{"order", "limit", "cursor", "offset", "total", "since", "until", "attempted_since", "attempted_until", "resent"} {
		q.Del(of) // what is about a page of a list, times, or other deliveries
	}
	if q.Get("rate") != "1" {
		q.Set("rate", liveRate)
	}
	r, err := c.inner(http.MethodGet, "/v1/tail", q, nil)
	if err != nil {
		return err
	}
	(&stream{c: c, begun: make(chan struct{})}).follow(r, known)
	return nil
}

// holds tells whether who makes the request still has the access that it had at first.
func (c *call) holds() bool {
	access, known, _ := c.p.sessionOf(c.r)
	return known && access.Same(c.access)
}

// stream turns the events of the API's tail into rows.
type stream struct {
	c       *call
	begun   chan struct{} // closed once events can be written
	mu      sync.Mutex    // held while something is written
	status  int
	pending []byte // of an event that is not whole yet
}

func (s *stream) Header() http.Header { return s.c.w.Header() }

// Unwrap lets http.ResponseController set deadlines.
func (s *stream) Unwrap() http.ResponseWriter { return s.c.w }

func (s *stream) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(status)
}

func (s *stream) begin(status int) {
	if s.status != 0 {
		return
	}
	s.status = status
	s.c.w.WriteHeader(status)
	if status == http.StatusOK {
		close(s.begun)
	}
}

// FlushError sends what was written.
func (s *stream) FlushError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(http.StatusOK)
	return http.NewResponseController(s.c.w).Flush()
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(http.StatusOK)
	if s.status >= http.StatusBadRequest {
		return s.c.w.Write(b)
	}
	s.pending = append(s.pending, b...)
	for {
		event, rest, whole := bytes.Cut(s.pending, []byte("\n\n"))
		if !whole {
			return len(b), nil
		}
		if err := s.event(event); err != nil {
			return 0, err
		}
		s.pending = append(s.pending[:0], rest...)
	}
}

// event writes what becomes of one event.
func (s *stream) event(event []byte) error {
	name, data, _ := bytes.Cut(event, []byte("\ndata: "))
	switch string(name) {
	case "event: attempt":
		var a admin.AttemptEnded
		if err := json.Unmarshal(data, &a); err != nil {
			return err
		}
		row, err := s.c.render("deliveries", "delivery-row", &a.Delivery)
		if err != nil {
			return err
		}
		return s.write("row", row)
	case "event: lost":
		var lost admin.Lost
		if err := json.Unmarshal(data, &lost); err != nil {
			return err
		}
		count, _ := json.Marshal(lost.Lost) // a number always can be written
		return s.write("lost", string(count))
	case "event: endpoint":
		return s.write("state", "")
	case "event: end":
		return nil // the viewer asks again
	}
	_, err := s.c.w.Write([]byte(": relay\n\n"))
	return err
}

func (s *stream) write(name, data string) error {
	lines := strings.ReplaceAll(strings.ReplaceAll(data, "\r", ""), "\n", "\ndata: ")
	_, err := s.c.w.Write([]byte("event: " + name + "\ndata: " + lines + "\n\n"))
	return err
}
