package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

const (
	// readBuffer holds a usual request whole, so that its body need not be copied.
	readBuffer = 4 << 10

	// maxKeptBuffer bounds the memory that a connection keeps between requests.
	maxKeptBuffer = 16 << 10

	// After an answer that ends a connection, data that the client still sends is discarded for a
	// while, because closing a connection with unread bytes can destroy the answer.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// dateFormat is that of RFC 9110 section 5.6.7, for a time in UTC.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// goOn answers an expectation.
var goOn = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// The states of a conn. Another goroutine may close only a waiting conn.
const (
	waiting int32 = iota
	working
	retired
)

// conn is one connection, served by one goroutine. A request can be refused before its body is read.
type conn struct {
	net.Conn
	s     *Server
	place *listen.Place
	via   string // Event.Via
	in    *bufio.Reader
	state atomic.Int32

	header header // in the memory of in, until that is read on
	req    Request
	passed *listen.Caller // the last caller that the guard let through
	out    []byte
	date   []byte // of answers of the second dateOf
	dateOf int64

	start      time.Time // when the request began
	readUntil  time.Time // the deadlines that are set
	writeUntil time.Time
	unread     bool // more of a refused request may arrive
}

func newConn(s *Server, nc net.Conn) *conn {
	via := "http"
	if a := nc.LocalAddr(); a != nil && a.Network() == "unix" {
		via = "unix"
	}
	return &conn{Conn: nc, s: s, via: via, in: bufio.NewReaderSize(nc, readBuffer)}
}

// retire stops a waiting connection from serving another request, and reports whether it was
// waiting.
func (c *conn) retire() bool { return c.state.CompareAndSwap(waiting, retired) }

// serve answers one request after the other until the connection ends.
func (c *conn) serve() {
	defer func() {
		if v := recover(); v != nil { // a panic may end one connection, not the process
			c.logPanic(v)
		}
	}()
	c.start = time.Now()
	c.readBy(c.start.Add(listen.ReadHeaderTimeout)) // the first request must arrive soon
	for first := true; c.await(first) && c.next(); first = false {
	}
	if c.unread {
		c.linger()
	}
}

// await waits for the first byte of a request and returns false if there will be none.
func (c *conn) await(first bool) bool {
	if c.in.Buffered() == 0 {
		if !first {
			now := time.Now()
			c.place.Idle(now)
			c.readBy(now.Add(listen.IdleTimeout))
		}
		if _, err := c.in.Peek(1); err != nil {
			return false
		}
	}
	if !first {
		c.start = time.Now()
	}
	return c.state.CompareAndSwap(waiting, working)
}

// next answers one request and returns whether another may follow.
func (c *conn) next() bool {
	p, err := c.readHeader()
	if err != nil {
		return false // the client has gone
	}
	f := c.header.framing
	bodyless := p == nil && string(c.header.method) == "HEAD"
	var res Response
	if p != nil {
		c.unread = true
		res = response(p)
	} else {
		res = c.handle(f)
	}
	res.Close = res.Close || c.unread || f.close || f.old && !f.keepAlive || c.s.isStopping()
	c.encode(&res, f.old, bodyless)
	c.writeBy(c.start.Add(listen.WriteTimeout))
	if _, err := c.Write(c.out); err != nil || res.Close { // the app has gone and will repeat the request
		return false
	}
	// Shutdown closes connections that wait when it begins, so check once more.
	return c.state.CompareAndSwap(working, waiting) && !c.s.isStopping()
}

// readHeader reads the next header. Errors: those of the connection.
func (c *conn) readHeader() (*problem.Problem, error) {
	for from := 0; ; {
		text, _ := c.in.Peek(c.in.Buffered()) // buffered bytes are never an error
		size, p := headerEnd(text, from)
		if p != nil {
			return p, nil
		}
		if size > 0 {
			p = c.header.read(text[:size])
			if p == nil && !c.header.old && len(c.header.host) == 0 && !c.s.o.Guard.AnyHost {
				p = noHost()
			}
			_, _ = c.in.Discard(size) // it is there
			return p, nil
		}
		from = len(text)
		if len(text) == c.in.Size() && !c.grow(text) {
			return problem.New(problem.HeaderTooLarge, "a header has at most "+strconv.Itoa(listen.MaxHeaderBytes)+" bytes"), nil
		}
		c.readBy(c.start.Add(listen.ReadHeaderTimeout))
		switch _, err := c.in.Peek(from + 1); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return problem.New(problem.RequestTimeout, "the header did not come within "+listen.ReadHeaderTimeout.String()), nil
		case err != nil:
			return nil, err
		}
	}
}

