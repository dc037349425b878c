package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"relay/ingest/problem"
	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) reload() *cobra.Command {
	var find finding
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make a running Relay read its files again, and say what changed",
		Long: "Make a running Relay read its files again, and say what changed. All of it is taken over, or nothing:\n" +
			"with an error in a file, what runs goes on, the problems are printed, and the exit code is 1.\n\n" +
			"Where the Relay watches its files, it may have taken a change over before: then that change is named.\n\n" +
			"What the ingest, outbox, admin and log blocks say changes only with a restart, except for\n" +
			"access, link_key and page of admin.\n\n" +
			"The configuration given here only tells where the admin listener of the running Relay is.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			return c.askReload(t, asJSON)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *command) askReload(t client.Target, asJSON bool) error {
	code, answer, err := t.Do(client.Request{Method: http.MethodPost, Path: "/v1/reload"})
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return c.reloadRefusal(t, code, answer)
	}
	if asJSON {
		return client.JSON(c.out, json.RawMessage(answer))
	}
	var done admin.Reloaded
	if err := json.Unmarshal(answer, &done); err != nil {
		return fmt.Errorf("read answer of /v1/reload: %w", err)
	}
	fmt.Fprintf(c.out, "reloaded: generation %d, hash %s\n", done.Generation, done.Hash)
	switch last := done.LastChange; {
	case done.Differs():
		for _, line := range done.Lines {
			fmt.Fprintln(c.out, line)
		}
	case last != nil:
		fmt.Fprintf(c.out, "nothing differs; the last change was taken over by %s at %s (generation %d):\n",
			last.By, last.At.Format(time.RFC3339), last.Generation)
		for _, line := range last.Lines {
			fmt.Fprintln(c.out, "  "+line)
		}
	default:
		fmt.Fprintln(c.out, "nothing differs")
	}
	return nil
}

// reloadRefusal prints a line for each problem, and returns the error for the last line.
func (c *command) reloadRefusal(t client.Target, code int, answer []byte) error {
	var p struct {
		Code        problem.Code
		Diagnostics []string
	}
	if json.Unmarshal(answer, &p) != nil || len(p.Diagnostics) == 0 {
		return t.AdminRefusal(code, answer)
	}
	for _, line := range p.Diagnostics {
		fmt.Fprintln(c.err, line)
	}
	if p.Code == problem.NeedsRestart {
		return errors.New("not reloaded: restart Relay, or take the change back; until then it goes on with what it has")
	}
	return errors.New("not reloaded: the configuration has errors; Relay goes on with what it has")
}
