package front

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
)

// Requests that two servers could read in two ways are refused, or go on as one that has one
// meaning (bad input B15). Each is followed by a second one on the same connection, which must
// not reach the upstream as a part of the first, nor in front of it.
func TestSmuggling(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	to := app(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s %s %v", r.Method, r.URL.Path, body, err))
		if len(r.TransferEncoding) > 0 && r.Header.Get("Content-Length") != "" || r.Header.Get("Transfer-Encoding") != "" {
			t.Errorf("two lengths went on: %v %v", r.Header, r.TransferEncoding)
		}
	})
	s := newStage(t)
	s.open(s.frontTo(to))
	const second = "GET /second HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	head := func(lines ...string) string {
		return "POST /first HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	hidden := "GET /smuggled HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	chunks := "0\r\n\r\n"
	number := 0
	for name, tt := range map[string]struct {
		sent   string
		status int    // of the first answer; 0: the body's meaning is clear, and it goes on
		body   string // that the upstream gets
	}{
		"length and chunks":                  {head(fmt.Sprintf("Content-Length: %d", len(chunks)+len(hidden)), "Transfer-Encoding: chunked") + chunks, 0, ""},
		"chunks and length":                  {head("Transfer-Encoding: chunked", "Content-Length: 6") + "5\r\nhello\r\n0\r\n\r\n", 0, "hello"},
		"two lengths":                        {head("Content-Length: 5", "Content-Length: 6") + "hello", 400, ""},
		"two lengths in one":                 {head("Content-Length: 5, 6") + "hello", 400, ""},
		"the same length twice":              {head("Content-Length: 5", "Content-Length: 5") + "hello", 0, "hello"},
		"length with a plus":                 {head("Content-Length: +5") + "hello", 400, ""},
		"negative length":                    {head("Content-Length: -5") + "hello", 400, ""},
		"length in hexadecimal":              {head("Content-Length: 0x5") + "hello", 400, ""},
		"another coding":                     {head("Transfer-Encoding: xchunked") + chunks, 501, ""},
		"chunked twice":                      {head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunks, 501, ""},
		"chunked and identity":               {head("Transfer-Encoding: chunked, identity") + chunks, 501, ""},
		"coding with a tab":                  {head("Transfer-Encoding:\tchunked") + chunks, 0, ""},
		"coding with a vertical tab":         {head("Transfer-Encoding: \vchunked") + chunks, 400, ""},
		"space before the colon":             {head("Transfer-Encoding : chunked") + chunks, 400, ""},
		"folded line":                        {head("X-A: b", " Transfer-Encoding: chunked", "Content-Length: 5") + "hello", 0, "hello"},
		"zero byte":                          {head("X-A: b\x00c", "Content-Length: 5") + "hello", 400, ""},
		"carriage return inside":             {head("X-A: b\rTransfer-Encoding: chunked", "Content-Length: 5") + "hello", 400, ""},
		"two hosts":                          {"POST /first HTTP/1.1\r\nHost: " + host + "\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\nhello", 400, ""},
		"no host":                            {"POST /first HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400, ""},
		"chunks with HTTP/1.0":               {"POST /first HTTP/1.0\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 0, ""},
		"chunk size that overflows":          {head("Transfer-Encoding: chunked") + "10000000000000005\r\nhello\r\n0\r\n\r\n", 502, ""},
		"chunk without its end":              {head("Transfer-Encoding: chunked") + "5\r\nhelloGET /smuggled HTTP/1.1\r\n\r\n", 502, ""},
		"chunk size with a sign":             {head("Transfer-Encoding: chunked") + "+5\r\nhello\r\n0\r\n\r\n", 502, ""},
		"another host in the target":         {"POST http://evil.example/first HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\n\r\nhello", 421, ""},
		"a proxy's method":                   {"CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 405, ""},
		"a target that is no path":           {"OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 400, ""},
		"a method with a line end":           {"GET\n/first HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 400, ""},
		"a body that is asked for by GET":    {"GET /first HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\n\r\nhello", 0, "hello"},
		"a header that Connection takes out": {head("Connection: Content-Length", "Content-Length: 5") + "hello", 0, "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			number++
			mark := fmt.Sprintf("-%d", number) // requests of other cases may still be ending
			c := s.dial()
			_, err := io.WriteString(c, strings.NewReplacer("/first", "/first"+mark, "/second", "/second"+mark).Replace(tt.sent+second))
			testkit.Must(t, err)
			from := bufio.NewReader(c)
			res, err := http.ReadResponse(from, nil)
			if err != nil {
				if tt.status == 0 {
					t.Fatal(err)
				}
				return // closed without an answer
			}
			_, _ = io.Copy(io.Discard, res.Body)
			want := tt.status
			if want == 0 {
				want = 200
			}
			if res.StatusCode != want {
				t.Errorf("got %d, want %d", res.StatusCode, want)
			}
			_, _ = http.ReadResponse(from, nil) // of the second, or the end
			mu.Lock()
			defer mu.Unlock()
			seen := slices.DeleteFunc(slices.Clone(seen), func(got string) bool { return !strings.Contains(got, mark+" ") && !strings.Contains(got, "smuggled") })
			for i, got := range seen {
				first := fmt.Sprintf(" /first%s %s <nil>", mark, tt.body)
				if strings.Contains(got, "smuggled") || tt.status == 0 && i == 0 && !strings.HasSuffix(got, first) || i > 1 {
					t.Errorf("the upstream got %q", seen)
				}
			}
			if tt.status == 0 && len(seen) == 0 {
				t.Error("nothing arrived")
			}
		})
	}
}

// Limits of a request's head (safety rule S27).
func TestHeadLimits(t *testing.T) {
	s := newStage(t)
	s.open(s.frontTo(app(t, echo)))
	for name, tt := range map[string]struct {
		header string
		status int
	}{
		"some":     {strings.Repeat("X-A: b\r\n", 90), 200},
		"too many": {strings.Repeat("X-A: b\r\n", 110), 431},
		"long":     {"X-A: " + strings.Repeat("x", 25<<10) + "\r\n", 200},
		"too long": {"X-A: " + strings.Repeat("x", 40<<10) + "\r\n", 431},
	} {
		c := s.dial()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, tt.header)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != tt.status {
			t.Errorf("%s: %v %v, want %d", name, res, err, tt.status)
		}
	}
}

// A client that holds connections open does not keep others out.
func TestConnectionsGiveWay(t *testing.T) {
	s := newStage(t)
	s.options.MaxConns = 4
	s.open(s.frontTo(app(t, echo)))
	for range 4 {
		c := s.dial() // and say nothing
		testkit.Must(t, c.SetDeadline(time.Time{}))
	}
	if res, _ := s.do(request(t, "GET", "https://"+host+"/", "")); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
}
