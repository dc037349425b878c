package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

// maxChunkDigits bounds the size line of a chunk: far above any body, and without overflow of an
// integer.
const maxChunkDigits = 15

var (
	crlf = []byte("\r\n")

	errChunk     = errors.New("chunk is malformed")
	errChunkSize = errors.New("chunks exceed the limit")
)

// readChunks appends a chunked body to buf, up to limit bytes. It accepts only hexadecimal sizes
// without extensions, and no trailer fields after the last chunk. Errors are errChunk,
// errChunkSize and those of in.
func readChunks(in *bufio.Reader, buf []byte, limit int64) ([]byte, error) {
	for {
		size, err := chunkSize(in)
		if err != nil {
			return buf, err
		}
		if size > limit-int64(len(buf)) {
			return buf, errChunkSize
		}
		if size > 0 {
			if buf, err = readInto(in, buf, int(size)); err != nil {
				return buf, err
			}
		}
		line, err := in.Peek(len(crlf))
		if err != nil {
			return buf, err
		}
		if !bytes.Equal(line, crlf) {
			return buf, errChunk
		}
		if _, err := in.Discard(len(crlf)); err != nil || size == 0 {
			return buf, err
		}
	}
}

// chunkSize reads the size line of a chunk.
func chunkSize(in *bufio.Reader) (int64, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return 0, errChunk
	}
	if err != nil {
		return 0, err
	}
	digits, ok := bytes.CutSuffix(line, crlf)
	if !ok || len(digits) == 0 || len(digits) > maxChunkDigits {
		return 0, errChunk
	}
	for _, b := range digits {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') && (b < 'A' || b > 'F') {
			return 0, errChunk // ParseInt would accept a sign
		}
	}
	size, err := strconv.ParseInt(string(digits), 16, 64)
	if err != nil {
		return 0, errChunk
	}
	return size, nil
}

// readInto appends n bytes of in to buf.
func readInto(in io.Reader, buf []byte, n int) ([]byte, error) {
	start := len(buf)
	if need := start + n; cap(buf) < need {
		grown := make([]byte, need, max(need, 2*cap(buf)))
		copy(grown, buf)
		buf = grown
	}
	buf = buf[:start+n]
	read, err := io.ReadFull(in, buf[start:])
	return buf[:start+read], err
}

// buffer returns an empty buffer, which goes back to in.buffers.
func (in *Ingest) buffer() *[]byte {
	b, ok := in.buffers.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	*b = (*b)[:0]
	return b
}

// take reserves size bytes of the budget for all bodies being handled, and reports whether there
// was room. give returns them.
func (in *Ingest) take(size int64) bool {
	if in.inFlight.Add(size) <= in.o.maxInFlight {
		return true
	}
	in.inFlight.Add(-size)
	return false
}

func (in *Ingest) give(size int64) { in.inFlight.Add(-size) }

// shed refuses a request because there is no room for its body.
func (in *Ingest) shed() *problem.Problem {
	p := problem.New(problem.Overloaded, "the requests being handled are as large as Relay allows; send it again later")
	in.warn(p.Code, errors.New(p.Detail))
	return p
}

// bodyProblem says why a body could not be read completely.
func (in *Ingest) bodyProblem(err error) *problem.Problem {
	switch {
	case errors.Is(err, errChunkSize):
		return in.bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(problem.RequestTimeout, "the body did not come within "+listen.ReadTimeout.String())
	}
	return problem.New(problem.InvalidBody, "the body ended early, or its chunks are malformed")
}

func (in *Ingest) bodyTooLarge() *problem.Problem {
	return problem.New(problem.BodyTooLarge, "a body has at most "+strconv.FormatInt(in.o.MaxBody, 10)+" bytes; max_body in the ingest block sets this")
}
