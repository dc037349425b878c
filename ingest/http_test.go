package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"relay/ingest/listen"
	"relay/internal/testkit"
)

// server is what both servers are.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Close() error
}

// serve runs a server on l until the test ends.
func serve(t *testing.T, l net.Listener, s server) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, listen.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// serveTCP runs in behind g on loopback and returns the address.
func serveTCP(t *testing.T, in *Ingest, g listen.Guard) string {
	t.Helper()
	l, err := listen.TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, NewServer(ServerOptions{Ingest: in, Guard: g}))
	return l.Addr().String()
}

func listenUnix(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := listen.Unix(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wire is a client that writes what it is told and reads real answers.
type wire struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, network, addr string) *wire {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return newWire(t, conn)
}

func newWire(t *testing.T, conn net.Conn) *wire {
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t, conn, bufio.NewReader(conn)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// read returns the next answer, its body read whole.
func (w *wire) read() (*http.Response, []byte) {
	w.t.Helper()
	res, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, body
}

// closed waits for the server to close the connection.
func (w *wire) closed() {
	w.t.Helper()
	if rest, err := io.ReadAll(w.in); len(rest) > 0 || err != nil && !errors.Is(err, io.ErrClosedPipe) {
		w.t.Errorf("instead of the end: %q %v", rest, err)
	}
}

const head = "POST /v1/events/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

func withLength(body string) string {
	return head + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// TestWire sends bytes as they are.
func TestWire(t *testing.T) {
	const limit = 1024
	fill := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	chunked := func(body string) string {
		return head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	manyHeaders := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "X-%d: a\r\n", i)
		}
		return b.String()
	}
	tests := map[string]struct {
		send   string
		status int
		code   string
		closes bool
	}{
		"plain":                           {send: withLength("{}"), status: 202},
		"B8 body at the limit":            {send: withLength(fill(limit)), status: 202},
		"B8 body over the limit":          {send: withLength(fill(limit + 1)), status: 413, code: "body_too_large", closes: true},
		"B8 chunked at the limit":         {send: chunked(fill(limit)), status: 202},
		"B8 chunked over the limit":       {send: chunked(fill(limit + 1)), status: 413, code: "body_too_large", closes: true},
		"B8 length of 10^12":              {send: head + "Content-Length: 1000000000000\r\n\r\n{", status: 413, code: "body_too_large", closes: true},
		"B8 length beyond numbers":        {send: head + "Content-Length: 99999999999999999999\r\n\r\n{", status: 400, code: "invalid_request", closes: true},
		"B9 gzip":                         {send: head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", status: 415, code: "unsupported_encoding"},
		"B9 encoding in two headers":      {send: head + "Content-Encoding: identity\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", status: 415, code: "unsupported_encoding"},
		"B10 CloudEvent in headers":       {send: head + "ce-specversion: 1.0\r\nContent-Length: 2\r\n\r\n{}", status: 415, code: "unsupported_media_type"},
		"B11 headers over 32 KiB":         {send: head + "X-Long: " + strings.Repeat("x", 32<<10) + "\r\nContent-Length: 2\r\n\r\n{}", status: 431, code: "header_too_large", closes: true},
		"B11 headers below 32 KiB":        {send: head + "X-Long: " + strings.Repeat("x", 31<<10) + "\r\nContent-Length: 2\r\n\r\n{}", status: 202},
		"B11 1,000 headers":               {send: head + manyHeaders(1000) + "Content-Length: 2\r\n\r\n{}", status: 431, code: "too_many_headers", closes: true},
		"B11 one header 1,000 times":      {send: head + strings.Repeat("X-Y: a\r\n", 1000) + "Content-Length: 2\r\n\r\n{}", status: 431, code: "too_many_headers", closes: true},
		"B11 90 headers":                  {send: head + manyHeaders(90) + "Content-Length: 2\r\n\r\n{}", status: 202},
		"B12 malformed chunk":             {send: head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B13 other expectation":           {send: head + "Expect: tea\r\nContent-Length: 2\r\n\r\n{}", status: 417, code: "expectation_failed", closes: true},
		"B14 GET":                         {send: "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n", status: 405, code: "method_not_allowed"},
		"B14 options of all":              {send: "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", status: 404, code: "not_found"},
		"B14 no method":                   {send: " / HTTP/1.1\r\nHost: localhost\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"B15 two lengths":                 {send: head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 negative length":             {send: head + "Content-Length: -1\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 unknown transfer coding":     {send: head + "Transfer-Encoding: xchunked\r\n\r\n", status: 501, code: "unsupported_coding", closes: true},
		"B15 coding twice":                {send: head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", status: 501, code: "unsupported_coding", closes: true},
		"B15 space before the colon":      {send: head + "Content-Length : 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 zero byte in a header":       {send: head + "X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B16 other host":                  {send: strings.Replace(withLength("{}"), "localhost", "evil.example", 1), status: 421, code: "unknown_host"},
		"B16 other host in the address":   {send: strings.Replace(withLength("{}"), "/v1", "http://evil.example/v1", 1), status: 421, code: "unknown_host"},
		"B16 no host":                     {send: strings.Replace(withLength("{}"), "Host: localhost\r\n", "", 1), status: 400, code: "missing_host", closes: true},
		"B16 empty host":                  {send: strings.Replace(withLength("{}"), "localhost", "", 1), status: 400, code: "missing_host", closes: true},
		"B16 two hosts":                   {send: strings.Replace(withLength("{}"), "Host: localhost\r\n", "Host: localhost\r\nHost: localhost\r\n", 1), status: 400, code: "invalid_request", closes: true},
		"B16 HTTP/1.0 without host":       {send: "POST /v1/events/a HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "missing_host", closes: true},
		"B17 origin":                      {send: head + "Origin: https://evil.example\r\nContent-Length: 2\r\n\r\n{}", status: 403, code: "cross_origin"},
		"B17 cross-site":                  {send: head + "Sec-Fetch-Site: cross-site\r\nContent-Length: 2\r\n\r\n{}", status: 403, code: "cross_origin"},
		"S27 HTTP/2 without TLS":          {send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"two idempotency keys":            {send: head + "Idempotency-Key: a\r\nIdempotency-Key: a\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_idempotency_key"},
		"idempotency key with no value":   {send: head + "Idempotency-Key:\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_idempotency_key"},
		"percent-encoded type":            {send: strings.Replace(withLength("{}"), "/a ", "/%61 ", 1), status: 202},
		"percent-encoded slash":           {send: strings.Replace(withLength("{}"), "/a ", "/a%2Fb ", 1), status: 404, code: "not_found"},
		"percent-encoded control":         {send: strings.Replace(withLength("{}"), "/a ", "/a%00 ", 1), status: 400, code: "invalid_type"},
		"no body":                         {send: head + "\r\n", status: 400, code: "empty_body"},
		"HTTP/1.0":                        {send: strings.Replace(withLength("{}"), "1.1", "1.0", 1), status: 202, closes: true},
		"B15 HTTP/1.0 with chunks":        {send: strings.Replace(chunked("{}"), "1.1", "1.0", 1), status: 400, code: "invalid_request", closes: true},
		"B15 HTTP/1.0, chunks and length": {send: strings.Replace(head, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_request", closes: true},

		"HTTP/1.0, kept":                  {send: strings.Replace(head, "1.1", "1.0", 1) + "Connection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}", status: 202},
		"asked to close":                  {send: head + "Connection: x, Close\r\nContent-Length: 2\r\n\r\n{}", status: 202, closes: true},
		"query":                           {send: strings.Replace(withLength("{}"), "/a ", "/a?b=/c%zz ", 1), status: 202},
		"address as target":               {send: strings.Replace(withLength("{}"), "/v1", "http://127.0.0.1:7070/v1", 1), status: 202},
		"address with a user":             {send: strings.Replace(withLength("{}"), "/v1", "http://a@localhost/v1", 1), status: 400, code: "invalid_request", closes: true},
		"address of another scheme":       {send: strings.Replace(withLength("{}"), "/v1", "ftp://localhost/v1", 1), status: 400, code: "invalid_request", closes: true},
		"relative target":                 {send: strings.Replace(withLength("{}"), "/v1", "v1", 1), status: 400, code: "invalid_request", closes: true},
		"B14 CONNECT":                     {send: "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", status: 404, code: "not_found"},
		"B14 TRACE":                       {send: "TRACE /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n", status: 405, code: "method_not_allowed"},
		"B14 unknown method with a body":  {send: strings.Replace(withLength("{}"), "POST", "BREW", 1), status: 405, code: "method_not_allowed"},
		"path with two slashes":           {send: strings.Replace(withLength("{}"), "/v1", "//v1", 1), status: 404, code: "not_found"},
		"path with two slashes inside":    {send: strings.Replace(withLength("{}"), "/a ", "//a ", 1), status: 404, code: "not_found"},
		"path with dots":                  {send: strings.Replace(withLength("{}"), "/v1", "/x/../v1", 1), status: 404, code: "not_found"},
		"path with encoded dots":          {send: strings.Replace(withLength("{}"), "/v1", "/x/%2e%2e/v1", 1), status: 404, code: "not_found"},
		"path with a dot":                 {send: strings.Replace(withLength("{}"), "/v1", "/./v1", 1), status: 404, code: "not_found"},
		"path with an encoded slash":      {send: strings.Replace(withLength("{}"), "/v1/", "/v1%2f", 1), status: 404, code: "not_found"},
		"path with a fragment":            {send: strings.Replace(withLength("{}"), "/a ", "/a#b ", 1), status: 400, code: "invalid_type"},
		"path above ASCII":                {send: strings.Replace(withLength("{}"), "/a ", "/\u00fc ", 1), status: 400, code: "invalid_type"},
		"percent-encoding cut short":      {send: strings.Replace(withLength("{}"), "/a ", "/a%2 ", 1), status: 400, code: "invalid_request", closes: true},
		"B10 two content types":           {send: head + "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B13 expects without a body":      {send: head + "Expect: 100-Continue\r\n\r\n", status: 400, code: "empty_body"},
		"B13 expects, too large":          {send: head + "Expect: 100-continue\r\nContent-Length: 2000\r\n\r\n", status: 413, code: "body_too_large", closes: true},
		"B13 expects, other host":         {send: strings.Replace(head, "localhost", "evil.example", 1) + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", status: 421, code: "unknown_host", closes: true},
		"B13 HTTP/1.0 expects":            {send: strings.Replace(head, "1.1", "1.0", 1) + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", status: 202, closes: true},
		"B16 other host, long body":       {send: strings.Replace(withLength(fill(limit)), "localhost", "evil.example", 1), status: 421, code: "unknown_host"},
		"B16 other host, longer body":     {send: strings.Replace(withLength(fill(99999)), "localhost", "evil.example", 1), status: 421, code: "unknown_host", closes: true},
		"B16 other host, chunks":          {send: strings.Replace(chunked("{}"), "localhost", "evil.example", 1), status: 421, code: "unknown_host", closes: true},
		"B16 host that is none":           {send: strings.Replace(withLength("{}"), "localhost", "local host", 1), status: 400, code: "invalid_request", closes: true},
		"B11 100 headers":                 {send: "POST /v1/events/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + manyHeaders(97) + "Content-Length: 2\r\n\r\n{}", status: 202},
		"B11 101 headers":                 {send: "POST /v1/events/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + manyHeaders(98) + "Content-Length: 2\r\n\r\n{}", status: 431, code: "too_many_headers", closes: true},
		"chunks":                          {send: head + "Transfer-Encoding: Chunked\r\n\r\n1\r\n{\r\n00001\r\n}\r\n0\r\n\r\n", status: 202},
		"B8 no end of chunks":             {send: head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\n \r\n", limit+1), status: 413, code: "body_too_large", closes: true},
		"B12 size of a chunk, none":       {send: head + "Transfer-Encoding: chunked\r\n\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B12 size of a chunk, signed":     {send: head + "Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B12 size of a chunk, absurd":     {send: head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff2\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B12 size of a chunk, huge":       {send: head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffff\r\n{}\r\n0\r\n\r\n", status: 413, code: "body_too_large", closes: true},
		"B12 size of a chunk, endless":    {send: head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 9999), status: 400, code: "invalid_body", closes: true},
		"B12 chunk longer than its size":  {send: head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B15 chunk extension":             {send: head + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B15 space behind a chunk's size": {send: head + "Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B15 bare line feed in chunks":    {send: head + "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B15 trailer":                     {send: head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: b\r\n\r\n", status: 400, code: "invalid_body", closes: true},
		"B15 the same length twice":       {send: head + "Content-Length: 2\r\nCONTENT-LENGTH: 2\r\n\r\n{}", status: 202},
		"B15 the same length in a list":   {send: head + "Content-Length: 2, 2\r\n\r\n{}", status: 202},
		"B15 the same length in two":      {send: head + "Content-Length: 2 ,2\r\nContent-Length: 2,\t2\r\n\r\n{}", status: 202},
		"B15 list of other lengths":       {send: head + "Content-Length: 2, 3\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 other length behind a list":  {send: head + "Content-Length: 2, 2\r\nContent-Length: 3\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 list with an empty place":    {send: head + "Content-Length: 2,\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 list with an empty start":    {send: head + "Content-Length: , 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 list beside chunks":          {send: head + "Content-Length: 12, 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"B16 empty host, two lengths":     {send: strings.Replace(head, "localhost", "", 1) + "Content-Length: 2, 2\r\n\r\n{}", status: 400, code: "missing_host", closes: true},
		"B16 empty host, whole address":   {send: strings.NewReplacer(": localhost", ":", "/v1", "http://localhost/v1").Replace(withLength("{}")), status: 400, code: "missing_host", closes: true},
		"B15 signed length":               {send: head + "Content-Length: +2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 length with no value":        {send: head + "Content-Length:\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 coding behind another":       {send: head + "Transfer-Encoding: gzip, chunked\r\n\r\n", status: 501, code: "unsupported_coding", closes: true},
		"B15 coding identity":             {send: head + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", status: 501, code: "unsupported_coding", closes: true},
		"B15 folded first header":         {send: "POST /v1/events/a HTTP/1.1\r\n Host: localhost\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"B15 header with no colon":        {send: head + "X-A\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 header with no name":         {send: head + ": a\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 space in a header's name":    {send: head + "X A: a\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 bare carriage return":        {send: head + "X-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
		"B15 one bare line feed":          {send: strings.Replace(withLength("{}"), "1.1\r\n", "1.1\n", 1), status: 400, code: "invalid_request", closes: true},
		"B15 empty line first":            {send: "\r\n" + withLength("{}"), status: 400, code: "invalid_request", closes: true},
		"B15 zero byte in the target":     {send: strings.Replace(withLength("{}"), "/a ", "/a\x00 ", 1), status: 400, code: "invalid_request", closes: true},
		"B15 two spaces":                  {send: strings.Replace(withLength("{}"), "POST ", "POST  ", 1), status: 400, code: "invalid_request", closes: true},
		"B15 no version":                  {send: "POST /v1/events/a\r\nHost: localhost\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"B15 version 1.2":                 {send: strings.Replace(withLength("{}"), "1.1", "1.2", 1), status: 400, code: "invalid_request", closes: true},
		"B15 method with a control":       {send: strings.Replace(withLength("{}"), "POST", "PO\x01ST", 1), status: 400, code: "invalid_request", closes: true},

		// Libraries take some of these, within the letter of RFC 9112 (sections
		// 2.2, 5.2, 6.3 and 7.1).
		"B15 length beside chunks": {send: head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		"B15 bare line feeds":      {send: strings.ReplaceAll(withLength("{}"), "\r\n", "\n"), status: 400, code: "invalid_request", closes: true},
		"B15 folded header":        {send: head + "X-A: a\r\n b\r\nContent-Length: 2\r\n\r\n{}", status: 400, code: "invalid_request", closes: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{MaxBody: limit})
			w := dial(t, "tcp", serveTCP(t, in, listen.Guard{}))
			sent := make(chan struct{})
			go func() { // a server that refuses may stop reading
				defer close(sent)
				_, _ = io.WriteString(w, test.send)
			}()
			res, body := w.read()
			if res.StatusCode != test.status {
				t.Errorf("status %d, want %d: %s", res.StatusCode, test.status, body)
			}
			if test.code != "" {
				if got := decodeAnswer(t, body); got.Code != test.code || res.Header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("got %s %s, want %s", res.Header.Get("Content-Type"), body, test.code)
				}
			}
			if (res.StatusCode == 202) != (len(rec.entries()) == 1) {
				t.Errorf("status %d with %d events stored", res.StatusCode, len(rec.entries()))
			}
			if res.Close != test.closes {
				t.Errorf("closes %v, want %v", res.Close, test.closes)
			}
			if test.closes {
				_, _ = io.Copy(io.Discard, w.in) // to the end, be it a reset
			} else {
				w.send(withLength("{}"))
				if res, body := w.read(); res.StatusCode != 202 {
					t.Errorf("the next request on the connection: %d %s", res.StatusCode, body)
				}
			}
			<-sent
		})
	}
}

// TestEmptyHost: a Unix socket has no authority that a client could name, so the client
// sends an empty Host (RFC 9112, section 3.2). One that is missing is refused all the same.
func TestEmptyHost(t *testing.T) {
	for name, s := range map[string]func(in *Ingest) server{
		"events": func(in *Ingest) server {
			return NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}})
		},
		"admin": func(in *Ingest) server {
			return listen.NewServer(listen.ServerOptions{Handler: listen.Guard{AnyHost: true}.Wrap(reference{in})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			in, _, _ := newIngest(t, Options{})
			path := filepath.Join(testkit.Dir(t), "relay.sock")
			serve(t, listenUnix(t, path), s(in))
			w := dial(t, "unix", path)
			for range 2 {
				w.send(strings.Replace(withLength("1"), " localhost", "", 1))
				if res, body := w.read(); res.StatusCode != 202 || res.Close {
					t.Fatalf("empty host: %d %s, closes %v", res.StatusCode, body, res.Close)
				}
			}
			w.send(strings.Replace(withLength("1"), "Host: localhost\r\n", "", 1))
			if res, body := w.read(); res.StatusCode != 400 {
				t.Errorf("no host: %d %s", res.StatusCode, body)
			}
		})
	}
}

func TestResponseHeaders(t *testing.T) {
	in, _, faulty := newIngest(t, Options{})
	addr := serveTCP(t, in, listen.Guard{Token: "t0ken"})
	ask := func(request string) http.Header {
		t.Helper()
		w := dial(t, "tcp", addr)
		w.send(request)
		res, body := w.read()
		if got := res.Header.Get("Content-Length"); got != strconv.Itoa(len(body)) {
			t.Errorf("Content-Length %q", got)
		}
		if _, err := http.ParseTime(res.Header.Get("Date")); err != nil || len(res.Header["Server"]) > 0 {
			t.Errorf("Date %q, Server %q", res.Header["Date"], res.Header["Server"])
		}
		return res.Header
	}
	known := strings.Replace(withLength("1"), "\r\n", "\r\nAuthorization: Bearer t0ken\r\n", 1)
	if got := ask(strings.Replace(known, "POST", "DELETE", 1)).Get("Allow"); got != "POST" {
		t.Errorf("Allow %q", got)
	}
	if got := ask(withLength("1")).Get("WWW-Authenticate"); got != `Bearer realm="relay"` {
		t.Errorf("WWW-Authenticate %q", got)
	}
	faulty.Fail("Accept", errors.New("no"), 1)
	if got := ask(known).Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q", got)
	}
	if got := ask(known).Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}
