package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"relay/relay/app"
	"relay/relay/child"
	"relay/relay/systemd"
)

// takesEventsWithin is how long the app of --exec waits for an outbox that does not answer. Then
// it starts anyway, so that an outage of Redis does not keep it down.
const takesEventsWithin = 5 * time.Second

// serveBeside runs a service and its app: the app starts when events are taken, and its end ends
// the service.
func (c *command) serveBeside(s service) error {
	path, err := child.Find(s.app[0])
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	b := &companion{path: path, run: newRun(s), environ: os.Environ, stop: stop}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, child.Passed()...)
	defer signal.Stop(signals)
	over := make(chan struct{})
	defer close(over)
	go b.steer(signals, over)

	hooks := supervise(s.options)
	ready := hooks.Ready
	hooks.Ready = func() { go b.start(ctx, ready) }
	b.run.options.Hooks = hooks
	err = c.runService(ctx, b.run)
	return b.end(err)
}

// companion is the app of --exec.
type companion struct {
	path    string
	run     *running
	environ func() []string
	stop    context.CancelCauseFunc // of the service

	mu      sync.Mutex
	app     *child.App // nil before its start
	failed  error      // why it could not start
	told    bool       // to end, by a signal
	stopped bool       // the service is to end, or has: the app no longer starts
}

// steer decides what signals do: they are the app's while it runs. Before that they end the
// service, and after it they shorten the stop.
func (b *companion) steer(signals <-chan os.Signal, over <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			b.signal(s)
		case <-over:
			return
		}
	}
}

func (b *companion) signal(s os.Signal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ends := s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGQUIT
	switch {
	case b.app != nil && !b.app.Over():
		b.told = b.told || ends
		b.app.Pass(s)
	case !ends: // a reload, or of no use without the app
	case b.app == nil && !b.stopped:
		b.stopped = true
		b.stop(app.Stop{By: s.String()})
	default:
		go b.run.hurry()
	}
}

// start starts the app once events are taken, tells that all is ready, and stops the service when
// the app has ended.
func (b *companion) start(ctx context.Context, ready func()) {
	log := b.run.options.Log
	if err := b.run.takesEvents(ctx); err != nil {
		log.Warn().Err(err).Msg("the app starts although no events are accepted yet")
	}
	a, err := b.launch()
	if err != nil {
		b.stop(err)
		return
	}
	if a == nil {
		return
	}
	log.Info().Msgf("the app %s runs, process %d", b.path, a.PID())
	ready()
	<-a.Ended()
	b.mu.Lock()
	defer b.mu.Unlock()
	stop := app.Stop{By: "the end of the app", Drain: b.run.drainAfterApp}
	if b.told {
		stop.Drain = b.run.drain
	}
	log.Info().Msgf("the app has ended with exit code %d", a.ExitCode())
	b.stop(stop)
}

// launch starts the app, unless the service is to end.
func (b *companion) launch() (*child.App, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, nil
	}
	b.app, b.failed = child.Start(b.path, b.run.service.app, b.environment())
	return b.app, b.failed
}

// end ends an app that outlives the service, which failed, and returns how the process ends.
func (b *companion) end(err error) error {
	b.mu.Lock()
	b.stopped = true
	a := b.app
	b.mu.Unlock()
	if a == nil {
		return errors.Join(b.failed, err)
	}
	if !a.Over() {
		a.Pass(syscall.SIGTERM)
		select {
		case <-a.Ended():
		case <-time.After(b.run.options.Grace):
			a.Kill()
			<-a.Ended()
		}
	}
	if err != nil {
		return err
	}
	return exitCode(a.ExitCode())
}

// takesEvents waits until an event would be accepted, and returns why it is not.
func (r *running) takesEvents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, takesEventsWithin)
	defer cancel()
	for {
		err := r.app.TakesEvents(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(healthEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// environment is Relay's own, without what is for Relay alone, and with the way to ingest.
func (b *companion) environment() []string {
	own := append([]string{"RELAY_SOCKET", "RELAY_URL", "RELAY_TOKEN"}, systemd.Variables...)
	env := slices.DeleteFunc(b.environ(), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(own, name)
	})
	var socket, url, token string
	for _, a := range slices.Backward(b.run.app.Addrs("ingest")) { // the first of each kind counts
		switch at := a.(type) {
		case *net.UnixAddr:
			socket = absolute(at.Name)
		case *net.TCPAddr:
			url, token = "http://"+dialable(at), b.run.options.Config.Ingest.HTTP[0].Token.Reveal()
		}
	}
	for name, value := range map[string]string{"RELAY_SOCKET": socket, "RELAY_URL": url, "RELAY_TOKEN": token} {
		if value != "" {
			env = append(env, fmt.Sprintf("%s=%s", name, value))
		}
	}
	return env
}

// dialable is the address at which a listener is reached from this machine. One on all addresses
// has the IPv4 ones, too.
func dialable(at *net.TCPAddr) string {
	if at.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: at.Port}).String()
	}
	return at.String()
}
