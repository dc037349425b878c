package post

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// MaxKeptBody is how much of an answer's body is kept, in bytes.
const MaxKeptBody = maxKeptBody

// readBody reads up to maxBody bytes and returns the first maxKeptBody of them.
func readBody(r io.Reader) ([]byte, error) {
	kept, err := io.ReadAll(io.LimitReader(r, maxKeptBody))
	if err != nil || len(kept) < maxKeptBody {
		return kept, err
	}
	if _, err = io.CopyN(io.Discard, r, maxBody-maxKeptBody); errors.Is(err, io.EOF) {
		err = nil
	}
	return kept, err
}

// framing reads the body of an answer from a connection, up to the end of the body. An end of the
// connection before that is io.ErrUnexpectedEOF.
//
// The HTTP library's reader of chunks takes a body that is cut off between two chunks for
// complete, so a lost answer would count.
type framing struct {
	in      *bufio.Reader
	chunked bool
	closes  bool  // the body ends with the connection
	left    int64 // left of the body, or of the present chunk
	chunks  int   // begun
	excess  int64 // bytes besides data, beyond the usual
	whole   bool  // the whole body was read
}

// keep is readBody with exactly enough memory if the size is known.
func (b *framing) keep() ([]byte, error) {
	if b.chunked || b.closes || b.left > maxKeptBody {
		return readBody(b)
	}
	kept := make([]byte, b.left)
	n, err := io.ReadFull(b, kept)
	return kept[:n], err
}

func (b *framing) Read(p []byte) (int, error) {
	if b.chunked && b.left == 0 && !b.whole {
		if err := b.nextChunk(); err != nil {
			return 0, unexpected(err)
		}
	}
	if b.whole || b.left == 0 && !b.closes {
		b.whole = true
		return 0, io.EOF
	}
	if b.closes {
		n, err := b.in.Read(p)
		b.whole = err == io.EOF
		return n, err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.in.Read(p)
	b.left -= int64(n)
	b.whole = !b.chunked && b.left == 0
	return n, unexpected(err)
}

// nextChunk reads the lines between two chunks, and after the last one.
func (b *framing) nextChunk() error {
	if b.chunks++; b.chunks > 1 {
		if line, err := b.line(); err != nil || len(line) != 0 {
			return orFraming(err)
		}
	}
	line, err := b.line()
	if err != nil {
		return err
	}
	digits, _, _ := bytes.Cut(line, []byte(";")) // the rest is an extension
	if b.left, err = parseHex(bytes.TrimRight(digits, " \t")); err != nil {
		return err
	}
	if b.left > 0 {
		b.excess = max(b.excess-16-2*min(b.left, maxBody), 0)
		return nil
	}
	for { // trailers
		if line, err = b.line(); err != nil {
			return err
		}
		if len(line) == 0 {
			b.whole = true
			return nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return errFraming
		}
	}
}

// line reads a line without its CRLF. The overhead may be 16 bytes and twice the data for each
// chunk, and maxExcess more in all.
func (b *framing) line() ([]byte, error) {
	line, err := b.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errFraming
	case err != nil:
		return nil, err
	}
	if b.excess += int64(len(line)); b.excess > maxExcess+16 || !bytes.HasSuffix(line, []byte("\r\n")) {
		return nil, errFraming
	}
	if line = line[:len(line)-2]; bytes.IndexByte(line, '\r') >= 0 {
		return nil, errFraming // RFC 9112 section 2.2
	}
	return line, nil
}

func parseHex(digits []byte) (n int64, err error) {
	if len(digits) == 0 || len(digits) > 15 {
		return 0, errFraming
	}
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, errFraming
		}
		n = n<<4 | int64(c)
	}
	return n, nil
}

func orFraming(err error) error {
	if err == nil {
		return errFraming
	}
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
