package front

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"relay/ingest/listen"
	"relay/ingest/problem"
)

// statusGone is logged for a client that left before there was an answer.
const statusGone = 499

// state is what is known of one request. It is the ResponseWriter of its handlers.
type state struct {
	http.ResponseWriter
	control *http.ResponseController
	site    *site

	status int   // 0 before the head
	bytes  int64 // of the body, to the client
	until  time.Time

	stream bool            // the answer has no end of its own
	client context.Context // ends when the client leaves
	cancel context.CancelFunc
	ends   []func() bool

	bodyTooLarge, bodyLate atomic.Bool
}

// stateKey is of the state in the context of a request.
type stateKey struct{}

func stateOf(ctx context.Context) *state {
	st, _ := ctx.Value(stateKey{}).(*state)
	return st
}

func newState(s *site, w http.ResponseWriter) *state {
	return &state{ResponseWriter: w, control: http.NewResponseController(w), site: s}
}

// serve answers the request, and records it.
func (st *state) serve(r *http.Request, secure bool) {
	began := time.Now()
	defer func() {
		for _, stop := range st.ends {
			stop()
		}
		st.record(r, time.Since(began))
	}()
	st.site.answer(st, r.WithContext(context.WithValue(r.Context(), stateKey{}, st)), secure)
}

// onEnd calls a function when the request is over.
func (st *state) onEnd(do func() bool) { st.ends = append(st.ends, do) }

// record counts and logs the request. The path has no query, which may hold secrets.
func (st *state) record(r *http.Request, took time.Duration) {
	if o := st.site.f.o.Observe; o != nil {
		o.FrontRequest(st.site.c.Host, st.status)
	}
	if !st.site.c.AccessLog {
		return
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	st.site.f.o.Log.Info().Str("host", hostName(r.Host)).Str("method", r.Method).Str("path", r.URL.EscapedPath()).
		Str("protocol", r.Proto).Str("client", client).Int("status", st.status).Int64("bytes", st.bytes).Dur("took", took).Msg("request")
}

// Unwrap is for http.ResponseController.
func (st *state) Unwrap() http.ResponseWriter { return st.ResponseWriter }

// WriteHeader passes the head on. Interim answers (1xx) have no events either.
func (st *state) WriteHeader(status int) {
	removeEvents(st.Header())
	st.progress()
	if status >= 200 || status == http.StatusSwitchingProtocols {
		st.status = status
	}
	st.ResponseWriter.WriteHeader(status)
}

func (st *state) Write(p []byte) (int, error) {
	if st.status == 0 {
		st.WriteHeader(http.StatusOK)
	}
	st.progress()
	n, err := st.ResponseWriter.Write(p)
	st.bytes += int64(n)
	return n, err
}

// progressEvery is how often deadlines move, so that most writes do not set one.
const progressEvery = time.Second

// progress gives the client another idle timeout to take what is written.
func (st *state) progress() {
	now := time.Now()
	if now.Before(st.until) {
		return
	}
	st.until = now.Add(progressEvery)
	_ = st.control.SetWriteDeadline(now.Add(st.site.c.IdleTimeout + progressEvery)) // not all connections can
}

// body is a request's body, bounded in size and in the time without progress.
type body struct {
	io.ReadCloser
	st      *state
	trailer http.Header // of the request
	left    int64
	bounded bool
	until   time.Time
}

func (b *body) Read(p []byte) (int, error) {
	now := time.Now()
	if !now.Before(b.until) {
		b.until = now.Add(progressEvery)
		_ = b.st.control.SetReadDeadline(now.Add(b.st.site.c.IdleTimeout + progressEvery))
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.bounded && b.left < 0 {
		b.st.bodyTooLarge.Store(true)
		return n + int(b.left), &http.MaxBytesError{Limit: b.st.site.c.MaxBody}
	}
	if err != nil {
		removeEvents(b.trailer)
		if isLate(err) {
			b.st.bodyLate.Store(true)
		}
		// The connection is read while the answer is made, to notice a client that leaves.
		_ = b.st.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// newServer makes the server of a listener. Bodies and answers take as long as they make
// progress, so there are no timeouts for them as a whole.
func (f *Front) newServer(l *listener) *listen.Server {
	s := listen.NewServer(listen.ServerOptions{Handler: f.handler(l), MaxConns: f.o.MaxConns, Log: f.o.Log})
	s.ReadTimeout, s.WriteTimeout = 0, 0
	s.ErrorLog = log.New(serverLog{f}, "", 0)
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	if l.kind == "https" {
		s.Protocols.SetHTTP2(true)
		s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingWait}
		s.TLSConfig = f.tlsConfig(l)
	}
	return s
}

// serverLog takes what net/http logs. Handshakes that fail are daily business of a public address:
// scanners, and clients that do not trust a certificate.
type serverLog struct{ f *Front }

func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "TLS handshake error") {
		l.f.o.Log.Debug().Str("error", text).Msg("http server")
	} else if repeats, ok := l.f.lines.Allow("http server"); ok {
		l.f.o.Log.Warn().Str("error", text).Int("repeats", repeats).Msg("http server")
	}
	return len(line), nil
}

// Limits of an HTTP/2 connection.
const (
	maxStreams = 128
	pingAfter  = 30 * time.Second // of silence
	pingWait   = 15 * time.Second
)

// eventError carries why an answer's events were not accepted to the answer.
type eventError struct{ problem *problem.Problem }

func (e *eventError) Error() string { return "event of the answer: " + e.problem.Detail }
