package post

import (
	"bufio"
	"bytes"
	"errors"
	"slices"

	"golang.org/x/net/http/httpguts"
)

// Faults of an answer's head or framing. No error quotes the receiver.
var (
	errNotHTTP  = errors.New("the answer is not HTTP")
	errHeadSize = errors.New("the header is too large")
	errFraming  = errors.New("the body's chunks are broken")
)

// readHead appends the head of an answer to dst, as far as its empty line. Lines may
// end with LF alone; they come out with CRLF, and a header that was folded over
// several lines as one. It reads at most limit bytes.
func readHead(dst []byte, in *bufio.Reader, limit int) ([]byte, error) {
	start, lines := len(dst), 0 // of the present line
	folded := false             // the line before it was folded
	for {
		part, err := in.ReadSlice('\n')
		if limit -= len(part); limit < 0 {
			return dst, errHeadSize
		}
		dst = append(dst, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case lines == 0 && len(dst) > start && !bytes.HasPrefix(dst[start:], []byte("HTTP/")):
			return dst, errNotHTTP
		case err != nil:
			return dst, err
		}
		line := bytes.TrimSuffix(dst[start:len(dst)-1], []byte("\r"))
		switch {
		case lines > 1 && len(line) > 0 && (line[0] == ' ' || line[0] == '\t'):
			before := dst[:start-len("\r\n")]
			if !folded {
				before = bytes.TrimRight(before, " \t")
			}
			folded = true
			dst = append(append(before, ' '), bytes.Trim(line, " \t")...)
		case lines > 0 && len(line) > 0 && bytes.IndexByte(line, ':') < 0:
			return dst, errNotHTTP
		default:
			folded = false
			dst = dst[:start+len(line)]
		}
		lines++
		dst = append(dst, '\r', '\n')
		if start = len(dst); len(line) == 0 {
			return dst, nil
		}
	}
}

// headLine is one header line of an answer.
type headLine struct {
	name, value []byte
}

// headLines appends the header lines of a head from readHead, in the order of the record: by
// canonical name, and those of one name as they came. Names become canonical within head.
func headLines(dst []headLine, head []byte) []headLine {
	_, rest, _ := bytes.Cut(head, []byte("\r\n"))
	for {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		canonical(name)
		dst = append(dst, headLine{name, bytes.Trim(value, " \t")})
	}
	slices.SortStableFunc(dst, func(a, b headLine) int { return bytes.Compare(a.name, b.name) })
	return dst
}

// isPlain tells whether a head, with its empty line, is the final one and unambiguous: HTTP/1.1,
// three digits, and header lines of a token, a colon and visible characters, none of them folded.
func isPlain(head []byte) bool {
	if len(head) < len("HTTP/1.1 200\r\n") || string(head[:9]) != "HTTP/1.1 " || head[9] < '2' || head[9] > '5' || !isDigit(head[10]) || !isDigit(head[11]) {
		return false
	}
	reason, rest, _ := bytes.Cut(head[12:], []byte("\r\n"))
	if len(reason) > 0 && reason[0] != ' ' || !isVisible(reason) {
		return false
	}
	for {
		var line []byte
		if line, rest, _ = bytes.Cut(rest, []byte("\r\n")); len(line) == 0 {
			return true
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) || !isVisible(line[colon+1:]) {
			return false
		}
	}
}

func isToken(name []byte) bool {
	for _, c := range name {
		if !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return true
}

func isVisible(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// plainMeaning is the meaning of a plain head that says no more than the length of the body and
// that the connection stays open. ok is false for any other head.
func plainMeaning(head []byte, lines []headLine) (m meaning, ok bool) {
	m = meaning{status: int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0'), size: sizeConnection}
	for _, l := range lines {
		switch string(l.name) {
		case "Content-Length":
			n, digits := parseDecimal(l.value)
			if !digits || m.size >= 0 {
				return m, false
			}
			m.size = n
		case "Connection":
			if !bytes.EqualFold(l.value, []byte("keep-alive")) {
				return m, false
			}
		case "Transfer-Encoding", "Trailer", "Upgrade":
			return m, false
		}
	}
	bodyless := m.status == 204 || m.status == 304
	return m, bodyless != (m.size >= 0) // a length without a body is unusual, too
}

// parseDecimal reads 1 to 9 digits.
func parseDecimal(text []byte) (n int, ok bool) {
	if len(text) == 0 || len(text) > 9 {
		return 0, false
	}
	for _, c := range text {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// plain drops lines that have no meaning for Relay and that the library refuses: a repeated
// Content-Length, and announced trailers.
func plain(lines []headLine) []headLine {
	lines = slices.CompactFunc(lines, func(a, b headLine) bool {
		return string(b.name) == "Content-Length" && bytes.Equal(a.name, b.name) && bytes.Equal(a.value, b.value)
	})
	return slices.DeleteFunc(lines, func(l headLine) bool {
		return string(l.name) == "Trailer" && httpguts.ValidHeaderFieldValue(string(l.value))
	})
}

// rebuild returns a head of lines under the status line of head.
func rebuild(head []byte, lines []headLine) []byte {
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	b := append(bytes.Clone(status), "\r\n"...)
	for _, l := range lines {
		b = l.append(b)
	}
	return append(b, "\r\n"...)
}

func (l headLine) append(dst []byte) []byte {
	dst = append(append(dst, l.name...), ": "...)
	return append(append(dst, l.value...), "\r\n"...)
}

// asHTTP11 replaces a later version in a status line by HTTP/1.1, as RFC 9110 section 2.5 asks;
// the library would take it for an earlier one. It replaces HTTP/0.0, too, as net/http does.
func asHTTP11(head []byte) {
	if len(head) < 9 || head[6] != '.' || head[8] != ' ' || !isDigit(head[5]) || !isDigit(head[7]) {
		return
	}
	if version := head[5:8]; string(version) > "1.1" || string(version) == "0.0" {
		copy(version, "1.1")
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// canonical gives a name the form in which headers are recorded: Content-Type. A name with a
// space has none.
func canonical(name []byte) {
	if bytes.IndexByte(name, ' ') >= 0 {
		return
	}
	upper := true
	for i, c := range name {
		switch {
		case upper && 'a' <= c && c <= 'z':
			name[i] = c - 'a' + 'A'
		case !upper && 'A' <= c && c <= 'Z':
			name[i] = c - 'A' + 'a'
		}
		upper = c == '-'
	}
}

// appendRecord appends the head's lines that the attempt's record keeps: all but those about the
// connection.
func appendRecord(dst []byte, lines []headLine, chunked, closes bool) []byte {
	for _, l := range lines {
		leave := bytes.IndexByte(l.name, ' ') >= 0 // it is not a name
		switch string(l.name) {
		case "Transfer-Encoding":
			leave = true
		case "Content-Length":
			leave = chunked
		case "Connection":
			leave = closes
		}
		if !leave {
			dst = l.append(dst)
		}
	}
	return dst[:min(len(dst), maxKeptHead)]
}

// endsConnection reports whether a head has "Connection: close", in any case and among other
// options.
func endsConnection(lines []headLine) bool {
	for _, l := range lines {
		if string(l.name) != "Connection" {
			continue
		}
		for option := range bytes.SplitSeq(l.value, []byte(",")) {
			if bytes.EqualFold(bytes.Trim(option, " \t"), []byte("close")) {
				return true
			}
		}
	}
	return false
}

// first returns the value of the first header of that canonical name.
func first(lines []headLine, name string) string {
	for _, l := range lines {
		if string(l.name) == name {
			return string(l.value)
		}
	}
	return ""
}
