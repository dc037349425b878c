package post

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/policy"
)

// told is a connection whose receiver says the same whatever it is asked, once it is
// asked, and then ends.
type told struct {
	net.Conn
	say   io.Reader
	ask   sync.Once
	asked chan struct{}
	close sync.Once
	gone  chan struct{}
}

func (c *told) Write(b []byte) (int, error) {
	c.ask.Do(func() { close(c.asked) })
	return len(b), nil
}

func (c *told) Read(b []byte) (int, error) {
	select {
	case <-c.asked:
		return c.say.Read(b)
	case <-c.gone:
		return 0, net.ErrClosed
	}
}

func (c *told) Close() error {
	c.close.Do(func() { close(c.gone) })
	return nil
}

func (c *told) SetDeadline(time.Time) error { return nil }
func (c *told) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// heard is what a sender makes of an answer.
type heard struct {
	Status int
	Code   string
	Head   string
	Wait   string // Retry-After
	Body   string
}

// hear gives raw to the sender of HTTP/1.1, and to net/http as the judge.
func hear(t testing.TB, raw string) (ours, theirs heard) {
	e := endpointAt("billing", &url.URL{Scheme: "http", Host: "billing.test", Path: "/hook"})
	d := &dialer{plaintext: true, timeout: e.Timeout, dialNet: func(context.Context, string, string) (net.Conn, error) {
		return &told{say: strings.NewReader(raw), asked: make(chan struct{}), gone: make(chan struct{})}, nil
	}}
	judge := newHTTP2(e, d)
	judge.http.DisableKeepAlives = true // else it logs what comes after an answer
	for s, h := range map[Sender]*heard{newHTTP1(t.Context(), e, d, &sync.Pool{New: newExchange}): &ours, judge: &theirs} {
		a, f := s.Send(t.Context(), Request{Body: []byte("{}"), Until: time.Now().Add(time.Minute)})
		*h = heard{a.Status, "", a.Head, a.RetryAfter, string(a.Body)}
		if f != nil {
			h.Code = f.Code
		} else if a.BodyFault != nil {
			h.Code = a.BodyFault.Code
		}
		s.Close()
	}
	return ours, theirs
}

// What net/http makes of an answer is what the sender of HTTP/1.1 makes of it.
func TestAnswersAreReadAsNetHTTPReadsThem(t *testing.T) {
	for _, raw := range answers() {
		ours, theirs := hear(t, raw)
		if diff := cmp.Diff(theirs, ours); diff != "" {
			t.Errorf("%.200q (-net/http +ours):\n%s", raw, diff)
		}
	}
}

// Where it is not, there is a reason. None of them makes a delivery of what is none.
func TestAnswersThatAreReadInAnotherWay(t *testing.T) {
	for _, c := range []struct {
		why  string
		raw  string
		ours heard
	}{
		{"a status has three digits; net/http reads a number", "HTTP/1.1 +20 OK\r\n\r\n",
			heard{Code: policy.CodeBadResponse}},
		{"a status begins at 100", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
			heard{Code: policy.CodeBadResponse}},
		{"a status begins at 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
			heard{Code: policy.CodeBadResponse}},
		{"no chunk has 2^64 bytes; net/http waits for them", chunked + "ffffffffffffffff\r\nok",
			heard{Status: 200, Code: CodeBodyCut}},
		{"trailers are not read, so it matters to nobody what is announced", ok + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			heard{Status: 200}},
		{"the same", ok + "Trailer: X-A\r\nContent-Length: 0\r\n\r\n",
			heard{Status: 200, Head: "Content-Length: 0\r\n"}},
		{"white space before the colon is ignored; net/http ignores the header, and reads to the end", ok + "Content-Length : 2\r\n\r\nok and more",
			heard{Status: 200, Body: "ok"}},
	} {
		ours, theirs := hear(t, c.raw)
		if diff := cmp.Diff(c.ours, ours); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", c.why, c.raw, diff)
		}
		if ours == theirs {
			t.Errorf("%q is read as net/http reads it: no need for a reason", c.raw)
		}
	}
}

// A whole answer is whole for net/http too, with the same status and body.
func FuzzAnswer(f *testing.F) {
	for _, raw := range answers() {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, theirs := hear(t, string(raw))
		if bytes.Contains(raw, []byte(" :")) || bytes.Contains(raw, []byte("\t:")) {
			return // see above
		}
		if bytes.Contains(bytes.ToLower(raw), []byte("trailer")) {
			ours.Head, theirs.Head = "", ""
		}
		if ours.Code == "" && ours != theirs {
			t.Errorf("%q (-net/http +ours):\n%s", raw, cmp.Diff(theirs, ours))
		}
		trailers := bytes.Contains(bytes.ToLower(raw), []byte("chunked")) // not folded here, and no names with spaces
		if ours.Code != "" && theirs.Code == "" && theirs.Status >= 100 && !trailers {
			t.Errorf("%q is %s, but not for net/http:\n%+v", raw, ours.Code, theirs)
		}
	})
}

// The usual answers of usual servers are plain. A head that says more than that, or could be read in
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

const (
	ok      = "HTTP/1.1 200 OK\r\n"
	chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
)