// grow makes room for a large header. Connections begin with a small buffer, so that a thousand
// idle ones need little memory.
func (c *conn) grow(text []byte) bool {
	if c.in.Size() >= listen.MaxHeaderBytes {
		return false
	}
	c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(text)), c.Conn), listen.MaxHeaderBytes)
	return true
}

// handle asks the guard, reads the body and hands the request to Ingest. A panic is answered with
// a 500 and ends this connection only.
func (c *conn) handle(f framing) (res Response) {
	defer func() {
		if v := recover(); v != nil {
			c.unread = true
			c.logPanic(v)
			res = response(problem.New(problem.InternalError, "the request met an error in Relay and may or may not have been accepted; its log tells more"))
		}
	}()
	path, p := c.admit()
	if p == nil {
		c.describe(path)
		return c.hand(f)
	}
	// The answer does not depend on the body. It is read anyway unless it is too long, so that
	// the connection can be reused.
	c.awaitBody(f)
	if f.chunked || f.expect && f.length > 0 || f.length > c.s.o.Ingest.o.MaxBody {
		c.unread = true
	} else if _, err := c.in.Discard(int(f.length)); err != nil {
		c.unread = true
	}
	return response(p)
}

func (c *conn) logPanic(v any) {
	c.s.o.Log.Error().Str("error", fmt.Sprintf("panic: %v\n%s", v, debug.Stack())).Msg("http server")
}

// hand gives the request with its body to Ingest.
func (c *conn) hand(f framing) Response {
	in := c.s.o.Ingest
	if c.s.o.OnRequest != nil {
		c.s.o.OnRequest()
	}
	if f.length > in.o.MaxBody {
		c.unread = true
		return response(in.bodyTooLarge())
	}
	size := f.length
	if f.chunked {
		size = in.o.MaxBody // it may become this large
	}
	if !in.take(size) {
		c.unread = true
		return response(in.shed())
	}
	defer in.give(size)

	if f.expect && (f.chunked || f.length > 0) {
		c.writeBy(c.start.Add(listen.WriteTimeout))
		_, _ = c.Write(goOn) // if the client has gone, no body will come
	}
	c.awaitBody(f)
	if f.chunked || f.length > int64(c.in.Size()) {
		body := in.buffer()
		defer in.buffers.Put(body)
		var err error
		if f.chunked {
			*body, err = readChunks(c.in, *body, in.o.MaxBody)
		} else {
			*body, err = readInto(c.in, *body, int(f.length))
		}
		if err != nil {
			c.unread = true
			return response(in.bodyProblem(err))
		}
		return c.ask(*body)
	}
	body, err := c.in.Peek(int(f.length))
	if err != nil {
		c.unread = true
		return response(in.bodyProblem(err))
	}
	res := c.ask(body)
	_, _ = c.in.Discard(len(body)) // it is there
	return res
}

// awaitBody sets the deadline for the body, unless the body has arrived.
func (c *conn) awaitBody(f framing) {
	if f.chunked || int64(c.in.Buffered()) < f.length {
		c.readBy(c.start.Add(listen.ReadTimeout))
	}
}

// describe fills in the Request, without the body, before reading the body overwrites the header.
// Strings are copies for this reason, and because the outbox may still hold the batch after a
// timeout.
func (c *conn) describe(path string) {
	h, r := &c.header, &c.req
	*r = Request{
		Via:            c.via,
		Method:         methodName(h.method),
		Path:           path,
		ContentType:    typeName(h.contentType),
		IdempotencyKey: r.IdempotencyKey[:0],
	}
	for _, a := range h.attributes {
		r.Attributes = append(r.Attributes, Attribute{strings.ToLower(string(a[0])), string(a[1])})
	}
	for _, key := range h.keys {
		r.IdempotencyKey = append(r.IdempotencyKey, string(key))
	}
	if len(h.parents) == 1 && c.s.o.Ingest.traced() { // several are none: W3C Trace Context, section 3.2
		r.TraceParent, r.TraceState = string(h.parents[0]), string(bytes.Join(h.states, []byte(",")))
	}
	if len(h.codings) > 0 {
		r.ContentEncoding = string(bytes.Join(h.codings, []byte(",")))
	}
}

