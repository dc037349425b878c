// Command relay is a webhook sidecar: it takes events from an app, keeps them in
// an outbox, and delivers them as signed POSTs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/app"
)

// version is set by the linker (see Makefile).
var version = "dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// lastLines is how long a process waits at its end for its log to be read.
const lastLines = time.Second

func main() {
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are the input and outputs of a verb.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command is the common part of all verbs.
type command struct {
	streams
	env   func(string) (string, bool)
	lines *app.Lines // replaces err after keepWriting; nil before
}

// keepWriting replaces err, so that writes to it neither block nor end the process. Otherwise a
// write blocks if nobody reads the pipe, and raises SIGPIPE if its reader is gone. Verbs that
// print and end should end by SIGPIPE, like any tool.
func (c *command) keepWriting() {
	// Ignored it would be ignored by an app of relay serve --exec, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	c.lines = app.NewLines(c.err)
	c.err = c.lines
}

// usageError is a mistake in the command line: exit 2 with a one-line hint.
type usageError struct{ error }

// exitCode is what the app of relay serve --exec ended with; nothing is left to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs the program with these arguments and returns its exit code.
func run(args []string, s streams) int {
	c := &command{streams: s, env: os.LookupEnv}
	return c.run(c.root(), args)
}

// run runs a verb, or the root with all of them.
func (c *command) run(root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	defer func() {
		if c.lines != nil {
			c.lines.Flush(lastLines)
		}
	}()
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(exitCode)):
		code, _ := errors.AsType[exitCode](err)
		return int(code)
	case errors.As(err, new(usageError)):
		fmt.Fprintf(c.err, "relay: %v; see: %s --help\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(c.err, "relay: %v\n", err)
		return exitFailed
	}
}

// root is the command without a verb, with all verbs below it.
func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "relay",
		Short:         "Relay delivers your app's events as signed webhooks",
		Long:          "Relay takes events from your app on a Unix socket or localhost, keeps them safe,\nand delivers them to every endpoint that wants them: signed, retried, logged.\n\nStart with: relay demo",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddCommand(c.serve(), c.check(), c.doctor(), c.explain(), c.diff(), c.keys(), c.types(), c.sink(), c.demo(), c.bench(), c.version())
	root.AddCommand(c.send(), c.deliveries(), c.events(), c.redeliver(), c.retry(), c.discard(), c.erase(), c.jobs(), c.test(), c.tail(), c.stats(), c.top(), c.audit())
	root.AddCommand(c.endpoints(), c.secret(), c.links(), c.access(), c.alerts(), c.pause(), c.resume(), c.enable(), c.disable(), c.health(), c.config(), c.reload())
	root.SetHelpCommand(help(root))
	return root
}

// help shows the help of a verb. Another word is wrong usage.
func help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB]", Short: "Show the help of a verb", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			verb, rest, err := root.Find(args)
			switch {
			case err != nil:
				return usageError{err}
			case len(rest) > 0:
				return noArgs(verb, rest)
			}
			return verb.Help()
		},
	}
}

// noArgs refuses arguments; for the root command it suggests a verb.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasParent() {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	err := fmt.Errorf("unknown verb %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		err = fmt.Errorf("%w, did you mean %q?", err, s[0])
	}
	return usageError{err}
}

// argRange is cobra.RangeArgs with a message of our own.
func argRange(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError{errors.New("an argument is missing")}
		case len(args) > most:
			return usageError{fmt.Errorf("unexpected argument %q", args[most])}
		}
		return nil
	}
}

// untilSignal returns a context that the first interrupt or SIGTERM ends, with stop(signal) as
// its cause; again is called for further ones. Without it signals end a verb as usual.
func untilSignal(stop func(os.Signal) error, again func()) (context.Context, context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if ctx.Err() == nil {
					cancel(stop(s))
				} else if again != nil {
					again()
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil); close(done) }
}