// answers are valid, odd and hostile ones.
func answers() []string {
	return []string{
		ok + "Content-Length: 2\r\n\r\nok",
		ok + "Content-Length: 2\r\n\r\nok and more",
		ok + "Server: nginx\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Length: 2\r\nConnection: keep-alive\r\nx-request-id: 7\r\nRetry-After: 7\r\n\r\nok",
		ok + "Content-Length: 0\r\n\r\n",
		ok + "\r\nas far as it goes",
		ok + "Connection: close\r\n\r\nas far as it goes",
		"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200 OK\r\n\r\nas far as it goes",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/2.0 200 OK\r\nTransfer-Encoding: \r\n\r\n",
		"HTTP/2.: 200 OK\r\n\r\n",
		"HTTP/0.9 200 OK\r\n\r\nok",
		"HTTP/3 200 OK\r\n\r\nok",
		"http/1.1 200 OK\r\n\r\nok",
		"HTTP/1.1\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 2x0 OK\r\n\r\n",
		"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx",
		"HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok",
		strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 12) + ok + "Content-Length: 2\r\n\r\nok",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 2000) + ok + "Content-Length: 2\r\n\r\nok",
		"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok",
		"HTTP/1.1 199 X\r\n\r\n",
		chunked + "2\r\nok\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n3;a=b\r\n...\r\n0\r\nX-Sum: 1\r\n\r\n",
		ok + "Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		ok + "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		chunked + "2\r\nok\r\n",
		chunked + "2\r\nok",
		chunked + "2\r\nokk\r\n0\r\n\r\n",
		chunked + "2;a\r=b\r\nok\r\n0\r\n\r\n",
		chunked + "2\nok\n0\n\n",
		chunked + "02\r\nok\r\n00\r\n\r\n",
		chunked + "2 \r\nok\r\n0 \r\n\r\n",
		chunked + " 2\r\nok\r\n0\r\n\r\n",
		chunked + "0x2\r\nok\r\n0\r\n\r\n",
		chunked + "-2\r\nok\r\n0\r\n\r\n",
		chunked + "2\r\nok\r\n0\r\nno-colon\r\n\r\n",
		chunked + "2\r\nok\r\n0\r\n: no name\r\n\r\n",
		chunked + "2\r\nok\r\n0\r\nX: a\x00\r\n\r\n",
		chunked + "\r\nok\r\n0\r\n\r\n",
		chunked + "fffffffffffffffff\r\nok",
		chunked + strings.Repeat("1\r\nx\r\n", 1000) + "0\r\n\r\n",
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: gzip\r\n\r\nxx",
		ok + "Transfer-Encoding: identity\r\n\r\nxx",
		ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: \r\n\r\n0\r\n\r\n",
		ok + "Trailer: Authoriza\x06ion\r\nContent-Length: 2\r\n\r\nok",
		ok + "Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok.",
		ok + "Content-Length: 2, 2\r\n\r\nok",
		ok + "Content-Length: -2\r\n\r\nok",
		ok + "Content-Length: +2\r\n\r\nok",
		ok + "Content-Length: 2x\r\n\r\nok",
		ok + "Content-Length: 0x2\r\n\r\nok",
		ok + "Content-Length: 99999999999999999999\r\n\r\nok",
		ok + "Content-Length: 9223372036854775807\r\n\r\nok",
		ok + "Content-Length: \r\n\r\nok",
		ok + "Content-Length : 2\r\n\r\nok",
		ok + "Content-Length: 9\r\n\r\nok",
		ok + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
		ok + "Content-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536),
		ok + "Content-Length: 30000\r\n\r\n" + strings.Repeat("x", 29999),
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"HTTP/1.1 200 OK\nContent-Length: 2\r\n\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
		"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		ok + "X-Folded: a\r\n  b\r\n\tc\r\nContent-Length: 2\r\n\r\nok",
		ok + "X-Folded: a \r\n  \n\tc\r\n \r\nContent-Length: 2\r\n\r\nok",
		ok + " X-Folded: a\r\nContent-Length: 2\r\n\r\nok",
		ok + "X: a\r\n \r\nContent-Length: 2\r\n\r\nok",
		ok + "x-lower: 1\r\nX-UPPER: 2\r\nset-cookie: a=b\r\nSet-Cookie: c=d\r\nserver: x\r\ndate: now\r\nContent-Type: a/b\r\ncontent-length: 2\r\nRetry-After: 7\r\nretry-after: 8\r\n\r\nok",
		ok + "Content-Type: a\r\nContent-Type: b\r\nServer: a\r\nServer: b\r\nContent-Encoding: a\r\nContent-Encoding: b\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/0.0 200 OK\r\nTransfer-Encoding: \r\n\r\n",
		"HTTP/0.0 200 \n0\n 0:\n\n0",
		ok + "No colon\r\nContent-Length: 2\r\n\r\nok",
		ok + ": no name\r\nContent-Length: 2\r\n\r\nok",
		ok + "X: \x00\r\nContent-Length: 2\r\n\r\nok",
		ok + "X: \x7f\r\nContent-Length: 2\r\n\r\nok",
		ok + "X: \xff\xc3\xa9\r\nContent-Length: 2\r\n\r\nok",
		ok + "X\xff: a\r\nContent-Length: 2\r\n\r\nok",
		ok + "X Y: a\r\nContent-Length: 2\r\n\r\nok",
		ok + "X(Y): a\r\nContent-Length: 2\r\n\r\nok",
		ok + "X: a\rb\r\nContent-Length: 2\r\n\r\nok",
		ok + "X:\r\nContent-Length:2\r\n\r\nok",
		ok + "X:  \t a \t \r\nContent-Length: 2\r\n\r\nok",
		ok + "X-Long: " + strings.Repeat("x", 20000) + "\r\nContent-Length: 2\r\n\r\nok",
		ok + strings.Repeat("X-Many: x\r\n", 3000) + "Content-Length: 2\r\n\r\nok",
		ok + strings.Repeat("X-Many: x\r\n", 30000) + "Content-Length: 2\r\n\r\nok",
		ok + "Connection: Keep-Alive, CLOSE\r\nContent-Length: 2\r\n\r\nok",
		ok,
		"HTTP/1.1 200",
		"SSH-2.0-OpenSSH_9.9\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"",
		"\n",
	}
}
