package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relay/config"
	"relay/policy"
	"relay/relay/app"
)

// lameDuck is how long ingest must have been idle before a SIGTERM closes it: the
// app beside us often gets the same signal and still has something to say. A
// person's Ctrl-C does not wait.
const lameDuck = 2 * time.Second

func (c *command) serve() *cobra.Command {
	var configs []string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Take events and deliver them, until SIGTERM or Ctrl-C",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if grace < 0 {
				return usageError{errors.New("--grace cannot be negative")}
			}
			file, p, err := c.load(configs)
			if err != nil {
				return err
			}
			return c.serveApp(file.Config, p, grace)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().DurationVar(&grace, "grace", 20*time.Second, "how long attempts under way may go on after a stop")
	return cmd
}

// serveApp runs an app until a signal ends it; the second signal is at once.
func (c *command) serveApp(cfg config.Config, p *policy.Policy, grace time.Duration) error {
	var a *app.App
	opened := make(chan struct{})
	ctx, cancel := untilSignal(func(s os.Signal) error {
		stop := app.Stop{By: s.String()}
		if s != os.Interrupt {
			stop.Linger = lameDuck
		}
		return stop
	}, func() {
		<-opened
		if a != nil {
			a.Abort()
		}
	})
	defer cancel()

	log := app.NewLogger(cfg.Log, c.err)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup: // must not end us: elsewhere it means reload
				log.Warn().Msg("SIGHUP is ignored: reload is not built yet, restart to read the files again")
			case <-ctx.Done():
				return
			}
		}
	}()

	hardenProcess()
	a, err := app.Open(ctx, app.Options{
		Config: cfg, Policy: p, Version: version, Grace: grace, Log: log,
	})
	close(opened)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
