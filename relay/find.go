package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"relay/relay/app"
	"relay/relay/client"
)

// finding has the flags that select the running Relay for a verb.
type finding struct {
	configs []string
	address string // --admin, or --to
}

// adminFlags adds the flags of verbs that talk to the admin listener.
func adminFlags(cmd *cobra.Command, f *finding) {
	configFlag(cmd, &f.configs)
	cmd.Flags().StringVar(&f.address, "admin", "", "`address` of the admin listener: unix:/path/admin.sock or http://host:port; else $RELAY_ADMIN, the run file, the configuration. Its token: $RELAY_ADMIN_TOKEN, or the configuration's")
}

// admin finds the admin listener of the selected Relay.
func (c *command) admin(f finding) (client.Target, error) {
	t, err := c.finder(f).Admin(f.address)
	return t, usage(err)
}

// ingest finds the listener for events of the selected Relay.
func (c *command) ingest(f finding, token string) (client.Target, error) {
	t, err := c.finder(f).Ingest(f.address, token)
	return t, usage(err)
}

func (c *command) finder(f finding) client.Finder {
	return client.Finder{Env: c.env, Configs: f.configs, Warn: func(problems error, asking string) {
		fmt.Fprintf(c.err, "relay: %v; what can be read of it says %s\n", c.diagnose(problems), asking)
	}}
}

// output is where tables go.
func (c *command) output() client.Output {
	return client.Output{Out: c.out, Err: c.err, Terminal: isTerminal(c.out)}
}

// isTerminal reports whether an input or output is a terminal.
func isTerminal(stream any) bool {
	if t, ok := stream.(terminal); ok {
		return t.is
	}
	w, ok := stream.(io.Writer)
	return ok && app.IsTerminal(w)
}

// usage converts usage errors of the package client to those of this one.
func usage(err error) error {
	if _, ok := errors.AsType[client.UsageError](err); ok {
		return usageError{err}
	}
	return err
}