// ask lets Ingest answer the Request with that body.
func (c *conn) ask(body []byte) Response {
	c.req.Body = body
	res := c.s.o.Ingest.Handle(c.s.deadline.from(c.s.ctx, time.Now()), &c.req)
	c.req.Body = nil
	return res
}

// admit asks the guard and returns the path of the request. Most requests of a connection have
// the same caller as the last one.
func (c *conn) admit() (string, *problem.Problem) {
	h := &c.header
	path, host, p := readTarget(h.target)
	if p != nil {
		c.unread = true
		return "", p
	}
	if last := c.passed; last != nil && host == "" && string(h.host) == last.Host && string(h.site) == last.Site &&
		string(h.origin) == last.Origin && string(h.authorization) == last.Authorization {
		c.place.Busy()
		return path, nil
	}
	if host == "" {
		host = string(h.host)
	}
	who := &listen.Caller{Host: host, Site: string(h.site), Origin: string(h.origin), Authorization: string(h.authorization)}
	if p := c.s.o.Guard.Check(who); p != nil {
		return "", p
	}
	c.passed = who
	c.place.Busy()
	return path, nil
}

// encode writes an answer to c.out, so that it is sent in one piece.
func (c *conn) encode(r *Response, old, bodyless bool) {
	if cap(c.out) > maxKeptBuffer {
		c.out = nil
	}
	b := append(strconv.AppendInt(append(c.out[:0], "HTTP/1.1 "...), int64(r.Status), 10), ' ')
	b = append(append(b, listen.StatusText(r.Status)...), "\r\nDate: "...)
	b = append(append(b, c.now()...), "\r\nContent-Type: "...)
	b = append(append(b, r.ContentType...), "\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(r.Body)), 10), crlf...)
	if r.Allow != "" {
		b = append(append(append(b, "Allow: "...), r.Allow...), crlf...)
	}
	if r.RetryAfter > 0 {
		b = append(strconv.AppendInt(append(b, "Retry-After: "...), int64(r.RetryAfter), 10), crlf...)
	}
	if r.Challenge != "" {
		b = append(append(append(b, "WWW-Authenticate: "...), r.Challenge...), crlf...)
	}
	switch {
	case r.Close:
		b = append(b, "Connection: close\r\n"...)
	case old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	if b = append(b, crlf...); !bodyless {
		b = append(b, r.Body...)
	}
	c.out = b
}

// now is the present time in the format of answers. It is formatted once a second.
func (c *conn) now() []byte {
	now := time.Now()
	if second := now.Unix(); second != c.dateOf {
		c.date, c.dateOf = now.UTC().AppendFormat(c.date[:0], dateFormat), second
	}
	return c.date
}

// writeCloser is a connection whose two directions end apart: TCP and Unix sockets.
type writeCloser interface{ CloseWrite() error }

// linger reads and discards for a short time after the last answer.
func (c *conn) linger() {
	half, ok := c.Conn.(writeCloser)
	if !ok || half.CloseWrite() != nil || !c.state.CompareAndSwap(working, waiting) || c.s.isStopping() {
		return
	}
	c.readBy(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // it has been refused
}

// readBy sets the deadline for reading, unless the one that is set is earlier by less than a
// second, because setting it is a system call.
func (c *conn) readBy(t time.Time) {
	if early := t.Sub(c.readUntil); early < 0 || early >= time.Second {
		c.readUntil = t
		_ = c.SetReadDeadline(t) // fails only on a closed connection
	}
}

// writeBy is readBy for writing.
func (c *conn) writeBy(t time.Time) {
	if early := t.Sub(c.writeUntil); early < 0 || early >= time.Second {
		c.writeUntil = t
		_ = c.SetWriteDeadline(t) // fails only on a closed connection
	}
}

// methodName and typeName return the usual values as constants, without a copy.
func methodName(b []byte) string {
	if string(b) == "POST" {
		return "POST"
	}
	return string(b)
}

func typeName(b []byte) string {
	switch string(b) {
	case "application/json":
		return "application/json"
	case "application/x-ndjson":
		return "application/x-ndjson"
	}
	return string(b)
}
