package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ReplyError is an error that the server answered, as it stands in the reply:
// "WRONGTYPE Operation against …".
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// roundTrip sends a command and reads its reply. An error as the reply is its
// error.
func roundTrip(w io.Writer, r *bufio.Reader, args []string) (any, error) {
	request := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := w.Write(request); err != nil {
		return nil, err
	}
	reply, err := readReply(r)
	if err != nil {
		return nil, err
	}
	if e, ok := reply.(ReplyError); ok {
		return nil, e
	}
	return reply, nil
}

// readReply reads one value of RESP2.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("read reply: an empty line")
	}
	switch line[0] {
	case '+':
		return line[1:], nil
	case '-':
		return ReplyError(line[1:]), nil
	}
	n, err := strconv.ParseInt(line[1:], 10, 64)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read reply: %w", err)
	case line[0] == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case line[0] == '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return string(b[:n]), err
	case line[0] == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("read reply: unknown type %q", line[0])
}

// readFrame appends one whole value of RESP2 or RESP3 to frame, as it is.
func readFrame(r *bufio.Reader, frame []byte) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	frame = append(frame, line...)
	line = bytes.TrimRight(line, "\r\n")
	if len(line) == 0 {
		return frame, nil // an empty inline request
	}
	values := 0
	switch line[0] {
	case '$', '!', '=':
		n, err := count(line)
		if err != nil || n < 0 {
			return frame, err
		}
		start := len(frame)
		frame = append(frame, make([]byte, n+2)...)
		_, err = io.ReadFull(r, frame[start:])
		return frame, err
	case '*', '~', '>':
		values, err = count(line)
	case '%':
		values, err = count(line)
		values *= 2
	case '|': // attributes, and then the value that they are about
		values, err = count(line)
		values = 2*values + 1
	}
	for range values {
		if err == nil {
			frame, err = readFrame(r, frame)
		}
	}
	return frame, err
}

func count(line []byte) (int, error) {
	n, err := strconv.Atoi(string(line[1:]))
	if err != nil {
		return 0, fmt.Errorf("read frame: %w", err)
	}
	return n, nil
}
