package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relay/relay/admin"
	"relay/relay/client"
)

func (c *command) config() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show which configuration a running Relay has, and why the last reload was refused",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			var r admin.Running
			return c.show(a, "/v1/config", &r, func() error {
				_, err := fmt.Fprint(c.out, runningText(&r))
				return err
			})
		},
	}
	askFlags(cmd, &a)
	return cmd
}

func runningText(r *admin.Running) string {
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d, hash %s, loaded at %s\n", r.Generation, r.Hash, r.LoadedAt.UTC().Format(time.RFC3339))
	for _, file := range r.Files {
		fmt.Fprintf(&b, "file %s\n", client.Printable(file))
	}
	fmt.Fprintf(&b, "endpoints %d, event types %d\n", r.Endpoints, r.EventTypes)
	if last := r.LastChange; last != nil {
		fmt.Fprintf(&b, "last change by %s at %s (generation %d):\n", last.By, last.At.UTC().Format(time.RFC3339), last.Generation)
		for _, line := range last.Lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "the last reload was refused: %s\n", client.Printable(r.Error))
	}
	for _, problem := range r.Problems {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(problem, "\n", "\n  "))
	}
	if len(r.Problems) > 0 {
		fmt.Fprintf(&b, "mend the file, look with relay check, then: relay reload\n")
	}
	return b.String()
}
