package ingest

import (
	"bytes"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

// header is what the header of a request says. It is read once, from the bytes as they came, and
// more strictly than HTTP libraries read it: a header that two programs could read differently is
// refused.
type header struct {
	framing
	fields
}

// framing is the part of a header about the form of the request.
type framing struct {
	old       bool  // HTTP/1.0
	close     bool  // the client wants the connection closed
	keepAlive bool  // the client asks to keep the connection, as HTTP/1.0 requires
	expect    bool  // the client waits for 100 Continue before it sends the body
	chunked   bool  // the body is chunked
	length    int64 // bytes of the body; 0 if chunked
}

// fields are the other header fields that Relay reads, in the memory of the header. Of fields
// that may occur once, the first is kept; nil for none.
type fields struct {
	method, target              []byte
	host, contentType           []byte
	site, origin, authorization []byte
	keys, codings               [][]byte
	parents, states             [][]byte    // traceparent and tracestate
	attributes                  [][2][]byte // of a CloudEvent: names without attributePrefix, and values
}

// attributePrefix is the prefix of CloudEvents headers.
const attributePrefix = "ce-"

// headerEnd looks for the end of a header that begins with text and returns its size, or 0 while
// it is incomplete. The search begins at from.
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

// read reads a whole header, from the request line to the empty line. It reuses the memory of the
// last header.
func (h *header) read(text []byte) (p *problem.Problem) {
	*h = header{fields: fields{keys: h.keys[:0], codings: h.codings[:0], parents: h.parents[:0], states: h.states[:0], attributes: h.attributes[:0]}}
	line, rest, _ := bytes.Cut(text, crlf)
	if p = h.requestLine(line); p != nil {
		return p
	}
	var seen seen
	for count := 0; ; count++ {
		if line, rest, _ = bytes.Cut(rest, crlf); len(line) == 0 {
			break
		}
		if count == listen.MaxHeaders {
			return listen.TooManyHeaders()
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) {
			return malformed("a header line is not a name and a colon, with no space before either")
		}
		name, value := line[:colon], trim(line[colon+1:])
		if !isFieldValue(value) {
			return malformed("a header has a control character in its value")
		}
		if p := h.form(name, value, &seen); p != nil {
			return p
		}
		h.rest(name, value)
	}
	switch {
	case seen.chunked && seen.length:
		return malformed("the length of the body is given by Content-Length and by chunks; send one of them")
	case seen.chunked && h.old:
		return malformed("HTTP/1.0 has no chunks; send Content-Length")
	case !h.old && !seen.host:
		return noHost()
	}
	return nil
}

// trim takes spaces and tabs off both ends. The result may be empty but is never nil.
func trim(value []byte) []byte {
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	return value
}

// noHost refuses a request whose header Host is missing or empty.
func noHost() *problem.Problem {
	p := problem.New(problem.MissingHost, "send the Host header")
	p.Fatal = true
	return p
}

// seen are the fields that may occur once.
type seen struct{ host, length, chunked bool }

// once records a field and reports whether it is the first of its name.
func once(noted *bool) bool {
	first := !*noted
	*noted = true
	return first
}

// form reads a header field about the request's form. It compares the length of names first.
func (h *header) form(name, value []byte, seen *seen) *problem.Problem {
	switch len(name) {
	case len("Host"):
		if isNamed(name, "host") {
			return h.hostField(value, seen)
		}
	case len("Expect"):
		if isNamed(name, "expect") {
			if !strings.EqualFold(string(value), "100-continue") {
				return problem.New(problem.ExpectationFailed, "the only expectation that can be met is 100-continue")
			}
			h.expect = !h.old
		}
	case len("Connection"):
		if isNamed(name, "connection") {
			values := []string{string(value)}
			h.close = h.close || httpguts.HeaderValuesContainsToken(values, "close")
			h.keepAlive = h.keepAlive || httpguts.HeaderValuesContainsToken(values, "keep-alive")
		}
	case len("Content-Type"):
		if isNamed(name, "content-type") {
			if h.contentType != nil {
				return malformed("the header Content-Type is there twice")
			}
			h.contentType = value
		}
	case len("Content-Length"):
		if isNamed(name, "content-length") {
			return h.contentLength(value, seen)
		}
	case len("Transfer-Encoding"):
		if isNamed(name, "transfer-encoding") {
			if !strings.EqualFold(string(value), "chunked") || !once(&seen.chunked) {
				return problem.New(problem.UnsupportedCoding, "the only transfer coding that can be read is chunked, given once")
			}
			h.chunked = true
		}
	}
	return nil
}

// rest reads the other header fields.
func (f *fields) rest(name, value []byte) {
	switch len(name) {
	case len("Origin"):
		first(&f.origin, isNamed(name, "origin"), value)
	case len("Authorization"):
		first(&f.authorization, isNamed(name, "authorization"), value)
	case len("Sec-Fetch-Site"):
		first(&f.site, isNamed(name, "sec-fetch-site"), value)
	case len("Idempotency-Key"):
		if isNamed(name, "idempotency-key") {
			f.keys = append(f.keys, value)
		}
	case len("Traceparent"):
		if isNamed(name, "traceparent") {
			f.parents = append(f.parents, value)
		}
	case len("Tracestate"):
		if isNamed(name, "tracestate") {
			f.states = append(f.states, value)
		}
	case len("Content-Encoding"):
		if isNamed(name, "content-encoding") {
			f.codings = append(f.codings, value)
		}
	}
	if n := len(attributePrefix); len(name) > n && isNamed(name[:n], attributePrefix) {
		f.attributes = append(f.attributes, [2][]byte{name[n:], value})
	}
}

func first(field *[]byte, named bool, value []byte) {
	if named && *field == nil {
		*field = value
	}
}

// contentLength reads one header line. Equal lengths, in a list or in several lines, are one
// length (RFC 9112, section 6.3).
func (h *header) contentLength(value []byte, seen *seen) *problem.Problem {
	for item := range bytes.SplitSeq(value, []byte(",")) {
		n, ok := parseLength(bytes.Trim(item, " \t"))
		if !ok || !once(&seen.length) && n != h.length {
			return malformed("Content-Length is one decimal number of bytes; where it is repeated, all are equal")
		}
		h.length = n
	}
	return nil
}

func (h *header) hostField(value []byte, seen *seen) *problem.Problem {
	switch {
	case !once(&seen.host):
		return malformed("the header Host is there twice")
	case len(value) > 0 && !httpguts.ValidHostHeader(string(value)):
		return malformed("the header Host holds no host")
	}
	h.host = value
	return nil
}

// requestLine reads "METHOD target HTTP/1.x".
func (h *header) requestLine(line []byte) *problem.Problem {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || !isToken(method) || len(target) == 0 {
		return malformed("the request line is not a method, a target and a version, with one space between")
	}
	for _, b := range target {
		if b <= ' ' || b == 0x7f {
			return malformed("the target of the request has a control character")
		}
	}
	if target[0] != '/' && string(target) != "*" && string(method) != "CONNECT" && !bytes.Contains(target, []byte("://")) {
		return malformed("the target of the request is neither a path nor an address")
	}
	h.method, h.target = method, target
	switch string(version) {
	case "HTTP/1.1":
		return nil
	case "HTTP/1.0":
		h.old = true
		return nil
	}
	return malformed("the version of HTTP is neither 1.1 nor 1.0")
}

// readTarget splits the target of a request into the path, percent-decoded and otherwise
// unchanged, and the host if the target has one.
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

// decodePath undoes the percent-encoding of a path. An encoded slash is no separator. No route
// has one, so the result is then "".
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

// parseLength reads 1 to 18 digits, which cannot overflow an integer.
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

// isNamed compares a field's name with one in lower case.
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

// malformed refuses a request that cannot be read or is ambiguous.
func malformed(detail string) *problem.Problem { return problem.New(problem.InvalidRequest, detail) }
