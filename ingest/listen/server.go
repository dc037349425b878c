// Package listen decides who may talk to Relay: TCP and Unix listeners, the guard against web
// pages and strangers, the limits of connections, and the HTTP server of every surface except
// ingest.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ErrServerClosed is the error of a server's Serve after Shutdown or Close.
var ErrServerClosed = http.ErrServerClosed

// ServerOptions of a Server. Handler must be given.
type ServerOptions struct {
	Handler  http.Handler
	MaxConns int // connections at a time; 0 = 1,024. More have to wait, see Places
	Log      zerolog.Logger
}

// Server is an http.Server with all limits set, for every HTTP surface except ingest, which has
// ingest.Server.
type Server struct {
	*http.Server
	places *Places
	conns  sync.Map // of net.Conn to *Place
}

// NewServer makes a Server; Serve starts it and Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	s := &Server{
		places: NewPlaces(o.MaxConns),
		Server: &http.Server{
			Handler:           boundHeaders(o.Handler),
			ReadHeaderTimeout: ReadHeaderTimeout,
			ReadTimeout:       ReadTimeout,
			WriteTimeout:      WriteTimeout,
			IdleTimeout:       IdleTimeout,
			MaxHeaderBytes:    MaxHeaderBytes - 4<<10, // net/http adds 4 KiB to its limit
			ErrorLog:          log.New(warner{o.Log}, "", 0),

			DisableGeneralOptionsHandler: true, // OPTIONS * must pass the guard, too
		},
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		pl, _ := s.conns.Load(bare(c))
		return context.WithValue(withPeer(ctx, c), placeKey{}, pl)
	}
	s.ConnState = s.note
	return s
}

// bare is the connection that was accepted, without TLS.
func bare(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// note records a connection's state.
func (s *Server) note(c net.Conn, state http.ConnState) {
	c = bare(c)
	switch state {
	case http.StateIdle:
		if pl, ok := s.conns.Load(c); ok {
			pl.(*Place).Idle(time.Now())
		}
	case http.StateClosed, http.StateHijacked:
		if pl, ok := s.conns.LoadAndDelete(c); ok {
			pl.(*Place).Leave()
		}
	}
}

// Serve answers connections to l until Shutdown or Close, then returns ErrServerClosed. It may be
// called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	return s.Server.Serve(&capped{Listener: l, s: s, closed: make(chan struct{})})
}

// ServeTLS is Serve with the TLSConfig of the server.
func (s *Server) ServeTLS(l net.Listener) error {
	return s.Server.ServeTLS(&capped{Listener: l, s: s, closed: make(chan struct{})}, "", "")
}

// Passed records that a request passed what guards the server, so that its connection keeps its
// place.
func Passed(ctx context.Context) {
	if pl := placeOf(ctx); pl != nil {
		pl.Busy()
	}
}

// capped is a listener that returns a connection when there is a place for it. The connection
// itself is not wrapped: net/http must see its real type to close it in such a way that the
// client can read the last answer.
type capped struct {
	net.Listener
	s      *Server
	closed chan struct{}
}

func (c *capped) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	pl := c.s.places.Enter(conn, nil, c.closed)
	if pl == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c.s.conns.Store(conn, pl)
	return conn, nil
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
		if n > MaxHeaders {
			TooManyHeaders().Write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// warner logs errors of net/http, such as a failed accept.
type warner struct{ log zerolog.Logger }

func (w warner) Write(line []byte) (int, error) {
	w.log.Warn().Str("error", strings.TrimSpace(string(line))).Msg("http server")
	return len(line), nil
}
