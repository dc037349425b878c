package post

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"relay/policy"
)

// Sizes in bytes. A request of up to maxAtOnce fits the kernel's buffers, so
// writing it waits for nobody.
const (
	readBuffer  = 4 << 10
	writeBuffer = 8 << 10
	maxAtOnce   = 16 << 10
)

// http1 is the sender for HTTP/1.1. fasthttp gives it the wire format of requests
// and of the heads of answers; connections and time limits are ours. The attempt's
// own goroutine writes, then reads. Nothing is ever sent again.
type http1 struct {
	pool      pool
	host      string // of the Host header
	target    string // path and query as the URL has them
	obey      bool   // rate headers
	exchanges *sync.Pool
	forget    func() bool // the end of all attempts need not be told any more
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
			a.Timing, f = dial.timing, &Failure{dial.code, clip(dial.Error())}
		}
		if f.Code == policy.CodeConnectTimeout || f.Code == CodeNoSocket {
			return a, f // however late we hear of it
		}
		return a, orLate(f, r.Until)
	}
	if a.Reused = l.reused; !l.reused {
		a.Timing = l.base.timing
	}

	end := t.pool.drop // also of a panic
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
			t.pool.doubt()
		}
		return a, nil
	case err != nil:
		f := orLate(exchangeFailure(err, answering), r.Until)
		switch {
		case f.Code == policy.CodeTimeout:
			t.pool.doubt()
		case l.reused && !answering && f.Code == policy.CodeReset:
			t.pool.wary.Store(true)
		}
		return a, f
	}
	if end = t.pool.hangUp; keep {
		end = t.pool.put
	}
	return a, nil
}

// orLate makes any failure at or after the end of an attempt one of time.
func orLate(f *Failure, until time.Time) *Failure {
	if time.Now().Before(until) {
		return f
	}
	return &Failure{Code: policy.CodeTimeout}
}

// exchange is what one request and its answer need beside the connection. It is
// pooled, so idle connections hold no buffers.
type exchange struct {
	in       *bufio.Reader
	out      *bufio.Writer
	request  fasthttp.RequestHeader
	response fasthttp.ResponseHeader
	digits   []byte

	head     []byte // as readHead made it
	headFrom bytes.Reader
	headIn   *bufio.Reader
	lines    []headLine
	record   []byte
	large    bool // a head did not fit a buffer
	body     framing

	answering bool // some of the answer is here
}

func newExchange() any {
	return &exchange{
		in:     bufio.NewReaderSize(nil, readBuffer),
		out:    bufio.NewWriterSize(nil, writeBuffer),
		headIn: bufio.NewReaderSize(nil, readBuffer),
	}
}

func (x *exchange) begin(c net.Conn) {
	x.in.Reset(c)
	x.out.Reset(c)
	x.answering = false
}

// free lets go of the connection, and of memory that few need.
func (x *exchange) free() {
	x.in.Reset(nil)
	x.out.Reset(nil)
	if x.large {
		x.head, x.lines, x.record, x.large = nil, nil, nil, false
		x.response = fasthttp.ResponseHeader{}
	}
}

// run sends the request and reads the answer, which may come before all is sent:
// then the rest is not sent. keep tells whether the connection can be used again.
func (x *exchange) run(t *http1, l *link, r Request, a *Answer) (keep bool, err error) {
	if len(r.Body) <= maxAtOnce {
		sent := x.write(t, r) // an answer may be here all the same
		keep, err = x.read(l.since, a)
		return keep && sent == nil, err
	}
	writing := make(chan error, 1)
	go func() { writing <- x.write(t, r) }()
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

// write sends the request: its header as it is given and nothing else, but for what HTTP
// needs.
func (x *exchange) write(t *http1, r Request) error {
	h := &x.request
	h.Reset()
	h.DisableNormalizing()
	h.DisableSpecialHeader()
	h.SetMethod(cmp.Or(r.Method, "POST"))
	h.SetRequestURI(t.target)
	h.Add("Host", t.host)
	for i := range r.Header {
		h.Add(r.Header[i].Name, r.Header[i].Value)
	}
	x.digits = strconv.AppendInt(x.digits[:0], int64(len(r.Body)), 10)
	h.AddBytesV("Content-Length", x.digits)
	_ = h.Write(x.out) // Flush tells of all errors
	_, _ = x.out.Write(r.Body)
	return x.out.Flush()
}

// read reads the answer. Informational ones before it are passed over: all heads
// together have maxHeader bytes. With an error a.Status tells which part is missing: it is 0
// until the head is whole.
func (x *exchange) read(ready time.Time, a *Answer) (keep bool, err error) {
	if _, err := x.in.Peek(1); err != nil {
		return false, err
	}
	x.answering = true
	a.Timing.FirstByte = time.Since(ready)
	for room := maxHeader; ; {
		n, err := x.readHead(room)
		if err != nil {
			return false, err
		}
		room -= n
		a.Status = x.response.StatusCode()
		if a.Status >= 200 || a.Status == fasthttp.StatusSwitchingProtocols {
			break
		}
		a.Status = 0
	}
	size := x.response.ContentLength() // -1: chunked, -2: as far as the connection
	closes := endsConnection(x.lines)
	x.record = appendRecord(x.record[:0], x.lines, size == -1, closes)
	a.Head, a.RetryAfter = string(x.record), first(x.lines, "Retry-After")

	switch a.Status {
	case fasthttp.StatusSwitchingProtocols:
		return false, nil // its body is the connection
	case fasthttp.StatusNoContent, fasthttp.StatusNotModified:
		size = 0
	}
	x.body = framing{in: x.in, chunked: size == -1, closes: size == -2, left: int64(max(size, 0)), whole: size == 0}
	if a.Body, err = x.body.keep(); err != nil {
		return false, err
	}
	// What is here beyond the answer was not asked for.
	keep = x.body.whole && !x.body.closes && x.in.Buffered() == 0 && !x.response.ConnectionClose() && !closes
	return keep, nil
}

// readHead reads one head of n bytes into x.head and x.lines, and what it means into
// x.response.
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
		return 0, errNotHTTP // the library's words may quote the receiver
	}
	return n, nil
}

// Render returns r for e as HTTP/1.1 has it, made by the code that sends. Nothing is sent.
func Render(e *policy.Endpoint, r Request) []byte {
	u := e.RequestURL()
	var wire bytes.Buffer
	x := newExchange().(*exchange)
	x.out.Reset(&wire)
	_ = x.write(&http1{host: u.Host, target: u.RequestURI()}, r) // a Buffer takes all
	return wire.Bytes()
}
