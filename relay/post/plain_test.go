package post

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/policy/sign"
)

// The usual answers of usual servers are plain. What says more than that, or could be read in
// two ways, is for fasthttp.
func TestPlainAnswers(t *testing.T) {
	for raw, plain := range map[string]bool{
		ok + "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nok": true, // net/http
		ok + "Server: nginx/1.27.0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n":                                   true,
		ok + "Content-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nok":                                true, // Node.js
		ok + "x-request-id: 7\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\nset-cookie: c\r\nX:\r\ncontent-length:  2 \r\n\r\nok":  true,
		"HTTP/1.1 204 No Content\r\n\r\n":                           true,
		"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n":                 true,
		"HTTP/1.1 503 \r\nContent-Length: 2\r\n\r\nno":              true,
		ok + "Content-Length: 2\r\n\r\no":                           true, // the rest of the body comes later
		ok + "Content-Length: 2\r\n":                                false,
		ok + "\r\n":                                                 false,
		chunked + "0\r\n\r\n":                                       false,
		ok + "Content-Length: 2\r\nConnection: close\r\n\r\nok":     false,
		ok + "Content-Length: 2\r\nUpgrade: h2c\r\n\r\nok":          false,
		ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok":     false,
		ok + "Content-Length: +2\r\n\r\nok":                         false,
		ok + "Content-Length: \r\n\r\nok":                           false,
		ok + "Content-Length: 1000000000000\r\n\r\nok":              false,
		ok + "Content-Length : 2\r\n\r\nok":                         false,
		ok + "Content-Length: 2\r\nX: a\r\n b\r\n\r\nok":            false,
		ok + "Content-Length: 2\r\nX: a\rb\r\n\r\nok":               false,
		ok + "Content-Length: 2\r\nX: \x00\r\n\r\nok":               false,
		ok + "Content-Length: 2\r\nno colon\r\n\r\nok":              false,
		ok + "Content-Length: 2\r\n: no name\r\n\r\nok":             false,
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n":      false,
		"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n":        false,
		"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n":              false,
		"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n":                false,
		"HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n":            false,
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n":              false,
		"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n":             false,
		"HTTP/1.1 200 OK\nContent-Length: 0\n\n":                    false,
		"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":          false,
		ok + "X: " + strings.Repeat("x", readBuffer) + "\r\n\r\nok": false,
	} {
		if _, _, is := plainly(raw); is != plain {
			t.Errorf("%.200q is plain: %t, want %t", raw, is, plain)
		}
	}
}

// plainly reads the head of raw as a plain one.
func plainly(raw string) (meaning, string, bool) {
	x := newExchange().(*exchange)
	x.in.Reset(strings.NewReader(raw))
	_, _ = x.in.Peek(1)
	m, ok := x.readPlain()
	return m, said(x), ok
}

// said is the header that was read, and how much is left of the answer.
func said(x *exchange) string {
	rest, _ := x.in.Peek(x.in.Buffered())
	return string(appendRecord(nil, x.lines, false, false)) + "\r\n" + string(rest)
}

// A plain head means what fasthttp makes of it.
func FuzzPlain(f *testing.F) {
	for _, raw := range answers() {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, header, ok := plainly(string(raw))
		if !ok {
			return
		}
		x := newExchange().(*exchange)
		x.in.Reset(strings.NewReader(string(raw)))
		theirs, err := x.readHeads()
		if ours.status == 204 || ours.status == 304 {
			ours.size, theirs.size = 0, 0 // they have no body, whatever is said
		}
		if err != nil || ours != theirs {
			t.Errorf("%q: fasthttp %+v (%v), ours %+v", raw, theirs, err, ours)
		}
		if diff := cmp.Diff(said(x), header); diff != "" {
			t.Errorf("%q (-fasthttp +ours):\n%s", raw, diff)
		}
	})
}

// answering is a connection whose receiver answers each request at once.
type answering struct {
	net.Conn
	answer string

	asked         bool
	reads, writes int
}

func (c *answering) Write(b []byte) (int, error) {
	c.asked = true
	c.writes++
	return len(b), nil
}

func (c *answering) Read(b []byte) (int, error) {
	if !c.asked {
		return 0, errPeeking{}
	}
	c.asked = false
	c.reads++
	return copy(b, c.answer), nil
}

func (*answering) SetDeadline(time.Time) error { return nil }
func (*answering) Close() error                { return nil }

// keeper returns a sender with one connection, which is kept, and one request for it.
func keeper(t testing.TB, answer string) (Sender, *answering, Request) {
	c := &answering{answer: answer}
	d := &dialer{plaintext: true, dialNet: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	e := endpointAt("billing", &url.URL{Scheme: "http", Host: "billing.test", Path: "/hook"})
	s := newHTTP1(t.Context(), e, d, &sync.Pool{New: newExchange})
	t.Cleanup(s.Close)
	return s, c, Request{Header: []sign.Header{{Name: "webhook-id", Value: "evt_1"}}, Body: []byte(`{"a":1}`), Until: time.Now().Add(time.Hour)}
}

// A small request is one write, and an answer that comes in one piece one read.
func TestReadsAndWrites(t *testing.T) {
	s, c, r := keeper(t, ok+"Content-Length: 2\r\n\r\nok")
	for range 10 {
		if a, f := s.Send(t.Context(), r); f != nil || a.Status != 200 {
			t.Fatal(a, f)
		}
	}
	if c.writes != 10 || c.reads != 10 {
		t.Errorf("10 requests are %d writes and %d reads", c.writes, c.reads)
	}
}
