package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Limits of the server. The body has MaxBody; a delay and a hang have no limit
// but the client's.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second // of a whole request
	writeTimeout  = 10 * time.Second // of an answer, after its delay
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10 // bytes
	maxConns      = 4096     // open at a time; one more is closed at once
	stopTimeout   = 2 * time.Second
)

// Serve answers on ln until ctx ends, then closes ln, ends delays and hangs, lets answers under
// way go out and returns nil. Error: ln failed before that.
func Serve(ctx context.Context, ln net.Listener, s *Sink) error {
	var open atomic.Int64
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// Requests end with ctx, which ends delays and hangs.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if open.Add(1) > maxConns {
					c.Close()
				}
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
			}
		},
	}
	broken := make(chan error, 1)
	go func() { broken <- srv.Serve(ln) }()
	select {
	case err := <-broken:
		return fmt.Errorf("serve sink on %s: %w", ln.Addr(), errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close() // clients that stay beyond the grace are disconnected
	}
	<-broken
	return nil
}

// reset resets the connection if it is TCP. HTTP/2 streams and Unix sockets are closed.
func reset(control *http.ResponseController) {
	conn, _, err := control.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn() // no farewell in TLS
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // makes Close send RST
	}
	conn.Close()
}
