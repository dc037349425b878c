package ingest

import (
	"errors"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
)

// ErrServerClosed is what Serve of both servers returns after Shutdown or Close.
var ErrServerClosed = http.ErrServerClosed

// Wrap answers the requests that may not pass, and hands the others to next.
func (g Guard) Wrap(next http.Handler) http.Handler {
	gate := g.gate()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := gate.check(&caller{
			host:          r.Host,
			site:          r.Header.Get("Sec-Fetch-Site"),
			origin:        r.Header.Get("Origin"),
			authorization: r.Header.Get("Authorization"),
		})
		if p != nil {
			p.response().write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
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
	_, _ = w.Write(r.Body) // a client that has gone will ask again
}

// AdminOptions of an AdminServer. Handler must be given.
type AdminOptions struct {
	Handler  http.Handler
	MaxConns int // connections at a time; 0 = 1,024. More have to wait
	Log      zerolog.Logger
}

// AdminServer is an http.Server with all limits set, for what is not the way of
// the events.
type AdminServer struct {
	*http.Server
	places chan struct{} // holds one for each connection
}

// NewAdminServer makes an AdminServer; Serve starts it and Shutdown ends it.
func NewAdminServer(o AdminOptions) *AdminServer {
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns
	}
	s := &AdminServer{
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
// ErrServerClosed. It may be called for several listeners.
func (s *AdminServer) Serve(l net.Listener) error {
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
			tooMany().response().write(w)
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
