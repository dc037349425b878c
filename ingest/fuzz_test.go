package ingest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"

	"relay/ingest/listen"
	"relay/outbox"
)

// oddities are requests that somebody might read in another way, whole and
// broken ones, alone and in a row.
var oddities = []string{
	withLength("{}"), withLength(`{"a":1}`) + withLength("2") + withLength("x"),
	head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + withLength("1"),
	head + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n" + withLength("1"),
	head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", head + "Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n1",
	head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n12", head + "Content-Length: 1, 1\r\n\r\n1" + withLength("2"), head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n1" + withLength("2"), head + "Content-Length: -1\r\n\r\n1", head + "Content-Length: +1\r\n\r\n1", head + "Content-Length: 0x1\r\n\r\n1",
	head + "Content-Length : 1\r\n\r\n1", head + "X-A: a\r\n b\r\nContent-Length: 1\r\n\r\n1", head + "X-A: a\x00\r\nContent-Length: 1\r\n\r\n1", head + "X A: a\r\nContent-Length: 1\r\n\r\n1",
	strings.ReplaceAll(withLength("1"), "\r\n", "\n"), strings.ReplaceAll(withLength("1"), "\r\n", "\r"), "\r\n" + withLength("1"), "\n\n" + withLength("1"),
	strings.Replace(withLength("1"), "1.1", "1.0", 1) + withLength("2"), strings.Replace(head, "1.1", "1.0", 1) + "Connection: keep-alive\r\nContent-Length: 1\r\n\r\n1" + withLength("2"),
	strings.Replace(head, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n", strings.Replace(withLength("1"), "1.1", "2.0", 1),
	head + "Connection: close\r\nContent-Length: 1\r\n\r\n1" + withLength("2"), head + "Connection: x, CLOSE\r\nContent-Length: 1\r\n\r\n1" + withLength("2"),
	head + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n1" + withLength("2"), head + "Expect: tea\r\nContent-Length: 1\r\n\r\n1",
	strings.Replace(withLength("1"), "Host: localhost\r\n", "", 1), strings.Replace(withLength("1"), "localhost", "evil.example", 1) + withLength("2"),
	strings.Replace(withLength("1"), "localhost", "", 1), strings.Replace(withLength("1"), "Host", "Host: localhost\r\nHost", 1),
	strings.Replace(withLength("1"), "/v1", "http://localhost/v1", 1), strings.Replace(withLength("1"), "/v1", "http://evil.example/v1", 1),
	strings.Replace(withLength("1"), "/v1", "//v1", 1), strings.Replace(withLength("1"), "/v1", "/x/../v1", 1), strings.Replace(withLength("1"), "/a ", "/%61%2e%62?c=%zz ", 1),
	strings.Replace(withLength("1"), "/a ", "/a%2fb ", 1), strings.Replace(withLength("1"), "/a ", "/%zz ", 1),
	strings.Replace(withLength("1"), "POST", "HEAD", 1) + withLength("2"), strings.Replace(withLength("1"), "POST", "GET", 1) + withLength("2"),
	"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	head + strings.Repeat("X-Y: a\r\n", 200) + "\r\n", head + "X-Long: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 1\r\n\r\n1" + withLength("2"),
	head + "Content-Length: 1000000000000\r\n\r\n1", head + "Content-Length: 99\r\n\r\n1", "POST", "", "\x16\x03\x01\x02\x00\x01\x00",
	head + "Origin: \r\nOrigin: http://evil.example\r\nSEC-FETCH-SITE: none\r\nsec-fetch-site: cross-site\r\nauthorization:\t\r\nAuthorization: Bearer a\r\nContent-Encoding: \r\nidempotency-KEY: a\r\nContent-Length: 1\r\n\r\n1",
	cloudHead + "ce-subject: %41\r\nContent-Length: 1\r\n\r\n1",
	"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: k\r\nContent-Length: 46\r\n\r\n" + `{"type":"a","data":1}` + "\n\n" + `{"type":"b","data":[2]}`,
}

// cloudHead begins a CloudEvent in binary mode.
const cloudHead = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
	"ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /shop\r\nce-type: order.made\r\n"

// lengthList is a Content-Length line with more than one length.
var lengthList = regexp.MustCompile(`(?i)content-length:[^\r\n]*,`)

// kept is an outbox that only remembers.
type kept struct {
	nowhere
	mu     sync.Mutex
	events []string
	calls  int
}

func (k *kept) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	for _, e := range b.Entries {
		k.events = append(k.events, b.Key+" "+e.Event.Type+" "+string(e.Event.Data))
	}
	return k.nowhere.Accept(ctx, b)
}

