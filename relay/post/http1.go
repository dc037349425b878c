package post

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"relay/policy"
)

// Sizes in bytes. A request of up to maxAtOnce fits the kernel's buffers, so that writing it does
// not block.
const (
	readBuffer = 4 << 10
	maxAtOnce  = 16 << 10
)

// http1 is the sender for HTTP/1.1. Requests and plain answers are read and written here;
// fasthttp reads the heads of all other answers. Connections and time limits are this package's.
// The attempt's own goroutine writes, then reads. Nothing is ever sent again.
type http1 struct {
	pool      pool
	host      string // of the Host header
	target    string // path and query as the URL has them
	obey      bool   // rate headers
	exchanges *sync.Pool
	forget    func() bool // the end of all attempts was already watched for
}

func newHTTP1(ctx context.Context, e *policy.Endpoint, d *dialer, exchanges *sync.Pool) *http1 {
	dial, address := d.dial, addressOf(e)
	if e.URL.Scheme == "https" {
		dial = d.dialTLS
	}
	u := e.RequestURL()
	t := &http1{host: u.Host, target: u.RequestURI(), obey: e.ObeyRateHeaders, exchanges: exchanges}
	t.pool.maxAge = e.ConnectionMaxAge
	t.pool.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", address) }
	t.forget = context.AfterFunc(ctx, t.pool.end)
	return t
}

func (t *http1) Close() {
	t.forget()
	t.pool.close()
}

func (t *http1) Send(ctx context.Context, r Request) (Answer, *Failure) {
	var a Answer
	l, err := t.pool.take(ctx, r.Until)
	if err != nil {
		f := exchangeFailure(err, false)
		if dial, ok := errors.AsType[*dialError](err); ok {
			a.Timing, f = dial.timing, &Failure{dial.code, clip(reason(dial))}
		}
		if f.Code == policy.CodeConnectTimeout || f.Code == CodeNoSocket {
			return a, f // however late it is noticed
		}
		return a, orLate(f, r.Until)
	}
	a.Peer = l.base.peer
	if a.Reused = l.reused; !l.reused {
		a.Timing = l.base.timing
	}

	end := t.pool.drop // even after a panic
	defer func() { end(l) }()
	x := t.exchanges.Get().(*exchange)
	x.begin(l.Conn)
	keep, err := x.run(t, l, r, &a)
	answering := x.answering
	if t.obey && a.Status != 0 {
		a.RateHeaders = rateHeadersOf(func(name string) string { return first(x.lines, name) })
	}
	x.free()
	t.exchanges.Put(x)

	switch {
	case err != nil && a.Status != 0:
		if a.BodyFault = bodyFault(err, r.Until); a.BodyFault.Code == CodeBodyTimeout {
			t.pool.dropIdle()
		}
		return a, nil
	case err != nil:
		f := orLate(exchangeFailure(err, answering), r.Until)
		switch {
		case f.Code == policy.CodeTimeout:
			t.pool.dropIdle()
		case l.reused && !answering && f.Code == policy.CodeReset:
			t.pool.distrust.Store(true)
		}
		return a, f
	}
	if end = t.pool.hangUp; keep {
		end = t.pool.put
	}
	return a, nil
}

// orLate turns any failure at or after the deadline into a timeout.
func orLate(f *Failure, until time.Time) *Failure {
	if time.Now().Before(until) {
		return f
	}
	return &Failure{Code: policy.CodeTimeout}
}

// exchange has the buffers for one request and its answer. It is pooled, so that idle connections
// hold no buffers.
type exchange struct {
	in  *bufio.Reader
	out []byte

	head     []byte // the last head, with canonical names
	lines    []headLine
	record   []byte
	recorded string // the last record, because receivers often repeat the same head
	body     framing

	// Used for heads that are not plain.
	response fasthttp.ResponseHeader
	headFrom bytes.Reader
	headIn   *bufio.Reader // nil before the first such head
	large    bool          // a head did not fit a buffer

	answering bool // a part of the answer has arrived
}

func newExchange() any { return &exchange{in: bufio.NewReaderSize(nil, readBuffer)} }

func (x *exchange) begin(c net.Conn) {
	x.in.Reset(c)
	x.answering = false
}

// free drops the connection, and memory that is unusually large.
func (x *exchange) free() {
	x.in.Reset(nil)
	if cap(x.out) > 2*maxAtOnce {
		x.out = nil
	}
	if x.large {
		x.head, x.lines, x.record, x.recorded, x.large = nil, nil, nil, "", false
		x.response = fasthttp.ResponseHeader{}
	}
}

// run sends the request and reads the answer, which may come before all is sent: then the rest is
// not sent. keep is true if the connection can be used again.
func (x *exchange) run(t *http1, l *link, r Request, a *Answer) (keep bool, err error) {
	if len(r.Body) <= maxAtOnce {
		sent := x.write(t, l.Conn, r) // an answer may have arrived all the same
		keep, err = x.read(l.since, a)
		return keep && sent == nil, err
	}
	writing := make(chan error, 1)
	go func() { writing <- x.write(t, l.Conn, r) }()
	keep, err = x.read(l.since, a)
	select {
	case sent := <-writing:
		return keep && sent == nil, err
	default:
		_ = l.base.Close() // ends the writing
		<-writing
		return false, err
	}
}

// write sends the request, in one piece where it is not large.
func (x *exchange) write(t *http1, to io.Writer, r Request) error {
	x.out = t.appendHead(x.out[:0], r)
	rest := r.Body
	if len(rest) <= maxAtOnce {
		x.out, rest = append(x.out, rest...), nil
	}
	_, err := to.Write(x.out)
	if err == nil && len(rest) > 0 {
		_, err = to.Write(rest)
	}
	return err
}

