package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

// healthEvery is how often relay health --wait asks.
const healthEvery = 50 * time.Millisecond

func (c *command) health() *cobra.Command {
	var find finding
	var live bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running Relay whether it is ready (exit 0) or not (exit 1)",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if wait < 0 {
				return usageError{errors.New("--wait cannot be negative")}
			}
			path := "/readyz"
			if live {
				path = "/healthz"
			}
			return c.awaitHealth(find, path, wait)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process runs, not whether it would accept")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to ask again until it is, for a Relay that is starting")
	return cmd
}

// awaitHealth asks until the answer is good, for so long; at least once. Each time it looks again
// for the Relay, which writes its run file when it has started.
func (c *command) awaitHealth(find finding, path string, within time.Duration) error {
	quiet := *c
	quiet.err = io.Discard // what is wrong is said once, by the last one
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(min(healthEvery, time.Until(until))) {
		err := quiet.askHealth(find, path)
		if _, wrong := errors.AsType[usageError](err); err == nil || wrong {
			return err
		}
	}
	return c.askHealth(find, path)
}

func (c *command) askHealth(find finding, path string) error {
	t, err := c.admin(find)
	if err != nil {
		return err
	}
	code, answer, err := t.Do(client.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return t.AdminRefusal(code, answer)
	}
	var s struct {
		Status, Reason string
		Outbox         struct{ Spool admin.Spool }
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s: %s", s.Status, s.Reason)
	}
	if now := s.Outbox.Spool; now.Used {
		s.Status += fmt.Sprintf("\nthe spool takes the events: requests in it %d, %s", now.Waiting, cmp.Or(now.Reason, "they move to redis"))
	}
	_, err = io.WriteString(c.out, s.Status+"\n")
	return err
}
