package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"relay/relay/client"
)

func (c *command) health() *cobra.Command {
	var find finding
	var live bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running Relay whether it is ready (exit 0) or not (exit 1)",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := c.admin(find)
			if err != nil {
				return err
			}
			path := "/readyz"
			if live {
				path = "/healthz"
			}
			return c.askHealth(t, path)
		},
	}
	adminFlags(cmd, &find)
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process runs, not whether it would accept")
	return cmd
}

func (c *command) askHealth(t client.Target, path string) error {
	code, answer, err := t.Do(http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		return t.AdminRefusal(code, answer)
	}
	var s struct{ Status, Reason string }
	if err := json.Unmarshal(answer, &s); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s: %s", s.Status, s.Reason)
	}
	_, err = io.WriteString(c.out, s.Status+"\n")
	return err
}
