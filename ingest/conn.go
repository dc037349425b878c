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

	"github.com/valyala/fasthttp"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

const (
	// readBuffer holds a usual request whole, so that its body need not be copied.
	readBuffer = 4 << 10

	// maxKeptBuffer bounds the memory that a connection keeps between requests.
	maxKeptBuffer = 16 << 10

	// After an answer that ends a connection, what the client still sends is
	// thrown away for a while: closing over unread bytes can take the answer from
	// it.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

// attributePrefix is what names of CloudEvents headers begin with, as fasthttp writes it.
const attributePrefix = "Ce-"

// goOn answers an expectation.
var goOn = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// The states of a conn. Only what waits may be closed by another goroutine.
const (
	waiting int32 = iota
	working
	retired
)

// conn is one connection, served by one goroutine. fasthttp reads the headers
// and writes those of the answers; the order of things is decided here, because
// a request must be able to be refused before its body is read.
type conn struct {
	net.Conn
	s     *Server
	place *listen.Place
	in    *bufio.Reader
	state atomic.Int32

	header fasthttp.RequestHeader
	answer fasthttp.ResponseHeader
	fields fields
	req    Request
	passed *listen.Caller // who the guard let through last
	out    []byte

	start      time.Time // when the request began
	readUntil  time.Time // the deadlines that are set
	writeUntil time.Time
	unread     bool // there may be more of a request that was refused
}

// fields are the headers that matter beside those of framing, as they stand in
// the memory of conn.header. Of those that count once, the first is kept.
type fields struct {
	site, origin, authorization []byte
	keys, codings               [][]byte
	attributes                  [][2][]byte // of a CloudEvent: names and values
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{Conn: nc, s: s, in: bufio.NewReaderSize(nc, readBuffer)}
}

// retire keeps a connection that waits from doing anything else, and tells
// whether it did.
func (c *conn) retire() bool { return c.state.CompareAndSwap(waiting, retired) }

// serve answers one request after the other until the connection ends.
func (c *conn) serve() {
	defer func() {
		if v := recover(); v != nil { // one connection may end, not the process
			c.logPanic(v)
		}
	}()
	c.start = time.Now()
	c.readBy(c.start.Add(listen.ReadHeaderTimeout)) // the first request must come at once
	for first := true; c.await(first) && c.next(); first = false {
	}
	if c.unread {
		c.linger()
	}
}

// await waits for the first byte of a request and returns false when there will
// be none.
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
	f, p, err := c.readHeader()
	if err != nil {
		return false // nobody is there to be answered
	}
	var res Response
	bodyless := false
	if p != nil {
		c.unread = true
		res = response(p)
	} else {
		res = c.handle(f)
		bodyless = c.header.IsHead()
	}
	res.Close = res.Close || c.unread || f.close || f.old && !f.keepAlive || c.s.isStopping()
	c.encode(&res, f.old, bodyless)
	c.writeBy(c.start.Add(listen.WriteTimeout))
	if _, err := c.Write(c.out); err != nil || res.Close { // an app that has gone will ask again
		return false
	}
	// Shutdown closes what waits when it begins, so look for it once more.
	return c.state.CompareAndSwap(working, waiting) && !c.s.isStopping()
}

// readHeader reads the next header. The error is one of the connection.
func (c *conn) readHeader() (f framing, p *problem.Problem, err error) {
	for from := 0; ; {
		text, _ := c.in.Peek(c.in.Buffered()) // what is there is never an error
		size, p := headerEnd(text, from)
		if p != nil {
			return f, p, nil
		}
		if size > 0 {
			f, p = readFraming(text[:size])
			if p == nil && f.hostless && !c.s.o.Guard.AnyHost {
				p = noHost()
			}
			f.simplify(text[:size])
			if p == nil && c.header.Read(c.in) != nil {
				p = malformed("the header cannot be read")
			}
			return f, p, nil
		}
		from = len(text)
		if len(text) == c.in.Size() && !c.grow(text) {
			return f, problem.New(problem.HeaderTooLarge, "a header has at most "+strconv.Itoa(listen.MaxHeaderBytes)+" bytes"), nil
		}
		c.readBy(c.start.Add(listen.ReadHeaderTimeout))
		switch _, err := c.in.Peek(from + 1); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return f, problem.New(problem.RequestTimeout, "the header did not come within "+listen.ReadHeaderTimeout.String()), nil
		case err != nil:
			return f, nil, err
		}
	}
}

// grow makes room for a header that is larger than most. Connections begin with
// little, so that a thousand idle ones cost little.
func (c *conn) grow(text []byte) bool {
	if c.in.Size() >= listen.MaxHeaderBytes {
		return false
	}
	c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(text)), c.Conn), listen.MaxHeaderBytes)
	return true
}