// appendHead appends the head of r: the given header, and only the lines that HTTP requires
// besides.
func (t *http1) appendHead(b []byte, r Request) []byte {
	b = append(append(b, cmp.Or(r.Method, "POST")...), ' ')
	b = append(append(b, t.target...), " HTTP/1.1\r\n"...)
	b = appendLine(b, "Host", t.host)
	for i := range r.Header {
		b = appendLine(b, r.Header[i].Name, r.Header[i].Value)
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(r.Body)), 10)
	return append(b, "\r\n\r\n"...)
}

// appendLine appends one header. A line end in a value, which should not occur, becomes a space,
// because it would begin another header.
func appendLine(b []byte, name, value string) []byte {
	start := len(b)
	b = append(append(append(b, name...), ": "...), value...)
	if line := b[start:]; bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		for i, c := range line {
			if c == '\n' || c == '\r' {
				line[i] = ' '
			}
		}
	}
	return append(b, "\r\n"...)
}

// read reads the answer. After an error a.Status is 0 if the head was incomplete.
func (x *exchange) read(ready time.Time, a *Answer) (keep bool, err error) {
	if _, err := x.in.Peek(1); err != nil {
		return false, err
	}
	x.answering = true
	a.Timing.FirstByte = time.Since(ready)
	m, ok := x.readPlain()
	if !ok {
		if m, err = x.readHeads(); err != nil {
			return false, err
		}
	}
	a.Status = m.status
	switch a.Status {
	case fasthttp.StatusSwitchingProtocols, fasthttp.StatusNoContent, fasthttp.StatusNotModified:
		m.size = 0
	}
	x.record = appendRecord(x.record[:0], x.lines, m.size == sizeChunked, endsConnection(x.lines))
	if string(x.record) != x.recorded {
		x.recorded = string(x.record)
	}
	a.Head, a.RetryAfter = x.recorded, first(x.lines, "Retry-After")

	if a.Status == fasthttp.StatusSwitchingProtocols {
		return false, nil // the connection is the body
	}
	x.body = framing{in: x.in, chunked: m.size == sizeChunked, closes: m.size == sizeConnection, left: int64(max(m.size, 0)), whole: m.size == 0}
	if a.Body, err = x.body.keep(); err != nil {
		return false, err
	}
	// Bytes after the answer were not asked for.
	keep = x.body.whole && !x.body.closes && x.in.Buffered() == 0 && !m.ends
	return keep, nil
}

// meaning is the framing that a head declares.
type meaning struct {
	status int
	size   int  // of the body, or how it ends
	ends   bool // the connection with it
}

// Sizes of a body without a declared length.
const (
	sizeChunked    = -1
	sizeConnection = -2 // as far as the connection
)

// readPlain reads a plain head if it has arrived completely, and otherwise reads nothing. The
// result is the same as fasthttp's.
func (x *exchange) readPlain() (m meaning, ok bool) {
	here, _ := x.in.Peek(x.in.Buffered())
	n := bytes.Index(here, []byte("\r\n\r\n")) + len("\r\n\r\n")
	if n < len("\r\n\r\n") || !isPlain(here[:n]) {
		return m, false
	}
	x.head = append(x.head[:0], here[:n]...)
	x.lines = headLines(x.lines[:0], x.head)
	if m, ok = plainMeaning(x.head, x.lines); ok {
		_, _ = x.in.Discard(n) // it is here
	}
	return m, ok
}

// readHeads reads any head. It skips informational heads; all heads together have at most
// maxHeader bytes.
func (x *exchange) readHeads() (m meaning, err error) {
	for room := maxHeader; ; {
		n, err := x.readHead(room)
		if err != nil {
			return m, err
		}
		room -= n
		m.status = x.response.StatusCode()
		if m.status >= 200 || m.status == fasthttp.StatusSwitchingProtocols {
			break
		}
	}
	m.size = x.response.ContentLength() // values of fasthttp for chunked and until the end of the connection
	m.ends = x.response.ConnectionClose() || endsConnection(x.lines)
	return m, nil
}

// readHead reads one head of n bytes into x.head and x.lines, and its meaning into x.response.
func (x *exchange) readHead(limit int) (n int, err error) {
	if x.head, err = readHead(x.head[:0], x.in, limit); err != nil {
		return 0, err
	}
	n = len(x.head)
	asHTTP11(x.head)
	x.lines = headLines(x.lines[:0], x.head)
	all := len(x.lines)
	if x.lines = plain(x.lines); len(x.lines) < all {
		x.head = rebuild(x.head, x.lines)
	}
	if x.headIn == nil {
		x.headIn = bufio.NewReaderSize(nil, readBuffer)
	}
	in := x.headIn
	if len(x.head) > in.Size() {
		x.large = true
		in = bufio.NewReaderSize(nil, len(x.head)) // the library needs to see it whole
	}
	x.headFrom.Reset(x.head)
	in.Reset(&x.headFrom)
	_, status, _ := bytes.Cut(x.head, []byte(" "))
	if bytes.HasPrefix(bytes.TrimLeft(status, " "), []byte("0")) {
		return 0, errNotHTTP // the library reads 000 as 200
	}
	if x.response.Read(in) != nil {
		return 0, errNotHTTP // the library's text may quote the receiver
	}
	return n, nil
}

// Render returns r for e as HTTP/1.1 has it, made by the code that sends real ones. Nothing is
// sent.
func Render(e *policy.Endpoint, r Request) []byte {
	u := e.RequestURL()
	t := http1{host: u.Host, target: u.RequestURI()}
	return append(t.appendHead(nil, r), r.Body...)
}
