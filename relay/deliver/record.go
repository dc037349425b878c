package deliver

import (
	"strings"

	"relay/policy"
	"relay/policy/sign"
	"relay/relay/post"
)

// MaxKeptBody is how much of an answer's body a record has, in bytes.
const MaxKeptBody = post.MaxKeptBody

// CodeNoSocket is that of an attempt for which no connection could be opened.
const CodeNoSocket = post.CodeNoSocket

// The codes of a delivered attempt whose answer's body was not whole.
const (
	CodeBodyCut     = post.CodeBodyCut
	CodeBodyTimeout = post.CodeBodyTimeout
)

// maxKeptRequest bounds the record of a request, in bytes.
const maxKeptRequest = 4 << 10

// recorder writes requests for the records of attempts. It cuts what a reader of records must not
// see: signatures, the values of the endpoint's own headers, and what the policy hides of the URL.
type recorder struct {
	first string   // method and URL
	cut   []string // names of headers
	more  int      // bytes that the last record had, about
}

func newRecorder(e *policy.Endpoint) *recorder {
	r := &recorder{first: "POST " + e.ShownURL().String() + "\r\n", more: 512}
	for _, s := range e.Signers {
		if s != nil { // a test's: signing panics, and only there
			r.cut = append(r.cut, s.Carriers()...)
		}
	}
	for _, h := range e.Headers {
		r.cut = append(r.cut, h.Name)
	}
	return r
}

// text is a request with the given header as the record has it: a line for the method and the
// URL, and one for each header, all ended by CRLF.
func (r *recorder) text(header []sign.Header) string {
	var b strings.Builder
	b.Grow(r.more)
	b.WriteString(r.first)
	for i := range header {
		h := &header[i]
		value := h.Value
		if r.cuts(h.Name) {
			value = policy.Hidden
		}
		if b.Len()+len(h.Name)+len(value)+len(": \r\n") > maxKeptRequest {
			break
		}
		b.WriteString(h.Name)
		b.WriteString(": ")
		b.WriteString(value)
		b.WriteString("\r\n")
	}
	return b.String()
}

func (r *recorder) cuts(name string) bool {
	for _, c := range r.cut {
		if strings.EqualFold(c, name) {
			return true
		}
	}
	return false
}

// Self tells of the Relay that makes attempts, for their records.
type Self struct {
	Relay      string // name
	Generation int64  // of its configuration
}
