package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/ingest/listen"
	"relay/policy"
	"relay/relay/app"
	"relay/relay/systemd"
)

// lameDuck is how long ingest must have been idle before a SIGTERM closes it, because the app
// often gets the same signal and still sends events. Ctrl-C does not wait.
const lameDuck = 2 * time.Second

// drainAfterApp is how long deliveries go on by default after an app that ended by itself, as a
// job does: nobody may open its outbox again.
const drainAfterApp = 20 * time.Second

func (c *command) serve() *cobra.Command {
	var configs []string
	var grace, lockWait, drain time.Duration
	var watch, withApp bool
	cmd := &cobra.Command{
		Use:   "serve [--exec -- APP [ARG...]]",
		Short: "Take events and deliver them, until SIGTERM or Ctrl-C",
		Long: "Take events and deliver them, until SIGTERM or Ctrl-C.\n\n" +
			"When the configuration changes (or on SIGHUP, or relay reload) it is read again: all of it is taken over,\n" +
			"or nothing, and then the log and GET /readyz say why. What the ingest, outbox, admin and log blocks say\n" +
			"changes only with a restart, except for access, link_key and page of admin.\n\n" +
			"With --exec Relay starts the app when it takes events, with $RELAY_SOCKET, $RELAY_URL and $RELAY_TOKEN,\n" +
			"passes signals to it, and ends with its exit code after it: what is pending then is delivered for --drain.",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case !withApp:
				return noArgs(cmd, args)
			case len(args) == 0:
				return usageError{errors.New("--exec needs an app: relay serve --exec -- APP [ARG...]")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if grace < 0 || lockWait < 0 || drain < 0 {
				return usageError{errors.New("--grace, --lock-wait and --drain cannot be negative")}
			}
			s := service{drain: drain, drainAfterApp: drain, app: args}
			if !cmd.Flags().Changed("drain") { // a supervisor that stops the app wants a quick end
				s.drainAfterApp = drainAfterApp
			}
			c.keepWriting()
			file, p, err := c.load(configs)
			if err != nil {
				return err
			}
			o := app.Options{Config: file.Config, Policy: p, Version: version, Grace: grace, LockWait: lockWait, Load: c.again(configs, file), Hush: c.lines.Hush}
			if hush := file.Config.Hushes(); hush != nil {
				c.lines.Hush(hush)
			}
			o.Log, o.LogDropped = app.NewLogger(file.Config.Log, c.lines), c.lines.Dropped
			o.File, o.Watch = file, watch
			file.Forget()
			s.options, s.files = o, file.Paths
			return c.serveApp(s)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().BoolVar(&watch, "watch", true, "reload when a file of the configuration changes")
	cmd.Flags().DurationVar(&lockWait, "lock-wait", 5*time.Second, "how long to wait for an outbox, sockets and ports that another process still has")
	cmd.Flags().DurationVar(&grace, "grace", 20*time.Second, "how long attempts under way may go on after a stop")
	cmd.Flags().DurationVar(&drain, "drain", 0, "how long deliveries go on after a SIGTERM, until none is pending (with --exec also after the end of the app, there 20s by default)")
	cmd.Flags().BoolVar(&withApp, "exec", false, "run the app that follows --, and end with it")
	return cmd
}

// again returns a function that reads the configuration of the start again. It does not repeat
// the search order, so that removing the file does not activate another one.
func (c *command) again(flags []string, file *config.File) func() (*config.File, *policy.Policy, error) {
	if named, _ := c.env("RELAY_CONFIG"); len(flags) == 0 && named == "" {
		flags = file.Paths
	}
	return func() (*config.File, *policy.Policy, error) {
		paths, err := config.Find(flags, c.env)
		if err != nil {
			return nil, nil, err
		}
		file, p, err := c.read(paths)
		if err == nil {
			file.Forget()
		}
		return file, p, err
	}
}

// service is what relay serve runs.
type service struct {
	options       app.Options
	files         []string // of the configuration
	app           []string // of --exec, with its arguments; empty for none
	drain         time.Duration
	drainAfterApp time.Duration // when the app ends without a signal
}

// serveApp runs a Relay, which was configured by files, until a signal ends it; a second signal
// ends it at once. With an app, signals are the app's, and its end ends Relay.
func (c *command) serveApp(s service) error {
	if len(s.app) > 0 {
		return c.serveBeside(s)
	}
	r := newRun(s)
	ctx, cancel := untilSignal(func(sig os.Signal) error {
		stop := app.Stop{By: sig.String()}
		if sig != os.Interrupt {
			stop.Linger, stop.Drain = lameDuck, s.drain
		}
		return stop
	}, r.hurry)
	defer cancel()
	r.options.Hooks = supervise(s.options)
	return c.runService(ctx, r)
}

// running is one run of a service.
type running struct {
	service
	app    *app.App
	opened chan struct{} // closed when app is set, or never will be
}

func newRun(s service) *running { return &running{service: s, opened: make(chan struct{})} }

// hurry shortens the stop.
func (r *running) hurry() {
	<-r.opened
	if r.app != nil {
		r.app.Hurry()
	}
}

// runService runs the service until ctx ends.
func (c *command) runService(ctx context.Context, r *running) error {
	hup := make(chan os.Signal, 1) // from here on a signal does not end the process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	hardenProcess(len(r.service.app) > 0)
	err := r.open(ctx)
	close(r.opened)
	if stop, told := stoppedIn(ctx, err); told {
		r.options.Log.Info().Str("by", stop.By).Msg("stopped before it was ready")
		return nil
	}
	if err != nil {
		return err
	}
	defer c.announce(r.app, r.options, r.files)()
	listening, ignore := context.WithCancel(ctx)
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for {
			select {
			case <-hup:
				_, _ = r.app.Reload(listening, "SIGHUP") // the app has logged it
			case <-listening.Done():
				return
			}
		}
	})
	err = r.app.Run(ctx)
	ignore()
	reloads.Wait()
	return err
}

// stoppedIn tells whether an error of a start comes of the signal that ended ctx: that is a stop, and nothing failed.
func stoppedIn(ctx context.Context, err error) (stop app.Stop, told bool) {
	stop, told = errors.AsType[app.Stop](context.Cause(ctx))
	return stop, told && (errors.Is(err, context.Canceled) || errors.Is(err, stop))
}

// open opens the app, on the sockets that systemd passed, if any.
func (r *running) open(ctx context.Context) (err error) {
	if r.options.Given, err = listen.Inherit(systemd.Sockets()); err != nil {
		return err
	}
	r.app, err = app.Open(ctx, r.options)
	return err
}

// supervise tells systemd how the service does; without systemd it tells nobody.
func supervise(o app.Options) app.Hooks {
	log := o.Log
	check := func(err error) {
		if err != nil {
			log.Warn().Err(err).Msg("systemd was not told how Relay does")
		}
	}
	every, err := systemd.Watchdog()
	check(err)
	return app.Hooks{
		Ready:     func() { check(systemd.Ready("ready")) },
		Reloading: func() { check(systemd.Reloading()) },
		Reloaded: func(err error) {
			status := "ready"
			if err != nil {
				status = "ready; the last reload was refused: " + o.Config.Hush(err.Error())
			}
			check(systemd.Ready(status))
		},
		Stopping:   func() { check(systemd.Stopping()) },
		Alive:      func() { check(systemd.Alive()) },
		AliveEvery: every,
	}
}
