package ingest

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/listen"
)

// maxAcceptPause is the longest wait before the next try, after a connection could not be
// accepted because resources were short.
const maxAcceptPause = time.Second

// ServerOptions of a Server. Ingest must be given.
type ServerOptions struct {
	Ingest    *Ingest
	Guard     listen.Guard
	MaxConns  int    // connections at a time; 0 = 1,024. More have to wait, see listen.Places
	OnRequest func() // called for each request that the guard lets through; may be nil
	Log       zerolog.Logger
}

// Server takes events over HTTP/1.1. Its methods may be called at the same time.
//
// A request's header has at most 32 KiB and 100 lines and comes within 5 seconds, the whole
// request within 30; an idle connection is kept for 2 minutes. Ambiguous requests are refused.
type Server struct {
	o      ServerOptions
	places *listen.Places
	ctx    context.Context
	cancel context.CancelFunc

	deadline sharedDeadline

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	running   sync.WaitGroup // of conns
	stopping  chan struct{}  // closed by Shutdown and Close
	stopped   bool
}

// NewServer makes a Server; Serve starts it and Shutdown ends it.
func NewServer(o ServerOptions) *Server {
	if o.MaxConns == 0 {
		o.MaxConns = listen.DefaultMaxConns
	}
	s := &Server{
		o:         o,
		places:    listen.NewPlaces(o.MaxConns),
		listeners: map[net.Listener]bool{},
		conns:     map[*conn]bool{},
		stopping:  make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers connections to l until Shutdown or Close, then returns listen.ErrServerClosed. It
// closes l. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	if !s.add(l) {
		return errors.Join(listen.ErrServerClosed, l.Close())
	}
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			if !s.start(nc) {
				return listen.ErrServerClosed
			}
		case s.isStopping():
			return listen.ErrServerClosed
		case mayPass(err):
			pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
			s.o.Log.Warn().Err(err).Msg("http server")
			select {
			case <-time.After(pause):
			case <-s.stopping:
			}
		default:
			return err
		}
	}
}

// mayPass reports whether a failed accept may succeed later, because it lacked file descriptors
// or memory.
func mayPass(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (s *Server) add(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.listeners[l] = true
	}
	return !s.stopped
}

// start waits for a place and serves the connection. It returns false when the
// server stops.
func (s *Server) start(nc net.Conn) bool {
	c := newConn(s, nc)
	if c.place = s.places.Enter(nc, c.retire, s.stopping); c.place == nil {
		_ = nc.Close() // nothing was read of it
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		_ = nc.Close()
		c.place.Leave()
		return false
	}
	s.conns[c] = true
	s.running.Go(func() {
		defer s.end(c)
		c.serve()
	})
	return true
}

// end closes a connection and frees its place.
func (s *Server) end(c *conn) {
	_ = c.Close() // Shutdown may have closed it
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.place.Leave()
}

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// stop ends the listeners, and closes the connections that end picks.
func (s *Server) stop(pick func(*conn) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.stopping)
	}
	var errs []error
	for l := range s.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		delete(s.listeners, l)
	}
	for c := range s.conns {
		if pick(c) {
			_ = c.Close() // the connection's own goroutine notices
		}
	}
	return errors.Join(errs...)
}

// Shutdown stops listening, closes connections that wait for a request, and waits until the
// requests under way are answered. If ctx ends before that, it returns ctx's error, and the
// caller must call Close.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop((*conn).retire)
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.cancel()
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops listening and closes all connections, even those with a request under way, whose
// wait for the outbox ends.
func (s *Server) Close() error {
	s.cancel()
	return s.stop(func(*conn) bool { return true })
}

// sharedDeadline hands out contexts that end after acceptTimeout, or up to a second earlier:
// requests of the same second share one, so that they do not need a timer each.
type sharedDeadline struct {
	mu    sync.Mutex
	ctx   context.Context
	until time.Time // when the next context is due
}

// from returns a context below parent. now is the time of the call.
func (d *sharedDeadline) from(parent context.Context, now time.Time) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || !now.Before(d.until) {
		// Nobody calls cancel: others may still wait on the context. It frees
		// itself when its time is over, or when the server closes.
		ctx, cancel := context.WithDeadline(parent, now.Add(acceptTimeout))
		context.AfterFunc(ctx, cancel)
		d.ctx, d.until = ctx, now.Add(time.Second)
	}
	return d.ctx
}