// speak sends text to a server and returns all that it answers until it closes.
func speak(t *testing.T, s server, text []byte) []byte {
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	client, far := net.Pipe()
	l.conns <- far
	go func() {
		_, _ = client.Write(text) // a server that refuses stops reading
	}()
	answer, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	if err := errors.Join(client.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, listen.ErrServerClosed) {
		t.Error(err)
	}
	return answer
}

// FuzzConnection sends any bytes: there is no panic, the connection ends in
// time, each 202 stands for one batch in the outbox, and what was accepted
// net/http would have read as the same events in the same order.
func FuzzConnection(f *testing.F) {
	for _, text := range oddities {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := new(kept), new(kept)
			options := func(k *kept) Options { return Options{Outbox: k, Route: route, MaxBody: 1 << 10} }
			start := time.Now()
			answer := speak(t, NewServer(ServerOptions{Ingest: New(options(ours))}), text)
			if took := time.Since(start); took > listen.ReadTimeout+listen.IdleTimeout {
				t.Fatalf("closed after %s", took)
			}
			if n := bytes.Count(answer, []byte("HTTP/1.1 202 ")); n != ours.calls {
				t.Fatalf("%d times 202 for %d batches", n, ours.calls)
			}
			if bytes.Contains(answer, []byte("HTTP/1.1 500 ")) {
				t.Fatalf("an error of our own: %s", answer)
			}
			if lengthList.Match(text) {
				return // net/http refuses a list of equal lengths
			}
			speak(t, listen.NewServer(listen.ServerOptions{Handler: listen.Guard{}.Wrap(reference{New(options(theirs))})}), text)
			rest := theirs.events
			for _, e := range ours.events {
				for len(rest) > 0 && rest[0] != e {
					rest = rest[1:]
				}
				if len(rest) == 0 {
					t.Fatalf("accepted %q, net/http %q", ours.events, theirs.events)
				}
				rest = rest[1:]
			}
		})
	})
}

// FuzzFraming: what is taken for a header, net/http and fasthttp take for one
// too, with the same body behind it.
func FuzzFraming(f *testing.F) {
	for _, text := range oddities {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for from := range min(len(text), 100) { // in whatever pieces it comes
			whole, p := headerEnd(text, 0)
			if size, q := headerEnd(text[:from], 0); size == 0 && q == nil {
				if size, q := headerEnd(text, from); size != whole || (p == nil) != (q == nil) {
					t.Fatalf("ends at %d, or at %d when looked at from %d", whole, size, from)
				}
			}
		}
		size, p := headerEnd(text, 0)
		if size == 0 || p != nil {
			return
		}
		var got header
		if p := got.read(text[:size]); p != nil {
			if p.Status < 400 || !response(p).Close {
				t.Fatalf("refused with %+v", p)
			}
			return
		}
		path, host, p := readTarget(got.target)
		if p != nil || lengthList.Match(text[:size]) {
			return // net/http refuses a list of equal lengths
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		want := framing{old: r.ProtoMinor == 0, length: r.ContentLength, chunked: len(r.TransferEncoding) > 0}
		if want.chunked {
			want.length = 0
		}
		if diff := cmp.Diff(want, framing{old: got.old, length: got.length, chunked: got.chunked}, cmp.AllowUnexported(framing{})); diff != "" {
			t.Fatalf("net/http reads another body: %s", diff)
		}
		if got.target[0] == '/' && string(got.host) != r.Host || path != "" && path != r.URL.Path || host != "" && host != r.Host {
			t.Fatalf("path %q on %q, net/http %q on %q", path, host, r.URL.Path, r.Host)
		}
		if diff := cmp.Diff(fieldsOf(r), got.text()); diff != "" {
			t.Fatalf("net/http reads other fields: %s", diff)
		}
		var judge fasthttp.RequestHeader
		if err := judge.Read(bufio.NewReaderSize(bytes.NewReader(text), listen.MaxHeaderBytes)); err != nil {
			return // it knows no repeated length and no empty Host
		}
		if n := judge.ContentLength(); got.chunked != (n == -1) || n >= 0 && int64(n) != got.length {
			t.Fatalf("fasthttp reads a body of %d", n)
		}
	})
}