// handle asks the guard, reads the body and hands the request to Ingest. A panic
// is an answer of its own and ends this connection only.
func (c *conn) handle(f framing) (res Response) {
	defer func() {
		if v := recover(); v != nil {
			c.unread = true
			c.logPanic(v)
			res = response(problem.New(problem.InternalError, "the request met an error in Relay and may or may not have been accepted; its log tells more"))
		}
	}()
	c.collect()
	path, p := c.admit()
	if p == nil {
		return c.hand(f, path)
	}
	// The answer is the same whatever the body: what is not too long is read all
	// the same, so that the connection can be used again.
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
func (c *conn) hand(f framing, path string) Response {
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
		size = in.o.MaxBody // it may become this much
	}
	if !in.take(size) {
		c.unread = true
		return response(in.shed())
	}
	defer in.give(size)

	if f.expect && (f.chunked || f.length > 0) {
		c.writeBy(c.start.Add(listen.WriteTimeout))
		_, _ = c.Write(goOn) // if nobody hears it, no body will come
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
		return c.ask(path, *body)
	}
	body, err := c.in.Peek(int(f.length))
	if err != nil {
		c.unread = true
		return response(in.bodyProblem(err))
	}
	res := c.ask(path, body)
	_, _ = c.in.Discard(len(body)) // it is there
	return res
}

// awaitBody sets the deadline for the body, unless the body is here already.
func (c *conn) awaitBody(f framing) {
	if f.chunked || int64(c.in.Buffered()) < f.length {
		c.readBy(c.start.Add(listen.ReadTimeout))
	}
}

// ask fills in the Request and has Ingest answer it. Strings are copies: the
// header's memory is used again for the next request, and an outbox that was
// given up on may still hold the batch.
func (c *conn) ask(path string, body []byte) Response {
	r := &c.req
	*r = Request{
		Method:         methodName(c.header.Method()),
		Path:           path,
		ContentType:    typeName(c.header.ContentType()),
		IdempotencyKey: r.IdempotencyKey[:0],
		Body:           body,
	}
	for _, a := range c.fields.attributes {
		r.Attributes = append(r.Attributes, Attribute{strings.ToLower(string(a[0][len(attributePrefix):])), string(a[1])})
	}
	for _, key := range c.fields.keys {
		r.IdempotencyKey = append(r.IdempotencyKey, string(key))
	}
	if len(c.fields.codings) > 0 {
		r.ContentEncoding = string(bytes.Join(c.fields.codings, []byte(",")))
	}
	res := c.s.o.Ingest.Handle(c.s.deadline.from(c.s.ctx, time.Now()), r)
	r.Body = nil
	return res
}

// collect fills in c.fields. One walk costs less than asking for each by name.
func (c *conn) collect() {
	f := &c.fields
	*f = fields{keys: f.keys[:0], codings: f.codings[:0], attributes: f.attributes[:0]}
	first := func(field *[]byte, value []byte) {
		if *field == nil {
			*field = value
		}
	}
	for name, value := range c.header.All() {
		switch string(name) {
		case "Sec-Fetch-Site":
			first(&f.site, value)
		case "Origin":
			first(&f.origin, value)
		case "Authorization":
			first(&f.authorization, value)
		case "Idempotency-Key":
			f.keys = append(f.keys, value)
		case "Content-Encoding":
			f.codings = append(f.codings, value)
		default:
			if len(name) > len(attributePrefix) && string(name[:len(attributePrefix)]) == attributePrefix {
				f.attributes = append(f.attributes, [2][]byte{name, value})
			}
		}
	}
}

// admit asks the guard and returns the path of the request. Most requests of a
// connection come from who was let through last.
func (c *conn) admit() (string, *problem.Problem) {
	path, host, p := readTarget(c.header.RequestURI())
	if p != nil {
		c.unread = true
		return "", p
	}
	fields := &c.fields
	if last := c.passed; last != nil && host == "" && string(c.header.Host()) == last.Host && string(fields.site) == last.Site &&
		string(fields.origin) == last.Origin && string(fields.authorization) == last.Authorization {
		c.place.Busy()
		return path, nil
	}
	if host == "" {
		host = string(c.header.Host())
	}
	who := &listen.Caller{Host: host, Site: string(fields.site), Origin: string(fields.origin), Authorization: string(fields.authorization)}
	if p := c.s.o.Guard.Check(who); p != nil {
		return "", p
	}
	c.passed = who
	c.place.Busy()
	return path, nil
}

// encode writes an answer to c.out, so that it is sent in one piece.
func (c *conn) encode(r *Response, old, bodyless bool) {
	a := &c.answer
	a.Reset()
	a.SetStatusCode(r.Status)
	a.SetContentType(r.ContentType)
	a.SetContentLength(len(r.Body))
	if r.Allow != "" {
		a.Set(fasthttp.HeaderAllow, r.Allow)
	}
	if r.RetryAfter > 0 {
		a.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(r.RetryAfter))
	}
	if r.Challenge != "" {
		a.Set(fasthttp.HeaderWWWAuthenticate, r.Challenge)
	}
	switch {
	case r.Close:
		a.SetConnectionClose()
	case old:
		a.Set(fasthttp.HeaderConnection, "keep-alive")
	}
	if cap(c.out) > maxKeptBuffer {
		c.out = nil
	}
	if c.out = a.AppendBytes(c.out); !bodyless {
		c.out = append(c.out, r.Body...)
	}
}

// linger reads on for a moment after the last answer.
func (c *conn) linger() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || !c.state.CompareAndSwap(working, waiting) || c.s.isStopping() {
		return
	}
	c.readBy(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // it has been refused
}

// readBy sets the deadline for reading, unless the one that is set differs by
// less than a second and is the earlier one: setting it costs more than looking.
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

// methodName and typeName make strings of what most requests have without a copy.
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
