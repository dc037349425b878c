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
	"relay/policy"
	"relay/relay/app"
)

// lameDuck is how long ingest must have been idle before a SIGTERM closes it, because the app
// often gets the same signal and still sends events. Ctrl-C does not wait.
const lameDuck = 2 * time.Second

func (c *command) serve() *cobra.Command {
	var configs []string
	var grace, lockWait time.Duration
	var watch bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Take events and deliver them, until SIGTERM or Ctrl-C",
		Long: "Take events and deliver them, until SIGTERM or Ctrl-C.\n\n" +
			"When the configuration changes (or on SIGHUP, or relay reload) it is read again: all of it is taken over,\n" +
			"or nothing, and then the log and GET /readyz say why. What the ingest, outbox, admin and log blocks say\n" +
			"changes only with a restart.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if grace < 0 || lockWait < 0 {
				return usageError{errors.New("--grace and --lock-wait cannot be negative")}
			}
			c.keepWriting()
			file, p, err := c.load(configs)
			if err != nil {
				return err
			}
			o := app.Options{Config: file.Config, Policy: p, Version: version, Grace: grace, LockWait: lockWait, Load: c.again(configs, file)}
			if hush := file.Config.Hushes(); hush != nil {
				c.lines.Hush(hush)
			}
			o.Log, o.LogDropped = app.NewLogger(file.Config.Log, c.lines), c.lines.Dropped
			if watch {
				o.Watch = file
			}
			file.Forget()
			return c.serveApp(o, file.Paths)
		},
	}
	configFlag(cmd, &configs)
	cmd.Flags().BoolVar(&watch, "watch", true, "reload when a file of the configuration changes")
	cmd.Flags().DurationVar(&lockWait, "lock-wait", 5*time.Second, "how long to wait for an outbox, sockets and ports that another process still has")
	cmd.Flags().DurationVar(&grace, "grace", 20*time.Second, "how long attempts under way may go on after a stop")
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

// serveApp runs an app, which was configured by files, until a signal ends it; a second signal
// ends it at once.
func (c *command) serveApp(o app.Options, files []string) error {
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

	hup := make(chan os.Signal, 1) // from here on a signal does not end the process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	hardenProcess()
	a, err := app.Open(ctx, o)
	close(opened)
	if err != nil {
		return err
	}
	defer c.announce(a, o, files)()
	listening, ignore := context.WithCancel(ctx)
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for {
			select {
			case <-hup:
				_, _ = a.Reload(listening, "SIGHUP") // the app has logged it
			case <-listening.Done():
				return
			}
		}
	})
	err = a.Run(ctx)
	ignore()
	reloads.Wait()
	return err
}