// text is what fields say, as strings.
func (f *fields) text() map[string][]string {
	all := map[string][]string{"method": {string(f.method)}}
	for name, value := range map[string][]byte{"Content-Type": f.contentType, "Sec-Fetch-Site": f.site, "Origin": f.origin, "Authorization": f.authorization} {
		if value != nil {
			all[name] = []string{string(value)}
		}
	}
	for _, v := range f.keys {
		all["Idempotency-Key"] = append(all["Idempotency-Key"], string(v))
	}
	for _, v := range f.codings {
		all["Content-Encoding"] = append(all["Content-Encoding"], string(v))
	}
	for _, a := range f.attributes {
		name := http.CanonicalHeaderKey("Ce-" + string(a[0]))
		all[name] = append(all[name], string(a[1]))
	}
	return all
}

// fieldsOf is the same as net/http reads it.
func fieldsOf(r *http.Request) map[string][]string {
	all := map[string][]string{"method": {r.Method}}
	for _, name := range []string{"Content-Type", "Sec-Fetch-Site", "Origin", "Authorization"} {
		if values := r.Header[name]; values != nil {
			all[name] = values[:1]
		}
	}
	for name, values := range r.Header {
		if name == "Idempotency-Key" || name == "Content-Encoding" || strings.HasPrefix(name, "Ce-") && len(name) > len("Ce-") {
			all[name] = values
		}
	}
	return all
}

