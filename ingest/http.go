package ingest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Limits of a Server. An answer may take writeTimeout from the end of the
// request's header: time for a slow body, for the outbox, and for the way back.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute

	maxHeaderBytes = 32 << 10
	maxHeaders     = 100

	defaultMaxConns = 1024
)

// ServeHTTP is Handle for net/http. It bounds the body, and all bodies together.
func (in *Ingest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in.serve(w, r).write(w)
}

func (in *Ingest) serve(w http.ResponseWriter, r *http.Request) Response {
	if r.ContentLength > in.o.MaxBody {
		return in.bodyTooLarge().response()
	}
	size := r.ContentLength
	if size < 0 {
		size = in.o.MaxBody // no length was given: it may become this much
	}
	defer in.inFlight.Add(-size)
	if in.inFlight.Add(size) > in.o.MaxInFlight {
		p := refuse(overloaded, "the requests being handled are as large as Relay allows; send it again later")
		in.warn(p.Code, errors.New(p.Detail))
		return p.response()
	}

	body, ok := in.buffers.Get().(*bytes.Buffer)
	if !ok {
		body = new(bytes.Buffer)
	}
	defer in.buffers.Put(body)
	body.Reset()
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, in.o.MaxBody)); err != nil {
		return in.bodyProblem(err).response()
	}
	return in.Handle(r.Context(), &Request{
		Method:          r.Method,
		Path:            r.URL.Path,
		ContentType:     r.Header.Get("Content-Type"),
		ContentEncoding: strings.Join(r.Header["Content-Encoding"], ","),
		IdempotencyKey:  r.Header["Idempotency-Key"],
		CloudEvent:      len(r.Header["Ce-Specversion"]) > 0,
		Body:            body.Bytes(),
	})
}

// bodyProblem says why a body could not be read whole.
func (in *Ingest) bodyProblem(err error) *problem {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return in.bodyTooLarge()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(requestTimeout, "the body did not come within "+readTimeout.String())
	}
	return refuse(invalidBody, "the body ended early, or its chunks are malformed")
}

func (in *Ingest) bodyTooLarge() *problem {
	return refuse(bodyTooLarge, "a body has at most "+strconv.FormatInt(in.o.MaxBody, 10)+" bytes; max_body in the ingest block sets this")
}

// write sends the response.
func (r Response) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	if r.Allow != "" {
		h.Set("Allow", r.Allow)
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	if r.Challenge != "" {
		h.Set("WWW-Authenticate", r.Challenge)
	}
	if r.Close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body) // an app that has gone will ask again
}

// Guard keeps web pages and strangers out of a listener.
type Guard struct {
	Token   string   // bearer token that every request must show; "" = none is asked for
	Hosts   []string // host names that are answered, beside localhost and IP literals
	AnyHost bool     // for Unix sockets, which no web page can reach
}

// Wrap answers the requests that may not pass, and hands the others to next.
//
// The Host header must be an IP literal, localhost or one of Hosts, else 421:
// a web page whose own name was made to point here (DNS rebinding) still sends
// its name. A request that a page of another site caused is refused with 403.
// A missing or wrong token is 401.
func (g Guard) Wrap(next http.Handler) http.Handler {
	hosts := make([]string, len(g.Hosts))
	for i, h := range g.Hosts {
		hosts[i] = hostName(h)
	}
	token := sha256.Sum256([]byte(g.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p *problem
		switch {
		case !g.AnyHost && r.Host == "":
			p = refuse(missingHost, "send the Host header")
		case !g.AnyHost && !isLocal(r.Host) && !slices.Contains(hosts, hostName(r.Host)):
			p = refuse(unknownHost, "use localhost or an IP address, or add the name to hosts in the configuration")
		case isCrossOrigin(r):
			p = refuse(crossOrigin, "this listener is for programs, not for web pages")
		case g.Token != "" && !hasToken(r, token):
			p = refuse(unauthorized, "send the header Authorization: Bearer with the token of this listener")
		default:
			next.ServeHTTP(w, r)
			return
		}
		p.response().write(w)
	})
}

// hostName takes port, brackets and a final dot off a Host header.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// isLocal tells whether a Host header is one that DNS has no say in.
func isLocal(host string) bool {
	name := hostName(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

// isCrossOrigin tells whether a browser sent the request for a page of another
// origin. It decides as http.CrossOriginProtection does, but for GET as well,
// and never lets a null origin pass.
func isCrossOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false // no browser
		}
		u, err := url.Parse(origin)
		return err != nil || u.Host == "" || u.Host != r.Host
	}
	return true
}

// hasToken compares hashes, so that the time says nothing about the token.
func hasToken(r *http.Request, want [sha256.Size]byte) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// ServerOptions of a Server. Handler must be given.
type ServerOptions struct {
	Handler  http.Handler
	MaxConns int // connections at a time; 0 = 1,024. More have to wait
	Log      zerolog.Logger
}

// Server is an http.Server with all limits set.
type Server struct {
	*http.Server
	places chan struct{} // holds one for each connection
}

// NewServer makes a Server; Serve starts it and Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns
	}
	s := &Server{
		places: make(chan struct{}, o.MaxConns),
		Server: &http.Server{
			Handler:           boundHeaders(o.Handler),
			ReadHeaderTimeout: readHeaderTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes - 4<<10, // net/http reads 4 KiB more than it is told
			ErrorLog:          log.New(warner{o.Log}, "", 0),

			DisableGeneralOptionsHandler: true, // OPTIONS * has to pass the guard like all else
		},
	}
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			<-s.places
		}
	}
	return s
}

// Serve answers what connects to l until Shutdown or Close, then returns
// http.ErrServerClosed. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	return s.Server.Serve(&capped{Listener: l, places: s.places, closed: make(chan struct{})})
}

// capped is a listener that hands out a connection when there is a place for
// it. The connection itself is not wrapped: net/http must see its real type to
// close it in such a way that the client can read the last answer.
type capped struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
}

func (c *capped) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case c.places <- struct{}{}:
		return conn, nil
	case <-c.closed:
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
}

// Close is called once, by net/http.
func (c *capped) Close() error {
	close(c.closed)
	return c.Listener.Close()
}

// boundHeaders refuses requests of more than 100 headers.
func boundHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		for _, values := range r.Header {
			n += len(values)
		}
		if n > maxHeaders {
			refuse(tooManyHeaders, "a request has at most 100 headers").response().write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// warner logs what net/http has to say, such as a failing accept.
type warner struct{ log zerolog.Logger }

func (w warner) Write(line []byte) (int, error) {
	w.log.Warn().Str("error", strings.TrimSpace(string(line))).Msg("http server")
	return len(line), nil
}
