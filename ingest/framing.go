package ingest

import (
	"bytes"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

// framing is what the header of a request says about the request's own form. It is
// read from the bytes as they came and more strictly than HTTP libraries read
// it: what two programs could read in two ways is refused, not chosen from.
type framing struct {
	old       bool  // HTTP/1.0
	close     bool  // the client wants the connection closed
	keepAlive bool  // the client asks to keep it, which in HTTP/1.0 has to be asked
	expect    bool  // the client waits for 100 Continue before it sends the body
	chunked   bool  // the body comes in chunks
	length    int64 // bytes of the body; 0 if chunked
	repeated  bool  // the same length is given more than once
	hostless  bool  // the header Host is there and empty (RFC 9112, section 3.2)
}

// headerEnd looks for the end of a header that begins with text and returns its
// size, or 0 while it is not whole. Nothing is looked for before from.
func headerEnd(text []byte, from int) (int, *problem.Problem) {
	for {
		n := bytes.IndexByte(text[from:], '\n')
		if n < 0 {
			return 0, nil
		}
		n += from
		if n == 0 || text[n-1] != '\r' {
			return 0, malformed("a line ends with a bare line feed; end it with CR LF")
		}
		if n == 1 {
			return 0, malformed("there is an empty line before the request line")
		}
		if n >= 3 && text[n-2] == '\n' {
			return n + 1, nil
		}
		from = n + 1
	}
}

// readFraming reads a whole header, from the request line to the empty line.
func readFraming(text []byte) (f framing, p *problem.Problem) {
	line, rest, _ := bytes.Cut(text, crlf)
	if f.old, p = readRequestLine(line); p != nil {
		return f, p
	}
	var seen seen
	for count := 0; ; count++ {
		if line, rest, _ = bytes.Cut(rest, crlf); len(line) == 0 {
			break
		}
		if count == listen.MaxHeaders {
			return f, listen.TooManyHeaders()
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) {
			return f, malformed("a header line is not a name and a colon, with no space before either")
		}
		value := bytes.Trim(line[colon+1:], " \t")
		if !isFieldValue(value) {
			return f, malformed("a header has a control character in its value")
		}
		if p := f.field(line[:colon], value, &seen); p != nil {
			return f, p
		}
	}
	switch {
	case seen.chunked && seen.length:
		return f, malformed("the length of the body is given by Content-Length and by chunks; send one of them")
	case seen.chunked && f.old:
		return f, malformed("HTTP/1.0 has no chunks; send Content-Length")
	case !f.old && !seen.host:
		return f, noHost()
	}
	return f, nil
}

// noHost refuses a request whose header Host is missing or empty.
func noHost() *problem.Problem {
	p := problem.New(problem.MissingHost, "send the Host header")
	p.Fatal = true
	return p
}

// seen are the fields that may stand in a header once.
type seen struct{ host, length, chunked, contentType bool }

// once notes a field and tells whether it is the first of its name.
func once(noted *bool) bool {
	first := !*noted
	*noted = true
	return first
}

// field takes what a header field says of the request's form. Fields are told
// apart by the length of their names first.
func (f *framing) field(name, value []byte, seen *seen) *problem.Problem {
	switch len(name) {
	case len("Host"):
		if isNamed(name, "host") {
			return f.host(value, seen)
		}
	case len("Expect"):
		if isNamed(name, "expect") {
			if !strings.EqualFold(string(value), "100-continue") {
				return problem.New(problem.ExpectationFailed, "the only expectation that can be met is 100-continue")
			}
			f.expect = !f.old
		}
	case len("Connection"):
		if isNamed(name, "connection") {
			values := []string{string(value)}
			f.close = f.close || httpguts.HeaderValuesContainsToken(values, "close")
			f.keepAlive = f.keepAlive || httpguts.HeaderValuesContainsToken(values, "keep-alive")
		}
	case len("Content-Type"):
		if isNamed(name, "content-type") && !once(&seen.contentType) {
			return malformed("the header Content-Type is there twice")
		}
	case len("Content-Length"):
		if isNamed(name, "content-length") {
			return f.contentLength(value, seen)
		}
	case len("Transfer-Encoding"):
		if isNamed(name, "transfer-encoding") {
			if !strings.EqualFold(string(value), "chunked") || !once(&seen.chunked) {
				return problem.New(problem.UnsupportedCoding, "the only transfer coding that can be read is chunked, given once")
			}
			f.chunked = true
		}
	}
	return nil
}

// contentLength takes one header line. Equal lengths, in a list or in several lines, are one
// length (RFC 9112, section 6.3).
func (f *framing) contentLength(value []byte, seen *seen) *problem.Problem {
	for item := range bytes.SplitSeq(value, []byte(",")) {
		n, ok := parseLength(bytes.Trim(item, " \t"))
		first := once(&seen.length)
		if !ok || !first && n != f.length {
			return malformed("Content-Length is one decimal number of bytes; where it is repeated, all are equal")
		}
		f.length, f.repeated = n, f.repeated || !first
	}
	return nil
}

// simplify rewrites in place what RFC 9112 allows and the HTTP library refuses: a repeated
// length, and HTTP/1.1 with an empty Host. The framing holds what they say.
func (f *framing) simplify(header []byte) {
	if f.hostless {
		header[bytes.Index(header, crlf)-1] = '0' // of HTTP/1.1
	}
	if !f.repeated {
		return
	}
	for line := range bytes.Lines(header) {
		if name, _, _ := bytes.Cut(line, []byte(":")); len(name) == len("Content-Length") && isNamed(name, "content-length") {
			name[0] = 'X'
		}
	}
}

func (f *framing) host(value []byte, seen *seen) *problem.Problem {
	switch {
	case !once(&seen.host):
		return malformed("the header Host is there twice")
	case len(value) == 0:
		f.hostless = !f.old
	case !httpguts.ValidHostHeader(string(value)):
		return malformed("the header Host holds no host")
	}
	return nil
}

// readRequestLine checks "METHOD target HTTP/1.x".
func readRequestLine(line []byte) (old bool, p *problem.Problem) {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || !isToken(method) || len(target) == 0 {
		return false, malformed("the request line is not a method, a target and a version, with one space between")
	}
	for _, b := range target {
		if b <= ' ' || b == 0x7f {
			return false, malformed("the target of the request has a control character")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
		return false, nil
	case "HTTP/1.0":
		return true, nil
	}
	return false, malformed("the version of HTTP is neither 1.1 nor 1.0")
}

// readTarget takes apart the target of a request: the path with its
// percent-encoding undone and otherwise as it came, and the host if the target
// names one.
func readTarget(target []byte) (path, host string, p *problem.Problem) {
	switch {
	case string(target) == "/v1/events": // most are this
		return "/v1/events", "", nil
	case target[0] != '/' && bytes.Contains(target, []byte("://")):
		u, err := url.ParseRequestURI(string(target))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Host == "" || !httpguts.ValidHostHeader(u.Host) {
			return "", "", malformed("the target of the request is not an address")
		}
		path, p = decodePath(u.EscapedPath())
		return path, u.Host, p
	}
	if target[0] != '/' {
		return "", "", nil // an asterisk, or the host of a CONNECT
	}
	path, _, _ = strings.Cut(string(target), "?")
	path, p = decodePath(path)
	return path, "", p
}

// decodePath undoes the percent-encoding of a path. An encoded slash is no
// separator, so that a path with one is none of ours: it is returned as "".
func decodePath(path string) (string, *problem.Problem) {
	if !strings.Contains(path, "%") {
		return path, nil
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "", malformed("the percent-encoding of the path is broken")
	}
	if strings.Count(decoded, "/") != strings.Count(path, "/") {
		return "", nil
	}
	return decoded, nil
}

// parseLength reads 1 to 18 digits, which no integer overflows on.
func parseLength(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	for _, b := range value {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = n*10 + int64(b-'0')
	}
	return n, true
}

// isNamed compares a field's name with one written in small letters.
func isNamed(name []byte, lower string) bool {
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b != lower[i] {
			return false
		}
	}
	return true
}

// isToken tells whether text is a token (RFC 9110, section 5.6.2).
func isToken(text []byte) bool {
	for _, b := range text {
		if !httpguts.IsTokenRune(rune(b)) {
			return false
		}
	}
	return len(text) > 0
}

// isFieldValue tells whether a header may hold the text: visible characters,
// spaces and tabs, and bytes above ASCII.
func isFieldValue(text []byte) bool {
	for _, b := range text {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// malformed refuses a request that cannot be read, or not in one way only.
func malformed(detail string) *problem.Problem { return problem.New(problem.InvalidRequest, detail) }
