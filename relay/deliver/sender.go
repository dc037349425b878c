package deliver

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/gate"
)

// sender posts to one endpoint: http1, or http2 where the policy asks for it. Each
// has its HTTP library in its own file.
type sender interface {
	// send makes one request, on the wire at most once, and reads the answer.
	// A failure means that there is no whole answer; the answer then holds what
	// is known all the same. It ends at the time until, with codeTimeout, and when
	// ctx does, which is one and the same for all that a sender sends. header and
	// body are the caller's again when it returns.
	send(ctx context.Context, until time.Time, header []sign.Header, body []byte) (answer, *failure)

	// close closes all connections. Nothing is under way, and nothing is sent after it.
	close()
}

// newSender makes what an endpoint needs to be posted to. Connections and TLS
// sessions are the endpoint's own. ctx is the one that all of its attempts have.
func newSender(ctx context.Context, e *policy.Endpoint, o *Options, exchanges *sync.Pool) sender {
	d := &dialer{
		resolver:  o.resolver,
		guard:     newGuard(e.Egress, o.Own),
		plaintext: e.Egress.AllowPlaintext,
		timeout:   e.Timeout,
		dialNet:   o.dialNet,
	}
	d.secure(e, o.roots)
	if e.HTTP2 && e.URL.Scheme == "https" {
		d.tls.NextProtos = []string{"h2", "http/1.1"}
		return newHTTP2(e, d)
	}
	return newHTTP1(ctx, e, d, exchanges)
}

// answer is what a receiver said.
type answer struct {
	status     int
	head       string // header lines, at most maxKeptHead bytes
	retryAfter string
	body       []byte // at most maxKeptBody bytes
	timing     outbox.Timing
	reused     bool // the connection had served before

	rateHeaders gate.RateHeaders // where the endpoint obeys them
}

// rateHeadersOf reads how much the receiver still takes, of each header the first line
// by its newest name; first returns it by canonical name, "" for none.
func rateHeadersOf(first func(name string) string) gate.RateHeaders {
	newest := func(part string) string {
		return cmp.Or(first("Ratelimit-"+part), first("X-Ratelimit-"+part), first("X-Rate-Limit-"+part))
	}
	return gate.RateHeaders{RateLimit: first("Ratelimit"), Remaining: newest("Remaining"), Reset: newest("Reset")}
}

// failure is why there is no whole answer.
type failure struct {
	code string
	text string // for people; no secret
}

// Limits of an answer in bytes. What a receiver sends beyond maxBody is not
// read: the connection is closed.
const (
	maxHeader   = 64 << 10
	maxBody     = 64 << 10
	maxExcess   = 16 << 10 // between chunks
	maxKeptHead = 8 << 10
	maxKeptBody = 16 << 10
	maxText     = 512
)

// An idle connection is kept for less than common front ends keep theirs (60 s
// and more), so that it is rarely closed while a request is on its way.
const idleTimeout = 55 * time.Second

// exchangeFailure says why a connection brought no whole answer. answering tells
// whether some of it had come.
func exchangeFailure(err error, answering bool) *failure {
	code := exchangeCode(err, answering)
	switch {
	case code == codeBadResponse:
		// The library's words may quote the receiver.
		return &failure{code, "the answer is not HTTP, or its header is larger than 64 KiB"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{code, "the connection ended before the answer did"}
	}
	return &failure{code, clip(err.Error())}
}

func clip(s string) string { return s[:min(len(s), maxText)] }
