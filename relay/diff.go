package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relay/relay/client"
	"relay/relay/explain"
)

func (c *command) diff() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say what a change of the configuration means",
		Long: "Say what the configuration NEW (a file, or a folder of *.hcl files) means to a Relay that runs\n" +
			"with OLD: for each endpoint, and for the process, which has to start again for its blocks. A\n" +
			"change of a policy is shown at every endpoint that it reaches. Both are read with this\n" +
			"environment. No outbox is read; values of secrets and headers are compared and not shown.",
		Example: "  git show HEAD:relay.hcl > old.hcl && relay diff old.hcl relay.hcl",
		Args:    argRange(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			oldFile, oldPolicy, errOld := c.load(args[:1])
			newFile, newPolicy, errNew := c.load(args[1:])
			if errOld != nil {
				return errOld
			}
			if errNew != nil {
				return errNew
			}
			d := explain.Compare(oldFile.Config, newFile.Config, oldPolicy, newPolicy)
			if asJSON {
				return client.JSON(c.out, d)
			}
			text := strings.Join(d.Lines(), "\n")
			if text == "" {
				text = "the same: Relay would do nothing else"
			}
			_, err := fmt.Fprintln(c.out, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