// TestLikeNetHTTP: what is valid is answered as net/http would.
func TestLikeNetHTTP(t *testing.T) {
	replace := func(from, to string) string { return strings.Replace(withLength(`{"a":[1]}`), from, to, 1) }
	batch := `[{"type":"a","data":1},{"type":"b","data":2}]`
	tests := map[string]string{
		"one":                 withLength("1"),
		"small letters":       "POST /v1/events/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1",
		"capitals":            "POST /v1/events/a HTTP/1.1\r\nHOST: localhost\r\nCONTENT-TYPE: application/json\r\nCONTENT-LENGTH: 1\r\n\r\n1",
		"no space":            "POST /v1/events/a HTTP/1.1\r\nHost:localhost\r\nContent-Type:application/json\r\nContent-Length:1\r\n\r\n1",
		"spaces and tabs":     "POST /v1/events/a HTTP/1.1\r\nHost: \t localhost\t\r\nContent-Type:  application/json \r\nContent-Length:\t1 \r\n\r\n1",
		"chunks":              head + "Transfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\nA\r\n,3,4,5,6,7\r\n1\r\n]\r\n0\r\n\r\n",
		"batch":               strings.NewReplacer("/a ", " ", "9", "45", `{"a":[1]}`, batch).Replace(withLength(`{"a":[1]}`)),
		"key":                 replace("\r\n", "\r\nidempotency-key: k-1\r\n"),
		"keys":                replace("\r\n", "\r\nIdempotency-Key: k-1\r\nIdempotency-Key: k-2\r\n"),
		"identity":            replace("\r\n", "\r\nContent-Encoding: identity\r\n"),
		"encodings":           replace("\r\n", "\r\nContent-Encoding: gzip\r\nContent-Encoding: br\r\n"),
		"charset":             replace("application/json", "application/json; charset=utf-8"),
		"text":                replace("application/json", "text/plain"),
		"no type":             replace("Content-Type: application/json\r\n", ""),
		"CloudEvent, empty":   replace("\r\n", "\r\nce-specversion:\r\n"),
		"CloudEvent":          cloudHead + "CE-Subject: Euro%20%E2%82%AC\r\nContent-Length: 9\r\n\r\n{\"a\":[1]}",
		"CloudEvent, twice":   cloudHead + "ce-subject: a\r\nce-subject: b\r\nContent-Length: 1\r\n\r\n1",
		"CloudEvent, bare":    strings.Replace(cloudHead, "Content-Type: application/json\r\n", "", 1) + "Content-Length: 0\r\n\r\n",
		"CloudEvent, no name": cloudHead + "ce-: a\r\nContent-Length: 1\r\n\r\n1",
		"CloudEvent, whole":   replace("application/json", "application/cloudevents+json"),
		"cookies, agent":      replace("\r\n", "\r\nCookie: a=b\r\nCookie: c\r\nUser-Agent: x\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"),
		"bytes above ASCII":   replace("\r\n", "\r\nX-Name: \xfcber\r\n"),
		"query":               replace("/a ", "/a?type=b "),
		"encoded":             replace("/a ", "/%61%2Eb "),
		"plus":                replace("/a ", "/a+b "),
		"address":             replace("/v1", "http://LOCALHOST:7070/v1"),
		"address, no path":    replace("/v1/events/a", "http://localhost"),
		"IPv6":                replace("localhost", "[::1]:7070"),
		"other host":          replace("localhost", "evil.example"),
		"cross-site":          replace("\r\n", "\r\nSec-Fetch-Site: cross-site\r\n"),
		"same origin":         replace("\r\n", "\r\nOrigin: http://localhost\r\n"),
		"no such path":        replace("/v1/events/a", "/v2"),
		"root":                replace("/v1/events/a", "/"),
		"asterisk":            replace("POST /v1/events/a", "OPTIONS *"),
		"PUT":                 replace("POST", "PUT"),
		"GET":                 replace("POST", "GET"),
		"own method":          replace("POST", "BREW"),
		"old":                 replace("1.1", "1.0"),
		"old, kept":           strings.Replace(replace("1.1", "1.0"), "\r\n", "\r\nConnection: keep-alive\r\n", 1),
		"close":               replace("\r\n", "\r\nConnection: close\r\n"),
		"keep-alive":          replace("\r\n", "\r\nConnection: keep-alive\r\n"),
		"expects":             replace("\r\n", "\r\nExpect: 100-continue\r\n"),
		"long header":         replace("\r\n", "\r\nX-Long: "+strings.Repeat("x", 9999)+"\r\n"),
		"long body":           withLength(`"` + strings.Repeat("x", 99999) + `"`),
		"too long a body":     withLength(`"` + strings.Repeat("x", defaultMaxBody) + `"`),
		"not JSON":            withLength("nope"),
		"no body":             head + "\r\n",
		"length of zero":      head + "Content-Length: 0\r\n\r\n",
		"chunks of nothing":   head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"several, then less":  withLength("1") + withLength("2") + replace("POST", "PUT") + withLength("3") + head,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got [2]struct{ Answers, Events []string }
				for i := range got {
					k := new(kept)
					in := New(Options{Outbox: k, Route: route})
					s := server(NewServer(ServerOptions{Ingest: in}))
					if i == 1 {
						s = listen.NewServer(listen.ServerOptions{Handler: listen.Guard{}.Wrap(reference{in})})
					}
					answers := bufio.NewReader(bytes.NewReader(speak(t, s, []byte(text))))
					for {
						res, err := http.ReadResponse(answers, nil)
						if err != nil {
							break
						}
						body, _ := io.ReadAll(res.Body)
						a := answer{}
						if res.StatusCode != 100 && res.StatusCode != 408 {
							a = decodeAnswer(t, body)
						}
						if strings.HasSuffix(text, head) && (res.StatusCode == 408) {
							continue // net/http says nothing here
						}
						got[i].Answers = append(got[i].Answers, res.Status+" "+a.Code+" "+res.Header.Get("Connection"))
					}
					got[i].Events = k.events
				}
				if diff := cmp.Diff(got[1], got[0]); diff != "" {
					t.Errorf("net/http (-) and here (+): %s", diff)
				}
			})
		})
	}
}
